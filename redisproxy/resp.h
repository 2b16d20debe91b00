#ifndef REDISPROXY_RESP_H
#define REDISPROXY_RESP_H

/*
 * Where RESP frames end (https://redis.io/docs/latest/develop/reference/protocol-spec/). Bytes are
 * looked at and never copied; nothing is built. Both scanners go on where they stopped, whatever
 * the cut, and take constant memory, whatever the depth. Pure.
 *
 * They are stricter than Redis where Redis is careless (a CR without LF, an argument that does not
 * end in CRLF): a frame that two readers could cut differently must never reach a connection that
 * several clients share.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/span.h"

#define RESP_MAX_ARGUMENTS      INT32_MAX
#define RESP_MAX_ARGUMENT_BYTES (512 << 20)
#define RESP_MAX_INLINE_BYTES   (64 << 10)

enum resp_result { RESP_COMPLETE, RESP_MORE, RESP_BAD };

/* ---- a client's stream: one command ---- */

struct resp_command {
	size_t at;      /* bytes scanned, from the first byte of the command that is still held */
	size_t name_at; /* offset of the first argument, valid while nothing was forgotten */
	uint32_t name_len;
	uint32_t argc;    /* 0 before the header, and for an empty command */
	uint32_t left;    /* arguments that are not complete */
	uint32_t skip;    /* bytes of the present argument that are still to come */
	bool open;        /* the header was read */
	bool in_argument; /* its length was read, its CRLF was not */
};

/*
 * data begins with the command (less what was forgotten). RESP_COMPLETE: it ends at s->at.
 * RESP_BAD: *error is Redis's own sentence for it. The command must begin with '*'.
 */
enum resp_result resp_command_scan(
	struct resp_command *s, const char *data, size_t len, const char **error);
/* The first `n` (at most s->at) bytes are held no more. */
void resp_command_forget(struct resp_command *s, size_t n);
/* Is the first argument complete? Valid while nothing was forgotten. */
static inline bool resp_command_named(const struct resp_command *s)
{
	return s->open && s->left < s->argc;
}

/* Walk over the arguments of a complete command. */
struct resp_arguments {
	const char *at;
	uint32_t left;
};
struct resp_arguments resp_arguments_of(const char *frame);
bool resp_arguments_next(struct resp_arguments *a, struct span *argument);

/*
 * An inline command: a line of words with Redis's quoting, made into a frame in *frame (cleared
 * first; left empty for an empty line). *used: bytes of the line with its end. RESP_BAD as above.
 */
enum resp_result resp_inline(
	const char *data, size_t len, size_t *used, struct buf *frame, const char **error);

/* A whole number as Redis reads them: no plus, no leading zero, no blank. */
bool resp_number(struct span text, int64_t *value);
/* Append a command made of these arguments. */
void resp_append_command(struct buf *out, const struct span *argv, uint32_t argc);

/* ---- a server's stream: one reply, RESP2 or RESP3 ---- */

struct resp_reply {
	uint64_t left; /* frames that are still to come; 0 between replies */
	uint64_t skip; /* bytes of a string that are still to come, with its CRLF */
	char type;     /* of the reply: '+', '-', '>' ... */
	bool in_line;  /* inside a line whose end is still to come */
};

/*
 * *used bytes were looked at and need not be shown again. RESP_COMPLETE: the reply ends there.
 * RESP_MORE: present the rest (fewer than 32 bytes) again, with more.
 */
enum resp_result resp_reply_scan(struct resp_reply *s, const char *data, size_t len, size_t *used);

#endif
