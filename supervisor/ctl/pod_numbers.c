#include "supervisor/ctl/pod_numbers.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/loop.h"
#include "common/rpc.h"

#define PATH_BYTES 108 /* of a Unix socket's address */

/* Which samples make which number. */
static const struct {
	const char *family, *label, *value; /* value: one, or how it begins before a '*' */
	enum pod_number number;
} rows[] = {
	{"hashd_requests_total", NULL, NULL, POD_REQUESTS},
	{"hashd_requests_total", "status", "5*", POD_FAILED},
	{"gatewayd_elements_total", "source", "memory", POD_FROM_MEMORY},
	{"gatewayd_elements_total", "source", "store", POD_FROM_STORE},
	{"gatewayd_elements_total", "source", "joined", POD_JOINED},
	{"gatewayd_elements_total", "source", "bought", POD_BOUGHT},
	{"processed_tokens_total", NULL, NULL, POD_TOKENS},
	{"saved_tokens_total", NULL, NULL, POD_SAVED_TOKENS},
	{"saved_dollars_total", NULL, NULL, POD_SAVED_DOLLARS},
	{"gatewayd_provider_attempts_total", NULL, NULL, POD_PROVIDER_CALLS},
	{"gatewayd_purchase_failures_total", "reason", "provider", POD_PURCHASE_FAILURES},
	{"broadcaster_purges_total", "result", "ok", POD_BROADCASTS},
	{"broadcaster_purges_total", "result", "failed", POD_BROADCASTS},
	{"gatewayd_pod_purges_total", NULL, NULL, POD_PURGES},
	{"redis_commands_total", NULL, NULL, POD_REDIS_COMMANDS},
};
static const char *const times[POD_TIMES] = {[POD_REQUEST_TIME] = "hashd_request_duration_seconds",
	[POD_REDIS_TIME] = "redisproxy_command_duration_seconds"};
static const char *const daemons[] = {
	"hashd", "gatewayd", "redisproxy", "broadcasterd", "exportermerger", "taskd"};

struct counts {
	double numbers[POD_NUMBERS];
	struct pod_histogram times[POD_TIMES];
	double start; /* of the process, seconds since 1970 */
};

struct peer {
	struct peer *next;
	struct pod_numbers *all;
	char name[POD_NAME_BYTES];
	struct rpc_client *client;
	struct rpc_call *call;
	bool listed; /* among the programs: what it counted counts */
	bool wanted; /* it runs: to be asked */
	bool answered, known;
	struct counts last, now;
};

struct pod_numbers {
	struct loop *loop;
	struct timer *timer;
	struct peer *peers;
	size_t pending;
	uint64_t looked_us; /* 0: never */
	bool waiting;
	struct pod_look *look;
	char run_dir[];
};

/* ---- one answer ---- */

static const struct span *label(const struct msg_metric_family *family,
	const struct msg_metric_sample *sample, const char *name)
{
	for (size_t i = 0; i < family->labels.count && i < sample->values.count; i++)
		if (span_equal_str(family->labels.items[i], name))
			return &sample->values.items[i];
	return NULL;
}

static bool fits(const struct msg_metric_family *family, const struct msg_metric_sample *sample,
	const char *name, const char *value)
{
	if (!name)
		return true;
	const struct span *has = label(family, sample, name);
	size_t len = strlen(value);
	if (value[len - 1] != '*')
		return has && span_equal_str(*has, value);
	return has && has->len >= len - 1 && !memcmp(has->data, value, len - 1);
}

static void take_histogram(struct pod_histogram *sum, const struct msg_metric_family *family)
{
	size_t n = family->bounds.count + 1;
	if (n > POD_MAX_BUCKETS || (sum->n && sum->n != n))
		return;
	sum->n = n;
	for (size_t b = 0; b < n; b++)
		sum->bounds[b] = b < n - 1 ? family->bounds.items[b] : INFINITY;
	for (size_t i = 0; i < family->samples.count; i++) {
		const struct msg_u64s *counts = &family->samples.items[i].counts;
		for (size_t b = 0; b < n && counts->count == n; b++)
			sum->counts[b] += (double)counts->items[b];
	}
}

static void take_breaker(struct pod_look *look, const struct span *service, int state)
{
	static const int rank[] = {0, 2, 1}; /* open is worse than half-open */
	size_t i = 0;
	if (!service || state < 0 || state > 2)
		return;
	while (i < look->n_services && !span_equal_str(*service, look->services[i].name))
		i++;
	if (i == POD_MAX_SERVICES)
		return;
	struct pod_service *s = &look->services[i];
	if (i == look->n_services) {
		look->n_services++;
		snprintf(s->name, sizeof s->name, "%.*s", SPAN_ARG(*service));
		s->breaker = state;
	} else if (rank[state] > rank[s->breaker]) {
		s->breaker = state;
	}
}

static void take_family(
	struct counts *now, struct pod_look *look, const struct msg_metric_family *family)
{
	for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
		if (!span_equal_str(family->name, rows[r].family))
			continue;
		for (size_t i = 0; i < family->samples.count; i++)
			if (fits(family, &family->samples.items[i], rows[r].label, rows[r].value))
				now->numbers[rows[r].number] += family->samples.items[i].value;
	}
	for (size_t t = 0; t < POD_TIMES; t++)
		if (span_equal_str(family->name, times[t]))
			take_histogram(&now->times[t], family);
	bool is_breaker = span_equal_str(family->name, "circuit_breaker_state");
	for (size_t i = 0; is_breaker && i < family->samples.count; i++)
		take_breaker(look, label(family, &family->samples.items[i], "service"),
			(int)family->samples.items[i].value);
	if (span_equal_str(family->name, "process_start_time_seconds") && family->samples.count)
		now->start = family->samples.items[0].value;
}

/* ---- asking ---- */

static void settle(struct pod_numbers *all)
{
	if (--all->pending == 0)
		loop_stop(all->loop);
}

static void on_result(struct span bytes, void *arg)
{
	struct peer *peer = arg;
	struct msg_metrics_result metrics;
	struct msg_error error;
	if (msg_metrics_result_unpack(bytes, &metrics, &error) < 0)
		return;
	peer->now = (struct counts){0};
	for (size_t i = 0; i < metrics.families.count; i++)
		take_family(&peer->now, peer->all->look, &metrics.families.items[i]);
	msg_metrics_result_free(&metrics);
	peer->answered = true;
}

static void on_done(const struct rpc_error *error, void *arg)
{
	struct peer *peer = arg;
	(void)error;
	peer->call = NULL;
	settle(peer->all);
}

static void ask(struct peer *peer)
{
	static const struct rpc_call_events events = {.on_result = on_result, .on_done = on_done};
	static const struct msg_empty nothing;
	peer->call = msg_metrics_call(peer->client, &nothing, 0, &events, peer);
	if (!peer->call)
		settle(peer->all);
}

static void on_state(bool connected, void *arg)
{
	struct peer *peer = arg;
	if (connected && peer->all->waiting && peer->wanted && !peer->call && !peer->answered)
		ask(peer);
}

static void on_timeout(void *arg)
{
	struct pod_numbers *all = arg;
	loop_stop(all->loop);
}

/* ---- who is asked ---- */

static bool is_daemon(struct span name)
{
	for (size_t i = 0; i < sizeof daemons / sizeof *daemons; i++) {
		size_t len = strlen(daemons[i]);
		if (name.len >= len && !memcmp(name.data, daemons[i], len) &&
			(name.len == len || name.data[len] == '.' || name.data[len] == ':'))
			return true;
	}
	return false;
}

static struct peer *find_peer(struct pod_numbers *all, const char *name)
{
	struct peer *peer = all->peers;
	while (peer && strcmp(peer->name, name))
		peer = peer->next;
	return peer;
}

static struct peer *peer_of(struct pod_numbers *all, const char *name)
{
	char path[PATH_BYTES];
	struct peer *peer = find_peer(all, name);
	if (peer)
		return peer;
	if (snprintf(path, sizeof path, "%s/%s.sock", all->run_dir, name) >= (int)sizeof path ||
		access(path, F_OK) < 0)
		return NULL;
	peer = calloc(1, sizeof *peer);
	if (!peer)
		return NULL;
	peer->all = all;
	snprintf(peer->name, sizeof peer->name, "%s", name);
	peer->client = rpc_client_new(all->loop, path, NULL, on_state, peer);
	if (!peer->client) {
		free(peer);
		return NULL;
	}
	peer->next = all->peers;
	all->peers = peer;
	return peer;
}

static void want(struct pod_numbers *all, const struct msg_program_list *programs)
{
	for (size_t i = 0; i < programs->count; i++) {
		const struct msg_program *program = &programs->items[i];
		char name[POD_NAME_BYTES];
		if (!is_daemon(program->name) || program->name.len >= sizeof name)
			continue;
		snprintf(name, sizeof name, "%.*s", SPAN_ARG(program->name));
		for (char *c = name; *c; c++)
			*c = *c == ':' || *c == '/' ? '.' : *c;
		struct pod_look *look = all->look;
		bool runs = span_equal_str(program->state, "RUNNING");
		struct peer *peer = runs ? peer_of(all, name) : find_peer(all, name);
		look->n_daemons++;
		if (peer) {
			peer->listed = true;
			peer->wanted = runs;
		}
		if (!runs && look->n_idle++ == 0) {
			snprintf(look->idle, sizeof look->idle, "%s", name);
			snprintf(look->idle_state, sizeof look->idle_state, "%.*s",
				SPAN_ARG(program->state));
		} else if (runs && !peer) {
			snprintf(look->silent, sizeof look->silent, "%s", name);
		}
	}
}

/* ---- a look ---- */

static void add_histogram(struct pod_histogram *sum, const struct pod_histogram *now,
	const struct pod_histogram *before)
{
	if (!now->n || (sum->n && sum->n != now->n))
		return;
	bool goes_on = before->n == now->n && before->counts[now->n - 1] <= now->counts[now->n - 1];
	sum->n = now->n;
	memcpy(sum->bounds, now->bounds, sizeof sum->bounds);
	for (size_t b = 0; b < now->n; b++)
		sum->counts[b] += now->counts[b] - (goes_on ? before->counts[b] : 0);
}

static void add(struct pod_look *look, struct peer *peer, bool first)
{
	/* Who comes later brings a past that is not recent. */
	if (!peer->known && !first)
		peer->last = peer->now;
	for (int i = 0; i < POD_NUMBERS; i++) {
		double now = peer->now.numbers[i], before = peer->last.numbers[i];
		look->recent[i] += now < before ? now : now - before;
	}
	for (int t = 0; t < POD_TIMES; t++)
		add_histogram(&look->times[t], &peer->now.times[t], &peer->last.times[t]);
	peer->last = peer->now;
	peer->known = true;
}

static void sum_up(struct pod_numbers *all, struct pod_look *look)
{
	double now = (double)loop_wall_ms(all->loop) / 1000, start = now;
	/* One purge is one for people, however many instances were told of it: as many as one of
	 * them, or broadcasterd, was asked for. */
	double most_purges = 0;
	bool first = !all->looked_us;
	for (struct peer *peer = all->peers; peer; peer = peer->next) {
		if (!peer->listed)
			continue;
		if (peer->answered) {
			add(look, peer, first);
			look->n_answered++;
			if (peer->now.start > 0 && peer->now.start < start)
				start = peer->now.start;
		} else if (peer->wanted) {
			snprintf(look->silent, sizeof look->silent, "%s", peer->name);
		}
		most_purges = fmax(most_purges, peer->last.numbers[POD_PURGES]);
		/* One that is silent or stopped has counted what it had. */
		for (int i = 0; i < POD_NUMBERS; i++)
			look->total[i] += peer->last.numbers[i];
	}
	look->total[POD_PURGES] = fmax(most_purges, look->total[POD_BROADCASTS]);
	uint64_t now_us = loop_now_us(all->loop);
	look->seconds = first ? now - start : (double)(now_us - all->looked_us) / 1e6;
	if (look->n_answered)
		all->looked_us = now_us;
}

void pod_numbers_look(struct pod_numbers *all, const struct msg_program_list *programs,
	uint64_t timeout_ms, struct pod_look *look)
{
	*look = (struct pod_look){0};
	all->look = look;
	for (struct peer *peer = all->peers; peer; peer = peer->next)
		peer->listed = peer->wanted = peer->answered = false;
	want(all, programs);
	all->pending = 0;
	for (struct peer *peer = all->peers; peer; peer = peer->next)
		all->pending += peer->wanted;
	all->waiting = all->pending > 0;
	for (struct peer *peer = all->peers; peer; peer = peer->next) {
		if (peer->wanted && rpc_client_connected(peer->client))
			ask(peer);
		else if (peer->wanted)
			rpc_client_wake(peer->client);
	}
	timer_arm(all->timer, timeout_ms);
	/* The supervisor's connection may stop the loop too. */
	while (all->pending && timer_armed(all->timer))
		loop_run(all->loop);
	timer_disarm(all->timer);
	all->waiting = false;
	for (struct peer *peer = all->peers; peer; peer = peer->next)
		rpc_call_cancel(&peer->call);
	sum_up(all, look);
	all->look = NULL;
}

struct pod_numbers *pod_numbers_new(struct loop *loop, const char *run_dir)
{
	size_t len = strlen(run_dir);
	struct pod_numbers *all = calloc(1, sizeof *all + len + 1);
	if (!all)
		return NULL;
	memcpy(all->run_dir, run_dir, len + 1);
	all->loop = loop;
	all->timer = timer_new(loop, on_timeout, all);
	if (!all->timer)
		pod_numbers_free(&all);
	return all;
}

void pod_numbers_free(struct pod_numbers **numbers)
{
	struct pod_numbers *all = *numbers;
	if (!all)
		return;
	while (all->peers) {
		struct peer *peer = all->peers;
		all->peers = peer->next;
		rpc_client_free(&peer->client);
		free(peer);
	}
	timer_free(&all->timer);
	free(all);
	*numbers = NULL;
}

double pod_histogram_quantile(const struct pod_histogram *h, double q)
{
	double all = h->n ? h->counts[h->n - 1] : 0, low = 0, below = 0;
	if (all <= 0)
		return NAN;
	for (size_t b = 0; b < h->n; b++) {
		double upto = h->counts[b];
		if (upto >= q * all)
			return isinf(h->bounds[b]) || upto <= below
				       ? low
				       : low + (h->bounds[b] - low) * (q * all - below) /
							 (upto - below);
		low = h->bounds[b];
		below = upto;
	}
	return low;
}
