#ifndef REDISPROXY_REPORT_H
#define REDISPROXY_REPORT_H

/* What a person asks the proxy's monitor: GET /slowlog and GET /hotkeys, in JSON (slowlog.h,
 * hotkeys.h). */
#include <stdbool.h>

struct http_exchange;
struct proxy;

/* True: the path was one of the two and is answered: 404 where the setting wants none, 405 for
 * other methods. */
bool report_serve(struct proxy *proxy, struct http_exchange *exchange);

#endif
