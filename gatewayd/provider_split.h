#ifndef GATEWAYD_PROVIDER_SPLIT_H
#define GATEWAYD_PROVIDER_SPLIT_H

/*
 * Keeps the calls of another provider within its limits: a purchase that would be too large becomes
 * several, a few at a time, and their vectors one answer.
 *
 * How many tokens a text has is the provider's to say. A token is at least one byte, so bytes are
 * the first guess; each answer moves the ratio of its model, up at once and down slowly. A call
 * that is refused for its size all the same (400, 413 or 422 with words about it) is cut in halves,
 * and what it teaches is kept: the ratio was too low, or the limit is less than we thought. A
 * single input that is too large is the caller's: the refusal goes there.
 *
 * When one part fails, parts that are not sent are dropped, the others waited for; what they
 * brought is handed out with the failure, since it is paid for.
 */
#include "gatewayd/provider.h"

struct provider_limits {
	size_t max_inputs;
	uint64_t max_tokens;
};
/* OpenAI's. */
extern const struct provider_limits provider_limits_openai;

/* Owns inner; its calls have at most limits. NULL when out of memory, with inner unchanged. */
struct provider *provider_split_new(struct provider *inner, const struct provider_limits *limits);

/* Does this refusal say that there was too much in one call? */
bool provider_refused_for_size(const struct provider_result *result);

#endif
