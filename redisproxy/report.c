#include "redisproxy/report.h"

#include "common/buf.h"
#include "common/http_server.h"
#include "common/slice.h"
#include "redisproxy/hotkeys.h"
#include "redisproxy/proxy.h"
#include "redisproxy/slowlog.h"

#define MAX_REPORT_BYTES (16u << 20)

static void respond(struct http_exchange *exchange, int status, struct slice body)
{
	struct buf lines = BUF_INIT(256);

	http_header_add(&lines, "Content-Type", SPAN_LITERAL("application/json"));
	http_header_add(&lines, "Cache-Control", SPAN_LITERAL("no-store"));
	if (status == 405)
		http_header_add(&lines, "Allow", SPAN_LITERAL("GET, HEAD"));
	http_exchange_respond(exchange, status,
		(struct span){(const char *)lines.data, buf_failed(&lines) ? 0 : lines.len}, &body,
		1);
	buf_free(&lines);
}

bool report_serve(struct proxy *proxy, struct http_exchange *exchange)
{
	struct span path = http_exchange_path(exchange), method = http_exchange_method(exchange);
	bool slow = span_equal_str(path, "/slowlog"), hot = span_equal_str(path, "/hotkeys");
	const struct stats *stats = &proxy->stats;
	struct buf text = BUF_INIT(MAX_REPORT_BYTES);

	if (!slow && !hot)
		return false;
	if (!span_equal_str(method, "GET") && !span_equal_str(method, "HEAD")) {
		respond(exchange, 405, slice_static("{\"error\": \"method not allowed\"}\n"));
		return true;
	}
	if (slow ? !stats->slowlog : !stats->hotkeys) {
		respond(exchange, 404, slice_static("{\"error\": \"switched off\"}\n"));
		return true;
	}
	if (slow)
		slowlog_write_json(stats->slowlog, &text);
	else
		hotkeys_write_json(stats->hotkeys, &text);
	if (buf_failed(&text)) {
		buf_free(&text);
		respond(exchange, 500, slice_static("{\"error\": \"out of memory\"}\n"));
		return true;
	}
	size_t len;
	void *data = buf_take(&text, &len);

	respond(exchange, 200, slice_malloced(data, len));
	return true;
}
