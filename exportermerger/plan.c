#include "exportermerger/plan.h"

#include <stdlib.h>

#include "exportermerger/page_private.h"
#include "exportermerger/text_store.h"

/* One family of one page, before it is decided how it is shown. */
struct ref {
	const struct page_family *family;
	uint32_t page;
	uint32_t group;
};

/* All families of one name. */
struct group {
	size_t first, n;
	bool mixed;   /* of several types */
	bool clashes; /* one of its names is another group's too */
	bool plain;   /* shown as unknown, each sample's name a family */
};

struct planning {
	struct plan *plan;
	struct ref *refs;
	size_t n_refs;
	struct group *groups;
	uint32_t n_groups;
	struct text_table names;
	size_t capacity; /* of plan->sources */
	bool failed;
};

static int compare_names(struct span a, struct span b)
{
	int order = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);
	return order ? order : a.len < b.len ? -1 : a.len > b.len;
}

static int compare_refs(const void *a_, const void *b_)
{
	const struct ref *a = a_, *b = b_;
	int order = compare_names(a->family->name, b->family->name);
	return order ? order : a->page < b->page ? -1 : a->page > b->page;
}

static void gather_refs(struct planning *p)
{
	const struct plan *plan = p->plan;
	for (size_t i = 0; i < plan->n_pages; i++)
		p->n_refs += plan->pages[i] ? plan->pages[i]->n_families : 0;
	p->refs = calloc(p->n_refs + 1, sizeof *p->refs);
	p->groups = calloc(p->n_refs + 1, sizeof *p->groups);
	p->failed = !p->refs || !p->groups;
	size_t n = 0;
	for (size_t i = 0; i < plan->n_pages && !p->failed; i++)
		for (size_t k = 0; plan->pages[i] && k < plan->pages[i]->n_families; k++)
			p->refs[n++] = (struct ref){
				.family = &plan->pages[i]->families[k], .page = (uint32_t)i};
	if (!p->failed)
		qsort(p->refs, n, sizeof *p->refs, compare_refs);
}

static void gather_groups(struct planning *p)
{
	for (size_t i = 0; i < p->n_refs; i++) {
		struct ref *ref = &p->refs[i];
		const struct page_family *family = ref->family, *before = i ? ref[-1].family : NULL;
		if (!before || !span_equal(before->name, family->name))
			p->groups[p->n_groups++] = (struct group){.first = i};
		ref->group = p->n_groups - 1;
		struct group *group = &p->groups[ref->group];
		group->n++;
		const struct page_family *first = p->refs[group->first].family;
		group->mixed |= family->type != first->type;
		group->plain |= group->mixed;
		/* What OpenMetrics would refuse under this type. */
		if (p->plan->openmetrics && !family->openmetrics_valid)
			group->plain = true;
	}
}

static struct span sample_name(
	struct planning *p, const struct page_family *family, enum page_part part)
{
	struct span base = {family->name.data, family->base_len};
	struct span suffix = span_of(page_part_suffix(family, part));
	if (part == PAGE_VALUE)
		return family->name;
	struct span name = text_store_join(p->plan->text, base, suffix, (struct span){0});
	p->failed |= !name.data;
	return name;
}

static void reserve(struct planning *p, uint32_t group, struct span name)
{
	if (p->failed)
		return;
	uint32_t other = text_table_find(&p->names, name);
	if (other == TEXT_TABLE_NONE)
		p->failed = text_table_add(&p->names, name, group) < 0;
	else if (other != group)
		p->groups[group].clashes = p->groups[other].clashes = true;
}

static void reserve_suffix(struct planning *p, const struct ref *ref, const char *suffix)
{
	struct span base = {ref->family->name.data, ref->family->base_len};
	struct span name = text_store_join(p->plan->text, base, span_of(suffix), (struct span){0});
	p->failed |= !name.data;
	reserve(p, ref->group, name);
}

/* All names that a family takes on the merged page. */
static void reserve_names(struct planning *p, const struct ref *ref)
{
	const struct page_family *f = ref->family;
	for (unsigned part = 0; part < PAGE_PARTS && !p->failed; part++)
		if (f->parts & PAGE_PART_BIT(part)) {
			struct span name = sample_name(p, f, (enum page_part)part);
			reserve(p, ref->group, name);
		}
	if (p->groups[ref->group].plain || p->failed)
		return;
	bool complex = f->type == PAGE_SUMMARY || f->type == PAGE_HISTOGRAM ||
		       f->type == PAGE_GAUGEHISTOGRAM;
	if (!p->plan->openmetrics && !complex)
		return;
	reserve_suffix(p, ref, "");
	/* A reader of classic text takes _count and _sum for the histogram's. */
	if (!p->plan->openmetrics && f->type == PAGE_GAUGEHISTOGRAM) {
		reserve_suffix(p, ref, "_sum");
		reserve_suffix(p, ref, "_count");
	}
	for (const char *const *suffix = page_type_suffixes(f->type); *suffix && !p->failed;
		suffix++)
		if (p->plan->openmetrics || strcmp(*suffix, "_created") != 0)
			reserve_suffix(p, ref, *suffix);
}

static void find_clashes(struct planning *p)
{
	p->failed |= text_table_init(&p->names) < 0;
	for (size_t i = 0; i < p->n_refs && !p->failed; i++) {
		const struct ref *ref = &p->refs[i], *first = &p->refs[p->groups[ref->group].first];
		/* The same names again, a hundred times in a fleet of equals. */
		if (ref != first && ref->family->type == first->family->type &&
			!(ref->family->parts & ~first->family->parts))
			continue;
		reserve_names(p, ref);
	}
	for (uint32_t i = 0; i < p->n_groups; i++)
		p->groups[i].plain |= p->groups[i].clashes;
}

static void count_conflicts(const struct planning *p, uint32_t (*conflicts)[PAGE_CONFLICTS])
{
	for (size_t i = 0; conflicts && i < p->n_refs; i++) {
		const struct ref *ref = &p->refs[i];
		const struct group *group = &p->groups[ref->group];
		if (group->mixed && ref->family->type != p->refs[group->first].family->type)
			conflicts[ref->page][PAGE_CONFLICT_TYPE]++;
		if (group->clashes)
			conflicts[ref->page][PAGE_CONFLICT_CLASH]++;
	}
}

/* ---- sources ---- */

static void add_source(struct planning *p, const struct ref *ref, struct span name,
	const char *type, unsigned parts)
{
	struct plan *plan = p->plan;
	if (!(ref->family->parts & parts) || p->failed)
		return;
	if (plan->n_sources == p->capacity) {
		size_t capacity = p->capacity ? 2 * p->capacity : 64;
		void *grown = reallocarray(plan->sources, capacity, sizeof *plan->sources);
		if (!grown) {
			p->failed = true;
			return;
		}
		plan->sources = grown;
		p->capacity = capacity;
	}
	plan->sources[plan->n_sources++] = (struct plan_source){
		name, type, parts, ref->page, ref->family};
}

static void add_part(
	struct planning *p, const struct ref *ref, enum page_part part, const char *type)
{
	if (ref->family->parts & PAGE_PART_BIT(part))
		add_source(p, ref, sample_name(p, ref->family, part), type, PAGE_PART_BIT(part));
}

static void add_text_sources(struct planning *p, const struct ref *ref)
{
	const unsigned all = PAGE_PART_BIT(PAGE_PARTS) - 1;
	const struct page_family *f = ref->family;
	switch (f->type) {
	case PAGE_GAUGEHISTOGRAM:
		add_source(p, ref, f->name, "histogram", PAGE_PART_BIT(PAGE_BUCKET));
		add_part(p, ref, PAGE_SUM, "gauge");
		add_part(p, ref, PAGE_COUNT, "gauge");
		return;
	case PAGE_STATESET:
	case PAGE_INFO:
		add_source(p, ref, f->name, "gauge", all);
		return;
	default:
		add_source(p, ref, f->name,
			f->type == PAGE_UNKNOWN ? NULL : page_type_name(f->type),
			all & ~PAGE_PART_BIT(PAGE_CREATED));
		add_part(p, ref, PAGE_CREATED, "gauge");
	}
}

static void add_sources(struct planning *p, const struct ref *ref)
{
	const struct page_family *f = ref->family;
	if (p->groups[ref->group].plain) {
		for (unsigned part = 0; part < PAGE_PARTS; part++)
			add_part(p, ref, (enum page_part)part, NULL);
	} else if (p->plan->openmetrics) {
		add_source(p, ref, (struct span){f->name.data, f->base_len},
			f->type == PAGE_UNKNOWN ? NULL : page_type_name(f->type),
			PAGE_PART_BIT(PAGE_PARTS) - 1);
	} else {
		add_text_sources(p, ref);
	}
}

static int compare_sources(const void *a_, const void *b_)
{
	const struct plan_source *a = a_, *b = b_;
	int order = compare_names(a->name, b->name);
	if (order)
		return order;
	return a->page != b->page ? (a->page < b->page ? -1 : 1)
				  : compare_names(a->family->name, b->family->name);
}

struct plan *plan_new(struct page *const *pages, size_t n_pages, bool openmetrics,
	uint32_t (*conflicts)[PAGE_CONFLICTS])
{
	struct plan *plan = calloc(1, sizeof *plan);
	if (!plan)
		return NULL;
	*plan = (struct plan){.pages = pages, .n_pages = n_pages, .openmetrics = openmetrics};
	struct planning p = {.plan = plan};
	plan->text = text_store_new();
	p.failed = !plan->text;
	if (!p.failed)
		gather_refs(&p);
	if (!p.failed) {
		gather_groups(&p);
		find_clashes(&p);
	}
	if (!p.failed)
		count_conflicts(&p, conflicts);
	for (size_t i = 0; i < p.n_refs && !p.failed; i++)
		add_sources(&p, &p.refs[i]);
	if (!p.failed && plan->n_sources)
		qsort(plan->sources, plan->n_sources, sizeof *plan->sources, compare_sources);
	text_table_free(&p.names);
	free(p.refs);
	free(p.groups);
	if (p.failed)
		plan_free(&plan);
	return plan;
}

void plan_free(struct plan **plan)
{
	if (!*plan)
		return;
	text_store_free(&(*plan)->text);
	free((*plan)->sources);
	free(*plan);
	*plan = NULL;
}
