#include "supervisor/environment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/span.h"

struct maker {
	struct strings *all;
	char *error;
	size_t error_size;
};

static bool is_set(const struct strings *all, const char *pair)
{
	size_t key = strcspn(pair, "=");
	for (size_t i = 0; i < all->n; i++)
		if (strncmp(all->items[i], pair, key) == 0 && all->items[i][key] == '=')
			return true;
	return false;
}

static int out_of_memory(struct maker *m)
{
	snprintf(m->error, m->error_size, "out of memory");
	return -1;
}

static int add(struct maker *m, const char *pair)
{
	if (is_set(m->all, pair))
		return 0;
	return strings_add(m->all, span_of(pair)) < 0 ? out_of_memory(m) : 0;
}

static int add_value(struct maker *m, struct span key, struct span value)
{
	char *pair = NULL;
	if (asprintf(&pair, "%.*s=%.*s", SPAN_ARG(key), SPAN_ARG(value)) < 0)
		return out_of_memory(m);
	if (is_set(m->all, pair)) {
		explicit_bzero(pair, strlen(pair));
		free(pair);
		return 0;
	}
	return strings_take(m->all, pair) < 0 ? out_of_memory(m) : 0;
}

/* The content of a small file with a NUL behind it; malloc()ed, to be wiped by the caller. */
static char *read_file(struct maker *m, const char *path, size_t max_bytes, size_t *len)
{
	/* Not blocking, so that a FIFO named by mistake does not hang the pod. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char *text = fd < 0 ? NULL : malloc(max_bytes + 2);
	ssize_t n = 0;
	*len = 0;
	while (text && *len <= max_bytes && (n = read(fd, text + *len, max_bytes + 1 - *len)) > 0)
		*len += (size_t)n;
	int saved = errno;
	if (fd >= 0)
		close(fd);
	if (!text || n < 0)
		snprintf(m->error, m->error_size, "cannot read %s: %s", path, strerror(saved));
	else if (*len > max_bytes)
		snprintf(m->error, m->error_size, "%s has more than %zu bytes", path, max_bytes);
	else if (memchr(text, '\0', *len))
		snprintf(m->error, m->error_size, "%s has a NUL byte", path);
	else {
		text[*len] = '\0';
		return text;
	}
	if (text)
		explicit_bzero(text, max_bytes + 2);
	free(text);
	return NULL;
}

static int add_secret(struct maker *m, const char *pair)
{
	size_t key = strcspn(pair, "="), len;
	char *text = read_file(m, pair + key + 1, SECRET_MAX_BYTES, &len);
	if (!text)
		return -1;
	while (len && (text[len - 1] == '\n' || text[len - 1] == '\r'))
		text[--len] = '\0';
	int result = add_value(m, (struct span){pair, key}, (struct span){text, len});
	explicit_bzero(text, SECRET_MAX_BYTES + 2);
	free(text);
	return result;
}

static struct span trim(struct span s)
{
	while (s.len && strchr(" \t\r", s.data[0])) {
		s.data++;
		s.len--;
	}
	while (s.len && strchr(" \t\r", s.data[s.len - 1]))
		s.len--;
	return s;
}

/* NAME=value; 1 for an empty line or a comment, -1 for what is neither. */
static int parse_line(struct span line, struct span *key, struct span *value)
{
	static const char letters[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";
	line = trim(line);
	if (!line.len || line.data[0] == '#' || line.data[0] == ';')
		return 1;
	if (line.len > 7 && strncmp(line.data, "export ", 7) == 0)
		line = trim((struct span){line.data + 7, line.len - 7});
	const char *equals = memchr(line.data, '=', line.len);
	if (!equals || equals == line.data)
		return -1;
	*key = trim((struct span){line.data, (size_t)(equals - line.data)});
	if (strspn(key->data, letters) < key->len || (key->data[0] >= '0' && key->data[0] <= '9'))
		return -1;
	*value = trim((struct span){equals + 1, line.len - (size_t)(equals - line.data) - 1});
	char quote = value->len ? value->data[0] : 0;
	if (quote == '"' || quote == '\'') {
		if (value->len < 2 || value->data[value->len - 1] != quote)
			return -1;
		*value = (struct span){value->data + 1, value->len - 2};
	}
	return 0;
}

static int add_file(struct maker *m, const char *path)
{
	size_t len;
	char *text = read_file(m, path, ENVIRONMENT_FILE_MAX_BYTES, &len);
	int result = text ? 0 : -1;
	unsigned number = 0;
	for (char *at = text; result == 0 && at < text + len;) {
		size_t n = strcspn(at, "\n");
		struct span key, value;
		int kind = parse_line((struct span){at, n}, &key, &value);
		number++;
		at += n + 1;
		if (kind == 0)
			result = add_value(m, key, value);
		if (kind < 0) {
			snprintf(m->error, m->error_size, "%s:%u: expected NAME=value", path,
				number);
			result = -1;
		}
	}
	if (text)
		explicit_bzero(text, ENVIRONMENT_FILE_MAX_BYTES + 2);
	free(text);
	return result;
}

int environment_make(struct strings *all, const struct process_config *config,
	const struct strings *base, const char *notify_path, char *error, size_t error_size)
{
	struct maker m = {all, error, error_size};
	const struct {
		const char *key, *value;
	} made[] = {{"SUPERVISOR_ENABLED", "1"}, {"SUPERVISOR_PROCESS_NAME", config->name},
		{"SUPERVISOR_GROUP_NAME", config->group},
		{"NOTIFY_SOCKET", config->ready == READY_NOTIFY ? notify_path : NULL}};
	int result = 0;
	for (size_t i = 0; i < sizeof made / sizeof *made && result == 0; i++)
		if (made[i].value)
			result = add_value(&m, span_of(made[i].key), span_of(made[i].value));
	for (size_t i = 0; i < config->environment.n && result == 0; i++)
		result = add(&m, config->environment.items[i]);
	for (size_t i = 0; i < config->secrets.n && result == 0; i++)
		result = add_secret(&m, config->secrets.items[i]);
	for (size_t i = config->environment_files.n; i > 0 && result == 0; i--)
		result = add_file(&m, config->environment_files.items[i - 1]);
	for (size_t i = 0; i < base->n && result == 0; i++)
		result = add(&m, base->items[i]);
	return result;
}

void environment_free(struct strings *all)
{
	for (size_t i = 0; i < all->n; i++)
		explicit_bzero(all->items[i], strlen(all->items[i]));
	strings_free(all);
}
