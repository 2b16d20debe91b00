#ifndef GATEWAYD_STORE_S3_H
#define GATEWAYD_STORE_S3_H

/*
 * The store in a bucket. Objects have Content-Type application/json and Content-Encoding gzip; what
 * their FEXTRA field says is mirrored as metadata for people to see:
 *
 *   x-amz-meta-model, -dimensions, -vector (base64, text), -stored-at (RFC 3339), -parameters
 *
 * percent-encoded where it is not plain ASCII, parameters only up to 512 bytes. Nothing reads it
 * back.
 *
 * A look-up that gets no answer, or 5xx, is tried again twice within get_timeout_ms; a put waits
 * until the server is back (store.c), in a bounded queue. Refused credentials are an error line
 * once a minute and a counter; requests are answered all the same. Corrupt objects are misses and
 * stay until they are replaced by what is bought.
 */
#include "gatewayd/s3_client.h"
#include "gatewayd/store.h"

struct workers;

struct store_s3_options {
	struct s3_options s3;
	const char *prefix;        /* "" or "mock/"; copied */
	size_t max_queued_puts;    /* 0: 8192 */
	uint64_t max_queued_bytes; /* of their data; 0: 64 MiB */
	unsigned parallel_puts;    /* 0: 16 */
	uint32_t get_timeout_ms;   /* of a whole look-up; 0: 5 s */
	uint32_t put_timeout_ms;   /* of one attempt; 0: 30 s */
};

/* loop and workers must outlive the store. NULL without memory. */
struct store *store_s3_new(
	struct loop *loop, struct workers *workers, const struct store_s3_options *options);

/* The metadata lines of an object, one after the other, each ended by NUL; an empty one ends them.
 */
void store_s3_metadata(const struct stored_fields *fields, struct buf *out);
/* What Last-Modified says, as milliseconds since 1970; 0 when it says nothing. */
uint64_t store_s3_time_ms(struct span http_date);

#endif
