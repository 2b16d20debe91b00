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

#endif
