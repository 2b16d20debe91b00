#ifndef REDISPROXY_DISPATCH_H
#define REDISPROXY_DISPATCH_H

/*
 * Where a command goes.
 *
 *   ordinary                      a shared connection: writer, or reader for reads
 *   MULTI, WATCH, blocking        a connection of the client's own, until nothing of that is left
 *   (P)SUBSCRIBE, MONITOR, CLIENT TRACKING, ... and whatever changes a connection that is the
 *                                 client's own already: one of its own for good, bytes pass raw
 *   AUTH, HELLO                   checked by the server, on a connection that does only this; then
 *                                 the client goes over to the pool of these credentials
 *   SELECT                        goes over when a connection with that database is there
 *   CLIENT SETNAME, GETNAME, SETINFO, RESET, QUIT: answered here
 */
#include <stdbool.h>
#include <stddef.h>

struct client;
struct command;
struct entry;
struct upstream;

enum dispatch_result {
	DISPATCH_TOOK,  /* the command is done with, here */
	DISPATCH_WAITS, /* show it again when the client is woken */
};

/* The connection that the client's next command will most likely go to, when it is full; else NULL.
 */
struct upstream *dispatch_full(const struct client *c);
/* One complete command. */
enum dispatch_result dispatch_command(struct client *c, const char *frame, size_t len);
/* A large command whose name is known and whose first `len` bytes are here. TOOK: they went out,
 * the rest is to follow on c->own. */
enum dispatch_result dispatch_large(
	struct client *c, const char *data, size_t len, const char *name, size_t name_len);
/* The server agreed to, or refused, AUTH or HELLO. */
void dispatch_login_answered(struct client *c, bool failed);
/* Nothing is under way: give the own connection back if nothing keeps it. */
void dispatch_settle(struct client *c);

#endif
