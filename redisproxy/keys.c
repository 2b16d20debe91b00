#include "redisproxy/keys.h"

#include <hiredis/hiredis.h>
#include <string.h>
#include <strings.h>

#include "redisproxy/resp.h"

/* Columns of COMMAND's rows. */
enum { NAME, ARITY, FLAGS, FIRST_KEY, LAST_KEY, STEP, CATEGORIES, TIPS, SPECS, SUBCOMMANDS };

/* ---- until the server has told ---- */

static const char none[] =
	" ping echo dbsize keys lolwut randomkey scan publish flushall flushdb swapdb exec discard "
	"multi unwatch function script debug acl bgrewriteaof bgsave cluster command config failover "
	"info lastsave latency module pubsub replicaof role save slaveof slowlog time wait waitaof "
	"subscribe psubscribe unsubscribe punsubscribe monitor sync psync replconf asking readonly "
	"readwrite shutdown client auth hello select reset quit ";
static const char at_two[] = " bitop object xgroup xinfo memory ";
static const char counted_at_one[] =
	" lmpop sintercard zdiff zinter zintercard zmpop zunion "; /* numkeys key */
static const char counted_at_two[] =
	" blmpop bzmpop eval evalsha eval_ro evalsha_ro fcall fcall_ro ";

static bool among(const char *words, struct span name)
{
	for (const char *at = words; (at = memmem(at, strlen(at), name.data, name.len)); at++)
		if (at[-1] == ' ' && at[name.len] == ' ')
			return true;
	return false;
}

struct keys_rule keys_builtin(struct span name)
{
	if (!name.len || among(none, name))
		return (struct keys_rule){.find = KEYS_NONE};
	if (among(at_two, name))
		return (struct keys_rule){.find = KEYS_AT, .at = 2};
	if (among(counted_at_one, name))
		return (struct keys_rule){.find = KEYS_COUNTED, .at = 1, .first = 2};
	if (among(counted_at_two, name))
		return (struct keys_rule){.find = KEYS_COUNTED, .at = 2, .first = 3};
	if (among(" xread xreadgroup ", name))
		return (struct keys_rule){.find = KEYS_AFTER, .at = 1, .word = "STREAMS"};
	if (among(" migrate ", name))
		return (struct keys_rule){.find = KEYS_AT, .at = 3};
	return (struct keys_rule){.find = KEYS_AT, .at = 1};
}

/* ---- key specifications ---- */

/* The value at a name in a flat list of names and values. */
static const redisReply *field(const redisReply *list, const char *name)
{
	if (!list || list->type != REDIS_REPLY_ARRAY)
		return NULL;
	for (size_t i = 0; i + 1 < list->elements; i += 2) {
		const redisReply *key = list->element[i];

		if ((key->type == REDIS_REPLY_STRING || key->type == REDIS_REPLY_STATUS) &&
			strcasecmp(key->str, name) == 0)
			return list->element[i + 1];
	}
	return NULL;
}

static bool number_in(const redisReply *list, const char *name, int min, int8_t *to)
{
	const redisReply *value = field(list, name);

	if (!value || value->type != REDIS_REPLY_INTEGER || value->integer < min ||
		value->integer > 100)
		return false;
	*to = (int8_t)value->integer;
	return true;
}

static bool is_text(const redisReply *reply, const char *text)
{
	return reply && (reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS) &&
	       strcasecmp(reply->str, text) == 0;
}

static struct keys_rule read_spec(const redisReply *spec)
{
	struct keys_rule unknown = {.find = KEYS_UNKNOWN}, rule = {.find = KEYS_AT};
	const redisReply *begin = field(spec, "begin_search"), *find = field(spec, "find_keys");
	const redisReply *begins = field(begin, "spec"), *finds = field(find, "spec");
	int8_t count_at, first;

	if (is_text(field(begin, "type"), "keyword")) {
		const redisReply *word = field(begins, "keyword");

		if (!word || word->type != REDIS_REPLY_STRING || word->len == 0 ||
			(size_t)word->len >= sizeof rule.word ||
			!number_in(begins, "startfrom", 1, &rule.at))
			return unknown;
		rule.find = KEYS_AFTER;
		memcpy(rule.word, word->str, (size_t)word->len);
	} else if (!is_text(field(begin, "type"), "index") ||
		   !number_in(begins, "index", 1, &rule.at)) {
		return unknown;
	}
	if (is_text(field(find, "type"), "range"))
		return rule;
	if (!is_text(field(find, "type"), "keynum") || rule.find != KEYS_AT ||
		!number_in(finds, "keynumidx", 0, &count_at) ||
		!number_in(finds, "firstkey", 0, &first) || rule.at + count_at > 100 ||
		rule.at + first > 100)
		return unknown;
	rule.find = KEYS_COUNTED;
	rule.first = (int8_t)(rule.at + first);
	rule.at = (int8_t)(rule.at + count_at);
	return rule;
}

static const redisReply *column(const redisReply *row, size_t at, int type)
{
	return row->type == REDIS_REPLY_ARRAY && row->elements > at &&
			       row->element[at]->type == type
		       ? row->element[at]
		       : NULL;
}

static int8_t first_key(const redisReply *row)
{
	const redisReply *first = column(row, FIRST_KEY, REDIS_REPLY_INTEGER);

	return first && first->integer > 0 && first->integer <= 100 ? (int8_t)first->integer : 0;
}

/* Does it say that its keys move, so that its first-key column is not the whole truth? */
static bool keys_move(const redisReply *row)
{
	const redisReply *flags = column(row, FLAGS, REDIS_REPLY_ARRAY);

	for (size_t i = 0; flags && i < flags->elements; i++)
		if (is_text(flags->element[i], "movablekeys"))
			return true;
	return false;
}

struct keys_rule keys_learn(const redisReply *row)
{
	const redisReply *specs = column(row, SPECS, REDIS_REPLY_ARRAY);
	const redisReply *subcommands = column(row, SUBCOMMANDS, REDIS_REPLY_ARRAY);
	int8_t first = first_key(row);

	if (first)
		return (struct keys_rule){.find = KEYS_AT, .at = first};
	for (size_t i = 0; specs && i < specs->elements; i++) {
		struct keys_rule rule = read_spec(specs->element[i]);

		if (rule.find != KEYS_UNKNOWN)
			return rule;
	}
	/* OBJECT ENCODING key: the container has no keys, its subcommands do. */
	for (size_t i = 0; subcommands && i < subcommands->elements; i++) {
		first = first_key(subcommands->element[i]);
		if (first)
			return (struct keys_rule){.find = KEYS_AT, .at = first};
	}
	/* Servers before 7 have no more to say about those. */
	return (struct keys_rule){.find = specs && !keys_move(row) ? KEYS_NONE : KEYS_UNKNOWN};
}

/* ---- looking ---- */

/* As resp_arguments_next(), of the arguments that are here with the end of their own line. */
static bool next_within(struct resp_arguments *a, const char *end, struct span *argument)
{
	const char *p = a->at + 1; /* behind the '$' */
	size_t len = 0;

	if (!a->left)
		return false;
	while (p < end && *p != '\r')
		len = len * 10 + (size_t)(*p++ - '0');
	if (end - p < 4 || len > (size_t)(end - p) - 4)
		return false;
	*argument = (struct span){p + 2, len};
	a->at = p + 2 + len + 2;
	a->left--;
	return true;
}

bool keys_first(const struct keys_rule *rule, const char *frame, size_t len, struct span *key)
{
	struct resp_arguments a = resp_arguments_of(frame);
	const char *end = frame + len;
	int64_t count = 1;
	int at = rule->find == KEYS_COUNTED ? rule->first : rule->at;

	if (rule->find <= KEYS_NONE)
		return false;
	if (rule->find == KEYS_AT) {
		while (next_within(&a, end, key))
			if (!at--)
				return true;
		return false;
	}
	for (int i = 0; next_within(&a, end, key); i++) {
		if (rule->find == KEYS_COUNTED && i == rule->at &&
			(!resp_number(*key, &count) || count <= 0))
			return false;
		if (rule->find == KEYS_AFTER) {
			if (i >= rule->at && span_equal_nocase(*key, rule->word))
				return next_within(&a, end, key);
		} else if (i == at) {
			return true;
		}
	}
	return false;
}
