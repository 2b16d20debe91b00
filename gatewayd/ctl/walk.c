#include "gatewayd/ctl/walk.h"

#include <stdlib.h>
#include <string.h>

#include "common/loop.h"

struct walk_item {
	struct walk *walk;
	enum place_kind kind;
	struct digest key;
	char name[256];
};

void walk_next(struct walk *walk)
{
	walk->running--;
	loop_stop(walk->loop);
}

static void on_read(const struct place_result *result, void *arg)
{
	struct walk_item *item = arg;
	item->walk->on_object(item->walk, item->name, item->kind, &item->key, result);
	free(item);
}

static int start(struct walk *walk, const char *name)
{
	struct digest key;
	enum place_kind kind = place_kind_of(name, &key);
	if (kind == PLACE_OTHER || kind == PLACE_OWN) {
		walk->others += kind == PLACE_OTHER;
		walk->own += kind == PLACE_OWN;
		return 0;
	}
	if (kind == PLACE_MISNAMED) {
		walk->seen++;
		walk->on_misnamed(walk, name);
		return 0;
	}
	struct walk_item *item = calloc(1, sizeof *item);
	if (!item)
		return -1;
	item->walk = walk;
	item->kind = kind;
	item->key = key;
	snprintf(item->name, sizeof item->name, "%s", name);
	walk->seen++;
	walk->running++;
	if (place_get(walk->place, item->name, on_read, item) == 0)
		return 0;
	walk->running--;
	free(item);
	return -1;
}

static bool is_store(const struct walk *walk)
{
	char others[32];
	if (walk->seen || walk->own || !walk->others)
		return true;
	ctl_format_count(walk->others, others);
	fprintf(stderr,
		"cachectl: %s: nothing there looks like a store: %s file%s, and none of them "
		"embeddings/SHA256.json.gz\n"
		"  or, of the Python gateway, HEX4/SHA256; is it a directory above or below?\n",
		place_location(walk->place), others, walk->others == 1 ? "" : "s");
	return false;
}

enum ctl_exit walk_run(struct walk *walk)
{
	int more = 1;
	char text[96], count[32];
	while (more > 0 || walk->running) {
		const char *name;
		if (ctl_interrupted())
			more = more ? -1 : 0;
		while (more > 0 && walk->running < walk->options->parallel &&
			(more = place_next(walk->place, &name)) > 0)
			if (start(walk, name) < 0)
				more = -1;
		if (walk->running)
			loop_run(walk->loop);
		ctl_format_count(walk->seen, count);
		snprintf(text, sizeof text, "%s objects", count);
		if (more >= 0)
			ctl_progress_draw(&walk->progress, -1, text);
	}
	ctl_progress_end(&walk->progress);
	if (ctl_interrupted())
		return CTL_INTERRUPTED;
	if (more < 0)
		return CTL_UNAVAILABLE;
	return is_store(walk) ? CTL_OK : CTL_NO_INPUT;
}
