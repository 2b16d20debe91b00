#include "exportermerger/round.h"

#include <stdlib.h>

struct round {
	struct loop *loop;
	struct collection *collection;
	struct round_member *members;
	bool complete;
};

static void tell(void *arg)
{
	struct round_member *member = arg;
	member->on_collected(member->arg);
}

static void on_done(void *arg)
{
	struct round *round = arg;
	round->complete = true;
	/* Each on its own, since whoever is told may leave, and the last one ends the round. */
	for (struct round_member *m = round->members; m; m = m->next)
		loop_defer(round->loop, &m->tell);
}

void round_join(struct round *round, struct round_member *member, void (*on_collected)(void *arg),
	void *arg)
{
	*member = (struct round_member){.round = round,
		.next = round->members,
		.prev = &round->members,
		.on_collected = on_collected,
		.arg = arg};
	deferred_init(&member->tell, tell, member);
	if (member->next)
		member->next->prev = &member->next;
	round->members = member;
	if (round->complete)
		loop_defer(round->loop, &member->tell);
}

int round_start(const struct collection_options *options, struct round_member *member,
	void (*on_collected)(void *arg), void *arg)
{
	struct round *round = calloc(1, sizeof *round);
	if (!round)
		return -1;
	round->loop = options->loop;
	round->collection = collection_start(options, on_done, round);
	if (!round->collection) {
		free(round);
		return -1;
	}
	round_join(round, member, on_collected, arg);
	return 0;
}

const struct collection *round_collection(const struct round *round)
{
	return round->collection;
}

bool round_leave(struct round_member *member)
{
	struct round *round = member->round;
	if (!round)
		return false;
	loop_defer_cancel(round->loop, &member->tell);
	*member->prev = member->next;
	if (member->next)
		member->next->prev = member->prev;
	member->round = NULL;
	if (round->members)
		return false;
	collection_free(&round->collection);
	free(round);
	return true;
}
