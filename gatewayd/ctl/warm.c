/* cachectl warm: sends the requests of a file through the gateway. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/http_client.h"
#include "common/json.h"
#include "common/json_span.h"
#include "common/loop.h"
#include "common/retry.h"
#include "gatewayd/ctl/ctl.h"
#include "gatewayd/ctl/verdict.h"

#define TIMEOUT_MS       180000
#define ATTEMPTS         8
#define RETRY_MIN_MS     250
#define RETRY_MAX_MS     20000
#define TICK_MS          100
#define ANSWER_MAX_BYTES (512u << 20)
#define SHOWN_BYTES      300

/* One of several texts that go out in one request. */
struct text {
	char *json;
	size_t len;
	uint64_t end; /* offset behind its line */
};

/*
 * waiting for an answer ──> done          429, 5xx or no answer: again after a while, then the run
 * ends before this line; at once when no other line would fare better (verdict.h). Any other
 * refusal: the line is counted and left out; of several texts, the halves are sent until the lines
 * that are refused are known: 2 log2 n requests more for one of n.
 */
struct request {
	struct warm *warm;
	uint64_t line;       /* the first one */
	uint64_t lines, end; /* how many, and the offset behind them */
	struct text *texts;  /* one for each line; NULL: a request of its own */
	struct buf body;
	struct timer *retry;
	struct backoff backoff;
	bool done;
	TAILQ_ENTRY(request) place;
	TAILQ_ENTRY(request) unsent;
};

struct warm {
	const struct ctl_options *options;
	struct loop *loop;
	struct http_client *client;
	struct ctl_progress progress;
	struct timer *tick;
	struct ctl_lines lines;
	struct span held; /* a line that was read and not yet used */
	bool has_held, at_end, stopped;
	char url[1024], authorization[4096], progress_file[4096];
	uint64_t size;
	/* Done without a gap: where a later run goes on. */
	uint64_t done_lines, done_bytes;
	TAILQ_HEAD(, request) requests; /* in the order of the file */
	TAILQ_HEAD(, request) halves;   /* those of them that wait for a free place */
	size_t n_requests;              /* under way */
	uint64_t answered, failed_lines, elements, hits, tokens, skipped;
};

/* ---- Where a later run goes on ---- */

static void save_progress(const struct warm *warm)
{
	FILE *file = fopen(warm->progress_file, "w");
	if (!file)
		return;
	fprintf(file, "%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", warm->done_lines, warm->done_bytes,
		warm->size);
	fclose(file);
}

static void load_progress(struct warm *warm)
{
	uint64_t lines, bytes, size;
	FILE *file = warm->options->restart ? NULL : fopen(warm->progress_file, "r");
	if (!file)
		return;
	int n = fscanf(file, "%" SCNu64 " %" SCNu64 " %" SCNu64, &lines, &bytes, &size);
	fclose(file);
	/* A file that has grown is the same one. */
	if (n != 3 || size > warm->size || bytes > size ||
		fseeko(warm->lines.file, (off_t)bytes, SEEK_SET))
		return;
	warm->lines.number = warm->done_lines = warm->skipped = lines;
	warm->lines.offset = warm->done_bytes = bytes;
	warm->progress.before = warm->size ? (double)bytes / (double)warm->size : 0;
}

/* ---- Requests ---- */

static struct request *request_new(struct warm *warm, uint64_t line)
{
	struct request *request = calloc(1, sizeof *request);
	if (!request)
		return NULL;
	request->warm = warm;
	request->line = line;
	buf_init(&request->body, CTL_MAX_LINE_BYTES * 2);
	backoff_init(&request->backoff, RETRY_MIN_MS, RETRY_MAX_MS, 2);
	return request;
}

static void request_free(struct request *request)
{
	for (uint64_t i = 0; request->texts && i < request->lines; i++)
		free(request->texts[i].json);
	free(request->texts);
	timer_free(&request->retry);
	buf_free(&request->body);
	free(request);
}

static void pass_done(struct warm *warm)
{
	struct request *request;
	while ((request = TAILQ_FIRST(&warm->requests)) && request->done) {
		TAILQ_REMOVE(&warm->requests, request, place);
		warm->done_lines = request->line + request->lines - 1;
		warm->done_bytes = request->end;
		request_free(request);
	}
}

static void complain(struct warm *warm, uint64_t line, uint64_t lines, const char *what)
{
	warm->failed_lines += lines;
	ctl_progress_end(&warm->progress);
	if (lines > 1)
		fprintf(stderr, "cachectl: lines %" PRIu64 " to %" PRIu64 ": %s\n", line,
			line + lines - 1, what);
	else
		fprintf(stderr, "cachectl: line %" PRIu64 ": %s\n", line, what);
}

static void count_answer(
	struct warm *warm, const struct http_call *call, const struct http_call_result *result)
{
	struct span hits = http_call_header(call, "x-cache-hits");
	struct span cache = http_call_header(call, "x-cache");
	struct json_span_doc *doc = json_span_new(
		(struct span){(char *)result->body->data, result->body->len}, NULL);
	if (hits.data) {
		char *slash, text[64];
		snprintf(text, sizeof text, "%.*s", SPAN_ARG(hits));
		warm->hits += strtoull(text, &slash, 10);
		warm->elements += *slash == '/' ? strtoull(slash + 1, NULL, 10) : 0;
	} else {
		warm->elements++;
		warm->hits += span_equal_str(cache, "HIT");
	}
	if (doc && json_span_step(doc, SIZE_MAX) == JSON_SPAN_DONE) {
		uint32_t usage = json_span_member(doc, json_span_root(), SPAN_LITERAL("usage"));
		uint32_t total = json_span_member(doc, usage, SPAN_LITERAL("total_tokens"));
		int64_t tokens;
		if (total != JSON_SPAN_NONE && json_span_int64(doc, total, &tokens) == 0 &&
			tokens > 0)
			warm->tokens += (uint64_t)tokens;
	}
	json_span_free(&doc);
	warm->answered++;
}

static int send_request(struct request *request);

static void stop(struct warm *warm)
{
	warm->stopped = true;
	loop_stop(warm->loop);
}

static void on_retry(void *arg)
{
	struct request *request = arg;
	if (send_request(request) < 0)
		stop(request->warm);
}

/* false: enough. */
static bool try_again(struct request *request, const struct http_call *call)
{
	struct warm *warm = request->warm;
	char text[64];
	if (request->backoff.attempt >= ATTEMPTS)
		return false;
	struct span after = http_call_header(call, "retry-after");
	snprintf(text, sizeof text, "%.*s", SPAN_ARG(after));
	int64_t wait_ms = after.data ? retry_after_parse_ms(
					       text, loop_wall_ms(warm->loop), RETRY_MAX_MS)
				     : -1;
	uint32_t delay_ms = backoff_next_ms(&request->backoff);
	if (wait_ms > (int64_t)delay_ms)
		delay_ms = (uint32_t)wait_ms;
	if (!request->retry)
		request->retry = timer_new(warm->loop, on_retry, request);
	if (!request->retry)
		return false;
	timer_arm(request->retry, delay_ms);
	return true;
}

static void append_model(struct buf *body, const char *model)
{
	buf_append_str(body, "{\"model\":");
	json_append_string(body, span_of(model));
	buf_append_char(body, ',');
}

static void fill_texts(struct request *request)
{
	struct buf *body = &request->body;
	buf_clear(body);
	append_model(body, request->warm->options->model);
	buf_append_str(body, "\"encoding_format\":\"base64\",\"input\":[");
	for (uint64_t i = 0; i < request->lines; i++) {
		if (i)
			buf_append_char(body, ',');
		buf_append(body, request->texts[i].json, request->texts[i].len);
	}
	buf_append_str(body, "]}");
}

/* It becomes its first half, and a request of its own the second. -1: out of memory. */
static int halve(struct request *request)
{
	struct warm *warm = request->warm;
	uint64_t first = request->lines / 2, second = request->lines - first;
	struct request *rest = request_new(warm, request->line + first);
	if (rest)
		rest->texts = malloc(second * sizeof *rest->texts);
	if (!rest || !rest->texts) {
		free(rest);
		return -1;
	}
	memcpy(rest->texts, request->texts + first, second * sizeof *rest->texts);
	rest->lines = second;
	rest->end = request->end;
	request->lines = first;
	request->end = request->texts[first - 1].end;
	fill_texts(rest);
	fill_texts(request);
	TAILQ_INSERT_AFTER(&warm->requests, request, rest, place);
	TAILQ_INSERT_HEAD(&warm->halves, rest, unsent);
	TAILQ_INSERT_HEAD(&warm->halves, request, unsent);
	return buf_failed(&request->body) || buf_failed(&rest->body) ? -1 : 0;
}

static void stop_at(
	struct request *request, const struct http_call_result *result, enum verdict verdict)
{
	const char *why = result->outcome != HTTP_CALL_OK ? result->detail
			  : verdict == VERDICT_URL
				  ? "there are no embeddings; --url names a gateway, without a path"
				  : "the gateway does not answer it";
	ctl_progress_end(&request->warm->progress);
	fprintf(stderr, "cachectl: line %" PRIu64 ": %s (status %d); stopped here\n", request->line,
		why, result->status);
	stop(request->warm);
}

static void refuse(struct request *request, const struct http_call_result *result)
{
	char what[SHOWN_BYTES + 64];
	const char *body = (const char *)result->body->data;
	size_t shown = result->body->len;
	while (shown && (shown > SHOWN_BYTES || body[shown - 1] == '\n'))
		shown--;
	snprintf(what, sizeof what, "refused with status %d: %.*s", result->status, (int)shown,
		shown ? body : "");
	complain(request->warm, request->line, request->lines, what);
}

static void on_answer(struct http_call *call, const struct http_call_result *result, void *arg)
{
	struct request *request = arg;
	struct warm *warm = request->warm;
	bool reached = result->outcome == HTTP_CALL_OK;
	enum verdict verdict = VERDICT_TRY_AGAIN;
	if (reached && result->status == 200) {
		count_answer(warm, call, result);
	} else {
		if (reached)
			verdict = verdict_of(result->status,
				(struct span){(char *)result->body->data, result->body->len});
		if (verdict == VERDICT_TRY_AGAIN && try_again(request, call))
			return;
		if (verdict == VERDICT_TEXT && request->lines > 1) {
			warm->n_requests--;
			if (halve(request) < 0)
				warm->stopped = true;
			loop_stop(warm->loop);
			return;
		}
		if (verdict != VERDICT_TEXT && verdict != VERDICT_REQUEST) {
			stop_at(request, result, verdict);
			return;
		}
		refuse(request, result);
	}
	request->done = true;
	warm->n_requests--;
	pass_done(warm);
	loop_stop(warm->loop);
}

static int send_request(struct request *request)
{
	struct warm *warm = request->warm;
	const char *headers[] = {"Content-Type: application/json",
		*warm->authorization ? warm->authorization : NULL, NULL};
	struct http_call_options options = {
		.method = "POST",
		.url = warm->url,
		.headers = headers,
		.body = {.data = request->body.data, .len_bytes = request->body.len},
		.timeout_ms = TIMEOUT_MS,
		.max_response_bytes = ANSWER_MAX_BYTES,
	};
	return http_client_call(warm->client, &options, on_answer, request) ? 0 : -1;
}

/* ---- Lines become requests ---- */

static bool next_line(struct warm *warm)
{
	if (warm->has_held)
		return true;
	warm->has_held = ctl_lines_next(&warm->lines, &warm->held);
	warm->at_end = !warm->has_held;
	return warm->has_held;
}

/* What a line is: 's' a text, 'r' a request, 'm' a request without a model, 0 neither. */
static char kind_of(struct span line)
{
	char kind = 0;
	struct json_span_doc *doc = json_span_new(line, NULL);
	if (doc && json_span_step(doc, SIZE_MAX) == JSON_SPAN_DONE) {
		uint32_t root = json_span_root();
		if (json_span_type(doc, root) == JSON_SPAN_STRING)
			kind = 's';
		else if (json_span_member(doc, root, SPAN_LITERAL("input")) != JSON_SPAN_NONE)
			kind = json_span_member(doc, root, SPAN_LITERAL("model")) != JSON_SPAN_NONE
				       ? 'r'
				       : 'm';
	}
	json_span_free(&doc);
	return kind;
}

static void use_line(struct warm *warm, struct request *request)
{
	request->lines++;
	request->end = warm->lines.offset;
	warm->has_held = false;
}

/* Texts that follow each other go out together. -1: out of memory. */
static int gather_texts(struct warm *warm, struct request *request)
{
	request->texts = calloc(warm->options->batch, sizeof *request->texts);
	if (!request->texts)
		return -1;
	for (unsigned n = 0; n < warm->options->batch && next_line(warm); n++) {
		struct text *text = &request->texts[n];
		if (n && kind_of(warm->held) != 's')
			break;
		text->json = strndup(warm->held.data, warm->held.len);
		text->len = warm->held.len;
		text->end = warm->lines.offset;
		use_line(warm, request);
		if (!text->json)
			return -1;
	}
	fill_texts(request);
	return 0;
}

/* -1: out of memory. */
static int fill_request(struct warm *warm, struct request *request)
{
	char kind = kind_of(warm->held);
	const char *model = warm->options->model;
	if ((kind == 's' || kind == 'm') && !model) {
		complain(warm, request->line, 1, "names no model: say --model");
	} else if (kind == 's') {
		return gather_texts(warm, request);
	} else if (kind == 'm') {
		const char *brace = memchr(warm->held.data, '{', warm->held.len);
		size_t skip = (size_t)(brace - warm->held.data) + 1;
		append_model(&request->body, model);
		buf_append(&request->body, warm->held.data + skip, warm->held.len - skip);
	} else if (kind == 'r') {
		buf_append(&request->body, warm->held.data, warm->held.len);
	} else if (warm->held.len) {
		complain(warm, request->line, 1,
			"neither a request with an input nor a JSON string");
	}
	use_line(warm, request);
	return 0;
}

/* -1 when out of memory. */
static int start_next(struct warm *warm)
{
	struct request *request = request_new(warm, warm->lines.number);
	if (!request)
		return -1;
	TAILQ_INSERT_TAIL(&warm->requests, request, place);
	if (fill_request(warm, request) < 0 || buf_failed(&request->body))
		return -1;
	if (!request->body.len) {
		request->done = true;
		pass_done(warm);
		return 0;
	}
	warm->n_requests++;
	return send_request(request);
}

static int start_half(struct warm *warm)
{
	struct request *request = TAILQ_FIRST(&warm->halves);
	TAILQ_REMOVE(&warm->halves, request, unsent);
	warm->n_requests++;
	return send_request(request);
}

/* ---- The run ---- */

static void draw(struct warm *warm)
{
	char text[160], count[32], tokens[32];
	double seconds = ctl_progress_seconds(&warm->progress);
	double part = warm->size ? (double)warm->done_bytes / (double)warm->size : 1;
	ctl_format_count(warm->elements, count);
	ctl_format_count(warm->tokens, tokens);
	snprintf(text, sizeof text, "%s texts  %.0f/s  %.1f%% hits  %s tokens", count,
		seconds > 0 ? (double)warm->elements / seconds : 0,
		warm->elements ? 100.0 * (double)warm->hits / (double)warm->elements : 0, tokens);
	ctl_progress_draw(&warm->progress, part, text);
}

static void on_tick(void *arg)
{
	struct warm *warm = arg;
	draw(warm);
	if (ctl_interrupted())
		loop_stop(warm->loop);
	timer_arm(warm->tick, TICK_MS);
}

static void run(struct warm *warm)
{
	uint64_t saved = 0;
	timer_arm(warm->tick, TICK_MS);
	while (!warm->stopped && !ctl_interrupted()) {
		while (warm->n_requests < warm->options->parallel && !warm->stopped) {
			bool half = !TAILQ_EMPTY(&warm->halves);
			if (!half && !next_line(warm))
				break;
			if ((half ? start_half(warm) : start_next(warm)) < 0)
				warm->stopped = true;
		}
		if (warm->at_end && !warm->n_requests)
			break;
		if (!warm->stopped)
			loop_run(warm->loop);
		if (warm->done_bytes - saved > 1 << 20) {
			saved = warm->done_bytes;
			save_progress(warm);
		}
	}
	ctl_progress_end(&warm->progress);
}

static void report(const struct warm *warm, bool complete)
{
	double seconds = ctl_progress_seconds(&warm->progress);
	char texts[32], tokens[32];
	if (warm->options->json) {
		printf("{\"complete\":%s,\"lines\":%" PRIu64 ",\"resumed_after\":%" PRIu64
		       ",\"failed_lines\":%" PRIu64 ",\"requests\":%" PRIu64 ",\"texts\":%" PRIu64
		       ",\"hits\":%" PRIu64 ",\"tokens\":%" PRIu64 ",\"seconds\":%.3f}\n",
			complete ? "true" : "false", warm->done_lines, warm->skipped,
			warm->failed_lines, warm->answered, warm->elements, warm->hits,
			warm->tokens, seconds);
		return;
	}
	ctl_format_count(warm->elements, texts);
	ctl_format_count(warm->tokens, tokens);
	printf("%s: %s texts in %.1f s (%.0f/s), %.1f %% were there already, %s tokens\n",
		complete ? "Warm" : "Stopped", texts, seconds,
		seconds > 0 ? (double)warm->elements / seconds : 0,
		warm->elements ? 100.0 * (double)warm->hits / (double)warm->elements : 0, tokens);
	if (warm->skipped)
		printf("%" PRIu64 " line%s done before (--restart begins again)\n", warm->skipped,
			warm->skipped == 1 ? " was" : "s were");
	if (warm->failed_lines)
		printf("%" PRIu64 " line%s refused\n", warm->failed_lines,
			warm->failed_lines == 1 ? " was" : "s were");
	if (!complete)
		printf("The same command goes on after line %" PRIu64 "\n", warm->done_lines);
}

static enum ctl_exit set_up(struct warm *warm, const char *path)
{
	struct stat st;
	warm->lines.file = fopen(path, "r");
	if (!warm->lines.file || fstat(fileno(warm->lines.file), &st)) {
		fprintf(stderr, "cachectl: %s: %s\n", path, strerror(errno));
		return CTL_NO_INPUT;
	}
	warm->size = (uint64_t)st.st_size;
	snprintf(warm->url, sizeof warm->url, "%.*s/v1/embeddings", ctl_url_len(warm->options->url),
		warm->options->url);
	snprintf(warm->progress_file, sizeof warm->progress_file, "%s.progress", path);
	if (warm->options->key)
		snprintf(warm->authorization, sizeof warm->authorization,
			"Authorization: Bearer %s", warm->options->key);
	load_progress(warm);
	warm->loop = loop_new();
	warm->client = warm->loop ? http_client_new(warm->loop, &http_client_defaults) : NULL;
	warm->tick = warm->loop ? timer_new(warm->loop, on_tick, warm) : NULL;
	return warm->client && warm->tick ? CTL_OK : CTL_PROBLEMS;
}

enum ctl_exit ctl_warm(const struct ctl_options *options, const char *path)
{
	if (!ctl_check_url(options->url, strlen(options->url)))
		return CTL_USAGE;
	struct warm *warm = calloc(1, sizeof *warm);
	if (!warm)
		return CTL_PROBLEMS;
	warm->options = options;
	TAILQ_INIT(&warm->requests);
	TAILQ_INIT(&warm->halves);
	ctl_progress_init(&warm->progress, options);
	ctl_catch_signals();
	enum ctl_exit result = set_up(warm, path);
	if (result == CTL_OK) {
		run(warm);
		bool complete = warm->at_end && !warm->stopped && TAILQ_EMPTY(&warm->requests);
		if (complete)
			unlink(warm->progress_file);
		else
			save_progress(warm);
		report(warm, complete);
		result = complete            ? (warm->failed_lines ? CTL_PROBLEMS : CTL_OK)
			 : ctl_interrupted() ? CTL_INTERRUPTED
					     : CTL_UNAVAILABLE;
	}
	http_client_free(&warm->client);
	struct request *request;
	while ((request = TAILQ_FIRST(&warm->requests))) {
		TAILQ_REMOVE(&warm->requests, request, place);
		request_free(request);
	}
	timer_free(&warm->tick);
	loop_free(&warm->loop);
	ctl_lines_close(&warm->lines);
	free(warm);
	return result;
}
