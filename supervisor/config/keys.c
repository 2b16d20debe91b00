#include "supervisor/config/keys.h"

#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define AT(field) offsetof(struct process_config, field)

const struct key_row program_keys[] = {{"command", KEY_COMMAND, AT(command), NULL, 0, 0},
	{"process_name", KEY_ELSEWHERE, 0, NULL, 0, 0}, {"numprocs", KEY_ELSEWHERE, 0, NULL, 0, 0},
	{"numprocs_start", KEY_ELSEWHERE, 0, NULL, 0, 0},
	{"priority", KEY_INT, AT(priority), "999", -1000000, 1000000},
	{"autostart", KEY_BOOL, AT(autostart), "true", 0, 0},
	{"autorestart", KEY_AUTORESTART, AT(autorestart), "unexpected", 0, 0},
	{"exitcodes", KEY_EXIT_CODES, AT(exit_codes), "0", 0, 0},
	{"startsecs", KEY_MS, AT(start_ms), "1", 0, 0},
	{"startretries", KEY_INT, AT(start_retries), "3", 0, 1000000},
	{"restart_delay", KEY_MS, AT(restart_delay_ms), "1", 0, 0},
	{"restart_delay_max", KEY_MS, AT(restart_delay_max_ms), "60", 0, 0},
	{"stopsignal", KEY_SIGNAL, AT(stop_signal), "TERM", 0, 0},
	{"stopwaitsecs", KEY_MS, AT(stop_wait_ms), "10", 0, 0},
	{"stopasgroup", KEY_BOOL, AT(stop_as_group), NULL, 0, 0},
	{"killasgroup", KEY_BOOL, AT(kill_as_group), NULL, 0, 0}, {"user", KEY_USER, 0, NULL, 0, 0},
	{"umask", KEY_OCTAL, AT(umask), NULL, 0, 0777},
	{"directory", KEY_STRING, AT(directory), NULL, 0, 0},
	{"environment", KEY_ENVIRONMENT, AT(environment), NULL, 0, 0},
	{"redirect_stderr", KEY_BOOL, AT(redirect_stderr), NULL, 0, 0},
	{"stdout_logfile", KEY_LOG, AT(out), NULL, 0, 0},
	{"stdout_logfile_maxbytes", KEY_BYTES, AT(out.max_bytes), "50MB", 0, 0},
	{"stdout_logfile_backups", KEY_INT, AT(out.backups), "10", 0, 1000},
	{"stderr_logfile", KEY_LOG, AT(err), NULL, 0, 0},
	{"stderr_logfile_maxbytes", KEY_BYTES, AT(err.max_bytes), "50MB", 0, 0},
	{"stderr_logfile_backups", KEY_INT, AT(err.backups), "10", 0, 1000},
	/* What supervisord has not. */
	{"environment_file", KEY_LIST, AT(environment_files), NULL, 0, 0},
	{"secrets", KEY_ENVIRONMENT, AT(secrets), NULL, 0, 0},
	{"limits", KEY_LIMITS, 0, NULL, 0, 0}, {"sockets", KEY_SOCKETS, 0, NULL, 0, 0},
	{"ready", KEY_READY, 0, NULL, 0, 0},
	{"ready_timeout", KEY_MS, AT(ready_timeout_ms), "30", 0, 0},
	{"depends_on", KEY_LIST, AT(depends_on), NULL, 0, 0},
	/* What supervisord has and this does not. */
	{"stdout_capture_maxbytes", KEY_NO_EFFECT, 0, "there are no event listeners", 0, 0},
	{"stderr_capture_maxbytes", KEY_NO_EFFECT, 0, "there are no event listeners", 0, 0},
	{"stdout_events_enabled", KEY_NO_EFFECT, 0, "there are no event listeners", 0, 0},
	{"stderr_events_enabled", KEY_NO_EFFECT, 0, "there are no event listeners", 0, 0},
	{"stdout_syslog", KEY_NO_EFFECT, 0, "output goes to files or to stderr", 0, 0},
	{"stderr_syslog", KEY_NO_EFFECT, 0, "output goes to files or to stderr", 0, 0},
	{"serverurl", KEY_NO_EFFECT, 0, "podctl finds the supervisor by its socket", 0, 0}, {0}};

#define POD(field) offsetof(struct pod_config, field)
#define ON_STDERR  "the supervisor logs to stderr, by --log-level and --log-format"
#define FOREGROUND "the supervisor stays in the foreground and writes no pid file"
#define BY_CALLER  "whoever starts the supervisor sets it"

const struct key_row supervisord_keys[] = {
	{"environment", KEY_ENVIRONMENT, POD(environment), NULL, 0, 0},
	{"childlogdir", KEY_STRING, POD(child_log_dir), NULL, 0, 0},
	{"umask", KEY_OCTAL, POD(umask), NULL, 0, 0777},
	{"exit_on_fatal", KEY_BOOL, POD(exit_on_fatal), NULL, 0, 0},
	{"output_prefix", KEY_PREFIX, POD(output_prefix), NULL, 0, 0},
	{"logfile", KEY_NO_EFFECT, 0, ON_STDERR, 0, 0},
	{"logfile_maxbytes", KEY_NO_EFFECT, 0, ON_STDERR, 0, 0},
	{"logfile_backups", KEY_NO_EFFECT, 0, ON_STDERR, 0, 0},
	{"loglevel", KEY_NO_EFFECT, 0, ON_STDERR, 0, 0},
	{"silent", KEY_NO_EFFECT, 0, ON_STDERR, 0, 0},
	{"strip_ansi", KEY_NO_EFFECT, 0, "output is kept as it comes", 0, 0},
	{"nodaemon", KEY_NO_EFFECT, 0, FOREGROUND, 0, 0},
	{"pidfile", KEY_NO_EFFECT, 0, FOREGROUND, 0, 0}, {"user", KEY_ELSEWHERE, 0, NULL, 0, 0},
	{"directory", KEY_NO_EFFECT, 0, BY_CALLER, 0, 0},
	{"minfds", KEY_NO_EFFECT, 0, BY_CALLER, 0, 0},
	{"minprocs", KEY_NO_EFFECT, 0, BY_CALLER, 0, 0},
	{"identifier", KEY_NO_EFFECT, 0, "the supervisor is known by its socket", 0, 0},
	{"nocleanup", KEY_NO_EFFECT, 0, "AUTO log files have fixed names", 0, 0}, {0}};

static int fail(char *error, size_t size, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int fail(char *error, size_t size, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(error, size, fmt, ap);
	va_end(ap);
	return -1;
}

const struct key_row *key_find(const struct key_row *rows, const char *name)
{
	for (; rows->name; rows++)
		if (strcmp(rows->name, name) == 0)
			return rows;
	return NULL;
}

static int set_string(char **slot, const char *value)
{
	char *text = strdup(value);
	if (!text)
		return -1;
	free(*slot);
	*slot = text;
	return 0;
}

static int set_autorestart(enum autorestart *slot, const char *value)
{
	bool flag;
	if (strcasecmp(value, "unexpected") == 0)
		*slot = AUTORESTART_UNEXPECTED;
	else if (value_bool(value, &flag) == 0)
		*slot = flag ? AUTORESTART_ALWAYS : AUTORESTART_NEVER;
	else
		return -1;
	return 0;
}

static int set_prefix(int *slot, const char *value)
{
	static const char *const names[] = {"auto", "always", "never"};
	for (int i = 0; i < 3; i++)
		if (strcasecmp(value, names[i]) == 0) {
			*slot = i;
			return 0;
		}
	return -1;
}

static int set_log(struct log_config *log, const char *value)
{
	if (strcasecmp(value, "none") == 0 || strcasecmp(value, "off") == 0)
		log->kind = LOG_KIND_NONE;
	else if (strcasecmp(value, "auto") == 0)
		log->kind = LOG_KIND_AUTO;
	else {
		log->kind = LOG_KIND_FILE;
		return set_string(&log->path, value);
	}
	return 0;
}

static int set_user(struct process_config *process, const char *value, char *error, size_t size)
{
	int64_t number;
	struct passwd *entry = value_int(value, 0, UINT32_MAX - 1, &number) == 0
				       ? getpwuid((uid_t)number)
				       : getpwnam(value);
	if (!entry)
		return fail(error, size, "there is no user \"%s\"", value);
	process->has_user = true;
	process->uid = entry->pw_uid;
	process->gid = entry->pw_gid;
	return set_string(&process->user, entry->pw_name);
}

/* "…:PORT", or "PORT" alone. */
static bool ends_with_port(const char *text)
{
	const char *colon = strrchr(text, ':');
	int64_t port;
	return value_int(colon ? colon + 1 : text, 0, 65535, &port) == 0;
}

static int set_ready(struct process_config *process, const char *value, char *error, size_t size)
{
	static const struct {
		const char *name;
		enum ready_kind kind;
		bool may_have_target, must_have_target;
	} kinds[] = {{"none", READY_NONE, false, false}, {"notify", READY_NOTIFY, false, false},
		{"rpc", READY_RPC, true, false}, {"tcp", READY_TCP, true, true},
		{"http", READY_HTTP, true, true}};
	size_t len = strcspn(value, ":");
	const char *target = value[len] == ':' && value[len + 1] ? value + len + 1 : NULL;
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		if (!span_equal_str((struct span){value, len}, kinds[i].name))
			continue;
		if (target ? !kinds[i].may_have_target : kinds[i].must_have_target)
			break;
		if (kinds[i].kind == READY_TCP && !ends_with_port(target))
			break;
		process->ready = kinds[i].kind;
		/* A URL keeps its scheme. */
		if (kinds[i].kind == READY_HTTP && strncmp(target, "//", 2) == 0)
			target = value;
		free(process->ready_target);
		process->ready_target = NULL;
		return target ? set_string(&process->ready_target, target) : 0;
	}
	return fail(error, size,
		"\"%s\" is not none, notify, rpc, rpc:SOCKET, tcp:PORT, tcp:HOST:PORT, "
		"http:PORT/PATH or http://HOST:PORT/PATH",
		value);
}

static void clear_sockets(struct process_config *process)
{
	for (size_t i = 0; i < process->n_sockets; i++) {
		free(process->sockets[i].name);
		free(process->sockets[i].address);
	}
	free(process->sockets);
	process->sockets = NULL;
	process->n_sockets = 0;
}

static int add_socket(struct process_config *process, const char *item, char *error, size_t size)
{
	const char *equals = strchr(item, '=');
	if (!equals || equals == item || !equals[1])
		return fail(error, size, "\"%s\" is not NAME=ADDRESS", item);
	struct span name = {item, (size_t)(equals - item)};
	/* LISTEN_FDNAMES separates names by colons. */
	if (strcspn(item, ": \t") < name.len || name.len > 255)
		return fail(error, size, "a socket's name has no blank and no colon");
	for (size_t i = 0; i < process->n_sockets; i++)
		if (span_equal_str(name, process->sockets[i].name))
			return fail(
				error, size, "two sockets of the name \"%.*s\"", SPAN_ARG(name));
	const char *address = equals + 1;
	if (!strchr(address, '/') && !(strchr(address, ':') && ends_with_port(address)))
		return fail(error, size, "\"%s\" is not host:port and not a path with a slash",
			address);
	struct socket_config *bigger = realloc(
		process->sockets, (process->n_sockets + 1) * sizeof *bigger);
	if (!bigger)
		return fail(error, size, "out of memory");
	process->sockets = bigger;
	struct socket_config *s = &bigger[process->n_sockets++];
	s->name = strndup(name.data, name.len);
	s->address = strdup(address);
	return s->name && s->address ? 0 : fail(error, size, "out of memory");
}

static int set_sockets(struct process_config *process, const char *value, char *error, size_t size)
{
	struct strings items = {0};
	clear_sockets(process);
	int result = value_list(value, &items);
	if (result < 0)
		fail(error, size, "out of memory");
	else if (items.n > POD_MAX_SOCKETS)
		result = fail(error, size, "more than %d sockets", POD_MAX_SOCKETS);
	for (size_t i = 0; i < items.n && result == 0; i++)
		result = add_socket(process, items.items[i], error, size);
	strings_free(&items);
	return result;
}

static const struct {
	const char *name;
	int resource;
} limit_names[] = {{"as", RLIMIT_AS}, {"core", RLIMIT_CORE}, {"cpu", RLIMIT_CPU},
	{"data", RLIMIT_DATA}, {"fsize", RLIMIT_FSIZE}, {"memlock", RLIMIT_MEMLOCK},
	{"msgqueue", RLIMIT_MSGQUEUE}, {"nice", RLIMIT_NICE}, {"nofile", RLIMIT_NOFILE},
	{"nproc", RLIMIT_NPROC}, {"rtprio", RLIMIT_RTPRIO}, {"sigpending", RLIMIT_SIGPENDING},
	{"stack", RLIMIT_STACK}};

static int limit_value(struct span text, uint64_t *result)
{
	char copy[32];
	if (!text.len || text.len >= sizeof copy)
		return -1;
	snprintf(copy, sizeof copy, "%.*s", SPAN_ARG(text));
	if (strcasecmp(copy, "unlimited") == 0 || strcasecmp(copy, "infinity") == 0) {
		*result = UINT64_MAX;
		return 0;
	}
	return value_bytes(copy, result);
}

/* NAME=SOFT or NAME=SOFT:HARD */
static int add_limit(struct process_config *process, const char *item, char *error, size_t size)
{
	size_t name = strcspn(item, "=");
	struct limit_config limit = {.resource = -1};
	for (size_t i = 0; i < sizeof limit_names / sizeof *limit_names; i++)
		if (span_equal_str((struct span){item, name}, limit_names[i].name))
			limit.resource = limit_names[i].resource;
	if (limit.resource < 0)
		return fail(error, size,
			"\"%s\" does not begin with as=, core=, cpu=, data=, fsize=, memlock=, "
			"msgqueue=, nice=, nofile=, nproc=, rtprio=, sigpending= or stack=",
			item);
	const char *soft = item + name + (item[name] == '=');
	size_t len = strcspn(soft, ":");
	struct span hard = soft[len] ? span_of(soft + len + 1) : (struct span){soft, len};
	if (limit_value((struct span){soft, len}, &limit.soft) < 0 ||
		limit_value(hard, &limit.hard) < 0)
		return fail(error, size,
			"\"%s\" is not NAME=SOFT or NAME=SOFT:HARD with numbers, KB, MB, GB or "
			"unlimited",
			item);
	if (limit.soft > limit.hard)
		return fail(error, size, "\"%s\": the soft limit is above the hard one", item);
	if (process->n_limits == POD_MAX_LIMITS)
		return fail(error, size, "more than %d limits", POD_MAX_LIMITS);
	process->limits[process->n_limits++] = limit;
	return 0;
}

static int set_limits(struct process_config *process, const char *value, char *error, size_t size)
{
	struct strings items = {0};
	process->n_limits = 0;
	int result = value_list(value, &items);
	if (result < 0)
		fail(error, size, "out of memory");
	for (size_t i = 0; i < items.n && result == 0; i++)
		result = add_limit(process, items.items[i], error, size);
	strings_free(&items);
	return result;
}

/* A list that is set anew: what was there goes. */
static int set_list(struct strings *list, const char *value, const char **why,
	int (*parse)(const char *text, struct strings *items, const char **why))
{
	strings_free(list);
	return parse(value, list, why);
}

static int parse_list(const char *text, struct strings *items, const char **why)
{
	*why = "out of memory";
	return value_list(text, items);
}

static int set_simple(const struct key_row *row, void *slot, const char *value, const char **wanted)
{
	int64_t number;
	switch (row->kind) {
	case KEY_STRING:
		*wanted = "a text";
		return set_string(slot, value);
	case KEY_BOOL:
		*wanted = "true or false";
		return value_bool(value, slot);
	case KEY_INT:
		*wanted = "a whole number in its range";
		return value_int(value, row->min, row->max, slot);
	case KEY_OCTAL:
		*wanted = "an octal number such as 022";
		if (value_octal(value, row->max, &number) < 0)
			return -1;
		*(int64_t *)slot = number;
		return 0;
	case KEY_MS:
		*wanted = "a number of seconds such as 10, 0.5 or 250ms";
		return value_ms(value, slot);
	case KEY_BYTES:
		*wanted = "a number of bytes such as 1024, 10KB or 50MB";
		return value_bytes(value, slot);
	case KEY_SIGNAL:
		*wanted = "a signal such as TERM or 15";
		return value_signal(value, slot);
	case KEY_EXIT_CODES:
		*wanted = "a list of exit codes such as 0,2";
		return value_exit_codes(value, slot);
	case KEY_AUTORESTART:
		*wanted = "true, false or unexpected";
		return set_autorestart(slot, value);
	case KEY_PREFIX:
		*wanted = "auto, always or never";
		return set_prefix(slot, value);
	case KEY_LOG:
		*wanted = "a path, AUTO or NONE";
		return set_log(slot, value);
	default:
		*wanted = NULL;
		return -1;
	}
}

int key_set(
	const struct key_row *row, void *conf, const char *value, char *error, size_t error_size)
{
	void *slot = (char *)conf + row->offset;
	const char *why = NULL;
	int result;
	switch (row->kind) {
	case KEY_USER:
		return set_user(conf, value, error, error_size);
	case KEY_READY:
		return set_ready(conf, value, error, error_size);
	case KEY_SOCKETS:
		return set_sockets(conf, value, error, error_size);
	case KEY_LIMITS:
		return set_limits(conf, value, error, error_size);
	case KEY_COMMAND:
		result = set_list(slot, value, &why, value_words);
		break;
	case KEY_ENVIRONMENT:
		result = set_list(slot, value, &why, value_environment);
		break;
	case KEY_LIST:
		result = set_list(slot, value, &why, parse_list);
		break;
	case KEY_ELSEWHERE:
	case KEY_NO_EFFECT:
		return 0;
	default:
		result = set_simple(row, slot, value, &why);
		if (result == 0)
			return 0;
		if (row->kind == KEY_INT)
			return fail(error, error_size,
				"\"%s\" is not a whole number from %lld to %lld", value,
				(long long)row->min, (long long)row->max);
		return fail(error, error_size, "\"%s\" is not %s", value, why);
	}
	return result == 0 ? 0 : fail(error, error_size, "%s", why);
}

int key_set_defaults(const struct key_row *rows, void *conf)
{
	char error[128];
	for (; rows->name; rows++) {
		if (rows->kind == KEY_NO_EFFECT)
			continue;
		if (rows->kind == KEY_OCTAL && !rows->def)
			*(int64_t *)((char *)conf + rows->offset) = -1;
		else if (rows->def && key_set(rows, conf, rows->def, error, sizeof error) < 0)
			return -1;
	}
	return 0;
}
