#include "redisproxy/slowlog.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/json.h"

#define NAMES 4096 /* keys of commands under way whose names are remembered */

struct name {
	uint64_t hash;
	uint8_t len;
	char text[SLOWLOG_KEY_SHOW];
};

struct record {
	struct timespec at;
	const char *command;
	uint64_t duration_us;
	bool failed;
	char upstream[64];
	struct name key; /* with only the hash unless keys are shown */
};

struct slowlog {
	uint64_t threshold_us;
	uint64_t total;
	struct name *names; /* by hash; a later key takes the place; NULL: not shown */
	unsigned n;
	struct record *records;
};

struct slowlog *slowlog_new(unsigned n, uint64_t threshold_us, bool shows_keys)
{
	struct slowlog *log = calloc(1, sizeof *log);

	if (!log)
		return NULL;
	log->n = n;
	log->threshold_us = threshold_us;
	log->records = calloc(n, sizeof *log->records);
	log->names = shows_keys ? calloc(NAMES, sizeof *log->names) : NULL;
	if (!log->records || (shows_keys && !log->names))
		slowlog_free(&log);
	return log;
}

void slowlog_free(struct slowlog **log)
{
	if (!*log)
		return;
	free((*log)->records);
	free((*log)->names);
	free(*log);
	*log = NULL;
}

void slowlog_remember_key(struct slowlog *log, struct span key, uint64_t hash)
{
	if (!log->names)
		return;
	struct name *name = &log->names[hash % NAMES];

	name->hash = hash;
	name->len = (uint8_t)(key.len < sizeof name->text ? key.len : sizeof name->text);
	memcpy(name->text, key.data, name->len);
}

void slowlog_note(struct slowlog *log, const struct slowlog_entry *entry)
{
	if (entry->duration_us < log->threshold_us)
		return;
	struct record *record = &log->records[log->total++ % log->n];

	clock_gettime(CLOCK_REALTIME, &record->at);
	record->command = entry->command;
	record->duration_us = entry->duration_us;
	record->failed = entry->failed;
	snprintf(record->upstream, sizeof record->upstream, "%s", entry->upstream);
	record->key = (struct name){.hash = entry->key_hash};
	if (log->names && log->names[entry->key_hash % NAMES].hash == entry->key_hash)
		record->key = log->names[entry->key_hash % NAMES];
}

static void write_record(const struct record *record, uint64_t id, struct buf *out)
{
	char when[32];
	struct tm tm;

	gmtime_r(&record->at.tv_sec, &tm);
	strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
	buf_printf(out,
		"{\"id\": %" PRIu64 ", \"time\": \"%s.%03ldZ\", \"duration_us\": %" PRIu64
		", \"command\": \"%s\"",
		id, when, record->at.tv_nsec / 1000000, record->duration_us, record->command);
	if (record->key.hash && record->key.len) {
		buf_append_str(out, ", \"key\": ");
		json_append_string(out, (struct span){record->key.text, record->key.len});
	}
	if (record->key.hash)
		buf_printf(out, ", \"key_hash\": \"%016" PRIx64 "\"", record->key.hash);
	buf_append_str(out, ", \"upstream\": ");
	json_append_string(out, span_of(record->upstream));
	buf_printf(out, ", \"failed\": %s}", record->failed ? "true" : "false");
}

void slowlog_write_json(const struct slowlog *log, struct buf *out)
{
	uint64_t kept = log->total < log->n ? log->total : log->n;

	buf_printf(out, "{\"threshold_ms\": %.3f, \"total\": %" PRIu64 ", \"entries\": [",
		(double)log->threshold_us / 1000, log->total);
	for (uint64_t i = 0; i < kept; i++) {
		uint64_t id = log->total - 1 - i;

		buf_append_str(out, i ? ",\n " : "\n ");
		write_record(&log->records[id % log->n], id, out);
	}
	buf_append_str(out, "]}\n");
}
