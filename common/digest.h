#ifndef COMMON_DIGEST_H
#define COMMON_DIGEST_H

/* SHA-256 (FIPS 180-4) by OpenSSL's EVP, and hexadecimal text. Safe on any thread. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/span.h"

#define DIGEST_BYTES 32
#define DIGEST_HEX   64

struct digest {
	uint8_t bytes[DIGEST_BYTES];
};

struct digest digest_of(struct span data);

/* For data that comes in pieces. The state may be copied to go on from a common prefix. */
struct digest_state;
struct digest_state *digest_new(void); /* NULL when out of memory */
void digest_update(struct digest_state *state, struct span data);
/* Ends the sum and makes the state ready for the next one, from empty. */
struct digest digest_final(struct digest_state *state);
/* Make `to` continue from where `from` stands. */
void digest_copy(struct digest_state *to, const struct digest_state *from);
void digest_free(struct digest_state **state);

/* Writes DIGEST_HEX lower-case characters and a NUL. */
void digest_hex(const struct digest *digest, char text[DIGEST_HEX + 1]);
/* 0, or -1 with *digest unchanged unless exactly 64 hexadecimal characters of either case. */
int digest_parse_hex(struct span text, struct digest *digest);
bool digest_equal(const struct digest *a, const struct digest *b);
/* In constant time. */
bool digest_equal_secret(const struct digest *a, const struct digest *b);
/* Fill with random bytes (getrandom). */
void digest_random(void *data, size_t len_bytes);

#endif
