#ifndef SUPERVISOR_SOCKETS_H
#define SUPERVISOR_SOCKETS_H

/*
 * The listening sockets of one process: opened before its first start, kept while it is restarted,
 * so that a client which connects meanwhile waits in the queue instead of being refused; closed,
 * and their paths unlinked, when it is stopped or given up.
 */
#include <stddef.h>

#include "common/listen.h"
#include "supervisor/config/pod_config.h"

struct sockets {
	int fds[POD_MAX_SOCKETS];
	struct listen_file files[POD_MAX_SOCKETS];
	size_t n;
	char *names; /* joined by colons */
};

/*
 * Bind and listen; addresses as in common/listen.h. They block, as programs that know nothing of
 * non-blocking sockets expect. Nothing happens when they are open already. 0, or -1 with a sentence
 * in error and all of them closed.
 */
int sockets_open(struct sockets *sockets, const struct socket_config *configs, size_t n,
	char *error, size_t error_size);
void sockets_close(struct sockets *sockets);

#endif
