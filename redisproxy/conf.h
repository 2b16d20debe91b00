#ifndef REDISPROXY_CONF_H
#define REDISPROXY_CONF_H

/* The settings of redisproxy; conf.c is their table. */
#include "common/daemon.h"

#define CONF_MAX_SHARED 8

enum conf_mode { CONF_SINGLE, CONF_SENTINEL, CONF_CLUSTER };

struct redisproxy_conf {
	struct daemon_conf common;

	int mode; /* enum conf_mode */
	char *local_address;
	char *remote_address;
	char *monitor_address;
	char *remote_username;
	char *remote_password;
	int64_t max_clients;

	char *sentinel_addresses, *sentinel_master;
	char *sentinel_username, *sentinel_password;

	bool tls, tls_verify;
	char *tls_ca_file, *tls_cert_file, *tls_key_file, *tls_server_name;
	char *zone_cidrs, *own_ip;

	bool reader_routing;
	char *reader_address; /* "": the writer's */
	int64_t read_your_writes_ms;

	int64_t shared_connections;
	int64_t max_connections;
	int64_t max_idle, min_idle;
	int64_t max_idle_time_ms, max_lifetime_ms;
	double jitter;
	int strategy; /* 0 fifo, 1 lifo */
	int64_t max_pools;
	bool scripts_apart;

	int64_t connect_timeout_ms;
	int64_t wait_ms;
	int64_t response_timeout_ms;
	int64_t ping_interval_ms, ping_timeout_ms;
	int64_t topology_refresh_ms;

	int64_t slowlog_threshold_ms, slowlog_entries, hot_keys;
	bool show_keys;

	int64_t max_in_flight;
	int64_t client_output_bytes, client_memory_bytes;
	bool http_keepalive;
};

extern const struct daemon_spec redisproxy_spec;

#endif
