#ifndef GATEWAYD_PURGE_REQUEST_H
#define GATEWAYD_PURGE_REQUEST_H

/*
 * What a purge asks for, over HTTP
 *
 *   PURGE /path?query                    every object with this path and query
 *   X-Purge-All: true                    everything
 *   Surrogate-Key: a b                   every object with one of the tags
 *   X-Body-Hash: <64 hex>                whole answers to this request body
 *   X-Purge-Key: <64 hex>                one embedding, by its element key, and the answers with it
 *   X-Purge-Store: true                  the store too: with X-Purge-All, X-Purge-Key, or
 *                                        Surrogate-Key: model:NAME
 *   X-Purge-Time: <milliseconds>         with X-Purge-Store: what was bought until then (since
 *                                        1970; now at most); without: until now. For one purge that
 *                                        is sent to many pods, or again
 *
 * (one of the first five: two of the fields are 400) or as RPC `purge`, which means the same. Pure.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/digest.h"
#include "common/messages.h"
#include "common/span.h"
#include "common/trace.h"
#include "gatewayd/api_error.h"
#include "gatewayd/surrogate_keys.h"

enum purge_scope { PURGE_PATH, PURGE_ALL, PURGE_TAG, PURGE_BODY_HASH, PURGE_KEY };
#define PURGE_SCOPES 5
/* "tag"; for messages, logs and labels. */
const char *purge_scope_name(enum purge_scope scope);

/* Spans are borrowed from where they were read. */
struct purge_request {
	enum purge_scope scope;
	struct span path; /* PURGE_PATH: with its query */
	size_t n_tags;    /* PURGE_TAG */
	struct span tags[SURROGATE_MAX_KEYS];
	struct digest digest; /* PURGE_BODY_HASH, PURGE_KEY */
	struct span hex;      /* as it was sent */
	bool store;
	uint64_t time_ms; /* 0: now */
	bool only;        /* this instance alone */
	bool has_trace;   /* set by who serves it, for siblings that are asked */
	struct trace trace;
};

/* "model:NAME" -> NAME; false: the tag is another one, or the name is empty. */
bool purge_model_of_tag(struct span tag, struct span *model);

struct purge_fields {
	struct span target, all, body_hash, key, store, time; /* data NULL: absent */
	struct span surrogate_keys[SURROGATE_MAX_KEYS];
	size_t n_surrogate_keys; /* fields, not tags */
};
/* One of the request's fields; others than those of a purge are left alone. 0, or -1 with *error
 * (400): one of them (Surrogate-Key apart) is there twice, or it is an X-Purge-* that is none. */
int purge_fields_add(
	struct purge_fields *fields, struct span name, struct span value, struct api_error *error);
/* 0, or -1 with *error (400). */
int purge_request_of_fields(
	const struct purge_fields *fields, struct purge_request *request, struct api_error *error);
int purge_request_of_params(const struct msg_purge_params *params, struct purge_request *request,
	struct api_error *error);
/* The message that says the same to another instance; values has room for SURROGATE_MAX_KEYS. */
void purge_request_params(
	const struct purge_request *request, struct span *values, struct msg_purge_params *params);

#endif
