/* Slots, redirections, what sentinels say, zones; where keys stand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <hiredis/hiredis.h>
#include <netinet/in.h>

#include "redisproxy/command.h"
#include "redisproxy/sentinel.h"
#include "redisproxy/slots.h"
#include "redisproxy/talk.h"
#include "redisproxy/zone.h"

static redisReply *reply_of(const char *text)
{
	redisReader *reader = talk_reader_new();
	void *reply = NULL;
	redisReaderFeed(reader, text, strlen(text));
	assert_int_equal(redisReaderGetReply(reader, &reply), REDIS_OK);
	assert_non_null(reply);
	redisReaderFree(reader);
	return reply;
}

static void keys_have_slots(void **state)
{
	/* From a redis-server's CLUSTER KEYSLOT. */
	static const struct {
		const char *key;
		uint16_t slot;
	} known[] = {{"", 0}, {"foo", 12182}, {"{foo}bar", 12182}, {"x{foo}", 12182},
		{"foo{}{bar}", 8363}, {"{}foo", 9500}, {"foo{bar", 15278}, {"123456789", 12739}};
	(void)state;
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		assert_int_equal(slots_of_key(span_of(known[i].key)), known[i].slot);
}

static void redirections_are_read(void **state)
{
	struct redirection r = slots_redirection(
		SPAN_LITERAL("-MOVED 3999 127.0.0.1:6381\r\n"), "10.0.0.1:7000");
	(void)state;
	assert_int_equal(r.kind, REDIRECTION_MOVED);
	assert_int_equal(r.slot, 3999);
	assert_string_equal(r.address, "127.0.0.1:6381");
	r = slots_redirection(SPAN_LITERAL("-ASK 0 :6381\r\n"), "10.0.0.1:7000");
	assert_int_equal(r.kind, REDIRECTION_ASK);
	assert_string_equal(r.address, "10.0.0.1:6381");
	r = slots_redirection(SPAN_LITERAL("-MOVED 16383 fd00::1:6381"), "10.0.0.1:7000");
	assert_string_equal(r.address, "[fd00::1]:6381");
	r = slots_redirection(SPAN_LITERAL("-MOVED 1 ?:6381"), "[::1]:7000");
	assert_string_equal(r.address, "[::1]:6381");
	r = slots_redirection(SPAN_LITERAL("-MOVED 1 redis-0.svc:6381"), "[::1]:7000");
	assert_string_equal(r.address, "redis-0.svc:6381");
	assert_int_equal(slots_redirection(SPAN_LITERAL("-TRYAGAIN Multiple keys\r\n"), "a:1").kind,
		REDIRECTION_LATER);
	static const char *const none[] = {"-MOVED", "-MOVED 1", "-MOVED 16384 a:1",
		"-MOVED -1 a:1", "-MOVED 1 a", "-MOVED 1 a:0", "-MOVED 1 a:65536", "-MOVED 1 a/b:1",
		"-MOVED 1 a b:1", "-MOVED x a:1", "-MOVEDX 1 a:1", "-ERR MOVED 1 a:1", "",
		"-ASK 1 :"};
	for (size_t i = 0; i < sizeof none / sizeof *none; i++)
		assert_int_equal(slots_redirection(span_of(none[i]), "a:1").kind, REDIRECTION_NONE);
}

static void count_range(const struct slots_range *range, void *arg)
{
	unsigned *n = arg;
	*n += range->n;
}

static void slots_are_read(void **state)
{
	unsigned n = 0;
	redisReply *reply = reply_of(
		"*2\r\n*4\r\n:0\r\n:10\r\n*3\r\n$1\r\na\r\n:1\r\n$2\r\nid\r\n"
		"*2\r\n$-1\r\n:2\r\n*3\r\n:11\r\n:16383\r\n*2\r\n$0\r\n\r\n:3\r\n");
	(void)state;
	assert_int_equal(slots_read(reply, "h:9", count_range, &n), 0);
	assert_int_equal(n, 3);
	freeReplyObject(reply);
	static const char *const bad[] = {"-ERR no\r\n", "*1\r\n*2\r\n:0\r\n:1\r\n",
		"*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\na\r\n:1\r\n",
		"*1\r\n*3\r\n:5\r\n:4\r\n*2\r\n$1\r\na\r\n:1\r\n",
		"*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\n/\r\n:1\r\n",
		"*1\r\n*3\r\n:0\r\n:1\r\n$1\r\na\r\n",
		/* the second one is bad: nothing was told of the first */
		"*2\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\na\r\n:1\r\n:1\r\n"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		n = 0;
		reply = reply_of(bad[i]);
		assert_int_equal(slots_read(reply, "h:9", count_range, &n), -1);
		assert_int_equal(n, 0);
		freeReplyObject(reply);
	}
}

static void sentinels_are_understood(void **state)
{
	char address[SENTINEL_ADDRESS];
	char replicas[SENTINEL_MAX_REPLICAS][SENTINEL_ADDRESS];
	(void)state;
	assert_int_equal(
		sentinel_read_switch(SPAN_LITERAL("m 10.0.0.1 6379 10.0.0.2 6380"), "m", address),
		0);
	assert_string_equal(address, "10.0.0.2:6380");
	static const char *const bad[] = {"", "m", "m a 1 b", "m a 1 b 2 c", "other a 1 b 2",
		"m a 1 b x", "m a 1 b 2 ", " m a 1 b 2", "m  1 b 2"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(sentinel_read_switch(span_of(bad[i]), "m", address), -1);
	redisReply *reply = reply_of(
		"*4\r\n*8\r\n$2\r\nip\r\n$1\r\na\r\n$4\r\nport\r\n$1\r\n1\r\n$5\r\nflags\r\n"
		"$5\r\nslave\r\n$18\r\nmaster-link-status\r\n$2\r\nok\r\n"
		"*8\r\n$2\r\nip\r\n$1\r\nb\r\n$4\r\nport\r\n$1\r\n2\r\n$5\r\nflags\r\n"
		"$12\r\ns_down,slave\r\n$18\r\nmaster-link-status\r\n$2\r\nok\r\n"
		"*8\r\n$2\r\nip\r\n$1\r\nc\r\n$4\r\nport\r\n$1\r\n3\r\n$5\r\nflags\r\n"
		"$5\r\nslave\r\n$18\r\nmaster-link-status\r\n$3\r\nerr\r\n:1\r\n");
	assert_int_equal(sentinel_read_replicas(reply, replicas), 1);
	assert_string_equal(replicas[0], "a:1");
	freeReplyObject(reply);
	reply = reply_of("*-1\r\n");
	assert_int_equal(sentinel_read_master(reply, address), -1);
	freeReplyObject(reply);
}

static bool is_near(const struct zone *zone, const char *text)
{
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
		return zone_has(zone, (struct sockaddr *)&v4);
	assert_int_equal(inet_pton(AF_INET6, text, &v6.sin6_addr), 1);
	return zone_has(zone, (struct sockaddr *)&v6);
}

static void zones_hold_addresses(void **state)
{
	struct zone zone;
	char error[100];
	(void)state;
	assert_int_equal(zone_init(&zone, "10.1.0.0/16, 10.2.0.0/16 fd00:2::/32", "10.2.3.4", error,
				 sizeof error),
		0);
	assert_true(is_near(&zone, "10.2.255.255"));
	assert_false(is_near(&zone, "10.1.0.1"));
	assert_false(is_near(&zone, "fd00:2::1"));
	/* as a v6 socket shows a v4 peer */
	assert_true(is_near(&zone, "::ffff:10.2.0.1"));
	assert_int_equal(zone_init(&zone, "fd00:2::/33", "fd00:2:7fff::1", error, sizeof error), 0);
	assert_true(is_near(&zone, "fd00:2::1"));
	assert_false(is_near(&zone, "fd00:2:8000::1"));
	assert_int_equal(zone_init(&zone, "0.0.0.0/0", "10.0.0.1", error, sizeof error), 0);
	assert_true(is_near(&zone, "192.0.2.1"));
	assert_false(is_near(&zone, "2001:db8::1"));
	assert_int_equal(zone_init(&zone, "10.0.0.1", "10.0.0.1", error, sizeof error), 0);
	assert_true(is_near(&zone, "10.0.0.1"));
	assert_int_equal(zone_init(&zone, "10.0.0.0/8", "", error, sizeof error), 0);
	assert_false(is_near(&zone, "10.0.0.1"));
	static const char *const bad[] = {"10.0.0.0/33", "10.0.0/8", "x", "10.0.0.0/",
		"10.0.0.0/8x", "10.0.0.0/-1", "fd00::/129", "10.0.0.0/8/8"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(zone_init(&zone, bad[i], "", error, sizeof error), -1);
	assert_int_equal(zone_init(&zone, "", "pod-7", error, sizeof error), -1);
	assert_string_equal(error, "pod-7 is no numeric address");
}

/* The key of this command by the built-in table; NULL: none. */
static void expect_key(struct commands *commands, const char *frame, const char *want)
{
	struct span name = {strchr(frame, '$') + 4, (size_t)(strchr(frame, '$')[1] - '0')}, key;
	struct command *command = commands_find(commands, name);
	bool found = keys_first(&command->keys, frame, strlen(frame), &key);
	assert_int_equal(found, want != NULL);
	if (want)
		assert_true(span_equal_str(key, want));
	/* Within fewer bytes: not found, or the same. */
	for (size_t len = 4; len < strlen(frame); len++)
		if (keys_first(&command->keys, frame, len, &key))
			assert_true(want && span_equal_str(key, want));
}

static void keys_are_found(void **state)
{
	struct commands *commands = commands_new(NULL);
	(void)state;
	expect_key(commands, "*2\r\n$3\r\nGET\r\n$1\r\na\r\n", "a");
	expect_key(commands, "*1\r\n$3\r\nGET\r\n", NULL);
	expect_key(commands, "*1\r\n$4\r\nPING\r\n", NULL);
	expect_key(commands, "*4\r\n$4\r\nEVAL\r\n$1\r\ns\r\n$1\r\n1\r\n$1\r\nk\r\n", "k");
	expect_key(commands, "*4\r\n$4\r\nEVAL\r\n$1\r\ns\r\n$1\r\n0\r\n$1\r\nk\r\n", NULL);
	expect_key(commands, "*4\r\n$4\r\nEVAL\r\n$1\r\ns\r\n$1\r\nx\r\n$1\r\nk\r\n", NULL);
	expect_key(commands, "*4\r\n$5\r\nXREAD\r\n$7\r\nstreams\r\n$1\r\nk\r\n$1\r\n0\r\n", "k");
	expect_key(commands, "*2\r\n$5\r\nXREAD\r\n$7\r\nSTREAMS\r\n", NULL);
	expect_key(commands, "*3\r\n$6\r\nOBJECT\r\n$4\r\nFREQ\r\n$1\r\nk\r\n", "k");
	expect_key(commands, "*4\r\n$5\r\nBITOP\r\n$3\r\nNOT\r\n$1\r\nd\r\n$1\r\ns\r\n", "d");
	commands_free(&commands);
}

/* Found by fuzzing: hiredis would take memory for all that is announced, and look at all of it. */
static void announced_arrays_are_bounded(void **state)
{
	static const char *const texts[] = {
		"*65537\r\n", "*42222222\r\n", "*1\r\n*2\r\n*2147483647\r\n"};
	void *reply = NULL;
	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		redisReader *reader = talk_reader_new();
		redisReaderFeed(reader, texts[i], strlen(texts[i]));
		assert_int_equal(redisReaderGetReply(reader, &reply), REDIS_ERR);
		redisReaderFree(reader);
	}
	redisReader *reader = talk_reader_new();
	redisReaderFeed(reader, "*65536\r\n", 8);
	assert_int_equal(redisReaderGetReply(reader, &reply), REDIS_OK);
	assert_null(reply);
	redisReaderFree(reader);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_have_slots),
		cmocka_unit_test(redirections_are_read),
		cmocka_unit_test(slots_are_read),
		cmocka_unit_test(sentinels_are_understood),
		cmocka_unit_test(zones_hold_addresses),
		cmocka_unit_test(keys_are_found),
		cmocka_unit_test(announced_arrays_are_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
