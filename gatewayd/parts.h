#ifndef GATEWAYD_PARTS_H
#define GATEWAYD_PARTS_H

/*
 * gatewayd put together: makes the parts in the order in which they need each other, drains them
 * from the front to the back, frees them in reverse.
 *
 *   drain: HTTP listener -> RPC peers -> flights (purchases already paid for) -> store ->
 * traces -> daemon_drained()
 */
struct daemon;
struct gatewayd_conf;
struct parts;

/* dies with a clear line when a part cannot be made. */
struct parts *parts_new(struct daemon *daemon, const struct gatewayd_conf *conf);
/* daemon_events.on_drain; arg is the struct parts. */
void parts_drain(void *arg);
/* daemon_events.on_reload. */
void parts_reload(void *arg);
void parts_free(struct parts **parts);

#endif
