#include "gatewayd/surrogate_keys.h"

#include <stdlib.h>

#include "common/buf.h"
#include "gatewayd/exchange.h"

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool is_given(const struct span *keys, int n, struct span key)
{
	for (int i = 0; i < n; i++)
		if (span_equal(keys[i], key))
			return true;
	return false;
}

int surrogate_keys_add(
	struct span field, struct span keys[SURROGATE_MAX_KEYS], int n, const char **reason)
{
	for (size_t at = 0; at < field.len;) {
		if (is_blank(field.data[at])) {
			at++;
			continue;
		}
		struct span key = {field.data + at, 0};
		for (; at < field.len && !is_blank(field.data[at]); at++, key.len++) {
			if (field.data[at] < 0x21 || field.data[at] > 0x7e) {
				*reason =
					"Surrogate-Key: a tag is made of visible ASCII characters.";
				return -1;
			}
		}
		if (key.len > SURROGATE_MAX_KEY_BYTES) {
			*reason = "Surrogate-Key: a tag has at most 256 bytes.";
			return -1;
		}
		if (is_given(keys, n, key))
			continue;
		if (n == SURROGATE_MAX_KEYS) {
			*reason = "Surrogate-Key: at most 32 tags.";
			return -1;
		}
		keys[n++] = key;
	}
	return n;
}

int surrogate_keys_read(
	struct span field, struct span keys[SURROGATE_MAX_KEYS], const char **reason)
{
	return surrogate_keys_add(field, keys, 0, reason);
}

int surrogate_keys_of_request(
	const struct exchange *exchange, struct span keys[SURROGATE_MAX_KEYS], const char **reason)
{
	struct span name, value;
	int n = 0;
	if (!exchange_header(exchange, "surrogate-key").data)
		return 0;
	for (size_t i = 0; n >= 0 && exchange_header_at(exchange, i, &name, &value); i++)
		if (span_equal_nocase(name, "surrogate-key"))
			n = surrogate_keys_add(value, keys, n, reason);
	return n;
}

struct cache_tag_key surrogate_key_of_model(struct span model)
{
	struct buf name = BUF_INIT(SIZE_MAX / 2);
	buf_append_str(&name, "model:");
	buf_append(&name, model.data, model.len);
	struct cache_tag_key key = cache_tag_key(
		CACHE_TAG_NAME, (struct span){(char *)name.data, name.len});
	buf_free(&name);
	return key;
}

struct element_tags *element_tags_new(struct span model, const struct span *names, size_t n)
{
	size_t len = 0;
	for (size_t i = 0; i < n; i++)
		len += names[i].len + 1;
	struct element_tags *tags = malloc(
		sizeof *tags + (n + 2) * sizeof(struct cache_tag_key) + len);
	if (!tags)
		return NULL;
	tags->references = 1;
	tags->n = n + 2;
	tags->keys = (struct cache_tag_key *)(tags + 1);
	tags->keys[0] = cache_tag_key(CACHE_TAG_ELEMENTS, (struct span){0});
	tags->keys[1] = surrogate_key_of_model(model);
	char *text = (char *)(tags->keys + tags->n), *at = text;
	for (size_t i = 0; i < n; i++) {
		tags->keys[i + 2] = cache_tag_key(CACHE_TAG_NAME, names[i]);
		at = mempcpy(at, names[i].data, names[i].len);
		*at++ = ' ';
	}
	tags->field = (struct span){text, len > 0 ? len - 1 : 0};
	return tags;
}

struct element_tags *element_tags_ref(struct element_tags *tags)
{
	if (tags)
		tags->references++;
	return tags;
}

struct cache_tagging element_tagging(const struct element_tags *tags, uint64_t since)
{
	return (struct cache_tagging){
		.since = since, .keys = tags ? tags->keys : NULL, .n = tags ? tags->n : 0};
}

void element_tags_unref(struct element_tags **pointer)
{
	struct element_tags *tags = *pointer;
	*pointer = NULL;
	if (tags && --tags->references == 0)
		free(tags);
}
