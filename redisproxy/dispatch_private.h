#ifndef REDISPROXY_DISPATCH_PRIVATE_H
#define REDISPROXY_DISPATCH_PRIVATE_H

/* What dispatch.c (where a command goes) and login.c (which pool the client belongs to) share. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/span.h"
#include "redisproxy/command.h"
#include "redisproxy/dispatch.h"
#include "redisproxy/upstream.h"

#define DISPATCH_MAX_ARGV 12 /* of the commands that are looked into */

/* One command on its way. */
struct request {
	const char *frame;
	size_t len;
	struct command *command;
	struct span argv[DISPATCH_MAX_ARGV];
	uint32_t argc; /* all of them, also beyond DISPATCH_MAX_ARGV */
	bool is_whole;
};

/* The ways in which handling a command can end. */
enum dispatch_result dispatch_wait_for_replies(struct client *c);
enum dispatch_result dispatch_out_of_memory(struct client *c);
enum dispatch_result dispatch_done(struct client *c, struct request *r);
enum dispatch_result dispatch_say(struct client *c, struct request *r, const char *text);
enum dispatch_result dispatch_send_to(
	struct client *c, struct request *r, struct upstream *up, enum entry_meaning meaning);
enum dispatch_result dispatch_send_shared(struct client *c, struct request *r);
/* By the kind of the command alone. */
enum dispatch_result dispatch_kind(struct client *c, struct request *r);
enum dispatch_result dispatch_quit(struct client *c, struct request *r);
/* TOOK: c->own is there and ready (or the client was closed). */
enum dispatch_result dispatch_get_own(struct client *c, const struct request *r);
/* Tell the server of c->own the name that the client gave itself. 0 or -1. */
int dispatch_name_upstream(struct client *c);

/* login.c. */
enum dispatch_result login_select_db(struct client *c, struct request *r);
enum dispatch_result login_auth(struct client *c, struct request *r);
enum dispatch_result login_hello(struct client *c, struct request *r);
enum dispatch_result login_reset(struct client *c, struct request *r);
/* Make *to a copy of s. 0, or -1 when out of memory. */
int login_keep(struct buf *to, struct span s);

#endif
