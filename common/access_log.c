#include "common/access_log.h"

#include "common/log.h"

void access_log_init(struct access_log *log, const double *share)
{
	*log = (struct access_log){.share = share, .random = 1};
}

/* Sampling needs evenness, not secrecy: xorshift (Marsaglia, 2003). */
static bool is_sampled(struct access_log *log)
{
	if (*log->share >= 1)
		return true;
	uint32_t x = log->random;
	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	log->random = x;
	return (double)x < *log->share * 4294967296.0;
}

struct access_entry access_entry_of(const struct http_exchange *exchange, int status,
	uint64_t bytes_in, uint64_t bytes_out, uint64_t duration_us)
{
	return (struct access_entry){
		.method = http_exchange_method(exchange),
		.target = http_exchange_target(exchange),
		.client = span_of(http_exchange_peer(exchange)),
		.user_agent = http_exchange_header(exchange, "user-agent"),
		.forwarded_for = http_exchange_header(exchange, "x-forwarded-for"),
		.status = status,
		.bytes_in = bytes_in,
		.bytes_out = bytes_out,
		.duration_us = duration_us,
	};
}

void access_log_write(struct access_log *log, const struct access_entry *x)
{
	if (x->status < 500 && !is_sampled(log))
		return;
	log_fields(LOG_LEVEL_INFO, x->trace, "request", LOG_SPAN("method", x->method),
		LOG_SPAN("target", x->target), LOG_INT("status", x->status),
		LOG_INT("bytes_in", x->bytes_in), LOG_INT("bytes_out", x->bytes_out),
		LOG_INT("duration_us", x->duration_us), LOG_SPAN("cache", x->cache),
		LOG_STR("body_hash", x->body_hash ? x->body_hash : ""),
		LOG_STR("backend", x->backend ? x->backend : ""), LOG_SPAN("client", x->client),
		LOG_SPAN("user_agent", x->user_agent),
		LOG_SPAN("x_forwarded_for", x->forwarded_for), LOG_BOOL("aborted", x->aborted));
}
