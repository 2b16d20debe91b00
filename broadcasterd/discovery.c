#include "broadcasterd/discovery.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "broadcasterd/conf.h"
#include "broadcasterd/stats.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/resolve.h"
#include "common/trace.h"

#define SOCKET_PREFIX "gatewayd."
#define SOCKET_SUFFIX ".sock"

struct discovery {
	struct loop *loop;
	const struct broadcaster_conf *conf;
	struct targets *targets;
	struct metrics *metrics;
	struct resolver *resolver;
	struct search *searches;
};

/* Waits for DNS, or, when there is nothing to ask, for the end of the turn. */
struct search {
	struct discovery *discovery;
	struct search *next, **prev;
	struct resolve_lookup *lookup;
	struct deferred now;
	uint64_t began_us;
	void (*on_done)(const struct discovery_result *result, void *arg);
	void *arg;
	char traceparent[TRACE_PARENT_LEN + 1]; /* "": none */
};

/* ---- the three sources ---- */

static int add(
	struct discovery *d, struct target_list *list, enum target_kind kind, const char *name)
{
	return target_list_add(list, targets_get(d->targets, kind, span_of(name)));
}

static int add_addresses(
	struct discovery *d, const struct resolve_result *resolved, struct target_list *list)
{
	int result = 0;
	for (size_t i = 0; i < resolved->count; i++) {
		char name[TARGET_MAX_NAME];
		const char *address = resolved->addresses[i];
		snprintf(name, sizeof name, strchr(address, ':') ? "[%s]:%lld" : "%s:%lld", address,
			(long long)d->conf->port);
		result |= add(d, list, TARGET_POD, name);
	}
	return result;
}

static int add_static(struct discovery *d, struct target_list *list)
{
	static const char separators[] = " \t\n,";
	int result = 0;
	const char *at = d->conf->targets + strspn(d->conf->targets, separators);
	while (*at) {
		char name[TARGET_MAX_NAME];
		size_t len = strcspn(at, separators);
		snprintf(name, sizeof name, "%.*s", (int)len, at);
		struct target *target = targets_get(d->targets, TARGET_STATIC, span_of(name));
		if (target && target_list_has(list, target))
			target_unref(&target);
		else
			result |= target_list_add(list, target);
		at += len;
		at += strspn(at, separators);
	}
	return result;
}

/* Nobody listens on a socket that refuses; every other answer is somebody's. */
static bool is_listening(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof address.sun_path)
		return false;
	memcpy(address.sun_path, path, strlen(path));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return true;
	bool refused = connect(fd, (struct sockaddr *)&address, sizeof address) < 0 &&
		       (errno == ECONNREFUSED || errno == ENOENT || errno == ENOTSOCK);
	close(fd);
	return !refused;
}

/* The N of "gatewayd.N.sock"; 0 for other names. */
static size_t number_length(const char *file)
{
	size_t len = strlen(file), affixes = strlen(SOCKET_PREFIX) + strlen(SOCKET_SUFFIX);
	if (len <= affixes || strncmp(file, SOCKET_PREFIX, strlen(SOCKET_PREFIX)) != 0 ||
		strcmp(file + len - strlen(SOCKET_SUFFIX), SOCKET_SUFFIX) != 0)
		return 0;
	len -= affixes;
	return strspn(file + strlen(SOCKET_PREFIX), "0123456789") == len ? len : 0;
}

static int add_local(struct discovery *d, struct target_list *list)
{
	const struct dirent *entry;
	int result = 0;
	DIR *dir = opendir(d->conf->common.run_dir);
	while (dir && (entry = readdir(dir))) {
		char path[PATH_MAX], name[TARGET_MAX_NAME];
		size_t n = number_length(entry->d_name);
		int len = snprintf(
			path, sizeof path, "%s/%s", d->conf->common.run_dir, entry->d_name);
		if (!n || len < 0 || (size_t)len >= sizeof path || !is_listening(path))
			continue;
		snprintf(
			name, sizeof name, "%.*s", (int)(strlen(SOCKET_PREFIX) + n), entry->d_name);
		result |= add(d, list, TARGET_LOCAL, name);
	}
	if (dir)
		closedir(dir);
	return result;
}

int discovery_socket_path(
	const struct discovery *discovery, const struct target *target, char *path, size_t size)
{
	int len = snprintf(
		path, size, "%s/%s" SOCKET_SUFFIX, discovery->conf->common.run_dir, target->name);
	return len < 0 || (size_t)len >= size ? -1 : 0;
}

/* ---- a search ---- */

static void search_free(struct search *s)
{
	resolve_cancel(&s->lookup);
	loop_defer_cancel(s->discovery->loop, &s->now);
	*s->prev = s->next;
	if (s->next)
		s->next->prev = s->prev;
	free(s);
}

static int by_name(const void *a, const void *b)
{
	const struct target *const *x = a, *const *y = b;
	if ((*x)->kind != (*y)->kind)
		return (int)(*x)->kind - (int)(*y)->kind;
	return strverscmp((*x)->name, (*y)->name);
}

static enum discovery_outcome fail(const struct search *s, enum log_level level, const char *reason)
{
	log_fields(level, s->traceparent, "service discovery failed",
		LOG_STR("service", s->discovery->conf->service), LOG_STR("reason", reason));
	return DISCOVERY_FAILED;
}

static enum discovery_outcome gather(
	const struct search *s, const struct resolve_result *resolved, struct target_list *list)
{
	struct discovery *d = s->discovery;
	bool nobody = resolved && resolved->outcome == RESOLVE_NONE;
	if (resolved && !nobody && resolved->outcome != RESOLVE_OK)
		return fail(s, LOG_LEVEL_WARN, resolved->detail);
	if (resolved && resolved->count > (size_t)d->conf->max_targets)
		return fail(s, LOG_LEVEL_ERROR, "more addresses than BROADCASTERD_MAX_TARGETS");
	if ((resolved && add_addresses(d, resolved, list) < 0) || add_static(d, list) < 0 ||
		(d->conf->local && add_local(d, list) < 0))
		return fail(s, LOG_LEVEL_ERROR, "out of memory");
	if (nobody || !list->count)
		return DISCOVERY_NONE;
	qsort(list->items, list->count, sizeof *list->items, by_name);
	return DISCOVERY_OK;
}

static void finish(struct search *s, const struct resolve_result *resolved)
{
	struct discovery *d = s->discovery;
	struct target_list found = {0};
	struct discovery_result result = {gather(s, resolved, &found), &found};
	stats_discovery(d->metrics, result.outcome, found.count,
		(double)(loop_now_us(d->loop) - s->began_us) / 1e6);
	if (result.outcome == DISCOVERY_FAILED)
		target_list_clear(&found);
	void (*on_done)(const struct discovery_result *, void *) = s->on_done;
	void *arg = s->arg;
	search_free(s);
	on_done(&result, arg);
	target_list_clear(&found);
}

static void on_resolved(const struct resolve_result *resolved, void *arg)
{
	struct search *s = arg;
	s->lookup = NULL;
	finish(s, resolved);
}

static void on_now(void *arg)
{
	finish(arg, NULL);
}

struct search *discovery_start(struct discovery *discovery, const struct trace *trace,
	void (*on_done)(const struct discovery_result *result, void *arg), void *arg)
{
	struct search *s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	*s = (struct search){.discovery = discovery,
		.began_us = loop_now_us(discovery->loop),
		.next = discovery->searches,
		.prev = &discovery->searches,
		.on_done = on_done,
		.arg = arg};
	if (trace)
		trace_format(trace, s->traceparent);
	deferred_init(&s->now, on_now, s);
	if (s->next)
		s->next->prev = &s->next;
	discovery->searches = s;
	if (!discovery->conf->service[0]) {
		loop_defer(discovery->loop, &s->now);
		return s;
	}
	s->lookup = resolve_start(discovery->resolver, discovery->conf->service,
		(uint32_t)discovery->conf->resolve_timeout_ms, on_resolved, s);
	if (!s->lookup) {
		search_free(s);
		return NULL;
	}
	return s;
}

void discovery_cancel(struct search **search)
{
	if (*search)
		search_free(*search);
	*search = NULL;
}

/* ---- life ---- */

struct discovery *discovery_new(struct loop *loop, const struct broadcaster_conf *conf,
	struct targets *targets, struct metrics *metrics)
{
	struct discovery *d = calloc(1, sizeof *d);
	if (!d)
		return NULL;
	*d = (struct discovery){.loop = loop, .conf = conf, .targets = targets, .metrics = metrics};
	d->resolver = resolver_new(loop, RESOLVE_ALL);
	if (!d->resolver)
		discovery_free(&d);
	return d;
}

void discovery_free(struct discovery **discovery)
{
	struct discovery *d = *discovery;
	if (!d)
		return;
	*discovery = NULL;
	while (d->searches)
		search_free(d->searches);
	resolver_free(&d->resolver);
	free(d);
}
