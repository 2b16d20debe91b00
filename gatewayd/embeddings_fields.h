#ifndef GATEWAYD_EMBEDDINGS_FIELDS_H
#define GATEWAYD_EMBEDDINGS_FIELDS_H

/*
 * What the header fields of an embeddings request say. Cache-Control counts with
 * CACHE_REQUEST_CONTROL alone: no-cache buys whatever is known, and keeps it; no-store keeps
 * nothing, neither in memory nor in the store. Pure.
 */
#include <stdbool.h>

#include "gatewayd/api_error.h"
#include "gatewayd/conf.h"
#include "gatewayd/exchange.h"
#include "gatewayd/surrogate_keys.h"

struct embeddings_fields {
	struct span tags[SURROGATE_MAX_KEYS]; /* of the exchange */
	size_t n_tags;
	bool fresh;        /* nothing that is known will do */
	bool keep_nothing; /* then fresh, too */
};
/* 0, or -1 with *error: what is wrong with the request whatever its body says. */
int embeddings_fields_read(const struct exchange *exchange, const struct gatewayd_conf *conf,
	struct embeddings_fields *fields, struct api_error *error);

#endif
