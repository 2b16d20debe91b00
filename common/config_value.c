#include "common/config_value.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

#include "common/log.h"
#include "common/span.h"

struct unit {
	const char *name;
	int64_t factor;
};
/* Largest first: printing takes the first that divides. */
static const struct unit byte_units[] = {{"TB", 1LL << 40}, {"GB", 1LL << 30}, {"MB", 1LL << 20},
	{"KB", 1LL << 10}, {"TiB", 1LL << 40}, {"GiB", 1LL << 30}, {"MiB", 1LL << 20},
	{"KiB", 1LL << 10}, {"T", 1LL << 40}, {"G", 1LL << 30}, {"M", 1LL << 20}, {"K", 1LL << 10},
	{"B", 1}, {NULL, 0}};
static const struct unit time_units[] = {
	{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}, {NULL, 0}};

bool config_type_is_string(enum config_type type)
{
	return type <= CONFIG_URL;
}

static bool has_range(const struct config_row *row)
{
	return row->min != 0 || row->max != 0;
}

/* "5s": the number and its unit; plain numbers count plain_factor. */
static int parse_scaled(
	const char *text, const struct unit *units, int64_t plain_factor, int64_t *value)
{
	if (!isdigit((unsigned char)text[0]) && text[0] != '.')
		return -1;
	size_t digits = strspn(text, "0123456789.");
	char number_text[40], *end;
	if (digits >= sizeof number_text)
		return -1;
	memcpy(number_text, text, digits);
	number_text[digits] = '\0';
	double number = strtod(number_text, &end);
	if (*end)
		return -1;
	const char *unit = text + digits + strspn(text + digits, " ");
	int64_t factor = *unit ? 0 : plain_factor;
	for (const struct unit *u = units; *unit && u->name; u++)
		if (strcasecmp(unit, u->name) == 0)
			factor = u->factor;
	double scaled = number * (double)factor;
	if (factor == 0 || scaled > 9e15)
		return -1;
	*value = (int64_t)llround(scaled);
	/* Whole numbers do not go through a double's rounding. */
	if (!strchr(number_text, '.') && scaled >= 0)
		*value = (int64_t)(strtoull(number_text, NULL, 10) * (uint64_t)factor);
	return 0;
}

static void format_scaled(
	const struct unit *units, const char *plain_unit, int64_t value, struct buf *out)
{
	for (const struct unit *u = units; u->name; u++)
		if (value != 0 && value % u->factor == 0) {
			bool plain = u->factor == 1 && strcmp(plain_unit, "") == 0;
			buf_printf(out, "%lld%s", (long long)(value / u->factor),
				plain ? "" : u->name);
			return;
		}
	buf_append_char(out, '0');
}

static int64_t plain_ms(const struct config_row *row)
{
	return row->unit && strcmp(row->unit, "ms") == 0 ? 1 : 1000;
}

static void describe_range(
	const struct config_row *row, const char *what, const char *suffix, struct buf *out)
{
	buf_append_str(out, what);
	if (!has_range(row))
		return;
	struct buf low = BUF_INIT(64), high = BUF_INIT(64);
	if (row->type == CONFIG_MS) {
		format_scaled(time_units, "ms", (int64_t)row->min, &low);
		format_scaled(time_units, "ms", (int64_t)row->max, &high);
	} else if (row->type == CONFIG_BYTES) {
		format_scaled(byte_units, "", (int64_t)row->min, &low);
		format_scaled(byte_units, "", (int64_t)row->max, &high);
	} else {
		buf_append_double(&low, row->min);
		buf_append_double(&high, row->max);
	}
	if (row->min > row->max) /* only a lower bound */
		buf_printf(out, " of at least %.*s%s", (int)low.len, (char *)low.data, suffix);
	else
		buf_printf(out, " from %.*s to %.*s%s", (int)low.len, (char *)low.data,
			(int)high.len, (char *)high.data, suffix);
	buf_free(&low);
	buf_free(&high);
}

static bool in_range(const struct config_row *row, double value)
{
	return !has_range(row) || (value >= row->min && (row->min > row->max || value <= row->max));
}

static int parse_bool(const char *text, bool *value)
{
	static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		if (strcasecmp(text, words[i]) == 0) {
			*value = i % 2;
			return 0;
		}
	return -1;
}

static int parse_int(const char *text, int64_t *value)
{
	char *end;
	if (!isdigit((unsigned char)text[text[0] == '-' || text[0] == '+']))
		return -1;
	errno = 0;
	*value = strtoll(text, &end, 10);
	return *end || errno ? -1 : 0;
}

static int parse_double(const char *text, double *value)
{
	char *end;
	/* strtod() also takes hexadecimal, "inf", "nan" and leading white space. */
	if (!text[0] || strspn(text, "0123456789+-.eE") != strlen(text))
		return -1;
	*value = strtod(text, &end);
	return *end || !isfinite(*value) ? -1 : 0;
}

/* The choices of a row are "name=synonym=synonym|name": find text among them. */
static int parse_choice(const char *choices, const char *text, int *index)
{
	*index = 0;
	for (const char *at = choices;;) {
		size_t len = strcspn(at, "|=");
		if (span_equal_nocase((struct span){at, len}, text))
			return 0;
		at += len;
		if (*at == '\0')
			return -1;
		if (*at++ == '|')
			++*index;
	}
}

static struct span choice_name(const char *choices, int index)
{
	while (index-- > 0)
		choices = strchr(choices, '|') + 1;
	return (struct span){choices, strcspn(choices, "|=")};
}

static void append_choices(const struct config_row *row, const char *separator, struct buf *out)
{
	const char *at = row->choices;
	for (int i = 0; at; i++) {
		struct span name = choice_name(row->choices, i);
		buf_append_str(out, i ? separator : "");
		buf_append(out, name.data, name.len);
		at = strchr(at, '|');
		at = at ? at + 1 : NULL;
	}
}

static bool is_port(const char *text)
{
	size_t n = strspn(text, "0123456789");
	return n > 0 && n <= 5 && text[n] == '\0' && strtol(text, NULL, 10) <= 65535;
}

/* "host:port", ":port", "[v6]:port", or a Unix socket path that fits sockaddr_un; no URL. */
static bool is_address(const char *text)
{
	static const char host[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
	static const char v6[] = "0123456789abcdefABCDEF:.";
	if (strchr(text, '/'))
		return !strstr(text, "://") &&
		       strlen(text) < sizeof((struct sockaddr_un *)0)->sun_path;
	if (text[0] == '[') {
		size_t n = strspn(text + 1, v6);
		return n > 1 && strncmp(text + 1 + n, "]:", 2) == 0 && is_port(text + n + 3);
	}
	size_t n = strspn(text, host);
	return n < 254 && text[n] == ':' && is_port(text + n + 1);
}

static bool is_url(const char *text)
{
	size_t scheme = strncasecmp(text, "http://", 7) == 0    ? 7
			: strncasecmp(text, "https://", 8) == 0 ? 8
								: 0;
	if (!scheme || strchr("/?#:", text[scheme]))
		return false;
	for (const char *c = text; *c; c++)
		if (*c <= ' ' || *c == 0x7f || *c == '#' || *c == '"' || *c == '\\')
			return false;
	return true;
}

/* 0 with an owned copy, -1 for a bad value, -2 without memory. */
static int parse_string(const struct config_row *row, const char *text, char **slot)
{
	/* An empty address or URL means "none", as when it was never set. */
	if (*text && row->type == CONFIG_ADDRESS && !is_address(text))
		return -1;
	if (*text && row->type == CONFIG_URL && !is_url(text))
		return -1;
	size_t len = strlen(text);
	if (row->type == CONFIG_URL)
		while (len && text[len - 1] == '/')
			len--;
	*slot = strndup(text, len);
	return *slot ? 0 : -2;
}

static void describe_allowed(const struct config_row *row, struct buf *out)
{
	switch (row->type) {
	case CONFIG_ADDRESS:
		buf_printf(out,
			"host:port, [v6]:port, or a socket path with a slash of at most %zu bytes",
			sizeof((struct sockaddr_un *)0)->sun_path - 1);
		break;
	case CONFIG_URL:
		buf_append_str(out, "a URL that begins with http:// or https://");
		break;
	case CONFIG_BOOL:
		buf_append_str(out, "true, false, yes, no, on, off, 1 or 0");
		break;
	case CONFIG_INT:
		describe_range(row, "a whole number", "", out);
		break;
	case CONFIG_DOUBLE:
		describe_range(row, "a number", "", out);
		break;
	case CONFIG_BYTES:
		describe_range(row, "a size", ", such as 512MB or 1GiB", out);
		break;
	case CONFIG_MS:
		describe_range(row, "a time", ", such as 250ms, 5s or 2m", out);
		break;
	case CONFIG_CHOICE:
		buf_append_str(out, "one of ");
		append_choices(row, ", ", out);
		break;
	default:
		buf_append_str(out, "text");
	}
}

int config_value_parse(
	const struct config_row *row, const char *text, void *slot, char *allowed, size_t size)
{
	int rc = -1;
	int64_t integer = 0;
	double number = 0;
	switch (row->type) {
	case CONFIG_STRING:
	case CONFIG_SECRET:
	case CONFIG_PATH:
	case CONFIG_ADDRESS:
	case CONFIG_URL:
		rc = parse_string(row, text, slot);
		break;
	case CONFIG_BOOL:
		rc = parse_bool(text, slot);
		break;
	case CONFIG_CHOICE:
		rc = parse_choice(row->choices, text, slot);
		break;
	case CONFIG_INT:
		rc = parse_int(text, &integer);
		break;
	case CONFIG_BYTES:
		rc = parse_scaled(text, byte_units, 1, &integer);
		break;
	case CONFIG_MS:
		rc = parse_scaled(text, time_units, plain_ms(row), &integer);
		break;
	case CONFIG_DOUBLE:
		rc = parse_double(text, &number);
		if (rc == 0 && !in_range(row, number))
			rc = -1;
		if (rc == 0)
			*(double *)slot = number;
		break;
	}
	if (row->type == CONFIG_INT || row->type == CONFIG_BYTES || row->type == CONFIG_MS) {
		if (rc == 0 && !in_range(row, (double)integer))
			rc = -1;
		if (rc == 0)
			*(int64_t *)slot = integer;
	}
	if (rc == 0)
		return 0;
	if (rc == -1) {
		struct buf out = BUF_INIT(size - 1);
		describe_allowed(row, &out);
		snprintf(allowed, size, "%.*s", (int)out.len, out.data ? (char *)out.data : "");
		buf_free(&out);
	}
	return rc;
}

void config_value_format(const struct config_row *row, const void *slot, struct buf *out)
{
	struct span name;
	switch (row->type) {
	case CONFIG_BOOL:
		buf_append_str(out, *(const bool *)slot ? "true" : "false");
		break;
	case CONFIG_INT:
		buf_printf(out, "%lld", (long long)*(const int64_t *)slot);
		break;
	case CONFIG_DOUBLE:
		buf_append_double(out, *(const double *)slot);
		break;
	case CONFIG_BYTES:
		format_scaled(byte_units, "", *(const int64_t *)slot, out);
		break;
	case CONFIG_MS:
		format_scaled(time_units, "ms", *(const int64_t *)slot, out);
		break;
	case CONFIG_CHOICE:
		name = choice_name(row->choices, *(const int *)slot);
		buf_append(out, name.data, name.len);
		break;
	default:
		buf_append_str(out, *(char *const *)slot);
	}
}

bool config_value_equal(const struct config_row *row, const void *a, const void *b)
{
	switch (row->type) {
	case CONFIG_BOOL:
		return *(const bool *)a == *(const bool *)b;
	case CONFIG_CHOICE:
		return *(const int *)a == *(const int *)b;
	case CONFIG_DOUBLE:
		return *(const double *)a == *(const double *)b;
	case CONFIG_INT:
	case CONFIG_BYTES:
	case CONFIG_MS:
		return *(const int64_t *)a == *(const int64_t *)b;
	default:
		return strcmp(*(char *const *)a, *(char *const *)b) == 0;
	}
}

void config_value_hint(const struct config_row *row, struct buf *out)
{
	static const char *const hints[] = {
		"TEXT", "SECRET", "PATH", "ADDRESS", "URL", "", "N", "NUMBER", "SIZE", "TIME", ""};
	if (row->type == CONFIG_CHOICE)
		append_choices(row, "|", out);
	else
		buf_append_str(out, hints[row->type]);
}

void config_hide_userinfo(char *url)
{
	char *host = strstr(url, "://");
	if (!host)
		return;
	host += 3;
	char *at = memrchr(host, '@', strcspn(host, "/?"));
	if (at)
		memmove(host, at + 1, strlen(at + 1) + 1);
}
