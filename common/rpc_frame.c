#include "common/rpc_frame.h"

#include "common/wire.h"

enum { TYPE_REQUEST, TYPE_RESPONSE, TYPE_NOTIFICATION };

static int read_id(struct wire *w, uint32_t *id)
{
	uint64_t value;
	if (wire_read_u64(w, &value) != 0 || value > UINT32_MAX)
		return -1;
	*id = (uint32_t)value;
	return 0;
}

static int read_packed_array(struct wire *w, struct span *raw)
{
	struct wire peek = *w;
	uint32_t count;
	if (wire_read_array(&peek, &count) != 0)
		return -1;
	return wire_skip(w, raw);
}

static const char *parse_request(struct wire *w, struct rpc_frame *frame)
{
	frame->type = RPC_FRAME_REQUEST;
	if (read_id(w, &frame->id) != 0)
		return "request id is not a 32-bit number";
	if (wire_read_str(w, &frame->method) != 0)
		return "method is not a string";
	if (read_packed_array(w, &frame->payload) != 0)
		return "params is not an array";
	return NULL;
}

static const char *parse_response(struct wire *w, struct rpc_frame *frame)
{
	if (read_id(w, &frame->id) != 0)
		return "response id is not a 32-bit number";
	if (wire_read_nil(w) == 0) {
		frame->type = RPC_FRAME_RESULT;
		return wire_skip(w, &frame->payload) == 0 ? NULL : "result is cut short";
	}
	frame->type = RPC_FRAME_ERROR;
	uint32_t count;
	int64_t code;
	if (wire_read_array(w, &count) != 0 || count < 2)
		return "error is not an array of code and message";
	if (wire_read_i64(w, &code) != 0 || code < INT32_MIN || code > INT32_MAX)
		return "error code is not a 32-bit number";
	if (wire_read_str(w, &frame->error.message) != 0)
		return "error message is not a string";
	frame->error.code = (int)code;
	for (uint32_t i = 2; i < count; i++)
		if (wire_skip(w, NULL) != 0)
			return "error is cut short";
	return wire_skip(w, NULL) == 0 ? NULL : "result is cut short";
}

static const char *parse_notification(struct wire *w, struct rpc_frame *frame)
{
	frame->type = RPC_FRAME_NOTIFICATION;
	if (wire_read_str(w, &frame->method) != 0)
		return "method is not a string";
	if (read_packed_array(w, &frame->payload) != 0)
		return "params is not an array";
	/* Elements behind those that are known belong to later versions. */
	struct wire params = wire_of(frame->payload);
	uint32_t count = 0;
	if (wire_read_array(&params, &count) != 0)
		return "params is not an array";
	if (span_equal(frame->method, SPAN_LITERAL("chunk"))) {
		frame->type = RPC_FRAME_CHUNK;
		if (count < 3 || read_id(&params, &frame->id) != 0 ||
			wire_read_bin(&params, &frame->payload) != 0 ||
			wire_read_bool(&params, &frame->end) != 0)
			return "chunk is not [id, data, end]";
		if (frame->payload.len == 0 && !frame->end)
			return "empty chunk that is not the last";
	} else if (span_equal(frame->method, SPAN_LITERAL("credit"))) {
		frame->type = RPC_FRAME_CREDIT;
		if (count < 2 || read_id(&params, &frame->id) != 0 ||
			wire_read_u64(&params, &frame->credit_bytes) != 0)
			return "credit is not [id, bytes]";
	} else if (span_equal(frame->method, SPAN_LITERAL("cancel"))) {
		frame->type = RPC_FRAME_CANCEL;
		if (count < 1 || read_id(&params, &frame->id) != 0)
			return "cancel is not [id]";
	}
	return NULL;
}

const char *rpc_frame_parse(struct span bytes, struct rpc_frame *frame)
{
	struct wire w = wire_of(bytes);
	uint32_t count;
	uint64_t type;
	*frame = (struct rpc_frame){0};
	if (wire_read_array(&w, &count) != 0)
		return "not an array";
	if (count == 0 || wire_read_u64(&w, &type) != 0)
		return "message type is not a number";
	if (type == TYPE_REQUEST && count == 4)
		return parse_request(&w, frame);
	if (type == TYPE_RESPONSE && count == 4)
		return parse_response(&w, frame);
	if (type == TYPE_NOTIFICATION && count == 3)
		return parse_notification(&w, frame);
	return "neither request, response nor notification";
}

static int head_write(void *arg, const char *data, size_t len_bytes)
{
	struct rpc_head *head = arg;
	if (len_bytes > sizeof head->data - head->len)
		return -1;
	memcpy(head->data + head->len, data, len_bytes);
	head->len += len_bytes;
	return 0;
}

static void head_begin(struct rpc_head *head, msgpack_packer *packer, size_t count, int type)
{
	head->len = 0;
	msgpack_packer_init(packer, head, head_write);
	msgpack_pack_array(packer, count);
	msgpack_pack_int(packer, type);
}

void rpc_head_request(struct rpc_head *head, uint32_t id, struct span method)
{
	msgpack_packer packer;
	head_begin(head, &packer, 4, TYPE_REQUEST);
	msgpack_pack_uint32(&packer, id);
	wire_write_str(&packer, method);
}

void rpc_head_notification(struct rpc_head *head, struct span method)
{
	msgpack_packer packer;
	head_begin(head, &packer, 3, TYPE_NOTIFICATION);
	wire_write_str(&packer, method);
}

void rpc_head_result(struct rpc_head *head, uint32_t id)
{
	msgpack_packer packer;
	head_begin(head, &packer, 4, TYPE_RESPONSE);
	msgpack_pack_uint32(&packer, id);
	msgpack_pack_nil(&packer);
}

void rpc_head_error(struct rpc_head *head, uint32_t id, int code, size_t message_len)
{
	msgpack_packer packer;
	head_begin(head, &packer, 4, TYPE_RESPONSE);
	msgpack_pack_uint32(&packer, id);
	msgpack_pack_array(&packer, 2);
	msgpack_pack_int(&packer, code);
	msgpack_pack_str(&packer, message_len);
}

void rpc_head_chunk(struct rpc_head *head, uint32_t id, size_t data_len)
{
	msgpack_packer packer;
	head_begin(head, &packer, 3, TYPE_NOTIFICATION);
	wire_write_str(&packer, SPAN_LITERAL("chunk"));
	msgpack_pack_array(&packer, 3);
	msgpack_pack_uint32(&packer, id);
	msgpack_pack_bin(&packer, data_len);
}

uint8_t rpc_tail_chunk(bool end)
{
	return end ? 0xc3 : 0xc2;
}

void rpc_head_credit(struct rpc_head *head, uint32_t id, uint64_t bytes)
{
	msgpack_packer packer;
	head_begin(head, &packer, 3, TYPE_NOTIFICATION);
	wire_write_str(&packer, SPAN_LITERAL("credit"));
	msgpack_pack_array(&packer, 2);
	msgpack_pack_uint32(&packer, id);
	msgpack_pack_uint64(&packer, bytes);
}

void rpc_head_cancel(struct rpc_head *head, uint32_t id)
{
	msgpack_packer packer;
	head_begin(head, &packer, 3, TYPE_NOTIFICATION);
	wire_write_str(&packer, SPAN_LITERAL("cancel"));
	msgpack_pack_array(&packer, 1);
	msgpack_pack_uint32(&packer, id);
}

const char *rpc_code_name(int code)
{
	switch (code) {
	case RPC_BAD_PARAMS:
		return "bad_params";
	case RPC_NO_METHOD:
		return "no_method";
	case RPC_BUSY:
		return "busy";
	case RPC_FORBIDDEN:
		return "forbidden";
	case RPC_FAILED:
		return "failed";
	case RPC_CANCELLED:
		return "cancelled";
	case RPC_LOST:
		return "lost";
	case RPC_TIMEOUT:
		return "timeout";
	case RPC_PROTOCOL:
		return "protocol";
	default:
		return "unknown";
	}
}
