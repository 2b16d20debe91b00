#include "common/workers.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/log.h"
#include "common/loop.h"

struct job_list {
	struct job *head, **tail;
};

struct workers {
	int fd; /* an eventfd: written when there is something new in the list of done jobs */
	struct event *event;
	size_t max_queued;
	/* Loop thread only: */
	struct loop *loop;
	size_t pending;
	struct job *ending; /* taken from the list of done jobs */
	struct timer *patience;

	pthread_mutex_t lock; /* over what follows */
	pthread_cond_t wake;
	struct job_list waiting, patient, finished;
	unsigned n_patient, n_in_a_row; /* waiting; impatient ones that were taken since */
	bool told;                      /* of what is in finished */
	bool stopping;
	unsigned idle;        /* threads that wait */
	bool waking;          /* one of them was signalled and has not taken its job yet */
	atomic_size_t queued; /* written under the lock, read anywhere */

	unsigned n_threads;
	pthread_t threads[];
};

static void list_init(struct job_list *list)
{
	list->head = NULL;
	list->tail = &list->head;
}

static void list_append(struct job_list *list, struct job *job)
{
	job->next = NULL;
	*list->tail = job;
	list->tail = &job->next;
}

static struct job *list_take_first(struct job_list *list)
{
	struct job *job = list->head;
	list->head = job->next;
	if (!list->head)
		list->tail = &list->head;
	return job;
}

static struct job *list_take_all(struct job_list *list)
{
	struct job *jobs = list->head;
	list_init(list);
	return jobs;
}

/*
 * Threads are woken one after the other, each by the one before it, as long as jobs wait: a burst
 * of short jobs then runs on a thread or two, without a switch for each. Nobody is woken under the
 * lock, which would be the first thing to wait for.
 */
static bool should_wake(struct workers *w)
{
	if ((!w->waiting.head && !w->patient.head) || w->idle == 0 || w->waking)
		return false;
	return w->waking = true;
}

/* With the lock; NULL: stopping. */
static struct job *wait_for_job(struct workers *w)
{
	while (!w->stopping && !w->waiting.head && !w->patient.head) {
		w->idle++;
		pthread_cond_wait(&w->wake, &w->lock);
		w->idle--;
		w->waking = false;
	}
	if (w->stopping)
		return NULL;
	atomic_fetch_sub_explicit(&w->queued, 1, memory_order_relaxed);
	bool patient = w->patient.head && (!w->waiting.head || w->n_in_a_row >= WORKERS_TOGETHER);
	w->n_in_a_row = patient ? 0 : w->n_in_a_row + 1;
	w->n_patient -= patient;
	return list_take_first(patient ? &w->patient : &w->waiting);
}

static void wake_loop(const struct workers *w)
{
	/* Only an overflowing counter could make this fail, and it is read first. */
	uint64_t one = 1;
	ssize_t n = write(w->fd, &one, sizeof one);
	BUG_ON(n != sizeof one);
}

static void *run_thread(void *arg)
{
	struct workers *w = arg;
	struct job *job;
	pthread_mutex_lock(&w->lock);
	while ((job = wait_for_job(w))) {
		bool wake = (w->waiting.head || w->n_patient >= WORKERS_TOGETHER) && should_wake(w);
		pthread_mutex_unlock(&w->lock);
		if (wake)
			pthread_cond_signal(&w->wake);

		job->work(job);

		pthread_mutex_lock(&w->lock);
		list_append(&w->finished, job);
		if (!w->told && !(job->patient && (w->waiting.head || w->patient.head))) {
			w->told = true;
			pthread_mutex_unlock(&w->lock);
			wake_loop(w);
			pthread_mutex_lock(&w->lock);
		}
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

/* Those of w->ending, at least one, until the clock says so. */
static void finish(struct workers *w, uint64_t until_us)
{
	while (w->ending) {
		struct job *job = w->ending;
		w->ending = job->next;
		w->pending--;
		job->done(job);
		if (loop_now_us(w->loop) >= until_us)
			return;
	}
}

static void on_finished(evutil_socket_t fd, short what, void *arg)
{
	(void)what;
	struct workers *w = arg;
	uint64_t count;
	/* Before the list is taken: a job that ends in between writes again. */
	if (read(fd, &count, sizeof count) < 0 && errno == EAGAIN)
		return;
	bool takes = !w->ending;
	if (takes) {
		pthread_mutex_lock(&w->lock);
		w->ending = list_take_all(&w->finished);
		w->told = false;
		pthread_mutex_unlock(&w->lock);
	}
	finish(w, loop_now_us(w->loop) + LOOP_SLICE_US);
	/* What ended meanwhile was told already, and is not told again. */
	if (w->ending || !takes)
		wake_loop(w);
}

static void wake_for_patient(void *arg)
{
	struct workers *w = arg;
	pthread_mutex_lock(&w->lock);
	bool wake = w->patient.head && should_wake(w);
	pthread_mutex_unlock(&w->lock);
	if (wake)
		pthread_cond_signal(&w->wake);
}

static void stop_threads(struct workers *w)
{
	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	pthread_cond_broadcast(&w->wake);
	pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < w->n_threads; i++)
		pthread_join(w->threads[i], NULL);
}

/* Signals are the loop's: a thread starts with all of them blocked. */
static int start_threads(struct workers *w, unsigned threads)
{
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	int error = 0;
	while (w->n_threads < threads && error == 0) {
		error = pthread_create(&w->threads[w->n_threads], NULL, run_thread, w);
		if (error == 0) {
			pthread_setname_np(w->threads[w->n_threads], "worker");
			w->n_threads++;
		}
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return error == 0 ? 0 : -1;
}

struct workers *workers_new(struct loop *loop, unsigned threads, size_t max_queued)
{
	BUG_ON(threads == 0);
	struct workers *w = calloc(1, sizeof *w + threads * sizeof w->threads[0]);
	if (!w)
		return NULL;
	w->loop = loop;
	w->max_queued = max_queued;
	list_init(&w->waiting);
	list_init(&w->patient);
	list_init(&w->finished);
	w->patience = timer_new(loop, wake_for_patient, w);
	if (!w->patience)
		goto fail_memory;
	w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->fd < 0)
		goto fail_memory;
	w->event = event_new(loop_base(loop), w->fd, EV_READ | EV_PERSIST, on_finished, w);
	if (!w->event)
		goto fail_fd;
	if (event_add(w->event, NULL) != 0)
		goto fail_event;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->wake, NULL);
	if (start_threads(w, threads) != 0)
		goto fail_threads;
	return w;

fail_threads:
	stop_threads(w);
	pthread_cond_destroy(&w->wake);
	pthread_mutex_destroy(&w->lock);
fail_event:
	event_free(w->event);
fail_fd:
	close(w->fd);
fail_memory:
	timer_free(&w->patience);
	free(w);
	return NULL;
}

static int submit(struct workers *w, struct job *job, bool patient)
{
	job->patient = patient;
	pthread_mutex_lock(&w->lock);
	bool taken = !w->stopping && workers_queued(w) < w->max_queued;
	bool wake = false;
	if (taken) {
		list_append(patient ? &w->patient : &w->waiting, job);
		w->n_patient += patient;
		atomic_fetch_add_explicit(&w->queued, 1, memory_order_relaxed);
		wake = (!patient || w->n_patient >= WORKERS_TOGETHER) && should_wake(w);
	}
	pthread_mutex_unlock(&w->lock);
	if (wake)
		pthread_cond_signal(&w->wake);
	if (!taken)
		return -1;
	if (patient && !timer_armed(w->patience))
		timer_arm(w->patience, WORKERS_PATIENCE_MS);
	w->pending++;
	return 0;
}

int workers_submit(struct workers *w, struct job *job)
{
	return submit(w, job, false);
}

int workers_submit_patient(struct workers *w, struct job *job)
{
	return submit(w, job, true);
}

size_t workers_queued(const struct workers *w)
{
	return atomic_load_explicit(&w->queued, memory_order_relaxed);
}

size_t workers_pending(const struct workers *w)
{
	return w->pending;
}

void workers_free(struct workers **workers)
{
	struct workers *w = *workers;
	if (!w)
		return;
	stop_threads(w);
	finish(w, UINT64_MAX);
	w->ending = list_take_all(&w->finished);
	finish(w, UINT64_MAX);
	w->ending = list_take_all(&w->waiting);
	finish(w, UINT64_MAX);
	w->ending = list_take_all(&w->patient);
	finish(w, UINT64_MAX);
	BUG_ON(w->pending != 0);
	*workers = NULL;
	timer_free(&w->patience);
	pthread_cond_destroy(&w->wake);
	pthread_mutex_destroy(&w->lock);
	event_free(w->event);
	close(w->fd);
	free(w);
}
