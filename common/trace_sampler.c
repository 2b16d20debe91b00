#include "common/trace_sampler.h"

/* The last eight bytes of the id as a fraction, as most SDKs have it: a smaller ratio's traces are
 * among a larger one's. */
static bool is_in_ratio(const struct trace *trace, double ratio)
{
	uint64_t bits = 0;
	for (int i = 8; i < 16; i++)
		bits = bits << 8 | trace->trace_id[i];
	return ratio >= 1 || (double)(bits >> 1) < ratio * 0x1p63;
}

bool trace_sampler_decide(
	const struct trace_sampler *sampler, const struct trace *trace, const struct trace *parent)
{
	bool asks_parent = sampler->kind <= TRACE_SAMPLER_PARENT_RATIO;
	if (asks_parent && parent)
		return parent->sampled;
	switch (sampler->kind) {
	case TRACE_SAMPLER_PARENT_ON:
	case TRACE_SAMPLER_ON:
		return true;
	case TRACE_SAMPLER_PARENT_RATIO:
	case TRACE_SAMPLER_RATIO:
		return is_in_ratio(trace, sampler->ratio);
	default:
		return false;
	}
}
