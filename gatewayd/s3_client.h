#ifndef GATEWAYD_S3_CLIENT_H
#define GATEWAYD_S3_CLIENT_H

/*
 * Requests to one bucket of an S3 server (AWS, MinIO, Ceph...): path-style URLs, Signature Version
 * 4, and what an answer means. One attempt a call; who wants retries makes them. Bodies go and come
 * as they are: Content-Encoding is never undone.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/digest.h"
#include "common/slice.h"
#include "common/span.h"

struct loop;
struct s3_client;
struct s3_call;

#define S3_DEFAULT_REGION "us-east-1"

struct s3_options {
	const char *endpoint; /* "http://host:9000", maybe with a path; "": AWS in that region */
	const char *bucket;
	const char *region; /* "": S3_DEFAULT_REGION */
	const char *access_key, *secret;
	const char *session_token; /* "" unless the credentials are temporary */
	size_t connections;        /* 0: 128 */
	uint32_t connect_timeout_ms;
};

enum s3_outcome {
	S3_OK,          /* 2xx */
	S3_MISSING,     /* 404 of an object */
	S3_DENIED,      /* 401 or 403: keys, clock or policy */
	S3_REFUSED,     /* anything else that another try would not change, no such bucket too */
	S3_UNREACHABLE, /* no answer: connecting, broken connection, timeout */
	S3_FAILED,      /* 5xx, 429, or an answer that is none */
};

struct s3_request {
	const char *method;         /* GET, PUT, DELETE */
	const char *name;           /* of the object, not escaped; "": the bucket */
	const char *query;          /* escaped and sorted, without the question mark; NULL: none */
	const char *const *headers; /* "Name: value", ends with NULL; may be NULL */
	struct slice body;          /* taken over */
	const struct digest *body_digest; /* NULL: the body is empty */
	uint32_t timeout_ms;
	size_t max_response_bytes;
};

struct s3_result {
	enum s3_outcome outcome;
	int status;         /* 0: none came */
	const char *reason; /* a sentence for the log, unless S3_OK */
	struct buf *body;   /* buf_take() what should stay */
};

/* loop must outlive it. Strings are copied. NULL when memory is out or libcurl cannot start. */
struct s3_client *s3_client_new(struct loop *loop, const struct s3_options *options);
/* All calls must have ended or been cancelled. */
void s3_client_free(struct s3_client **client);
/* For log lines. */
const char *s3_client_bucket(const struct s3_client *client);

/* on_done: once, never from inside this call; call is gone when it returns. NULL: out of memory, no
 * on_done. */
struct s3_call *s3_client_call(struct s3_client *client, const struct s3_request *request,
	void (*on_done)(struct s3_call *call, const struct s3_result *result, void *arg),
	void *arg);
/* As http_call_header(). */
struct span s3_call_header(const struct s3_call *call, const char *name);
/* No callback comes. Clears the pointer; NULL is fine. */
void s3_call_cancel(struct s3_call **call);

/* Append text with all but unreserved characters (and '/', unless in a query) percent-encoded. */
void s3_escape(struct span text, bool in_query, struct buf *out);
/* Is this a name that a bucket can have? */
bool s3_bucket_valid(const char *bucket);

#endif
