#include "gatewayd/conf.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "gatewayd/prices.h"
#include "gatewayd/provider_hybrid.h"
#include "gatewayd/provider_targets.h"
#include "gatewayd/s3_client.h"

#define AT(member)      offsetof(struct gatewayd_conf, member)
#define AT_OTLP(member) AT(otlp.member)

const struct config_row gatewayd_conf_rows[] = {
	{.section = "Listening",
		.flag = "listen",
		.env = "GATEWAYD_LISTEN",
		.type = CONFIG_ADDRESS,
		.offset = AT(listen),
		.help = "HTTP listen address; empty: 127.0.0.1, port 8100 plus the instance number"},
	{.flag = "instance",
		.env = "GATEWAYD_INSTANCE",
		.type = CONFIG_INT,
		.offset = AT(instance),
		.def = "0",
		.min = 0,
		.max = 63,
		.help = "number of this instance in the pod"},
	{.flag = "instances",
		.env = "GATEWAYD_INSTANCES",
		.type = CONFIG_INT,
		.offset = AT(instances),
		.def = "1",
		.min = 1,
		.max = 64,
		.help = "how many gatewayd the pod has"},
	{.flag = "access-log-sample",
		.env = "GATEWAYD_ACCESS_LOG_SAMPLE",
		.type = CONFIG_DOUBLE,
		.offset = AT(access_log_sample),
		.def = "1",
		.min = 0,
		.max = 1,
		.reloadable = true,
		.help = "share of the HTTP listener's requests in the access log; 5xx are always "
			"there; those from hashd are in its own"},
	{.section = "Limits",
		.flag = "max-body",
		.env = "MAX_BODY",
		.type = CONFIG_BYTES,
		.offset = AT(max_body_bytes),
		.def = "32MB",
		.min = 1024,
		.max = 1 << 30,
		.help = "largest request body; more is 413"},
	{.flag = "body-budget",
		.env = "GATEWAYD_BODY_BUDGET",
		.type = CONFIG_BYTES,
		.offset = AT(body_budget_bytes),
		.def = "256MiB",
		.min = 1024,
		.help = "bytes of request bodies on the HTTP listener, beyond the first 16 KiB of "
			"each; above, the newest clients are read no further"},
	{.flag = "max-inputs",
		.env = "MAX_INPUTS",
		.type = CONFIG_INT,
		.offset = AT(max_inputs),
		.def = "16384",
		.min = 1,
		.max = 1 << 20,
		.help = "most elements of one request's input; split into provider calls of 2,048"},
	{.flag = "max-connections",
		.env = "GATEWAYD_MAX_CONNECTIONS",
		.type = CONFIG_INT,
		.offset = AT(max_connections),
		.def = "16384",
		.min = 1,
		.max = 1 << 20,
		.help = "client connections on the HTTP listener; more wait"},
	{.flag = "worker-threads",
		.env = "WORKER_THREADS",
		.type = CONFIG_INT,
		.offset = AT(worker_threads),
		.def = "4",
		.min = 1,
		.max = 64,
		.help = "threads for file I/O, compression and large bodies"},
	{.section = "Access",
		.flag = "client-keys-file",
		.env = "CLIENT_KEYS_FILE",
		.type = CONFIG_PATH,
		.offset = AT(client_keys_file),
		.help = "file of SHA-256 digests of the keys that callers may use, read again on SIGHUP"},
	{.env = "PURGE_TOKEN",
		.type = CONFIG_SECRET,
		.offset = AT(purge_token),
		.help = "what a purge must bring along (Authorization: Bearer); none: no purge over HTTP, by RPC only from root and the own user"},
	{.flag = "purge-reread",
		.env = "PURGE_REREAD",
		.type = CONFIG_MS,
		.offset = AT(purge_reread_ms),
		.def = "55s",
		.min = 100,
		.max = 3600000,
		.help = "how often purges of the store that did not reach this instance are looked for there"},
	{.section = "Memory cache",
		.flag = "cache-size",
		.env = "CACHE_SIZE",
		.type = CONFIG_BYTES,
		.offset = AT(cache_bytes),
		.def = "256MB",
		.min = 1 << 20,
		.max = (double)(1ULL << 46),
		.help = "memory for cached answers and embeddings, index included"},
	{.flag = "cache-ttl",
		.env = "CACHE_TTL",
		.type = CONFIG_MS,
		.offset = AT(cache_ttl_ms),
		.def = "1h",
		.min = 1,
		.max = 1e14,
		.help = "how long an object is served from memory before the store is asked again"},
	{.flag = "cache-grace",
		.env = "CACHE_GRACE",
		.type = CONFIG_MS,
		.offset = AT(cache_grace_ms),
		.def = "24h",
		.min = 0,
		.max = 1e14,
		.help = "how long after its TTL an object may still be served while it is refreshed"},
	{.flag = "cache-request-control",
		.env = "CACHE_REQUEST_CONTROL",
		.type = CONFIG_BOOL,
		.offset = AT(cache_request_control),
		.def = "false",
		.help = "let a request's Cache-Control hold: no-cache asks the provider again, no-store keeps nothing"},
	{.flag = "cache-scope",
		.env = "CACHE_SCOPE",
		.type = CONFIG_CHOICE,
		.offset = AT(scope),
		.def = "shared",
		.choices = "shared|per-key",
		.help = "shared: one cache for all callers; per-key: one for each credential"},
	{.section = "Store",
		.flag = "store",
		.env = "STORE",
		.type = CONFIG_CHOICE,
		.offset = AT(store),
		.def = "dir",
		.choices = "none|dir|s3|dir,s3",
		.help = "where embeddings are kept for good; dir,s3: a directory in front of a bucket"},
	{.flag = "store-dir",
		.env = "STORE_DIR",
		.type = CONFIG_PATH,
		.offset = AT(store_dir),
		.def = "var/cache",
		.help = "directory of the dir store"},
	{.flag = "store-dir-max-size",
		.env = "STORE_DIR_MAX_SIZE",
		.type = CONFIG_BYTES,
		.offset = AT(store_dir_max_bytes),
		.def = "10GB",
		.min = 1 << 20,
		.max = (double)(1ULL << 50),
		.help = "size cap of the dir store; the oldest objects go first"},
	{.flag = "store-dir-fsync",
		.env = "STORE_DIR_FSYNC",
		.type = CONFIG_BOOL,
		.offset = AT(store_dir_fsync),
		.def = "false",
		.help = "fsync each object before it becomes visible"},
	{.flag = "store-deadline",
		.env = "STORE_DEADLINE",
		.type = CONFIG_MS,
		.offset = AT(store_deadline_ms),
		.def = "1s",
		.min = 1,
		.max = 60000,
		.help = "longest wait for one look-up, and for a store that answers none; a request waits 2 ms more for each element"},
	{.flag = "store-queue",
		.env = "STORE_QUEUE",
		.type = CONFIG_INT,
		.offset = AT(store_queue),
		.def = "10000",
		.min = 1,
		.max = 1 << 20,
		.help = "objects waiting to be stored; more are dropped and counted"},
	{.flag = "store-parallel",
		.env = "STORE_PARALLEL",
		.type = CONFIG_INT,
		.offset = AT(store_parallel),
		.def = "64",
		.min = 1,
		.max = 4096,
		.help = "look-ups of one request in the store at a time"},
	{.flag = "store-legacy-read",
		.env = "STORE_LEGACY_READ",
		.type = CONFIG_BOOL,
		.offset = AT(store_legacy_read),
		.def = "on",
		.help = "also look for what the Python gateway stored (not with the mock, nor with CACHE_SCOPE=per-key)"},
	{.flag = "store-legacy-layout",
		.env = "STORE_LEGACY_LAYOUT",
		.type = CONFIG_CHOICE,
		.offset = AT(store_legacy_layout),
		.def = "embeddings",
		.choices = "embeddings|hashed",
		.help = "where it did: embeddings/SHA256.json.gz, or first 4 hex/SHA256; what cachectl "
			"import brought lies under embeddings, whatever it was"},
	{.flag = "s3-bucket",
		.env = "S3_BUCKET",
		.type = CONFIG_STRING,
		.offset = AT(s3_bucket),
		.def = "embedding-gateway",
		.help = "bucket of the s3 store"},
	{.flag = "s3-endpoint-url",
		.env = "S3_ENDPOINT_URL",
		.env_alias = "S3_ENDPOINT",
		.type = CONFIG_URL,
		.offset = AT(s3_endpoint),
		.help = "S3 server (MinIO, Ceph...), path-style; empty: AWS in AWS_REGION"},
	{.flag = "aws-region",
		.env = "AWS_REGION",
		.type = CONFIG_STRING,
		.offset = AT(s3_region),
		.def = "us-east-1",
		.help = "region that requests to the s3 store are signed for"},
	{.env = "AWS_ACCESS_KEY_ID",
		.type = CONFIG_SECRET,
		.offset = AT(s3_access_key),
		.help = "access key of the s3 store"},
	{.env = "AWS_SECRET_ACCESS_KEY",
		.type = CONFIG_SECRET,
		.offset = AT(s3_secret),
		.help = "its secret"},
	{.env = "AWS_SESSION_TOKEN",
		.type = CONFIG_SECRET,
		.offset = AT(s3_session_token),
		.help = "its session token, when the credentials are temporary"},
	{.flag = "s3-timeout",
		.env = "S3_TIMEOUT",
		.type = CONFIG_MS,
		.offset = AT(s3_timeout_ms),
		.def = "30s",
		.min = 100,
		.max = 600000,
		.help = "longest time for storing one object in one attempt"},
	{.section = "Provider",
		.flag = "provider",
		.env = "PROVIDER",
		.type = CONFIG_CHOICE,
		.offset = AT(provider),
		.def = "openai",
		.choices = "openai|ollama|hybrid|mock",
		.help = "who makes embeddings: any OpenAI-compatible API, Ollama, both by model, or a local mock for trying things out"},
	{.flag = "openai-base-url",
		.env = "OPENAI_BASE_URL",
		.type = CONFIG_STRING,
		.offset = AT(openai_base_url),
		.def = "https://api.openai.com/v1",
		.help = "base URL of the provider, with /v1; several, with weights: URL|3, URL|1; weight 0: only when no other can be used"},
	{.env = "OPENAI_API_KEY",
		.type = CONFIG_SECRET,
		.offset = AT(openai_api_key),
		.help = "the gateway's own key, for callers that bring none"},
	{.flag = "provider-encoding",
		.env = "PROVIDER_ENCODING",
		.type = CONFIG_CHOICE,
		.offset = AT(provider_encoding),
		.def = "base64",
		.choices = "base64|float",
		.help = "encoding_format asked of the provider; either is understood in its answer"},
	{.flag = "openai-timeout",
		.env = "OPENAI_TIMEOUT",
		.type = CONFIG_MS,
		.offset = AT(provider_timeout_ms),
		.def = "60",
		.min = 10,
		.max = 3600000,
		.help = "deadline of one purchase, its retries included"},
	{.flag = "provider-connect-timeout",
		.env = "PROVIDER_CONNECT_TIMEOUT",
		.type = CONFIG_MS,
		.offset = AT(provider_connect_timeout_ms),
		.def = "5s",
		.min = 10,
		.max = 600000,
		.help = "longest wait for a connection to the provider"},
	{.flag = "max-retries",
		.env = "MAX_RETRIES",
		.type = CONFIG_INT,
		.offset = AT(provider_max_retries),
		.def = "3",
		.min = 0,
		.max = 20,
		.help = "further tries after connect errors, resets, timeouts, 408, 409, 429 and 5xx"},
	{.flag = "provider-connections",
		.env = "PROVIDER_CONNECTIONS",
		.type = CONFIG_INT,
		.offset = AT(provider_connections),
		.def = "256",
		.min = 1,
		.max = 10000,
		.help = "connections to the provider"},
	{.flag = "circuit-breaker-threshold",
		.env = "CIRCUIT_BREAKER_THRESHOLD",
		.type = CONFIG_INT,
		.offset = AT(breaker_threshold),
		.def = "5",
		.min = 1,
		.max = 1000,
		.help = "consecutive failures of the provider that open the breaker"},
	{.flag = "circuit-breaker-open",
		.env = "CIRCUIT_BREAKER_OPEN",
		.type = CONFIG_MS,
		.offset = AT(breaker_open_ms),
		.def = "10s",
		.min = 10,
		.max = 3600000,
		.help = "how long an open breaker waits before one call probes the provider"},
	{.flag = "token-prices",
		.env = "TOKEN_PRICES",
		.type = CONFIG_STRING,
		.offset = AT(prices),
		.def = PRICES_DEFAULT,
		.help = "MODEL=DOLLARS,...: dollars for a million tokens, for saved_dollars_total; the "
			"defaults are OpenAI's list prices as announced on " PRICES_DEFAULT_DATE},
	{.flag = "provider-ca-file",
		.env = "PROVIDER_CA_FILE",
		.type = CONFIG_PATH,
		.offset = AT(provider_ca_file),
		.help = "PEM file of the authorities that may vouch for the provider; empty: the system's"},
	{.flag = "ollama-base-url",
		.env = "OLLAMA_BASE_URL",
		.type = CONFIG_URL,
		.offset = AT(ollama_base_url),
		.def = "http://localhost:11434",
		.help = "base URL of Ollama, for PROVIDER=ollama and hybrid"},
	{.flag = "ollama-timeout",
		.env = "OLLAMA_TIMEOUT",
		.type = CONFIG_MS,
		.offset = AT(ollama_timeout_ms),
		.def = "120",
		.min = 10,
		.max = 3600000,
		.help = "deadline of one purchase from Ollama, its retries included"},
	{.flag = "ollama-max-retries",
		.env = "OLLAMA_MAX_RETRIES",
		.type = CONFIG_INT,
		.offset = AT(ollama_max_retries),
		.def = "3",
		.min = 0,
		.max = 20,
		.help = "as MAX_RETRIES, for Ollama"},
	{.flag = "ollama-pull",
		.env = "OLLAMA_PULL",
		.type = CONFIG_BOOL,
		.offset = AT(ollama_pull),
		.def = "on",
		.help = "let Ollama download a model that it does not have; meanwhile it is 503 with Retry-After"},
	{.flag = "ollama-model-download-timeout",
		.env = "OLLAMA_MODEL_DOWNLOAD_TIMEOUT",
		.type = CONFIG_MS,
		.offset = AT(ollama_download_timeout_ms),
		.def = "600",
		.min = 10,
		.max = 86400000,
		.help = "longest time for such a download"},
	{.flag = "hybrid-ollama-models",
		.env = "HYBRID_OLLAMA_MODELS",
		.type = CONFIG_STRING,
		.offset = AT(hybrid_ollama_models),
		.help = "PROVIDER=hybrid: models that Ollama makes, between commas; all others are OpenAI's"},
	{.flag = "hybrid-equivalent-models",
		.env = "HYBRID_EQUIVALENT_MODELS",
		.type = CONFIG_STRING,
		.offset = AT(hybrid_equivalent_models),
		.help = "models that are the same at both, so that one may stand in for the other: NAME or NAME=NAME at the other"},
	{.flag = "mock-latency",
		.env = "MOCK_LATENCY",
		.type = CONFIG_MS,
		.offset = AT(mock_latency_ms),
		.def = "0",
		.unit = "ms",
		.min = 0,
		.max = 600000,
		.help = "how long the mock provider takes to answer"},
	OTLP_CONFIG_ROWS(AT_OTLP),
	{0},
};

static const char *check_urls(const char *setting, const char *urls)
{
	static char text[256];
	struct provider_targets targets;
	const char *wrong = provider_targets_parse(urls, "", &targets);
	if (!wrong) {
		provider_targets_free(&targets);
		return NULL;
	}
	snprintf(text, sizeof text, "%s is not a list of URL or URL|WEIGHT: %s", setting, wrong);
	return text;
}

static const char *check_provider(const struct gatewayd_conf *conf)
{
	static char text[256];
	const char *wrong = check_urls("OPENAI_BASE_URL", conf->openai_base_url);
	if (wrong || conf->provider == CONF_PROVIDER_OPENAI)
		return wrong;
	struct provider_hybrid_options options = {
		.second_models = conf->hybrid_ollama_models,
		.equivalent = conf->hybrid_equivalent_models,
	};
	wrong = provider_hybrid_check(&options);
	if (wrong) {
		snprintf(text, sizeof text, "HYBRID_OLLAMA_MODELS, HYBRID_EQUIVALENT_MODELS: %s",
			wrong);
		return text;
	}
	return check_urls("OLLAMA_BASE_URL", conf->ollama_base_url);
}

/* A key or token goes into a header: a line break in the middle is a file with something else. */
static bool is_header_value(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			return false;
	return true;
}

const char *gatewayd_conf_check(const void *arg)
{
	const struct gatewayd_conf *conf = arg;
	if (!is_header_value(conf->openai_api_key))
		return "OPENAI_API_KEY has a line break or another control character";
	if (!is_header_value(conf->purge_token))
		return "PURGE_TOKEN has a line break or another control character";
	if (conf->instance >= conf->instances)
		return "GATEWAYD_INSTANCE must be less than GATEWAYD_INSTANCES";
	bool dir = conf->store == CONF_STORE_DIR || conf->store == CONF_STORE_DIR_S3;
	bool s3 = conf->store == CONF_STORE_S3 || conf->store == CONF_STORE_DIR_S3;
	if (dir && !*conf->store_dir)
		return "STORE=dir needs STORE_DIR";
	if (s3 && (!*conf->s3_access_key || !*conf->s3_secret))
		return "STORE=s3 needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
	if (!prices_valid(conf->prices))
		return "TOKEN_PRICES must be like text-embedding-3-small=0.02,other=0.13";
	if (otlp_conf_check(&conf->otlp))
		return otlp_conf_check(&conf->otlp);
	if (s3 && !s3_bucket_valid(conf->s3_bucket))
		return "S3_BUCKET is not a name that a bucket can have";
	return check_provider(conf);
}

void gatewayd_conf_instance_name(const void *arg, char *text, size_t size)
{
	const struct gatewayd_conf *conf = arg;
	snprintf(text, size, "gatewayd.%d", (int)conf->instance);
}

bool gatewayd_conf_is_mock(const struct gatewayd_conf *conf)
{
	return conf->provider == CONF_PROVIDER_MOCK ||
	       (conf->provider != CONF_PROVIDER_OLLAMA &&
		       strcmp(conf->openai_api_key, CONF_PLACEHOLDER_KEY) == 0);
}
