#include "redisproxy/control.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>

#include "common/log.h"
#include "redisproxy/cluster.h"
#include "redisproxy/pool.h"
#include "redisproxy/proxy.h"
#include "redisproxy/resp.h"
#include "redisproxy/server.h"

#define MAX_ASKED 8
#define MAX_REPLY (8 << 20)
#define FLAGS_AT  2 /* COMMAND's entries: name, arity, flags ... */

enum question { ASK_AUTH, ASK_COMMAND, ASK_PING, ASK_SLOTS };

struct control {
	struct proxy *proxy;
	struct server *server;
	bool learns_commands, learned;
	bool up;
	struct bufferevent *connection;
	redisReader *reader;
	struct timer *timer;
	size_t fed; /* bytes since the last reply */
	enum question asked[MAX_ASKED];
	unsigned n_asked;
	uint64_t asked_us; /* when the oldest question without an answer was asked */
};

static void ask(
	struct control *control, enum question question, const struct span *argv, uint32_t argc)
{
	struct buf command = BUF_INIT(1 << 20);

	resp_append_command(&command, argv, argc);
	if (!buf_failed(&command) && control->n_asked < MAX_ASKED) {
		if (!control->n_asked)
			control->asked_us = loop_now_us(control->proxy->loop);
		control->asked[control->n_asked++] = question;
		bufferevent_write(control->connection, command.data, command.len);
	}
	buf_free(&command);
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

static void drop(struct control *control)
{
	if (control->connection)
		bufferevent_free(control->connection);
	control->connection = NULL;
	if (control->reader)
		redisReaderFree(control->reader);
	control->reader = NULL;
	control->n_asked = 0;
	control->fed = 0;
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
	return reply->type != REDIS_REPLY_ERROR ||
	       (strncmp(reply->str, "LOADING", 7) != 0 &&
		       strncmp(reply->str, "MASTERDOWN", 10) != 0);
}

static void answered(struct control *control, const redisReply *reply)
{
	enum question question = control->asked[0];

	control->n_asked--;
	memmove(control->asked, control->asked + 1, control->n_asked * sizeof *control->asked);
	control->asked_us = loop_now_us(control->proxy->loop);
	if (question == ASK_SLOTS && control->proxy->cluster)
		cluster_answered(control->proxy->cluster, control->server, reply);
	if (question == ASK_COMMAND)
		learn(control, reply);
	if (question == ASK_PING)
		set_up(control, is_healthy(reply),
			reply->type == REDIS_REPLY_ERROR ? reply->str : "");
	if (question == ASK_AUTH && reply->type == REDIS_REPLY_ERROR)
		log_warn("%s: REMOTE_PASSWORD: %s", server_address(control->server), reply->str);
}

static void on_read(struct bufferevent *connection, void *arg)
{
	struct control *control = arg;
	struct evbuffer *in = bufferevent_get_input(connection);
	char data[4096];
	int n;

	while ((n = evbuffer_remove(in, data, sizeof data)) > 0) {
		void *reply = NULL;

		control->fed += (size_t)n;
		redisReaderFeed(control->reader, data, (size_t)n);
		int rc;

		while ((rc = redisReaderGetReply(control->reader, &reply)) == REDIS_OK && reply) {
			control->fed = 0;
			if (control->n_asked)
				answered(control, reply);
			freeReplyObject(reply);
			reply = NULL;
		}
		if (rc != REDIS_OK || control->fed > MAX_REPLY) {
			drop(control);
			set_up(control, false, "its answer is no RESP");
			return;
		}
	}
}

static void on_event(struct bufferevent *connection, short what, void *arg)
{
	struct control *control = arg;

	(void)connection;
	if (what & BEV_EVENT_CONNECTED)
		return;
	drop(control);
	set_up(control, false, "no connection");
}

static void connect_now(struct control *control)
{
	const struct redisproxy_conf *conf = control->proxy->conf;
	int fd = server_connect(control->server);

	if (fd < 0) {
		/* Not looked up or tried a moment ago is no news. */
		if (errno != EAGAIN)
			set_up(control, false, strerror(errno));
		return;
	}
	control->connection = bufferevent_socket_new(
		loop_base(control->proxy->loop), fd, BEV_OPT_CLOSE_ON_FREE);
	control->reader = redisReaderCreate();
	if (!control->connection || !control->reader) {
		if (!control->connection)
			evutil_closesocket(fd);
		drop(control);
		return;
	}
	bufferevent_setcb(control->connection, on_read, NULL, on_event, control);
	bufferevent_enable(control->connection, EV_READ | EV_WRITE);
	struct span auth[3] = {SPAN_LITERAL("AUTH")};
	uint32_t n = 1;

	if (*conf->remote_username)
		auth[n++] = span_of(conf->remote_username);
	auth[n++] = span_of(conf->remote_password);
	if (*conf->remote_password)
		ask(control, ASK_AUTH, auth, n);
	if (control->learns_commands && !control->learned)
		ask(control, ASK_COMMAND, (struct span[]){SPAN_LITERAL("COMMAND")}, 1);
}

static void on_timer(void *arg)
{
	struct control *control = arg;
	const struct redisproxy_conf *conf = control->proxy->conf;

	timer_arm(control->timer, (uint64_t)conf->ping_interval_ms);
	if (control->connection && control->n_asked &&
		loop_now_us(control->proxy->loop) - control->asked_us >
			(uint64_t)conf->ping_timeout_ms * 1000) {
		drop(control);
		set_up(control, false, "no answer to PING");
	}
	if (!control->connection)
		connect_now(control);
	if (control->connection && control->n_asked < MAX_ASKED - 1)
		ask(control, ASK_PING, (struct span[]){SPAN_LITERAL("PING")}, 1);
}

struct control *control_new(struct proxy *proxy, struct server *server, bool learns_commands)
{
	struct control *control = calloc(1, sizeof *control);

	if (!control)
		return NULL;
	control->proxy = proxy;
	control->server = server;
	control->learns_commands = learns_commands;
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
	if (!control->connection || control->n_asked >= MAX_ASKED - 1)
		return false;
	ask(control, ASK_SLOTS, (struct span[]){SPAN_LITERAL("CLUSTER"), SPAN_LITERAL("SLOTS")}, 2);
	return true;
}

bool control_up(const struct control *control)
{
	return control->up;
}

void control_reconnect(struct control *control)
{
	drop(control);
	timer_arm(control->timer, 0);
}
