#include "redisproxy/control.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "redisproxy/cluster.h"
#include "redisproxy/pool.h"
#include "redisproxy/proxy.h"
#include "redisproxy/sentinel.h"
#include "redisproxy/server.h"
#include "redisproxy/talk.h"

#define MAX_ASKED 12
#define AT_ONCE   4 /* of one look */
#define FLAGS_AT  2 /* COMMAND's entries: name, arity, flags ... */

enum question { ASK_AUTH, ASK_RESET, ASK_COMMAND, ASK_PING, ASK_SLOTS, ASK_ROLE };

struct control {
	struct proxy *proxy;
	struct server *server;
	bool learned;
	bool up;
	bool silent;   /* the last one did not answer in time, and no later one has */
	bool refused;  /* a client that comes now must log in, or its login is wrong */
	bool no_reset; /* it does not know RESET */
	struct talk *talk;
	struct timer *timer;
	enum question asked[MAX_ASKED];
	unsigned n_asked;
	uint64_t asked_us; /* when the oldest question without an answer was asked */
};

static void note_asked(struct control *control, enum question question)
{
	if (!control->n_asked)
		control->asked_us = loop_now_us(control->proxy->loop);
	control->asked[control->n_asked++] = question;
}

static void ask(
	struct control *control, enum question question, const struct span *argv, uint32_t argc)
{
	if (control->n_asked < MAX_ASKED && talk_say(control->talk, argv, argc) == 0)
		note_asked(control, question);
}

static void set_up(struct control *control, bool up, const char *why)
{
	if (control->up == up)
		return;
	control->up = up;
	if (up)
		log_info("%s is up", server_address(control->server));
	else
		log_warn("%s is down: %s", server_address(control->server), why);
	pools_health_changed(control->proxy, control->server, up);
}

/* Redis asks who somebody is when he connects, and never again: connections that were made before
 * a password was set, or changed, still do what they could do then. */
static void set_refused(struct control *control, bool refused, const char *why)
{
	if (control->refused == refused)
		return;
	control->refused = refused;
	if (!refused)
		return;
	if (server_role(control->server) == SERVER_SENTINEL) {
		log_warn("%s: REDISPROXY_SENTINEL_PASSWORD: %s", server_address(control->server),
			why);
		return;
	}
	if (*control->proxy->conf->remote_password)
		log_warn("%s: REMOTE_PASSWORD: %s", server_address(control->server), why);
	else
		log_info("%s: clients must log in: %s", server_address(control->server), why);
	pools_log_in_anew(control->proxy, control->server);
}

static bool begins(const redisReply *reply, const char *word)
{
	return reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, word, strlen(word)) == 0;
}

static void drop(struct control *control)
{
	talk_free(&control->talk);
	control->n_asked = 0;
}

static void learn(struct control *control, const redisReply *table)
{
	if (table->type != REDIS_REPLY_ARRAY)
		return;
	for (size_t i = 0; i < table->elements; i++) {
		const redisReply *row = table->element[i];
		bool read = false, write = false;

		if (row->type != REDIS_REPLY_ARRAY || row->elements <= FLAGS_AT ||
			row->element[0]->type != REDIS_REPLY_STRING ||
			row->element[FLAGS_AT]->type != REDIS_REPLY_ARRAY)
			continue;
		const redisReply *flags = row->element[FLAGS_AT];

		for (size_t f = 0; f < flags->elements; f++) {
			const char *flag = flags->element[f]->str;

			if (!flag)
				continue;
			read |= strcmp(flag, "readonly") == 0;
			write |= strcmp(flag, "write") == 0;
		}
		struct keys_rule keys = keys_learn(row);

		commands_learn(control->proxy->commands,
			(struct span){row->element[0]->str, (size_t)row->element[0]->len}, read,
			write, &keys);
	}
	control->learned = true;
	log_info("%s: %zu commands", server_address(control->server), table->elements);
}

/* A server that wants a password or forbids PING is there. */
static bool is_healthy(const redisReply *reply)
{
	return !begins(reply, "LOADING") && !begins(reply, "MASTERDOWN");
}

/* A sentinel may be behind the times, and a master may have been told to be one no more. */
static void check_role(struct control *control, const redisReply *reply)
{
	struct proxy *proxy = control->proxy;

	if (!proxy->sentinel || control->server != proxy->writer ||
		reply->type != REDIS_REPLY_ARRAY || !reply->elements ||
		reply->element[0]->type != REDIS_REPLY_STRING ||
		strcmp(reply->element[0]->str, "master") == 0)
		return;
	sentinel_refresh(proxy->sentinel);
}

static void answered(struct control *control, const redisReply *reply)
{
	enum question question = control->asked[0];

	control->n_asked--;
	memmove(control->asked, control->asked + 1, control->n_asked * sizeof *control->asked);
	control->asked_us = loop_now_us(control->proxy->loop);
	if (question == ASK_SLOTS && control->proxy->cluster)
		cluster_answered(control->proxy->cluster, control->server, reply);
	if (question == ASK_ROLE)
		check_role(control, reply);
	if (question == ASK_COMMAND)
		learn(control, reply);
	bool is_error = reply->type == REDIS_REPLY_ERROR;

	/* It says so to whoever connects, whatever was asked. */
	if (begins(reply, "ERR max number of clients")) {
		set_up(control, false, reply->str);
		return;
	}
	if (question == ASK_RESET)
		control->no_reset = is_error;
	if (question == ASK_AUTH)
		set_refused(control, is_error, is_error ? reply->str : "");
	if (question == ASK_PING) {
		control->silent = false;
		set_up(control, is_healthy(reply), is_error ? reply->str : "");
		if (!*control->proxy->conf->remote_password &&
			server_role(control->server) != SERVER_SENTINEL)
			set_refused(control, begins(reply, "NOAUTH"), is_error ? reply->str : "");
	}
}

static void on_reply(const redisReply *reply, void *arg)
{
	struct control *control = arg;

	if (control->n_asked)
		answered(control, reply);
}

static void on_closed(const char *why, void *arg)
{
	struct control *control = arg;

	drop(control);
	control->silent = false;
	set_up(control, false, why);
}

static void connect_now(struct control *control)
{
	static const struct talk_events events = {.on_reply = on_reply, .on_closed = on_closed};
	const struct redisproxy_conf *conf = control->proxy->conf;
	bool is_sentinel = server_role(control->server) == SERVER_SENTINEL;

	control->talk = talk_new(control->server, &events, control);
	if (!control->talk) {
		/* Not looked up or tried a moment ago is no news. */
		if (errno != EAGAIN)
			set_up(control, false, strerror(errno));
		return;
	}
	if (talk_auth(control->talk, is_sentinel ? conf->sentinel_username : conf->remote_username,
		    is_sentinel ? conf->sentinel_password : conf->remote_password))
		note_asked(control, ASK_AUTH);
	if (server_role(control->server) == SERVER_WRITER && !control->learned)
		ask(control, ASK_COMMAND, (struct span[]){SPAN_LITERAL("COMMAND")}, 1);
}

/* The next answers are those that a client which comes now would get. */
static void begin_anew(struct control *control)
{
	const struct redisproxy_conf *conf = control->proxy->conf;

	if (*conf->remote_password) {
		if (talk_auth(control->talk, conf->remote_username, conf->remote_password))
			note_asked(control, ASK_AUTH);
	} else if (!control->no_reset) {
		ask(control, ASK_RESET, (struct span[]){SPAN_LITERAL("RESET")}, 1);
	} else if (!control->n_asked) {
		drop(control);
		connect_now(control);
	}
}

/* Nothing new goes there until it says something. */
static void fall_silent(struct control *control)
{
	const char *why = talk_shakes_hands(control->talk)
				  ? "no answer to the TLS handshake: a port without TLS?"
				  : "no answer to PING";

	drop(control);
	set_up(control, false, why);
	if (control->silent || proxy_is_paused(control->proxy))
		return;
	control->silent = true;
	pools_silent(control->proxy, control->server);
}

static void on_timer(void *arg)
{
	struct control *control = arg;
	const struct redisproxy_conf *conf = control->proxy->conf;

	timer_arm(control->timer, (uint64_t)conf->ping_interval_ms);
	if (control->talk && control->n_asked &&
		loop_now_us(control->proxy->loop) - control->asked_us >
			(uint64_t)conf->ping_timeout_ms * 1000)
		fall_silent(control);
	if (control->n_asked > MAX_ASKED - AT_ONCE)
		return;
	if (!control->talk)
		connect_now(control);
	else if (server_role(control->server) != SERVER_SENTINEL)
		begin_anew(control);
	if (!control->talk)
		return;
	ask(control, ASK_PING, (struct span[]){SPAN_LITERAL("PING")}, 1);
	if (control->proxy->sentinel && server_role(control->server) == SERVER_WRITER)
		ask(control, ASK_ROLE, (struct span[]){SPAN_LITERAL("ROLE")}, 1);
}

struct control *control_new(struct proxy *proxy, struct server *server)
{
	struct control *control = calloc(1, sizeof *control);

	if (!control)
		return NULL;
	control->proxy = proxy;
	control->server = server;
	control->up = true;
	control->timer = timer_new(proxy->loop, on_timer, control);
	if (!control->timer)
		control_free(&control);
	else
		timer_arm(control->timer, 0);
	return control;
}

void control_free(struct control **control)
{
	if (!*control)
		return;
	drop(*control);
	timer_free(&(*control)->timer);
	free(*control);
	*control = NULL;
}

bool control_ask_slots(struct control *control)
{
	if (!control->talk || control->n_asked >= MAX_ASKED - 1)
		return false;
	ask(control, ASK_SLOTS, (struct span[]){SPAN_LITERAL("CLUSTER"), SPAN_LITERAL("SLOTS")}, 2);
	return true;
}

bool control_up(const struct control *control)
{
	return control->up;
}

bool control_silent(const struct control *control)
{
	return control->silent;
}

void control_reconnect(struct control *control)
{
	drop(control);
	control->silent = false;
	timer_arm(control->timer, 0);
}
