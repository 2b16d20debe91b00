#ifndef COMMON_NOTIFY_H
#define COMMON_NOTIFY_H

/* Telling whoever started the process how it is doing: sd_notify(3), without its library. */

/* Send state ("READY=1") to the socket that NOTIFY_SOCKET names. Nothing happens when it is not
 * set; a listener that does not listen is no error. Never blocks. */
void notify_send(const char *state);

#endif
