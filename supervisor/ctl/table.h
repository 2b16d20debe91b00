#ifndef SUPERVISOR_CTL_TABLE_H
#define SUPERVISOR_CTL_TABLE_H

/*
 * The states of programs as people and programs read them: an aligned table (coloured on a
 * terminal, unless NO_COLOR), or one JSON object.
 */
#include <stdbool.h>

#include "common/buf.h"
#include "common/messages.h"

/*
 * NAME     STATE    PID   UPTIME  RESTARTS  DETAIL
 *
 * Text that came from elsewhere is shown without control characters.
 */
void table_write(const struct msg_program_list *programs, bool color, struct buf *out);
/* {"programs":[{"name":…,"state":…,…}]} and a newline. */
void table_write_json(const struct msg_program_list *programs, struct buf *out);
/* The escape sequence that begins the colour of a state; "" for none. */
const char *table_state_color(struct span state);
/* "3d 4h", "5m 12s", "850 ms": never longer than 8 characters. */
void table_duration(uint64_t ms, char text[16]);

#endif
