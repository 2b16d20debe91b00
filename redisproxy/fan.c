#include "redisproxy/fan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "redisproxy/client.h"
#include "redisproxy/cluster.h"
#include "redisproxy/command.h"
#include "redisproxy/dispatch_private.h"
#include "redisproxy/place.h"
#include "redisproxy/proxy.h"
#include "redisproxy/resp.h"
#include "redisproxy/slots.h"

#define CURSOR_BITS 9
#define HEAD_MAX    64 /* of SCAN's reply, with its cursor */

_Static_assert(CLUSTER_MAX_NODES <= 1 << CURSOR_BITS, "an id fits into a cursor");

enum fan_kind {
	FAN_CONCAT, /* the elements of all arrays */
	FAN_SUM,
	FAN_SAME, /* all say the same: the first one's */
};

struct fan {
	struct place *parent;
	enum fan_kind kind;
	uint32_t n, left;
	size_t bytes;
	struct out error;
	struct out replies[];
};

static const struct {
	const char *name, *sub;
	enum fan_kind kind;
	uint8_t step; /* arguments for each key; 0: to every master */
} fans[] = {
	{"mget", NULL, FAN_CONCAT, 1},
	{"mset", NULL, FAN_SAME, 2},
	{"del", NULL, FAN_SUM, 1},
	{"unlink", NULL, FAN_SUM, 1},
	{"exists", NULL, FAN_SUM, 1},
	{"touch", NULL, FAN_SUM, 1},
	{"dbsize", NULL, FAN_SUM, 0},
	{"keys", NULL, FAN_CONCAT, 0},
	{"flushall", NULL, FAN_SAME, 0},
	{"flushdb", NULL, FAN_SAME, 0},
	{"script", "load", FAN_SAME, 0},
	{"script", "flush", FAN_SAME, 0},
	{"function", "load", FAN_SAME, 0},
	{"function", "delete", FAN_SAME, 0},
	{"function", "flush", FAN_SAME, 0},
	{"function", "restore", FAN_SAME, 0},
};

/* ---- putting the answers together ---- */

bool fan_takes(struct fan *fan, size_t len)
{
	size_t limit = (size_t)fan->parent->client->proxy->conf->client_output_bytes;

	fan->bytes += len;
	return fan->bytes <= limit;
}

static struct span line_of(const struct out *reply)
{
	const char *data = reply->data + reply->at;
	const char *end = out_pending(reply) ? memchr(data, '\r', out_pending(reply)) : NULL;

	return (struct span){data, end ? (size_t)(end - data) : 0};
}

static int concat(struct fan *fan, struct out *whole)
{
	char head[32];
	int64_t total = 0;

	for (uint32_t i = 0; i < fan->n; i++) {
		struct span line = line_of(&fan->replies[i]);
		int64_t count;

		if (line.len < 2 || !strchr("*~", line.data[0]) ||
			!resp_number((struct span){line.data + 1, line.len - 1}, &count) ||
			count < 0)
			return -1;
		total += count;
	}
	snprintf(head, sizeof head, "*%" PRId64 "\r\n", total);
	if (out_append(whole, head, strlen(head)) < 0)
		return -1;
	for (uint32_t i = 0; i < fan->n; i++) {
		struct out *reply = &fan->replies[i];
		size_t skip = line_of(reply).len + 2;

		if (out_append(whole, reply->data + reply->at + skip, out_pending(reply) - skip) <
			0)
			return -1;
		out_free(reply);
	}
	return 0;
}

static int sum(struct fan *fan, struct out *whole)
{
	char text[32];
	int64_t total = 0, n;

	for (uint32_t i = 0; i < fan->n; i++) {
		struct span line = line_of(&fan->replies[i]);

		if (line.len < 2 || line.data[0] != ':' ||
			!resp_number((struct span){line.data + 1, line.len - 1}, &n))
			return -1;
		total += n;
	}
	snprintf(text, sizeof text, ":%" PRId64 "\r\n", total);
	return out_append(whole, text, strlen(text));
}

static int put_together(struct fan *fan, struct out *whole)
{
	struct out *first = out_pending(&fan->error) ? &fan->error : &fan->replies[0];

	if (first == &fan->error || fan->kind == FAN_SAME)
		return out_append(whole, first->data + first->at, out_pending(first));
	return fan->kind == FAN_SUM ? sum(fan, whole) : concat(fan, whole);
}

static void fan_free(struct fan *fan)
{
	for (uint32_t i = 0; i < fan->n; i++)
		out_free(&fan->replies[i]);
	out_free(&fan->error);
	free(fan);
}

static void answer(struct fan *fan)
{
	struct place *parent = fan->parent;
	struct client *c = parent->client;
	size_t limit = (size_t)c->proxy->conf->client_output_bytes;
	const char *error = NULL;

	if (fan->bytes > limit)
		error = "ERR redisproxy: an answer from several servers is over "
			"--client-output-limit";
	else if (!c->dead && put_together(fan, &parent->held) < 0)
		error = "ERR redisproxy: the answers of several servers do not fit together";
	parent->failed = out_pending(&fan->error) > 0;
	c->held_bytes += out_pending(&parent->held);
	fan_free(fan);
	if (error)
		place_answer_error(parent, error);
	else
		place_finish(parent);
}

void fan_part_done(struct fan *fan, struct place *part)
{
	struct client *c = part->client;

	/* What the parts hold is counted when it is one answer. */
	c->held_bytes -= out_pending(&part->held);
	if (part->failed && !out_pending(&fan->error))
		fan->error = part->held;
	else if (part->failed)
		out_free(&part->held);
	else
		fan->replies[part->part] = part->held;
	free(part);
	if (!--fan->left)
		answer(fan);
}

/* ---- going out ---- */

static struct fan *fan_new(struct client *c, struct request *r, enum fan_kind kind, uint32_t n)
{
	struct place_route route = {.slot = SLOTS_N, .meaning = ENTRY_PLAIN};
	struct fan *fan = calloc(1, sizeof *fan + n * sizeof *fan->replies);

	if (!fan)
		return NULL;
	fan->kind = kind;
	fan->n = fan->left = n;
	fan->parent = place_add(c, r->command, NULL, 0, &route, NULL, 0);
	if (!fan->parent) {
		free(fan);
		return NULL;
	}
	fan->parent->keeps = true;
	return fan;
}

/* A part that cannot be made fails as a part. */
static void send_part(struct fan *fan, struct request *r, uint32_t part, struct span frame,
	const struct place_route *route)
{
	struct client *c = fan->parent->client;
	struct place *p = place_add(c, r->command, frame.data, frame.len, route, fan, part);

	if (p) {
		place_start(p);
		return;
	}
	/* Its client cannot be served any more; the answer goes nowhere. */
	client_close(c);
	if (!--fan->left)
		answer(fan);
}

static enum fan_result to_masters(struct client *c, struct request *r, enum fan_kind kind)
{
	struct cluster *cluster = c->proxy->cluster;
	struct place_route route = {.slot = SLOTS_N, .meaning = ENTRY_PLAIN};
	unsigned id = 0, n = cluster_masters(cluster);

	if (n < 2)
		return FAN_NO;
	struct server *targets[CLUSTER_MAX_NODES];

	n = 0;
	for (unsigned from = 0;
		(targets[n] = cluster_next_master(cluster, from, &id)) && n < CLUSTER_MAX_NODES - 1;
		from = id + 1)
		n++;
	struct fan *fan = fan_new(c, r, kind, n);

	for (unsigned i = 0; fan && i < n; i++) {
		route.target = targets[i];
		send_part(fan, r, i, (struct span){r->frame, r->len}, &route);
	}
	return fan ? FAN_TOOK : FAN_NO_MEMORY;
}

static bool are_of_one_slot(const struct request *r, uint8_t step)
{
	struct resp_arguments a = resp_arguments_of(r->frame);
	struct span key = {0};
	int slot = -1;

	resp_arguments_next(&a, &key);
	for (uint32_t i = 0; resp_arguments_next(&a, &key); i++) {
		if (i % step)
			continue;
		if (slot >= 0 && slot != slots_of_key(key))
			return false;
		slot = slots_of_key(key);
	}
	return true;
}

static enum fan_result refuse(struct client *c, struct request *r, const char *text)
{
	struct place_route route = {.slot = SLOTS_N, .meaning = ENTRY_PLAIN};
	struct place *p = place_add(c, r->command, NULL, 0, &route, NULL, 0);

	if (!p)
		return FAN_NO_MEMORY;
	place_answer_error(p, text);
	return FAN_TOOK;
}

static enum fan_result to_keys(
	struct client *c, struct request *r, enum fan_kind kind, uint8_t step)
{
	uint32_t n = (r->argc - 1) / step;

	/* The server would look at the slots first. */
	if (n && (r->argc - 1) % step)
		return refuse(c, r, "ERR wrong number of arguments for 'mset' command");
	if (n < 2 || are_of_one_slot(r, step))
		return FAN_NO;
	struct resp_arguments a = resp_arguments_of(r->frame);
	struct span argv[3];
	struct buf frame = BUF_INIT(2 << 20);
	struct fan *fan = fan_new(c, r, kind, n);

	resp_arguments_next(&a, &argv[0]);
	for (uint32_t i = 0; fan && i < n; i++) {
		for (uint8_t k = 1; k <= step; k++)
			resp_arguments_next(&a, &argv[k]);
		buf_clear(&frame);
		resp_append_command(&frame, argv, step + 1u);
		if (buf_failed(&frame))
			client_close(c);
		struct place_route route = {.slot = slots_of_key(argv[1]), .meaning = ENTRY_PLAIN};

		send_part(fan, r, i, (struct span){(char *)frame.data, frame.len}, &route);
	}
	buf_free(&frame);
	return fan ? FAN_TOOK : FAN_NO_MEMORY;
}

enum fan_result fan_out(struct client *c, struct request *r)
{
	struct span name = {r->command->name, r->command->len};

	for (size_t i = 0; i < sizeof fans / sizeof *fans; i++) {
		if (!span_equal_str(name, fans[i].name) ||
			(fans[i].sub &&
				(r->argc < 2 || !span_equal_nocase(r->argv[1], fans[i].sub))))
			continue;
		return fans[i].step ? to_keys(c, r, fans[i].kind, fans[i].step)
				    : to_masters(c, r, fans[i].kind);
	}
	return FAN_NO;
}

/* ---- SCAN ---- */

static uint64_t outer_cursor(struct cluster *cluster, uint64_t cursor, unsigned id)
{
	if (!cursor && !cluster_next_master(cluster, id + 1, &id))
		return 0;
	return cursor << CURSOR_BITS | id;
}

enum fan_result fan_scan(struct client *c, struct request *r)
{
	struct place_route route = {.slot = SLOTS_N, .kind = PLACE_SCAN, .meaning = ENTRY_PLAIN};
	struct resp_arguments a = resp_arguments_of(r->frame);
	struct buf frame = BUF_INIT(2 << 20);
	struct span argument;
	char text[32];
	int64_t cursor;
	unsigned id = 0;

	if (r->argc < 2 || !resp_number(r->argv[1], &cursor) || cursor < 0)
		return FAN_NO;
	id = (unsigned)(cursor & ((1 << CURSOR_BITS) - 1));
	unsigned asked = id;

	route.target = cluster_next_master(c->proxy->cluster, id, &id);
	if (!route.target)
		return FAN_NO;
	/* That master is gone: the next one from its beginning. */
	snprintf(text, sizeof text, "%" PRId64, id == asked ? cursor >> CURSOR_BITS : 0);
	buf_printf(&frame, "*%u\r\n", r->argc);
	for (uint32_t i = 0; resp_arguments_next(&a, &argument); i++) {
		if (i == 1)
			argument = span_of(text);
		buf_printf(&frame, "$%zu\r\n", argument.len);
		buf_append(&frame, argument.data, argument.len);
		buf_append(&frame, "\r\n", 2);
	}
	struct place *p = buf_failed(&frame) ? NULL
					     : place_add(c, r->command, (char *)frame.data,
						       frame.len, &route, NULL, id);

	buf_free(&frame);
	if (!p)
		return FAN_NO_MEMORY;
	place_start(p);
	return FAN_TOOK;
}

bool fan_rewrite_cursor(struct place *p)
{
	/* "*2\r\n$N\r\ncursor\r\n" */
	const char *at = p->held.data + p->held.at;
	size_t len = out_pending(&p->held);
	char text[24], head[HEAD_MAX];
	int64_t n, cursor;

	if (len < 8 || memcmp(at, "*2\r\n$", 5) != 0)
		return false;
	const char *end = memchr(at + 5, '\r', len - 5);

	if (!end || !resp_number((struct span){at + 5, (size_t)(end - at) - 5}, &n) || n <= 0 ||
		n > 20)
		return false;
	size_t used = (size_t)(end - at) + 2 + (size_t)n + 2;

	if (used > len || !resp_number((struct span){end + 2, (size_t)n}, &cursor) || cursor < 0)
		return false;
	int text_len = snprintf(text, sizeof text, "%" PRIu64,
		outer_cursor(p->client->proxy->cluster, (uint64_t)cursor, p->part));
	int head_len = snprintf(head, sizeof head, "*2\r\n$%d\r\n%s\r\n", text_len, text);
	struct out whole = {0};

	if (out_append(&whole, head, (size_t)head_len) < 0 ||
		out_append(&whole, at + used, len - used) < 0) {
		client_close(p->client);
		out_free(&whole);
		return false;
	}
	p->client->held_bytes += out_pending(&whole);
	p->client->held_bytes -= len;
	out_free(&p->held);
	p->held = whole;
	return true;
}
