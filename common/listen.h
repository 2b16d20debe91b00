#ifndef COMMON_LISTEN_H
#define COMMON_LISTEN_H

/*
 * Listening sockets: taken over from whoever started the process, or bound here. All are
 * non-blocking and close-on-exec. For start-up: names are looked up, which may block.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define LISTEN_NAME_BYTES 64

/* ---- inherited (sd_listen_fds(3)): LISTEN_FDS descriptors from 3 on, named by LISTEN_FDNAMES ----
 */

struct listen_inherited;

/* Reads LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PID and removes them from the environment. Nothing is
 * taken when LISTEN_PID is another process. What is no listening stream socket is left alone and
 * warned of. NULL: nothing inherited (or no memory). */
struct listen_inherited *listen_inherited_take(void);
/* The first descriptor of that name not claimed yet, now the caller's; -1: none. */
int listen_inherited_claim(struct listen_inherited *inherited, const char *name);
/* Closes what nobody claimed, with a warning for each. */
void listen_inherited_free(struct listen_inherited **inherited);

/* ---- bound here ---- */

/* Which file a Unix socket is, so that only our own is removed. */
struct listen_file {
	char *path; /* NULL: none */
	dev_t dev;
	ino_t ino;
};

/*
 * address: "host:port", ":port" or "*:port" (every address, IPv6 too), "[v6]:port", or a path with
 * a slash: a Unix socket, mode 0660. It appears under its name only when connections can be made;
 * one that is there is replaced if nobody listens on it. The descriptor, or -1 with one line in
 * error that begins with the address. *file (zeroed by this call) is set for Unix sockets.
 */
int listen_open(const char *address, struct listen_file *file, char *error, size_t size);
/* Unlink the socket if it is still the one that was made, and free the path. */
void listen_file_remove(struct listen_file *file);
/* "127.0.0.1:8080" or "[::1]:80"; of a Unix socket the path it was bound to, which listen_open()
 * changed since. */
void listen_describe(int fd, char *text, size_t size);

/* mkdir -p with mode 0750 for what is missing. 0, or -1 with errno. */
int listen_make_dir(const char *path);

#endif
