#ifndef EXPORTERMERGER_PAGE_H
#define EXPORTERMERGER_PAGE_H

/*
 * One target's metrics, in a form that is small and ready to be merged: families by name, and each
 * family's samples in the order in which they are written, every sample's labels told as what
 * differs from the sample before.
 *
 *   lines -> page_builder (what belongs together, what contradicts) -> struct page (never changes)
 *
 * A family is kept under the name that classic text gives it: an OpenMetrics counter "a" is
 * "a_total", an info "a" is "a_info".
 *
 * What lines say about each other. Strict, the page is refused; tolerant, for targets, the rule
 * decides, the conflict is counted, and nothing else is lost:
 *
 * | conflict | rule |
 * | --- | --- |
 * | a series given twice | the first stays; with timestamps the newest |
 * | a family opened twice | its parts are joined |
 * | a second HELP, TYPE or UNIT, or one after samples | the first stays |
 * | the label merger_url, or one of the target's own labels, used by the page | becomes
 * exported_<name> (again until it is free) | | no newline at the end | the last line is left out:
 * it may be half a line | | lines after # EOF | are left out |
 *
 * A U__ name (name_escape.h) is the name that it stands for, wherever it comes from: else both
 * would meet on a page for a reader that takes no other.
 *
 * Everything else that is against the format refuses the page with a line number: malformed lines,
 * an unknown type, in OpenMetrics samples that do not fit their family's type, broken histograms,
 * no # EOF.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/span.h"
#include "exportermerger/line.h"

#define PAGE_MAX_BYTES (1u << 30) /* of one page; the parts' offsets are 32 bits */

enum page_type {
	PAGE_UNKNOWN, /* "untyped" in classic text */
	PAGE_COUNTER,
	PAGE_GAUGE,
	PAGE_SUMMARY,
	PAGE_HISTOGRAM,
	PAGE_GAUGEHISTOGRAM,
	PAGE_STATESET,
	PAGE_INFO,
};

/* Which of a family's samples. Written in this order within a series. */
enum page_part {
	PAGE_VALUE, /* the sample proper, or a summary's quantile */
	PAGE_BUCKET,
	PAGE_SUM, /* _sum, _gsum */
	PAGE_COUNT,
	PAGE_CREATED,
	PAGE_PARTS,
};
#define PAGE_PART_BIT(part) (1u << (part))

enum page_conflict {
	PAGE_CONFLICT_SERIES,
	PAGE_CONFLICT_REOPENED,
	PAGE_CONFLICT_METADATA,
	PAGE_CONFLICT_LABEL,
	PAGE_CONFLICT_NEWLINE,
	PAGE_CONFLICT_EOF,
	PAGE_CONFLICT_TYPE, /* these two between targets: plan.h */
	PAGE_CONFLICT_CLASH,
	PAGE_CONFLICTS,
};
extern const char *const page_conflict_names[PAGE_CONFLICTS];

struct page_family {
	struct span name; /* classic */
	size_t base_len;  /* of the name without _total or _info */
	enum page_type type;
	struct span help; /* unescaped; empty: none */
	struct span unit;
	unsigned parts;         /* PAGE_PART_BIT of each that occurs */
	bool openmetrics_valid; /* its samples may stand on an OpenMetrics page under this type */
	bool quoted_labels;     /* some label name needs quotes */
	uint32_t n_samples;
	const uint8_t *samples; /* for page_reader */
	size_t samples_len;
};

struct page {
	enum page_format format;      /* of timestamps and exemplars */
	struct span source_labels;    /* merger_url="..." as it is written first, or empty */
	struct page_family *families; /* by name */
	size_t n_families;
	uint64_t n_samples;
	uint32_t conflicts[PAGE_CONFLICTS];
	void *text; /* private */
	uint8_t *encoded;
};
void page_free(struct page **page);

/* Walks the samples of a family. Spans are valid until the next step. */
struct page_sample {
	enum page_part part;
	struct span labels;  /* a="b",c="d"; names that are not plain in quotes; own escapes */
	struct span special; /* le, quantile or a state's text as escaped; data NULL: has none */
	struct span value;
	struct span timestamp; /* in the unit of the page's format; empty: none */
	struct span exemplar;  /* data NULL: none */
};
struct page_reader {
	const uint8_t *at, *end;
	char *labels;
	size_t labels_capacity;
	bool failed; /* out of memory */
};
void page_reader_start(struct page_reader *reader, const struct page_family *family);
/* false: no more, or failed. */
bool page_reader_next(struct page_reader *reader, struct page_sample *sample);
void page_reader_free(struct page_reader *reader);

/* "le", "quantile", or for a state set its name; data NULL: this part has no label of its own. */
struct span page_special_label(const struct page_family *family, enum page_part part);
/* "_total" and so on: what the format's name of a sample has behind the family's base name. */
const char *page_part_suffix(const struct page_family *family, enum page_part part);
const char *page_type_name(enum page_type type); /* OpenMetrics' word */

/* ---- making one ---- */

struct page_label {
	struct span name, value; /* value escaped as on a page */
};
struct page_options {
	enum page_format format;
	bool strict;
	struct span prefix;     /* before every family name */
	struct span source;     /* value of merger_url, escaped; empty: the page has no source */
	bool source_is_default; /* only for samples that lack the label: the merger's own page */
	const struct page_label *labels; /* the target's, sorted by name, plain names */
	size_t n_labels;
};

struct page_error {
	uint64_t line;      /* 0: of the page as a whole */
	const char *reason; /* a static string */
};

struct page_builder;
struct page_builder *page_builder_new(void); /* NULL when out of memory */
/* Begin a page; the memory of the one before is used again. options are borrowed until its end. 0,
 * or -1 when out of memory. */
int page_builder_start(struct page_builder *builder, const struct page_options *options);
/* The next line (not LINE_NOTHING, not LINE_EOF). 0, or -1 with *error. */
int page_builder_add(struct page_builder *builder, const struct line *line, uint64_t number,
	struct page_error *error);
void page_builder_conflict(struct page_builder *builder, enum page_conflict conflict);
/* Sort, check, pack. NULL with *error. */
struct page *page_builder_finish(struct page_builder *builder, struct page_error *error);
void page_builder_free(struct page_builder **builder);

#endif
