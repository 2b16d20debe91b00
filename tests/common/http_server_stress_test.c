/*
 * Handlers and clients that do anything at any time, by a fixed random sequence. Whatever happens,
 * the accounts must balance: each exchange ends once, by its handler or by on_abort; each is
 * reported once; each slice comes back once; nothing is left when the clients are gone.
 */
#include "tests/common/http_fixture.h"

#define N_CLIENTS 12
#define N_STEPS   20000

static uint64_t seed;

static unsigned dice(unsigned sides)
{
	seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (unsigned)(seed >> 33) % sides;
}

/* An exchange that its handler keeps. */
struct doing {
	struct http_exchange *exchange;
	struct doing *next, **prev;
	bool started, paused, held_back;
	int64_t left;
};

static struct doing *all;
static unsigned n_requests, n_ended, n_aborted, n_finished, n_unheard;
static uint64_t n_lent, n_returned;

static void returned(void *owner)
{
	n_returned++;
	free(owner);
}

static struct slice lend(size_t len)
{
	void *data = malloc(len ? len : 1);
	assert_non_null(data);
	memset(data, 'b', len);
	n_lent++;
	return (struct slice){.data = data, .len_bytes = len, .release = returned, .owner = data};
}

static void forget(struct doing *d)
{
	*d->prev = d->next;
	if (d->next)
		d->next->prev = d->prev;
	free(d);
}

static void respond_now(struct http_exchange *x)
{
	struct slice slices[3];
	size_t n = dice(4);
	for (size_t i = 0; i < n; i++)
		slices[i] = lend(dice(2) ? dice(2000) : dice(300000));
	static const int statuses[] = {200, 204, 304, 404, 503};
	n_ended++;
	http_exchange_respond(x, statuses[dice(5)], SPAN_LITERAL("X-A: b\r\n"), slices, n);
}

static void send_some(struct doing *d)
{
	size_t len = dice(3) ? dice(3000) : dice(400000);
	if (d->left >= 0) {
		/* Once in a while more than declared. */
		if ((int64_t)len > d->left && dice(20))
			len = (size_t)d->left;
		d->left = (int64_t)len > d->left ? 0 : d->left - (int64_t)len;
	}
	d->held_back = !http_exchange_send(d->exchange, lend(len));
}

static void act(struct doing *d)
{
	struct http_exchange *x = d->exchange;
	switch (dice(8)) {
	case 0:
		d->paused = true;
		http_exchange_pause(x);
		return;
	case 1:
	case 2:
		d->paused = false;
		http_exchange_resume(x);
		return;
	case 3:
		if (dice(10))
			return;
		n_ended++;
		forget(d);
		http_exchange_reset(x);
		return;
	case 4:
		if (d->started) {
			n_ended++;
			forget(d);
			http_exchange_end(x);
		} else {
			forget(d);
			respond_now(x);
		}
		return;
	default:
		if (!d->started) {
			d->started = true;
			d->left = dice(2) ? -1 : (int64_t)dice(200000);
			http_exchange_respond_start(x, 200, SPAN_LITERAL(""), d->left);
		} else if (!d->held_back) {
			send_some(d);
		}
		return;
	}
}

static void stress_body(struct span data, void *arg)
{
	struct doing *d = arg;
	assert_false(d->paused);
	assert_true(data.len > 0);
	if (dice(3) == 0)
		act(d);
}

static void stress_body_end(void *arg)
{
	assert_false(((struct doing *)arg)->paused);
	act(arg);
}

static void stress_drain(void *arg)
{
	struct doing *d = arg;
	assert_true(d->held_back);
	d->held_back = false;
	act(d);
}

static void stress_abort(void *arg)
{
	n_aborted++;
	forget(arg);
}

static const struct http_exchange_events stress_exchange_events = {
	stress_body, stress_body_end, stress_drain, stress_abort};

static void stress_request(struct http_exchange *x, void *arg)
{
	(void)arg;
	n_requests++;
	http_exchange_set_context(x, &n_requests);
	if (dice(3) == 0) {
		respond_now(x);
		return;
	}
	struct doing *d = calloc(1, sizeof *d);
	assert_non_null(d);
	d->exchange = x;
	d->next = all;
	d->prev = &all;
	if (all)
		all->prev = &d->next;
	all = d;
	http_exchange_accept(x, &stress_exchange_events, d);
	if (dice(2))
		act(d);
}

static void stress_finished(struct http_exchange *x, int status, uint64_t bytes_in,
	uint64_t bytes_out, uint64_t duration_us, void *arg)
{
	(void)bytes_in;
	(void)bytes_out;
	(void)duration_us;
	(void)arg;
	n_finished++;
	if (http_exchange_context(x))
		return;
	n_unheard++;
	assert_true(status >= 400);
}

static const struct http_server_events stress_events = {stress_request, stress_finished};

static void send_something(struct client *c)
{
	static const char *const pieces[] = {
		"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
		("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n"
		 "POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"),
		"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /a HTTP/1.0\r\n\r\n",
		"POST /d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
		"5\r\nhello\r\n",
		"3;a=b\r\nabc\r\n",
		"0\r\n\r\n",
		"POST /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n",
		"0123456789",
		"POST /f HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n",
		"GET /g HTTP/1.1\r\nHo",
		"st: a\r\n\r\n",
		"nonsense\n",
	};
	if (dice(8) == 0) {
		client_send_bytes(c, world.big, dice(400000));
		return;
	}
	/* Nonsense, the last one, is rare, or nothing would ever last. */
	unsigned n = sizeof pieces / sizeof pieces[0];
	unsigned i = dice(n - (dice(20) ? 1 : 0));
	client_send(c, pieces[i]);
}

static void disturb(struct client *c)
{
	switch (dice(12)) {
	case 0:
		if (dice(4) == 0) {
			struct linger now = {.l_onoff = 1};
			if (dice(2))
				setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
			client_close(c);
			client_connect(c);
		}
		break;
	case 1:
		if (dice(8) == 0)
			shutdown(c->fd, SHUT_WR);
		break;
	case 2:
		event_del(c->readable);
		break;
	case 3:
	case 4:
		if (!c->closed)
			event_add(c->readable, NULL);
		break;
	default:
		if (c->out.len - c->out_done < 1000000)
			send_something(c);
		break;
	}
	buf_clear(&c->in);
	if (c->closed && dice(3) == 0) {
		client_close(c);
		client_connect(c);
	}
}

static void run_with(uint64_t first_seed, uint32_t timeout_ms)
{
	struct client clients[N_CLIENTS];
	struct http_server_options options = http_server_defaults;
	options.idle_timeout_ms = options.header_timeout_ms = timeout_ms;
	options.body_timeout_ms = options.write_timeout_ms = timeout_ms;
	options.send_high_water_bytes = 50000;
	options.max_connections = N_CLIENTS / 2 * 3;
	seed = first_seed;
	n_requests = n_ended = n_aborted = n_finished = n_unheard = 0;
	n_lent = n_returned = 0;
	world_make_with(&options, &stress_events);
	for (int i = 0; i < N_CLIENTS; i++)
		client_connect(&clients[i]);
	for (int step = 0; step < N_STEPS; step++) {
		disturb(&clients[dice(N_CLIENTS)]);
		if (all && dice(2) == 0) {
			struct doing *d = all;
			for (unsigned n = dice(8); n > 0 && d->next; n--)
				d = d->next;
			act(d);
		}
		event_base_loop(loop_base(world.loop), EVLOOP_NONBLOCK);
	}
	for (int i = 0; i < N_CLIENTS; i++)
		client_close(&clients[i]);
	/* What is paused hears of it when it goes on. */
	while (all) {
		act(all);
		event_base_loop(loop_base(world.loop), EVLOOP_NONBLOCK);
	}
	WAIT_UNTIL(http_server_connections(world.server) == 0);
	assert_true(n_requests > 100);
	assert_true(n_aborted > 10);
	assert_int_equal(n_requests, n_ended + n_aborted);
	assert_int_equal(n_finished, n_requests + n_unheard);
	assert_int_equal(n_lent, n_returned);
	world_free();
}

static void everything_at_once_without_deadlines(void **state)
{
	(void)state;
	for (uint64_t s = 1; s <= 3; s++)
		run_with(s, 0);
}

static void everything_at_once_with_short_deadlines(void **state)
{
	(void)state;
	for (uint64_t s = 11; s <= 13; s++)
		run_with(s, 5);
}

int main(void)
{
	log_open("http_server_stress_test", LOG_LEVEL_FATAL, LOG_FORMAT_TEXT);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_at_once_without_deadlines),
		cmocka_unit_test(everything_at_once_with_short_deadlines),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
