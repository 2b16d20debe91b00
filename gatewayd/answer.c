#include "gatewayd/answer.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/json.h"
#include "common/messages.h"
#include "gatewayd/stats.h"
#include "gatewayd/vector.h"
#include "gatewayd/cache_tags.h"

#define HEAD           "{\"object\":\"list\",\"data\":["
#define ELEMENT_HEAD   "{\"object\":\"embedding\",\"index\":"
#define ELEMENT_MIDDLE ",\"embedding\":"

static int write_embedding(
	struct cache_object *element, enum query_encoding encoding, struct buf *out)
{
	struct span form;
	if (encoding == QUERY_FLOAT) {
		if (cache_object_form(element, CACHE_TEXT, &form))
			return buf_append(out, form.data, form.len);
		cache_object_form(element, CACHE_BASE64, &form);
		return vector_text_append(form, out);
	}
	buf_append_char(out, '"');
	if (cache_object_form(element, CACHE_BASE64, &form)) {
		buf_append(out, form.data, form.len);
	} else {
		cache_object_form(element, CACHE_TEXT, &form);
		if (vector_base64_append(form, out) < 0)
			return -1;
	}
	return buf_append_char(out, '"');
}

static void write_tail(const struct answer *answer, struct buf *out)
{
	uint64_t prompt = 0, total = 0;
	for (size_t i = 0; i < answer->n; i++) {
		const struct cache_object_info *info = cache_object_info(answer->elements[i]);
		prompt += info->prompt_tokens;
		total += info->total_tokens;
	}
	const struct cache_object_info *first = cache_object_info(answer->elements[0]);
	buf_append_str(out, "],\"model\":");
	json_append_string(out, first->served_model.len ? first->served_model : first->model);
	buf_printf(out, ",\"usage\":{\"prompt_tokens\":%" PRIu64 ",\"total_tokens\":%" PRIu64 "}}",
		prompt, total);
}

int answer_write_some(
	const struct answer *answer, size_t *next, size_t at_least_bytes, struct buf *out)
{
	if (*next == 0)
		buf_append_str(out, HEAD);
	while (*next < answer->n && (out->len < at_least_bytes || *next == 0)) {
		buf_printf(out, "%s" ELEMENT_HEAD "%zu" ELEMENT_MIDDLE, *next ? "," : "", *next);
		if (write_embedding(answer->elements[*next], answer->encoding, out) < 0)
			return -1;
		buf_append_char(out, '}');
		if (++*next == answer->n)
			write_tail(answer, out);
	}
	return buf_failed(out) ? -1 : 0;
}

int answer_write(const struct answer *answer, struct buf *out)
{
	size_t next = 0;
	return answer_write_some(answer, &next, SIZE_MAX, out);
}

int64_t answer_length(const struct answer *answer)
{
	if (answer->encoding != QUERY_BASE64)
		return -1;
	struct buf tail = BUF_INIT(8192);
	write_tail(answer, &tail);
	if (buf_failed(&tail)) {
		buf_free(&tail);
		return -1;
	}
	int64_t length = (int64_t)(sizeof HEAD - 1 + tail.len);
	buf_free(&tail);
	for (size_t i = 0; i < answer->n; i++) {
		char index[24];
		length += snprintf(index, sizeof index, "%zu", i) + (i ? 1 : 0);
		length += (int64_t)(sizeof ELEMENT_HEAD - 1 + sizeof ELEMENT_MIDDLE - 1 +
				    vector_base64_len(
					    cache_object_info(answer->elements[i])->dims) +
				    3);
	}
	return length;
}

static int pack_element(
	struct cache_object *element, size_t index, const char *source, struct buf *out)
{
	const struct cache_object_info *info = cache_object_info(element);
	enum cache_form form = cache_object_own_form(element);
	struct msg_fetch_element message = {
		.index = index,
		.source = span_of(source),
		.text = form == CACHE_TEXT,
		.dims = info->dims,
		.prompt_tokens = info->prompt_tokens,
		.total_tokens = info->total_tokens,
		.stored_ms = info->stored_ms,
		.served_model = info->served_model,
	};
	struct cache_tag_key tags[CACHE_MAX_TAGS];
	size_t n_tags = cache_object_tags(element, tags);
	message.tags = (struct span){(char *)tags, n_tags * sizeof tags[0]};
	cache_object_form(element, form, &message.vector);
	return msg_fetch_element_pack(&message, out);
}

int answer_pack_some(const struct answer *answer, const uint8_t *sources, size_t *next,
	size_t at_least_bytes, struct buf *out)
{
	static const char *const names[STATS_SOURCES] = {[STATS_MEMORY] = "memory",
		[STATS_STORE] = "store",
		[STATS_BOUGHT] = "bought",
		[STATS_JOINED] = "joined"};
	while (*next < answer->n && out->len < at_least_bytes) {
		if (pack_element(answer->elements[*next], *next, names[sources[*next]], out) < 0)
			return -1;
		++*next;
	}
	return 0;
}
