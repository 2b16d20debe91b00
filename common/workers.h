#ifndef COMMON_WORKERS_H
#define COMMON_WORKERS_H

/*
 * A small pool of threads for calls that block (file I/O) or take long (inflating, parsing
 * megabytes). A job goes to a thread and comes back to the loop. The job struct is the caller's,
 * usually embedded in a request.
 */
#include <stdbool.h>
#include <stddef.h>

struct loop;
struct workers;

struct job {
	void (*work)(struct job *job); /* on a worker thread: touches the job and what it owns,
					  nothing else */
	void (*done)(struct job *job); /* on the loop thread, exactly once, never from inside
					  workers_submit() */
	struct job *next;              /* private */
	bool patient;
};

/* threads > 0, all signals blocked in them. max_queued: jobs waiting for a thread (a job that is
 * just handed to an idle one counts until that has woken up); more is refused. NULL on failure. */
struct workers *workers_new(struct loop *loop, unsigned threads, size_t max_queued);
/* 0, or -1 when the queue is full: the job was not taken. Jobs start in order, patient ones behind
 * all others (of many, one in WORKERS_TOGETHER is patient all the same). done() is called for
 * LOOP_SLICE_US a turn, then for the others in the next. */
int workers_submit(struct workers *workers, struct job *job);
/*
 * The same for a job that nobody waits for: it starts within WORKERS_PATIENCE_MS, or as soon as a
 * thread is awake and has nothing else to do, or WORKERS_TOGETHER of them wait. done() may come
 * some jobs later, and certainly when the threads have nothing more to do. To wake a thread, and
 * the loop again, costs more than many a job.
 */
#define WORKERS_PATIENCE_MS 2
#define WORKERS_TOGETHER    16
int workers_submit_patient(struct workers *workers, struct job *job);
size_t workers_queued(const struct workers *workers);  /* waiting for a thread */
size_t workers_pending(const struct workers *workers); /* submitted and not yet done */
/* Waits for running jobs; then calls done() for every job submitted, run or not; those calls may
 * submit, which is refused. Not from inside done(). Blocks: for the end of a process. */
void workers_free(struct workers **workers);

#endif
