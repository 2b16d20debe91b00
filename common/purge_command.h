#ifndef COMMON_PURGE_COMMAND_H
#define COMMON_PURGE_COMMAND_H

/*
 * `podctl purge` and `cachectl purge`: what a person types becomes the message `purge`, and its
 * answer a table, or the JSON that broadcasterd answers with as well. How it gets there is each
 * program's own (podctl: RPC; cachectl: HTTP). Pure but for reading the token's file.
 */
#include <stdbool.h>

#include "common/buf.h"
#include "common/messages.h"

#define PURGE_COMMAND_MAX_VALUES 32
#define PURGE_COMMAND_TOKEN_ENV  "BROADCASTERD_TOKEN" /* and _FILE */

struct purge_command {
	struct msg_purge_params params; /* spans into what was typed, and into this struct */
	struct span values[PURGE_COMMAND_MAX_VALUES];
	char *owned[PURGE_COMMAND_MAX_VALUES]; /* "model:NAME" */
	char *token;
	const char *token_file; /* of the command line; NULL: none */
};

enum purge_option {
	PURGE_OPTION_ALL,
	PURGE_OPTION_TAG,
	PURGE_OPTION_MODEL,
	PURGE_OPTION_BODY_HASH,
	PURGE_OPTION_KEY,
	PURGE_OPTION_STORE,
	PURGE_OPTION_TOKEN_FILE,
};
/* Lines for --help: the options, and what PATH is. */
extern const char purge_command_help[];

/* Start with {0}. value is borrowed; NULL for ALL and STORE. NULL, or what is wrong (a static
 * sentence). */
const char *purge_command_option(
	struct purge_command *command, enum purge_option option, const char *value);
/* The rest of the command line: a path, or nothing. Checks that something is asked for. NULL, or
 * what is wrong. */
const char *purge_command_complete(struct purge_command *command, char **paths, int n_paths);
/* From --token-file, else the environment; none is fine. NULL, or what is wrong: in text. */
const char *purge_command_read_token(struct purge_command *command, char *text, size_t size);
void purge_command_free(struct purge_command *command);

/*
 * TARGET         RESULT  STATUS  DETAIL
 *
 * and a sentence. Text that came from elsewhere is shown without control characters.
 */
void purge_report_write(const struct msg_purge_result *result, bool color, struct buf *out);
/* As broadcasterd answers over HTTP:
 * {"total":N,"success":N,"failed":N,"results":[{"pod":…,"status":N,"success":true,"error":null},…]},
 * or {"error":"…"} when nobody was told; and a newline. tell_purged: "purged":N before it, how many
 * objects went, which over HTTP the field X-Purged says. */
void purge_report_write_json(
	const struct msg_purge_result *result, bool tell_purged, struct buf *out);

#endif
