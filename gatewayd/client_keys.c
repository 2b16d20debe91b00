#include "gatewayd/client_keys.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/digest.h"

#define MAX_KEYS 65536
#define MAX_LINE 512
#define MAX_RPM  1000000000.0

struct client_key {
	struct digest digest;
	double rpm; /* 0: no limit */
	double tokens;
	uint64_t filled_us;
};

struct client_keys {
	struct client_key *keys; /* sorted by digest */
	size_t n;
};

static int by_digest(const void *a, const void *b)
{
	return memcmp(a, b, DIGEST_BYTES);
}

static double bucket_size(const struct client_key *key)
{
	return key->rpm > 10 ? key->rpm / 10 : 1;
}

/* NULL, or what is wrong. An empty line leaves *found false. */
static const char *parse_line(char *line, struct client_key *key, bool *found)
{
	char *comment = strchr(line, '#');
	if (comment)
		*comment = '\0';
	char *rest = NULL;
	char *word = strtok_r(line, " \t\r\n", &rest);
	*key = (struct client_key){0};
	*found = word != NULL;
	if (!word)
		return NULL;
	if (digest_parse_hex(span_of(word), &key->digest) < 0)
		return "a SHA-256 digest of 64 hexadecimal digits was expected";
	while ((word = strtok_r(NULL, " \t\r\n", &rest))) {
		char *end = NULL;
		if (strncmp(word, "rpm=", 4) != 0)
			return "only rpm=N may follow the digest";
		key->rpm = strtod(word + 4, &end);
		if (end == word + 4 || *end || !(key->rpm > 0) || key->rpm > MAX_RPM)
			return "rpm must be a number above 0";
		key->tokens = bucket_size(key);
	}
	return NULL;
}

static const char *add(struct client_keys *keys, const struct client_key *key)
{
	if (keys->n == MAX_KEYS)
		return "there are more than 65,536 keys";
	if ((keys->n & (keys->n - 1)) == 0) {
		struct client_key *more = realloc(
			keys->keys, (keys->n ? keys->n * 2 : 1) * sizeof *more);
		if (!more)
			return "out of memory";
		keys->keys = more;
	}
	keys->keys[keys->n++] = *key;
	return NULL;
}

struct client_keys *client_keys_load(const char *path, char *error, size_t error_size)
{
	struct client_keys *keys = calloc(1, sizeof *keys);
	FILE *file = fopen(path, "re");
	if (!keys || !file) {
		snprintf(error, error_size, "%s: %s", path, strerror(errno));
		goto fail;
	}
	char line[MAX_LINE];
	const char *wrong = NULL;
	for (unsigned number = 1; fgets(line, sizeof line, file); number++) {
		struct client_key key;
		bool found = false;
		if (!strchr(line, '\n') && !feof(file))
			wrong = "the line is too long";
		else
			wrong = parse_line(line, &key, &found);
		if (!wrong && found)
			wrong = add(keys, &key);
		if (wrong) {
			snprintf(error, error_size, "%s:%u: %s", path, number, wrong);
			goto fail;
		}
	}
	if (ferror(file)) {
		snprintf(error, error_size, "%s: %s", path, strerror(errno));
		goto fail;
	}
	fclose(file);
	if (keys->n)
		qsort(keys->keys, keys->n, sizeof *keys->keys, by_digest);
	return keys;

fail:
	if (file)
		fclose(file);
	client_keys_free(&keys);
	return NULL;
}

/* The place of the first one not below it: the search tells where a digest would lie, not whether
 * it is there. */
static size_t place_of(const struct client_keys *keys, const struct digest *digest)
{
	size_t low = 0, high = keys->n;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (by_digest(&keys->keys[middle].digest, digest) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct client_key *find(const struct client_keys *keys, const struct digest *digest)
{
	size_t place = place_of(keys, digest);
	if (place == keys->n || !digest_equal_secret(&keys->keys[place].digest, digest))
		return NULL;
	return &keys->keys[place];
}

void client_keys_inherit(struct client_keys *keys, const struct client_keys *before)
{
	for (size_t i = 0; i < keys->n; i++) {
		struct client_key *key = &keys->keys[i];
		const struct client_key *old = find(before, &key->digest);
		if (!old)
			continue;
		key->filled_us = old->filled_us;
		if (old->rpm > 0 && old->tokens < key->tokens)
			key->tokens = old->tokens;
	}
}

enum client_key_verdict client_keys_check(
	struct client_keys *keys, struct span text, uint64_t now_us, int64_t *retry_after_ms)
{
	struct digest digest = digest_of(text);
	struct client_key *key = find(keys, &digest);
	if (!key)
		return CLIENT_KEY_UNKNOWN;
	if (!(key->rpm > 0))
		return CLIENT_KEY_ACCEPTED;
	if (key->filled_us && now_us > key->filled_us)
		key->tokens += (double)(now_us - key->filled_us) * key->rpm / 60e6;
	if (key->tokens > bucket_size(key))
		key->tokens = bucket_size(key);
	key->filled_us = now_us;
	if (key->tokens >= 1) {
		key->tokens -= 1;
		return CLIENT_KEY_ACCEPTED;
	}
	*retry_after_ms = (int64_t)((1 - key->tokens) * 60e3 / key->rpm) + 1;
	return CLIENT_KEY_LIMITED;
}

size_t client_keys_count(const struct client_keys *keys)
{
	return keys->n;
}

void client_keys_free(struct client_keys **keys)
{
	if (!*keys)
		return;
	free((*keys)->keys);
	free(*keys);
	*keys = NULL;
}
