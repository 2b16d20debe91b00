#ifndef GATEWAYD_PROVIDER_H
#define GATEWAYD_PROVIDER_H

/*
 * Who makes embeddings: one interface, several providers (provider_openai, provider_mock…). A
 * provider is asked for the vectors of a list of inputs and answers once, with vectors or with a
 * refusal that is ready to be shown to the caller. Retries, breaker and deadline are the provider's
 * own business. Loop thread only.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/digest.h"
#include "common/slice.h"
#include "common/span.h"
#include "common/trace.h"
#include "gatewayd/vector.h"

/* What one call may ask for (OpenAI's limit). */
#define PROVIDER_MAX_INPUTS 2048

/* What the caller brought for the provider. Spans are empty when absent; all NUL-terminated copies.
 */
struct credential {
	char *authorization; /* "Bearer sk-…", or "" */
	char *organization;  /* OpenAI-Organization */
	char *project;       /* OpenAI-Project */
	bool is_own;         /* the key is the gateway's */
};

struct provider_request {
	/* JSON texts, borrowed until provider_buy() returns. */
	struct span model_json;  /* "\"text-embedding-3-small\"" */
	struct span params_json; /* further members, each followed by a comma: `"dimensions":3,` ;
				    may be empty */
	/* What the inputs' texts lie in, for who wants to keep them; NULL: they are borrowed too.
	 */
	struct shared_slice *body;
	const struct span *inputs; /* one JSON value each: a string or an array of token ids */
	size_t n_inputs;           /* 1 to PROVIDER_MAX_INPUTS */
	struct span model;         /* decoded, for labels and the mock */
	int64_t dimensions;        /* asked for; 0: the model's own */
	const struct credential *credential;
	const struct digest *scope;        /* for the owner of an element; NULL: shared */
	struct span surrogate_keys;        /* the client's tags, for the owner; may be empty */
	const struct trace_context *trace; /* of the purchase, borrowed likewise; or NULL */
};

/* A request that outlives buy(): the inputs stay in their body, if that can be kept. Zeroed is
 * empty. */
struct provider_request_copy {
	struct provider_request request;
	/* Private. */
	struct credential credential;
	struct trace_context trace;
	struct buf text;
	struct span *inputs;
};
/* 0, or -1 when out of memory; provider_request_copy_free() after both. */
int provider_request_copy(
	struct provider_request_copy *copy, const struct provider_request *request);
void provider_request_copy_free(struct provider_request_copy *copy);

/* One embedding as bought: the text of its form (vector.h), owned. Zeroed is empty. */
struct embedding {
	enum vector_source source;
	bool packed; /* in place of base64: the float32 themselves, three quarters of its size */
	uint32_t dims;
	uint64_t tokens; /* what this one cost; 0: the provider tells the sum only */
	struct buf text;
};
/* values[dims], malloc()ed, are the embedding's from now on. */
void embedding_pack(struct embedding *embedding, float *values, uint32_t dims);
/* *text is the text of its form: lent by the embedding, or written to scratch when it is packed. 0,
 * or -1 when out of memory. */
int embedding_text(const struct embedding *embedding, struct buf *scratch, struct span *text);

/* The body of an embeddings request for it, ending with encoding_format. 0, or -1 with out failed.
 */
int provider_request_write(
	const struct provider_request *request, const char *encoding_format, struct buf *out);

enum provider_outcome {
	PROVIDER_OK,
	PROVIDER_REFUSED,     /* the provider answered with an error: status and body are its own */
	PROVIDER_UNREACHABLE, /* no connection, breaker open, connection lost, too many calls: 503
			       */
	PROVIDER_TIMEOUT,     /* 504 */
	PROVIDER_BROKEN,      /* an answer that cannot be used: 502 */
};

/* error.code for the caller, when the provider has no words of its own. */
const char *provider_outcome_code(enum provider_outcome outcome);

struct provider_result {
	enum provider_outcome outcome;

	/*
	 * PROVIDER_OK: one an input, in the order of the inputs; lent for the callback, but the
	 * receiver may take the texts out. Else NULL, or those that were bought nevertheless (and
	 * cost total_tokens), the others zeroed.
	 */
	struct embedding *embeddings;
	size_t n_embeddings;
	struct span model;     /* as the provider names it */
	uint64_t total_tokens; /* 0 when the provider does not say */

	/* Otherwise. */
	int status;       /* of the answer to the caller: 4xx, 5xx */
	struct span body; /* PROVIDER_REFUSED: the provider's body; else empty */
	struct span content_type;
	struct span location;      /* of a list of models; may be empty */
	struct span surrogate_key; /* the answer's tags; may be empty */
	bool unshareable;          /* a list of models that says that it is not to be kept */
	int64_t retry_after_ms;    /* -1: none */
	const char *detail;        /* one sentence; never contains a text or a secret */
};

struct provider;
struct provider_call;

/* What a provider did so far, for metrics. Every one adds its own. */
struct provider_counts {
	uint64_t attempts, retries;
	uint64_t refused_by_breaker, refused_by_pause;
	uint64_t pulls, pulls_failed; /* of models that were missing: done; not */
	uint64_t bisections;          /* calls refused for their size, and made again in halves */
};
typedef void provider_on_service(const char *service, int breaker_state, void *arg);

struct provider_ops {
	const char *name;         /* "openai", "mock": the label in metrics */
	const char *store_prefix; /* "" or "mock/": vectors of different makers never meet */
	/*
	 * Ask. on_done is called exactly once, never from inside buy(); result is valid during the
	 * callback. NULL only when out of memory.
	 */
	struct provider_call *(*buy)(struct provider *provider,
		const struct provider_request *request,
		void (*on_done)(const struct provider_result *result, void *arg), void *arg);
	/* True once the provider may have begun to work (and to charge). */
	bool (*sent)(const struct provider_call *call);
	/* No callback comes. */
	void (*cancel)(struct provider_call *call);
	/*
	 * The provider's list of models, for GET /v1/models: as buy(), but result.body is the
	 * answer's body when the outcome is PROVIDER_OK, and result.status 200, 203, 301, 404 or
	 * 410. query goes behind the path: empty, or "?..."; the provider may ignore it. May be
	 * NULL: there is no such list.
	 */
	struct provider_call *(*list_models)(struct provider *provider, struct span query,
		const struct credential *credential, const struct trace_context *trace,
		void (*on_done)(const struct provider_result *result, void *arg), void *arg);
	/* Add to *counts, and name each place that is called with the state of its breaker. May be
	 * NULL. */
	void (*report)(const struct provider *provider, struct provider_counts *counts,
		provider_on_service *on_service, void *arg);
	void (*free)(struct provider *provider);
};

/* First member of each provider's own struct. */
struct provider {
	const struct provider_ops *ops;
};

static inline void provider_free(struct provider **provider)
{
	if (*provider)
		(*provider)->ops->free(*provider);
	*provider = NULL;
}

#endif
