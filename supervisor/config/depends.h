#ifndef SUPERVISOR_CONFIG_DEPENDS_H
#define SUPERVISOR_CONFIG_DEPENDS_H

/* Who must be up before whom: depends_on, resolved to processes. */
#include "supervisor/config/pod_config.h"

/* Fill needs of every process. A name that means nothing and a circle are reported as errors. */
void depends_resolve(struct pod_config *pod, struct report *report);

#endif
