#include "gatewayd/provider_targets.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Settings ---- */

static const char *parse_weight(const char *text, size_t len, uint32_t *weight)
{
	uint32_t value = 0;
	for (size_t i = 0; i < len; i++) {
		if (!isdigit((unsigned char)text[i]))
			return "a weight is not a whole number";
		value = value * 10 + (uint32_t)(text[i] - '0');
		if (value > PROVIDER_MAX_WEIGHT)
			return "a weight is over 1000";
	}
	if (len == 0)
		return "a weight is missing after |";
	*weight = value;
	return NULL;
}

static const char *parse_one(const char *text, size_t len, struct provider_target *target)
{
	const char *bar = memchr(text, '|', len);
	size_t url_len = bar ? (size_t)(bar - text) : len;
	target->weight = 1;
	if (bar) {
		const char *wrong = parse_weight(bar + 1, len - url_len - 1, &target->weight);
		if (wrong)
			return wrong;
	}
	while (url_len > 0 && text[url_len - 1] == '/')
		url_len--;
	size_t scheme = strncasecmp(text, "https://", 8) == 0  ? 8
			: strncasecmp(text, "http://", 7) == 0 ? 7
							       : 0;
	if (!scheme || url_len <= scheme || url_len > PROVIDER_MAX_TARGET_URL)
		return "each URL begins with http:// or https:// and names a host";
	if (memchr(text, '@', url_len) || memchr(text, '?', url_len) || memchr(text, '#', url_len))
		return "a URL must have no user, query or fragment";
	for (size_t i = 0; i < url_len; i++)
		if ((unsigned char)text[i] <= ' ' || (unsigned char)text[i] >= 0x7f)
			return "a URL has a character that does not belong there";
	target->url = strndup(text, url_len);
	return target->url ? NULL : "out of memory";
}

static const char *name_them(struct provider_targets *targets, const char *name)
{
	for (size_t i = 0; i < targets->n; i++) {
		struct provider_target *target = &targets->list[i];
		for (size_t j = 0; j < i; j++)
			if (strcmp(targets->list[j].url, target->url) == 0)
				return "a URL is there twice";
		if (targets->n == 1)
			target->service = strdup(name);
		else if (asprintf(&target->service, "%s:%s", name, target->url) < 0)
			target->service = NULL;
		if (!target->service)
			return "out of memory";
	}
	return NULL;
}

const char *provider_targets_parse(
	const char *text, const char *name, struct provider_targets *targets)
{
	*targets = (struct provider_targets){0};
	const char *wrong = NULL;
	const char *between = ", \t\n";
	for (const char *at = text + strspn(text, between); *at && !wrong;) {
		size_t len = strcspn(at, between);
		if (targets->n == PROVIDER_MAX_TARGETS)
			wrong = "there are more than 16 URLs";
		else
			wrong = parse_one(at, len, &targets->list[targets->n++]);
		at += len;
		at += strspn(at, between);
	}
	if (!wrong && targets->n == 0)
		wrong = "there is no URL";
	if (!wrong)
		wrong = name_them(targets, name);
	if (wrong)
		provider_targets_free(targets);
	return wrong;
}

void provider_targets_free(struct provider_targets *targets)
{
	for (size_t i = 0; i < targets->n; i++) {
		free(targets->list[i].url);
		free(targets->list[i].service);
		free(targets->list[i].pauses);
	}
	*targets = (struct provider_targets){0};
}

void provider_targets_set_breakers(
	struct provider_targets *targets, uint32_t threshold, uint32_t open_ms)
{
	for (size_t i = 0; i < targets->n; i++)
		breaker_init(&targets->list[i].breaker, threshold, open_ms);
}

/* ---- Pauses ---- */

static struct provider_pause *find_pause(
	const struct provider_target *target, const struct digest *credential)
{
	for (size_t i = 0; i < target->n_pauses; i++)
		if (digest_equal(&target->pauses[i].credential, credential))
			return &target->pauses[i];
	return NULL;
}

static uint64_t pause_us(
	const struct provider_target *target, const struct digest *credential, uint64_t now_us)
{
	const struct provider_pause *pause = find_pause(target, credential);
	return pause && pause->until_us > now_us ? pause->until_us - now_us : 0;
}

static void forget_ended(struct provider_target *target, uint64_t now_us)
{
	size_t kept = 0;
	for (size_t i = 0; i < target->n_pauses; i++)
		if (target->pauses[i].until_us > now_us)
			target->pauses[kept++] = target->pauses[i];
	target->n_pauses = kept;
}

void provider_target_pause(struct provider_target *target, const struct digest *credential,
	uint64_t now_us, uint64_t until_us)
{
	if (!target->pauses)
		target->pauses = calloc(PROVIDER_MAX_PAUSES, sizeof *target->pauses);
	if (!target->pauses || until_us <= now_us)
		return;
	struct provider_pause *pause = find_pause(target, credential);
	if (pause) {
		if (pause->until_us < until_us)
			pause->until_us = until_us;
		return;
	}
	if (target->n_pauses == PROVIDER_MAX_PAUSES)
		forget_ended(target, now_us);
	if (target->n_pauses == PROVIDER_MAX_PAUSES)
		memmove(&target->pauses[0], &target->pauses[1],
			--target->n_pauses * sizeof *target->pauses);
	target->pauses[target->n_pauses++] = (struct provider_pause){*credential, until_us};
}

/* ---- Whose turn it is ---- */

/* Among those in usable; a weight of 0 waits until no other is there. */
static struct provider_target *next_turn(struct provider_targets *targets, uint32_t usable)
{
	struct provider_target *best = NULL;
	int64_t total = 0;
	for (size_t i = 0; i < targets->n; i++) {
		struct provider_target *target = &targets->list[i];
		if (!(usable & 1u << i))
			continue;
		target->credit += target->weight;
		total += target->weight;
		if (!best || (target->weight && !best->weight) ||
			(!target->weight == !best->weight && target->credit > best->credit))
			best = target;
	}
	if (best)
		best->credit -= total;
	return best;
}

static void refuse(const struct provider_targets *targets, uint32_t tried,
	const struct digest *credential, uint64_t now_us, struct provider_targets_refusal *refusal)
{
	uint64_t pause_ms = 0, open_ms = 0;
	*refusal = (struct provider_targets_refusal){0};
	for (size_t i = 0; i < targets->n; i++) {
		const struct provider_target *target = &targets->list[i];
		if (tried & 1u << i)
			continue;
		uint64_t paused_ms = (pause_us(target, credential, now_us) + 999) / 1000;
		uint64_t wait_ms = breaker_wait_ms(&target->breaker, now_us);
		if (paused_ms && (!pause_ms || paused_ms < pause_ms))
			pause_ms = paused_ms;
		if (wait_ms && (!open_ms || wait_ms < open_ms))
			open_ms = wait_ms;
	}
	refusal->paused = pause_ms > 0;
	refusal->wait_ms = pause_ms ? pause_ms : open_ms;
}

struct provider_target *provider_targets_pick(struct provider_targets *targets, uint32_t tried,
	const struct digest *credential, uint64_t now_us, struct provider_targets_refusal *refusal)
{
	uint32_t usable = 0;
	for (size_t i = 0; i < targets->n; i++)
		if (!(tried & 1u << i) && !pause_us(&targets->list[i], credential, now_us) &&
			!breaker_wait_ms(&targets->list[i].breaker, now_us))
			usable |= 1u << i;
	struct provider_target *target;
	while ((target = next_turn(targets, usable))) {
		if (breaker_allow(&target->breaker, now_us))
			return target;
		usable &= ~provider_target_bit(targets, target);
	}
	refuse(targets, tried, credential, now_us, refusal);
	return NULL;
}
