#ifndef GATEWAYD_CONF_H
#define GATEWAYD_CONF_H

/* The settings of gatewayd. conf.c is their table; docs/OPTIONS.md is printed from it. */
#include <stdbool.h>
#include <stdint.h>

#include "common/daemon.h"
#include "common/otlp.h"

enum conf_provider {
	CONF_PROVIDER_OPENAI,
	CONF_PROVIDER_OLLAMA,
	CONF_PROVIDER_HYBRID,
	CONF_PROVIDER_MOCK,
};
enum conf_store { CONF_STORE_NONE, CONF_STORE_DIR, CONF_STORE_S3, CONF_STORE_DIR_S3 };
enum conf_legacy_layout { CONF_LEGACY_EMBEDDINGS, CONF_LEGACY_HASHED };
enum conf_scope { CONF_SCOPE_SHARED, CONF_SCOPE_PER_KEY };
enum conf_encoding { CONF_ENCODING_BASE64, CONF_ENCODING_FLOAT };

struct gatewayd_conf {
	struct daemon_conf daemon; /* first: common/daemon fills it */
	struct otlp_conf otlp;

	char *listen;
	double access_log_sample;
	int64_t instance, instances;

	int64_t max_body_bytes, body_budget_bytes;
	int64_t max_inputs;
	int64_t max_connections;
	int64_t worker_threads;

	int64_t cache_bytes;
	int64_t cache_ttl_ms;
	int64_t cache_grace_ms;
	bool cache_request_control;
	int scope; /* enum conf_scope */
	char *client_keys_file;
	char *purge_token;
	int64_t purge_reread_ms;

	int store; /* enum conf_store */
	char *store_dir;
	int64_t store_dir_max_bytes;
	bool store_dir_fsync;
	int64_t store_deadline_ms;
	int64_t store_queue;
	int64_t store_parallel;
	bool store_legacy_read;
	int store_legacy_layout; /* enum conf_legacy_layout */
	char *s3_bucket, *s3_endpoint, *s3_region;
	char *s3_access_key, *s3_secret, *s3_session_token;
	int64_t s3_timeout_ms;
	char *prices;

	int provider; /* enum conf_provider; mock too when the key is the placeholder */
	char *openai_base_url;
	char *openai_api_key;
	int provider_encoding; /* enum conf_encoding: what the provider is asked for */
	int64_t provider_timeout_ms;
	int64_t provider_connect_timeout_ms;
	int64_t provider_max_retries;
	int64_t provider_connections;
	int64_t breaker_threshold;
	int64_t breaker_open_ms;
	int64_t mock_latency_ms;
	char *provider_ca_file;
	char *ollama_base_url;
	int64_t ollama_timeout_ms;
	int64_t ollama_max_retries;
	int64_t ollama_download_timeout_ms;
	bool ollama_pull;
	char *hybrid_ollama_models, *hybrid_equivalent_models;
};

/* The value of OPENAI_API_KEY that means "no provider yet": the mock answers. */
#define CONF_PLACEHOLDER_KEY "your_openai_api_key_here"

extern const struct config_row gatewayd_conf_rows[];

/* daemon_spec.check and .instance_name. */
const char *gatewayd_conf_check(const void *conf);
void gatewayd_conf_instance_name(const void *conf, char *text, size_t size);

/* PROVIDER=mock, or the placeholder key. */
bool gatewayd_conf_is_mock(const struct gatewayd_conf *conf);

#endif
