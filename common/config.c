#include "common/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "common/config_value.h"
#include "common/log.h"

#define SECRET_FILE_MAX_BYTES (64u << 10)

/* Where the values of a conf came from: beside the struct, because it belongs to the daemon. */
struct origin {
	const void *conf;
	struct origin *next;
	size_t n;
	struct {
		const struct config_row *row;
		enum config_source source;
	} rows[];
};
static struct origin *origins;

struct loading {
	const struct config_row *const *tables;
	char *conf;
	char *const *env;
	struct origin *origin;
	struct config_error *error;
};

const struct config_action_flag config_action_flags[] = {
	{"help", CONFIG_SHOW_HELP, "print this and exit"},
	{"version", CONFIG_SHOW_VERSION, "print name and version and exit"},
	{"print-config", CONFIG_PRINT_VALUES,
		"print the settings in effect, secrets hidden, and exit"},
	{"check-config", CONFIG_CHECK, "check the settings and exit: 0 when they are good"},
	{"print-options", CONFIG_PRINT_OPTIONS, "print the options as Markdown and exit"},
	{"print-metrics", CONFIG_PRINT_METRICS, "print the metrics as Markdown and exit"},
	{NULL, CONFIG_RUN, NULL},
};

static void *slot_of(void *conf, const struct config_row *row)
{
	return (char *)conf + row->offset;
}

__attribute__((format(printf, 3, 4))) static int fail(
	struct loading *l, int exit_code, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(l->error->text, sizeof l->error->text, fmt, ap);
	va_end(ap);
	l->error->exit_code = exit_code;
	/* One line, whatever the value was. */
	for (char *c = l->error->text; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	return -1;
}

static enum config_source *source_slot(struct origin *origin, const struct config_row *row)
{
	for (size_t i = 0; i < origin->n; i++)
		if (origin->rows[i].row == row)
			return &origin->rows[i].source;
	log_bug(__FILE__, __LINE__, "a row of another table");
}

static struct origin *origin_of(const void *conf)
{
	struct origin *origin = origins;
	while (origin && origin->conf != conf)
		origin = origin->next;
	return origin;
}

enum config_source config_source_of(const void *conf, const struct config_row *row)
{
	struct origin *origin = origin_of(conf);
	return origin ? *source_slot(origin, row) : CONFIG_FROM_DEFAULT;
}

static struct origin *origin_new(const struct config_row *const *tables, const void *conf)
{
	size_t n = 0;
	CONFIG_FOREACH_ROW (row, tables)
		n++;
	struct origin *origin = calloc(1, sizeof *origin + n * sizeof origin->rows[0]);
	if (!origin)
		return NULL;
	origin->conf = conf;
	CONFIG_FOREACH_ROW (row, tables)
		origin->rows[origin->n++].row = row;
	origin->next = origins;
	origins = origin;
	return origin;
}

static size_t value_size(const struct config_row *row)
{
	switch (row->type) {
	case CONFIG_BOOL:
		return sizeof(bool);
	case CONFIG_CHOICE:
		return sizeof(int);
	default:
		return config_type_is_string(row->type) ? sizeof(char *) : sizeof(int64_t);
	}
}

static void free_value(const struct config_row *row, void *slot)
{
	if (!config_type_is_string(row->type))
		return;
	char **string = slot;
	if (row->type == CONFIG_SECRET && *string)
		explicit_bzero(*string, strlen(*string));
	free(*string);
	*string = NULL;
}

/* label: how the user gave it, "--port" or "environment variable PORT". */
static int set_value(struct loading *l, const struct config_row *row, const char *text,
	enum config_source source, const char *label, int exit_code)
{
	char allowed[256];
	void *slot = slot_of(l->conf, row);
	char *old = config_type_is_string(row->type) ? *(char **)slot : NULL;
	int rc = config_value_parse(row, text, slot, allowed, sizeof allowed);
	if (rc == -2)
		return fail(l, EX_OSERR, "out of memory");
	if (rc < 0)
		return fail(l, exit_code, "%s: \"%.100s\" is not %s", label, text, allowed);
	if (old)
		free_value(row, &old);
	*source_slot(l->origin, row) = source;
	return 0;
}

/* ---- flags ---- */

static const struct config_row *find_flag(const struct config_row *const *tables, struct span name)
{
	CONFIG_FOREACH_ROW (row, tables)
		if (row->flag && span_equal_str(name, row->flag))
			return row;
	return NULL;
}

/* Edits between two short words, neighbours swapped counting as one (optimal string alignment). */
static unsigned edit_distance(struct span a, struct span b)
{
	enum { MAX = 48 };
	unsigned d[MAX + 1][MAX + 1];
	if (a.len > MAX || b.len > MAX)
		return MAX;
	for (size_t i = 0; i <= a.len; i++)
		for (size_t j = 0; j <= b.len; j++) {
			if (i == 0 || j == 0) {
				d[i][j] = (unsigned)(i + j);
				continue;
			}
			unsigned cost = a.data[i - 1] != b.data[j - 1];
			unsigned best = d[i - 1][j - 1] + cost;
			if (d[i - 1][j] + 1 < best)
				best = d[i - 1][j] + 1;
			if (d[i][j - 1] + 1 < best)
				best = d[i][j - 1] + 1;
			if (i > 1 && j > 1 && a.data[i - 1] == b.data[j - 2] &&
				a.data[i - 2] == b.data[j - 1] && d[i - 2][j - 2] + cost < best)
				best = d[i - 2][j - 2] + cost;
			d[i][j] = best;
		}
	return d[a.len][b.len];
}

static int fail_unknown_flag(struct loading *l, const char *arg, struct span name)
{
	const char *nearest = NULL;
	unsigned best = (unsigned)name.len / 3 + 1;
	CONFIG_FOREACH_ROW (row, l->tables)
		if (row->flag) {
			unsigned distance = edit_distance(name, span_of(row->flag));
			if (distance <= best && (!nearest || distance < best)) {
				best = distance;
				nearest = row->flag;
			}
		}
	for (const struct config_action_flag *a = config_action_flags; a->flag; a++)
		if (edit_distance(name, span_of(a->flag)) < best) {
			best = edit_distance(name, span_of(a->flag));
			nearest = a->flag;
		}
	int len = (int)(name.data + name.len - arg);
	if (nearest)
		return fail(
			l, EX_USAGE, "unknown option %.*s; did you mean --%s?", len, arg, nearest);
	return fail(l, EX_USAGE, "unknown option %.*s; --help lists all", len, arg);
}

static bool is_bool_flag(const struct loading *l, const char *arg)
{
	if (strncmp(arg, "--", 2) != 0)
		return false;
	const struct config_row *row = find_flag(l->tables, span_of(arg + 2));
	return row && row->type == CONFIG_BOOL;
}

/* One argument, with the next one when it is its value. */
static int take_flag(struct loading *l, int argc, char *const *argv, int *i)
{
	const char *arg = argv[*i];
	const char *before = *i > 1 ? argv[*i - 1] : "";
	if (arg[0] != '-' && is_bool_flag(l, before))
		return fail(l, EX_USAGE,
			"%s takes no value of its own: %s=%.100s, or the bare flag for true",
			before, before, arg);
	if (arg[0] != '-')
		return fail(
			l, EX_USAGE, "unexpected argument \"%.100s\"; options begin with --", arg);
	const char *start = arg + strspn(arg, "-");
	struct span name = {start, strcspn(start, "=")};
	const char *value = start[name.len] ? start + name.len + 1 : NULL;
	bool well_formed = strncmp(arg, "--", 2) == 0 && arg[2] != '-';
	const struct config_row *row = well_formed ? find_flag(l->tables, name) : NULL;
	char label[128];
	snprintf(label, sizeof label, "--%.*s", (int)name.len, name.data);
	if (!row && well_formed && name.len > 3 && memcmp(name.data, "no-", 3) == 0) {
		row = find_flag(l->tables, (struct span){name.data + 3, name.len - 3});
		if (row && row->type != CONFIG_BOOL)
			return fail(l, EX_USAGE,
				"%s: only options that are on or off can be negated", label);
		if (row && value)
			return fail(l, EX_USAGE, "%s takes no value, but \"%.100s\" was given",
				label, value);
		if (row)
			value = "false";
	}
	if (!row)
		return fail_unknown_flag(l, arg, name);
	BUG_ON(row->type == CONFIG_SECRET);
	if (!value && row->type == CONFIG_BOOL)
		value = "true";
	if (!value) {
		/* A flag in the place of a value is a forgotten value; --name=--value says
		 * otherwise. */
		if (*i + 1 >= argc || strncmp(argv[*i + 1], "--", 2) == 0) {
			struct buf hint = BUF_INIT(200);
			config_value_hint(row, &hint);
			fail(l, EX_USAGE, "%s needs a value: %s %.*s", label, label, (int)hint.len,
				(char *)hint.data);
			buf_free(&hint);
			return -1;
		}
		value = argv[++*i];
	}
	return set_value(l, row, value, CONFIG_FROM_FLAG, label, EX_USAGE);
}

enum config_action config_take_action(int *argc, char **argv)
{
	enum config_action action = CONFIG_RUN;
	int kept = *argc > 0;
	for (int i = kept; i < *argc; i++) {
		enum config_action found = strcmp(argv[i], "-h") == 0 ? CONFIG_SHOW_HELP
								      : CONFIG_RUN;
		for (const struct config_action_flag *a = config_action_flags; a->flag; a++)
			if (strncmp(argv[i], "--", 2) == 0 && strcmp(argv[i] + 2, a->flag) == 0)
				found = a->action;
		if (found == CONFIG_RUN)
			argv[kept++] = argv[i];
		else if (action == CONFIG_RUN || found < action)
			action = found;
	}
	argv[kept] = NULL;
	*argc = kept;
	return action;
}

/* ---- environment ---- */

static const char *find_env(char *const *env, const char *name, const char *suffix)
{
	size_t name_len = strlen(name), suffix_len = strlen(suffix);
	for (; *env; env++)
		if (strncmp(*env, name, name_len) == 0 &&
			strncmp(*env + name_len, suffix, suffix_len) == 0 &&
			(*env)[name_len + suffix_len] == '=') {
			const char *value = *env + name_len + suffix_len + 1;
			return *value ? value : NULL;
		}
	return NULL;
}

static int take_secret_file(
	struct loading *l, const struct config_row *row, const char *variable, const char *path)
{
	char text[SECRET_FILE_MAX_BYTES + 2], label[128];
	struct stat st;
	snprintf(label, sizeof label, "environment variable %s_FILE", variable);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return fail(l, EX_CONFIG, "%s: cannot read \"%.200s\": %s", label, path,
			strerror(errno));
	size_t len = 0;
	ssize_t n = 1;
	bool regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
	while (regular && len < sizeof text - 1 &&
		(n = read(fd, text + len, sizeof text - 1 - len)) > 0)
		len += (size_t)n;
	int error = errno;
	close(fd);
	int rc;
	if (!regular)
		rc = fail(l, EX_CONFIG, "%s: \"%.200s\" is not a regular file", label, path);
	else if (n < 0)
		rc = fail(l, EX_CONFIG, "%s: cannot read \"%.200s\": %s", label, path,
			strerror(error));
	else if (len > SECRET_FILE_MAX_BYTES)
		rc = fail(l, EX_CONFIG, "%s: \"%.200s\" is longer than 64 KiB", label, path);
	else if (memchr(text, '\0', len))
		rc = fail(l, EX_CONFIG, "%s: \"%.200s\" has a NUL byte", label, path);
	else {
		if (len && text[len - 1] == '\n')
			len--;
		if (len && text[len - 1] == '\r')
			len--;
		text[len] = '\0';
		rc = len ? set_value(l, row, text, CONFIG_FROM_FILE, label, EX_CONFIG)
			 : fail(l, EX_CONFIG, "%s: \"%.200s\" is empty", label, path);
	}
	explicit_bzero(text, sizeof text);
	return rc;
}

/* 1 when the variable (or its file) was set, 0 when not, -1 for an error. */
static int take_variable(struct loading *l, const struct config_row *row, const char *variable)
{
	if (!variable)
		return 0;
	char label[128];
	const char *value = find_env(l->env, variable, "");
	const char *file = row->type == CONFIG_SECRET ? find_env(l->env, variable, "_FILE") : NULL;
	if (value && file)
		return fail(
			l, EX_CONFIG, "%s and %s_FILE are both set: leave one", variable, variable);
	if (file)
		return take_secret_file(l, row, variable, file) < 0 ? -1 : 1;
	if (!value)
		return 0;
	snprintf(label, sizeof label, "environment variable %s", variable);
	return set_value(l, row, value, CONFIG_FROM_ENV, label, EX_CONFIG) < 0 ? -1 : 1;
}

static int take_environment(struct loading *l)
{
	CONFIG_FOREACH_ROW (row, l->tables) {
		/* What a flag said is not even looked at. */
		if (*source_slot(l->origin, row) == CONFIG_FROM_FLAG)
			continue;
		int taken = take_variable(l, row, row->env);
		if (taken == 0)
			taken = take_variable(l, row, row->env_alias);
		if (taken < 0)
			return -1;
	}
	return 0;
}

static bool names_variable(const char *variable, size_t len, const char *name, bool secret)
{
	if (!name)
		return false;
	size_t n = strlen(name);
	if (len < n || memcmp(variable, name, n) != 0)
		return false;
	return len == n || (secret && len == n + 5 && memcmp(variable + n, "_FILE", 5) == 0);
}

static void report_unknown(struct loading *l, const char *prefix,
	void (*unknown)(const char *variable, void *arg), void *arg)
{
	for (char *const *at = l->env; *at; at++) {
		size_t len = strcspn(*at, "=");
		if (strncmp(*at, prefix, strlen(prefix)) != 0)
			continue;
		bool known = false;
		CONFIG_FOREACH_ROW (row, l->tables)
			known = known ||
				names_variable(*at, len, row->env, row->type == CONFIG_SECRET) ||
				names_variable(
					*at, len, row->env_alias, row->type == CONFIG_SECRET);
		char *name = known ? NULL : strndup(*at, len);
		if (name)
			unknown(name, arg);
		free(name);
	}
}

int config_load(const struct config_row *const *tables, void *conf, int argc, char *const *argv,
	char *const *env, const char *env_prefix, void (*unknown)(const char *variable, void *arg),
	void *arg, struct config_error *error)
{
	struct loading l = {.tables = tables, .conf = conf, .env = env, .error = error};
	*error = (struct config_error){.exit_code = 0};
	CONFIG_FOREACH_ROW (row, tables)
		if (config_type_is_string(row->type))
			*(char **)slot_of(conf, row) = NULL;
	l.origin = origin_new(tables, conf);
	if (!l.origin)
		return fail(&l, EX_OSERR, "out of memory");
	CONFIG_FOREACH_ROW (row, tables) {
		const char *text = row->def;
		if (!text && config_type_is_string(row->type))
			text = "";
		if (!text)
			memset(slot_of(conf, row), 0, value_size(row));
		/* A default that its own row refuses is our mistake, found by any start. */
		else if (set_value(&l, row, text, CONFIG_FROM_DEFAULT,
				 row->flag ? row->flag : row->env, EX_SOFTWARE) < 0)
			goto fail;
	}
	for (int i = 1; i < argc; i++)
		if (take_flag(&l, argc, argv, &i) < 0)
			goto fail;
	if (take_environment(&l) < 0)
		goto fail;
	if (env_prefix && unknown)
		report_unknown(&l, env_prefix, unknown, arg);
	return 0;

fail:
	config_free(tables, conf);
	return -1;
}

void config_free(const struct config_row *const *tables, void *conf)
{
	CONFIG_FOREACH_ROW (row, tables)
		free_value(row, slot_of(conf, row));
	for (struct origin **at = &origins; *at; at = &(*at)->next)
		if ((*at)->conf == conf) {
			struct origin *origin = *at;
			*at = origin->next;
			free(origin);
			return;
		}
}

const char *config_apply_reloadable(const struct config_row *const *tables, void *conf, void *fresh)
{
	static char names[512];
	_Static_assert(sizeof(double) == sizeof(int64_t), "numbers swap by size");
	struct origin *to = origin_of(conf), *from = origin_of(fresh);
	names[0] = '\0';
	CONFIG_FOREACH_ROW (row, tables) {
		char *a = slot_of(conf, row), *b = slot_of(fresh, row), swap[sizeof(int64_t)];
		if (config_value_equal(row, a, b))
			continue;
		if (row->reloadable) {
			memcpy(swap, a, value_size(row));
			memcpy(a, b, value_size(row));
			memcpy(b, swap, value_size(row));
			if (to && from)
				*source_slot(to, row) = *source_slot(from, row);
		} else {
			size_t len = strlen(names);
			snprintf(names + len, sizeof names - len, "%s%s", len ? ", " : "",
				row->env ? row->env : row->flag);
		}
	}
	return names[0] ? names : NULL;
}
