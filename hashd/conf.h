#ifndef HASHD_CONF_H
#define HASHD_CONF_H

/* The settings of hashd; conf.c is their table. */
#include "common/daemon.h"
#include "common/otlp.h"

#define HASHD_MAX_BACKENDS 64

struct hashd_conf {
	struct daemon_conf common;

	char *host;
	int64_t port;
	char *listen; /* "" : host:port */

	int64_t instances; /* gatewayd.0.sock ... in the run directory, unless backends are named */
	char *backends;    /* comma-separated socket paths, "" : from instances */
	int64_t first_byte_ms;
	int64_t ping_interval_ms;
	int64_t ping_timeout_ms;
	int64_t backend_wait_ms;
	int64_t request_timeout_ms;

	int64_t max_body_bytes;
	int64_t body_budget_bytes, rpc_body_budget_bytes;
	int64_t max_head_bytes;
	int64_t max_connections;
	int64_t idle_timeout_ms;
	int64_t header_timeout_ms;
	int64_t body_timeout_ms, min_read_bytes_s;
	int64_t write_timeout_ms;
	int64_t min_write_bytes_s;

	bool path_hash;
	bool url_hash;
	double access_log_sample;
	struct otlp_conf otlp;
};

extern const struct daemon_spec hashd_spec;

#endif
