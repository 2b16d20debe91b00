#ifndef GATEWAYD_EMBEDDINGS_H
#define GATEWAYD_EMBEDDINGS_H

/*
 * One embeddings request, from the exchange to its answer. embeddings.c opens with its states.
 *
 * Order of look-up: the whole answer in memory by raw body hash (nothing is parsed); then, after
 * one parse, each element in memory; then the store and the provider (flight.h).
 */
#include "gatewayd/flight.h"

struct exchange;
struct gateway;

/* Serve it: answers now or later. */
void embeddings_serve(struct gateway *gateway, struct exchange *exchange);

/* For struct flights_events. */
void embeddings_on_object(
	struct ticket *ticket, enum flight_source source, struct cache_object *object);
void embeddings_on_failure(struct buyer *buyer, const struct flight_failure *failure);

#endif
