/*
 * The smallest daemon that uses all of common/daemon.h, for tests/common/2*-daemon*.t. Its HTTP
 * paths are buttons: /quit /drained /ready /unready /secret /state.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/daemon.h"
#include "common/health.h"
#include "common/http_server.h"
#include "common/loop.h"
#include "common/rpc.h"

struct tool_conf {
	struct daemon_conf common;
	char *listen;
	char *secret;
	char *mode;
	int64_t number;
	bool hold; /* go on draining until /drained */
};

#define AT(field) offsetof(struct tool_conf, field)
static const struct config_row rows[] = {
	{"listen", "TOOL_LISTEN", CONFIG_ADDRESS, AT(listen), .def = "127.0.0.1:0",
		.section = "Tool", .help = "HTTP address"},
	{NULL, "TOOL_SECRET", CONFIG_SECRET, AT(secret), .help = "a secret", .reloadable = true},
	{"mode", "TOOL_MODE", CONFIG_STRING, AT(mode), .help = "\"bad\" is refused"},
	{"number", "TOOL_NUMBER", CONFIG_INT, AT(number), .def = "-1", .help = "of this instance"},
	{"hold", "TOOL_HOLD", CONFIG_BOOL, AT(hold), .help = "drain until told"}, {0}};

static const struct metric_family families[] = {{.name = "tool_requests_total",
							.type = METRIC_COUNTER,
							.help = "Requests.",
							.labels = {"path"}},
	{.name = NULL}};

static const char *check(const void *arg)
{
	const struct tool_conf *conf = arg;
	return strcmp(conf->mode, "bad") == 0 ? "TOOL_MODE must not be bad" : NULL;
}

static void instance_name(const void *arg, char *text, size_t size)
{
	const struct tool_conf *conf = arg;
	if (conf->number < 0)
		snprintf(text, size, "tool");
	else
		snprintf(text, size, "tool.%d", (int)conf->number);
}

static struct tool_conf conf;
static struct daemon *tool;

static void serve(struct http_exchange *exchange, void *arg)
{
	(void)arg;
	char text[64] = "done\n";
	struct span path = http_exchange_path(exchange);
	if (health_serve(tool, exchange))
		return;
	metric_add(metric(daemon_metrics(tool), families,
			   span_equal_str(path, "/state") ? "/state" : "x"),
		1);
	if (span_equal_str(path, "/quit"))
		daemon_quit(tool, 3);
	else if (span_equal_str(path, "/drained"))
		daemon_drained(tool);
	else if (span_equal_str(path, "/ready") || span_equal_str(path, "/unready"))
		daemon_set_ready(tool, span_equal_str(path, "/ready"));
	else if (span_equal_str(path, "/secret"))
		snprintf(text, sizeof text, "%zu\n", strlen(conf.secret));
	else if (span_equal_str(path, "/state"))
		snprintf(text, sizeof text, "%s\n", daemon_state_name(tool));
	struct slice body = slice_malloced(strdup(text), strlen(text));
	http_exchange_respond(exchange, 200, (struct span){NULL, 0}, &body, 1);
}

static void on_reload(void *arg)
{
	(void)arg;
	log_info("reloaded: the secret has %zu bytes", strlen(conf.secret));
}

static void on_lameduck(void *arg)
{
	(void)arg;
	log_info("quack");
}

static void on_drain(void *arg)
{
	(void)arg;
	if (!conf.hold)
		daemon_drained(tool);
}

static void describe_open(char *text, size_t size, void *arg)
{
	(void)arg;
	snprintf(text, size, "a held drain");
}

static void serve_echo(struct rpc_request *request, struct span params, void *arg)
{
	(void)arg;
	rpc_request_reply(request, params);
}

int main(int argc, char **argv)
{
	static const struct daemon_spec spec = {.name = "tool",
		.summary = "does nothing, in the way of a daemon",
		.env_prefix = "TOOL_",
		.rows = rows,
		.conf_size = sizeof conf,
		.check = check,
		.instance_name = instance_name,
		.families = families};
	static const struct daemon_events events = {
		on_reload, on_lameduck, on_drain, describe_open};
	static const struct rpc_method methods[] = {{"echo", serve_echo, NULL}, {0}};
	static const struct http_server_events http_events = {.on_request = serve};

	tool = daemon_start(&spec, &conf, argc, argv);
	daemon_set_events(tool, &events, NULL);
	int fd = daemon_listen(tool, "http", conf.listen);
	struct http_server *http = http_server_new(
		daemon_loop(tool), &http_server_defaults, &http_events, NULL);
	if (http_server_listen(http, fd) < 0)
		die(1, "listen");
	daemon_serve_rpc(tool, methods);
	int code = daemon_run(tool);
	http_server_free(&http);
	daemon_stop(&tool);
	return code;
}
