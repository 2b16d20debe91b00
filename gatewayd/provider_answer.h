#ifndef GATEWAYD_PROVIDER_ANSWER_H
#define GATEWAYD_PROVIDER_ANSWER_H

/*
 * The body of a provider's 200, checked: a list with one embedding for every input, each index
 * once, numbers finite and of equal length, as base64 or as numbers. Safe on a worker.
 */
#include <stddef.h>
#include <stdint.h>

#include "common/span.h"
#include "gatewayd/provider.h"
#include "gatewayd/provider_vectors.h"

struct provider_answer {
	struct embedding *embeddings; /* in the order of the inputs */
	size_t n;
	struct buf model;
	uint64_t total_tokens;
	const char *reason; /* what is wrong, after -1: a constant */
	/* Private. */
	const char *begin;
	char *own; /* the body, if it may be given back meanwhile */
	size_t given_back;
	struct provider_vectors *vectors; /* NULL: none, and nothing is packed */
};

/* *answer is zeroed by this. 0, or -1 with answer->reason. provider_answer_free() after both. */
int provider_answer_parse(struct span body, size_t n_inputs, struct provider_answer *answer);
/* The same of Ollama's /api/embed. */
int provider_answer_parse_ollama(struct span body, size_t n_inputs, struct provider_answer *answer);
/* The same of a body that is of no more use afterwards: what was copied is given back as it goes,
 * so that a large one and its embeddings are never there at once, and exact ones are packed. The
 * buffer is empty in the end. vectors: what was taken out of the body while it came. */
int provider_answer_take(struct buf *body, struct provider_vectors *vectors, size_t n_inputs,
	struct provider_answer *answer);
int provider_answer_take_ollama(struct buf *body, struct provider_vectors *vectors, size_t n_inputs,
	struct provider_answer *answer);
void provider_answer_free(struct provider_answer *answer);

#endif
