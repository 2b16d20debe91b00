#include "supervisor/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"

#define FIRST_SOCKET 3
#define PATH_DEFAULT "/usr/local/bin:/bin:/usr/bin"

/* What the supervisor was started with; it raises its own. */
static struct rlimit descriptor_limit;
static bool limit_known;

/* What parent and child share while the child has not become another program. */
struct handover {
	const struct spawn *spawn;
	char *path;         /* of the program */
	char **environment; /* with LISTEN_*; one of them is listen_pid */
	char listen_pid[32];
	pid_t parent;
	const char *volatile failed; /* what the child could not do, and with what */
	const char *volatile failed_on;
	volatile int failed_errno;
};

/* ---- In the child: async-signal-safe calls only, and no memory is allocated. ---- */

static void child_fail(struct handover *h, const char *what, const char *on)
{
	h->failed_errno = errno;
	h->failed = what;
	h->failed_on = on;
	_exit(127);
}

static void child_reset_signals(void)
{
	struct sigaction action = {.sa_handler = SIG_DFL};
	for (int i = 1; i < NSIG; i++)
		sigaction(
			i, &action, NULL); /* fails for SIGKILL and SIGSTOP, and need not succeed */
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void child_arrange_descriptors(struct handover *h)
{
	const struct spawn *spawn = h->spawn;
	int n = (int)spawn->n_sockets, floor = FIRST_SOCKET + n;
	/* First everything out of the way, then each to its place. */
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int out = fcntl(spawn->out_fd >= 0 ? spawn->out_fd : null, F_DUPFD_CLOEXEC, floor);
	int err = fcntl(spawn->err_fd >= 0 ? spawn->err_fd : null, F_DUPFD_CLOEXEC, floor);
	int in = fcntl(null, F_DUPFD_CLOEXEC, floor);
	if (null < 0 || in < 0 || out < 0 || err < 0)
		child_fail(h, "open its standard streams", "");
	int moved[SPAWN_MAX_SOCKETS];
	for (int i = 0; i < n; i++) {
		moved[i] = fcntl(spawn->sockets[i], F_DUPFD_CLOEXEC, floor);
		if (moved[i] < 0)
			child_fail(h, "hand down its sockets", "");
	}
	if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0)
		child_fail(h, "open its standard streams", "");
	for (int i = 0; i < n; i++)
		if (dup2(moved[i], FIRST_SOCKET + i) < 0)
			child_fail(h, "hand down its sockets", "");
	close_range((unsigned)floor, ~0u, CLOSE_RANGE_CLOEXEC);
}

static void child_write_pid(char *digits)
{
	char text[16];
	size_t n = 0;
	for (pid_t pid = getpid(); pid; pid /= 10)
		text[n++] = (char)('0' + pid % 10);
	while (n)
		*digits++ = text[--n];
	*digits = '\0';
}

static rlim_t limit_of(uint64_t value)
{
	return value == UINT64_MAX ? RLIM_INFINITY : (rlim_t)value;
}

static void child_set_limits(struct handover *h)
{
	const struct spawn *spawn = h->spawn;
	if (limit_known)
		setrlimit(RLIMIT_NOFILE, &descriptor_limit);
	for (size_t i = 0; i < spawn->n_limits; i++) {
		struct rlimit limit = {
			limit_of(spawn->limits[i].soft), limit_of(spawn->limits[i].hard)};
		if (setrlimit((unsigned)spawn->limits[i].resource, &limit) < 0)
			child_fail(h, "set its limits", "");
	}
}

static void child_become_user(struct handover *h)
{
	const struct spawn_user *user = h->spawn->user;
	if (!user)
		return;
	if (setgroups(user->n_groups, user->groups) < 0 || setgid(user->gid) < 0 ||
		setuid(user->uid) < 0)
		child_fail(h, "become its user", "");
}

static void child_run(struct handover *h) __attribute__((noreturn));

static void child_run(struct handover *h)
{
	const struct spawn *spawn = h->spawn;
	child_reset_signals();
	setpgid(0, 0);
	child_arrange_descriptors(h);
	child_set_limits(h);
	if (spawn->umask >= 0)
		umask((mode_t)spawn->umask);
	child_become_user(h);
	/* After setuid(), which takes it back. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		child_fail(h, "be tied to the supervisor", "");
	if (getppid() != h->parent)
		_exit(127);
	if (spawn->directory && chdir(spawn->directory) < 0)
		child_fail(h, "go to directory", spawn->directory);
	child_write_pid(h->listen_pid + strlen("LISTEN_PID="));
	execve(h->path, spawn->argv, h->environment);
	child_fail(h, "run", spawn->argv[0]);
	_exit(127);
}

/* ---- In the supervisor. ---- */

void spawn_remember_limits(void)
{
	limit_known = getrlimit(RLIMIT_NOFILE, &descriptor_limit) == 0;
}

static bool is_program(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

/* As a shell finds it; in the child's directory and PATH. malloc()ed; NULL: not there. */
static char *find_program(const struct spawn *spawn)
{
	const char *name = spawn->argv[0];
	if (strchr(name, '/'))
		return strdup(name);
	const char *path = PATH_DEFAULT;
	for (char *const *e = spawn->environment; *e; e++)
		if (strncmp(*e, "PATH=", 5) == 0)
			path = *e + 5;
	while (*path) {
		size_t len = strcspn(path, ":");
		char *full = NULL;
		if (asprintf(&full, "%.*s%s%s", (int)len, path, len ? "/" : "./", name) < 0)
			return NULL;
		if (is_program(full))
			return full;
		free(full);
		path += len;
		path += *path == ':';
	}
	errno = ENOENT;
	return NULL;
}

/* The child's environment; the strings stay where they are. */
static int make_environment(struct handover *h, char *fds, char *names)
{
	const struct spawn *spawn = h->spawn;
	size_t n = 0;
	while (spawn->environment[n])
		n++;
	h->environment = malloc((n + 4) * sizeof *h->environment);
	if (!h->environment)
		return -1;
	memcpy(h->environment, spawn->environment, n * sizeof *h->environment);
	if (spawn->n_sockets) {
		h->environment[n++] = h->listen_pid;
		h->environment[n++] = fds;
		h->environment[n++] = names;
	}
	h->environment[n] = NULL;
	return 0;
}

/* Alone in its function, so that nothing kept in registers is lost between the two returns. */
static pid_t make_child(struct handover *h) __attribute__((noinline));

static pid_t make_child(struct handover *h)
{
	pid_t pid = vfork();
	if (pid == 0)
		child_run(h);
	return pid;
}

static pid_t run(struct handover *h, char *error, size_t error_size)
{
	/* No handler of ours may run in the child while it shares our memory. */
	sigset_t all, before;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid_t pid = make_child(h);
	int fork_errno = errno;
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (pid < 0) {
		snprintf(error, error_size, "cannot make a process: %s", strerror(fork_errno));
		return -1;
	}
	if (!h->failed)
		return pid;
	waitpid(pid, NULL, 0);
	snprintf(error, error_size, "cannot %s%s%s: %s", h->failed, *h->failed_on ? " " : "",
		h->failed_on, strerror(h->failed_errno));
	return -1;
}

pid_t spawn_process(const struct spawn *spawn, char *error, size_t error_size)
{
	struct handover h = {.spawn = spawn, .parent = getpid(), .listen_pid = "LISTEN_PID="};
	char fds[32], *names = NULL;
	pid_t pid = -1;
	BUG_ON(spawn->n_sockets > SPAWN_MAX_SOCKETS);
	snprintf(fds, sizeof fds, "LISTEN_FDS=%zu", spawn->n_sockets);
	if (asprintf(&names, "LISTEN_FDNAMES=%s", spawn->socket_names ? spawn->socket_names : "") <
		0)
		names = NULL;
	h.path = find_program(spawn);
	if (names && h.path && make_environment(&h, fds, names) == 0)
		pid = run(&h, error, error_size);
	else
		snprintf(error, error_size, "cannot run %s: %s", spawn->argv[0], strerror(errno));
	free(h.environment);
	free(h.path);
	free(names);
	return pid;
}
