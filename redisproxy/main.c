#include <malloc.h>
#include <stdio.h>
#include <sysexits.h>

#include "common/daemon.h"
#include "common/health.h"
#include "common/http_server.h"
#include "redisproxy/conf.h"
#include "redisproxy/proxy.h"
#include "redisproxy/report.h"

#define KEPT_HEAP_BYTES (1 << 20)

struct parts {
	struct daemon *daemon;
	struct redisproxy_conf conf;
	struct proxy *proxy;
	struct http_server *monitor;
};

static void on_request(struct http_exchange *exchange, void *arg)
{
	struct parts *p = arg;

	if (!health_serve(p->daemon, exchange) && !report_serve(p->proxy, exchange))
		http_exchange_respond(exchange, 404, (struct span){0}, NULL, 0);
}

static void on_drain(void *arg)
{
	struct parts *p = arg;

	proxy_drain(p->proxy);
}

static void describe_open(char *text, size_t size, void *arg)
{
	struct parts *p = arg;

	snprintf(text, size, "%u clients", p->proxy->n_clients);
}

static void serve_monitor(struct parts *p)
{
	static const struct http_server_events events = {.on_request = on_request};

	if (!*p->conf.monitor_address)
		return;
	int fd = daemon_listen(p->daemon, "http", p->conf.monitor_address);

	p->monitor = http_server_new(daemon_loop(p->daemon), &http_server_defaults, &events, p);
	if (!p->monitor || http_server_listen(p->monitor, fd) < 0)
		die(EX_OSERR, "cannot serve %s", p->conf.monitor_address);
	http_server_measure(p->monitor, daemon_metrics(p->daemon));
}

int main(int argc, char **argv)
{
	static const struct daemon_events events = {
		.on_drain = on_drain, .describe_open = describe_open};
	struct parts p = {0};

	/* Buffers of bursts come and go: to get their pages anew each time would cost more than all
	 * the rest. */
	mallopt(M_TRIM_THRESHOLD, KEPT_HEAP_BYTES);
	mallopt(M_MMAP_THRESHOLD, KEPT_HEAP_BYTES);
	p.daemon = daemon_start(&redisproxy_spec, &p.conf, argc, argv);
	p.proxy = proxy_new(p.daemon, &p.conf);
	if (!p.proxy)
		die(EX_OSERR, "out of memory");
	if (proxy_listen(p.proxy, daemon_listen(p.daemon, "redis", p.conf.local_address)) < 0)
		die(EX_OSERR, "cannot serve %s", p.conf.local_address);
	serve_monitor(&p);
	if (!daemon_serve_rpc(p.daemon, NULL))
		die(EX_OSERR, "cannot serve");
	daemon_set_events(p.daemon, &events, &p);

	int code = daemon_run(p.daemon);

	http_server_free(&p.monitor);
	proxy_free(&p.proxy);
	daemon_stop(&p.daemon);
	return code;
}
