#ifndef EXPORTERMERGER_LINE_H
#define EXPORTERMERGER_LINE_H

/*
 * The grammar of one line of a metrics page, without what lines say about each other: Prometheus
 * classic text 0.0.4, and OpenMetrics 1.0. Pure: bytes in, spans of these bytes out.
 *
 * Classic text is read as Prometheus' own reader does: blanks and tabs between tokens, a comma
 * after the last label, `#HELP`, other comments passed over. OpenMetrics is read by its ABNF:
 * single spaces, no blank line, no other comment, no comma after the last label. Names in quotes
 * (`{"a.b",x="y"} 1`, escaping=allow-utf-8) are taken in both, without escapes inside.
 *
 * (https://prometheus.io/docs/instrumenting/exposition_formats/,
 * https://github.com/OpenObservability/OpenMetrics/blob/main/specification/OpenMetrics.md)
 */
#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "common/span.h"

enum page_format { PAGE_TEXT, PAGE_OPENMETRICS };

#define LINE_MAX_BYTES          (1u << 20) /* longer ones are refused by who cuts lines */
#define LINE_MAX_EXEMPLAR_CHARS 128        /* names and values of an exemplar's labels */

enum line_kind {
	LINE_NOTHING, /* blank, or a comment */
	LINE_HELP,    /* name, text: escaped */
	LINE_TYPE,    /* name, text: the word */
	LINE_UNIT,    /* name, text; OpenMetrics only */
	LINE_EOF,     /* OpenMetrics only */
	LINE_SAMPLE,
};

struct line_label {
	struct span name;
	struct span value; /* as written, escapes inside */
	bool odd_escape;   /* has a backslash before something else than \, n and " (OpenMetrics: it
			      stands for itself) */
};
struct line_labels {
	struct line_label *items; /* sorted by name, no name twice */
	size_t count, capacity;
};

struct line {
	enum line_kind kind;
	struct span name; /* of the family or the sample, without quotes */
	struct span text;
	struct line_labels labels;
	struct span value;
	struct span timestamp; /* empty: none */
	struct span exemplar;  /* "{...} value [timestamp]"; data NULL: none */
	struct line_labels exemplar_labels;
};

/* A zeroed struct line is ready for use, again and again; line_free() gives its arrays back. */
void line_free(struct line *line);

/* Read one line, without its newline. NULL, or the reason why it is refused (a static string). */
const char *line_parse(enum page_format format, struct span bytes, struct line *line);

/* Names of the family and of labels that are U__ names (name_escape.h) become what they stand for;
 * these stand in names from then on. NULL, or the reason why the line is refused. */
const char *line_unescape_names(struct line *line, enum page_format format, struct buf *names);

/* A name as both formats had it before quotes: [a-zA-Z_:][a-zA-Z0-9_:]*, in labels without colon.
 */
bool line_name_is_plain(struct span name, bool is_label);

#endif
