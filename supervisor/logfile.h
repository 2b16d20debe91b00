#ifndef SUPERVISOR_LOGFILE_H
#define SUPERVISOR_LOGFILE_H

/*
 * A file that output is appended to, with rotation: past max_bytes NAME becomes NAME.1, NAME.1
 * becomes NAME.2 …, at most `backups` of them. What is no regular file (a FIFO, a device) is
 * written to as it is, never waited for and never rotated.
 */
#include <stddef.h>
#include <stdint.h>

struct logfile;

/* max_bytes 0: no rotation. NULL with a sentence in error. */
struct logfile *logfile_open(
	const char *path, uint64_t max_bytes, unsigned backups, char *error, size_t error_size);
/* What cannot be written (a full disk) is lost and counted; the log says so when it begins and when
 * it is over, but not every few seconds. */
void logfile_write(struct logfile *file, const void *data, size_t len_bytes);
/* Make it anew under its name when that was renamed or deleted. */
void logfile_reopen(struct logfile *file);
uint64_t logfile_lost_bytes(const struct logfile *file);
void logfile_free(struct logfile **file);

#endif
