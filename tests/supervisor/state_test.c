/* The table of states and events, cell by cell where something moves, and as a whole where not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "supervisor/state.h"

static const struct {
	enum process_state state;
	enum process_event event;
	enum process_state next;
	enum process_action action;
} moves[] = {
	{STATE_STOPPED, EVENT_START, STATE_STARTING, ACTION_SPAWN},
	{STATE_STARTING, EVENT_UP, STATE_RUNNING, ACTION_NONE},
	{STATE_STARTING, EVENT_LATE, STATE_STARTING, ACTION_SIGNAL},
	{STATE_STARTING, EVENT_STOP_TIMEOUT, STATE_STARTING, ACTION_KILL},
	{STATE_STARTING, EVENT_ENDED, STATE_EXITED, ACTION_CONSIDER},
	{STATE_STARTING, EVENT_FAILED, STATE_BACKOFF, ACTION_WAIT},
	{STATE_STARTING, EVENT_FAILED_LAST, STATE_FATAL, ACTION_RELEASE},
	{STATE_STARTING, EVENT_STOP, STATE_STOPPING, ACTION_SIGNAL},
	{STATE_RUNNING, EVENT_ENDED, STATE_EXITED, ACTION_CONSIDER},
	{STATE_RUNNING, EVENT_FAILED, STATE_BACKOFF, ACTION_WAIT},
	{STATE_RUNNING, EVENT_FAILED_LAST, STATE_FATAL, ACTION_RELEASE},
	{STATE_RUNNING, EVENT_STOP, STATE_STOPPING, ACTION_SIGNAL},
	{STATE_BACKOFF, EVENT_RETRY, STATE_STARTING, ACTION_SPAWN},
	{STATE_BACKOFF, EVENT_START, STATE_STARTING, ACTION_SPAWN},
	{STATE_BACKOFF, EVENT_STOP, STATE_STOPPED, ACTION_RELEASE},
	{STATE_STOPPING, EVENT_STOP_TIMEOUT, STATE_STOPPING, ACTION_KILL},
	{STATE_STOPPING, EVENT_ENDED, STATE_STOPPED, ACTION_RELEASE},
	{STATE_STOPPING, EVENT_FAILED, STATE_STOPPED, ACTION_RELEASE},
	{STATE_STOPPING, EVENT_FAILED_LAST, STATE_STOPPED, ACTION_RELEASE},
	{STATE_EXITED, EVENT_START, STATE_STARTING, ACTION_SPAWN},
	{STATE_FATAL, EVENT_START, STATE_STARTING, ACTION_SPAWN},
};
#define N_MOVES (sizeof moves / sizeof *moves)

static void test_moves(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_MOVES; i++) {
		struct state_move move = state_after(moves[i].state, moves[i].event);
		assert_int_equal(move.next, moves[i].next);
		assert_int_equal(move.action, moves[i].action);
	}
}

static void test_everything_else_changes_nothing(void **state)
{
	(void)state;
	unsigned quiet = 0;
	for (int s = 0; s < STATE_COUNT; s++)
		for (int e = 0; e < EVENT_COUNT; e++) {
			size_t i = 0;
			while (i < N_MOVES &&
				!((int)moves[i].state == s && (int)moves[i].event == e))
				i++;
			if (i < N_MOVES)
				continue;
			struct state_move move = state_after(
				(enum process_state)s, (enum process_event)e);
			assert_int_equal(move.next, s);
			assert_int_equal(move.action, ACTION_NONE);
			quiet++;
		}
	assert_int_equal(quiet + N_MOVES, STATE_COUNT * EVENT_COUNT);
}

/* A process is made only from states without one, and signalled only in states with one. */
static void test_no_second_process_and_no_signal_to_nobody(void **state)
{
	(void)state;
	for (int s = 0; s < STATE_COUNT; s++)
		for (int e = 0; e < EVENT_COUNT; e++) {
			struct state_move move = state_after(
				(enum process_state)s, (enum process_event)e);
			if (move.action == ACTION_SPAWN)
				assert_false(state_is_alive((enum process_state)s));
			if (move.action == ACTION_SIGNAL || move.action == ACTION_KILL)
				assert_true(state_is_alive((enum process_state)s) &&
					    state_is_alive(move.next));
		}
}

/* From everywhere, a stop leads to a state without a process as soon as the process is gone. */
static void test_stop_always_ends(void **state)
{
	(void)state;
	for (int s = 0; s < STATE_COUNT; s++) {
		enum process_state now = state_after((enum process_state)s, EVENT_STOP).next;
		if (state_is_alive(now))
			now = state_after(now, EVENT_FAILED_LAST).next;
		assert_false(state_is_alive(now));
		assert_int_not_equal(now, STATE_BACKOFF);
	}
}

static void test_names(void **state)
{
	(void)state;
	assert_string_equal(state_name(STATE_STOPPED), "STOPPED");
	assert_string_equal(state_name(STATE_FATAL), "FATAL");
	for (int e = 0; e < EVENT_COUNT; e++)
		assert_non_null(event_name((enum process_event)e));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_moves),
		cmocka_unit_test(test_everything_else_changes_nothing),
		cmocka_unit_test(test_no_second_process_and_no_signal_to_nobody),
		cmocka_unit_test(test_stop_always_ends),
		cmocka_unit_test(test_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
