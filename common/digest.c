#include "common/digest.h"

#include <pthread.h>
#include <stdlib.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "common/log.h"

struct digest_state {
	EVP_MD_CTX *ctx;
};

/* Fetched once: OpenSSL 3.0 otherwise searches its providers at every start of a sum. */
static EVP_MD *sha256;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* One context a thread for digest_of(); the key exists to free it when the thread ends. */
static _Thread_local EVP_MD_CTX *thread_ctx;
static pthread_key_t thread_key;

static void free_ctx(void *ctx)
{
	EVP_MD_CTX_free(ctx);
}

static void start(void)
{
	sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	BUG_ON(!sha256);
	BUG_ON(pthread_key_create(&thread_key, free_ctx) != 0);
}

static EVP_MD_CTX *ctx_new(void)
{
	pthread_once(&once, start);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	if (!ctx)
		return NULL;
	if (EVP_DigestInit_ex(ctx, sha256, NULL) != 1) {
		EVP_MD_CTX_free(ctx);
		return NULL;
	}
	return ctx;
}

/* Takes the sum and starts the next one. With the same algorithm this allocates nothing, so it
 * cannot fail. */
static struct digest ctx_final(EVP_MD_CTX *ctx)
{
	struct digest digest;
	unsigned len = 0;
	BUG_ON(EVP_DigestFinal_ex(ctx, digest.bytes, &len) != 1 || len != DIGEST_BYTES);
	BUG_ON(EVP_DigestInit_ex(ctx, NULL, NULL) != 1);
	return digest;
}

static void ctx_update(EVP_MD_CTX *ctx, struct span data)
{
	if (data.len)
		BUG_ON(EVP_DigestUpdate(ctx, data.data, data.len) != 1);
}

struct digest digest_of(struct span data)
{
	if (!thread_ctx) {
		/* The first sum of a thread: there is nothing to go on with without it. */
		thread_ctx = ctx_new();
		BUG_ON(!thread_ctx);
		pthread_setspecific(thread_key, thread_ctx);
	}
	ctx_update(thread_ctx, data);
	return ctx_final(thread_ctx);
}

struct digest_state *digest_new(void)
{
	struct digest_state *state = malloc(sizeof *state);
	if (!state)
		return NULL;
	state->ctx = ctx_new();
	if (!state->ctx) {
		free(state);
		return NULL;
	}
	return state;
}

void digest_update(struct digest_state *state, struct span data)
{
	ctx_update(state->ctx, data);
}

struct digest digest_final(struct digest_state *state)
{
	return ctx_final(state->ctx);
}

void digest_copy(struct digest_state *to, const struct digest_state *from)
{
	BUG_ON(EVP_MD_CTX_copy_ex(to->ctx, from->ctx) != 1);
}

void digest_free(struct digest_state **state)
{
	if (!*state)
		return;
	EVP_MD_CTX_free((*state)->ctx);
	free(*state);
	*state = NULL;
}

void digest_hex(const struct digest *digest, char text[DIGEST_HEX + 1])
{
	static const char digits[] = "0123456789abcdef";
	for (size_t i = 0; i < DIGEST_BYTES; i++) {
		text[2 * i] = digits[digest->bytes[i] >> 4];
		text[2 * i + 1] = digits[digest->bytes[i] & 15];
	}
	text[DIGEST_HEX] = '\0';
}

/* Digit plus one, 0: none. A table, since the digits of a hash are as unforeseeable for a
 * processor's branches as anything can be. */
static const uint8_t hex_digits[256] = {['0'] = 1,
	['1'] = 2,
	['2'] = 3,
	['3'] = 4,
	['4'] = 5,
	['5'] = 6,
	['6'] = 7,
	['7'] = 8,
	['8'] = 9,
	['9'] = 10,
	['a'] = 11,
	['b'] = 12,
	['c'] = 13,
	['d'] = 14,
	['e'] = 15,
	['f'] = 16,
	['A'] = 11,
	['B'] = 12,
	['C'] = 13,
	['D'] = 14,
	['E'] = 15,
	['F'] = 16};

int digest_parse_hex(struct span text, struct digest *digest)
{
	if (text.len != DIGEST_HEX)
		return -1;
	const uint8_t *digits = (const uint8_t *)text.data;
	struct digest parsed;
	bool bad = false;
	for (size_t i = 0; i < DIGEST_BYTES; i++) {
		unsigned high = hex_digits[digits[2 * i]], low = hex_digits[digits[2 * i + 1]];
		bad |= !high || !low;
		parsed.bytes[i] = (uint8_t)((high - 1) << 4 | (low - 1));
	}
	if (bad)
		return -1;
	*digest = parsed;
	return 0;
}

bool digest_equal(const struct digest *a, const struct digest *b)
{
	return memcmp(a->bytes, b->bytes, DIGEST_BYTES) == 0;
}

bool digest_equal_secret(const struct digest *a, const struct digest *b)
{
	return CRYPTO_memcmp(a->bytes, b->bytes, DIGEST_BYTES) == 0;
}
