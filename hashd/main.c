#include <stdio.h>
#include <sysexits.h>

#include "common/body.h"
#include "common/daemon.h"
#include "common/otlp.h"
#include "hashd/backend.h"
#include "hashd/conf.h"
#include "hashd/front.h"
#include "hashd/local.h"
#include "hashd/observe.h"
#include "hashd/request.h"

struct parts {
	struct daemon *daemon;
	struct hashd_conf conf;
	struct observe *observe;
	struct bodies *bodies, *local_bodies;
	struct backends *backends;
	struct requests *requests;
	struct local *local;
	struct front *front;
	struct otlp *otlp;
};

static void on_up(void *arg)
{
	struct parts *p = arg;

	requests_backend_up(p->requests);
}

static void on_dead(struct backend *backend, void *arg)
{
	struct parts *p = arg;

	requests_backend_dead(p->requests, backend);
}

static void on_flushed(void *arg)
{
	struct parts *p = arg;

	daemon_drained(p->daemon);
}

static void on_local_drained(void *arg)
{
	struct parts *p = arg;

	otlp_flush(p->otlp, on_flushed, p);
}

static void on_front_drained(void *arg)
{
	struct parts *p = arg;

	local_drain(p->local, on_local_drained, p);
}

static void on_lameduck(void *arg)
{
	struct parts *p = arg;

	front_retire(p->front);
}

static void on_drain(void *arg)
{
	struct parts *p = arg;

	front_drain(p->front, on_front_drained, p);
}

static void describe_open(char *text, size_t size, void *arg)
{
	struct parts *p = arg;

	snprintf(text, size, "%zu connections, %zu requests", front_connections(p->front),
		requests_count(p->requests));
}

static struct bodies *new_bodies(
	struct loop *loop, const struct hashd_conf *conf, int64_t budget_bytes)
{
	return bodies_new(loop, &(struct bodies_options){
					.budget_bytes = (uint64_t)budget_bytes,
					.max_body_bytes = (size_t)conf->max_body_bytes,
					.timeout_ms = (uint32_t)conf->body_timeout_ms,
					.least_bytes_s = (uint32_t)conf->min_read_bytes_s,
				});
}

int main(int argc, char **argv)
{
	static const struct backends_events backends_events = {.on_up = on_up, .on_dead = on_dead};
	static const struct daemon_events daemon_events = {
		.on_lameduck = on_lameduck, .on_drain = on_drain, .describe_open = describe_open};
	struct parts p = {0};

	p.daemon = daemon_start(&hashd_spec, &p.conf, argc, argv);
	struct loop *loop = daemon_loop(p.daemon);
	struct metrics *metrics = daemon_metrics(p.daemon);

	p.otlp = otlp_new(p.daemon, &p.conf.otlp);
	p.observe = observe_new(metrics, &p.conf);
	p.bodies = new_bodies(loop, &p.conf, p.conf.body_budget_bytes);
	p.local_bodies = new_bodies(loop, &p.conf, p.conf.rpc_body_budget_bytes);
	p.backends = backends_new(loop, &p.conf, metrics, &backends_events, &p);
	p.requests = p.backends ? requests_new(loop, &p.conf, metrics, p.backends) : NULL;
	p.local = local_new(&p.conf, p.local_bodies, p.requests);
	if (!p.otlp || !p.observe || !p.bodies || !p.local_bodies || !p.requests || !p.local)
		die(EX_OSERR, "out of memory");
	p.front = front_new(&(struct front_parts){
		.daemon = p.daemon,
		.conf = &p.conf,
		.bodies = p.bodies,
		.local_bodies = p.local_bodies,
		.requests = p.requests,
		.observe = p.observe,
	});
	if (!p.front || !daemon_serve_rpc(p.daemon, local_methods(p.local)))
		die(EX_OSERR, "cannot serve");
	daemon_set_events(p.daemon, &daemon_events, &p);

	int code = daemon_run(p.daemon);

	front_free(&p.front);
	local_stop(p.local);
	requests_free(&p.requests);
	backends_free(&p.backends);
	bodies_free(&p.bodies);
	bodies_free(&p.local_bodies);
	observe_free(&p.observe);
	otlp_free(&p.otlp);
	daemon_stop(&p.daemon);
	local_free(&p.local);
	return code;
}
