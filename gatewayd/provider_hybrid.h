#ifndef GATEWAYD_PROVIDER_HYBRID_H
#define GATEWAYD_PROVIDER_HYBRID_H

/*
 * Two providers: the models that are named here are bought from the second, all others from the
 * first, always. Only a model that is declared equivalent (the same weights at both) is bought from
 * the other one when its own is unreachable, too slow, broken or answers 5xx: vectors of different
 * makers must never share a key.
 */
#include "gatewayd/provider.h"

struct provider_hybrid_options {
	const char *second_models; /* "nomic-embed-text, bge-m3" */
	/* "bge-m3, bge-m3=BAAI/bge-m3": after = its name at the provider that it is not pinned to
	 */
	const char *equivalent;
};

/* NULL, or what is wrong, in a sentence. */
const char *provider_hybrid_check(const struct provider_hybrid_options *options);
/* Owns both. NULL when out of memory or options are wrong, with both unchanged. options are
 * copied. */
struct provider *provider_hybrid_new(struct provider *first, struct provider *second,
	const struct provider_hybrid_options *options);

#endif
