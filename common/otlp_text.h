#ifndef COMMON_OTLP_TEXT_H
#define COMMON_OTLP_TEXT_H

/*
 * The texts of an OTLP export: the lists in OTEL_* variables, the resource that all spans share,
 * and what a collector answers. Pure.
 * (https://opentelemetry.io/docs/specs/otel/resource/sdk/#specifying-resource-information-via-an-environment-variable)
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/span.h"

/* The next of "name=value,name=value" at *at, which moves on, without the blanks around; value with
 * its percent-encoding undone (NUL-terminated, in *value). 1; 0 at the end; -1: this one is no
 * pair, or value has no room. */
int otlp_list_next(const char **at, struct span *name, struct buf *value);
/* Every one is a pair. */
bool otlp_list_valid(const char *list);

struct otlp_resource {
	const char *service_name; /* "" : the list's, else daemon */
	const char *attributes;   /* OTEL_RESOURCE_ATTRIBUTES */
	const char *daemon, *instance_id, *version;
	long pid;
};
/* {"attributes":[...]}, a name once. */
void otlp_append_resource(struct buf *out, const struct otlp_resource *resource);

/* The answer to an export, a 200: how many it left out. message gets its own words. */
uint64_t otlp_parse_rejected(struct span body, struct buf *message);

#endif
