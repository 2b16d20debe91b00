/*
 * An embeddings API whose answers take a fixed time and next to no CPU: one epoll loop, answers
 * made at the start. For benchmarks only; tests/lib/fake_openai is the one that behaves like the
 * real thing.
 *
 *   fake_provider PORT LATENCY_US
 *
 * Any request gets one embedding of 1,536 dimensions: as base64 (8.4 KB) when its body asks for
 * that, else as numbers (33 KB). HTTP/1.1, keep-alive, Content-Length only.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <openssl/evp.h>

#define MAX_REQUEST_BYTES 65536
#define DIMENSIONS        1536
#define ANSWER_BYTES      65536
#define MAX_WAITING       65536 /* a power of two */

struct connection {
	int fd;
	bool waiting, gone;
	size_t len;
	char in[MAX_REQUEST_BYTES];
};

struct answer {
	char bytes[ANSWER_BYTES];
	size_t len;
};

/* All wait equally long, so whoever came first is due first. */
static struct waiting {
	struct connection *connection;
	const struct answer *answer;
	uint64_t due_ns;
} queue[MAX_WAITING];
static unsigned first, end;
static int timer;
static uint64_t latency_ns;
static struct answer as_base64, as_numbers;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void finish_answer(struct answer *a, const char *embedding)
{
	char body[ANSWER_BYTES - 256];
	int len = snprintf(body, sizeof body,
		"{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,"
		"\"embedding\":%s}],\"model\":\"text-embedding-3-small\","
		"\"usage\":{\"prompt_tokens\":250,\"total_tokens\":250}}",
		embedding);
	a->len = (size_t)snprintf(a->bytes, sizeof a->bytes,
		"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
		"%d\r\n\r\n%s",
		len, body);
}

/* The shortest decimal that is this float32, as doubles are printed. */
static int print_number(char *text, size_t size, double number)
{
	int len = 0;
	for (int digits = 1; digits <= 17; digits++) {
		len = snprintf(text, size, "%.*g", digits, number);
		if (strtod(text, NULL) == number)
			break;
	}
	return len;
}

static void make_answers(void)
{
	static float vector[DIMENSIONS];
	static char text[ANSWER_BYTES];
	uint32_t seed = 1;
	size_t len = 0;
	for (int i = 0; i < DIMENSIONS; i++) {
		seed = seed * 1664525 + 1013904223;
		vector[i] = (float)((double)(int32_t)seed / 2147483648.0 * 0.045);
		text[len++] = i ? ',' : '[';
		len += (size_t)print_number(text + len, sizeof text - len, vector[i]);
	}
	memcpy(text + len, "]", 2);
	finish_answer(&as_numbers, text);
	text[0] = '"';
	len = 1 + (size_t)EVP_EncodeBlock(
			  (unsigned char *)text + 1, (const unsigned char *)vector, sizeof vector);
	memcpy(text + len, "\"", 2);
	finish_answer(&as_base64, text);
}

static void arm(void)
{
	uint64_t due = queue[first % MAX_WAITING].due_ns;
	struct itimerspec when = {.it_value = {.tv_sec = (time_t)(due / 1000000000),
					  .tv_nsec = (long)(due % 1000000000)}};
	timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void forget(struct connection *c)
{
	close(c->fd);
	if (c->waiting)
		c->gone = true;
	else
		free(c);
}

static void enqueue(struct connection *c, const struct answer *answer)
{
	if (end - first == MAX_WAITING) {
		fputs("fake_provider: too many requests at once\n", stderr);
		exit(1);
	}
	c->waiting = true;
	queue[end++ % MAX_WAITING] = (struct waiting){c, answer, now_ns() + latency_ns};
	if (end - first == 1)
		arm();
}

static void take_requests(struct connection *c)
{
	char *head_end = memmem(c->in, c->len, "\r\n\r\n", 4);
	if (!head_end || c->waiting)
		return;
	char *body = head_end + 4;
	size_t body_len = 0;
	for (char *line = c->in; line < head_end;
		line = (char *)memchr(line, '\n', MAX_REQUEST_BYTES) + 1)
		if (!strncasecmp(line, "content-length:", 15))
			body_len = strtoul(line + 15, NULL, 10);
	size_t used = (size_t)(body - c->in) + body_len;
	if (used > c->len)
		return;
	bool base64 = memmem(body, body_len, "\"base64\"", 8) != NULL;
	c->len -= used;
	memmove(c->in, c->in + used, c->len);
	enqueue(c, base64 ? &as_base64 : &as_numbers);
}

static void answer_due(void)
{
	uint64_t expirations;
	if (read(timer, &expirations, sizeof expirations) < 0)
		return;
	uint64_t now = now_ns();
	while (first != end && queue[first % MAX_WAITING].due_ns <= now) {
		struct waiting w = queue[first++ % MAX_WAITING];
		struct connection *c = w.connection;
		c->waiting = false;
		if (c->gone) {
			free(c);
			continue;
		}
		/* Loopback takes 33 KB at once from a socket that was read empty. */
		if (write(c->fd, w.answer->bytes, w.answer->len) != (ssize_t)w.answer->len)
			forget(c);
		else
			take_requests(c);
	}
	if (first != end)
		arm();
}

static int listen_on(int port)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
	struct sockaddr_in address = {.sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (fd < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096))
		die("listen");
	return fd;
}

static void accept_one(int ep, int listener)
{
	struct connection *c = calloc(1, sizeof *c);
	if (!c)
		die("calloc");
	int on = 1;
	c->fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (c->fd < 0) {
		free(c);
		return;
	}
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
	epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &event);
}

static void read_some(struct connection *c)
{
	ssize_t n = read(c->fd, c->in + c->len, sizeof c->in - c->len);
	if (n <= 0) {
		forget(c);
		return;
	}
	c->len += (size_t)n;
	take_requests(c);
}

int main(int argc, char **argv)
{
	if (argc != 3) {
		fprintf(stderr, "usage: fake_provider PORT LATENCY_US\n");
		return 64;
	}
	static char is_listener, is_timer;
	int listener = listen_on((int)strtol(argv[1], NULL, 10));
	latency_ns = strtoul(argv[2], NULL, 10) * 1000;
	make_answers();
	timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	int ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = &is_listener};
	epoll_ctl(ep, EPOLL_CTL_ADD, listener, &event);
	event.data.ptr = &is_timer;
	epoll_ctl(ep, EPOLL_CTL_ADD, timer, &event);
	for (;;) {
		struct epoll_event events[64];
		int n = epoll_wait(ep, events, 64, -1);
		for (int i = 0; i < n; i++) {
			void *who = events[i].data.ptr;
			if (who == &is_listener)
				accept_one(ep, listener);
			else if (who == &is_timer)
				answer_due();
			else
				read_some(who);
		}
	}
}
