#include "supervisor/sockets.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/buf.h"

#define NAMES_MAX_BYTES 8192

static int open_one(
	struct sockets *sockets, const struct socket_config *config, char *error, size_t error_size)
{
	size_t i = sockets->n;
	int fd = listen_open(config->address, &sockets->files[i], error, error_size);
	if (fd < 0)
		return -1;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	sockets->fds[i] = fd;
	sockets->n++;
	return 0;
}

int sockets_open(struct sockets *sockets, const struct socket_config *configs, size_t n,
	char *error, size_t error_size)
{
	if (sockets->n || !n)
		return 0;
	struct buf names = BUF_INIT(NAMES_MAX_BYTES);
	for (size_t i = 0; i < n; i++) {
		if (open_one(sockets, &configs[i], error, error_size) < 0)
			goto fail_names;
		buf_printf(&names, "%s%s", i ? ":" : "", configs[i].name);
	}
	buf_append_char(&names, '\0');
	if (buf_failed(&names)) {
		snprintf(error, error_size, "the names of its sockets are too long");
		goto fail_names;
	}
	sockets->names = buf_take(&names, NULL);
	return 0;

fail_names:
	buf_free(&names);
	sockets_close(sockets);
	return -1;
}

void sockets_close(struct sockets *sockets)
{
	for (size_t i = 0; i < sockets->n; i++) {
		listen_file_remove(&sockets->files[i]);
		close(sockets->fds[i]);
	}
	free(sockets->names);
	*sockets = (struct sockets){0};
}
