/* Every message's decoder on any bytes. What it accepts, it must pack and read back the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
	if (!holds)
		abort();
}

static void try_schema(const struct msg_schema *schema, struct span bytes)
{
	struct msg_error error = {""};
	struct buf once = BUF_INIT(64u << 20), twice = BUF_INIT(64u << 20);
	void *message = malloc(schema->size + 1), *reread = malloc(schema->size + 1);
	if (message && reread && msg_unpack(schema, bytes, message, &error) == 0) {
		check(msg_pack(schema, message, &once) == 0);
		struct span packed = {(const char *)once.data, once.len};
		check(msg_unpack(schema, packed, reread, &error) == 0);
		check(msg_pack(schema, reread, &twice) == 0);
		check(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0);
		msg_free(schema, reread);
		msg_free(schema, message);
	} else {
		check(strchr(error.text, ':') != NULL);
	}
	free(message);
	free(reread);
	buf_free(&once);
	buf_free(&twice);
}

/* The first byte picks the method and whether these are params or a result. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0 || size > 65536)
		return 0;
	size_t n = 0;
	while (msg_methods[n].name)
		n++;
	const struct msg_method *method = &msg_methods[data[0] / 2 % n];
	char *copy = malloc(size - 1 ? size - 1 : 1);
	if (!copy)
		return 0;
	memcpy(copy, data + 1, size - 1);
	/* In its own block: one byte too far is seen. */
	try_schema(
		(data[0] & 1 ? method->result : method->params)(), (struct span){copy, size - 1});
	free(copy);
	return 0;
}
