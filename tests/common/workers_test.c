#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>

#include "common/loop.h"
#include "common/workers.h"

struct fixture {
	struct loop *loop;
	struct workers *workers;
	size_t done_count, stop_at;
	sem_t entered, gate; /* for jobs that are held up */
};

struct test_job {
	struct job job;
	struct fixture *f;
	unsigned input, output, runs, dones;
	unsigned resubmit;
	pthread_t work_thread, done_thread;
	sigset_t mask;
	size_t done_at;
};

static void set_up(struct fixture *f, unsigned threads, size_t max_queued)
{
	*f = (struct fixture){.loop = loop_new()};
	assert_non_null(f->loop);
	sem_init(&f->entered, 0, 0);
	sem_init(&f->gate, 0, 0);
	f->workers = workers_new(f->loop, threads, max_queued);
	assert_non_null(f->workers);
}

static void tear_down(struct fixture *f)
{
	workers_free(&f->workers);
	assert_null(f->workers);
	workers_free(&f->workers);
	loop_free(&f->loop);
	sem_destroy(&f->entered);
	sem_destroy(&f->gate);
}

static void square(struct job *job)
{
	struct test_job *t = (struct test_job *)job;
	t->output = t->input * t->input;
	t->runs++;
	t->work_thread = pthread_self();
	pthread_sigmask(SIG_SETMASK, NULL, &t->mask);
}

static void hold(struct job *job)
{
	struct test_job *t = (struct test_job *)job;
	sem_post(&t->f->entered);
	sem_wait(&t->f->gate);
	square(job);
}

static void count(struct job *job)
{
	struct test_job *t = (struct test_job *)job;
	t->dones++;
	t->done_thread = pthread_self();
	t->done_at = t->f->done_count++;
	if (t->resubmit > 0) {
		t->resubmit--;
		assert_int_equal(workers_submit(t->f->workers, job), 0);
	}
	if (t->f->done_count == t->f->stop_at)
		loop_stop(t->f->loop);
}

static struct test_job make_job(struct fixture *f, void (*work)(struct job *))
{
	return (struct test_job){.job = {.work = work, .done = count}, .f = f, .input = 3};
}

static void run_until(struct fixture *f, size_t dones)
{
	f->stop_at = dones;
	if (f->done_count < dones)
		loop_run(f->loop);
	assert_int_equal(f->done_count, dones);
}

static void test_job_runs_on_another_thread_and_comes_back(void **state)
{
	(void)state;
	struct fixture f;
	set_up(&f, 1, 10);
	struct test_job t = make_job(&f, square);
	assert_int_equal(workers_submit(f.workers, &t.job), 0);
	assert_int_equal(t.dones, 0);
	assert_int_equal(workers_pending(f.workers), 1);
	run_until(&f, 1);
	assert_int_equal(t.output, 9);
	assert_int_equal(t.runs, 1);
	assert_true(pthread_equal(t.done_thread, pthread_self()));
	assert_false(pthread_equal(t.work_thread, pthread_self()));
	assert_int_equal(sigismember(&t.mask, SIGTERM), 1);
	assert_int_equal(sigismember(&t.mask, SIGCHLD), 1);
	assert_int_equal(workers_pending(f.workers), 0);
	assert_int_equal(workers_queued(f.workers), 0);
	sigset_t own;
	pthread_sigmask(SIG_SETMASK, NULL, &own);
	assert_int_equal(sigismember(&own, SIGTERM), 0);
	tear_down(&f);
}

#define MANY 3000

static void test_many_jobs_each_once(void **state)
{
	(void)state;
	struct fixture f;
	set_up(&f, 4, MANY);
	struct test_job *jobs = calloc(MANY, sizeof *jobs);
	for (unsigned i = 0; i < MANY; i++) {
		jobs[i] = make_job(&f, square);
		jobs[i].input = i;
		assert_int_equal(workers_submit(f.workers, &jobs[i].job), 0);
	}
	run_until(&f, MANY);
	for (unsigned i = 0; i < MANY; i++) {
		assert_int_equal(jobs[i].output, i * i);
		assert_int_equal(jobs[i].runs, 1);
		assert_int_equal(jobs[i].dones, 1);
	}
	free(jobs);
	tear_down(&f);
}

static void test_one_thread_keeps_the_order(void **state)
{
	(void)state;
	struct fixture f;
	set_up(&f, 1, 100);
	struct test_job jobs[100];
	for (size_t i = 0; i < 100; i++) {
		jobs[i] = make_job(&f, square);
		assert_int_equal(workers_submit(f.workers, &jobs[i].job), 0);
	}
	run_until(&f, 100);
	for (size_t i = 0; i < 100; i++)
		assert_int_equal(jobs[i].done_at, i);
	tear_down(&f);
}

static void test_full_queue_refuses(void **state)
{
	(void)state;
	struct fixture f;
	set_up(&f, 1, 2);
	struct test_job held = make_job(&f, hold), a = make_job(&f, square),
			b = make_job(&f, square), c = make_job(&f, square);
	assert_int_equal(workers_submit(f.workers, &held.job), 0);
	sem_wait(&f.entered);
	assert_int_equal(workers_queued(f.workers), 0);
	assert_int_equal(workers_submit(f.workers, &a.job), 0);
	assert_int_equal(workers_submit(f.workers, &b.job), 0);
	assert_int_equal(workers_queued(f.workers), 2);
	assert_int_equal(workers_submit(f.workers, &c.job), -1);
	assert_int_equal(workers_pending(f.workers), 3);
	sem_post(&f.gate);
	run_until(&f, 3);
	assert_int_equal(c.runs + c.dones, 0);
	assert_int_equal(workers_submit(f.workers, &c.job), 0);
	run_until(&f, 4);
	assert_int_equal(c.dones, 1);
	tear_down(&f);
}

static void test_done_may_submit_again(void **state)
{
	(void)state;
	struct fixture f;
	set_up(&f, 2, 10);
	struct test_job a = make_job(&f, square), b = make_job(&f, square);
	a.resubmit = b.resubmit = 200;
	assert_int_equal(workers_submit(f.workers, &a.job), 0);
	assert_int_equal(workers_submit(f.workers, &b.job), 0);
	run_until(&f, 402);
	assert_int_equal(a.runs, 201);
	assert_int_equal(b.dones, 201);
	tear_down(&f);
}

static void refuse_again(struct job *job)
{
	struct test_job *t = (struct test_job *)job;
	t->dones++;
	assert_int_equal(workers_submit(t->f->workers, job), -1);
}

static void *open_gate(void *arg)
{
	struct fixture *f = arg;
	sem_post(&f->gate);
	return NULL;
}

/* What runs is waited for; what waits may never run; all report. */
static void test_free_reports_every_job(void **state)
{
	(void)state;
	struct fixture f;
	set_up(&f, 1, 10);
	struct test_job held = make_job(&f, hold), waiting[5];
	assert_int_equal(workers_submit(f.workers, &held.job), 0);
	for (int i = 0; i < 5; i++) {
		waiting[i] = make_job(&f, square);
		waiting[i].job.done = refuse_again;
		assert_int_equal(workers_submit(f.workers, &waiting[i].job), 0);
	}
	sem_wait(&f.entered);
	pthread_t opener;
	pthread_create(&opener, NULL, open_gate, &f);
	workers_free(&f.workers);
	pthread_join(opener, NULL);
	assert_int_equal(held.runs, 1);
	assert_int_equal(held.dones, 1);
	for (int i = 0; i < 5; i++)
		assert_int_equal(waiting[i].dones, 1);
	tear_down(&f);
}

struct turns {
	struct deferred next;
	struct fixture *f;
	size_t done_before, most;
};

static void turn_ends(void *arg)
{
	struct turns *t = arg;
	size_t done = t->f->done_count - t->done_before;
	if (done > t->most)
		t->most = done;
	t->done_before = t->f->done_count;
	loop_defer(t->f->loop, &t->next);
}

static void count_slowly(struct job *job)
{
	struct test_job *t = (struct test_job *)job;
	uint64_t until_us = loop_now_us(t->f->loop) + LOOP_SLICE_US / 4;
	while (loop_now_us(t->f->loop) < until_us)
		;
	count(job);
}

/* What takes long to take back does not hold the loop up; nothing is forgotten on the way. */
static void test_done_has_a_slice_of_each_turn(void **state)
{
	(void)state;
	enum { N = 60 };
	struct fixture f;
	set_up(&f, 2, N + 1);
	struct turns turns = {.f = &f};
	struct test_job jobs[N], held = make_job(&f, hold);
	assert_int_equal(workers_submit(f.workers, &held.job), 0);
	sem_wait(&f.entered);
	for (int i = 0; i < N; i++) {
		jobs[i] = make_job(&f, square);
		jobs[i].job.done = count_slowly;
		assert_int_equal(workers_submit(f.workers, &jobs[i].job), 0);
	}
	while (workers_queued(f.workers) > 0)
		sched_yield();
	sem_post(&f.gate); /* this one ends while others are taken back */
	deferred_init(&turns.next, turn_ends, &turns);
	loop_defer(f.loop, &turns.next);
	f.stop_at = N + 1;
	loop_run(f.loop);
	loop_defer_cancel(f.loop, &turns.next);
	for (int i = 0; i < N; i++)
		assert_int_equal(jobs[i].dones, 1);
	assert_int_equal(held.dones, 1);
	assert_in_range(turns.most, 1, 16);
	tear_down(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_job_runs_on_another_thread_and_comes_back),
		cmocka_unit_test(test_many_jobs_each_once),
		cmocka_unit_test(test_one_thread_keeps_the_order),
		cmocka_unit_test(test_full_queue_refuses),
		cmocka_unit_test(test_done_may_submit_again),
		cmocka_unit_test(test_free_reports_every_job),
		cmocka_unit_test(test_done_has_a_slice_of_each_turn),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
