#ifndef GATEWAYD_PROVIDER_CHOICE_H
#define GATEWAYD_PROVIDER_CHOICE_H

/* The provider that the settings ask for. */
#include "gatewayd/conf.h"

struct http_client;
struct loop;
struct provider;
struct provider_watch;
struct workers;

/* http: NULL for the mock. watch is copied. NULL when out of memory. */
struct provider *provider_choose(struct loop *loop, struct http_client *http,
	struct workers *workers, const struct gatewayd_conf *conf,
	const struct provider_watch *watch);

#endif
