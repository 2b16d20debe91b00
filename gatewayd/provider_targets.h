#ifndef GATEWAYD_PROVIDER_TARGETS_H
#define GATEWAYD_PROVIDER_TARGETS_H

/*
 * Where one provider is reached: base URLs with weights, each with a breaker of its own and a list
 * of credentials that it asked to wait (429 with Retry-After). Which one is next is a weighted
 * round robin that spreads the turns of one URL among those of the others ("smooth", as nginx has
 * it). Weight 0: only when no other can be used. Pure: time is an argument, microseconds of
 * loop_now_us().
 */
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/retry.h"

#define PROVIDER_MAX_TARGETS    16
#define PROVIDER_MAX_WEIGHT     1000
#define PROVIDER_MAX_PAUSES     256
#define PROVIDER_MAX_TARGET_URL 2048

struct provider_pause {
	struct digest credential;
	uint64_t until_us;
};

struct provider_target {
	char *url;     /* without a slash at the end */
	char *service; /* its label in metrics */
	uint32_t weight;
	struct breaker breaker;
	/* Private. */
	int64_t credit;
	size_t n_pauses;
	struct provider_pause *pauses; /* PROVIDER_MAX_PAUSES once there is one */
};

struct provider_targets {
	size_t n;
	struct provider_target list[PROVIDER_MAX_TARGETS];
};

/*
 * "https://a.example/v1|3, https://b.example/v1|1": URLs, each with a weight of 0 to 1,000 after a
 * bar (1 when there is none), between commas or blanks. name: of the only target, and the beginning
 * of the others' names. NULL, or what is wrong, in a sentence, with nothing to free.
 */
const char *provider_targets_parse(
	const char *text, const char *name, struct provider_targets *targets);
void provider_targets_free(struct provider_targets *targets);
void provider_targets_set_breakers(
	struct provider_targets *targets, uint32_t threshold, uint32_t open_ms);

/* Why there is none to pick. */
struct provider_targets_refusal {
	bool paused;      /* the credential must wait; else breakers are open, or all were tried */
	uint64_t wait_ms; /* until one may be usable; 0: not known */
};
/*
 * The next one for this credential, whose breaker expects a report from now on; or NULL with
 * *refusal. tried: bit i is target i, not to be picked.
 */
struct provider_target *provider_targets_pick(struct provider_targets *targets, uint32_t tried,
	const struct digest *credential, uint64_t now_us, struct provider_targets_refusal *refusal);
static inline uint32_t provider_target_bit(
	const struct provider_targets *targets, const struct provider_target *target)
{
	return 1u << (target - targets->list);
}
/* This credential is not to be used there before. The oldest of too many pauses is forgotten. */
void provider_target_pause(struct provider_target *target, const struct digest *credential,
	uint64_t now_us, uint64_t until_us);

#endif
