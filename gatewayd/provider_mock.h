#ifndef GATEWAYD_PROVIDER_MOCK_H
#define GATEWAYD_PROVIDER_MOCK_H

/*
 * A provider that needs nobody: deterministic unit vectors from hashed word and character n-grams
 * ("the hashing trick": Weinberger et al., "Feature Hashing for Large Scale Multitask Learning",
 * ICML 2009), so that similar texts are near each other. For trying things out and for tests; its
 * vectors live under their own store prefix.
 *
 * Tokens: one for each four bytes of text, rounded up, at least one; one for each token id.
 */
#include <stddef.h>
#include <stdint.h>

#include "common/span.h"
#include "gatewayd/provider.h"

struct loop;
struct workers;

struct provider *provider_mock_new(struct loop *loop, struct workers *workers, uint64_t latency_ms);

/* The vector of one text (decoded UTF-8), of unit length. Pure; safe on any thread. */
void provider_mock_embed(struct span text, float *vector, size_t dimensions);
/* How many dimensions a model has by default. */
size_t provider_mock_dimensions(struct span model);

/* What GET /v1/models says with the mock. */
extern const char provider_mock_models[];

#endif
