#ifndef EXPORTERMERGER_PAGE_PRIVATE_H
#define EXPORTERMERGER_PAGE_PRIVATE_H

/* What the files that make a page share: page_builder.c gathers, page_rules.c checks, page_pack.c
 * sorts and packs, page.c reads. */
#include "common/buf.h"
#include "exportermerger/page.h"
#include "exportermerger/text_store.h"

#define SPECIAL_NONE  UINT32_MAX
#define EXEMPLAR_NONE UINT32_MAX

/* A sample as it came; its texts stand in the builder's buffer, labels first, in this order. */
struct record {
	uint32_t family, seq, line; /* seq: place among the family's samples */
	uint32_t offset;
	uint32_t labels_len, special_len, value_len, timestamp_len, exemplar_len;
	uint8_t part;
	bool special_is_text; /* compared as text: a state, or NaN */
	double order;         /* of le and quantile */
};

struct building {
	struct page_family
		family; /* name is the lookup name (OpenMetrics: the base) until packed */
	bool has_type, has_help, has_unit, closed;
	uint32_t line;  /* where it began */
	uint32_t first; /* its records, once they are grouped */
};

struct page_builder {
	struct page_options options;
	struct text_store *text; /* becomes the page's */
	struct text_table names;
	struct building *families;
	uint32_t n_families, families_capacity;
	struct record *records;
	uint32_t n_records, records_capacity;
	struct buf raw, packed;
	uint32_t current;      /* family, TEXT_TABLE_NONE at the start */
	struct span last_name; /* of the sample before, in raw page terms */
	char *last_name_copy;
	size_t last_name_capacity;
	enum page_part last_part;
	uint32_t conflicts[PAGE_CONFLICTS];
	struct line_label *labels; /* scratch */
	size_t labels_capacity;
	struct page_error error; /* found while packing: the one with the lowest line */
};

struct span record_labels(const struct page_builder *b, const struct record *r);
struct span record_special(const struct page_builder *b, const struct record *r);
struct span record_value(const struct page_builder *b, const struct record *r);
struct span record_timestamp(const struct page_builder *b, const struct record *r);
struct span record_exemplar(const struct page_builder *b, const struct record *r);

/* Whether these samples of one series (same labels, sorted, none twice; in OpenMetrics of one time)
 * may stand on an OpenMetrics page. NULL, or the reason; *at is the record to blame. */
const char *page_rules_check(const struct page_builder *b, const struct page_family *family,
	const struct record *records, size_t n, const struct record **at);
/* No name of an OpenMetrics family may be another's too. Notes the error. */
void page_rules_check_names(struct page_builder *b);
void page_builder_note_error(struct page_builder *b, uint64_t line, const char *reason);

/* The suffixes that a type's samples have in OpenMetrics, beside the bare name; ends with NULL. */
const char *const *page_type_suffixes(enum page_type type);

#endif
