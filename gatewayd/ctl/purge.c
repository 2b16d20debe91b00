/* cachectl purge: asks a broadcasterd over HTTP, from wherever one is, and shows what each target
 * said. */
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/http_client.h"
#include "common/json_span.h"
#include "common/loop.h"
#include "common/purge_command.h"
#include "common/terminal.h"
#include "gatewayd/ctl/ctl.h"

#define DEFAULT_URL      "http://127.0.0.1:8082"
#define TIMEOUT_MS       60000
#define ANSWER_MAX_BYTES (4u << 20)
#define MAX_TARGETS      8192
#define MAX_FIELDS       4

struct purge {
	struct loop *loop;
	struct purge_command command;
	const char *url;
	bool json, color, answered;
	bool by_gateway; /* not by a broadcaster */
	enum ctl_exit exit;
};

static void print_help(void)
{
	printf("Usage: cachectl purge [--store] PATH | WHAT\n\n"
	       "Takes answers out of the caches of all gatewayd of all pods: of memory, unless "
	       "--store.\n\n%s"
	       "  --url=URL        the broadcaster (BROADCASTERD_URL, or " DEFAULT_URL ")\n"
	       "  --json           for programs\n\n"
	       "Exit codes: 0 every target has purged, 1 not all, 64 usage, 69 no broadcaster.\n",
		purge_command_help);
}

static enum ctl_exit usage(const char *error)
{
	fprintf(stderr, "cachectl: %s; see cachectl purge --help\n", error);
	return CTL_USAGE;
}

/* ---- the answer ---- */

static void read_target(
	const struct json_span_doc *doc, uint32_t node, struct msg_purge_target *target)
{
	int64_t status = 0;
	uint32_t pod = json_span_member(doc, node, SPAN_LITERAL("pod"));
	uint32_t success = json_span_member(doc, node, SPAN_LITERAL("success"));
	uint32_t error = json_span_member(doc, node, SPAN_LITERAL("error"));
	uint32_t number = json_span_member(doc, node, SPAN_LITERAL("status"));
	*target = (struct msg_purge_target){0};
	if (number != JSON_SPAN_NONE && json_span_int64(doc, number, &status) == 0 && status > 0)
		target->status = (uint64_t)status;
	target->success = success != JSON_SPAN_NONE &&
			  json_span_type(doc, success) == JSON_SPAN_TRUE;
	/* With escapes they are shown as they came. */
	if (pod != JSON_SPAN_NONE && !json_span_borrow_string(doc, pod, &target->pod))
		target->pod = json_span_text(doc, pod);
	if (error != JSON_SPAN_NONE && json_span_type(doc, error) == JSON_SPAN_STRING &&
		!json_span_borrow_string(doc, error, &target->error))
		target->error = json_span_text(doc, error);
}

static void read_results(
	struct purge *p, const struct json_span_doc *doc, struct msg_purge_result *result)
{
	uint32_t list = json_span_member(doc, json_span_root(), SPAN_LITERAL("results"));
	uint32_t error = json_span_member(doc, json_span_root(), SPAN_LITERAL("error"));
	/* hashd and gatewayd answer {"error":{"message":…}}. */
	p->by_gateway = error != JSON_SPAN_NONE && json_span_type(doc, error) == JSON_SPAN_OBJECT;
	if (p->by_gateway)
		error = json_span_member(doc, error, SPAN_LITERAL("message"));
	if (error != JSON_SPAN_NONE && !json_span_borrow_string(doc, error, &result->error))
		result->error = json_span_text(doc, error);
	uint32_t count = list == JSON_SPAN_NONE ? 0 : json_span_count(doc, list);
	if (!count || count > MAX_TARGETS || json_span_type(doc, list) != JSON_SPAN_ARRAY)
		return;
	result->results.items = calloc(count, sizeof *result->results.items);
	if (!result->results.items)
		return;
	for (uint32_t t = json_span_first(doc, list); t != JSON_SPAN_NONE;
		t = json_span_next(doc, list, t))
		read_target(doc, t, &result->results.items[result->results.count++]);
}

static enum ctl_exit show(const struct purge *p, const struct msg_purge_result *result)
{
	struct buf out = BUF_INIT(ANSWER_MAX_BYTES);
	if (p->json)
		purge_report_write_json(result, true, &out);
	else if (result->results.count)
		purge_report_write(result, p->color, &out);
	if (out.len)
		fwrite(out.data, 1, out.len, stdout);
	buf_free(&out);
	if (result->results.count)
		return result->status == 200 ? CTL_OK : CTL_PROBLEMS;
	fprintf(stderr, "cachectl: %.*s\n",
		SPAN_ARG(result->error.len ? result->error
					   : SPAN_LITERAL("that is no purge broadcaster")));
	if (p->by_gateway)
		fprintf(stderr,
			"  that is no broadcaster but a gateway, which purges its own pod alone: name the "
			"broadcaster (--url),\n  or a file with the gateway's PURGE_TOKEN (--token-file)\n");
	else if (result->status == 403)
		fprintf(stderr,
			"  set " PURGE_COMMAND_TOKEN_ENV ", or name a file: --token-file\n");
	return result->status == 400 ? CTL_USAGE : CTL_PROBLEMS;
}

static void on_answer(struct http_call *call, const struct http_call_result *answer, void *arg)
{
	struct purge *p = arg;
	struct msg_purge_result result = {.status = (uint64_t)answer->status};
	struct span text = {(const char *)answer->body->data, answer->body->len};
	struct span purged = http_call_header(call, "x-purged");
	for (size_t i = 0; i < purged.len && i < 18; i++)
		result.purged = result.purged * 10 + (uint64_t)(purged.data[i] - '0') % 10;
	p->answered = true;
	loop_stop(p->loop);
	if (answer->outcome != HTTP_CALL_OK) {
		fprintf(stderr,
			"cachectl: %s cannot be reached: %s\n"
			"  running elsewhere? cachectl purge --url URL, or set BROADCASTERD_URL\n",
			p->url, answer->detail);
		p->exit = CTL_UNAVAILABLE;
		return;
	}
	struct json_span_doc *doc = text.len ? json_span_new(text, NULL) : NULL;
	if (doc && json_span_step(doc, SIZE_MAX) == JSON_SPAN_DONE)
		read_results(p, doc, &result);
	p->exit = show(p, &result);
	free(result.results.items);
	json_span_free(&doc);
}

/* ---- the question ---- */

/* "Name: value" with the words of the values between blanks; freed by free(). */
static char *field(const char *name, const struct msg_strs *values)
{
	struct buf text = BUF_INIT(64u << 10);
	buf_printf(&text, "%s:", name);
	for (size_t i = 0; i < values->count; i++)
		buf_printf(&text, " %.*s", SPAN_ARG(values->items[i]));
	buf_append_char(&text, '\0');
	size_t len;
	char *line = buf_failed(&text) ? NULL : buf_take(&text, &len);
	buf_free(&text);
	return line;
}

static int ask(struct purge *p, struct http_client *client)
{
	static const char *const names[][2] = {
		{"tag", "Surrogate-Key"}, {"body_hash", "X-Body-Hash"}, {"key", "X-Purge-Key"}};
	const struct msg_purge_params *params = &p->command.params;
	bool is_path = span_equal_str(params->scope, "path");
	struct span yes = SPAN_LITERAL("true"), bearer[2] = {SPAN_LITERAL("Bearer"), params->token};
	char *fields[MAX_FIELDS + 1] = {0}, *url = NULL;
	size_t n = 0;
	if (span_equal_str(params->scope, "all"))
		fields[n++] = field("X-Purge-All", &(struct msg_strs){&yes, 1});
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (span_equal_str(params->scope, names[i][0]))
			fields[n++] = field(names[i][1], &params->values);
	if (params->store)
		fields[n++] = field("X-Purge-Store", &(struct msg_strs){&yes, 1});
	if (params->token.len)
		fields[n++] = field("Authorization", &(struct msg_strs){bearer, 2});
	if (asprintf(&url, "%.*s%s", ctl_url_len(p->url), p->url,
		    is_path ? params->values.items[0].data : "/") < 0)
		url = NULL;
	struct http_call_options options = {.method = "PURGE",
		.url = url,
		.headers = (const char *const *)fields,
		.timeout_ms = TIMEOUT_MS,
		.max_response_bytes = ANSWER_MAX_BYTES};
	bool ok = url && http_client_call(client, &options, on_answer, p);
	for (size_t i = 0; i < n; i++)
		free(fields[i]);
	free(url);
	return ok ? 0 : -1;
}

static enum ctl_exit run(struct purge *p)
{
	struct http_client *client = NULL;
	p->exit = CTL_PROBLEMS;
	p->loop = loop_new();
	if (p->loop)
		client = http_client_new(p->loop, &http_client_defaults);
	if (client && ask(p, client) == 0)
		while (!p->answered)
			loop_run(p->loop);
	else
		fprintf(stderr, "cachectl: out of memory\n");
	http_client_free(&client);
	loop_free(&p->loop);
	return p->exit;
}

static const struct option long_options[] = {{"all", no_argument, NULL, PURGE_OPTION_ALL},
	{"tag", required_argument, NULL, PURGE_OPTION_TAG},
	{"model", required_argument, NULL, PURGE_OPTION_MODEL},
	{"body-hash", required_argument, NULL, PURGE_OPTION_BODY_HASH},
	{"key", required_argument, NULL, PURGE_OPTION_KEY},
	{"store", no_argument, NULL, PURGE_OPTION_STORE},
	{"token-file", required_argument, NULL, PURGE_OPTION_TOKEN_FILE},
	{"url", required_argument, NULL, 'u'}, {"json", no_argument, NULL, 'j'},
	{"help", no_argument, NULL, 'h'}, {0}};

enum ctl_exit ctl_purge(int argc, char **argv)
{
	const char *url = getenv("BROADCASTERD_URL"), *error = NULL;
	struct purge p = {.url = url && *url ? url : DEFAULT_URL,
		.color = terminal_wants_color(STDOUT_FILENO)};
	enum ctl_exit exit = CTL_OK;
	char text[512];
	int c;
	while (!error && (c = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
		if (c == 'u') {
			p.url = optarg;
		} else if (c == 'j') {
			p.json = true;
		} else if (c == 'h') {
			print_help();
			purge_command_free(&p.command);
			return CTL_OK;
		} else if (c == '?') {
			error = "no such option";
		} else {
			error = purge_command_option(&p.command, (enum purge_option)c, optarg);
		}
	}
	if (!error)
		error = purge_command_complete(&p.command, argv + optind, argc - optind);
	if (error) {
		exit = usage(error);
	} else if (!ctl_check_url(p.url, strlen(p.url))) {
		exit = CTL_USAGE;
	} else if ((error = purge_command_read_token(&p.command, text, sizeof text))) {
		fprintf(stderr, "cachectl: %s\n", error);
		exit = CTL_PROBLEMS;
	} else {
		exit = run(&p);
	}
	purge_command_free(&p.command);
	return exit;
}
