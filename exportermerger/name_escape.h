#ifndef EXPORTERMERGER_NAME_ESCAPE_H
#define EXPORTERMERGER_NAME_ESCAPE_H

/*
 * U__ names: how a name that is not plain ([a-zA-Z_:][a-zA-Z0-9_:]*) is written for a reader that
 * takes none in quotes. _ is doubled, every other character that is not plain is its code point in
 * hexadecimal between two _, so that no two names become one.
 *
 * (Prometheus' escaping scheme "values":
 * https://prometheus.io/docs/instrumenting/escaping_schemes/)
 */
#include "common/buf.h"
#include "common/span.h"

/* Append name as U__ name. */
void name_escape(struct span name, bool is_label, struct buf *out);

/* Append the name that a U__ name stands for, which is never longer. false, and nothing is
 * appended, when it stands for none but itself: it is not what name_escape() makes of a name that
 * needs it, or the name could not be written in quotes. false too when out of memory. */
bool name_unescape(struct span name, bool is_label, struct buf *out);

/*
 * The same for the name of a metric. What a format puts behind a family's name stands behind the
 * escape, since a reader that takes plain names alone must find the family's there:
 *
 *   # TYPE U__a_2e_b histogram     U__a_2e_b_bucket{le="1"} 1      a.b and a.b_bucket
 *
 * A counter's or info's name is escaped with its suffix, so that it is the same in both formats;
 * OpenMetrics' name of the family is what is left of that (as client_golang writes it):
 *
 *   # TYPE U__a_2e_b_ counter      U__a_2e_b__total 1              a.b and a.b_total
 *
 * Anywhere else U__a_2e_b_ is read as if it were U__a_2e_b__ (a.b_): as it stands it would be that
 * counter's family.
 */
bool name_unescape_metric(struct span name, bool is_openmetrics_family, struct buf *out);

#endif
