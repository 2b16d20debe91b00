#include "supervisor/config/expand.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/span.h"

#define NAME_MAX_LEN 512
#define WIDTH_MAX    99

struct format {
	bool zero, left;
	int width;
	char conversion;
};

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

/* `02d` and the like behind the closing parenthesis; what follows it, or NULL. */
static const char *parse_format(const char *s, struct format *f)
{
	*f = (struct format){0};
	for (; *s == '0' || *s == '-'; s++) {
		f->zero |= *s == '0';
		f->left |= *s == '-';
	}
	for (; *s >= '0' && *s <= '9'; s++) {
		f->width = f->width * 10 + (*s - '0');
		if (f->width > WIDTH_MAX)
			return NULL;
	}
	if (*s != 's' && *s != 'd' && *s != 'i')
		return NULL;
	f->conversion = *s;
	return s + 1;
}

static int put(const struct expand_name *value, const struct format *f, struct buf *out)
{
	if (value->text)
		return f->left ? buf_printf(out, "%-*s", f->width, value->text)
			       : buf_printf(out, "%*s", f->width, value->text);
	if (f->left)
		return buf_printf(out, "%-*ld", f->width, value->number);
	if (f->zero && f->conversion != 's')
		return buf_printf(out, "%0*ld", f->width, value->number);
	return buf_printf(out, "%*ld", f->width, value->number);
}

static int find(char *name, const struct expand_names *names, struct expand_name *value,
	char *error, size_t error_size)
{
	for (const struct expand_name *n = names->names; n && n->name; n++)
		if (strcmp(n->name, name) == 0) {
			*value = *n;
			return 0;
		}
	if (strncmp(name, "ENV_", 4) == 0) {
		char *fallback = strstr(name, ":-");
		if (fallback) {
			*fallback = '\0';
			fallback += 2;
		}
		const char *text = names->env ? names->env(name + 4, names->arg) : NULL;
		if (fallback && (!text || !*text))
			text = fallback;
		if (text) {
			*value = (struct expand_name){.name = name, .text = text};
			return 0;
		}
		return fail(error, error_size,
			"%%(%s)s: the environment has no %s (write %%(%s:-value)s for a default)",
			name, name + 4, name);
	}
	return fail(error, error_size, "%%(%s)s is not a known expansion", name);
}

int expand(const char *text, const struct expand_names *names, struct buf *out, char *error,
	size_t error_size)
{
	while (*text) {
		size_t plain = strcspn(text, "%");
		if (buf_append(out, text, plain) < 0)
			return fail(error, error_size, "too long when expanded");
		text += plain;
		if (!*text)
			break;
		if (text[1] == '%') {
			if (buf_append_char(out, '%') < 0)
				return fail(error, error_size, "too long when expanded");
			text += 2;
			continue;
		}
		const char *end = text[1] == '(' ? strchr(text, ')') : NULL;
		if (!end)
			return fail(error, error_size, "a %% must be %%(name)s or %%%%");
		char name[NAME_MAX_LEN];
		size_t len = (size_t)(end - text) - 2;
		if (len >= sizeof name)
			return fail(error, error_size, "an expansion with a very long name");
		memcpy(name, text + 2, len);
		name[len] = '\0';
		struct format format;
		text = parse_format(end + 1, &format);
		if (!text)
			return fail(error, error_size,
				"%%(%s) must be followed by s or d, as in %%(%s)s", name, name);
		struct expand_name value = {0};
		if (find(name, names, &value, error, error_size) < 0)
			return -1;
		if (value.text && format.conversion != 's')
			return fail(error, error_size, "%%(%s)%c: not a number", name,
				format.conversion);
		if (put(&value, &format, out) < 0)
			return fail(error, error_size, "too long when expanded");
	}
	return 0;
}
