#include "common/http_parser.h"

#include <string.h>

/*
 * Chunked (RFC 9112, 7.1):
 *
 *   SIZE --';'--> EXTENSION --CR--> SIZE_LF --LF--> DATA (size > 0) --> DATA_CR -> DATA_LF -> SIZE
 *     \-------------CR-------------/        \-----> LINE (size 0) --CR--> LAST_LF --LF--> END
 *                                                    ^  \-> NAME --':'--> VALUE --CR--\
 *                                                    \-------------- TRAILER_LF <-----/
 */
enum state {
	END,
	PLAIN, /* left_bytes of data, no more */
	UNTIL_CLOSE,
	SIZE,
	EXTENSION,
	SIZE_LF,
	DATA,
	DATA_CR,
	DATA_LF,
	LINE,
	NAME,
	VALUE,
	TRAILER_LF,
	LAST_LF,
	BAD
};

#define MAX_SIZE_DIGITS 16

void http_body_init(struct http_body *body, const struct http_head *head)
{
	*body = (struct http_body){.max_bytes = head->limits->max_body_bytes, .kind = head->kind};
	switch (head->framing) {
	case HTTP_FRAMING_NONE:
		body->state = END;
		break;
	case HTTP_FRAMING_LENGTH:
		body->left_bytes = head->content_length;
		body->state = body->left_bytes > 0 ? PLAIN : END;
		break;
	case HTTP_FRAMING_CHUNKED:
		body->state = SIZE;
		break;
	case HTTP_FRAMING_UNTIL_CLOSE:
		body->state = UNTIL_CLOSE;
		break;
	}
}

static enum http_body_result refuse(struct http_body *body, int status, const char *reason)
{
	body->state = BAD;
	body->refusal.status = body->kind == HTTP_RESPONSE ? 502 : status;
	body->refusal.reason = reason;
	return HTTP_BODY_BAD;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_control(char c)
{
	return ((uint8_t)c < 0x20 && c != '\t') || c == 0x7f;
}

static enum http_body_result take_size(struct http_body *body, char c)
{
	int digit = hex_digit(c);
	if (digit >= 0) {
		if (body->digits++ == MAX_SIZE_DIGITS)
			return refuse(body, 400, "A chunk size is out of range.");
		body->left_bytes = body->left_bytes << 4 | (unsigned)digit;
		if (body->left_bytes > body->max_bytes - body->decoded_bytes)
			return refuse(body, 413, "The body is too large.");
		return HTTP_BODY_MORE;
	}
	if (body->digits == 0 || (c != '\r' && c != ';'))
		return refuse(body, 400, "A chunk size is malformed.");
	body->state = c == ';' ? EXTENSION : SIZE_LF;
	return HTTP_BODY_MORE;
}

static enum http_body_result take_trailer(struct http_body *body, char c)
{
	if (++body->trailer_bytes > HTTP_MAX_TRAILER_BYTES)
		return refuse(body, 431, "The trailer section is too large.");
	switch (body->state) {
	case LINE:
		if (c == '\r') {
			body->state = LAST_LF;
			break;
		}
		if (!http_is_token((struct span){&c, 1}))
			return refuse(body, 400, "A trailer field has no valid name.");
		body->state = NAME;
		break;
	case NAME:
		if (c == ':')
			body->state = VALUE;
		else if (!http_is_token((struct span){&c, 1}))
			return refuse(body, 400, "A trailer field has no valid name.");
		break;
	default:
		if (c == '\r')
			body->state = TRAILER_LF;
		else if (is_control(c))
			return refuse(body, 400, "A trailer field contains a control character.");
		break;
	}
	return HTTP_BODY_MORE;
}

/* One byte of what stands around the data. */
static enum http_body_result take_byte(struct http_body *body, char c)
{
	switch ((enum state)body->state) {
	case SIZE:
		return take_size(body, c);
	case EXTENSION:
		if (++body->extension_bytes > HTTP_MAX_CHUNK_EXTENSION_BYTES)
			return refuse(body, 400, "The chunk extensions are too large.");
		if (c == '\r')
			body->state = SIZE_LF;
		else if (is_control(c))
			return refuse(body, 400, "A chunk extension contains a control character.");
		return HTTP_BODY_MORE;
	case DATA_CR:
		if (c != '\r')
			return refuse(body, 400, "A chunk is longer than its size.");
		body->state = DATA_LF;
		return HTTP_BODY_MORE;
	case LINE:
	case NAME:
	case VALUE:
		return take_trailer(body, c);
	default:
		break;
	}
	if (c != '\n')
		return refuse(body, 400, "A carriage return is not followed by a line feed.");
	switch ((enum state)body->state) {
	case SIZE_LF:
		body->state = body->left_bytes > 0 ? DATA : LINE;
		break;
	case DATA_LF:
		body->state = SIZE;
		body->digits = 0;
		break;
	case TRAILER_LF:
		body->state = LINE;
		break;
	default: /* LAST_LF */
		body->state = END;
		break;
	}
	return HTTP_BODY_MORE;
}

static enum http_body_result give(
	struct http_body *body, const char **at, size_t len, struct span *piece)
{
	*piece = (struct span){*at, len};
	*at += len;
	body->decoded_bytes += len;
	return HTTP_BODY_DATA;
}

enum http_body_result http_body_parse(
	struct http_body *body, const char **at, const char *end, struct span *piece)
{
	for (;;) {
		if (body->state == END)
			return HTTP_BODY_END;
		if (body->state == BAD)
			return HTTP_BODY_BAD;
		if (*at == end)
			return HTTP_BODY_MORE;
		size_t len = (size_t)(end - *at);
		if (body->state == UNTIL_CLOSE) {
			if (body->decoded_bytes == body->max_bytes)
				return refuse(body, 413, "The body is too large.");
			if (len > body->max_bytes - body->decoded_bytes)
				len = (size_t)(body->max_bytes - body->decoded_bytes);
			return give(body, at, len, piece);
		}
		if (body->state == PLAIN || body->state == DATA) {
			if (len > body->left_bytes)
				len = (size_t)body->left_bytes;
			body->left_bytes -= len;
			if (body->left_bytes == 0)
				body->state = body->state == PLAIN ? END : DATA_CR;
			return give(body, at, len, piece);
		}
		if (take_byte(body, *(*at)++) == HTTP_BODY_BAD)
			return HTTP_BODY_BAD;
	}
}

bool http_body_may_close(const struct http_body *body)
{
	return body->state == END || body->state == UNTIL_CLOSE;
}

uint64_t http_body_left(const struct http_body *body)
{
	return body->state == END ? 0 : body->state == PLAIN ? body->left_bytes : UINT64_MAX;
}
