#include "exportermerger/front.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/health.h"
#include "common/http_server.h"
#include "common/log.h"
#include "common/loop.h"
#include "exportermerger/negotiate.h"
#include "exportermerger/page_stream.h"
#include "exportermerger/round.h"
#include "exportermerger/sample_number.h"
#include "exportermerger/status_page.h"

#define MAX_PIECE_BYTES (64u << 20)
#define MIN_PAGE_MS     50

/* Whoever looks at the status page asks again every two seconds. */
#define STATUS_TIMEOUT_MS 1500
#define STATUS_MAX_VISITS 32

/* One request for the page: collecting -> sending -> over. It lives until then; the exchange is
 * NULL once it is not ours any more. */
struct visit {
	struct visit *next, **prev;
	struct front *front;
	struct http_exchange *exchange;
	struct negotiated form;
	bool gzip;
	bool status; /* for the status page: the pod's own daemons, asked for all who look */
	struct round_member member;
	struct page_stream *stream;
	struct page **pages; /* status: those that count */
	uint64_t started_us;
	size_t sent_bytes;
};

struct front {
	struct front_parts parts;
	struct http_server *server;
	struct status_page *status_page;
	struct visit *visits;
	size_t n_visits, n_status_visits;
	struct round *asking; /* the round of a status visit while its targets are being asked */
};

/* ---- short answers ---- */

static void respond_text(
	struct http_exchange *exchange, int status, const char *lines, const char *text)
{
	char all[200];
	struct slice body = slice_static(text);
	snprintf(all, sizeof all, "Content-Type: text/plain; charset=utf-8\r\n%s", lines);
	http_exchange_respond(exchange, status, span_of(all), &body, 1);
}

/* ---- a visit ---- */

static void visit_free(struct visit *v, enum stats_page outcome)
{
	struct front *front = v->front;
	struct loop *loop = daemon_loop(front->parts.daemon);
	stats_page(front->parts.stats, outcome, (double)(loop_now_us(loop) - v->started_us) / 1e6,
		v->sent_bytes);
	page_stream_free(&v->stream);
	free(v->pages);
	*v->prev = v->next;
	if (v->next)
		v->next->prev = v->prev;
	*(v->status ? &front->n_status_visits : &front->n_visits) -= 1;
	struct round *round = v->member.round;
	if (round_leave(&v->member) && front->asking == round)
		front->asking = NULL;
	free(v);
}

static struct span page_lines(const struct visit *v, struct buf *lines)
{
	http_header_add(lines, "Content-Type", span_of(negotiate_content_type(&v->form)));
	if (v->gzip)
		http_header_add(lines, "Content-Encoding", SPAN_LITERAL("gzip"));
	http_header_add(lines, "Vary", SPAN_LITERAL("Accept, Accept-Encoding"));
	http_header_add(lines, "Cache-Control", SPAN_LITERAL("no-store"));
	return (struct span){(const char *)lines->data, buf_failed(lines) ? 0 : lines->len};
}

/* As much as the reader takes; the rest when it has room again. */
static void send_pieces(struct visit *v)
{
	for (bool room = true; room;) {
		struct buf piece = BUF_INIT(MAX_PIECE_BYTES);
		int more = page_stream_next(v->stream, &piece);
		if (more < 0) {
			buf_free(&piece);
			http_exchange_reset(v->exchange);
			visit_free(v, STATS_PAGE_FAILED);
			return;
		}
		size_t len;
		void *data = buf_take(&piece, &len);
		v->sent_bytes += len;
		if (len)
			room = http_exchange_send(v->exchange, slice_malloced(data, len));
		else
			free(data);
		if (more == 0) {
			http_exchange_end(v->exchange);
			visit_free(v, STATS_PAGE_OK);
			return;
		}
	}
}

/* The status page is about the pod: the pages of others are not on it. */
static struct page *const *pages_of(struct visit *v, size_t *count)
{
	const struct collection *collection = round_collection(v->member.round);
	struct page *const *all = collection_pages(collection, count);
	if (!v->status)
		return all;
	v->pages = calloc(*count, sizeof(struct page *));
	for (size_t i = 0; v->pages && i < *count; i++)
		if (collection_is_own(collection, i))
			v->pages[i] = all[i];
	return v->pages;
}

static int make_stream(struct visit *v)
{
	size_t n;
	struct page *const *pages = pages_of(v, &n);
	uint32_t(*conflicts)[PAGE_CONFLICTS] = calloc(n, sizeof *conflicts);
	struct plan *plan = pages && conflicts ? plan_new(pages, n, v->form.openmetrics, conflicts)
					       : NULL;
	if (plan) {
		v->stream = page_stream_new(plan, v->form.allow_utf8, v->gzip);
		for (size_t i = 0; i < n && !v->status; i++)
			stats_conflicts(v->front->parts.stats,
				collection_name(round_collection(v->member.round), i),
				conflicts[i]);
	}
	free(conflicts);
	return v->stream ? 0 : -1;
}

static void on_collected(void *arg)
{
	struct visit *v = arg;
	if (v->member.round == v->front->asking)
		v->front->asking = NULL; /* later ones want newer numbers */
	if (make_stream(v) < 0) {
		respond_text(v->exchange, 503, "Retry-After: 1\r\n", "out of memory\n");
		visit_free(v, STATS_PAGE_FAILED);
		return;
	}
	struct buf lines = BUF_INIT(512);
	http_exchange_respond_start(v->exchange, 200, page_lines(v, &lines), -1);
	buf_free(&lines);
	send_pieces(v);
}

static void on_drain(void *arg)
{
	struct visit *v = arg;
	send_pieces(v);
}

static void on_abort(void *arg)
{
	visit_free(arg, STATS_PAGE_ABORTED);
}

static const struct http_exchange_events exchange_events = {
	.on_drain = on_drain, .on_abort = on_abort};

/* How long the reader waits, less what merging and sending may take: a tenth, at most half a
 * second. */
static uint32_t page_timeout_ms(const struct front *front, struct http_exchange *exchange)
{
	struct span given = http_exchange_header(exchange, "x-prometheus-scrape-timeout-seconds");
	double ms = (double)front->parts.conf->scrape_timeout_ms;
	if (given.data && sample_number_kind(given) == SAMPLE_NUMBER_FINITE) {
		double seconds = sample_number_value(given);
		if (seconds > 0 && seconds < 3600)
			ms = seconds * 1000;
	}
	ms -= ms / 10 < 500 ? ms / 10 : 500;
	return ms < MIN_PAGE_MS ? MIN_PAGE_MS : (uint32_t)ms;
}

/* As they are now: a pattern may match more sockets than it did. */
static struct targets *look_at_targets(struct front *front)
{
	if (targets_look(front->parts.targets)) {
		stats_keep(front->parts.stats, *front->parts.targets);
		log_info("%zu targets", (*front->parts.targets)->count);
	}
	return *front->parts.targets;
}

static int collect(struct visit *v)
{
	struct front *front = v->front;
	const struct merger_conf *conf = front->parts.conf;
	if (v->status && front->asking) {
		round_join(front->asking, &v->member, on_collected, v);
		return 0;
	}
	struct collection_options options = {
		.loop = daemon_loop(front->parts.daemon),
		.client = front->parts.client,
		.targets = look_at_targets(front),
		.stats = front->parts.stats,
		.timeout_ms = v->status ? STATUS_TIMEOUT_MS : page_timeout_ms(front, v->exchange),
		.target_timeout_ms = (uint32_t)conf->target_timeout_ms,
		.max_body_bytes = (size_t)conf->max_body_bytes,
		.pod_only = v->status,
	};
	if (round_start(&options, &v->member, on_collected, v) < 0)
		return -1;
	if (v->status)
		front->asking = v->member.round;
	return 0;
}

static void start_visit(struct front *front, struct http_exchange *exchange, bool status)
{
	struct visit *v = calloc(1, sizeof *v);
	if (!v) {
		respond_text(exchange, 503, "Retry-After: 1\r\n", "out of memory\n");
		return;
	}
	*v = (struct visit){.front = front,
		.exchange = exchange,
		.form = negotiate_accept(http_exchange_header(exchange, "accept")),
		.gzip = negotiate_gzip(http_exchange_header(exchange, "accept-encoding")),
		.status = status,
		.started_us = loop_now_us(daemon_loop(front->parts.daemon)),
		.next = front->visits,
		.prev = &front->visits};
	if (v->next)
		v->next->prev = &v->next;
	front->visits = v;
	*(status ? &front->n_status_visits : &front->n_visits) += 1;
	if (collect(v) < 0) {
		respond_text(exchange, 503, "Retry-After: 1\r\n", "out of memory\n");
		visit_free(v, STATS_PAGE_FAILED);
		return;
	}
	http_exchange_accept(exchange, &exchange_events, v);
}

/* The merged page, of everybody or of the pod's own daemons. */
static void serve_page(struct front *front, struct http_exchange *exchange, bool status)
{
	struct span method = http_exchange_method(exchange);
	size_t max = status ? STATUS_MAX_VISITS : (size_t)front->parts.conf->max_scrapes;
	if (span_equal_str(method, "HEAD")) {
		struct visit v = {
			.form = negotiate_accept(http_exchange_header(exchange, "accept"))};
		struct buf lines = BUF_INIT(512);
		http_exchange_respond(exchange, 200, page_lines(&v, &lines), NULL, 0);
		buf_free(&lines);
	} else if (!span_equal_str(method, "GET")) {
		respond_text(exchange, 405, "Allow: GET, HEAD\r\n", "method not allowed\n");
	} else if ((status ? front->n_status_visits : front->n_visits) >= max) {
		respond_text(exchange, 503, "Retry-After: 1\r\n", "too many pages at once\n");
		stats_page(front->parts.stats, STATS_PAGE_BUSY, 0, 0);
	} else {
		start_visit(front, exchange, status);
	}
}

static void on_request(struct http_exchange *exchange, void *arg)
{
	struct front *front = arg;
	struct span path = http_exchange_path(exchange);
	if (span_equal_str(path, "/metrics"))
		serve_page(front, exchange, false);
	else if (span_equal_str(path, "/status"))
		serve_page(front, exchange, true);
	else if (span_equal_str(path, "/"))
		status_page_serve(front->status_page, exchange);
	else if (!health_serve(front->parts.daemon, exchange))
		respond_text(exchange, 404, "",
			"not found: metrics are on /metrics, a page for people on /\n");
}

/* ---- life ---- */

struct front *front_new(const struct front_parts *parts)
{
	static const struct http_server_events events = {.on_request = on_request};
	struct http_server_options options = http_server_defaults;
	struct front *front = calloc(1, sizeof *front);
	char address[32];
	if (!front)
		return NULL;
	front->parts = *parts;
	options.max_body_bytes = 4096;
	options.max_connections = 256;
	snprintf(address, sizeof address, "127.0.0.1:%lld", (long long)parts->conf->port);
	front->server = http_server_new(daemon_loop(parts->daemon), &options, &events, front);
	front->status_page = status_page_new();
	if (!front->server || !front->status_page ||
		http_server_listen(front->server,
			daemon_listen(parts->daemon, "http",
				parts->conf->listen[0] ? parts->conf->listen : address)) < 0)
		front_free(&front);
	else
		http_server_measure(front->server, daemon_metrics(parts->daemon));
	return front;
}

void front_drain(struct front *front, void (*on_drained)(void *arg), void *arg)
{
	http_server_drain(front->server, on_drained, arg);
}

size_t front_connections(const struct front *front)
{
	return http_server_connections(front->server);
}

void front_free(struct front **front_)
{
	struct front *front = *front_;
	if (!front)
		return;
	/* Aborts the visits. */
	http_server_free(&front->server);
	while (front->visits)
		visit_free(front->visits, STATS_PAGE_ABORTED);
	status_page_free(&front->status_page);
	free(front);
	*front_ = NULL;
}
