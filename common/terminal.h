#ifndef COMMON_TERMINAL_H
#define COMMON_TERMINAL_H

/* What people read on a terminal. Pure but for the environment. */
#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "common/span.h"

/* It is a terminal, and terminal_allows_color(). */
bool terminal_wants_color(int fd);
/* NO_COLOR is not set, or empty (https://no-color.org), and TERM is not dumb. */
bool terminal_allows_color(void);
/* Padded with spaces to width bytes; control characters become '?'. */
void terminal_put(struct buf *out, struct span text, size_t width);

#endif
