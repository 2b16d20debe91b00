#include "common/http_pace.h"

bool http_pace_too_slow(struct http_pace *pace, int unsent_bytes, uint64_t now_us,
	uint64_t after_us, uint32_t least_bytes_s)
{
	if (!pace->since_us)
		*pace = (struct http_pace){.since_us = now_us, .unsent_bytes = unsent_bytes};
	uint64_t waited_us = now_us - pace->since_us;
	if (!after_us || waited_us < after_us)
		return false;
	int64_t taken = (int64_t)pace->bytes + pace->unsent_bytes - unsent_bytes;
	return taken < (int64_t)(least_bytes_s * (waited_us / 1000) / 1000);
}
