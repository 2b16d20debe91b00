#include "redisproxy/resp.h"

#include <stdio.h>
#include <string.h>

#define MAX_LENGTH_LINE 24           /* "-9223372036854775808\r\n" */
#define MAX_REPLY_COUNT (1u << 31)   /* elements of one aggregate */
#define MAX_REPLY_LEFT  (1ULL << 40) /* frames of one reply */

bool resp_number(struct span text, int64_t *value)
{
	size_t i = 0;
	bool negative = text.len && text.data[0] == '-';
	int64_t n = 0;

	if (negative)
		i++;
	/* 18 digits are enough for everything here and cannot overflow. */
	if (i == text.len || text.len - i > 18)
		return false;
	if (text.data[i] == '0' && (negative || text.len > 1))
		return false;
	for (; i < text.len; i++) {
		unsigned digit = (unsigned)(unsigned char)text.data[i] - '0';

		if (digit > 9)
			return false;
		n = n * 10 + (int64_t)digit;
	}
	*value = negative ? -n : n;
	return true;
}

/* As length_line(), of anything. */
static enum resp_result any_length_line(const char **p, const char *end, int64_t *value)
{
	size_t len = (size_t)(end - *p);
	const char *cr = memchr(*p, '\r', len < MAX_LENGTH_LINE ? len : MAX_LENGTH_LINE);

	if (!cr)
		return len < MAX_LENGTH_LINE ? RESP_MORE : RESP_BAD;
	if (cr + 1 == end)
		return RESP_MORE;
	if (cr[1] != '\n' || !resp_number((struct span){*p, (size_t)(cr - *p)}, value))
		return RESP_BAD;
	*p = cr + 2;
	return RESP_COMPLETE;
}

/* The number on the line at *p, which moves behind its CRLF. */
static inline enum resp_result length_line(const char **p, const char *end, int64_t *value)
{
	const char *at = *p, *most = end - at > 9 ? at + 9 : end;
	int64_t n = 0;

	/* Nearly all are a few digits. */
	while (at < most && (unsigned char)(*at - '0') <= 9)
		n = n * 10 + (*at++ - '0');
	if (end - at >= 2 && at > *p && at[0] == '\r' && at[1] == '\n' &&
		(**p != '0' || at - *p == 1)) {
		*p = at + 2;
		*value = n;
		return RESP_COMPLETE;
	}
	return any_length_line(p, end, value);
}

static enum resp_result bad(struct resp_command *s, const char *data, const char *p,
	const char **error, const char *why)
{
	s->at = (size_t)(p - data);
	*error = why;
	return RESP_BAD;
}

static enum resp_result open_command(struct resp_command *s, const char *data, const char **p,
	const char *end, const char **error)
{
	int64_t n;
	const char *at = *p + 1;
	enum resp_result result = length_line(&at, end, &n);

	if (result == RESP_MORE)
		return RESP_MORE;
	if (result == RESP_BAD || n > RESP_MAX_ARGUMENTS)
		return bad(s, data, *p, error, "Protocol error: invalid multibulk length");
	*p = at;
	s->open = true;
	s->argc = s->left = n > 0 ? (uint32_t)n : 0;
	return RESP_COMPLETE;
}

/* A number of one to four digits and its CRLF, without a leading zero, as nearly all are; moves
 * behind them. -1: something else, or it does not end here. */
static inline int short_line(const char **p, const char *end)
{
	const char *at = *p;
	unsigned n = (unsigned)(unsigned char)*at - '0', digit;

	if (end - at < 6 || n - 1 > 8)
		return -1;
	while ((digit = (unsigned)(unsigned char)*++at - '0') <= 9)
		if ((n = n * 10 + digit) > 9999)
			return -1;
	if (at[0] != '\r' || at[1] != '\n')
		return -1;
	*p = at + 2;
	return (int)n;
}

/* The whole of a command of the most usual form, which is nearly every one. False: nothing is said
 * about it. */
static bool scan_usual(struct resp_command *s, const char *data, const char *end)
{
	const char *p = data + 1, *name = NULL;
	int argc, n, name_len = 0;

	if (end - p < 6 || (argc = short_line(&p, end)) < 0)
		return false;
	for (int left = argc; left; left--) {
		if (end - p < 7 || *p++ != '$' || (n = short_line(&p, end)) < 0 || end - p < n + 2)
			return false;
		if (!name) {
			name = p;
			name_len = n;
		}
		p += n;
		if (p[0] != '\r' || p[1] != '\n')
			return false;
		p += 2;
	}
	*s = (struct resp_command){.at = (size_t)(p - data),
		.name_at = (size_t)(name - data),
		.name_len = (uint32_t)name_len,
		.argc = (uint32_t)argc,
		.open = true};
	return true;
}

enum resp_result resp_command_scan(
	struct resp_command *s, const char *data, size_t len, const char **error)
{
	static const char bad_length[] = "Protocol error: invalid bulk length";
	const char *p = data + s->at, *end = data + len;

	if (!s->open && scan_usual(s, data, end))
		return RESP_COMPLETE;
	if (!s->open) {
		enum resp_result result = p == end ? RESP_MORE
						   : open_command(s, data, &p, end, error);

		if (result != RESP_COMPLETE)
			return result;
	}
	while (s->left) {
		if (!s->in_argument) {
			int64_t n;

			if (p == end)
				break;
			if (*p != '$')
				return bad(s, data, p, error, "Protocol error: expected '$'");
			const char *at = p + 1;
			enum resp_result result = length_line(&at, end, &n);

			if (result == RESP_MORE)
				break;
			if (result == RESP_BAD || n < 0 || n > RESP_MAX_ARGUMENT_BYTES)
				return bad(s, data, p, error, bad_length);
			p = at;
			s->skip = (uint32_t)n;
			s->in_argument = true;
			if (s->left == s->argc) {
				s->name_at = (size_t)(p - data);
				s->name_len = s->skip;
			}
		}
		size_t have = (size_t)(end - p);

		if (have < (size_t)s->skip + 2) {
			/* The CRLF is looked at in one piece. */
			size_t part = have < s->skip ? have : s->skip;

			s->skip -= (uint32_t)part;
			p += part;
			break;
		}
		p += s->skip;
		if (p[0] != '\r' || p[1] != '\n')
			return bad(s, data, p, error, bad_length);
		p += 2;
		s->skip = 0;
		s->in_argument = false;
		s->left--;
	}
	s->at = (size_t)(p - data);
	return s->left ? RESP_MORE : RESP_COMPLETE;
}

void resp_command_forget(struct resp_command *s, size_t n)
{
	s->at -= n;
}

struct resp_arguments resp_arguments_of(const char *frame)
{
	struct resp_arguments a = {frame + 1, 0};

	while (*a.at >= '0' && *a.at <= '9')
		a.left = a.left * 10 + (uint32_t)(*a.at++ - '0');
	a.at += 2;
	return a;
}

bool resp_arguments_next(struct resp_arguments *a, struct span *argument)
{
	size_t len = 0;

	if (!a->left)
		return false;
	a->left--;
	for (a->at++; *a->at != '\r'; a->at++)
		len = len * 10 + (size_t)(*a->at - '0');
	*argument = (struct span){a->at + 2, len};
	a->at += 2 + len + 2;
	return true;
}

void resp_append_command(struct buf *out, const struct span *argv, uint32_t argc)
{
	buf_printf(out, "*%u\r\n", argc);
	for (uint32_t i = 0; i < argc; i++) {
		buf_printf(out, "$%zu\r\n", argv[i].len);
		buf_append(out, argv[i].data, argv[i].len);
		buf_append(out, "\r\n", 2);
	}
}

/* ---- inline ---- */

static bool is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r') || c == '\0';
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static char escaped(char c)
{
	switch (c) {
	case 'n':
		return '\n';
	case 'r':
		return '\r';
	case 't':
		return '\t';
	case 'b':
		return '\b';
	case 'a':
		return '\a';
	default:
		return c;
	}
}

/* One quoted part, p behind the opening quote. Returns behind the closing one, or NULL. */
static const char *quoted(const char *p, const char *end, char quote, struct buf *word)
{
	while (p < end && *p != quote) {
		if (*p == '\\' && quote == '"' && end - p >= 4 && p[1] == 'x' &&
			hex_digit(p[2]) >= 0 && hex_digit(p[3]) >= 0) {
			buf_append_char(word, (char)(hex_digit(p[2]) * 16 + hex_digit(p[3])));
			p += 4;
		} else if (*p == '\\' && quote == '"' && end - p >= 2) {
			buf_append_char(word, escaped(p[1]));
			p += 2;
		} else if (*p == '\\' && end - p >= 2 && p[1] == '\'') {
			buf_append_char(word, '\'');
			p += 2;
		} else {
			buf_append_char(word, *p++);
		}
	}
	if (p == end)
		return NULL;
	p++;
	/* A word ends with its closing quote. */
	return p == end || is_blank(*p) ? p : NULL;
}

/* One word from p, which is not blank. NULL: the quotes do not match. */
static const char *read_word(const char *p, const char *end, struct buf *word)
{
	while (p < end && !is_blank(*p)) {
		if (*p == '"' || *p == '\'')
			return quoted(p + 1, end, *p, word);
		buf_append_char(word, *p++);
	}
	return p;
}

enum resp_result resp_inline(
	const char *data, size_t len, size_t *used, struct buf *frame, const char **error)
{
	static const char unbalanced[] = "Protocol error: unbalanced quotes in request";
	const char *newline = memchr(data, '\n', len);
	struct buf words = BUF_INIT(2 * RESP_MAX_INLINE_BYTES * 8);
	struct buf word = BUF_INIT(RESP_MAX_INLINE_BYTES);
	uint32_t argc = 0;

	buf_clear(frame);
	*error = "Protocol error: too big inline request";
	if ((newline ? (size_t)(newline - data) : len) > RESP_MAX_INLINE_BYTES)
		return RESP_BAD;
	if (!newline)
		return RESP_MORE;
	*used = (size_t)(newline - data) + 1;
	const char *p = data, *end = newline;

	if (end > p && end[-1] == '\r')
		end--;
	while (p) {
		while (p < end && is_blank(*p))
			p++;
		if (p == end)
			break;
		buf_clear(&word);
		p = read_word(p, end, &word);
		if (p) {
			buf_printf(&words, "$%zu\r\n", word.len);
			buf_append(&words, word.data, word.len);
			buf_append(&words, "\r\n", 2);
			argc++;
		}
	}
	if (!p)
		*error = unbalanced;
	if (argc) {
		buf_printf(frame, "*%u\r\n", argc);
		buf_append(frame, words.data, words.len);
	}
	bool failed = !p || buf_failed(&words) || buf_failed(&word) || buf_failed(frame);

	buf_free(&word);
	buf_free(&words);
	return failed ? RESP_BAD : RESP_COMPLETE;
}

/* ---- replies ---- */

static bool is_line(char type)
{
	return type == '+' || type == '-' || type == ':' || type == '_' || type == ',' ||
	       type == '(' || type == '#';
}

static bool is_counted(char type)
{
	return type == '$' || type == '*' || type == '!' || type == '=' || type == '~' ||
	       type == '%' || type == '>' || type == '|';
}

/* A length or a count at p (behind the type). */
static enum resp_result open_counted(struct resp_reply *s, const char **p, const char *end)
{
	char type = **p;
	const char *at = *p + 1;
	int64_t n;
	enum resp_result result = length_line(&at, end, &n);

	if (result != RESP_COMPLETE)
		return result;
	if (n < -1 || (n == -1 && type != '$' && type != '*'))
		return RESP_BAD;
	switch (type) {
	case '$':
	case '!':
	case '=':
		s->skip = n < 0 ? 0 : (uint64_t)n + 2;
		break;
	default:
		if (n > MAX_REPLY_COUNT)
			return RESP_BAD;
		if (n > 0)
			s->left += (uint64_t)n * (type == '%' || type == '|' ? 2 : 1);
		/* What the attribute is about comes after it. */
		if (type == '|')
			s->left++;
		if (s->left > MAX_REPLY_LEFT)
			return RESP_BAD;
	}
	*p = at;
	return RESP_COMPLETE;
}

enum resp_result resp_reply_scan(struct resp_reply *s, const char *data, size_t len, size_t *used)
{
	const char *p = data, *end = data + len;
	enum resp_result result = RESP_MORE;

	*used = 0;
	if (p == end)
		return RESP_MORE;
	if (!s->left && !s->skip && !s->in_line) {
		s->left = 1;
		s->type = *p;
	}
	for (;;) {
		if (s->skip) {
			size_t have = (size_t)(end - p);
			size_t part = have < s->skip ? have : (size_t)s->skip;

			s->skip -= part;
			p += part;
		} else if (s->in_line) {
			const char *newline = memchr(p, '\n', (size_t)(end - p));

			p = newline ? newline + 1 : end;
			s->in_line = !newline;
		}
		if (s->skip || s->in_line) {
			result = RESP_MORE;
			break;
		}
		if (!s->left) {
			result = RESP_COMPLETE;
			break;
		}
		if (p == end) {
			result = RESP_MORE;
			break;
		}
		if (is_line(*p)) {
			s->left--;
			s->in_line = true;
			continue;
		}
		result = is_counted(*p) ? open_counted(s, &p, end) : RESP_BAD;
		if (result != RESP_COMPLETE)
			break;
		s->left--;
	}
	*used = (size_t)(p - data);
	return result;
}
