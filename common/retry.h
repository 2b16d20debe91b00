#ifndef COMMON_RETRY_H
#define COMMON_RETRY_H

/*
 * When to try again, and when to stop trying. Pure: time is an argument. Nothing here sleeps.
 *
 * Backoff: exponential with full jitter (Brooker, "Exponential Backoff And Jitter", AWS
 * Architecture Blog, 2015). Breaker: closed -> open after `threshold` consecutive failures ->
 * half-open after open_ms: one probe -> closed or open.
 */
#include <stdbool.h>
#include <stdint.h>

struct backoff {
	uint32_t base_ms, max_ms;
	double factor;
	uint32_t attempt;
};
void backoff_init(struct backoff *b, uint32_t base_ms, uint32_t max_ms, double factor);
/* The next delay: random in [0, min(max, base * factor^attempt)]; counts the attempt. */
uint32_t backoff_next_ms(struct backoff *b);
void backoff_reset(struct backoff *b);

/* Retry-After (RFC 9110 10.2.3): seconds or an HTTP date (all three forms; a past one is 0). -1
 * when absent (NULL) or not valid; at most max_ms. */
int64_t retry_after_parse_ms(const char *value, uint64_t now_wall_ms, int64_t max_ms);

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };
struct breaker {
	uint32_t threshold;
	uint32_t open_ms;
	uint32_t failures; /* consecutive */
	enum breaker_state state;
	uint64_t opened_us;
	bool probe_out;
};
/* threshold 0: never opens. */
void breaker_init(struct breaker *b, uint32_t threshold, uint32_t open_ms);
/* May a call be made now? In half-open only one is let through until it reports. */
bool breaker_allow(struct breaker *b, uint64_t now_us);
/* While open, reports of calls that were allowed before change nothing. */
void breaker_success(struct breaker *b);
void breaker_failure(struct breaker *b, uint64_t now_us);
/* An allowed call ended without saying anything about the provider (cancelled, 4xx). */
void breaker_neutral(struct breaker *b);
/* How long until a probe is let through; 0 unless open. */
uint64_t breaker_wait_ms(const struct breaker *b, uint64_t now_us);

#endif
