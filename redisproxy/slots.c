#include "redisproxy/slots.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <string.h>

#include "redisproxy/resp.h"

#define MAX_RANGES SLOTS_N

/* ---- keys ---- */

/* The polynomial x^16 + x^12 + x^5 + 1, four bits at a time. */
static uint16_t crc16(const char *data, size_t len)
{
	static const uint16_t table[16] = {0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6,
		0x70e7, 0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef};
	uint16_t crc = 0;

	for (size_t i = 0; i < len; i++) {
		unsigned byte = (unsigned char)data[i];

		crc = (uint16_t)((crc << 4) ^ table[(crc >> 12) ^ (byte >> 4)]);
		crc = (uint16_t)((crc << 4) ^ table[(crc >> 12) ^ (byte & 15)]);
	}
	return crc;
}

uint16_t slots_of_key(struct span key)
{
	const char *open = key.len ? memchr(key.data, '{', key.len) : NULL;

	if (open) {
		const char *from = open + 1;
		const char *close = memchr(from, '}', (size_t)(key.data + key.len - from));

		if (close && close > from)
			key = (struct span){from, (size_t)(close - from)};
	}
	return crc16(key.data, key.len) & (SLOTS_N - 1);
}

/* ---- addresses ---- */

static struct span host_of(const char *address)
{
	const char *colon = strrchr(address, ':');

	return (struct span){address, colon ? (size_t)(colon - address) : strlen(address)};
}

int slots_address(
	struct span host, int64_t port, const char *same_host, char address[SLOTS_ADDRESS_BYTES])
{
	if (port <= 0 || port > 65535)
		return -1;
	if (!host.len || span_equal_str(host, "?"))
		host = host_of(same_host);
	if (!host.len || host.len > SLOTS_ADDRESS_BYTES - 10)
		return -1;
	bool bare_v6 = host.data[0] != '[' && memchr(host.data, ':', host.len);

	for (size_t i = 0; i < host.len; i++) {
		char c = host.data[i];
		bool good = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
			    strchr(".-_:%[]", c);

		if (!good || !c)
			return -1;
	}
	snprintf(address, SLOTS_ADDRESS_BYTES, bare_v6 ? "[%.*s]:%d" : "%.*s:%d", SPAN_ARG(host),
		(int)port);
	return 0;
}

/* ---- CLUSTER SLOTS ---- */

static int read_node(const redisReply *node, const char *asked, char address[SLOTS_ADDRESS_BYTES])
{
	if (node->type != REDIS_REPLY_ARRAY || node->elements < 2 ||
		node->element[1]->type != REDIS_REPLY_INTEGER)
		return -1;
	const redisReply *host = node->element[0];

	/* Nil: the server does not know; it is reached where it was reached before. */
	if (host->type != REDIS_REPLY_STRING && host->type != REDIS_REPLY_NIL)
		return -1;
	struct span text = host->type == REDIS_REPLY_NIL
				   ? SPAN_LITERAL("")
				   : (struct span){host->str, (size_t)host->len};

	return slots_address(text, node->element[1]->integer, asked, address);
}

static int read_range(const redisReply *row, const char *asked, struct slots_range *range)
{
	if (row->type != REDIS_REPLY_ARRAY || row->elements < 3 ||
		row->element[0]->type != REDIS_REPLY_INTEGER ||
		row->element[1]->type != REDIS_REPLY_INTEGER)
		return -1;
	long long first = row->element[0]->integer, last = row->element[1]->integer;

	if (first < 0 || last < first || last >= SLOTS_N)
		return -1;
	range->first = (uint16_t)first;
	range->last = (uint16_t)last;
	range->n = 0;
	for (size_t i = 2; i < row->elements && range->n <= SLOTS_MAX_REPLICAS; i++)
		if (read_node(row->element[i], asked, range->nodes[range->n]) == 0)
			range->n++;
		else if (i == 2)
			return -1;
	return 0;
}

int slots_read(const redisReply *reply, const char *asked,
	void (*on_range)(const struct slots_range *range, void *arg), void *arg)
{
	struct slots_range range;

	if (reply->type != REDIS_REPLY_ARRAY || reply->elements > MAX_RANGES)
		return -1;
	for (size_t i = 0; i < reply->elements; i++)
		if (read_range(reply->element[i], asked, &range) < 0)
			return -1;
	for (size_t i = 0; i < reply->elements; i++) {
		read_range(reply->element[i], asked, &range);
		on_range(&range, arg);
	}
	return 0;
}

/* ---- redirections ---- */

static bool takes(struct span *line, const char *word)
{
	size_t len = strlen(word);

	if (line->len < len || memcmp(line->data, word, len) != 0)
		return false;
	line->data += len;
	line->len -= len;
	return true;
}

/* "3999 127.0.0.1:6381" */
static int read_target(struct span text, const char *asked, struct redirection *r)
{
	const char *blank = text.len ? memchr(text.data, ' ', text.len) : NULL;
	int64_t slot, port;

	if (!blank)
		return -1;
	struct span number = {text.data, (size_t)(blank - text.data)};
	struct span host = {blank + 1, text.len - number.len - 1};
	size_t colon = host.len;

	while (colon && host.data[colon - 1] != ':')
		colon--;
	if (!colon)
		return -1;
	if (!resp_number(number, &slot) || slot < 0 || slot >= SLOTS_N ||
		!resp_number((struct span){host.data + colon, host.len - colon}, &port))
		return -1;
	r->slot = (uint16_t)slot;
	return slots_address((struct span){host.data, colon - 1}, port, asked, r->address);
}

struct redirection slots_redirection(struct span line, const char *asked)
{
	struct redirection r = {.kind = REDIRECTION_NONE};

	while (line.len && (line.data[line.len - 1] == '\n' || line.data[line.len - 1] == '\r'))
		line.len--;
	if (takes(&line, "-MOVED "))
		r.kind = REDIRECTION_MOVED;
	else if (takes(&line, "-ASK "))
		r.kind = REDIRECTION_ASK;
	else if (takes(&line, "-TRYAGAIN") || takes(&line, "-CLUSTERDOWN"))
		r.kind = REDIRECTION_LATER;
	else if (takes(&line, "-MASTERDOWN") || takes(&line, "-LOADING"))
		r.kind = REDIRECTION_REPLICA;
	if ((r.kind == REDIRECTION_MOVED || r.kind == REDIRECTION_ASK) &&
		read_target(line, asked, &r) < 0)
		r.kind = REDIRECTION_NONE;
	return r;
}
