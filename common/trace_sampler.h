#ifndef COMMON_TRACE_SAMPLER_H
#define COMMON_TRACE_SAMPLER_H

/*
 * Which traces are recorded (OpenTelemetry's built-in samplers, OTEL_TRACES_SAMPLER). Pure.
 * (https://opentelemetry.io/docs/specs/otel/trace/sdk/#built-in-samplers)
 *
 *   always_on, always_off
 *   traceidratio              by the trace id, so that all who see a trace decide alike
 *   parentbased_...           as the caller has decided; one of the above for new traces
 */
#include <stdbool.h>

#include "common/trace.h"

/* In the order of TRACE_SAMPLER_NAMES, for a CONFIG_CHOICE. */
enum trace_sampler_kind {
	TRACE_SAMPLER_PARENT_ON,
	TRACE_SAMPLER_PARENT_OFF,
	TRACE_SAMPLER_PARENT_RATIO,
	TRACE_SAMPLER_ON,
	TRACE_SAMPLER_OFF,
	TRACE_SAMPLER_RATIO,
};
#define TRACE_SAMPLER_NAMES                                                                           \
	"parentbased_always_on|parentbased_always_off|parentbased_traceidratio|always_on|always_off|" \
	"traceidratio"

struct trace_sampler {
	enum trace_sampler_kind kind;
	double ratio; /* 0 to 1 */
};

/* parent: what the caller said of the trace; NULL: it is new. */
bool trace_sampler_decide(
	const struct trace_sampler *sampler, const struct trace *trace, const struct trace *parent);

#endif
