#ifndef SUPERVISOR_CTL_TOP_SUMMARY_H
#define SUPERVISOR_CTL_TOP_SUMMARY_H

/* The pod in a few lines above the table of its programs, and as one JSON object. */
#include <stdbool.h>

#include "common/buf.h"
#include "supervisor/ctl/pod_numbers.h"

/* Nothing when no daemon of the gateway is among the programs. width: what does not fit in a line
 * is left out, from its end; 0: everything. The last line is empty. */
void top_summary_write(const struct pod_look *look, bool color, size_t width, struct buf *out);
/* An object: numbers as the metrics say, rates, percentiles (null: no request), breakers. */
void top_summary_write_json(const struct pod_look *look, struct buf *out);

#endif
