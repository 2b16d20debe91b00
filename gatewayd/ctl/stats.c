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

/* As gatewayd's metrics name them, and as people read them. */
struct kind {
	const char *name, *words;
};
static const struct kind results[] = {{"hit", "hit"}, {"stale", "stale"}, {"partial", "partial"},
	{"miss", "miss"}, {"coalesced", "coalesced"}, {"pass", "passed on"}, {"error", "errors"},
	{"gone", "client gone"}};
static const struct kind sources[] = {{"memory", "from memory"}, {"store", "from the store"},
	{"bought", "bought"}, {"joined", "shared"}};
#define N_RESULTS (sizeof results / sizeof results[0])
#define N_SOURCES (sizeof sources / sizeof sources[0])

struct stats {
	struct loop *loop;
	bool ready, failed, is_gatewayd;
	double requests[N_RESULTS];
	double elements[N_SOURCES];
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

static void add(const struct kind *kinds, double *sums, size_t n, const char *name, double value)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(kinds[i].name, name) == 0)
			sums[i] += value;
}

static void take_line(struct stats *stats, const char *line)
{
	static const char family[] = "# TYPE gatewayd_requests";
	char text[128];
	const char *space = strrchr(line, ' ');
	if (strncmp(line, family, sizeof family - 1) == 0)
		stats->is_gatewayd = true;
	if (line[0] == '#' || !space)
		return;
	double value = strtod(space + 1, NULL);
	if (is_family(line, "gatewayd_requests_total")) {
		label(line, "result", text);
		add(results, stats->requests, N_RESULTS, text, value);
	} else if (is_family(line, "gatewayd_elements_total")) {
		label(line, "source", text);
		add(sources, stats->elements, N_SOURCES, text, value);
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
	snprintf(url, sizeof url, "%.*s/metrics", ctl_url_len(base), base);
	struct http_call_options options = {.method = "GET",
		.url = url,
		.timeout_ms = TIMEOUT_MS,
		.max_response_bytes = PAGE_MAX_BYTES};
	stats->ready = stats->is_gatewayd = false;
	if (!http_client_call(client, &options, on_page, stats))
		return -1;
	while (!stats->ready)
		loop_run(stats->loop);
	if (stats->failed)
		fprintf(stderr, "cachectl: %s cannot be read\n", url);
	else if (!stats->is_gatewayd)
		fprintf(stderr, "cachectl: %s: that is no gatewayd: it has no metrics of one\n",
			base);
	return stats->failed || !stats->is_gatewayd ? -1 : 0;
}

static double percent(double part, double whole)
{
	return whole > 0 ? 100 * part / whole : 0;
}

static void print_kinds(const char *title, const struct kind *kinds, const double *sums, size_t n)
{
	double all = 0;
	char count[32];
	for (size_t i = 0; i < n; i++)
		all += sums[i];
	ctl_format_count((uint64_t)all, count);
	printf("%-12s%s:", title, count);
	for (size_t i = 0; i < n; i++)
		printf("%s %.1f %% %s", i ? "," : "", percent(sums[i], all), kinds[i].words);
	printf("\n");
}

static void print_people(const struct stats *stats)
{
	char a[32], b[32], c[32];
	print_kinds("Requests", results, stats->requests, N_RESULTS);
	print_kinds("Embeddings", sources, stats->elements, N_SOURCES);
	printf("\n");
	printf("%-32s %16s %16s %16s %8s %12s\n", "MODEL", "TOKENS", "PAID", "SAVED", "",
		"$ SAVED");
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

static void append_kinds(struct buf *out, const struct kind *kinds, const double *sums, size_t n)
{
	for (size_t i = 0; i < n; i++)
		buf_printf(out, "%s\"%s\":%.0f", i ? "," : "{", kinds[i].name, sums[i]);
	buf_append_char(out, '}');
}

static void print_json(const struct stats *stats)
{
	struct buf out = BUF_INIT(1 << 20);
	buf_append_str(&out, "{\"requests\":");
	append_kinds(&out, results, stats->requests, N_RESULTS);
	buf_append_str(&out, ",\"embeddings\":");
	append_kinds(&out, sources, stats->elements, N_SOURCES);
	buf_append_str(&out, ",\"models\":[");
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
	for (const char *at = options->url; at; at = strchr(at, ',')) {
		at += *at == ',';
		if (!ctl_check_url(at, strcspn(at, ",")))
			result = CTL_USAGE;
	}
	if (!stats || !urls) {
		free(stats);
		free(urls);
		return CTL_PROBLEMS;
	}
	stats->loop = loop_new();
	struct http_client *client = http_client_new(stats->loop, &http_client_defaults);
	while (result != CTL_USAGE && client && (url = strsep(&rest, ",")))
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
