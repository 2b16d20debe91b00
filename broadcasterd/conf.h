#ifndef BROADCASTERD_CONF_H
#define BROADCASTERD_CONF_H

/* The settings of broadcasterd; conf.c is their table. */
#include "common/daemon.h"
#include "common/otlp.h"

struct broadcaster_conf {
	struct daemon_conf common;
	char *listen;
	char *token; /* who may purge here; "": HTTP open, RPC root and the own uid */
	int64_t max_purges;

	struct otlp_conf otlp;

	char *service;
	int64_t port;
	char *targets; /* static: "host:port host:port" */
	bool local;
	int64_t resolve_timeout_ms;
	int64_t max_targets;

	char *purge_token; /* shown to targets */
	int64_t connect_timeout_ms;
	int64_t timeout_ms;
	int64_t concurrency;

	char *journal; /* "": RUN_DIR/broadcasterd.journal; "none": no file */
	int64_t retry_ms;
	int64_t max_pending;
	int64_t max_pending_bytes;
};

extern const struct daemon_spec broadcaster_spec;

#endif
