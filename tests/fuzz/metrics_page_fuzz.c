/*
 * A page of metrics, read as a target's: whatever is accepted is written in both formats so that
 * the strict reader accepts it; cutting it anywhere changes nothing. The first byte says how it is
 * read.
 */
#include <stdint.h>
#include <stdlib.h>

#include "exportermerger/page_parser.h"
#include "exportermerger/page_writer.h"

#define OUT_MAX (16u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct page *read_page(struct span text, const struct page_options *options, size_t cut)
{
	/* One for all, as the daemon has it: what a page leaves behind must not matter. */
	static struct page_parser *parser;
	if (!parser && !(parser = page_parser_new()))
		abort();
	page_parser_start(parser, options);
	page_parser_feed(parser, (struct span){text.data, cut});
	page_parser_feed(parser, (struct span){text.data + cut, text.len - cut});
	struct page *page = page_parser_finish(parser);
	if (!page != (page_parser_error(parser)->reason != NULL))
		abort();
	return page;
}

static void write_page(
	struct page *const *pages, bool openmetrics, bool allow_utf8, struct buf *out)
{
	struct plan *plan = plan_new(pages, 2, openmetrics, NULL);
	struct page_writer *writer = plan ? page_writer_new(plan, allow_utf8) : NULL;
	int more = writer ? 1 : -1;
	while (more > 0)
		more = page_writer_step(writer, out, out->len + 100);
	if (more < 0)
		abort();
	page_writer_free(&writer);
	plan_free(&plan);
}

static void check_written(struct page *const *pages, bool openmetrics, bool allow_utf8)
{
	struct buf out = BUF_INIT(OUT_MAX);
	write_page(pages, openmetrics, allow_utf8, &out);
	struct page_options strict = {
		.format = openmetrics ? PAGE_OPENMETRICS : PAGE_TEXT, .strict = true};
	struct span text = {out.len ? (const char *)out.data : "", out.len};
	struct page *again = read_page(text, &strict, out.len);
	if (!again)
		abort();
	page_free(&again);
	buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const struct page_label label = {
		{"zone", sizeof "zone" - 1}, {"a\\nb", sizeof "a\\nb" - 1}};
	if (len < 2)
		return 0;
	struct page_options options = {
		.format = data[0] & 1 ? PAGE_OPENMETRICS : PAGE_TEXT,
		.strict = data[0] & 2,
		.prefix = data[0] & 4 ? SPAN_LITERAL("p_") : SPAN_LITERAL(""),
		.source = SPAN_LITERAL("http://a/metrics"),
		.labels = &label,
		.n_labels = data[0] & 8 ? 1 : 0,
	};
	struct span text = {(const char *)data + 2, len - 2};
	size_t cut = text.len ? data[1] % (text.len + 1) : 0;
	struct page *pages[2] = {read_page(text, &options, text.len), NULL};
	struct page *cut_page = read_page(text, &options, cut);
	if (!pages[0] != !cut_page)
		abort();
	if (pages[0]) {
		/* The second one: another target with the same page. */
		page_free(&cut_page);
		options.source = SPAN_LITERAL("unix:b");
		options.n_labels = 0;
		pages[1] = read_page(text, &options, cut);
		check_written(pages, false, data[0] & 16);
		check_written(pages, true, data[0] & 16);
	}
	page_free(&pages[0]);
	page_free(&pages[1]);
	return 0;
}
