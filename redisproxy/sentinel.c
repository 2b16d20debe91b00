#include "redisproxy/sentinel.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/digest.h"
#include "common/log.h"
#include "redisproxy/pool.h"
#include "redisproxy/proxy.h"
#include "redisproxy/resp.h"
#include "redisproxy/server.h"
#include "redisproxy/slots.h"
#include "redisproxy/talk.h"
#include "redisproxy/waiting.h"

#define ANSWER_MS  1000 /* after which the next sentinel is asked */
#define AT_MOST_MS 100  /* between two questions */
#define LISTEN_MS  1000 /* between two tries to subscribe */

_Static_assert(SENTINEL_ADDRESS == SLOTS_ADDRESS_BYTES, "addresses are made by slots_address()");

/* One of them. */
struct watcher {
	struct sentinel *sentinel;
	struct server *server;
	struct talk *events; /* subscribed; NULL: not connected */
};

/* The replies that a question gets, in their order. */
enum answer { ANSWER_AUTH, ANSWER_MASTER, ANSWER_REPLICAS };

struct sentinel {
	struct proxy *proxy;
	struct timer *timer, *listen_timer;
	struct talk *question; /* NULL: none is open */
	enum answer awaits;
	unsigned asks; /* the watcher that is asked, or next */
	uint64_t asked_us;
	uint32_t salt;
	unsigned n;
	struct watcher watchers[SENTINEL_MAX];
	char replicas[SENTINEL_MAX_REPLICAS][SENTINEL_ADDRESS];
};

/* ---- what they say ---- */

static struct span text_of(const redisReply *reply)
{
	return reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS
		       ? (struct span){reply->str, (size_t)reply->len}
		       : (struct span){"", 0};
}

static int make_address(struct span host, struct span port, char address[SENTINEL_ADDRESS])
{
	int64_t number;

	if (!host.len || !resp_number(port, &number))
		return -1;
	return slots_address(host, number, "", address);
}

int sentinel_read_master(const redisReply *reply, char address[SENTINEL_ADDRESS])
{
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2)
		return -1;
	return make_address(text_of(reply->element[0]), text_of(reply->element[1]), address);
}

int sentinel_read_switch(struct span text, const char *master, char address[SENTINEL_ADDRESS])
{
	struct span words[5];

	/* name old-host old-port new-host new-port */
	for (unsigned i = 0; i < 5; i++) {
		const char *blank = text.len ? memchr(text.data, ' ', text.len) : NULL;
		size_t len = blank ? (size_t)(blank - text.data) : text.len;

		if (!len || (i < 4) != (blank != NULL))
			return -1;
		words[i] = (struct span){text.data, len};
		if (blank)
			text = (struct span){blank + 1, text.len - len - 1};
	}
	if (!span_equal_str(words[0], master))
		return -1;
	return make_address(words[3], words[4], address);
}

static struct span field(const redisReply *list, const char *name)
{
	for (size_t i = 0; i + 1 < list->elements; i += 2)
		if (span_equal_str(text_of(list->element[i]), name))
			return text_of(list->element[i + 1]);
	return (struct span){"", 0};
}

static bool has_flag(struct span flags, const char *flag)
{
	return flags.len && memmem(flags.data, flags.len, flag, strlen(flag));
}

size_t sentinel_read_replicas(
	const redisReply *reply, char addresses[SENTINEL_MAX_REPLICAS][SENTINEL_ADDRESS])
{
	size_t n = 0;

	if (reply->type != REDIS_REPLY_ARRAY)
		return 0;
	for (size_t i = 0; i < reply->elements && n < SENTINEL_MAX_REPLICAS; i++) {
		const redisReply *row = reply->element[i];

		if (row->type != REDIS_REPLY_ARRAY)
			continue;
		struct span flags = field(row, "flags");

		if (has_flag(flags, "down") || has_flag(flags, "disconnected") ||
			!span_equal_str(field(row, "master-link-status"), "ok"))
			continue;
		if (make_address(field(row, "ip"), field(row, "port"), addresses[n]) == 0)
			n++;
	}
	return n;
}

/* ---- who it is ---- */

static void take_master(struct sentinel *sentinel, const char *address)
{
	struct proxy *proxy = sentinel->proxy;
	struct server *writer = proxy->writer;
	bool was_up = server_up(writer);

	if (strcmp(server_address(writer), address) == 0)
		return;
	log_info("%s: the master is %s", proxy->conf->sentinel_master, address);
	proxy->now_us = loop_now_us(proxy->loop);
	if (*server_address(writer))
		stats_count(&proxy->stats, STATS_TOPOLOGY, "writer");
	if (server_set_address(writer, address) < 0)
		return;
	pools_close_own(proxy, writer, "the writer is another server now");
	if (!was_up)
		pools_close_shared(proxy, writer, "the writer is another server now");
	pools_replace(proxy, writer);
	waiting_wake_all(proxy);
}

static const char *choose(struct sentinel *sentinel, size_t n)
{
	struct proxy *proxy = sentinel->proxy;
	const char *present = server_address(proxy->reader);
	bool present_up = server_up(proxy->reader);
	const char *others[SENTINEL_MAX_REPLICAS];
	size_t m = 0, near = 0;

	for (size_t i = 0; i < n; i++) {
		const char *address = sentinel->replicas[i];

		if (strcmp(address, server_address(proxy->writer)) == 0)
			continue;
		if (strcmp(address, present) == 0) {
			if (present_up)
				return address;
			continue;
		}
		/* Those that are near come first. */
		others[m] = address;
		if (server_would_be_near(proxy, address)) {
			others[m] = others[near];
			others[near++] = address;
		}
		m++;
	}
	/* The present one is down here, and up there: better than nobody. */
	if (!m)
		return *present ? present : NULL;
	return others[sentinel->salt % (near ? near : m)];
}

static void take_replicas(struct sentinel *sentinel, const redisReply *reply)
{
	struct proxy *proxy = sentinel->proxy;

	if (!proxy->reader)
		return;
	const char *address = choose(sentinel, sentinel_read_replicas(reply, sentinel->replicas));

	if (!address || strcmp(address, server_address(proxy->reader)) == 0)
		return;
	log_info("%s: reads go to %s", proxy->conf->sentinel_master, address);
	if (*server_address(proxy->reader))
		stats_count(&proxy->stats, STATS_TOPOLOGY, "reader");
	if (server_set_address(proxy->reader, address) == 0)
		pools_replace(proxy, proxy->reader);
}

/* ---- asking ---- */

static void end_question(struct sentinel *sentinel, bool answered)
{
	talk_free(&sentinel->question);
	if (!answered)
		sentinel->asks = (sentinel->asks + 1) % sentinel->n;
	timer_arm(sentinel->timer,
		answered ? (uint64_t)sentinel->proxy->conf->topology_refresh_ms : AT_MOST_MS);
}

static void on_answer(const redisReply *reply, void *arg)
{
	struct sentinel *sentinel = arg;
	struct server *asked = sentinel->watchers[sentinel->asks].server;
	char address[SENTINEL_ADDRESS];

	switch (sentinel->awaits++) {
	case ANSWER_AUTH:
		if (reply->type == REDIS_REPLY_ERROR)
			log_warn("%s: REDISPROXY_SENTINEL_PASSWORD: %s", server_address(asked),
				reply->str);
		break;
	case ANSWER_MASTER:
		if (sentinel_read_master(reply, address) < 0) {
			log_warn("%s knows no master %s", server_address(asked),
				sentinel->proxy->conf->sentinel_master);
			end_question(sentinel, false);
			return;
		}
		take_master(sentinel, address);
		break;
	case ANSWER_REPLICAS:
		take_replicas(sentinel, reply);
		end_question(sentinel, true);
		break;
	default:
		break;
	}
}

static void on_question_closed(const char *why, void *arg)
{
	struct sentinel *sentinel = arg;

	log_debug("%s: %s", server_address(sentinel->watchers[sentinel->asks].server), why);
	end_question(sentinel, false);
}

static void on_timer(void *arg)
{
	static const struct talk_events events = {
		.on_reply = on_answer, .on_closed = on_question_closed};
	struct sentinel *sentinel = arg;
	const struct redisproxy_conf *conf = sentinel->proxy->conf;
	struct span name = span_of(conf->sentinel_master);

	/* The last one was silent; or it is time for another one's view. */
	talk_free(&sentinel->question);
	sentinel->asks = (sentinel->asks + 1) % sentinel->n;
	sentinel->asked_us = loop_now_us(sentinel->proxy->loop);
	sentinel->question = talk_new(sentinel->watchers[sentinel->asks].server, &events, sentinel);
	if (!sentinel->question) {
		timer_arm(sentinel->timer, AT_MOST_MS);
		return;
	}
	sentinel->awaits = talk_auth(sentinel->question, conf->sentinel_username,
				   conf->sentinel_password)
				   ? ANSWER_AUTH
				   : ANSWER_MASTER;
	talk_say(sentinel->question,
		(struct span[]){
			SPAN_LITERAL("SENTINEL"), SPAN_LITERAL("get-master-addr-by-name"), name},
		3);
	talk_say(sentinel->question,
		(struct span[]){SPAN_LITERAL("SENTINEL"), SPAN_LITERAL("replicas"), name}, 3);
	timer_arm(sentinel->timer, ANSWER_MS);
}

void sentinel_refresh(struct sentinel *sentinel)
{
	uint64_t since_ms = (loop_now_us(sentinel->proxy->loop) - sentinel->asked_us) / 1000;

	if (!sentinel->question)
		timer_arm(sentinel->timer, since_ms < AT_MOST_MS ? AT_MOST_MS - since_ms : 0);
}

/* ---- listening ---- */

static void on_message(const redisReply *reply, void *arg)
{
	struct watcher *watcher = arg;
	struct sentinel *sentinel = watcher->sentinel;
	char address[SENTINEL_ADDRESS];

	/* ["message", channel, text] */
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3 ||
		!span_equal_str(text_of(reply->element[0]), "message"))
		return;
	if (span_equal_str(text_of(reply->element[1]), "+switch-master") &&
		sentinel_read_switch(text_of(reply->element[2]),
			sentinel->proxy->conf->sentinel_master, address) == 0)
		take_master(sentinel, address);
	sentinel_refresh(sentinel);
}

static void on_silence(const char *why, void *arg)
{
	struct watcher *watcher = arg;

	log_debug("%s: %s", server_address(watcher->server), why);
	talk_free(&watcher->events);
}

static void on_listen_timer(void *arg)
{
	static const struct talk_events events = {.on_reply = on_message, .on_closed = on_silence};
	static const struct span channels[] = {{"SUBSCRIBE", 9}, {"+switch-master", 14},
		{"+slave", 6}, {"+sdown", 6}, {"-sdown", 6}, {"+convert-to-slave", 17},
		{"+slave-reconf-done", 18}};
	struct sentinel *sentinel = arg;
	const struct redisproxy_conf *conf = sentinel->proxy->conf;

	for (unsigned i = 0; i < sentinel->n; i++) {
		struct watcher *watcher = &sentinel->watchers[i];

		/* One that hangs does not answer its PING, on another connection. */
		if (watcher->events && !server_up(watcher->server))
			talk_free(&watcher->events);
		if (watcher->events)
			continue;
		watcher->events = talk_new(watcher->server, &events, watcher);
		if (!watcher->events)
			continue;
		talk_auth(watcher->events, conf->sentinel_username, conf->sentinel_password);
		talk_say(watcher->events, channels, sizeof channels / sizeof *channels);
	}
	timer_arm(sentinel->listen_timer, LISTEN_MS);
}

static int add_watchers(struct sentinel *sentinel, char *error, size_t size)
{
	static const char separators[] = ", \t\n";
	const char *at = sentinel->proxy->conf->sentinel_addresses;

	for (at += strspn(at, separators); *at; at += strspn(at, separators)) {
		size_t len = strcspn(at, separators);
		char *address = strndup(at, len);
		struct watcher *watcher = &sentinel->watchers[sentinel->n];

		at += len;
		if (!address)
			return -1;
		if (sentinel->n == SENTINEL_MAX || strchr(address, '/')) {
			snprintf(error, size, "%s is no sentinel's address, or one too many",
				address);
			free(address);
			return -1;
		}
		watcher->sentinel = sentinel;
		watcher->server = server_new(sentinel->proxy, address, SERVER_SENTINEL);
		free(address);
		if (!watcher->server)
			return -1;
		sentinel->n++;
	}
	return sentinel->n ? 0 : -1;
}

struct sentinel *sentinel_new(struct proxy *proxy, char *error, size_t size)
{
	struct sentinel *sentinel = calloc(1, sizeof *sentinel);

	snprintf(error, size, "out of memory");
	if (!sentinel)
		return NULL;
	sentinel->proxy = proxy;
	digest_random(&sentinel->salt, sizeof sentinel->salt);
	sentinel->timer = timer_new(proxy->loop, on_timer, sentinel);
	sentinel->listen_timer = timer_new(proxy->loop, on_listen_timer, sentinel);
	if (!sentinel->timer || !sentinel->listen_timer ||
		add_watchers(sentinel, error, size) < 0) {
		sentinel_free(&sentinel);
		return NULL;
	}
	/* Every process begins with another one. */
	sentinel->asks = sentinel->salt % sentinel->n;
	timer_arm(sentinel->timer, 0);
	timer_arm(sentinel->listen_timer, 0);
	return sentinel;
}

void sentinel_free(struct sentinel **sentinel_)
{
	struct sentinel *sentinel = *sentinel_;

	if (!sentinel)
		return;
	*sentinel_ = NULL;
	talk_free(&sentinel->question);
	for (unsigned i = 0; i < sentinel->n; i++) {
		talk_free(&sentinel->watchers[i].events);
		server_free(&sentinel->watchers[i].server);
	}
	timer_free(&sentinel->timer);
	timer_free(&sentinel->listen_timer);
	free(sentinel);
}
