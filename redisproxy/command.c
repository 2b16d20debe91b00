#include "redisproxy/command.h"

#include <stdlib.h>
#include <string.h>

#include "redisproxy/stats.h"

#define SLOTS 4096 /* a power of two, sparse */

static const struct {
	enum command_kind kind;
	const char *names;
} kinds[] = {
	{COMMAND_ANYWHERE, "ping echo"},
	{COMMAND_SCAN, "scan hscan sscan zscan"},
	{COMMAND_BLOCKING,
		"blpop brpop blmove brpoplpush bzpopmin bzpopmax blmpop bzmpop debug migrate"},
	{COMMAND_XREAD, "xread xreadgroup"},
	{COMMAND_SCRIPTED, "eval evalsha fcall eval_ro evalsha_ro fcall_ro"},
	{COMMAND_FUNCTION, "function"},
	{COMMAND_MULTI, "multi"},
	{COMMAND_EXEC, "exec discard"},
	{COMMAND_WATCH, "watch"},
	{COMMAND_UNWATCH, "unwatch"},
	{COMMAND_OWN,
		"subscribe psubscribe ssubscribe unsubscribe punsubscribe sunsubscribe monitor sync "
		"psync replconf wait waitaof asking readonly readwrite shutdown"},
	{COMMAND_SCRIPT, "script"},
	{COMMAND_CLIENT, "client"},
	{COMMAND_AUTH, "auth"},
	{COMMAND_HELLO, "hello"},
	{COMMAND_SELECT, "select"},
	{COMMAND_RESET, "reset"},
	{COMMAND_QUIT, "quit"},
	{COMMAND_HTTP, "post host:"},
};

/* What a replica serves. Not here although Redis calls them read-only: EVAL_RO and EVALSHA_RO (the
 * script cache is the writer's), TOUCH (it is there to change something). */
static const char reads[] =
	"bitcount bitfield_ro bitpos dbsize dump exists expiretime fcall_ro geodist geohash geopos "
	"georadius_ro georadiusbymember_ro geosearch get getbit getrange hexists hget hgetall hkeys hlen "
	"hmget hrandfield hscan hstrlen hvals keys lcs lindex llen lolwut lpos lrange mget pexpiretime "
	"pfcount pttl randomkey scan scard sdiff sinter sintercard sismember smembers smismember "
	"sort_ro srandmember sscan strlen substr sunion ttl type xlen xpending xrange xread xrevrange "
	"zcard zcount zdiff zinter zintercard zlexcount zmscore zrandmember zrange zrangebylex "
	"zrangebyscore zrank zrevrange zrevrangebylex zrevrangebyscore zrevrank zscan zscore zunion";
static const char writes[] =
	"append bitfield bitop copy decr decrby del eval evalsha exec expire expireat fcall flushall "
	"flushdb function geoadd georadius georadiusbymember geosearchstore getdel getex getset hdel "
	"hincrby hincrbyfloat hmset hset hsetnx incr incrby incrbyfloat linsert lmove lmpop lpop lpush "
	"lpushx lrem lset ltrim mset msetnx move persist pexpire pexpireat pfadd pfmerge psetex "
	"publish rename renamenx restore rpop rpoplpush rpush rpushx sadd sdiffstore set setbit setex "
	"setnx setrange sinterstore smove sort spop srem sunionstore swapdb unlink xack xadd "
	"xautoclaim xclaim xdel xgroup xsetid xtrim zadd zdiffstore zincrby zinterstore zmpop zpopmax "
	"zpopmin zrangestore zrem zremrangebylex zremrangebyrank zremrangebyscore zunionstore blpop "
	"brpop blmove brpoplpush bzpopmin bzpopmax blmpop bzmpop xreadgroup spublish debug script";
/* Redis's flag MAY_REPLICATE, which COMMAND does not tell. */
static const char replicating[] = "pfcount publish spublish";
static const char others[] =
	"acl bgrewriteaof bgsave cluster command config eval_ro evalsha_ro "
	"failover info lastsave latency memory module object pubsub replicaof role "
	"save slaveof slowlog time touch xinfo";

static const char *const fans[] = {"mget", "mset", "del", "unlink", "exists", "touch", "dbsize",
	"keys", "flushall", "flushdb", "scan", "script", "function"};

struct commands {
	struct metrics *metrics;
	struct command *slots[SLOTS];
	unsigned n;
	struct command all[COMMAND_MAX];
	struct command other;
};

/* FNV-1a over the name in lower case, which is written to *lower. */
static uint32_t hash_name(struct span name, char *lower)
{
	uint32_t hash = 2166136261u;

	for (size_t i = 0; i < name.len; i++) {
		char c = name.data[i];

		if (c >= 'A' && c <= 'Z')
			c |= 0x20;
		lower[i] = c;
		hash = (hash ^ (unsigned char)c) * 16777619u;
	}
	return hash;
}

static struct command **find_slot(
	struct commands *commands, const char *lower, size_t len, uint32_t hash)
{
	for (uint32_t i = hash;; i++) {
		struct command **slot = &commands->slots[i % SLOTS];

		if (!*slot || ((*slot)->len == len && memcmp((*slot)->name, lower, len) == 0))
			return slot;
	}
}

struct command *commands_find(struct commands *commands, struct span name)
{
	char lower[COMMAND_MAX_NAME];

	if (name.len == 0 || name.len >= COMMAND_MAX_NAME)
		return &commands->other;
	uint32_t hash = hash_name(name, lower);
	struct command *found = *find_slot(commands, lower, name.len, hash);

	return found ? found : &commands->other;
}

static struct command *add(struct commands *commands, struct span name)
{
	char lower[COMMAND_MAX_NAME];

	if (name.len == 0 || name.len >= COMMAND_MAX_NAME)
		return NULL;
	for (size_t i = 0; i < name.len; i++)
		if ((unsigned char)name.data[i] <= ' ' || (unsigned char)name.data[i] > '~')
			return NULL;
	uint32_t hash = hash_name(name, lower);
	struct command **slot = find_slot(commands, lower, name.len, hash);

	if (*slot)
		return *slot;
	if (commands->n == COMMAND_MAX)
		return NULL;
	struct command *command = *slot = &commands->all[commands->n++];

	memcpy(command->name, lower, name.len);
	command->len = (uint8_t)name.len;
	command->keys = keys_builtin((struct span){lower, name.len});
	return command;
}

void commands_learn(struct commands *commands, struct span name, bool read, bool write,
	const struct keys_rule *keys)
{
	static const char *const kept[] = {"eval_ro", "evalsha_ro", "touch"};
	struct command *command = add(commands, name);

	if (!command)
		return;
	if (keys->find != KEYS_UNKNOWN)
		command->keys = *keys;
	for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
		if (strcmp(command->name, kept[i]) == 0)
			return;
	command->read = read;
	/* EVAL and its like are no writes to the server, and may be. */
	command->write = command->write || write;
}

static void add_words(struct commands *commands, const char *words, int kind, bool read, bool write)
{
	while (*words) {
		size_t len = strcspn(words, " ");
		struct command *command = add(commands, (struct span){words, len});

		if (command) {
			command->read |= read;
			command->write |= write;
			if (kind >= 0)
				command->kind = (enum command_kind)kind;
		}
		words += len + (words[len] == ' ');
	}
}

static void mark_replicating(struct commands *commands, const char *words)
{
	while (*words) {
		size_t len = strcspn(words, " ");

		commands_find(commands, (struct span){words, len})->replicates = true;
		words += len + (words[len] == ' ');
	}
}

static void count(struct commands *commands, struct command *command)
{
	if (!command->calls)
		return;
	if (!command->counter)
		command->counter = metric(
			commands->metrics, &stats_families[STATS_COMMANDS], command->name);
	metric_add(command->counter, (double)command->calls);
	command->calls = 0;
}

static void collect(void *arg)
{
	struct commands *commands = arg;

	for (unsigned i = 0; i < commands->n; i++)
		count(commands, &commands->all[i]);
	count(commands, &commands->other);
}

struct commands *commands_new(struct metrics *metrics)
{
	struct commands *commands = calloc(1, sizeof *commands);

	if (!commands)
		return NULL;
	commands->metrics = metrics;
	memcpy(commands->other.name, COMMAND_OTHER, sizeof COMMAND_OTHER);
	commands->other.len = sizeof COMMAND_OTHER - 1;
	commands->other.keys = (struct keys_rule){.find = KEYS_AT, .at = 1};
	/* It may well write. */
	commands->other.write = true;
	add_words(commands, reads, -1, true, false);
	add_words(commands, writes, -1, false, true);
	add_words(commands, others, -1, false, false);
	for (size_t i = 0; i < sizeof fans / sizeof *fans; i++)
		add(commands, span_of(fans[i]))->fans = true;
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		add_words(commands, kinds[i].names, (int)kinds[i].kind, false, false);
	mark_replicating(commands, replicating);
	if (metrics)
		metrics_on_collect(metrics, collect, commands);
	return commands;
}

void commands_free(struct commands **commands)
{
	free(*commands);
	*commands = NULL;
}
