#ifndef GATEWAYD_MODELS_H
#define GATEWAYD_MODELS_H

/* GET /v1/models: the provider's own list, asked for with the caller's credential; passed on, never
 * cached. The mock has a list of its own. */
struct exchange;
struct gateway;

void models_serve(struct gateway *gateway, struct exchange *exchange);

#endif
