#include "common/daemon_private.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/messages.h"

static void serve_ping(struct rpc_request *request, struct span params, void *arg)
{
	struct daemon *daemon = arg;
	struct msg_empty nothing;
	if (msg_ping_serve_params(request, params, &nothing) < 0)
		return;
	struct msg_ping_result result = {
		.name = span_of(daemon_name(daemon)),
		.version = span_of(daemon_version()),
		.pid = (uint64_t)getpid(),
		.instance_id = span_of(daemon_instance_id(daemon)),
		.uptime_ms = daemon_uptime_ms(daemon),
		.ready = daemon_ready(daemon),
	};
	msg_ping_reply(request, &result);
}

static void serve_log_level(struct rpc_request *request, struct span params, void *arg)
{
	(void)arg;
	struct msg_log_level_params p;
	if (msg_log_level_serve_params(request, params, &p) < 0)
		return;
	enum log_level previous = log_level(), level = previous;
	if (p.level.len && log_level_parse(p.level, &level) < 0) {
		rpc_request_fail(request, RPC_BAD_PARAMS,
			"level: \"%.*s\" is not one of debug, info, warn, error, fatal",
			p.level.len > 40 ? 40 : (int)p.level.len, p.level.data);
		return;
	}
	if (level != previous) {
		/* Said at whichever of the two levels shows it. */
		log_fields(level > LOG_LEVEL_INFO && previous > LOG_LEVEL_INFO ? LOG_LEVEL_WARN
									       : LOG_LEVEL_INFO,
			NULL, "log level changes", LOG_STR("from", log_level_name(previous)),
			LOG_STR("to", log_level_name(level)),
			LOG_INT("pid", rpc_request_peer(request)->pid));
		log_set_level(level);
	}
	struct msg_log_level_result result = {.previous = span_of(log_level_name(previous))};
	msg_log_level_reply(request, &result);
}

/* ---- metrics: the visitor's walk, gathered into one message ---- */

struct gathering {
	struct msg_metric_family *families;
	size_t n_families, capacity;
	bool failed;
};

static struct span *spans_of(const char *const *strings, size_t n)
{
	struct span *spans = calloc(n ? n : 1, sizeof *spans);
	for (size_t i = 0; spans && i < n; i++)
		spans[i] = span_of(strings[i]);
	return spans;
}

static size_t count_labels(const struct metric_family *row)
{
	size_t n = 0;
	while (row->labels[n])
		n++;
	return n;
}

static void gather_family(const struct metric_family *row, size_t n_series, void *arg)
{
	static const char *const types[] = {"counter", "gauge", "histogram"};
	struct gathering *g = arg;
	if (g->failed)
		return;
	if (g->n_families == g->capacity) {
		size_t capacity = g->capacity ? 2 * g->capacity : 32;
		void *grown = reallocarray(g->families, capacity, sizeof *g->families);
		if (!grown) {
			g->failed = true;
			return;
		}
		g->families = grown;
		g->capacity = capacity;
	}
	struct msg_metric_family *f = &g->families[g->n_families++];
	*f = (struct msg_metric_family){.name = span_of(row->name),
		.type = span_of(types[row->type]),
		.help = span_of(row->help)};
	/* bounds are the row's own and only read. */
	f->bounds.items = (double *)row->buckets;
	while (row->buckets && row->buckets[f->bounds.count] != 0)
		f->bounds.count++;
	f->labels.items = spans_of(row->labels, count_labels(row));
	f->labels.count = count_labels(row);
	f->samples.items = calloc(n_series, sizeof *f->samples.items);
	g->failed = !f->labels.items || !f->samples.items;
}

static void gather_series(
	const char *const *values, double value, const uint64_t *counts, size_t n_counts, void *arg)
{
	struct gathering *g = arg;
	if (g->failed)
		return;
	struct msg_metric_family *f = &g->families[g->n_families - 1];
	struct msg_metric_sample *s = &f->samples.items[f->samples.count++];
	s->value = value;
	s->values.count = f->labels.count;
	s->values.items = spans_of(values, f->labels.count);
	g->failed = !s->values.items;
	if (!counts)
		return;
	s->counts.items = malloc(n_counts * sizeof *counts);
	if (!s->counts.items) {
		g->failed = true;
		return;
	}
	memcpy(s->counts.items, counts, n_counts * sizeof *counts);
	s->counts.count = n_counts;
}

static void free_gathering(struct gathering *g)
{
	for (size_t i = 0; i < g->n_families; i++) {
		struct msg_metric_family *f = &g->families[i];
		for (size_t j = 0; j < f->samples.count; j++) {
			free(f->samples.items[j].values.items);
			free(f->samples.items[j].counts.items);
		}
		free(f->samples.items);
		free(f->labels.items);
	}
	free(g->families);
}

static void serve_metrics(struct rpc_request *request, struct span params, void *arg)
{
	static const struct metrics_visitor visitor = {gather_family, gather_series};
	struct daemon *daemon = arg;
	struct msg_empty nothing;
	if (msg_metrics_serve_params(request, params, &nothing) < 0)
		return;
	struct gathering g = {.families = NULL};
	metrics_visit(daemon_metrics(daemon), &visitor, &g);
	struct msg_metrics_result result = {.families = {g.families, g.n_families}};
	if (g.failed)
		rpc_request_fail(request, RPC_FAILED, "out of memory");
	else
		msg_metrics_reply(request, &result);
	free_gathering(&g);
}

struct rpc_method *daemon_rpc_methods(struct daemon *daemon)
{
	const struct rpc_method methods[] = {
		{"ping", serve_ping, daemon},
		{"metrics", serve_metrics, daemon},
		{"log_level", serve_log_level, daemon},
		{NULL, NULL, NULL},
	};
	struct rpc_method *copy = malloc(sizeof methods);
	if (copy)
		memcpy(copy, methods, sizeof methods);
	return copy;
}
