#ifndef COMMON_LOG_LINE_H
#define COMMON_LOG_LINE_H

/*
 * One log line as bytes: a JSON object or text for people. Any input gives a valid line:
 * bytes that are not UTF-8 become U+FFFD, control characters are escaped, and what would make the
 * line longer than its buffer's ceiling is left out field by field (a long body is cut first), with
 * `"truncated":true`.
 *
 * (https://opentelemetry.io/docs/specs/otel/logs/data-model/)
 */
#include <stdbool.h>
#include <time.h>

#include "common/buf.h"
#include "common/log.h"
#include "common/span.h"

#define LOG_LINE_MAX_BYTES  (32u << 10)
#define LOG_VALUE_MAX_BYTES (4u << 10) /* of the body and of each string field, before escaping */

struct log_entry {
	enum log_level level;
	struct timespec time;
	const char *name;
	const char *trace; /* a traceparent or NULL */
	struct span body;
	const struct log_field *fields;
	unsigned n_fields;
};

/* Append the line with its newline. The buffer's ceiling must leave LOG_LINE_MAX_BYTES. Fails (a
 * failed buffer) only without memory. */
void log_line_json(struct buf *out, const struct log_entry *entry);
void log_line_text(struct buf *out, const struct log_entry *entry, bool color);

#endif
