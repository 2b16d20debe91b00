/* Every message of every method, by its table: there and back, cut, bent and grown. */
#include "rpc_fixture.h"

#include "common/messages.h"

static struct buf bytes = BUF_INIT(8u << 20);
static struct buf again = BUF_INIT(8u << 20);

static struct span span_of_buf(const struct buf *b)
{
	return (struct span){(const char *)b->data, b->len};
}

/* Called for the params and the result of each method. */
static void for_each_message(void (*check)(const struct msg_schema *schema))
{
	unsigned n = 0;
	for (const struct msg_method *m = msg_methods; m->name; m++, n++) {
		check(m->params());
		check(m->result());
	}
	assert_true(n >= 13);
}

/* One value of the field's kind, other than zero; records are `level` deep. */
static void pack_value(msgpack_packer *pk, const struct msg_field *field);

static void pack_all_fields(msgpack_packer *pk, const struct msg_schema *schema)
{
	for (size_t i = 0; i < schema->n_fields; i++)
		pack_value(pk, &schema->fields[i]);
}

static void pack_value(msgpack_packer *pk, const struct msg_field *field)
{
	switch (field->kind) {
	case MSG_KIND_str:
	case MSG_KIND_token:
		wire_write_str(pk, span_of(field->name));
		break;
	case MSG_KIND_target:
		wire_write_str(pk, span_of("/v1/embeddings?a=b"));
		break;
	case MSG_KIND_bin:
		wire_write_bin(pk, span_of(field->doc));
		break;
	case MSG_KIND_u64:
		msgpack_pack_uint64(pk, UINT64_MAX - strlen(field->name));
		break;
	case MSG_KIND_i64:
		msgpack_pack_int64(pk, INT64_MIN + (int64_t)strlen(field->name));
		break;
	case MSG_KIND_f64:
		msgpack_pack_double(pk, 0.1);
		break;
	case MSG_KIND_bool:
		msgpack_pack_true(pk);
		break;
	case MSG_KIND_headers:
		msgpack_pack_array(pk, 2);
		for (int i = 0; i < 2; i++) {
			msgpack_pack_array(pk, 2);
			wire_write_str(pk, span_of(field->name));
			wire_write_str(pk, span_of(field->doc));
		}
		break;
	case MSG_KIND_strs:
		msgpack_pack_array(pk, 3);
		for (int i = 0; i < 3; i++)
			wire_write_str(pk, span_of("item"));
		break;
	case MSG_KIND_u64s:
		msgpack_pack_array(pk, 3);
		for (int i = 0; i < 3; i++)
			msgpack_pack_uint64(pk, (uint64_t)i << 40);
		break;
	case MSG_KIND_f64s:
		msgpack_pack_array(pk, 3);
		for (int i = 0; i < 3; i++)
			msgpack_pack_double(pk, i + 0.25);
		break;
	case MSG_KIND_list:
		msgpack_pack_array(pk, 11);
		for (int i = 0; i < 11; i++) {
			msgpack_pack_array(pk, field->record()->n_fields);
			pack_all_fields(pk, field->record());
		}
		break;
	}
}

static msgpack_packer *begin(void)
{
	static msgpack_packer packer;
	buf_clear(&bytes);
	wire_packer_init(&packer, &bytes);
	return &packer;
}

static void pack_full(const struct msg_schema *schema, size_t extra)
{
	msgpack_packer *pk = begin();
	msgpack_pack_array(pk, schema->n_fields + extra);
	pack_all_fields(pk, schema);
	for (size_t i = 0; i < extra; i++) {
		msgpack_pack_map(pk, 1);
		msgpack_pack_int(pk, 1);
		msgpack_pack_array(pk, 0);
	}
}

/* A struct full of rubbish, as on a stack. */
static void *message_new(const struct msg_schema *schema)
{
	void *message = malloc(schema->size + 1);
	assert_non_null(message);
	memset(message, 0xa5, schema->size);
	return message;
}

static void check_there_and_back(const struct msg_schema *schema)
{
	for (size_t extra = 0; extra < 3; extra += 2) {
		struct msg_error error;
		void *message = message_new(schema);
		pack_full(schema, 0);
		buf_clear(&again);
		buf_append(&again, bytes.data, bytes.len);
		pack_full(schema, extra);
		assert_int_equal(msg_unpack(schema, span_of_buf(&bytes), message, &error), 0);
		struct buf repacked = BUF_INIT(8u << 20);
		assert_int_equal(msg_pack(schema, message, &repacked), 0);
		assert_int_equal(repacked.len, again.len);
		assert_memory_equal(repacked.data, again.data, again.len);
		/* Its ceiling one byte lower: refused. */
		struct buf tight = BUF_INIT(again.len - 1);
		assert_int_equal(msg_pack(schema, message, &tight), -1);
		buf_free(&tight);
		buf_free(&repacked);
		msg_free(schema, message);
		msg_free(schema, message);
		free(message);
	}
}

static void there_and_back(void **arg)
{
	(void)arg;
	for_each_message(check_there_and_back);
}

/* Zero in all its fields: packs like the zeroed struct. */
static void expect_zero(const struct msg_schema *schema)
{
	struct msg_error error;
	void *message = message_new(schema), *zero = calloc(1, schema->size + 1);
	assert_int_equal(msg_unpack(schema, span_of_buf(&bytes), message, &error), 0);
	struct buf a = BUF_INIT(1u << 20), b = BUF_INIT(1u << 20);
	assert_int_equal(msg_pack(schema, message, &a), 0);
	assert_int_equal(msg_pack(schema, zero, &b), 0);
	assert_int_equal(a.len, b.len);
	assert_memory_equal(a.data, b.data, a.len);
	buf_free(&a), buf_free(&b);
	msg_free(schema, message);
	free(message), free(zero);
}

static void check_absent(const struct msg_schema *schema)
{
	msgpack_pack_array(begin(), 0);
	expect_zero(schema);
	msgpack_pack_nil(begin());
	expect_zero(schema);
	msgpack_packer *pk = begin();
	msgpack_pack_array(pk, schema->n_fields);
	for (size_t i = 0; i < schema->n_fields; i++)
		msgpack_pack_nil(pk);
	expect_zero(schema);
}

static void absent_fields_are_zero(void **arg)
{
	(void)arg;
	for_each_message(check_absent);
}

static void expect_error(const struct msg_schema *schema, const char *begins)
{
	struct msg_error error = {""};
	void *message = message_new(schema);
	assert_int_equal(msg_unpack(schema, span_of_buf(&bytes), message, &error), -1);
	if (strncmp(error.text, begins, strlen(begins)) != 0)
		fail_msg("\"%s\" does not begin with \"%s\"", error.text, begins);
	msg_free(schema, message); /* nothing left, and no harm */
	free(message);
}

static void check_wrong_types(const struct msg_schema *schema)
{
	for (size_t bad = 0; bad < schema->n_fields; bad++) {
		char begins[96];
		msgpack_packer *pk = begin();
		msgpack_pack_array(pk, schema->n_fields);
		for (size_t i = 0; i < schema->n_fields; i++) {
			if (i == bad)
				msgpack_pack_map(pk, 0);
			else
				pack_value(pk, &schema->fields[i]);
		}
		snprintf(begins, sizeof begins, "%s: ", schema->fields[bad].name);
		expect_error(schema, begins);
	}
	msgpack_pack_map(begin(), 0);
	expect_error(schema, schema->name);
}

static void wrong_types_name_the_field(void **arg)
{
	(void)arg;
	for_each_message(check_wrong_types);
}

static void check_cut(const struct msg_schema *schema)
{
	pack_full(schema, 1);
	for (size_t cut = 0; cut < bytes.len; cut++) {
		struct msg_error error;
		void *message = message_new(schema);
		char *copy = malloc(cut + !cut);
		memcpy(copy, bytes.data, cut);
		assert_int_equal(msg_unpack(schema, (struct span){copy, cut}, message, &error), -1);
		assert_true(strstr(error.text, ": ") != NULL);
		free(copy);
		free(message);
	}
}

static void cut_at_every_byte(void **arg)
{
	(void)arg;
	for_each_message(check_cut);
}

static void pack_family(msgpack_packer *pk, bool bad_sample)
{
	msgpack_pack_array(pk, 6);
	for (int i = 0; i < 5; i++)
		msgpack_pack_nil(pk);
	msgpack_pack_array(pk, 1);
	msgpack_pack_array(pk, 2);
	msgpack_pack_nil(pk);
	if (bad_sample)
		wire_write_str(pk, span_of("many"));
	else
		msgpack_pack_int(pk, 12);
}

static void errors_lead_to_the_place(void **arg)
{
	(void)arg;
	const struct msg_schema *request = msg_request_params_schema();
	msgpack_packer *pk = begin();
	msgpack_pack_array(pk, 3);
	msgpack_pack_nil(pk);
	msgpack_pack_nil(pk);
	msgpack_pack_array(pk, 4);
	for (int i = 0; i < 4; i++) {
		msgpack_pack_array(pk, 2);
		wire_write_str(pk, span_of("name"));
		if (i < 3)
			wire_write_str(pk, span_of("value"));
		else
			msgpack_pack_int(pk, 5);
	}
	expect_error(request, "headers[3].value: not a string");

	pk = begin();
	msgpack_pack_array(pk, 3);
	msgpack_pack_nil(pk);
	msgpack_pack_nil(pk);
	msgpack_pack_array(pk, 1);
	msgpack_pack_array(pk, 3);
	for (int i = 0; i < 3; i++)
		wire_write_str(pk, span_of("x"));
	expect_error(request, "headers[0]: not a pair");

	const struct msg_schema *metrics = msg_metrics_result_schema();
	pk = begin();
	msgpack_pack_array(pk, 1);
	msgpack_pack_array(pk, 3);
	for (int i = 0; i < 3; i++)
		pack_family(pk, i == 2);
	expect_error(metrics, "families[2].samples[0].value: not a number");

	pk = begin();
	msgpack_pack_array(pk, 1);
	msgpack_pack_array(pk, 2);
	msgpack_pack_nil(pk);
	msgpack_pack_int(pk, 1);
	expect_error(metrics, "families[1]: not an array");

	pk = begin();
	msgpack_pack_array(pk, 1);
	msgpack_pack_array(pk, 2);
	wire_write_str(pk, span_of("a"));
	wire_write_bin(pk, span_of("b"));
	expect_error(msg_programs_params_schema(), "names[1]: not a string");

	pk = begin();
	msgpack_pack_array(pk, 5);
	msgpack_pack_int(pk, -1);
	for (int i = 0; i < 4; i++)
		msgpack_pack_nil(pk);
	expect_error(msg_request_result_schema(), "status: not a whole number from 0 on");
}

static void lists_have_limits(void **arg)
{
	(void)arg;
	msgpack_packer *pk = begin();
	msgpack_pack_array(pk, 3);
	msgpack_pack_nil(pk);
	msgpack_pack_nil(pk);
	msgpack_pack_array(pk, MSG_MAX_HEADERS + 1);
	for (int i = 0; i <= MSG_MAX_HEADERS; i++) {
		msgpack_pack_array(pk, 2);
		wire_write_str(pk, span_of(""));
		wire_write_str(pk, span_of(""));
	}
	expect_error(msg_request_params_schema(), "headers: more than 128");

	pk = begin();
	msgpack_pack_array(pk, 1);
	msgpack_pack_array(pk, MSG_MAX_ITEMS + 1);
	for (int i = 0; i <= MSG_MAX_ITEMS; i++)
		wire_write_str(pk, span_of(""));
	expect_error(msg_programs_params_schema(), "names: more than 1024");

	/* In all lists together, inner ones included. */
	pk = begin();
	msgpack_pack_array(pk, 1);
	msgpack_pack_array(pk, 2);
	for (int family = 0; family < 2; family++) {
		msgpack_pack_array(pk, 6);
		for (int i = 0; i < 5; i++)
			msgpack_pack_nil(pk);
		msgpack_pack_array(pk, MSG_MAX_RECORDS / 2);
		for (int i = 0; i < MSG_MAX_RECORDS / 2; i++)
			msgpack_pack_array(pk, 0);
	}
	expect_error(msg_metrics_result_schema(), "families[1].samples: more than 65536");

	/* A count without its bytes. */
	pk = begin();
	msgpack_pack_array(pk, 1);
	msgpack_pack_array(pk, MSG_MAX_RECORDS);
	expect_error(msg_metrics_result_schema(), "families: not an array");

	/* A sender is held to the same. */
	static struct msg_request_params params;
	params.headers.count = MSG_MAX_HEADERS + 1;
	begin();
	assert_int_equal(msg_request_params_pack(&params, &bytes), -1);
	static struct span many[MSG_MAX_ITEMS + 1];
	struct msg_programs_params names = {.names = {many, MSG_MAX_ITEMS + 1}};
	begin();
	assert_int_equal(msg_programs_params_pack(&names, &bytes), -1);
}

static void spans_are_borrowed(void **arg)
{
	(void)arg;
	struct msg_request_params params = {.method = span_of("POST"),
		.target = span_of("/v1/embeddings"),
		.body = span_of("{}"),
		.body_bytes = 2};
	params.headers.count = 1;
	params.headers.items[0] = (struct msg_header){span_of("host"), span_of("x")};
	begin();
	assert_int_equal(msg_request_params_pack(&params, &bytes), 0);
	struct msg_request_params got;
	struct msg_error error;
	assert_int_equal(msg_request_params_unpack(span_of_buf(&bytes), &got, &error), 0);
	const char *begin_ = (const char *)bytes.data, *end = begin_ + bytes.len;
	assert_true(span_equal_str(got.method, "POST"));
	assert_true(span_equal_str(got.headers.items[0].name, "host"));
	assert_true(
		got.headers.items[0].value.data > begin_ && got.headers.items[0].value.data < end);
	assert_true(got.body.data > begin_ && got.body.data < end);
	assert_int_equal(got.body_bytes, 2);
	assert_true(span_equal_str(got.target, "/v1/embeddings"));
}

/* What would be another request once it is written as HTTP is none here. */
static void only_what_http_can_carry(void **arg)
{
	(void)arg;
	static const struct {
		struct span method, target, name, value;
		const char *error; /* NULL: it can */
	} cases[] = {
#define CASE(method, target, name, value, error) \
	{SPAN_LITERAL(method), SPAN_LITERAL(target), SPAN_LITERAL(name), SPAN_LITERAL(value), error}
		CASE("POST", "/a?b=c", "x-y", "a\tb \xc3\xa9", NULL),
		CASE("OPTIONS", "*", "x", "", NULL),
		CASE("PO ST", "/", "x", "y", "method: not a method of HTTP"),
		CASE("POST\r\n", "/", "x", "y", "method: not a method of HTTP"),
		CASE("GET", "a", "x", "y", "target: not a request target of HTTP"),
		CASE("GET", "/a b", "x", "y", "target: not a request target of HTTP"),
		CASE("GET", "/a\r\nX: y", "x", "y", "target: not a request target of HTTP"),
		CASE("GET", "/\0", "x", "y", "target: not a request target of HTTP"),
		CASE("GET", "/", "", "y", "headers[0].name: not a field name of HTTP"),
		CASE("GET", "/", "x:", "y", "headers[0].name: not a field name of HTTP"),
		CASE("GET", "/", "x\r\ny", "z", "headers[0].name: not a field name of HTTP"),
		CASE("GET", "/", "x", "a\r\nX-Evil: 1",
			"headers[0].value: not a field value of HTTP"),
		CASE("GET", "/", "x", "a\nb", "headers[0].value: not a field value of HTTP"),
		CASE("GET", "/", "x", "a\0b", "headers[0].value: not a field value of HTTP"),
		CASE("GET", "/", "x", " a\t", NULL),
#undef CASE
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct msg_request_params params = {
			.method = cases[i].method, .target = cases[i].target};
		params.headers.count = 1;
		params.headers.items[0] = (struct msg_header){cases[i].name, cases[i].value};
		begin();
		assert_int_equal(msg_request_params_pack(&params, &bytes), 0);
		struct msg_request_params got;
		struct msg_error error = {""};
		int result = msg_request_params_unpack(span_of_buf(&bytes), &got, &error);
		assert_int_equal(result, cases[i].error ? -1 : 0);
		assert_string_equal(error.text, cases[i].error ? cases[i].error : "");
	}
}

/* ---- over a connection ---- */

static void serve_hash(struct rpc_request *request, struct span params, void *arg)
{
	struct msg_hash_params p;
	(void)arg;
	if (msg_hash_serve_params(request, params, &p) != 0)
		return;
	struct msg_hash_result result = {.body_hash = p.body};
	if (!p.chunked) {
		msg_hash_reply(request, &result);
		return;
	}
	if (msg_hash_reply_start(request, &result) == 0)
		rpc_request_send_chunk(request, slice_static("chunk"), true);
}

static void serve_status(struct rpc_request *request, struct span params, void *arg)
{
	struct msg_programs_params p;
	(void)arg;
	if (msg_status_serve_params(request, params, &p) != 0)
		return;
	/* More than a frame holds. */
	static struct msg_program programs[20000];
	for (size_t i = 0; i < 20000; i++)
		programs[i] = (struct msg_program){.name = span_of("a name that takes its room"),
			.description = span_of("and a description that takes as much again")};
	struct msg_programs_result result = {.programs = {programs, p.names.count ? 1 : 20000}};
	msg_status_reply(request, &result);
	msg_programs_params_free(&p);
}

static const struct rpc_method methods[] = {
	{"hash", serve_hash, NULL},
	{"status", serve_status, NULL},
	{NULL, NULL, NULL},
};

static void calls_are_typed(void **arg)
{
	(void)arg;
	struct world world;
	struct asked plain, chunked, bad, large, small;
	struct msg_error error;
	asked_init(&plain), asked_init(&chunked), asked_init(&bad), asked_init(&large);
	asked_init(&small);
	world_make(&world);
	struct rpc_server *server = rpc_server_new(world.loop, world_listen(&world), NULL);
	assert_int_equal(rpc_server_add(server, methods), 0);
	struct rpc_client *client = rpc_client_new(world.loop, world.path, NULL, NULL, NULL);

	struct msg_hash_params params = {.body = span_of("text")};
	plain.call = msg_hash_call(client, &params, 1000, &asked_events, &plain);
	params.chunked = true;
	chunked.expect = true;
	chunked.call = msg_hash_call(client, &params, 0, &asked_events, &chunked);
	bad.call = rpc_call_start(
		client, "hash", SPAN_LITERAL("\x91\xa1x"), 0, &asked_events, &bad);
	struct span name = span_of("x");
	struct msg_programs_params one = {.names = {&name, 1}}, all = {{NULL, 0}, false};
	large.call = msg_status_call(client, &all, 0, &asked_events, &large);
	small.call = msg_status_call(client, &one, 0, &asked_events, &small);
	WAIT_FOR(&world, plain.dones && chunked.dones && bad.dones && large.dones && small.dones);

	struct msg_hash_result hash;
	assert_int_equal(plain.code, 0);
	assert_int_equal(msg_hash_result_unpack(span_of_buf(&plain.result), &hash, &error), 0);
	assert_true(span_equal_str(hash.body_hash, "text"));
	assert_int_equal(chunked.code, 0);
	assert_int_equal(chunked.body.len, 5);
	assert_int_equal(bad.code, RPC_BAD_PARAMS);
	assert_string_equal(bad.message, "body: not binary");
	assert_int_equal(large.code, RPC_FAILED);
	assert_int_equal(small.code, 0);
	struct msg_programs_result result;
	assert_int_equal(
		msg_programs_result_unpack(span_of_buf(&small.result), &result, &error), 0);
	assert_int_equal(result.programs.count, 1);
	assert_true(span_equal_str(result.programs.items[0].name, "a name that takes its room"));
	msg_programs_result_free(&result);

	/* Params that fit into no frame. */
	static char body[RPC_MAX_FRAME_BYTES];
	params.body = (struct span){body, sizeof body};
	assert_null(msg_hash_call(client, &params, 0, &asked_events, &plain));

	rpc_client_free(&client);
	rpc_server_free(&server);
	world_free(&world);
	asked_free(&plain), asked_free(&chunked), asked_free(&small);
}

static int teardown(void **arg)
{
	(void)arg;
	buf_free(&bytes);
	buf_free(&again);
	return 0;
}

int main(void)
{
	log_open("messages_test", LOG_LEVEL_FATAL, LOG_FORMAT_JSON);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(absent_fields_are_zero),
		cmocka_unit_test(wrong_types_name_the_field),
		cmocka_unit_test(cut_at_every_byte),
		cmocka_unit_test(errors_lead_to_the_place),
		cmocka_unit_test(lists_have_limits),
		cmocka_unit_test(spans_are_borrowed),
		cmocka_unit_test(only_what_http_can_carry),
		cmocka_unit_test(calls_are_typed),
	};
	return cmocka_run_group_tests(tests, NULL, teardown);
}
