/* Prints docs/INTERFACES.md from the tables of common/messages.c. `make docs` runs it. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/messages.h"
#include "common/wire.h"

static const char *const kinds[] = {
	[MSG_KIND_str] = "str",
	[MSG_KIND_token] = "token",
	[MSG_KIND_target] = "target",
	[MSG_KIND_bin] = "bin",
	[MSG_KIND_u64] = "u64",
	[MSG_KIND_i64] = "i64",
	[MSG_KIND_f64] = "f64",
	[MSG_KIND_bool] = "bool",
	[MSG_KIND_headers] = "headers",
	[MSG_KIND_strs] = "strs",
	[MSG_KIND_u64s] = "u64s",
	[MSG_KIND_f64s] = "f64s",
};

#define MAX_RECORDS 64
static const struct msg_schema *records[MAX_RECORDS];
static size_t n_records;

static void note_record(const struct msg_schema *record)
{
	for (size_t i = 0; i < n_records; i++)
		if (records[i] == record)
			return;
	if (n_records < MAX_RECORDS)
		records[n_records++] = record;
}

static void print_cell(const char *text)
{
	for (; *text; text++) {
		if (*text == '|')
			putchar('\\');
		putchar(*text);
	}
}

static void print_fields(const char *title, const struct msg_schema *schema)
{
	if (schema->n_fields == 0) {
		printf("%s: none.\n\n", title);
		return;
	}
	printf("%s:\n\n| # | field | kind | |\n| --- | --- | --- | --- |\n", title);
	for (size_t i = 0; i < schema->n_fields; i++) {
		const struct msg_field *field = &schema->fields[i];
		printf("| %zu | `%s` | ", i, field->name);
		if (field->kind == MSG_KIND_list) {
			const struct msg_schema *record = field->record();
			printf("list of [%s](#record-%s)", record->name, record->name);
			note_record(record);
		} else {
			printf("%s", kinds[field->kind]);
		}
		printf(" | ");
		print_cell(field->doc);
		printf(" |\n");
	}
	printf("\n");
}

static void print_frames(void)
{
	printf("# Interfaces between the daemons\n\n"
	       "This page is generated from `common/messages.h` by `make docs`; edit that file, not "
	       "this one.\n\n"
	       "## Frames\n\n"
	       "[MessagePack-RPC](https://github.com/msgpack-rpc/msgpack-rpc/blob/master/spec.md) "
	       "over a Unix\n"
	       "stream socket. The connecting end asks, the accepting end answers. Many calls are "
	       "under way on one\n"
	       "connection, answers come in any order, and an id is free again when its call is "
	       "over.\n\n"
	       "| frame | bytes | sent by |\n| --- | --- | --- |\n"
	       "| request | `[0, id, method, params]` | asker |\n"
	       "| response | `[1, id, nil, result]` or `[1, id, [code, message], nil]` | answerer |\n"
	       "| chunk | `[2, \"chunk\", [id, data, end]]` | both |\n"
	       "| credit | `[2, \"credit\", [id, bytes]]` | both |\n"
	       "| cancel | `[2, \"cancel\", [id]]` | both |\n\n"
	       "`id` is an unsigned 32-bit number. `params` and `result` are arrays whose fields are "
	       "told apart by\n"
	       "their position. Fields are only ever appended: a missing trailing field, and nil "
	       "anywhere, is the\n"
	       "zero value of its kind; fields behind the last one known are ignored, and so are "
	       "notifications of\n"
	       "other names.\n\n");
	printf("## Bodies\n\n"
	       "A body of up to %u bytes travels inside `params` or `result`. A larger one, or one "
	       "whose length is\n"
	       "not known, travels as chunks behind them, the last one with `end` true. `end` may "
	       "come with data or\n"
	       "alone; any other chunk has data. A sender never exceeds its credit, counted in bytes "
	       "of data: the\n"
	       "body of a request starts with none, an answer's with %u bytes; `credit` adds to it. "
	       "After `cancel`\n"
	       "(of a call by its asker, of a call or the rest of its answer by its answerer) the "
	       "call is over for\n"
	       "both; frames that were on their way are ignored. A chunk for a call that is over is "
	       "answered with\n"
	       "`cancel` by the asker.\n\n",
		RPC_INLINE_BODY_BYTES, RPC_ANSWER_CREDIT_BYTES);
}

static void print_limits(void)
{
	printf("## Limits\n\n"
	       "| what | limit | past it |\n| --- | --- | --- |\n"
	       "| one frame | %u bytes | connection closed |\n"
	       "| arrays and maps inside each other | %d | connection closed |\n"
	       "| data of a call | its credit | connection closed |\n"
	       "| calls under way on a connection | %d | error 3 |\n"
	       "| bytes queued for a peer that does not read | %u | its requests are not read until "
	       "half is left |\n"
	       "| the same, absolute | %u | connection closed |\n"
	       "| headers | %d | error 1 |\n"
	       "| items of a strs, u64s or f64s | %d | error 1 |\n"
	       "| records of one message | %d | error 1 |\n\n"
	       "A connection is also closed for bytes that are no frame, frames of the other end's "
	       "kind, a chunk\n"
	       "after the last one or before its response, a second response, a response to a call "
	       "that was never\n"
	       "made, and a request with an id that is under way. Peers are known by SO_PEERCRED: "
	       "the own uid, root,\n"
	       "or the group of `TRUSTED_GID`; others are closed at once.\n\n",
		RPC_MAX_FRAME_BYTES, WIRE_MAX_DEPTH, RPC_MAX_CALLS, RPC_SEND_HIGH_WATER_BYTES,
		RPC_SEND_MAX_BYTES, MSG_MAX_HEADERS, MSG_MAX_ITEMS, MSG_MAX_RECORDS);
}

static void print_errors(void)
{
	static const struct {
		int code;
		const char *meaning;
	} errors[] = {
		{RPC_BAD_PARAMS,
			"the message names the field, e.g. `headers[3].value: not a string`"},
		{RPC_NO_METHOD, "nobody serves this method here"},
		{RPC_BUSY, "too much under way; try again later, or elsewhere"},
		{RPC_FORBIDDEN, "this peer may not"},
		{RPC_FAILED, "the method's own failure; the message says which"},
		{RPC_CANCELLED, "the answerer gave up"},
		{RPC_LOST, "not connected, or the connection broke"},
		{RPC_TIMEOUT, "no result in time"},
		{RPC_PROTOCOL, "the peer broke the rules; the connection was closed"},
	};
	printf("## Errors\n\nCodes from %d on are made by the asking end itself and never sent.\n\n"
	       "| code | name | meaning |\n| --- | --- | --- |\n",
		RPC_LOST);
	for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
		printf("| %d | %s | %s |\n", errors[i].code, rpc_code_name(errors[i].code),
			errors[i].meaning);
	printf("\n## Kinds\n\n"
	       "| kind | MessagePack |\n| --- | --- |\n"
	       "| str | str |\n| bin | bin |\n"
	       "| u64, i64 | any integer that fits |\n"
	       "| f64 | float or integer |\n| bool | true or false |\n"
	       "| headers | array of [name, value], both str |\n"
	       "| strs, u64s, f64s | array of str, u64, f64 |\n"
	       "| list of a record | array of arrays, positional like params |\n\n");
}

int main(void)
{
	print_frames();
	print_limits();
	print_errors();
	printf("## Methods\n\n| method | served by | |\n| --- | --- | --- |\n");
	for (const struct msg_method *m = msg_methods; m->name; m++)
		printf("| [%s](#%s) | %s | %s |\n", m->name, m->name, m->served_by, m->doc);
	printf("\n");
	for (const struct msg_method *m = msg_methods; m->name; m++) {
		printf("### %s\n\n%s Served by: %s.\n\n", m->name, m->doc, m->served_by);
		print_fields("Params", m->params());
		print_fields("Result", m->result());
	}
	printf("## Notifications\n\n| notification | understood by | |\n| --- | --- | --- |\n");
	for (const struct msg_method *m = msg_notifications; m->name; m++)
		printf("| [%s](#%s) | %s | %s |\n", m->name, m->name, m->served_by, m->doc);
	printf("\n");
	for (const struct msg_method *m = msg_notifications; m->name; m++) {
		printf("### %s\n\n%s Understood by: %s.\n\n", m->name, m->doc, m->served_by);
		print_fields("Params", m->params());
	}
	printf("## Records\n\n");
	for (size_t i = 0; i < n_records; i++) {
		printf("### Record %s\n\n", records[i]->name);
		print_fields("Fields", records[i]);
	}
	return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
