#ifndef SUPERVISOR_SPAWN_H
#define SUPERVISOR_SPAWN_H

/*
 * Make a process: its own process group, default signals, /dev/null as stdin, the given stdout and
 * stderr, listening sockets from descriptor 3 on (sd_listen_fds(3)), nothing else open. It dies by
 * SIGKILL when the supervisor dies without stopping it (PR_SET_PDEATHSIG), so that a pod never goes
 * on unwatched; that holds for the process itself, not for what it started.
 *
 * By vfork(2): the supervisor waits the moment until exec, and learns what failed without a pipe.
 */
#include <stddef.h>
#include <sys/types.h>

#include "supervisor/config/pod_config.h"

#define SPAWN_MAX_SOCKETS 16

struct spawn_user {
	uid_t uid;
	gid_t gid;
	const gid_t *groups;
	size_t n_groups;
};

struct spawn {
	char *const *argv;
	const char *directory;    /* NULL: unchanged */
	char *const *environment; /* complete, ends with NULL */
	/* Descriptors to hand down as 3, 4 …, and their names joined by colons. */
	const int *sockets;
	size_t n_sockets;
	const char *socket_names;
	int out_fd, err_fd;
	long umask; /* -1: unchanged */
	const struct limit_config *limits;
	size_t n_limits;
	/* NULL: unchanged. */
	const struct spawn_user *user;
};

/* Programs get the limits of this moment, whatever the supervisor sets for itself later. */
void spawn_remember_limits(void);
/*
 * The process id, or -1 with a sentence in error (no such command, no such directory, not
 * permitted, out of processes).
 */
pid_t spawn_process(const struct spawn *spawn, char *error, size_t error_size);

#endif
