#include "supervisor/config/values.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/buf.h"

#define WORD_MAX_BYTES (1u << 20)
#define YEAR_MS        (365.0 * 86400 * 1000)

int value_bool(const char *text, bool *result)
{
	static const char *const yes[] = {"true", "yes", "on", "1"};
	static const char *const no[] = {"false", "no", "off", "0"};
	for (size_t i = 0; i < sizeof yes / sizeof *yes; i++) {
		if (strcasecmp(text, yes[i]) == 0) {
			*result = true;
			return 0;
		}
		if (strcasecmp(text, no[i]) == 0) {
			*result = false;
			return 0;
		}
	}
	return -1;
}

static int parse_integer(const char *text, int base, int64_t min, int64_t max, int64_t *result)
{
	const char *digits = text + (*text == '-');
	if (!isdigit((unsigned char)*digits))
		return -1;
	char *end;
	errno = 0;
	long long value = strtoll(text, &end, base);
	if (errno || *end || value < min || value > max)
		return -1;
	*result = value;
	return 0;
}

int value_int(const char *text, int64_t min, int64_t max, int64_t *result)
{
	return parse_integer(text, 10, min, max, result);
}

int value_octal(const char *text, int64_t max, int64_t *result)
{
	return parse_integer(text, 8, 0, max, result);
}

int value_ms(const char *text, uint64_t *result)
{
	static const struct {
		const char *name;
		double ms;
	} units[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60e3}, {"h", 3600e3}};
	/* strtod() alone would take hexadecimal, "inf", "nan" and exponents. */
	size_t number = strspn(text, "0123456789.");
	if (!number || !isdigit((unsigned char)*text) || number > 20)
		return -1;
	char copy[24] = {0};
	memcpy(copy, text, number);
	char *end;
	double value = strtod(copy, &end);
	if (*end)
		return -1;
	text += number;
	while (*text == ' ')
		text++;
	for (size_t i = 0; i < sizeof units / sizeof *units; i++)
		if (strcasecmp(text, units[i].name) == 0) {
			value *= units[i].ms;
			if (value > YEAR_MS)
				return -1;
			*result = (uint64_t)ceil(value);
			return 0;
		}
	return -1;
}

int value_bytes(const char *text, uint64_t *result)
{
	static const char *const units[] = {"KB", "MB", "GB"};
	size_t number = strspn(text, "0123456789");
	if (!number || number > 15)
		return -1;
	uint64_t value = strtoull(text, NULL, 10);
	text += number;
	while (*text == ' ')
		text++;
	unsigned shift = 0;
	for (size_t i = 0; i < sizeof units / sizeof *units; i++)
		if (strcasecmp(text, units[i]) == 0)
			shift = 10 * (unsigned)(i + 1);
	if ((*text && !shift) || value > (uint64_t)INT64_MAX >> shift)
		return -1;
	*result = value << shift;
	return 0;
}

int value_signal(const char *text, int *result)
{
	int64_t number;
	if (value_int(text, 1, NSIG - 1, &number) == 0) {
		*result = (int)number;
		return 0;
	}
	if (strncasecmp(text, "SIG", 3) == 0)
		text += 3;
	for (int i = 1; i < NSIG; i++) {
		const char *name = sigabbrev_np(i);
		if (name && strcasecmp(name, text) == 0) {
			*result = i;
			return 0;
		}
	}
	return -1;
}

const char *value_signal_name(int number)
{
	const char *name = sigabbrev_np(number);
	return name ? name : "?";
}

int value_exit_codes(const char *text, uint8_t result[32])
{
	uint8_t codes[32] = {0};
	struct strings list = {0};
	int failed = value_list(text, &list);
	for (size_t i = 0; i < list.n && !failed; i++) {
		int64_t code;
		failed = value_int(list.items[i], 0, 255, &code);
		if (!failed)
			codes[code / 8] |= (uint8_t)(1u << code % 8);
	}
	strings_free(&list);
	if (failed)
		return -1;
	memcpy(result, codes, sizeof codes);
	return 0;
}

int strings_take(struct strings *list, char *text)
{
	if (!text)
		return -1;
	/* Two more than a power of two of them: the new one and the NULL. */
	if (!list->items || (list->n & (list->n - 1)) == 0) {
		char **bigger = realloc(list->items, (2 * list->n + 2) * sizeof *bigger);
		if (!bigger) {
			free(text);
			return -1;
		}
		list->items = bigger;
	}
	list->items[list->n++] = text;
	list->items[list->n] = NULL;
	return 0;
}

int strings_add(struct strings *list, struct span text)
{
	return strings_take(list, strndup(text.data, text.len));
}

void strings_free(struct strings *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->items[i]);
	free(list->items);
	*list = (struct strings){0};
}

/* A word that grows; a word may be empty ('' is one), so its being there is a flag of its own. */
struct word {
	struct buf text;
	bool begun;
};

static int word_char(struct word *word, char c)
{
	word->begun = true;
	return buf_append_char(&word->text, c);
}

static int word_end(struct word *word, struct strings *words)
{
	if (!word->begun)
		return 0;
	word->begun = false;
	int result = buf_append_char(&word->text, '\0');
	if (result == 0)
		result = strings_add(
			words, (struct span){(char *)word->text.data, word->text.len - 1});
	buf_clear(&word->text);
	return result;
}

/* The text behind an opening quote goes to the word; returns what follows the closing one. */
static const char *quoted(const char *s, char quote, struct word *word, const char **why)
{
	word->begun = true;
	for (; *s && *s != quote; s++) {
		if (quote == '"' && *s == '\\' && (s[1] == '"' || s[1] == '\\'))
			s++;
		if (word_char(word, *s) < 0) {
			*why = "too long";
			return NULL;
		}
	}
	if (!*s) {
		*why = quote == '"' ? "a \" is not closed" : "a ' is not closed";
		return NULL;
	}
	return s + 1;
}

int value_words(const char *text, struct strings *words, const char **why)
{
	struct word word = {.text = BUF_INIT(WORD_MAX_BYTES)};
	int result = 0;
	*why = "out of memory";
	while (result == 0 && *text) {
		if (isspace((unsigned char)*text)) {
			result = word_end(&word, words);
			text++;
		} else if (*text == '\'' || *text == '"') {
			text = quoted(text + 1, *text, &word, why);
			if (!text)
				break;
		} else if (*text == '\\' && !text[1]) {
			*why = "a \\ at the end";
			result = -1;
		} else {
			text += *text == '\\';
			result = word_char(&word, *text++);
		}
	}
	if (!text || (result == 0 && word_end(&word, words) < 0))
		result = -1;
	buf_free(&word.text);
	return result;
}

static bool is_separator(char c)
{
	return c == ',' || c == '\n';
}

/* One KEY=value; returns what follows, or NULL. */
static const char *environment_pair(const char *s, struct word *word, const char **why)
{
	size_t key = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-");
	if (!key) {
		*why = "expected KEY=value";
		return NULL;
	}
	if (buf_append(&word->text, s, key) < 0)
		return NULL;
	s += key;
	while (*s == ' ' || *s == '\t')
		s++;
	if (*s != '=') {
		*why = "expected = after a key";
		return NULL;
	}
	if (word_char(word, *s++) < 0)
		return NULL;
	while (*s == ' ' || *s == '\t')
		s++;
	while (s && *s && !is_separator(*s)) {
		if (*s == '"' || *s == '\'') {
			s = quoted(s + 1, *s, word, why);
		} else {
			if (isspace((unsigned char)*s)) {
				s += strspn(s, " \t\r");
				if (!*s || is_separator(*s))
					break;
				*why = "a value with a blank needs quotes";
				return NULL;
			}
			if (word_char(word, *s++) < 0)
				return NULL;
		}
	}
	return s;
}

int value_environment(const char *text, struct strings *pairs, const char **why)
{
	struct word word = {.text = BUF_INIT(WORD_MAX_BYTES)};
	const char *s = text;
	*why = "out of memory";
	while (s && *s) {
		if (is_separator(*s) || isspace((unsigned char)*s)) {
			s++;
			continue;
		}
		s = environment_pair(s, &word, why);
		if (s && word_end(&word, pairs) < 0)
			s = NULL;
	}
	buf_free(&word.text);
	return s ? 0 : -1;
}

int value_list(const char *text, struct strings *items)
{
	while (*text) {
		size_t len = strcspn(text, ",\n");
		const char *start = text, *end = text + len;
		while (start < end && isspace((unsigned char)*start))
			start++;
		while (end > start && isspace((unsigned char)end[-1]))
			end--;
		if (end > start &&
			strings_add(items, (struct span){start, (size_t)(end - start)}) < 0)
			return -1;
		text += len;
		text += *text != '\0';
	}
	return 0;
}
