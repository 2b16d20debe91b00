#ifndef TESTS_COMMON_HTTP_CLIENT_BENCH_H
#define TESTS_COMMON_HTTP_CLIENT_BENCH_H

/* What the tests of http_client share: a client on a loop, what became of its calls, and servers
 * that answer with given bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>

#include "common/http_client.h"
#include "common/loop.h"
#include "tests/lib/raw_server.h"

#define MIB (1u << 20)

/* A test that hangs is killed by this; nothing waits for it otherwise. */
#define WATCHDOG_S 30

/* --- a client, and what became of its calls --- */

struct bench {
	struct loop *loop;
	struct http_client *client;
	unsigned done, stop_at;
	unsigned bodies_released;
};

struct outcome {
	struct bench *bench;
	struct http_call *call;
	unsigned dones;
	enum http_call_outcome outcome;
	int status;
	char body[256];
	size_t body_len;
	char tag[64]; /* the response header X-Tag */
	bool tag_absent, sent;
	char detail[300];
	uint64_t duration_us;
	uint64_t turn_cpu_max_us;              /* of ask_limited() */
	void (*then)(struct outcome *outcome); /* the last thing in on_done */
};

static inline void set_up_with(struct bench *b, const struct http_client_options *options)
{
	alarm(WATCHDOG_S);
	*b = (struct bench){.loop = loop_new()};
	assert_non_null(b->loop);
	b->client = http_client_new(b->loop, options);
	assert_non_null(b->client);
}

static inline void set_up(struct bench *b)
{
	set_up_with(b, &http_client_defaults);
}

static inline void tear_down(struct bench *b)
{
	http_client_free(&b->client);
	assert_null(b->client);
	loop_free(&b->loop);
	alarm(0);
}

static void on_done(struct http_call *call, const struct http_call_result *result, void *arg)
{
	struct outcome *o = arg;
	struct bench *b = o->bench;
	o->dones++;
	o->outcome = result->outcome;
	o->status = result->status;
	o->body_len = result->body->len;
	size_t shown = o->body_len < sizeof o->body - 1 ? o->body_len : sizeof o->body - 1;
	if (shown)
		memcpy(o->body, result->body->data, shown);
	o->body[shown] = '\0';
	struct span tag = http_call_header(call, "x-tag");
	o->tag_absent = tag.data == NULL;
	snprintf(o->tag, sizeof o->tag, "%.*s", SPAN_ARG(tag));
	o->sent = http_call_sent(call);
	assert_true((result->detail == NULL) == (result->outcome == HTTP_CALL_OK));
	snprintf(o->detail, sizeof o->detail, "%s", result->detail ? result->detail : "");
	o->duration_us = result->duration_us;
	if (o->then)
		o->then(o);
	if (++b->done == b->stop_at)
		loop_stop(b->loop);
}

static inline void run_until(struct bench *b, unsigned dones)
{
	b->stop_at = dones;
	if (b->done < dones)
		loop_run(b->loop);
	assert_int_equal(b->done, dones);
}

static inline void count_release(void *owner)
{
	(*(unsigned *)owner)++;
}

static inline struct slice body_of(struct bench *b, const char *text)
{
	return (struct slice){text, strlen(text), count_release, &b->bodies_released};
}

static inline struct http_call_options options_for(const char *method, const char *url)
{
	return (struct http_call_options){.method = method,
		.url = url,
		.connect_timeout_ms = 10000,
		.timeout_ms = 20000,
		.max_response_bytes = MIB};
}

static inline void start(
	struct bench *b, const struct http_call_options *options, struct outcome *o)
{
	void (*then)(struct outcome *) = o->then;
	*o = (struct outcome){.bench = b, .then = then};
	o->call = http_client_call(b->client, options, on_done, o);
	assert_non_null(o->call);
	assert_int_equal(o->dones, 0);
}

/* One call from start to end. */
static inline struct outcome call_once(struct bench *b, const struct http_call_options *options)
{
	struct outcome o = {0};
	start(b, options, &o);
	run_until(b, b->done + 1);
	assert_int_equal(o.dones, 1);
	return o;
}

/* --- scripts of the server --- */

static inline void serve_arg_always(struct raw_server *s, int fd, unsigned nth)
{
	(void)nth;
	while (raw_read_request(s, fd))
		raw_write(fd, s->arg, s->arg_len);
}

static inline void serve_arg_once(struct raw_server *s, int fd, unsigned nth)
{
	(void)nth;
	if (raw_read_request(s, fd))
		raw_write(fd, s->arg, s->arg_len);
}

static inline void serve_arg_then_reset(struct raw_server *s, int fd, unsigned nth)
{
	serve_arg_once(s, fd, nth);
	raw_reset_at_close(fd);
}

static inline void serve_arg_then_hang(struct raw_server *s, int fd, unsigned nth)
{
	serve_arg_once(s, fd, nth);
	raw_wait_for_close(fd);
}

static inline void serve_nothing(struct raw_server *s, int fd, unsigned nth)
{
	(void)s;
	(void)nth;
	raw_wait_for_close(fd);
}

#define ANSWER_OK "HTTP/1.1 200 OK\r\nX-Tag:  one \r\nContent-Length: 2\r\n\r\nhi"

/* Ask a server that runs this script; what came of it. */
static inline struct outcome ask_limited(void (*serve)(struct raw_server *, int, unsigned),
	const char *answer, size_t len, uint32_t timeout_ms, size_t max_response_bytes)
{
	struct bench b;
	struct raw_server s;
	set_up(&b);
	raw_server_start(&s, serve, NULL);
	s.arg = answer;
	s.arg_len = len;
	struct http_call_options options = options_for("POST", s.url);
	options.body = body_of(&b, "{}");
	options.timeout_ms = timeout_ms;
	options.max_response_bytes = max_response_bytes;
	struct outcome o = call_once(&b, &options);
	o.turn_cpu_max_us = loop_turn_cpu_max_us(b.loop);
	assert_int_equal(b.bodies_released, 1);
	tear_down(&b);
	raw_server_stop(&s);
	raw_server_free(&s);
	return o;
}

static inline struct outcome ask(
	void (*serve)(struct raw_server *, int, unsigned), const char *answer, size_t len)
{
	return ask_limited(serve, answer, len, 20000, MIB);
}

static inline struct outcome ask_text(
	void (*serve)(struct raw_server *, int, unsigned), const char *answer)
{
	return ask(serve, answer, strlen(answer));
}

/* A daemon's start; nothing of the environment the tests run in. */
static inline void prepare_process(void)
{
	signal(SIGPIPE, SIG_IGN);
	unsetenv("http_proxy");
	unsetenv("https_proxy");
	unsetenv("all_proxy");
	unsetenv("no_proxy");
}

#endif
