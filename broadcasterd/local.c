#include "broadcasterd/local.h"

#include <stdlib.h>

#include "broadcasterd/access.h"
#include "broadcasterd/broadcast.h"
#include "broadcasterd/conf.h"
#include "broadcasterd/stats.h"
#include "common/daemon.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/messages.h"
#include "common/trace_span.h"

struct local {
	struct local_parts parts;
	struct rpc_method methods[2];
};

/* One call; gone when it is answered or cancelled. */
struct errand {
	struct rpc_request *request;
	struct broadcast *broadcast;
	struct trace_span *span;
};

static void reply_error(struct rpc_request *request, int status, const char *error)
{
	msg_purge_reply(request,
		&(struct msg_purge_result){.status = (uint64_t)status, .error = span_of(error)});
}

static void on_done(const struct broadcast_result *result, void *arg)
{
	struct errand *errand = arg;
	msg_purge_reply(errand->request, &result->message);
	trace_span_int(
		errand->span, "gateway.purge.targets", (int64_t)result->message.results.count);
	trace_span_int(errand->span, "gateway.purge.objects", (int64_t)result->message.purged);
	if (result->message.status != 200)
		trace_span_fail(errand->span, "failed", "not every target has purged");
	trace_span_end(&errand->span);
	free(errand);
}

static void on_cancel(void *arg)
{
	struct errand *errand = arg;
	broadcast_leave(&errand->broadcast);
	trace_span_end(&errand->span);
	free(errand);
}

/* The span is the errand's, if there is one. */
static void begin(struct local *local, struct rpc_request *request, struct purge *purge,
	struct trace_span **span)
{
	static const struct rpc_request_events events = {.on_cancel = on_cancel};
	struct errand *errand = calloc(1, sizeof *errand);
	if (errand)
		errand->broadcast = broadcast_start(
			local->parts.broadcasts, purge, on_done, errand);
	if (!errand || !errand->broadcast) {
		stats_refused(daemon_metrics(local->parts.daemon), STATS_BUSY);
		reply_error(request, 503, "too many purges at once");
		free(errand);
		return;
	}
	errand->request = request;
	errand->span = *span;
	*span = NULL;
	rpc_request_accept(request, &events, errand);
}

static void serve_purge(struct rpc_request *request, struct span bytes, void *arg)
{
	struct local *local = arg;
	struct metrics *metrics = daemon_metrics(local->parts.daemon);
	struct msg_purge_params params;
	const char *error;
	int status;
	if (msg_purge_serve_params(request, bytes, &params) < 0)
		return;
	struct trace trace;
	struct trace_span *span = trace_span_enter(params.trace, &trace, SPAN_LITERAL("purge"));
	trace_span_text(span, "rpc.method", "purge");
	trace_span_str(span, "gateway.purge.scope", params.scope);
	const struct rpc_peer *peer = rpc_request_peer(request);
	if (!access_by_rpc(local->parts.conf, peer, params.token)) {
		log_fields(LOG_LEVEL_WARN, TRACE_TEXT(&trace), "purge refused: not the token",
			LOG_STR("client", "unix"), LOG_INT("uid", peer->uid));
		stats_refused(metrics, STATS_FORBIDDEN);
		reply_error(request, 403, "purging needs the token");
	} else {
		struct purge *purge = purge_from_params(
			&params, loop_wall_ms(daemon_loop(local->parts.daemon)), &status, &error);
		if (purge) {
			purge->trace = trace;
			purge->has_trace = true;
			begin(local, request, purge, &span);
		} else {
			stats_refused(metrics, STATS_BAD);
			reply_error(request, status, error);
		}
		purge_unref(&purge);
	}
	trace_span_end(&span);
	msg_purge_params_free(&params);
}

struct local *local_new(const struct local_parts *parts)
{
	struct local *local = calloc(1, sizeof *local);
	if (!local)
		return NULL;
	local->parts = *parts;
	local->methods[0] = (struct rpc_method){"purge", serve_purge, local};
	return local;
}

const struct rpc_method *local_methods(const struct local *local)
{
	return local->methods;
}

void local_free(struct local **local)
{
	free(*local);
	*local = NULL;
}
