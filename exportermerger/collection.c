#include "exportermerger/collection.h"

#include <stdlib.h>

#include "common/log.h"
#include "common/loop.h"
#include "exportermerger/page_parser.h"

#define OWN_NAME       "exportermerger"
#define MIN_FRESH      4  /* scrapes that may still turn out to be quick */
#define FRESH_MS       50 /* after that they do not count */
#define START_SHARE    4  /* all are asked in this part of the time, if none is quick */
#define MAX_OWN_BYTES  (16u << 20)
#define MIN_TIMEOUT_MS 10

struct asking {
	struct collection *collection;
	struct scrape *scrape;
	size_t index; /* of the target */
	bool fresh, done;
};

struct collection {
	struct collection_options options;
	struct asking *asking;
	struct page_parser *parser;
	struct page **pages; /* one a target, and the merger's own */
	size_t own;          /* index of the latter */
	size_t n_started, n_done, n_fresh, max_fresh;
	uint64_t deadline_us;
	struct timer *tick, *deadline;
	struct deferred complete;
	bool completed;
	void (*on_done)(void *arg);
	void *arg;
};

static size_t page_index(const struct collection *c, size_t target)
{
	return target + (target >= c->own);
}

const char *collection_name(const struct collection *c, size_t page)
{
	return page == c->own ? OWN_NAME : c->options.targets->items[page - (page > c->own)].name;
}

bool collection_is_own(const struct collection *c, size_t page)
{
	return page == c->own || c->options.targets->items[page - (page > c->own)].socket;
}

struct page *const *collection_pages(const struct collection *c, size_t *count)
{
	*count = c->options.targets->count + 1;
	return c->pages;
}

/* ---- the end ---- */

static struct page *read_own_page(struct collection *c)
{
	struct buf text = BUF_INIT(MAX_OWN_BYTES);
	struct page_options options = {
		.format = PAGE_TEXT, .source = SPAN_LITERAL(OWN_NAME), .source_is_default = true};
	stats_write_text(c->options.stats, &text);
	struct page *page = NULL;
	if (!buf_failed(&text)) {
		page_parser_start(c->parser, &options);
		page_parser_feed(c->parser, (struct span){(const char *)text.data, text.len});
		page = page_parser_finish(c->parser);
		if (!page)
			log_error("own page: line %llu: %s",
				(unsigned long long)page_parser_error(c->parser)->line,
				page_parser_error(c->parser)->reason);
	}
	page_parser_free(&c->parser); /* it is large */
	buf_free(&text);
	return page;
}

static void complete(void *arg)
{
	struct collection *c = arg;
	c->completed = true;
	timer_disarm(c->tick);
	timer_disarm(c->deadline);
	c->pages[c->own] = read_own_page(c);
	c->on_done(c->arg);
}

static void settle(struct asking *asking)
{
	struct collection *c = asking->collection;
	asking->done = true;
	c->n_fresh -= asking->fresh;
	asking->fresh = false;
	if (++c->n_done == c->options.targets->count)
		loop_defer(c->options.loop, &c->complete);
}

static void note_down(
	struct asking *asking, double seconds, enum stats_failure why, const char *detail)
{
	struct collection *c = asking->collection;
	const char *name = c->options.targets->items[asking->index].name;
	/* Once; what goes on failing is in the counters. */
	bool news = stats_target_down(c->options.stats, name, seconds, why);
	log_fields(news ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG, NULL, "target left out",
		LOG_STR("merger_url", name), LOG_STR("reason", stats_failure_names[why]),
		LOG_STR("detail", detail));
	settle(asking);
}

static void start_some(struct collection *c);

static void on_scraped(const struct scrape_result *result, void *arg)
{
	struct asking *asking = arg;
	struct collection *c = asking->collection;
	asking->scrape = NULL;
	if (!result->page) {
		note_down(asking, result->seconds, result->why, result->detail);
	} else {
		const char *name = c->options.targets->items[asking->index].name;
		c->pages[page_index(c, asking->index)] = result->page;
		stats_target_up(
			c->options.stats, name, result->seconds, result->bytes, result->page);
		stats_conflicts(c->options.stats, name, result->page->conflicts);
		settle(asking);
	}
	start_some(c);
}

/* ---- the start ---- */

static uint64_t left_ms(const struct collection *c)
{
	uint64_t now = loop_now_us(c->options.loop);
	return now < c->deadline_us ? (c->deadline_us - now) / 1000 : 0;
}

static void start_one(struct collection *c)
{
	struct asking *asking = &c->asking[c->n_started++];
	uint64_t left = left_ms(c);
	if (c->options.pod_only && !c->options.targets->items[asking->index].socket) {
		settle(asking);
		return;
	}
	struct scrape_options options = {
		.loop = c->options.loop,
		.client = c->options.client,
		.parser = c->parser,
		.target = &c->options.targets->items[asking->index],
		.timeout_ms = c->options.target_timeout_ms,
		.max_body_bytes = c->options.max_body_bytes,
	};
	if (options.timeout_ms > left)
		options.timeout_ms = left > MIN_TIMEOUT_MS ? (uint32_t)left : MIN_TIMEOUT_MS;
	asking->scrape = scrape_start(&options, on_scraped, asking);
	if (!asking->scrape) {
		note_down(asking, 0, STATS_RESOURCES, "out of memory");
		return;
	}
	asking->fresh = true;
	c->n_fresh++;
}

static void start_some(struct collection *c)
{
	while (c->n_started < c->options.targets->count && c->n_fresh < c->max_fresh)
		start_one(c);
}

static void on_tick(void *arg)
{
	struct collection *c = arg;
	for (size_t i = 0; i < c->n_started; i++)
		c->asking[i].fresh = false;
	c->n_fresh = 0;
	start_some(c);
	if (c->n_started < c->options.targets->count)
		timer_arm(c->tick, FRESH_MS);
}

static void on_deadline(void *arg)
{
	struct collection *c = arg;
	c->n_started = c->options.targets->count;
	for (size_t i = 0; i < c->n_started; i++) {
		if (c->asking[i].done)
			continue;
		scrape_cancel(&c->asking[i].scrape);
		note_down(&c->asking[i], c->options.timeout_ms / 1e3, STATS_TIMEOUT,
			"the page was due");
	}
}

/* Few, so that the pages on their way are few; but those that hang must not keep the others from
 * being asked in time. */
static size_t fresh_of(size_t n_targets, uint32_t timeout_ms)
{
	size_t n = n_targets * FRESH_MS * START_SHARE / (timeout_ms ? timeout_ms : 1) + 1;
	return n < MIN_FRESH ? MIN_FRESH : n;
}

struct collection *collection_start(
	const struct collection_options *options, void (*on_done)(void *arg), void *arg)
{
	size_t n = options->targets->count;
	struct collection *c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	c->options = *options;
	targets_ref(options->targets);
	c->on_done = on_done;
	c->arg = arg;
	c->max_fresh = fresh_of(n, options->timeout_ms);
	c->deadline_us = loop_now_us(options->loop) + (uint64_t)options->timeout_ms * 1000;
	deferred_init(&c->complete, complete, c);
	while (c->own < n && strcmp(options->targets->items[c->own].name, OWN_NAME) < 0)
		c->own++;
	c->asking = calloc(n + 1, sizeof *c->asking);
	c->pages = calloc(n + 1, sizeof(struct page *));
	c->parser = page_parser_new();
	c->tick = timer_new(options->loop, on_tick, c);
	c->deadline = timer_new(options->loop, on_deadline, c);
	if (!c->asking || !c->pages || !c->parser || !c->tick || !c->deadline) {
		collection_free(&c);
		return NULL;
	}
	for (size_t i = 0; i < n; i++)
		c->asking[i] = (struct asking){.collection = c, .index = i};
	timer_arm(c->deadline, options->timeout_ms);
	if (n > c->max_fresh)
		timer_arm(c->tick, FRESH_MS);
	start_some(c);
	if (n == 0)
		loop_defer(options->loop, &c->complete);
	return c;
}

void collection_free(struct collection **collection)
{
	struct collection *c = *collection;
	if (!c)
		return;
	loop_defer_cancel(c->options.loop, &c->complete);
	timer_free(&c->tick);
	timer_free(&c->deadline);
	for (size_t i = 0; i <= c->options.targets->count; i++) {
		if (c->asking)
			scrape_cancel(&c->asking[i].scrape);
		if (c->pages)
			page_free(&c->pages[i]);
	}
	page_parser_free(&c->parser);
	free(c->asking);
	free(c->pages);
	targets_unref(&c->options.targets);
	free(c);
	*collection = NULL;
}
