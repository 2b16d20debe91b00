/* What servers and sentinels say about each other: refused, or addresses that can be connected to.
 * The first byte says whose answer it is. */
#include <hiredis/hiredis.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "redisproxy/keys.h"
#include "redisproxy/resp.h"
#include "redisproxy/sentinel.h"
#include "redisproxy/slots.h"
#include "redisproxy/talk.h"
#include "redisproxy/zone.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool condition)
{
	if (!condition)
		abort();
}

static void must_be_address(const char *address)
{
	const char *colon = strrchr(address, ':');
	int64_t port;
	must(strlen(address) < SLOTS_ADDRESS_BYTES && colon && colon > address);
	must(resp_number(span_of(colon + 1), &port) && port > 0 && port <= 65535);
	must(!strpbrk(address, "/ \r\n"));
}

static void on_range(const struct slots_range *range, void *arg)
{
	(void)arg;
	must(range->first <= range->last && range->last < SLOTS_N);
	must(range->n >= 1 && range->n <= 1 + SLOTS_MAX_REPLICAS);
	for (unsigned i = 0; i < range->n; i++)
		must_be_address(range->nodes[i]);
}

static void try_reply(const redisReply *reply)
{
	char address[SENTINEL_ADDRESS];
	static char replicas[SENTINEL_MAX_REPLICAS][SENTINEL_ADDRESS];
	slots_read(reply, "10.0.0.1:7000", on_range, NULL);
	if (sentinel_read_master(reply, address) == 0)
		must_be_address(address);
	size_t n = sentinel_read_replicas(reply, replicas);
	must(n <= SENTINEL_MAX_REPLICAS);
	for (size_t i = 0; i < n; i++)
		must_be_address(replicas[i]);
	struct keys_rule rule = keys_learn(reply);
	must(rule.find == KEYS_UNKNOWN || rule.find == KEYS_NONE || rule.at >= 0);
	must(memchr(rule.word, 0, sizeof rule.word) != NULL);
}

static void try_replies(const char *text, size_t len)
{
	redisReader *reader = talk_reader_new();
	void *reply = NULL;
	must(reader != NULL);
	redisReaderFeed(reader, text, len);
	while (redisReaderGetReply(reader, &reply) == REDIS_OK && reply) {
		try_reply(reply);
		freeReplyObject(reply);
	}
	redisReaderFree(reader);
}

static void try_line(struct span line)
{
	char address[SENTINEL_ADDRESS];
	struct redirection r = slots_redirection(line, "[::1]:7000");
	if (r.kind == REDIRECTION_MOVED || r.kind == REDIRECTION_ASK) {
		must(r.slot < SLOTS_N);
		must_be_address(r.address);
	}
	if (sentinel_read_switch(line, "m", address) == 0)
		must_be_address(address);
	must(slots_of_key(line) < SLOTS_N);
}

static void try_keys(const char *text, size_t len, uint8_t choice)
{
	static const char *const names[] = {"get", "eval", "xread", "object", "migrate", "zunion"};
	struct resp_command s = {0};
	const char *error;
	struct span key;
	struct keys_rule rule = keys_builtin(span_of(names[choice % 6]));
	/* Of a large command only a beginning is there. */
	if (len < 1 || text[0] != '*' || resp_command_scan(&s, text, len, &error) == RESP_BAD ||
		!s.open || !s.argc)
		return;
	if (keys_first(&rule, text, s.at, &key))
		must(key.data >= text && key.data + key.len + 2 <= text + s.at);
}

static void try_zone(const char *text)
{
	struct zone zone;
	char error[100];
	if (zone_init(&zone, text, "10.1.2.3", error, sizeof error) == 0)
		must(zone.n <= ZONE_MAX_NETWORKS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (len < 1)
		return 0;
	/* An exact copy, so that a sanitizer sees a read beyond the end. */
	char *text = malloc(len);
	must(text != NULL);
	memcpy(text, data + 1, len - 1);
	text[len - 1] = '\0';
	switch (data[0] % 4) {
	case 0:
		try_replies(text, len - 1);
		break;
	case 1: {
		char *exact = malloc(len);
		must(exact != NULL);
		memcpy(exact + 1, text, len - 1);
		try_line((struct span){exact + 1, len - 1});
		free(exact);
		break;
	}
	case 2:
		try_keys(text, len - 1, data[0] / 4);
		break;
	default:
		try_zone(text);
	}
	free(text);
	return 0;
}
