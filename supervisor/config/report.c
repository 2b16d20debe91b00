#include "supervisor/config/report.h"

#include <stdarg.h>
#include <stdio.h>

static void tell(struct report *report, bool is_error, const char *file, unsigned line,
	const char *fmt, va_list ap) __attribute__((format(printf, 5, 0)));

static void tell(struct report *report, bool is_error, const char *file, unsigned line,
	const char *fmt, va_list ap)
{
	char text[512];
	vsnprintf(text, sizeof text, fmt, ap);
	/* What a hostile file wrote must not break the line or steer a terminal. */
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	report->line(report->arg, is_error, file, line, text);
}

void report_error(struct report *report, const char *file, unsigned line, const char *fmt, ...)
{
	report->errors++;
	va_list ap;
	va_start(ap, fmt);
	tell(report, true, file, line, fmt, ap);
	va_end(ap);
}

void report_warning(struct report *report, const char *file, unsigned line, const char *fmt, ...)
{
	report->warnings++;
	va_list ap;
	va_start(ap, fmt);
	tell(report, false, file, line, fmt, ap);
	va_end(ap);
}
