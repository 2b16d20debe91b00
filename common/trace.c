#include "common/trace.h"

#include <string.h>
#include <sys/random.h>

#include "common/log.h"

/*
 * Random bytes for ids, fetched in blocks: a system call for each span would cost more than the
 * rest of it. A child of fork() would repeat its parent's block; ours exec at once.
 */
static void random_bytes(uint8_t *data, size_t len)
{
	static __thread uint8_t pool[512];
	static __thread size_t left;
	if (left < len) {
		for (size_t have = 0; have < sizeof pool;) {
			ssize_t n = getrandom(pool + have, sizeof pool - have, 0);
			if (n > 0)
				have += (size_t)n;
		}
		left = sizeof pool;
	}
	left -= len;
	memcpy(data, pool + left, len);
}

static bool is_zero(const uint8_t *id, size_t len)
{
	uint8_t any = 0;
	for (size_t i = 0; i < len; i++)
		any |= id[i];
	return any == 0;
}

/* All zero is not a valid id. */
static void random_id(uint8_t *id, size_t len)
{
	do
		random_bytes(id, len);
	while (is_zero(id, len));
}

/* Lower case only, as the specification has it. */
static int parse_hex(const char *text, uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < 2 * n; i++) {
		char c = text[i];
		int digit = c >= '0' && c <= '9'   ? c - '0'
			    : c >= 'a' && c <= 'f' ? c - 'a' + 10
						   : -1;
		if (digit < 0)
			return -1;
		bytes[i / 2] = (uint8_t)(i % 2 ? bytes[i / 2] | digit : digit << 4);
	}
	return 0;
}

int trace_parse(struct span text, struct trace *trace)
{
	uint8_t version, flags;
	struct trace parsed;
	if (!text.data || text.len < TRACE_PARENT_LEN || parse_hex(text.data, &version, 1) < 0)
		return -1;
	/* A later version may add fields after another dash, and must keep these. */
	if (version == 0xff || (version == 0 && text.len != TRACE_PARENT_LEN) ||
		(text.len > TRACE_PARENT_LEN && text.data[TRACE_PARENT_LEN] != '-'))
		return -1;
	if (text.data[2] != '-' || text.data[35] != '-' || text.data[52] != '-')
		return -1;
	if (parse_hex(text.data + 3, parsed.trace_id, 16) < 0 ||
		parse_hex(text.data + 36, parsed.span_id, 8) < 0 ||
		parse_hex(text.data + 53, &flags, 1) < 0)
		return -1;
	if (is_zero(parsed.trace_id, 16) || is_zero(parsed.span_id, 8))
		return -1;
	parsed.sampled = flags & 1;
	*trace = parsed;
	return 0;
}

void trace_start(struct trace *trace, bool sampled)
{
	random_id(trace->trace_id, sizeof trace->trace_id);
	random_id(trace->span_id, sizeof trace->span_id);
	trace->sampled = sampled;
}

struct trace trace_child(const struct trace *parent)
{
	struct trace child = *parent;
	random_id(child.span_id, sizeof child.span_id);
	return child;
}

char *trace_format_hex(char *to, const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		*to++ = "0123456789abcdef"[bytes[i] >> 4];
		*to++ = "0123456789abcdef"[bytes[i] & 15];
	}
	return to;
}

void trace_format(const struct trace *trace, char text[TRACE_PARENT_LEN + 1])
{
	memcpy(text, "00-", 3);
	char *to = trace_format_hex(text + 3, trace->trace_id, 16);
	*to++ = '-';
	to = trace_format_hex(to, trace->span_id, 8);
	memcpy(to, trace->sampled ? "-01" : "-00", 4);
	BUG_ON(to + 3 != text + TRACE_PARENT_LEN);
}

void trace_state_copy(struct span value, char state[TRACE_STATE_MAX_BYTES + 1])
{
	state[0] = '\0';
	if (!value.data || value.len > TRACE_STATE_MAX_BYTES)
		return;
	for (size_t i = 0; i < value.len; i++)
		if (value.data[i] < 0x20 || value.data[i] > 0x7e)
			return;
	memcpy(state, value.data, value.len);
	state[value.len] = '\0';
}

const char *trace_format_text(const struct trace *trace, char text[TRACE_PARENT_LEN + 1])
{
	if (!trace)
		return NULL;
	trace_format(trace, text);
	return text;
}
