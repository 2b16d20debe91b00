#include "common/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"

#define BACKLOG        4096 /* the kernel cuts it to net.core.somaxconn */
#define FIRST_FD       3
#define MAX_INHERITED  64
#define MAX_PATH_BYTES (sizeof((struct sockaddr_un *)0)->sun_path - 1)

/* ---- inherited ---- */

struct listen_inherited {
	unsigned n;
	struct {
		int fd; /* -1: claimed */
		char name[LISTEN_NAME_BYTES];
	} sockets[MAX_INHERITED];
};

static bool is_listening_stream(int fd)
{
	int type = 0, listening = 0;
	socklen_t len = sizeof type;
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
		return false;
	len = sizeof listening;
	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) == 0 && listening &&
	       type == SOCK_STREAM;
}

static void adopt(struct listen_inherited *inherited, int fd, const char *name, size_t name_len)
{
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0 || !is_listening_stream(fd)) {
		log_warn("inherited descriptor %d (\"%.*s\") is not a listening socket: left alone",
			fd, (int)name_len, name);
		return;
	}
	fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	inherited->sockets[inherited->n].fd = fd;
	snprintf(inherited->sockets[inherited->n].name, LISTEN_NAME_BYTES, "%.*s", (int)name_len,
		name);
	inherited->n++;
}

/* Whole and positive, or 0. */
static long positive_number(const char *text)
{
	char *end;
	long n = text ? strtol(text, &end, 10) : 0;
	return n > 0 && *end == '\0' ? n : 0;
}

struct listen_inherited *listen_inherited_take(void)
{
	long n = positive_number(getenv("LISTEN_FDS"));
	const char *names = getenv("LISTEN_FDNAMES");
	struct listen_inherited *inherited = NULL;
	if (n > 0 && positive_number(getenv("LISTEN_PID")) == getpid()) {
		inherited = calloc(1, sizeof *inherited);
		if (n > MAX_INHERITED) {
			log_warn("LISTEN_FDS is %ld: only %d sockets are looked at", n,
				MAX_INHERITED);
			n = MAX_INHERITED;
		}
	}
	for (int i = 0; inherited && i < n; i++) {
		size_t len = names ? strcspn(names, ":") : 0;
		adopt(inherited, FIRST_FD + i, len ? names : "unknown", len ? len : 7);
		if (names)
			names += len + (names[len] == ':');
	}
	/* They are ours: a child must not take them for its own. */
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	unsetenv("LISTEN_PID");
	return inherited;
}

int listen_inherited_claim(struct listen_inherited *inherited, const char *name)
{
	for (unsigned i = 0; inherited && i < inherited->n; i++)
		if (inherited->sockets[i].fd >= 0 &&
			strcmp(inherited->sockets[i].name, name) == 0) {
			int fd = inherited->sockets[i].fd;
			inherited->sockets[i].fd = -1;
			return fd;
		}
	return -1;
}

void listen_inherited_free(struct listen_inherited **inherited)
{
	struct listen_inherited *l = *inherited;
	if (!l)
		return;
	*inherited = NULL;
	for (unsigned i = 0; i < l->n; i++)
		if (l->sockets[i].fd >= 0) {
			log_warn("inherited socket \"%s\" has no use here: closed",
				l->sockets[i].name);
			close(l->sockets[i].fd);
		}
	free(l);
}

/* ---- errors ---- */

struct failure {
	const char *address;
	char *text;
	size_t size;
};

__attribute__((format(printf, 2, 3))) static int fail(
	const struct failure *failure, const char *fmt, ...)
{
	char why[160];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(why, sizeof why, fmt, ap);
	va_end(ap);
	snprintf(failure->text, failure->size, "%.120s %s", failure->address, why);
	return -1;
}

static int fail_errno(const struct failure *failure, int error)
{
	switch (error) {
	case EADDRINUSE:
		return fail(failure, "is in use by another process");
	case EADDRNOTAVAIL:
		return fail(failure, "is not an address of this machine");
	case EACCES:
		return fail(failure, "may not be listened on by this user");
	default:
		return fail(failure, "cannot be listened on: %s", strerror(error));
	}
}

/* ---- TCP ---- */

static int bind_tcp(const struct sockaddr *address, socklen_t len)
{
	int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	int one = 1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, address, len) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}

/* Both families at once, or IPv4 alone where the machine has no IPv6. */
static int bind_every_address(const struct failure *failure, unsigned port)
{
	struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
	struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int fd = bind_tcp((struct sockaddr *)&six, sizeof six);
	if (fd < 0 && (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL))
		fd = bind_tcp((struct sockaddr *)&four, sizeof four);
	return fd < 0 ? fail_errno(failure, errno) : fd;
}

static int open_tcp(const char *address, const struct failure *failure)
{
	char host[256];
	const char *colon = strrchr(address, ':');
	char *end;
	unsigned long port = colon && colon[1] ? strtoul(colon + 1, &end, 10) : 65536;
	if (port > 65535 || *end)
		return fail(failure, "is not host:port, [v6]:port or a path with a slash");
	size_t len = (size_t)(colon - address);
	if (len >= 2 && address[0] == '[' && address[len - 1] == ']') {
		address++;
		len -= 2;
	}
	if (len == 0 || (len == 1 && *address == '*'))
		return bind_every_address(failure, (unsigned)port);
	if (len >= sizeof host)
		return fail(failure, "has too long a host name");
	memcpy(host, address, len);
	host[len] = '\0';

	struct addrinfo hints = {
		.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	struct addrinfo *found;
	int rc = getaddrinfo(host, colon + 1, &hints, &found);
	if (rc != 0)
		return fail(failure, "cannot be resolved: %s", gai_strerror(rc));
	int fd = -1, error = 0;
	for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
		fd = bind_tcp(a->ai_addr, a->ai_addrlen);
		error = errno;
	}
	freeaddrinfo(found);
	return fd < 0 ? fail_errno(failure, error) : fd;
}

/* ---- Unix ---- */

/* 0: the name is free, or belonged to nobody; -1 with the error text. */
static int check_predecessor(const char *path, const struct failure *failure)
{
	struct stat st;
	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : fail_errno(failure, errno);
	if (!S_ISSOCK(st.st_mode))
		return fail(failure, "exists and is not a socket");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	memcpy(address.sun_path, path, strlen(path));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fail_errno(failure, errno);
	int rc = connect(fd, (struct sockaddr *)&address, sizeof address);
	int error = errno;
	close(fd);
	/* EAGAIN: somebody listens, and is busy. */
	if (rc == 0 || error == EAGAIN)
		return fail(failure, "is in use by another process");
	return error == ECONNREFUSED || error == ENOENT ? 0 : fail_errno(failure, error);
}

/* Make the socket under a name of its own, then move it into place. dir is locked. */
static int bind_unix(const char *name, int dir, struct listen_file *file)
{
	char temporary[32];
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct stat st;
	snprintf(temporary, sizeof temporary, ".socket.%d", (int)getpid());
	/* By the descriptor, so that the temporary name cannot make the path too long. */
	snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", dir, temporary);
	unlinkat(dir, temporary, 0);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
		goto fail_fd;
	if (fchmodat(dir, temporary, 0660, 0) < 0 || listen(fd, BACKLOG) < 0 ||
		fstatat(dir, temporary, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		renameat(dir, temporary, dir, name) < 0)
		goto fail_file;
	file->dev = st.st_dev;
	file->ino = st.st_ino;
	return fd;

	int error;
fail_file:
	error = errno;
	unlinkat(dir, temporary, 0);
	errno = error;
fail_fd:
	error = errno;
	close(fd);
	errno = error;
	return -1;
}

static int open_unix(const char *path, struct listen_file *file, const struct failure *failure)
{
	const char *slash = strrchr(path, '/');
	if (strlen(path) > MAX_PATH_BYTES)
		return fail(failure, "is too long for a socket: %zu bytes, at most %zu",
			strlen(path), MAX_PATH_BYTES);
	if (slash[1] == '\0')
		return fail(failure, "is a directory, not a socket");
	file->path = strdup(path);
	char *dir_path = slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
	int dir = -1, fd = -1;
	if (!file->path || !dir_path) {
		fail_errno(failure, ENOMEM);
		goto done;
	}
	dir = open(dir_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) {
		fail(failure, "cannot be made: directory %.60s: %s", dir_path, strerror(errno));
		goto done;
	}
	/* Two that start at once: the second one sees the first one's socket. */
	while (flock(dir, LOCK_EX) < 0 && errno == EINTR)
		;
	if (check_predecessor(path, failure) < 0)
		goto done;
	fd = bind_unix(slash + 1, dir, file);
	if (fd < 0)
		fail_errno(failure, errno);
done:
	if (dir >= 0)
		close(dir);
	free(dir_path);
	if (fd < 0) {
		free(file->path);
		file->path = NULL;
	}
	return fd;
}

int listen_open(const char *address, struct listen_file *file, char *error, size_t size)
{
	struct failure failure = {address, error, size};
	*file = (struct listen_file){.path = NULL};
	return strchr(address, '/') ? open_unix(address, file, &failure)
				    : open_tcp(address, &failure);
}

void listen_file_remove(struct listen_file *file)
{
	struct stat st;
	if (file->path && lstat(file->path, &st) == 0 && st.st_dev == file->dev &&
		st.st_ino == file->ino)
		unlink(file->path);
	free(file->path);
	file->path = NULL;
}

void listen_describe(int fd, char *text, size_t size)
{
	union {
		struct sockaddr any;
		struct sockaddr_un un;
		struct sockaddr_storage storage;
	} address;
	socklen_t len = sizeof address;
	char host[NI_MAXHOST], port[NI_MAXSERV];
	memset(&address, 0, sizeof address);
	if (getsockname(fd, &address.any, &len) < 0)
		snprintf(text, size, "?");
	else if (address.any.sa_family == AF_UNIX)
		snprintf(text, size, "%.*s", (int)sizeof address.un.sun_path, address.un.sun_path);
	else if (getnameinfo(&address.any, len, host, sizeof host, port, sizeof port,
			 NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		snprintf(text, size, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
	else
		snprintf(text, size, "?");
}

int listen_make_dir(const char *path)
{
	char *partial = strdup(path);
	if (!partial)
		return -1;
	int rc = 0;
	for (char *at = partial + 1; rc == 0 && *partial; at++) {
		if (*at != '/' && *at != '\0')
			continue;
		char end = *at;
		*at = '\0';
		if (mkdir(partial, 0750) < 0 && errno != EEXIST)
			rc = -1;
		*at = end;
		if (end == '\0')
			break;
	}
	struct stat st;
	if (rc < 0 || stat(path, &st) < 0) {
		rc = -1;
	} else if (!S_ISDIR(st.st_mode)) {
		errno = ENOTDIR;
		rc = -1;
	}
	int error = errno;
	free(partial);
	errno = error;
	return rc;
}
