#ifndef EXPORTERMERGER_PLAN_H
#define EXPORTERMERGER_PLAN_H

/*
 * What a merged page has, in its order: families by name, each with the pages that give to it, by
 * merger_url (the order of the pages given), whoever answered first. Deciding it is where targets
 * meet:
 *
 * | conflict | rule |
 * | --- | --- |
 * | one name with two types | the family's samples all stay, with the type unknown (untyped) |
 * | names that clash, e.g. a gauge a_count beside a summary a | the same, for both families |
 * | two HELP texts or units | the first page's that has one |
 *
 * A family of type unknown stands under its samples' full names: a histogram h becomes h_bucket,
 * h_sum and h_count.
 *
 * | from | to classic text | to OpenMetrics |
 * | --- | --- | --- |
 * | counter a_total | counter a_total | counter a |
 * | counter without _total (classic) | as it is | unknown, so that the name stays |
 * | _created | a gauge of its own | a sample of its family; from classic text, a gauge a_created is
 * taken for one | | unknown | untyped | unknown | | info | gauge a_info | info a | | stateset |
 * gauge | stateset | | gaugehistogram | histogram with its buckets; gauges _gsum and _gcount |
 * gaugehistogram | | unit | left out | kept | | exemplar | left out | kept | | timestamp | whole
 * milliseconds | seconds | | classic samples that OpenMetrics forbids (NaN counter, histogram
 * without +Inf, ...) | as they are | unknown | | value beyond a double's range (OpenMetrics) |
 * +Inf, -Inf | +Inf, -Inf |
 */
#include "exportermerger/page.h"

struct plan_source {
	struct span name; /* of the family on the merged page */
	const char *type; /* the format's word; NULL: unknown */
	unsigned parts;   /* which samples stand here */
	uint32_t page;
	const struct page_family *family;
};
struct plan {
	struct page *const *pages; /* borrowed */
	size_t n_pages;
	bool openmetrics;
	struct plan_source *sources; /* by name, then by page: equal names are one family */
	size_t n_sources;
	struct text_store *text;
};

/* pages may hold NULLs, and must outlive the plan. conflicts (may be NULL): for each page, how
 * often its families had PAGE_CONFLICT_TYPE and PAGE_CONFLICT_CLASH is added to its counts. NULL
 * when out of memory. */
struct plan *plan_new(struct page *const *pages, size_t n_pages, bool openmetrics,
	uint32_t (*conflicts)[PAGE_CONFLICTS]);
void plan_free(struct plan **plan);

#endif
