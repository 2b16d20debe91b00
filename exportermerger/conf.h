#ifndef EXPORTERMERGER_CONF_H
#define EXPORTERMERGER_CONF_H

/* The settings of exportermerger; conf.c is their table. */
#include "common/daemon.h"

struct merger_conf {
	struct daemon_conf common;
	char *listen; /* "" : 127.0.0.1:port */
	int64_t port;
	char *urls;
	char *urls_file;
	int64_t target_timeout_ms;
	int64_t scrape_timeout_ms;
	int64_t max_body_bytes;
	int64_t max_scrapes;
};

extern const struct daemon_spec merger_spec;

#endif
