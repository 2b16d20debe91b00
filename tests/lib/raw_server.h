#ifndef TESTS_LIB_RAW_SERVER_H
#define TESTS_LIB_RAW_SERVER_H

/*
 * A server for tests of HTTP clients: a thread that accepts one connection after the other and
 * hands each to the test's own function, which reads and writes bytes as it likes, well-formed or
 * not. It waits by reading: a client that goes away ends every wait.
 */
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define RAW_REQUEST_MAX (8u << 20)

struct raw_server {
	int listener;
	char url[64];
	char path[108]; /* of a Unix socket, else empty */
	/* Serves connection number nth (from 0); the server closes it afterwards. */
	void (*serve)(struct raw_server *server, int fd, unsigned nth);
	const void *arg;
	size_t arg_len;
	pthread_t thread;
	atomic_uint connections, requests;
	/* The last request; look at it after raw_server_stop(). */
	char *request;
	size_t request_len, head_len;
};

static void *raw_server_run(void *arg)
{
	struct raw_server *s = arg;
	for (unsigned nth = 0;; nth++) {
		int fd = accept(s->listener, NULL, NULL);
		if (fd < 0)
			return NULL;
		atomic_fetch_add(&s->connections, 1);
		s->serve(s, fd, nth);
		close(fd);
	}
}

static inline void raw_server_start(struct raw_server *s,
	void (*serve)(struct raw_server *server, int fd, unsigned nth), const char *unix_path)
{
	memset(s, 0, sizeof *s);
	s->serve = serve;
	s->request = malloc(RAW_REQUEST_MAX + 1);
	int rc;
	if (unix_path) {
		struct sockaddr_un address = {.sun_family = AF_UNIX};
		snprintf(address.sun_path, sizeof address.sun_path, "%s", unix_path);
		snprintf(s->path, sizeof s->path, "%s", unix_path);
		snprintf(s->url, sizeof s->url, "http://localhost");
		s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		rc = bind(s->listener, (struct sockaddr *)&address, sizeof address);
	} else {
		struct sockaddr_in address = {
			.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		socklen_t len = sizeof address;
		s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		rc = bind(s->listener, (struct sockaddr *)&address, len);
		getsockname(s->listener, (struct sockaddr *)&address, &len);
		snprintf(s->url, sizeof s->url, "http://127.0.0.1:%d", ntohs(address.sin_port));
	}
	if (rc != 0 || listen(s->listener, 64) != 0 || !s->request ||
		pthread_create(&s->thread, NULL, raw_server_run, s) != 0) {
		perror("raw_server_start");
		abort();
	}
}

/* Waits until the last connection is served. */
static inline void raw_server_stop(struct raw_server *s)
{
	shutdown(s->listener, SHUT_RDWR);
	pthread_join(s->thread, NULL);
	close(s->listener);
	if (s->path[0])
		unlink(s->path);
}

static inline void raw_server_free(struct raw_server *s)
{
	free(s->request);
}

static inline void raw_write(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
		if (n <= 0)
			return;
		data += n;
		len -= (size_t)n;
	}
}

static inline void raw_print(int fd, const char *text)
{
	raw_write(fd, text, strlen(text));
}

/* Until the client closes or resets. */
static inline void raw_wait_for_close(int fd)
{
	char data[4096];
	while (read(fd, data, sizeof data) > 0)
		;
}

/* The end of this connection is a reset, not an orderly close. */
static inline void raw_reset_at_close(int fd)
{
	struct linger linger = {.l_onoff = 1, .l_linger = 0};
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

static inline size_t raw_content_length(const char *head)
{
	const char *at = strcasestr(head, "\r\nContent-Length:");
	return at ? strtoul(at + strlen("\r\nContent-Length:"), NULL, 10) : 0;
}

/* Read one request, head and body. False when the client closed before its end; the one before is
 * kept until this one begins. */
static inline bool raw_read_request(struct raw_server *s, int fd)
{
	size_t len = 0, head_len = 0;
	while (!head_len || len < head_len + raw_content_length(s->request)) {
		ssize_t n = read(fd, s->request + len, RAW_REQUEST_MAX - len);
		if (n <= 0)
			return false;
		len += (size_t)n;
		s->request[len] = '\0';
		char *end = head_len ? NULL : strstr(s->request, "\r\n\r\n");
		if (end)
			head_len = (size_t)(end - s->request) + 4;
	}
	s->request_len = len;
	s->head_len = head_len;
	atomic_fetch_add(&s->requests, 1);
	return true;
}

#endif
