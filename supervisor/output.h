#ifndef SUPERVISOR_OUTPUT_H
#define SUPERVISOR_OUTPUT_H

/*
 * What processes print: from their pipes to the supervisor's own stderr, line by line and prefixed
 * with their name, or to files.
 *
 *   process ──pipe──▶ output ──▶ console (stdout, stderr of the supervisor) or log file
 *
 * A pipe lives over restarts of its process. A process that prints faster than the console is read
 * waits in its write, as it would without a supervisor; nobody else does. Log files never make
 * anybody wait.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/span.h"
#include "supervisor/config/pod_config.h"

struct loop;
struct outputs; /* all streams of a pod, and the console they share */
struct output;  /* one stream of one process */

struct outputs *outputs_new(struct loop *loop, enum output_prefix prefix);
/* Log files are made again under their names, after a rotation by somebody else. */
void outputs_reopen(struct outputs *outputs);
/*
 * See what processes print as it comes in, whatever becomes of it: of the process with this label,
 * on its stderr or (also with redirect_stderr) stdout. One watcher; NULL: none.
 */
typedef void output_watch(const char *label, bool is_stderr, struct span data, void *arg);
void outputs_watch(struct outputs *outputs, output_watch *watch, void *arg);
/* The streams must be gone. */
void outputs_free(struct outputs **outputs);

/*
 * One stream, of the process with this label. NULL with a sentence in error.
 */
struct output *output_new(struct outputs *outputs, const struct log_config *config,
	const char *label, bool is_stderr, char *error, size_t error_size);
/*
 * Append the last bytes that it printed (at most OUTPUT_RECENT_BYTES) to out: of a stream that goes
 * to no file. They are kept until output_free().
 */
#define OUTPUT_RECENT_BYTES 8192
void output_recent(const struct output *output, size_t max_bytes, struct buf *out);
/* The descriptor for the process; -1: /dev/null. Stays open and the output's own. */
int output_fd(const struct output *output);
/* The process ended: take what is in the pipe, and end a last line that has no newline. */
void output_drain(struct output *output);
/* What its file did not take. */
uint64_t output_lost_bytes(const struct output *output);
/* The path of its file; NULL for others. */
const char *output_path(const struct output *output);
void output_free(struct output **output);

#endif
