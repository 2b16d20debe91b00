#include "common/retry.h"

#include <math.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define ATTEMPTS_MAX \
	1000000 /* keeps the count from wrapping; the delay is at its ceiling by then */

/* Jitter needs to differ between processes, not to be secret. One state a thread. */
static uint64_t random_u64(void)
{
	static _Thread_local uint64_t state;
	if (state == 0) {
		if (getrandom(&state, sizeof state, 0) != (ssize_t)sizeof state)
			state = (uint64_t)(uintptr_t)&state ^ (uint64_t)time(NULL);
		state |= 1;
	}
	/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators,
	 * scrambled", ACM TOMS 42(4), 2016. */
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * UINT64_C(0x2545f4914f6cdd1d);
}

void backoff_init(struct backoff *b, uint32_t base_ms, uint32_t max_ms, double factor)
{
	*b = (struct backoff){.base_ms = base_ms, .max_ms = max_ms, .factor = factor};
}

uint32_t backoff_next_ms(struct backoff *b)
{
	double ceiling = (double)b->base_ms * pow(b->factor, b->attempt);
	/* Written so that a NaN (0 * infinity) takes the maximum too. */
	uint32_t most = ceiling < (double)b->max_ms ? (uint32_t)ceiling : b->max_ms;
	if (b->attempt < ATTEMPTS_MAX)
		b->attempt++;
	return (uint32_t)((random_u64() >> 32) * ((uint64_t)most + 1) >> 32);
}

void backoff_reset(struct backoff *b)
{
	b->attempt = 0;
}

/* A cursor over the text of a date: every step fails for good once one has failed. */
struct scan {
	const char *at;
	bool bad;
};

static void scan_literal(struct scan *s, const char *literal)
{
	size_t len = strlen(literal);
	if (s->bad || strncmp(s->at, literal, len) != 0)
		s->bad = true;
	else
		s->at += len;
}

static int scan_digits(struct scan *s, int n)
{
	int value = 0;
	for (int i = 0; i < n && !s->bad; i++) {
		if (*s->at < '0' || *s->at > '9')
			s->bad = true;
		else
			value = value * 10 + (*s->at++ - '0');
	}
	return value;
}

/* The index of the name that stands here. */
static int scan_name(struct scan *s, const char *const *names, int n)
{
	for (int i = 0; i < n && !s->bad; i++) {
		size_t len = strlen(names[i]);
		if (strncmp(s->at, names[i], len) == 0) {
			s->at += len;
			return i;
		}
	}
	s->bad = true;
	return 0;
}

static const char *const day_names[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
static const char *const long_day_names[] = {
	"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
static const char *const month_names[] = {
	"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

static void scan_clock(struct scan *s, struct tm *t)
{
	t->tm_hour = scan_digits(s, 2);
	scan_literal(s, ":");
	t->tm_min = scan_digits(s, 2);
	scan_literal(s, ":");
	t->tm_sec = scan_digits(s, 2);
}

/* Sun, 06 Nov 1994 08:49:37 GMT */
static void scan_imf_fixdate(struct scan *s, struct tm *t)
{
	scan_name(s, day_names, 7);
	scan_literal(s, ", ");
	t->tm_mday = scan_digits(s, 2);
	scan_literal(s, " ");
	t->tm_mon = scan_name(s, month_names, 12);
	scan_literal(s, " ");
	t->tm_year = scan_digits(s, 4) - 1900;
	scan_literal(s, " ");
	scan_clock(s, t);
	scan_literal(s, " GMT");
}

/* Sunday, 06-Nov-94 08:49:37 GMT: the year is at most 50 years ahead. */
static void scan_rfc850(struct scan *s, struct tm *t, int this_year)
{
	scan_name(s, long_day_names, 7);
	scan_literal(s, ", ");
	t->tm_mday = scan_digits(s, 2);
	scan_literal(s, "-");
	t->tm_mon = scan_name(s, month_names, 12);
	scan_literal(s, "-");
	int year = this_year / 100 * 100 + scan_digits(s, 2);
	if (year > this_year + 50)
		year -= 100;
	else if (year <= this_year - 50)
		year += 100;
	t->tm_year = year - 1900;
	scan_literal(s, " ");
	scan_clock(s, t);
	scan_literal(s, " GMT");
}

/* Sun Nov  6 08:49:37 1994 */
static void scan_asctime(struct scan *s, struct tm *t)
{
	scan_name(s, day_names, 7);
	scan_literal(s, " ");
	t->tm_mon = scan_name(s, month_names, 12);
	scan_literal(s, " ");
	if (!s->bad && *s->at == ' ') {
		scan_literal(s, " ");
		t->tm_mday = scan_digits(s, 1);
	} else {
		t->tm_mday = scan_digits(s, 2);
	}
	scan_literal(s, " ");
	scan_clock(s, t);
	scan_literal(s, " ");
	t->tm_year = scan_digits(s, 4) - 1900;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool at_end(const char *s)
{
	while (is_blank(*s))
		s++;
	return *s == '\0';
}

static bool is_date(const struct tm *t)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int year = t->tm_year + 1900;
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
	int last = days[t->tm_mon] + (t->tm_mon == 1 && leap);
	return t->tm_mday >= 1 && t->tm_mday <= last && t->tm_hour <= 23 && t->tm_min <= 59 &&
	       t->tm_sec <= 60;
}

/* RFC 9110 5.6.7: all three forms are accepted. Seconds since 1970 in *seconds, or -1. The day's
 * name is not compared with the date: it says nothing that the date does not. */
static int parse_date(const char *value, int this_year, int64_t *seconds)
{
	for (int form = 0; form < 3; form++) {
		struct tm t = {0};
		struct scan s = {.at = value};
		if (form == 0)
			scan_imf_fixdate(&s, &t);
		else if (form == 1)
			scan_rfc850(&s, &t, this_year);
		else
			scan_asctime(&s, &t);
		if (s.bad || !at_end(s.at))
			continue;
		if (!is_date(&t))
			return -1;
		*seconds = timegm(&t);
		return 0;
	}
	return -1;
}

int64_t retry_after_parse_ms(const char *value, uint64_t now_wall_ms, int64_t max_ms)
{
	if (!value)
		return -1;
	while (is_blank(*value))
		value++;
	if (*value >= '0' && *value <= '9') {
		int64_t seconds = 0;
		for (; *value >= '0' && *value <= '9'; value++) {
			if (seconds <= INT32_MAX)
				seconds = seconds * 10 + (*value - '0');
		}
		if (!at_end(value))
			return -1;
		return seconds > max_ms / 1000 ? max_ms : seconds * 1000;
	}
	time_t now = (time_t)(now_wall_ms / 1000);
	struct tm today;
	int64_t then;
	if (!gmtime_r(&now, &today) || parse_date(value, today.tm_year + 1900, &then) != 0)
		return -1;
	int64_t wait_ms = then * 1000 - (int64_t)now_wall_ms;
	if (wait_ms < 0)
		return 0;
	return wait_ms > max_ms ? max_ms : wait_ms;
}

void breaker_init(struct breaker *b, uint32_t threshold, uint32_t open_ms)
{
	*b = (struct breaker){.threshold = threshold, .open_ms = open_ms};
}

static uint64_t open_left_us(const struct breaker *b, uint64_t now_us)
{
	uint64_t ends_us = b->opened_us + (uint64_t)b->open_ms * 1000;
	return now_us < ends_us ? ends_us - now_us : 0;
}

bool breaker_allow(struct breaker *b, uint64_t now_us)
{
	if (b->state == BREAKER_CLOSED)
		return true;
	if (b->state == BREAKER_OPEN) {
		if (open_left_us(b, now_us) > 0)
			return false;
		b->state = BREAKER_HALF_OPEN;
		b->probe_out = false;
	}
	if (b->probe_out)
		return false;
	b->probe_out = true;
	return true;
}

void breaker_success(struct breaker *b)
{
	/* While open, only calls from before it opened can report: the probe decides, not they. */
	if (b->state == BREAKER_OPEN)
		return;
	b->state = BREAKER_CLOSED;
	b->failures = 0;
	b->probe_out = false;
}

void breaker_failure(struct breaker *b, uint64_t now_us)
{
	if (b->state == BREAKER_OPEN)
		return;
	if (b->failures < UINT32_MAX)
		b->failures++;
	if (b->state == BREAKER_CLOSED && (b->threshold == 0 || b->failures < b->threshold))
		return;
	b->state = BREAKER_OPEN;
	b->opened_us = now_us;
	b->probe_out = false;
}

void breaker_neutral(struct breaker *b)
{
	b->probe_out = false;
}

uint64_t breaker_wait_ms(const struct breaker *b, uint64_t now_us)
{
	return b->state == BREAKER_OPEN ? (open_left_us(b, now_us) + 999) / 1000 : 0;
}
