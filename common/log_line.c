#include "common/log_line.h"

#include <math.h>
#include <string.h>

#include "common/json.h"
#include "common/trace.h"
#include "common/utf8.h"

static const char *const severities[] = {"DEBUG", "INFO", "WARN", "ERROR", "FATAL"};
static const char *const colors[] = {"\033[2m", "\033[32m", "\033[33m", "\033[31m", "\033[1;31m"};

static struct span limited(struct span value)
{
	if (value.len > LOG_VALUE_MAX_BYTES)
		value.len = LOG_VALUE_MAX_BYTES;
	return value;
}

/* For people: a terminal must not obey what a peer sent. */
static void append_text(struct buf *out, struct span value)
{
	value = limited(value);
	for (size_t i = 0; i < value.len;) {
		uint8_t c = (uint8_t)value.data[i];
		size_t n = utf8_sequence_len(value.data + i, value.len - i);
		if (n == 0)
			buf_append_str(out, UTF8_REPLACEMENT);
		else if (c == '\n')
			buf_append(out, "\\n", 2);
		else if (c < 0x20 || c == 0x7f)
			buf_printf(out, "\\x%02x", c);
		else
			buf_append(out, value.data + i, n);
		i += n ? n : 1;
	}
}

static void append_json_string(struct buf *out, struct span value)
{
	json_append_string(out, limited(value));
}

/* Logs are made per request: by hand, this is a fifth of what printf costs. */
static void append_integer(struct buf *out, int64_t value)
{
	char text[24], *at = text + sizeof text;
	uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;
	do
		*--at = (char)('0' + rest % 10);
	while (rest /= 10);
	if (value < 0)
		*--at = '-';
	buf_append(out, at, (size_t)(text + sizeof text - at));
}

/* What both forms share: a field's value when it is not a string. */
static void append_plain_value(struct buf *out, const struct log_field *f)
{
	if (f->type == LOG_FIELD_INT)
		append_integer(out, f->integer);
	else if (f->type == LOG_FIELD_BOOL)
		buf_append_str(out, f->boolean ? "true" : "false");
	else if (isfinite(f->number))
		buf_append_double(out, f->number);
	else
		buf_append_str(out, "null"); /* JSON has no word for it */
}

/* The text of a second is kept: most lines share theirs with the one before. */
static void append_time(struct buf *out, const struct timespec *time)
{
	static __thread time_t second = -1;
	static __thread char text[48];
	static __thread size_t len;
	if (time->tv_sec != second) {
		struct tm tm;
		gmtime_r(&time->tv_sec, &tm);
		len = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S.", &tm);
		second = time->tv_sec;
	}
	int ms = (int)(time->tv_nsec / 1000000);
	char rest[4] = {
		(char)('0' + ms / 100), (char)('0' + ms / 10 % 10), (char)('0' + ms % 10), 'Z'};
	buf_append(out, text, len);
	buf_append(out, rest, sizeof rest);
}

/* Room kept for what closes a line after the last field that fitted. */
#define CLOSING_BYTES 64

/*
 * Append fields one by one; one that does not fit is taken back. True when all are there.
 */
static bool append_fields(struct buf *out, const struct log_entry *entry, size_t line_start,
	void (*append)(struct buf *, const struct log_field *))
{
	for (unsigned i = 0; i < entry->n_fields; i++) {
		size_t before = out->len;
		append(out, &entry->fields[i]);
		if (out->failed || out->len - line_start > LOG_LINE_MAX_BYTES - CLOSING_BYTES) {
			out->len = before;
			out->failed = false;
			return false;
		}
	}
	return true;
}

static void append_json_field(struct buf *out, const struct log_field *f)
{
	buf_append(out, ",\"", 2);
	buf_append_str(out, f->name); /* ours, and plain */
	buf_append(out, "\":", 2);
	if (f->type == LOG_FIELD_STR)
		append_json_string(out, f->str);
	else
		append_plain_value(out, f);
}

void log_line_json(struct buf *out, const struct log_entry *entry)
{
	size_t start = out->len;
	buf_append_str(out, "{\"time\":\"");
	append_time(out, &entry->time);
	buf_append_str(out, "\",\"severitytext\":\"");
	buf_append_str(out, severities[entry->level]);
	buf_append_str(out, "\",\"name\":");
	append_json_string(out, span_of(entry->name));
	buf_append_str(out, ",\"body\":");
	append_json_string(out, entry->body);
	if (entry->trace && strlen(entry->trace) == TRACE_PARENT_LEN) {
		buf_append_str(out, ",\"traceid\":");
		append_json_string(out, (struct span){entry->trace + 3, 32});
		buf_append_str(out, ",\"spanid\":");
		append_json_string(out, (struct span){entry->trace + 36, 16});
	}
	bool all = append_fields(out, entry, start, append_json_field) &&
		   entry->body.len <= LOG_VALUE_MAX_BYTES;
	buf_append_str(out, all ? "}\n" : ",\"truncated\":true}\n");
}

static void append_text_field(struct buf *out, const struct log_field *f)
{
	buf_append_char(out, ' ');
	buf_append_str(out, f->name);
	buf_append_char(out, '=');
	if (f->type != LOG_FIELD_STR) {
		append_plain_value(out, f);
		return;
	}
	/* Quoted only when it could be read in two ways. */
	bool plain = f->str.len > 0;
	for (size_t i = 0; plain && i < f->str.len; i++)
		plain = f->str.data[i] > ' ' && !strchr("\"\\=", f->str.data[i]);
	if (plain)
		append_text(out, f->str);
	else
		append_json_string(out, f->str);
}

void log_line_text(struct buf *out, const struct log_entry *entry, bool color)
{
	size_t start = out->len;
	struct tm tm;
	localtime_r(&entry->time.tv_sec, &tm);
	buf_printf(out, "%02d:%02d:%02d.%03d %s%-5s%s %s: ", tm.tm_hour, tm.tm_min, tm.tm_sec,
		(int)(entry->time.tv_nsec / 1000000), color ? colors[entry->level] : "",
		severities[entry->level], color ? "\033[0m" : "", entry->name);
	append_text(out, entry->body);
	bool all = append_fields(out, entry, start, append_text_field) &&
		   entry->body.len <= LOG_VALUE_MAX_BYTES;
	buf_append_str(out, all ? "\n" : " ...\n");
}
