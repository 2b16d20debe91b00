#ifndef REDISPROXY_SERVER_H
#define REDISPROXY_SERVER_H

/*
 * One Redis server: its address, looked up without blocking, and its health, by PING on a
 * connection of its own, which also fetches the writer's COMMAND table. Of several addresses those
 * of the own zone come first.
 */
#include <stdbool.h>
#include <stdint.h>

struct proxy;
struct server;

enum server_role {
	SERVER_WRITER, /* also asked for its COMMAND table */
	SERVER_READER, /* and nodes of a cluster */
	SERVER_SENTINEL,
};

/* address as in CONFIG_ADDRESS; "": nobody yet, so it is down. NULL when out of memory. */
struct server *server_new(struct proxy *proxy, const char *address, enum server_role role);
void server_free(struct server **server);
enum server_role server_role(const struct server *server);
struct proxy *server_proxy(const struct server *server);
/* TLS for a connection to it, if that is set (never for a Unix socket: NULL). 0, or -1 when out of
 * memory. */
struct tls_session;
int server_open_tls(struct server *server, int fd, struct tls_session **session);
/* A small number, its own while it lives. */
unsigned server_id(const struct server *server);
/* The next one of proxy->servers. */
struct server *server_next(const struct server *server);
/* It is somebody else from now on; connections that are open stay as they are. 0, or -1 when out of
 * memory (nothing changed). */
int server_set_address(struct server *server, const char *address);
/* Is it in the own zone (zone.h)? */
bool server_is_near(const struct server *server);
/* The same of a numeric address. */
bool server_would_be_near(struct proxy *proxy, const char *address);
/* Ask it for CLUSTER SLOTS. False: it is not connected just now. */
bool server_ask_slots(struct server *server);
const char *server_address(const struct server *server);
/* Answers its health checks, or has not been asked for the first time. */
bool server_up(const struct server *server);
/* It is down because a health check got no answer in time: whatever is sent there would hang. */
bool server_silent(const struct server *server);
/* A connecting, non-blocking socket; -1 with errno (EAGAIN: not looked up yet, or tried too
 * recently). */
int server_connect(struct server *server);
/* A connection could not be made: back off, try the next address, look up again. */
void server_failed(struct server *server);
void server_connected(struct server *server);
/* Look the address up again and ask its health now. */
void server_refresh(struct server *server);
/* Open connections, for the metrics; counted by who opens and closes them. */
struct server_count {
	unsigned open, idle;
};
struct server_count *server_count(struct server *server);

#endif
