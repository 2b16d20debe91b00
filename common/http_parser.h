#ifndef COMMON_HTTP_PARSER_H
#define COMMON_HTTP_PARSER_H

/*
 * HTTP/1.0 and 1.1 messages (RFC 9110, RFC 9112): bytes in, places in those bytes out. It reads
 * nothing, keeps no bytes and allocates nothing; input cut anywhere gives the same result.
 *
 *   head:  http_head_parse(all bytes since the message began) --> MORE, DONE or BAD
 *   body:  http_body_parse(the bytes after it) --> DATA (a span of the input)*, then END; or BAD
 *
 * Strict, so that no two readers of one message can differ about where it ends. Refused, each with
 * the status a server answers and one sentence: Content-Length beside Transfer-Encoding, a second
 * Content-Length or one that is a list, Transfer-Encoding other than exactly "chunked" (501) or in
 * HTTP/1.0, obsolete line folding, CR or LF alone, space before the colon, names that are no token,
 * control characters in values, a missing, second or invalid Host, a target that is no path or
 * http(s) URL, versions other than 1.0 and 1.1 (505), Expect other than 100-continue (417), chunk
 * sizes over 16 digits or followed by anything but ';' or CR LF, and everything over its limit
 * (413, 414, 431). For a response the status of every refusal is 502.
 *
 * Taken although unusual: one empty line before a request, a status line that ends after the code.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/span.h"

struct http_limits {
	uint32_t max_head_bytes;   /* start line and fields with their line ends; 431 */
	uint32_t max_target_bytes; /* 414 */
	uint64_t max_body_bytes;   /* declared, or decoded when chunked; 413 */
};

/* Chunk extensions of one body together, and its trailer section. */
#define HTTP_MAX_CHUNK_EXTENSION_BYTES 16384
#define HTTP_MAX_TRAILER_BYTES         16384
#define HTTP_MAX_METHOD_BYTES          32

enum http_kind { HTTP_REQUEST, HTTP_RESPONSE };
enum http_result { HTTP_MORE, HTTP_DONE, HTTP_BAD };

enum http_framing {
	HTTP_FRAMING_NONE,
	HTTP_FRAMING_LENGTH,
	HTTP_FRAMING_CHUNKED,
	HTTP_FRAMING_UNTIL_CLOSE /* responses only */
};

/* Where a piece of text lies: counted from the first byte of the message, so the caller may move
 * the bytes. */
struct http_text {
	uint32_t at, len;
};

static inline struct span http_text_span(const char *message, struct http_text text)
{
	return (struct span){message + text.at, text.len};
}

struct http_field {
	struct http_text name, value; /* value without the space around it */
};

/* Why a message is refused. */
struct http_refusal {
	int status;
	const char *reason; /* one sentence, a constant */
};

struct http_head {
	/* Valid after HTTP_DONE; method also after HTTP_BAD if the refused request had one. */
	struct http_text method;
	/* Origin-form, or "*". Of an absolute URL the part behind the authority: with an empty path
	 * it is empty, or begins with the '?' of the query. */
	struct http_text target;
	struct http_text host; /* of the absolute URL, else the Host field; empty in HTTP/1.0 */
	struct http_text reason;
	uint16_t status;
	uint8_t minor_version; /* HTTP/1.x */
	enum http_framing framing;
	bool keep_alive;         /* what version and Connection say */
	bool expect_continue;    /* never in HTTP/1.0 */
	uint64_t content_length; /* for HTTP_FRAMING_LENGTH */
	uint32_t head_bytes;     /* where the body begins */
	struct http_field *fields;
	uint32_t n_fields;
	/* Valid after HTTP_BAD. */
	struct http_refusal refusal;

	/* Private. */
	const struct http_limits *limits;
	uint32_t max_fields;
	uint32_t line_at, scan_at;
	enum http_kind kind;
	bool to_head, start_done, seen_empty_line, absolute;
	bool has_length, has_coding, has_host, has_type, has_authorization, coding_chunked;
	bool says_close, says_keep_alive, bad_expectation;
};

/*
 * Ready for a new message. limits and fields (room for max_fields; more are refused, 431) are
 * borrowed while the head is used. Responses: HTTP_RESPONSE; call http_head_is_to_head() before the
 * end if the request was HEAD.
 */
void http_head_init(struct http_head *head, enum http_kind kind, const struct http_limits *limits,
	struct http_field *fields, uint32_t max_fields);
void http_head_is_to_head(struct http_head *head);

/*
 * data: every byte since the message began, each time (looked at once: it goes on where it
 * stopped). Not to be called again after HTTP_DONE or HTTP_BAD.
 */
enum http_result http_head_parse(struct http_head *head, const char *data, size_t len_bytes);

/* The first field of that name, any case; NULL when there is none. message: as in
 * http_text_span(). */
const struct http_field *http_head_field(
	const struct http_head *head, const char *message, const char *name);

enum http_body_result {
	HTTP_BODY_MORE, /* all bytes were used, the body goes on */
	HTTP_BODY_DATA, /* *piece is some of the body: call again */
	HTTP_BODY_END,  /* what is left in the input is the next message */
	HTTP_BODY_BAD
};

struct http_body {
	uint64_t decoded_bytes; /* so far */
	struct http_refusal refusal;

	/* Private. */
	uint64_t left_bytes, max_bytes;
	uint32_t extension_bytes, trailer_bytes;
	enum http_kind kind;
	uint8_t state, digits;
};

/* The body that belongs to a complete head, which is not needed afterwards. */
void http_body_init(struct http_body *body, const struct http_head *head);
/* Look at [*at, end) and move *at over what was used. Trailer fields are checked and dropped. */
enum http_body_result http_body_parse(
	struct http_body *body, const char **at, const char *end, struct span *piece);
/* True if the peer may close here without cutting the message short. */
bool http_body_may_close(const struct http_body *body);
/* Bytes still to come, when their number is known; UINT64_MAX otherwise. */
uint64_t http_body_left(const struct http_body *body);

/* RFC 9110: field names and methods (5.6.2), field values without surrounding space (5.5). */
bool http_is_token(struct span text);
bool http_is_field_value(struct span text);
/* A request target in origin-form (RFC 9112, 3.2.1), or "*". */
bool http_is_target(struct span text);

#endif
