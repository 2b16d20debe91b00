/* cachectl stats: what the cache saved, from the metrics of one or more gatewayd. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/http_client.h"
#include "common/json.h"
#include "common/loop.h"
#include "gatewayd/ctl/ctl.h"

#define MAX_MODELS     256
#define PAGE_MAX_BYTES (16u << 20)
#define TIMEOUT_MS     10000

struct model {
	char name[128];
	double processed, saved, paid, dollars;
};

struct stats {
	struct loop *loop;
	bool ready, failed;
	double hits, partial, misses, coalesced, errors;
	double memory, store, bought, joined;
	struct model models[MAX_MODELS];
	size_t n_models;
};

static struct model *model_of(struct stats *stats, const char *name)
{
	for (size_t i = 0; i < stats->n_models; i++)
		if (strcmp(stats->models[i].name, name) == 0)
			return &stats->models[i];
	if (stats->n_models == MAX_MODELS)
		return &stats->models[MAX_MODELS - 1];
	struct model *model = &stats->models[stats->n_models++];
	snprintf(model->name, sizeof model->name, "%s", name);
	return model;
}

/* The value of a label, escapes kept; "" when it is not there. */
static void label(const char *line, const char *name, char out[128])
{
	char wanted[64];
	out[0] = 0;
	snprintf(wanted, sizeof wanted, "%s=\"", name);
	const char *at = strstr(line, wanted);
	if (!at)
		return;
	at += strlen(wanted);
	size_t n = 0;
	while (*at && *at != '"' && n < 127) {
		if (*at == '\\' && at[1])
			at++;
		out[n++] = *at++;
	}
	out[n] = 0;
}

static bool is_family(const char *line, const char *name)
{
	size_t len = strlen(name);
	return strncmp(line, name, len) == 0 && (line[len] == '{' || line[len] == ' ');
}

static void take_line(struct stats *stats, const char *line)
{
	char text[128];
	const char *space = strrchr(line, ' ');
	if (line[0] == '#' || !space)
		return;
	double value = strtod(space + 1, NULL);
	if (is_family(line, "gatewayd_requests_total")) {
		label(line, "result", text);
		double *to = strcmp(text, "hit") == 0         ? &stats->hits
			     : strcmp(text, "partial") == 0   ? &stats->partial
			     : strcmp(text, "miss") == 0      ? &stats->misses
			     : strcmp(text, "coalesced") == 0 ? &stats->coalesced
							      : &stats->errors;
		*to += value;
	} else if (is_family(line, "gatewayd_elements_total")) {
		label(line, "source", text);
		double *to = strcmp(text, "memory") == 0   ? &stats->memory
			     : strcmp(text, "store") == 0  ? &stats->store
			     : strcmp(text, "bought") == 0 ? &stats->bought
							   : &stats->joined;
		*to += value;
	} else {
		label(line, "model", text);
		if (is_family(line, "processed_tokens_total"))
			model_of(stats, text)->processed += value;
		else if (is_family(line, "saved_tokens_total"))
			model_of(stats, text)->saved += value;
		else if (is_family(line, "saved_dollars_total"))
			model_of(stats, text)->dollars += value;
		else if (is_family(line, "openai_tokens_used_total"))
			model_of(stats, text)->paid += value;
	}
}

static void on_page(struct http_call *call, const struct http_call_result *result, void *arg)
{
	struct stats *stats = arg;
	(void)call;
	stats->ready = true;
	stats->failed = result->outcome != HTTP_CALL_OK || result->status != 200;
	if (result->outcome != HTTP_CALL_OK)
		fprintf(stderr, "%s\n", result->detail);
	else if (stats->failed)
		fprintf(stderr, "status %d\n", result->status);
	if (!stats->failed && result->body->len) {
		buf_append_char(result->body, 0);
		char *rest = (char *)result->body->data, *line;
		while ((line = strsep(&rest, "\n")))
			take_line(stats, line);
	}
	loop_stop(stats->loop);
}

static int read_page(struct stats *stats, struct http_client *client, const char *base)
{
	char url[1024];
	snprintf(url, sizeof url, "%s/metrics", base);
	struct http_call_options options = {.method = "GET",
		.url = url,
		.timeout_ms = TIMEOUT_MS,
		.max_response_bytes = PAGE_MAX_BYTES};
	stats->ready = false;
	if (!http_client_call(client, &options, on_page, stats))
		return -1;
	while (!stats->ready)
		loop_run(stats->loop);
	if (stats->failed)
		fprintf(stderr, "cachectl: %s cannot be read\n", url);
	return stats->failed ? -1 : 0;
}

static double percent(double part, double whole)
{
	return whole > 0 ? 100 * part / whole : 0;
}

static void print_people(const struct stats *stats)
{
	double elements = stats->memory + stats->store + stats->bought + stats->joined;
	double requests = stats->hits + stats->partial + stats->misses + stats->coalesced +
			  stats->errors;
	char a[32], b[32], c[32];
	ctl_format_count((uint64_t)requests, a);
	printf("Requests    %s: %.1f %% hit, %.1f %% partial, %.1f %% miss, %.1f %% coalesced, "
	       "%.1f %% errors\n",
		a, percent(stats->hits, requests), percent(stats->partial, requests),
		percent(stats->misses, requests), percent(stats->coalesced, requests),
		percent(stats->errors, requests));
	ctl_format_count((uint64_t)elements, a);
	printf("Embeddings  %s: %.1f %% from memory, %.1f %% from the store, %.1f %% bought, %.1f "
	       "%% shared\n\n",
		a, percent(stats->memory, elements), percent(stats->store, elements),
		percent(stats->bought, elements), percent(stats->joined, elements));
	printf("%-32s %16s %16s %16s %8s %12s\n", "MODEL", "TOKENS", "PAID", "SAVED", "",
		"DOLLARS");
	double dollars = 0;
	for (size_t i = 0; i < stats->n_models; i++) {
		const struct model *m = &stats->models[i];
		ctl_format_count((uint64_t)m->processed, a);
		ctl_format_count((uint64_t)m->paid, b);
		ctl_format_count((uint64_t)m->saved, c);
		printf("%-32s %16s %16s %16s %7.1f%% %12.4f\n", m->name, a, b, c,
			percent(m->saved, m->processed), m->dollars);
		dollars += m->dollars;
	}
	printf("\nSaved: $%.4f\n", dollars);
}

static void print_json(const struct stats *stats)
{
	struct buf out = BUF_INIT(1 << 20);
	buf_printf(&out,
		"{\"requests\":{\"hit\":%.0f,\"partial\":%.0f,\"miss\":%.0f,\"coalesced\":%.0f,"
		"\"error\":%.0f},\"embeddings\":{\"memory\":%.0f,\"store\":%.0f,\"bought\":%.0f,"
		"\"joined\":%.0f},\"models\":[",
		stats->hits, stats->partial, stats->misses, stats->coalesced, stats->errors,
		stats->memory, stats->store, stats->bought, stats->joined);
	for (size_t i = 0; i < stats->n_models; i++) {
		const struct model *m = &stats->models[i];
		buf_append_str(&out, i ? ",{\"model\":" : "{\"model\":");
		json_append_string(&out, span_of(m->name));
		buf_printf(&out,
			",\"tokens\":%.0f,\"paid_tokens\":%.0f,\"saved_tokens\":%.0f,"
			"\"saved_dollars\":%.9g}",
			m->processed, m->paid, m->saved, m->dollars);
	}
	buf_append_str(&out, "]}\n");
	fwrite(out.data, 1, out.len, stdout);
	buf_free(&out);
}

enum ctl_exit ctl_stats(const struct ctl_options *options)
{
	struct stats *stats = calloc(1, sizeof *stats);
	char *urls = strdup(options->url), *rest = urls, *url;
	enum ctl_exit result = CTL_OK;
	if (!stats || !urls) {
		free(stats);
		free(urls);
		return CTL_PROBLEMS;
	}
	stats->loop = loop_new();
	struct http_client *client = http_client_new(stats->loop, &http_client_defaults);
	while (client && (url = strsep(&rest, ",")))
		if (read_page(stats, client, url) < 0)
			result = CTL_UNAVAILABLE;
	if (result == CTL_OK && options->json)
		print_json(stats);
	else if (result == CTL_OK)
		print_people(stats);
	http_client_free(&client);
	loop_free(&stats->loop);
	free(stats);
	free(urls);
	return result;
}
