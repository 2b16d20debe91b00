#ifndef REDISPROXY_CONTROL_H
#define REDISPROXY_CONTROL_H

/*
 * The control connection to one server (talk.h): PING every interval, once COMMAND of a writer, and
 * of a writer that sentinels named also ROLE, whether it is one.
 */
#include <stdbool.h>

struct proxy;
struct server;
struct control;

struct control *control_new(struct proxy *proxy, struct server *server);
void control_free(struct control **control);
/* True until the first check failed, then while checks succeed. */
bool control_up(const struct control *control);
/* Not up, because it did not answer in time. */
bool control_silent(const struct control *control);
/* Ask for CLUSTER SLOTS, for cluster_answered(). False: not connected. */
bool control_ask_slots(struct control *control);
/* Drop the connection and check again now. */
void control_reconnect(struct control *control);

#endif
