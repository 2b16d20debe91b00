#ifndef SUPERVISOR_TAIL_H
#define SUPERVISOR_TAIL_H

/*
 * The RPC method `tail`: the end of what a process printed, and on request all that it prints from
 * then on, as chunks. A follower that does not read loses output (a line says how much); it never
 * makes the process, or another follower, wait.
 */
struct pod;
struct rpc_server;
struct tail;

/* Serve on server. NULL when out of memory. The server must be freed first. */
struct tail *tail_new(struct rpc_server *server, struct pod *pod);
/* After a reload: end the answers about processes that are not there any more. */
void tail_forget_removed(struct tail *tail);
void tail_free(struct tail **tail);

#endif
