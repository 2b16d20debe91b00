/*
 * The boundary scan and the frame parser. The oracle is msgpack-c: what the scan calls one whole
 * object, it must unpack to the same length; and a scan in two steps must say the same as in one.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <msgpack/unpack.h>

#include "common/rpc_frame.h"
#include "common/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
	if (!holds)
		abort();
}

static void check_inside(struct span part, const uint8_t *data, size_t size)
{
	const uint8_t *at = (const uint8_t *)part.data;
	check(part.len == 0 || (at >= data && part.len <= size && at + part.len <= data + size));
}

static void check_against_msgpack(const uint8_t *data, size_t len)
{
	msgpack_unpacked unpacked;
	msgpack_unpacked_init(&unpacked);
	size_t at = 0;
	msgpack_unpack_return rc = msgpack_unpack_next(&unpacked, (const char *)data, len, &at);
	check(rc == MSGPACK_UNPACK_SUCCESS && at == len);
	msgpack_unpacked_destroy(&unpacked);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size > 65536)
		return 0;
	size_t at = 0;
	while (at < size) {
		size_t left = size - at;
		struct wire_scan whole = {0}, parts = {0};
		enum wire_progress progress = wire_scan(&whole, data + at, left, 65536);
		enum wire_progress first = wire_scan(&parts, data + at, left / 2, 65536);
		/* Bad in half of the bytes is bad in all; whole in half is whole. */
		check(first == WIRE_MORE || first == progress);
		if (first == WIRE_MORE) {
			check(wire_scan(&parts, data + at, left, 65536) == progress);
			check(progress != WIRE_DONE || parts.at == whole.at);
		}
		if (progress != WIRE_DONE)
			return 0;
		check(whole.at > 0 && whole.at <= left);
		/* In its own block, so that one byte too far is seen. */
		uint8_t *copy = malloc(whole.at);
		if (!copy)
			return 0;
		memcpy(copy, data + at, whole.at);
		check_against_msgpack(copy, whole.at);
		struct rpc_frame frame;
		if (!rpc_frame_parse((struct span){(const char *)copy, whole.at}, &frame)) {
			check_inside(frame.method, copy, whole.at);
			check_inside(frame.payload, copy, whole.at);
			check_inside(frame.error.message, copy, whole.at);
			check(frame.type != RPC_FRAME_CHUNK || frame.payload.len || frame.end);
		}
		free(copy);
		at += whole.at;
	}
	return 0;
}
