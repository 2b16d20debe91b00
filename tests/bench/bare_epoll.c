/*
 * The yardstick: the least that a server of this kind must do. One epoll loop; each request is
 * read, its body hashed (SHA-256), the answer looked up by that hash and written with one
 * writev(2). No timeouts, no limits, no parser: it trusts its client.
 *
 *   bare_epoll PORT ANSWER_BYTES
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <openssl/evp.h>

#define IN_BYTES  65536
#define N_BUCKETS 65536
#define HASH      32

struct answer {
	struct answer *next;
	uint8_t key[HASH];
	char *body;
};

struct connection {
	int fd;
	size_t in_len;
	const struct answer *answer; /* being written */
	size_t sent;                 /* of head and body */
	char in[IN_BYTES];
};

static struct answer *buckets[N_BUCKETS];
static size_t answer_bytes;
static char head[128];
static size_t head_len;
static EVP_MD_CTX *sha;

static const struct answer *find(const char *body, size_t len)
{
	uint8_t key[HASH];
	uint32_t bucket;
	EVP_DigestInit_ex(sha, EVP_sha256(), NULL);
	EVP_DigestUpdate(sha, body, len);
	EVP_DigestFinal_ex(sha, key, NULL);
	memcpy(&bucket, key, sizeof bucket);
	struct answer **at = &buckets[bucket % N_BUCKETS];
	for (struct answer *a = *at; a; a = a->next)
		if (memcmp(a->key, key, HASH) == 0)
			return a;
	struct answer *a = malloc(sizeof *a);
	char *text = malloc(answer_bytes);
	if (!a || !text)
		abort();
	memset(text, 'x', answer_bytes);
	*a = (struct answer){.next = *at, .body = text};
	memcpy(a->key, key, HASH);
	return *at = a;
}

/* true: all of the answer is written. */
static bool send_answer(struct connection *c)
{
	struct iovec iov[2];
	int n = 0;
	if (c->sent < head_len)
		iov[n++] = (struct iovec){head + c->sent, head_len - c->sent};
	size_t done = c->sent > head_len ? c->sent - head_len : 0;
	iov[n++] = (struct iovec){c->answer->body + done, answer_bytes - done};
	ssize_t sent = writev(c->fd, iov, n);
	if (sent > 0)
		c->sent += (size_t)sent;
	if (c->sent < head_len + answer_bytes)
		return false;
	c->answer = NULL;
	c->sent = 0;
	return true;
}

/* One whole request at the start of in: its length; 0: not yet there. */
static size_t request_length(struct connection *c, char **body, size_t *body_len)
{
	char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
	if (!end)
		return 0;
	static const char name[] = "Content-Length: ";
	char *field = memmem(c->in, (size_t)(end - c->in), name, sizeof name - 1);
	*body_len = field ? strtoul(field + sizeof name - 1, NULL, 10) : 0;
	*body = end + 4;
	size_t length = (size_t)(*body - c->in) + *body_len;
	return length <= c->in_len ? length : 0;
}

static void wait_for(struct connection *c, int epoll, uint32_t events)
{
	epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &(struct epoll_event){events, {.ptr = c}});
}

static void serve(struct connection *c, int epoll)
{
	char *body;
	size_t body_len, length;
	if (c->answer) {
		if (!send_answer(c))
			return;
		wait_for(c, epoll, EPOLLIN);
	} else {
		ssize_t n = read(c->fd, c->in + c->in_len, IN_BYTES - c->in_len);
		if (n == 0 || (n < 0 && errno != EAGAIN)) {
			close(c->fd);
			free(c);
			return;
		}
		c->in_len += n > 0 ? (size_t)n : 0;
	}
	while (c->in_len && (length = request_length(c, &body, &body_len))) {
		c->answer = find(body, body_len);
		c->in_len -= length;
		memmove(c->in, c->in + length, c->in_len);
		if (!send_answer(c)) {
			wait_for(c, epoll, EPOLLOUT);
			return;
		}
	}
}

static int listen_on(uint16_t port)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
		listen(fd, 1024) != 0) {
		perror("bare_epoll");
		exit(1);
	}
	return fd;
}

int main(int argc, char **argv)
{
	if (argc != 3) {
		fprintf(stderr, "usage: bare_epoll PORT ANSWER_BYTES\n");
		return 64;
	}
	int listener = listen_on((uint16_t)strtoul(argv[1], NULL, 10)), epoll = epoll_create1(0);
	answer_bytes = strtoul(argv[2], NULL, 10);
	head_len = (size_t)snprintf(head, sizeof head,
		"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
		answer_bytes);
	sha = EVP_MD_CTX_new();
	epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &(struct epoll_event){.events = EPOLLIN});
	for (;;) {
		struct epoll_event events[64];
		int n = epoll_wait(epoll, events, 64, -1);
		for (int i = 0; i < n; i++) {
			struct connection *c = events[i].data.ptr;
			if (c) {
				serve(c, epoll);
				continue;
			}
			int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK), on = 1;
			if (fd < 0 || !(c = malloc(sizeof *c)))
				continue;
			setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
			c->fd = fd;
			c->in_len = c->sent = 0;
			c->answer = NULL;
			epoll_ctl(epoll, EPOLL_CTL_ADD, fd,
				&(struct epoll_event){.events = EPOLLIN, .data.ptr = c});
		}
	}
}
