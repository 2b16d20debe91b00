#include "common/http_parser.h"

#include <string.h>

/* What a byte may be part of. */
enum { TOKEN = 1, HOST = 2 };
#define T  TOKEN
#define TH (TOKEN | HOST)
#define H  HOST
static const uint8_t char_class[256] = {
	['!'] = TH,
	['#'] = T,
	['$'] = TH,
	['%'] = TH,
	['&'] = TH,
	['\''] = TH,
	['('] = H,
	[')'] = H,
	['*'] = TH,
	['+'] = TH,
	['-'] = TH,
	['.'] = TH,
	[';'] = H,
	['='] = H,
	['^'] = T,
	['_'] = TH,
	['`'] = T,
	['|'] = T,
	['~'] = TH,
	['0' ... '9'] = TH,
	['A' ... 'Z'] = TH,
	['a' ... 'z'] = TH,
};
#undef T
#undef TH
#undef H

static inline bool is_class(char c, uint8_t class)
{
	return (char_class[(uint8_t)c] & class) != 0;
}

static inline bool is_space(char c)
{
	return c == ' ' || c == '\t';
}

static inline bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* True if the bytes, already known to be of len, spell the lower-case word in any case. Letters and
 * '-' only. */
static bool spells(const char *data, const char *word, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((data[i] | 0x20) != word[i])
			return false;
	return true;
}

bool http_is_token(struct span text)
{
	for (size_t i = 0; i < text.len; i++)
		if (!is_class(text.data[i], TOKEN))
			return false;
	return text.len > 0;
}

/* No control characters but tabs. */
static bool is_plain_text(const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (((uint8_t)data[i] < 0x20 && data[i] != '\t') || data[i] == 0x7f)
			return false;
	return true;
}

/* The same, eight bytes at a time: a byte below 0x20 or equal to 0x7f shows in the high bit of its
 * lane (a lane above a hit may show too, so a hit is looked at again). The last eight may have been
 * looked at in part. */
static bool is_text(const char *data, size_t len)
{
	const uint64_t ones = UINT64_C(0x0101010101010101), highs = ones * 0x80;
	if (len < 8)
		return is_plain_text(data, len);
	for (size_t i = 0;; i = i + 8 > len - 8 ? len - 8 : i + 8) {
		uint64_t w;
		memcpy(&w, data + i, sizeof w);
		uint64_t del = w ^ (ones * 0x7f);
		uint64_t hit = ((w - ones * 0x20) & ~w) | ((del - ones) & ~del);
		if ((hit & highs) && !is_plain_text(data + i, 8))
			return false;
		if (i == len - 8)
			return true;
	}
}

bool http_is_field_value(struct span text)
{
	if (text.len > 0 && (is_space(text.data[0]) || is_space(text.data[text.len - 1])))
		return false;
	return is_text(text.data, text.len);
}

static bool is_target_text(const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (data[i] < 0x21 || data[i] > 0x7e || data[i] == '#')
			return false;
	return true;
}

bool http_is_target(struct span text)
{
	return text.len > 0 && (text.data[0] == '/' || span_equal_str(text, "*")) &&
	       is_target_text(text.data, text.len);
}

void http_head_init(struct http_head *head, enum http_kind kind, const struct http_limits *limits,
	struct http_field *fields, uint32_t max_fields)
{
	*head = (struct http_head){
		.kind = kind, .limits = limits, .fields = fields, .max_fields = max_fields};
}

void http_head_is_to_head(struct http_head *head)
{
	head->to_head = true;
}

static enum http_result refuse(struct http_head *head, int status, const char *reason)
{
	head->refusal.status = head->kind == HTTP_RESPONSE ? 502 : status;
	head->refusal.reason = reason;
	return HTTP_BAD;
}

static struct http_text text_of(const char *base, const char *data, size_t len)
{
	return (struct http_text){(uint32_t)(data - base), (uint32_t)len};
}

/*
 * uri-host [":" port] (RFC 3986, 3.2.2). A comma, which the grammar allows in names, is not
 * accepted: it comes from two Host fields joined into one.
 */
static bool is_host(const char *p, size_t len)
{
	const char *end = p + len;
	if (p < end && *p == '[') {
		const char *close = memchr(p, ']', len);
		if (!close || close - p < 3)
			return false;
		for (const char *c = p + 1; c < close; c++)
			if (!is_digit(*c) && !((*c | 0x20) >= 'a' && (*c | 0x20) <= 'f') &&
				*c != ':' && *c != '.')
				return false;
		p = close + 1;
	} else {
		const char *start = p;
		while (p < end && is_class(*p, HOST))
			p++;
		if (p == start)
			return false;
	}
	if (p == end)
		return true;
	if (*p++ != ':' || end - p > 5)
		return false;
	unsigned port = 0;
	for (; p < end; p++) {
		if (!is_digit(*p))
			return false;
		port = port * 10 + (unsigned)(*p - '0');
	}
	return port <= 65535;
}

static enum http_result parse_target(
	struct http_head *head, const char *base, const char *target, size_t len)
{
	if (len > head->limits->max_target_bytes)
		return refuse(head, 414, "The request target is too long.");
	if (len == 0)
		return refuse(head, 400, "The request target is empty.");
	if (!is_target_text(target, len))
		return refuse(
			head, 400, "The request target contains a character that is not allowed.");
	head->target = text_of(base, target, len);
	struct span method = http_text_span(base, head->method);
	if (span_equal_str(method, "CONNECT"))
		return refuse(head, 501, "The CONNECT method is not supported.");
	if (target[0] == '/' || (len == 1 && target[0] == '*' && span_equal_str(method, "OPTIONS")))
		return HTTP_MORE;

	size_t scheme = len >= 7 && spells(target, "http:", 5) && !memcmp(target + 5, "//", 2) ? 7
			: len >= 8 && spells(target, "https:", 6) && !memcmp(target + 6, "//", 2)
				? 8
				: 0;
	if (scheme == 0)
		return refuse(head, 400, "The request target is neither a path nor an http URL.");
	const char *authority = target + scheme, *end = target + len;
	const char *path = authority;
	while (path < end && *path != '/' && *path != '?')
		path++;
	if (!is_host(authority, (size_t)(path - authority)))
		return refuse(head, 400, "The request target has an invalid host.");
	head->host = text_of(base, authority, (size_t)(path - authority));
	head->target = text_of(base, path, (size_t)(end - path));
	head->absolute = true;
	return HTTP_MORE;
}

/* "HTTP/" DIGIT "." DIGIT */
static enum http_result parse_version(struct http_head *head, const char *p, size_t len)
{
	if (len != 8 || memcmp(p, "HTTP/", 5) != 0 || !is_digit(p[5]) || p[6] != '.' ||
		!is_digit(p[7]))
		return refuse(head, 400, "The HTTP version is malformed.");
	if (p[5] != '1' || p[7] > '1')
		return refuse(head, 505, "Only HTTP/1.0 and HTTP/1.1 are supported.");
	head->minor_version = (uint8_t)(p[7] - '0');
	return HTTP_MORE;
}

/* The method, as far as it is here: so that bytes that are no HTTP at all are refused at once. */
static enum http_result check_method(struct http_head *head, const char *line, size_t len)
{
	size_t n = 0;
	while (n < len && n <= HTTP_MAX_METHOD_BYTES && is_class(line[n], TOKEN))
		n++;
	if (n > HTTP_MAX_METHOD_BYTES)
		return refuse(head, 400, "The method is too long.");
	if (n < len && (n == 0 || line[n] != ' '))
		return refuse(head, 400, "The request line has no valid method.");
	return HTTP_MORE;
}

/* A method, two spaces, the version, CR LF, and a target that is just not too long. */
static size_t max_request_line(const struct http_head *head)
{
	return (size_t)head->limits->max_target_bytes + HTTP_MAX_METHOD_BYTES + 12;
}

static enum http_result parse_request_line(
	struct http_head *head, const char *base, const char *line, size_t len)
{
	const char *end = line + len;
	const char *space = memchr(line, ' ', len);
	if (!space)
		return refuse(head, 400, "The request line has no valid method.");
	head->method = text_of(base, line, (size_t)(space - line));
	const char *target = space + 1;
	space = memchr(target, ' ', (size_t)(end - target));
	if (!space)
		return refuse(head, 400, "The request line has no HTTP version.");
	enum http_result result = parse_target(head, base, target, (size_t)(space - target));
	if (result == HTTP_BAD)
		return result;
	return parse_version(head, space + 1, (size_t)(end - space - 1));
}

static enum http_result parse_status_line(
	struct http_head *head, const char *base, const char *line, size_t len)
{
	const char *end = line + len;
	enum http_result result = parse_version(head, line, len < 8 ? len : 8);
	if (result == HTTP_BAD)
		return result;
	const char *p = line + 8;
	if (end - p < 4 || p[0] != ' ' || p[1] < '1' || p[1] > '5' || !is_digit(p[2]) ||
		!is_digit(p[3]) || (end - p > 4 && p[4] != ' '))
		return refuse(head, 502, "The status code is malformed.");
	head->status = (uint16_t)((p[1] - '0') * 100 + (p[2] - '0') * 10 + (p[3] - '0'));
	p += 4;
	if (p < end)
		p++;
	if (!is_text(p, (size_t)(end - p)))
		return refuse(head, 502, "The status line contains a control character.");
	head->reason = text_of(base, p, (size_t)(end - p));
	return HTTP_MORE;
}

static enum http_result parse_length(struct http_head *head, const char *value, size_t len)
{
	if (head->has_length)
		return refuse(head, 400, "Content-Length is given twice.");
	head->has_length = true;
	uint64_t n = 0;
	for (size_t i = 0; i < len; i++) {
		uint64_t digit = (uint64_t)(value[i] - '0');
		if (!is_digit(value[i]))
			return refuse(head, 400, "Content-Length is not a number.");
		if (n > (UINT64_MAX - digit) / 10)
			return refuse(head, 400, "Content-Length is out of range.");
		n = n * 10 + digit;
	}
	if (len == 0 || n > INT64_MAX)
		return refuse(head, 400,
			len ? "Content-Length is out of range." : "Content-Length is empty.");
	head->content_length = n;
	return HTTP_MORE;
}

static void parse_connection(struct http_head *head, const char *p, size_t len)
{
	const char *end = p + len;
	while (p < end) {
		const char *comma = memchr(p, ',', (size_t)(end - p));
		const char *stop = comma ? comma : end;
		while (p < stop && is_space(*p))
			p++;
		const char *last = stop;
		while (last > p && is_space(last[-1]))
			last--;
		if (last - p == 5 && spells(p, "close", 5))
			head->says_close = true;
		else if (last - p == 10 && spells(p, "keep-alive", 10))
			head->says_keep_alive = true;
		p = comma ? comma + 1 : end;
	}
}

/* Of a request: who looks at the first and who looks at the last would see two of them. */
static enum http_result refuse_second(struct http_head *head, bool *seen, const char *why)
{
	if (head->kind == HTTP_REQUEST && *seen)
		return refuse(head, 400, why);
	*seen = true;
	return HTTP_MORE;
}

/* Fields that decide about framing, routing, and what a request is taken for. */
static enum http_result look_at_field(
	struct http_head *head, const char *base, const struct http_field *field)
{
	const char *name = base + field->name.at, *value = base + field->value.at;
	size_t len = field->value.len;
	switch (field->name.len) {
	case 4:
		if (head->kind != HTTP_REQUEST || !spells(name, "host", 4))
			break;
		if (head->has_host)
			return refuse(head, 400, "Host is given twice.");
		head->has_host = true;
		if (!is_host(value, len))
			return refuse(head, 400, "Host is invalid.");
		if (!head->absolute)
			head->host = field->value;
		break;
	case 6:
		if (head->kind != HTTP_REQUEST || !spells(name, "expect", 6))
			break;
		if (len == 12 && !strncasecmp(value, "100-continue", 12))
			head->expect_continue = true;
		else
			head->bad_expectation = true;
		break;
	case 10:
		if (spells(name, "connection", 10))
			parse_connection(head, value, len);
		break;
	case 12:
		if (spells(name, "content-type", 12))
			return refuse_second(head, &head->has_type, "Content-Type is given twice.");
		break;
	case 13:
		if (spells(name, "authorization", 13))
			return refuse_second(
				head, &head->has_authorization, "Authorization is given twice.");
		break;
	case 14:
		if (spells(name, "content-length", 14))
			return parse_length(head, value, len);
		break;
	case 17:
		if (!spells(name, "transfer-encoding", 17))
			break;
		if (head->has_coding)
			return refuse(head, 400, "Transfer-Encoding is given twice.");
		head->has_coding = true;
		head->coding_chunked = len == 7 && spells(value, "chunked", 7);
		break;
	default:
		break;
	}
	return HTTP_MORE;
}

static enum http_result parse_field(
	struct http_head *head, const char *base, const char *line, size_t len)
{
	if (is_space(line[0]))
		return refuse(head, 400, "A header line begins with white space.");
	size_t n = 0;
	while (n < len && is_class(line[n], TOKEN))
		n++;
	if (n == len)
		return refuse(head, 400, "A header line has no colon.");
	if (line[n] != ':' || n == 0) {
		if (n > 0 && is_space(line[n]))
			return refuse(head, 400, "A header name is followed by white space.");
		return refuse(head, 400, "A header name contains a character that is not allowed.");
	}
	if (head->n_fields == head->max_fields)
		return refuse(head, 431, "There are too many header fields.");

	const char *value = line + n + 1, *end = line + len;
	while (value < end && is_space(*value))
		value++;
	while (end > value && is_space(end[-1]))
		end--;
	if (!is_text(value, (size_t)(end - value)))
		return refuse(head, 400, "A header value contains a control character.");
	struct http_field *field = &head->fields[head->n_fields++];
	field->name = text_of(base, line, n);
	field->value = text_of(base, value, (size_t)(end - value));
	return look_at_field(head, base, field);
}

static void frame_response(struct http_head *head)
{
	if (head->to_head || head->status < 200 || head->status == 204 || head->status == 304)
		head->framing = HTTP_FRAMING_NONE;
	else if (head->has_coding)
		head->framing = HTTP_FRAMING_CHUNKED;
	else if (head->has_length)
		head->framing = HTTP_FRAMING_LENGTH;
	else
		head->framing = HTTP_FRAMING_UNTIL_CLOSE;
	if (head->framing == HTTP_FRAMING_UNTIL_CLOSE)
		head->keep_alive = false;
}

/* The empty line was seen: what the fields mean together. */
static enum http_result finish_head(struct http_head *head)
{
	bool request = head->kind == HTTP_REQUEST;
	if (request && head->minor_version > 0 && !head->has_host)
		return refuse(head, 400, "Host is missing.");
	if (head->has_coding) {
		if (head->minor_version == 0)
			return refuse(head, 400, "Transfer-Encoding is not part of HTTP/1.0.");
		if (head->has_length)
			return refuse(
				head, 400, "Content-Length and Transfer-Encoding are both given.");
		if (!head->coding_chunked)
			return refuse(head, 501, "Only the chunked transfer coding is supported.");
	}
	head->keep_alive = !head->says_close && (head->minor_version > 0 || head->says_keep_alive);
	if (request)
		head->framing = head->has_coding           ? HTTP_FRAMING_CHUNKED
				: head->content_length > 0 ? HTTP_FRAMING_LENGTH
							   : HTTP_FRAMING_NONE;
	else
		frame_response(head);
	if (head->framing == HTTP_FRAMING_LENGTH &&
		head->content_length > head->limits->max_body_bytes)
		return refuse(head, 413, "The body is too large.");
	if (head->minor_version == 0)
		head->expect_continue = false;
	else if (head->bad_expectation)
		return refuse(head, 417, "The only expectation supported is 100-continue.");
	return HTTP_DONE;
}

/* No line end in sight: more is needed, or too much has come already. */
static enum http_result wait_for_line(struct http_head *head, const char *data, size_t len)
{
	size_t end = len < head->limits->max_head_bytes ? len : head->limits->max_head_bytes;
	head->scan_at = (uint32_t)end;
	if (!head->start_done && head->kind == HTTP_REQUEST) {
		const char *line = data + head->line_at;
		size_t n = end - head->line_at;
		/* The empty line before a request may be cut in two. */
		bool half_empty = n == 1 && line[0] == '\r' && !head->seen_empty_line;
		if (!half_empty && check_method(head, line, n) == HTTP_BAD)
			return HTTP_BAD;
		if (n >= max_request_line(head))
			return refuse(head, 414, "The request target is too long.");
	}
	if (len >= head->limits->max_head_bytes)
		return refuse(head, 431, "The header section is too large.");
	return HTTP_MORE;
}

/* A start line, without its line end. */
static enum http_result parse_start(
	struct http_head *head, const char *data, const char *line, size_t len, bool has_cr)
{
	if (head->kind == HTTP_REQUEST) {
		if (len == 0 && has_cr && !head->seen_empty_line) {
			head->seen_empty_line = true;
			return HTTP_MORE;
		}
		if (check_method(head, line, len + (has_cr ? 2 : 1)) == HTTP_BAD)
			return HTTP_BAD;
		if (len + 2 > max_request_line(head))
			return refuse(head, 414, "The request target is too long.");
	}
	if (!has_cr)
		return refuse(head, 400, "A line ends without a carriage return.");
	head->start_done = true;
	return head->kind == HTTP_REQUEST ? parse_request_line(head, data, line, len)
					  : parse_status_line(head, data, line, len);
}

enum http_result http_head_parse(struct http_head *head, const char *data, size_t len_bytes)
{
	size_t end = len_bytes < head->limits->max_head_bytes ? len_bytes
							      : head->limits->max_head_bytes;
	for (;;) {
		const char *lf = head->scan_at < end
					 ? memchr(data + head->scan_at, '\n', end - head->scan_at)
					 : NULL;
		if (!lf)
			return wait_for_line(head, data, len_bytes);
		const char *line = data + head->line_at;
		bool has_cr = lf > line && lf[-1] == '\r';
		size_t len = (size_t)(lf - line) - has_cr;
		head->line_at = head->scan_at = (uint32_t)(lf + 1 - data);

		enum http_result result;
		if (!head->start_done) {
			result = parse_start(head, data, line, len, has_cr);
		} else if (!has_cr) {
			result = refuse(head, 400, "A line ends without a carriage return.");
		} else if (len == 0) {
			head->head_bytes = head->line_at;
			return finish_head(head);
		} else {
			result = parse_field(head, data, line, len);
		}
		if (result == HTTP_BAD)
			return result;
	}
}

const struct http_field *http_head_field(
	const struct http_head *head, const char *message, const char *name)
{
	size_t len = strlen(name);
	for (uint32_t i = 0; i < head->n_fields; i++)
		if (head->fields[i].name.len == len &&
			!strncasecmp(message + head->fields[i].name.at, name, len))
			return &head->fields[i];
	return NULL;
}
