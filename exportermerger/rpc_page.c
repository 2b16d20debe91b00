#include "exportermerger/rpc_page.h"

#include <math.h>

#include "exportermerger/line.h"

static void append_escaped(struct buf *out, struct span text, bool quotes)
{
	for (size_t i = 0; i < text.len; i++) {
		char c = text.data[i];
		if (c == '\n')
			buf_append(out, "\\n", 2);
		else if (c == '\\' || (c == '"' && quotes))
			buf_append(out, (char[]){'\\', c}, 2);
		else
			buf_append_char(out, c);
	}
}

static void write_line(struct buf *out, const struct msg_metric_family *f,
	const struct msg_metric_sample *s, const char *suffix, const double *le, double value)
{
	buf_append(out, f->name.data, f->name.len);
	buf_append_str(out, suffix);
	const char *separator = "{";
	for (size_t i = 0; i < f->labels.count; i++) {
		buf_append_str(out, separator);
		buf_append(out, f->labels.items[i].data, f->labels.items[i].len);
		buf_append(out, "=\"", 2);
		append_escaped(out, s->values.items[i], true);
		buf_append_char(out, '"');
		separator = ",";
	}
	if (le) {
		buf_append_str(out, separator);
		buf_append_str(out, "le=\"");
		buf_append_double(out, *le);
		buf_append_char(out, '"');
		separator = ",";
	}
	buf_append_str(out, *separator == ',' ? "} " : " ");
	buf_append_double(out, value);
	buf_append_char(out, '\n');
}

static const char *write_histogram(
	struct buf *out, const struct msg_metric_family *f, const struct msg_metric_sample *s)
{
	if (s->counts.count != f->bounds.count + 1)
		return "a histogram's counts do not fit its bounds";
	for (size_t i = 0; i < s->counts.count; i++) {
		double le = i < f->bounds.count ? f->bounds.items[i] : INFINITY;
		write_line(out, f, s, "_bucket", &le, (double)s->counts.items[i]);
	}
	write_line(out, f, s, "_sum", NULL, s->value);
	write_line(out, f, s, "_count", NULL, (double)s->counts.items[f->bounds.count]);
	return NULL;
}

static const char *write_family(struct buf *out, const struct msg_metric_family *f)
{
	bool histogram = span_equal_str(f->type, "histogram");
	if (!line_name_is_plain(f->name, false))
		return "bad metric name";
	if (memchr(f->type.data, '\n', f->type.len))
		return "unknown type";
	for (size_t i = 0; i < f->labels.count; i++)
		if (!line_name_is_plain(f->labels.items[i], true))
			return "bad label name";
	if (f->help.len) {
		buf_append_str(out, "# HELP ");
		buf_append(out, f->name.data, f->name.len);
		buf_append_char(out, ' ');
		append_escaped(out, f->help, false);
		buf_append_char(out, '\n');
	}
	buf_printf(out, "# TYPE %.*s %.*s\n", SPAN_ARG(f->name), SPAN_ARG(f->type));
	for (size_t i = 0; i < f->samples.count; i++) {
		const struct msg_metric_sample *s = &f->samples.items[i];
		if (s->values.count != f->labels.count)
			return "a sample's label values do not fit the label names";
		const char *reason = NULL;
		if (histogram)
			reason = write_histogram(out, f, s);
		else
			write_line(out, f, s, "", NULL, s->value);
		if (reason)
			return reason;
	}
	return NULL;
}

const char *rpc_page_write(const struct msg_metrics_result *metrics, struct buf *out)
{
	for (size_t i = 0; i < metrics->families.count; i++) {
		const char *reason = write_family(out, &metrics->families.items[i]);
		if (reason)
			return reason;
	}
	return buf_failed(out) ? "page too large" : NULL;
}
