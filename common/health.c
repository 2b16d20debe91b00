#include "common/health.h"

#include "common/buf.h"
#include "common/daemon.h"
#include "common/http_server.h"
#include "common/metrics.h"
#include "common/slice.h"

#define MAX_PAGE_BYTES (16u << 20)

#define JSON           "application/json"
#define TEXT           "text/plain; charset=utf-8"
#define METRICS        "text/plain; version=0.0.4; charset=utf-8"

static void respond(struct http_exchange *exchange, int status, const char *type, struct slice body)
{
	struct buf lines = BUF_INIT(256);
	http_header_add(&lines, "Content-Type", span_of(type));
	/* What is true of a probe now need not be true later. */
	http_header_add(&lines, "Cache-Control", SPAN_LITERAL("no-store"));
	if (status == 405)
		http_header_add(&lines, "Allow", SPAN_LITERAL("GET, HEAD"));
	http_exchange_respond(exchange, status,
		(struct span){(const char *)lines.data, buf_failed(&lines) ? 0 : lines.len}, &body,
		1);
	buf_free(&lines);
}

static void respond_metrics(struct daemon *daemon, struct http_exchange *exchange)
{
	struct buf page = BUF_INIT(MAX_PAGE_BYTES);
	metrics_write_text(daemon_metrics(daemon), &page);
	if (buf_failed(&page)) {
		buf_free(&page);
		respond(exchange, 500, TEXT, slice_static("the page is too large\n"));
		return;
	}
	size_t len;
	void *data = buf_take(&page, &len);
	respond(exchange, 200, METRICS, slice_malloced(data, len));
}

bool health_serve(struct daemon *daemon, struct http_exchange *exchange)
{
	struct span path = http_exchange_path(exchange), method = http_exchange_method(exchange);
	bool live = span_equal_str(path, "/healthz"), ready = span_equal_str(path, "/readyz");
	if (!live && !ready && !span_equal_str(path, "/metrics"))
		return false;
	if (!span_equal_str(method, "GET") && !span_equal_str(method, "HEAD"))
		respond(exchange, 405, JSON,
			slice_static(
				"{\"error\":{\"message\":\"Only GET and HEAD are allowed on this "
				"path.\",\"type\":\"invalid_request_error\",\"param\":null,"
				"\"code\":\"method_not_allowed\"}}\n"));
	else if (live)
		respond(exchange, 200, TEXT, slice_static("ok\n"));
	else if (!ready)
		respond_metrics(daemon, exchange);
	else if (daemon_ready(daemon))
		respond(exchange, 200, TEXT, slice_static("ready\n"));
	else
		respond(exchange, 503, TEXT, slice_static("not ready\n"));
	return true;
}
