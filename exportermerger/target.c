#include "exportermerger/target.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/log.h"
#include "common/utf8.h"

#define MAX_FILE_BYTES (1u << 20)

static int fail(struct target_error *error, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
static int fail(struct target_error *error, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(error->text, sizeof error->text, fmt, ap);
	va_end(ap);
	return -1;
}

static int no_memory(struct target_error *error)
{
	return fail(error, "out of memory");
}

static bool starts_with(struct span text, const char *start)
{
	size_t len = strlen(start);
	return text.len >= len && memcmp(text.data, start, len) == 0;
}

static char *copy(struct span text)
{
	return strndup(text.data ? text.data : "", text.len);
}

static char *escape_value(struct span text)
{
	struct buf out = BUF_INIT(2 * text.len + 1);
	for (size_t i = 0; i < text.len; i++) {
		char c = text.data[i];
		if (c == '\\' || c == '"')
			buf_append_char(&out, '\\');
		if (c == '\n')
			buf_append(&out, "\\n", 2);
		else
			buf_append_char(&out, c);
	}
	buf_append_char(&out, '\0');
	if (buf_failed(&out)) {
		buf_free(&out);
		return NULL;
	}
	return buf_take(&out, NULL);
}

/* ---- what stands behind the # ---- */

static int hex_value(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : -1;
}

/* In place; false for a bad %, a NUL or what is not UTF-8. */
static bool decode_value(char *text)
{
	char *to = text;
	for (const char *at = text; *at; at++) {
		*to = *at;
		if (*at == '%') {
			int high = hex_value(at[1]), low = high < 0 ? -1 : hex_value(at[2]);
			if (low < 0 || high * 16 + low == 0)
				return false;
			*to = (char)(high * 16 + low);
			at += 2;
		}
		to++;
	}
	*to = '\0';
	for (size_t n, len = (size_t)(to - text); len; text += n, len -= n)
		if ((n = utf8_sequence_len(text, len)) == 0)
			return false;
	return true;
}

static bool label_allowed(struct span name)
{
	return line_name_is_plain(name, true) && !starts_with(name, "__") &&
	       !span_equal_str(name, "merger_url") && !span_equal_str(name, "le") &&
	       !span_equal_str(name, "quantile");
}

static int add_label(
	struct target *target, struct span name, char *value, struct target_error *error)
{
	if (!label_allowed(name))
		return fail(
			error, "%s: \"%.*s\" is no name for a label", target->name, SPAN_ARG(name));
	size_t at = target->n_labels;
	for (size_t i = 0; i < target->n_labels; i++) {
		struct span other = target->labels[i].name;
		int order = strncmp(
			name.data, other.data, name.len < other.len ? name.len : other.len);
		if (span_equal(name, other))
			return fail(error, "%s: label \"%.*s\" is given twice", target->name,
				SPAN_ARG(name));
		if ((order ? order : name.len < other.len ? -1 : 1) < 0 && at == target->n_labels)
			at = i;
	}
	struct page_label *grown = reallocarray(
		target->labels, target->n_labels + 1, sizeof *target->labels);
	if (!grown)
		return no_memory(error);
	target->labels = grown;
	struct page_label label = {span_of(copy(name)), span_of(escape_value(span_of(value)))};
	if (!label.name.data || !label.value.data) {
		free((char *)label.name.data);
		free((char *)label.value.data);
		return no_memory(error);
	}
	memmove(grown + at + 1, grown + at, (target->n_labels - at) * sizeof *grown);
	grown[at] = label;
	target->n_labels++;
	return 0;
}

static int parse_setting(struct target *target, struct span setting, struct target_error *error)
{
	const char *equals = memchr(setting.data, '=', setting.len);
	if (!equals)
		return fail(
			error, "%s: \"%.*s\" is not name=value", target->name, SPAN_ARG(setting));
	struct span name = {setting.data, (size_t)(equals - setting.data)};
	char *value = copy((struct span){equals + 1, setting.len - name.len - 1});
	if (!value)
		return no_memory(error);
	int rc = 0;
	if (!decode_value(value)) {
		rc = fail(error, "%s: bad value of \"%.*s\"", target->name, SPAN_ARG(name));
	} else if (!span_equal_str(name, "prefix")) {
		rc = add_label(target, name, value, error);
	} else if (!line_name_is_plain(span_of(value), true)) {
		rc = fail(error, "%s: \"%s\" cannot begin a metric name", target->name, value);
	} else {
		free(target->prefix);
		target->prefix = value;
		return 0;
	}
	free(value);
	return rc;
}

/* ---- the URL ---- */

static int parse_socket(
	struct target *target, struct span path, const char *run_dir, struct target_error *error)
{
	bool in_run_dir = !memchr(path.data, '/', path.len);
	struct buf whole = BUF_INIT(4096);
	if (path.len == 0)
		return fail(error, "unix: without a path");
	buf_printf(&whole, "%s%s%.*s", in_run_dir ? run_dir : "", in_run_dir ? "/" : "",
		SPAN_ARG(path));
	buf_append_char(&whole, '\0');
	if (buf_failed(&whole)) {
		buf_free(&whole);
		return no_memory(error);
	}
	target->socket = buf_take(&whole, NULL);
	if (strlen(target->socket) > 107)
		return fail(error, "%s: the path is too long for a socket", target->socket);
	return 0;
}

/* merger_url: without the credentials. */
static char *name_of(struct span url)
{
	const char *end = url.data + url.len, *host = url.data;
	for (const char *at = url.data; at + 2 < end && host == url.data; at++)
		if (memcmp(at, "://", 3) == 0)
			host = at + 3;
	const char *slash = memchr(host, '/', (size_t)(end - host));
	const char *at = memrchr(host, '@', (size_t)((slash ? slash : end) - host));
	if (!at)
		return copy(url);
	char *name = NULL;
	if (asprintf(&name, "%.*s%.*s", (int)(host - url.data), url.data, (int)(end - at - 1),
		    at + 1) < 0)
		return NULL;
	return name;
}

static int parse_target(
	struct target *target, struct span text, const char *run_dir, struct target_error *error)
{
	const char *hash = memchr(text.data, '#', text.len);
	struct span url = {text.data, hash ? (size_t)(hash - text.data) : text.len};
	struct span settings = {url.data + url.len + 1, hash ? text.len - url.len - 1 : 0};
	bool is_unix = starts_with(url, "unix:");
	target->name = is_unix ? copy(url) : name_of(url);
	target->prefix = strdup("");
	target->escaped_name = target->name ? escape_value(span_of(target->name)) : NULL;
	if (!target->name || !target->prefix || !target->escaped_name)
		return no_memory(error);
	if (strlen(target->name) > TARGET_MAX_URL_BYTES)
		return fail(error, "%.60s...: longer than %d bytes", target->name,
			TARGET_MAX_URL_BYTES);
	for (const char *at = target->name; *at; at++)
		if (*at <= ' ' || *at > '~')
			return fail(
				error, "%s: only printable ASCII can stand in a URL", target->name);
	if (is_unix) {
		if (parse_socket(target, (struct span){url.data + 5, url.len - 5}, run_dir, error) <
			0)
			return -1;
	} else if ((starts_with(url, "http://") && url.len > 7) ||
		   (starts_with(url, "https://") && url.len > 8)) {
		target->url = copy(url);
		if (!target->url)
			return no_memory(error);
	} else {
		return fail(
			error, "%s: a target begins with http://, https:// or unix:", target->name);
	}
	while (settings.len) {
		const char *end = memchr(settings.data, '&', settings.len);
		struct span one = {
			settings.data, end ? (size_t)(end - settings.data) : settings.len};
		if (one.len && parse_setting(target, one, error) < 0)
			return -1;
		settings.data += one.len + (end != NULL);
		settings.len -= one.len + (end != NULL);
	}
	return 0;
}

/* ---- the list ---- */

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static int compare_targets(const void *a, const void *b)
{
	return strcmp(((const struct target *)a)->name, ((const struct target *)b)->name);
}

static struct target *add_target(struct targets *targets, struct target_error *error)
{
	if (targets->count == TARGET_MAX_COUNT) {
		fail(error, "more than %d targets", TARGET_MAX_COUNT);
		return NULL;
	}
	struct target *grown = reallocarray(
		targets->items, targets->count + 1, sizeof *targets->items);
	if (!grown) {
		no_memory(error);
		return NULL;
	}
	targets->items = grown;
	grown[targets->count] = (struct target){0};
	return &grown[targets->count++];
}

static void free_target(struct target *target)
{
	for (size_t k = 0; k < target->n_labels; k++) {
		free((char *)target->labels[k].name.data);
		free((char *)target->labels[k].value.data);
	}
	free(target->labels);
	free(target->url);
	free(target->socket);
	free(target->name);
	free(target->escaped_name);
	free(target->prefix);
}

static int add_pattern(
	struct targets *targets, struct span text, const char *run_dir, struct target_error *error)
{
	/* Whatever is wrong with its length or its settings is as wrong with all that it finds. */
	struct target example = {0};
	int rc = parse_target(&example, text, run_dir, error);
	free_target(&example);
	if (rc < 0)
		return -1;
	struct target_pattern *grown = reallocarray(
		targets->patterns, targets->n_patterns + 1, sizeof *targets->patterns);
	if (!grown)
		return no_memory(error);
	targets->patterns = grown;
	const char *hash = memchr(text.data, '#', text.len), *end = text.data + text.len;
	struct span settings = {hash ? hash : end, hash ? (size_t)(end - hash) : 0};
	struct span path = {text.data + 5, text.len - 5 - settings.len};
	const char *reason = target_pattern_parse(
		&grown[targets->n_patterns++], path, settings, run_dir);
	return reason ? fail(error, "%.*s %s", SPAN_ARG(text), reason) : 0;
}

static bool is_pattern(struct span text)
{
	const char *star = memchr(text.data, '*', text.len);
	const char *hash = memchr(text.data, '#', text.len);
	return starts_with(text, "unix:") && star && (!hash || star < hash);
}

static bool has_target(const struct targets *targets, const char *name)
{
	for (size_t i = 0; i < targets->count; i++)
		if (strcmp(targets->items[i].name, name) == 0)
			return true;
	return false;
}

/* What the patterns have seen. Names that make too long a path or URL are left out. */
static int add_seen(struct targets *targets, const struct target_pattern *pattern,
	const char *run_dir, struct target_error *error)
{
	for (size_t i = 0; i < pattern->n_seen; i++) {
		char *text = NULL;
		if (asprintf(&text, "%s%s%s", pattern->written, pattern->seen[i],
			    pattern->settings) < 0)
			return no_memory(error);
		struct target *target = add_target(targets, error);
		int rc = target ? parse_target(target, span_of(text), run_dir, error) : -1;
		free(text);
		if (!target)
			return -1;
		targets->count--;
		if (rc < 0 || has_target(targets, target->name))
			free_target(target);
		else
			targets->count++;
	}
	return 0;
}

static int sort(struct targets *targets, struct target_error *error)
{
	if (targets->count)
		qsort(targets->items, targets->count, sizeof *targets->items, compare_targets);
	for (size_t i = 1; i < targets->count; i++)
		if (strcmp(targets->items[i - 1].name, targets->items[i].name) == 0)
			return fail(error, "%s: is given twice", targets->items[i].name);
	return 0;
}

static int parse_list(struct targets *targets, bool with_patterns, struct target_error *error)
{
	struct span list = span_of(targets->list);
	for (size_t at = 0; at < list.len;) {
		size_t start = at;
		while (at < list.len && !is_space(list.data[at]))
			at++;
		struct span text = {list.data + start, at - start};
		at += at < list.len;
		if (text.len == 0 || (is_pattern(text) && !with_patterns))
			continue;
		struct target *target;
		if (is_pattern(text)) {
			if (add_pattern(targets, text, targets->run_dir, error) < 0)
				return -1;
		} else if (!(target = add_target(targets, error)) ||
			   parse_target(target, text, targets->run_dir, error) < 0) {
			return -1;
		}
	}
	return sort(targets, error);
}

/* before: the list that this one follows, whose patterns and what they have seen it takes over. */
static struct targets *build(
	struct span list, const char *run_dir, struct targets *before, struct target_error *error)
{
	struct targets *targets = calloc(1, sizeof *targets);
	if (!targets) {
		no_memory(error);
		return NULL;
	}
	targets->references = 1;
	targets->list = copy(list);
	targets->run_dir = strdup(run_dir);
	if (!targets->list || !targets->run_dir) {
		no_memory(error);
		goto fail;
	}
	if (parse_list(targets, !before, error) < 0)
		goto fail;
	const struct targets *from = before ? before : targets;
	for (size_t i = 0; i < from->n_patterns; i++) {
		if (!before)
			target_pattern_look(&targets->patterns[i]);
		if (add_seen(targets, &from->patterns[i], run_dir, error) < 0)
			goto fail;
	}
	sort(targets, error); /* none is there twice */
	if (before) {
		targets->patterns = before->patterns;
		targets->n_patterns = before->n_patterns;
		before->patterns = NULL;
		before->n_patterns = 0;
	}
	return targets;
fail:
	targets_unref(&targets);
	return NULL;
}

struct targets *targets_parse(struct span list, const char *run_dir, struct target_error *error)
{
	return build(list, run_dir, NULL, error);
}

bool targets_look(struct targets **targets_)
{
	struct targets *before = *targets_;
	struct target_error error;
	bool news = false;
	for (size_t i = 0; i < before->n_patterns; i++)
		news |= target_pattern_look(&before->patterns[i]);
	if (!news)
		return false;
	struct targets *targets = build(span_of(before->list), before->run_dir, before, &error);
	if (!targets) {
		log_error("targets stay as they were: %s", error.text);
		return false;
	}
	targets_unref(targets_);
	*targets_ = targets;
	return true;
}

static int append_file(struct buf *list, const char *path, struct target_error *error)
{
	FILE *file = fopen(path, "re");
	if (!file)
		return fail(error, "%s: %s", path, strerror(errno));
	char *line = NULL;
	size_t capacity = 0;
	ssize_t len;
	while ((len = getline(&line, &capacity, file)) >= 0 && !buf_failed(list))
		if (line[0] != '#') {
			buf_append(list, line, (size_t)len);
			buf_append_char(list, '\n');
		}
	int rc = ferror(file)       ? fail(error, "%s: %s", path, strerror(errno))
		 : buf_failed(list) ? fail(error, "%s: over 1 MiB", path)
				    : 0;
	free(line);
	fclose(file);
	return rc;
}

struct targets *targets_read(
	const char *list, const char *path, const char *run_dir, struct target_error *error)
{
	struct buf text = BUF_INIT(MAX_FILE_BYTES);
	struct targets *targets = NULL;
	buf_append_str(&text, list);
	buf_append_char(&text, '\n');
	if (!*path || append_file(&text, path, error) == 0)
		targets = targets_parse(
			(struct span){(const char *)text.data, text.len}, run_dir, error);
	buf_free(&text);
	return targets;
}

struct targets *targets_ref(struct targets *targets)
{
	targets->references++;
	return targets;
}

void targets_unref(struct targets **targets_)
{
	struct targets *targets = *targets_;
	*targets_ = NULL;
	if (!targets || --targets->references)
		return;
	for (size_t i = 0; i < targets->count; i++)
		free_target(&targets->items[i]);
	for (size_t i = 0; i < targets->n_patterns; i++)
		target_pattern_free(&targets->patterns[i]);
	free(targets->patterns);
	free(targets->list);
	free(targets->run_dir);
	free(targets->items);
	free(targets);
}
