#include "common/resolve.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <resolv.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/log.h"
#include "common/loop.h"

/* What a thread needs, and no more than glibc gives to getaddrinfo()'s own buffers. */
#define STACK_BYTES (256u << 10)
/* Of one name server, and how often each is asked: a silent one costs 2 s, not 10. */
#define SERVER_SECONDS 1
#define SERVER_TRIES   2
#define ADDRESS_BYTES  64 /* an IPv6 address with its scope */

/* One look at the name servers. The thread owns `answer` until it hands the query over. */
struct query {
	struct channel *channel;
	TAILQ_ENTRY(query) entry; /* of resolver->queries; loop thread */
	struct query *next_done;
	bool running;
	enum resolve_extent extent;
	TAILQ_HEAD(, resolve_lookup) lookups;

	struct {
		int error; /* EAI_* */
		char (*texts)[ADDRESS_BYTES];
		const char **addresses;
		size_t count;
	} answer;
	char host[];
};

struct resolve_lookup {
	struct resolver *resolver;
	struct query *query;
	TAILQ_ENTRY(resolve_lookup) entry;
	struct timer *deadline;
	void (*on_done)(const struct resolve_result *result, void *arg);
	void *arg;
};

/* Between the resolver and its threads; goes with the last of them. */
struct channel {
	pthread_mutex_t lock;
	unsigned refs;
	bool closed; /* nobody takes answers any more */
	int fd;      /* an eventfd: written when `done` stops being empty */
	struct query *done;
};

struct resolver {
	struct loop *loop;
	enum resolve_extent extent;
	struct channel *channel;
	struct event *event;
	unsigned running;
	TAILQ_HEAD(, query) queries;
};

/* ---- on a thread ---- */

static void query_free(struct query *q)
{
	free(q->answer.texts);
	free(q->answer.addresses);
	free(q);
}

/* With the lock, which is given back. */
static void channel_unref(struct channel *channel)
{
	bool last = --channel->refs == 0;
	pthread_mutex_unlock(&channel->lock);
	if (!last)
		return;
	pthread_mutex_destroy(&channel->lock);
	close(channel->fd);
	free(channel);
}

static bool has(const struct query *q, const char *text)
{
	for (size_t i = 0; i < q->answer.count; i++)
		if (strcmp(q->answer.addresses[i], text) == 0)
			return true;
	return false;
}

/* What getaddrinfo() said: all kinds, then A and AAAA by themselves where they were missing. */
enum { LIST_WHOLE, LIST_A, LIST_AAAA, LISTS };

static void keep_list(struct query *q, const struct addrinfo *list, size_t room)
{
	for (const struct addrinfo *a = list; a && q->answer.count < room; a = a->ai_next) {
		char *text = q->answer.texts[q->answer.count];
		if ((a->ai_family == AF_INET || a->ai_family == AF_INET6) &&
			getnameinfo(a->ai_addr, a->ai_addrlen, text, ADDRESS_BYTES, NULL, 0,
				NI_NUMERICHOST) == 0 &&
			!has(q, text))
			q->answer.addresses[q->answer.count++] = text;
	}
}

static void keep_addresses(struct query *q, struct addrinfo *const lists[LISTS])
{
	size_t n = 0;
	for (size_t i = 0; i < LISTS; i++)
		for (const struct addrinfo *a = lists[i]; a && n < RESOLVE_MAX_ADDRESSES;
			a = a->ai_next)
			n++;
	q->answer.texts = calloc(n, sizeof *q->answer.texts);
	q->answer.addresses = calloc(n, sizeof *q->answer.addresses);
	if (!q->answer.texts || !q->answer.addresses) {
		q->answer.error = EAI_MEMORY;
		return;
	}
	for (size_t i = 0; i < LISTS; i++)
		keep_list(q, lists[i], n);
}

static int ask(const char *host, int family, int flags, struct addrinfo **list)
{
	struct addrinfo hints = {
		.ai_family = family, .ai_socktype = SOCK_STREAM, .ai_flags = flags};
	return getaddrinfo(host, NULL, &hints, list);
}

static bool is_none(int error)
{
	return error == EAI_NONAME || error == EAI_NODATA;
}

static bool is_numeric(const char *host)
{
	struct addrinfo *list = NULL;
	int error = ask(host, AF_UNSPEC, AI_NUMERICHOST, &list);
	if (!error)
		freeaddrinfo(list);
	return !error;
}

static bool has_family(const struct addrinfo *list, int family)
{
	while (list && list->ai_family != family)
		list = list->ai_next;
	return list != NULL;
}

/* What it was found as, so that the other kind is not looked for in the next search domain. */
static int absolute_name(const struct query *q, const struct addrinfo *found, char name[NI_MAXHOST])
{
	const char *host = found && found->ai_canonname ? found->ai_canonname : q->host;
	const char *end = found && host[0] && host[strlen(host) - 1] != '.' ? "." : "";
	return snprintf(name, NI_MAXHOST, "%s%s", host, end) < NI_MAXHOST ? 0 : EAI_FAIL;
}

/* error: of the whole; of what is missing when that fails. */
static int ask_for_missing(const struct query *q, int error, struct addrinfo *lists[LISTS])
{
	static const int families[LISTS] = {[LIST_A] = AF_INET, [LIST_AAAA] = AF_INET6};
	char name[NI_MAXHOST];
	if ((error && !is_none(error)) || is_numeric(q->host))
		return error;
	if (absolute_name(q, lists[LIST_WHOLE], name) != 0)
		return EAI_FAIL;
	for (size_t i = LIST_A; i <= LIST_AAAA; i++) {
		if (has_family(lists[LIST_WHOLE], families[i]))
			continue;
		int missing = ask(name, families[i], 0, &lists[i]);
		if (!missing)
			error = 0;
		else if (!is_none(missing))
			return missing;
	}
	return error;
}

static void *run(void *arg)
{
	struct query *q = arg;
	struct channel *channel = q->channel;
	struct addrinfo *lists[LISTS] = {0};
	/* The resolver's state belongs to the thread (resolver(3)). */
	if (res_init() == 0) {
		_res.retrans = SERVER_SECONDS;
		_res.retry = SERVER_TRIES;
	}
	q->answer.error = ask(q->host, AF_UNSPEC, AI_CANONNAME, &lists[LIST_WHOLE]);
	if (q->extent == RESOLVE_ALL)
		q->answer.error = ask_for_missing(q, q->answer.error, lists);
	if (q->answer.error == 0)
		keep_addresses(q, lists);
	for (size_t i = 0; i < LISTS; i++)
		if (lists[i])
			freeaddrinfo(lists[i]);

	pthread_mutex_lock(&channel->lock);
	if (channel->closed) {
		query_free(q);
	} else {
		uint64_t one = 1;
		if (!channel->done && write(channel->fd, &one, sizeof one) < 0)
			log_bug(__FILE__, __LINE__, "write to an eventfd");
		q->next_done = channel->done;
		channel->done = q;
	}
	channel_unref(channel);
	return NULL;
}

/* 0, or -1. */
static int start_thread(struct query *q)
{
	pthread_attr_t attributes;
	pthread_t thread;
	sigset_t all, before;
	if (pthread_attr_init(&attributes) != 0)
		return -1;
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	pthread_mutex_lock(&q->channel->lock);
	q->channel->refs++;
	pthread_mutex_unlock(&q->channel->lock);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int error = pthread_create(&thread, &attributes, run, q);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	if (error) {
		pthread_mutex_lock(&q->channel->lock);
		channel_unref(q->channel);
	}
	return error ? -1 : 0;
}

/* ---- on the loop ---- */

static void lookup_free(struct resolve_lookup *lookup)
{
	if (lookup->query)
		TAILQ_REMOVE(&lookup->query->lookups, lookup, entry);
	timer_free(&lookup->deadline);
	free(lookup);
}

static void lookup_end(struct resolve_lookup *lookup, const struct resolve_result *result)
{
	void (*on_done)(const struct resolve_result *, void *) = lookup->on_done;
	void *arg = lookup->arg;
	lookup_free(lookup);
	on_done(result, arg);
}

static void on_deadline(void *arg)
{
	lookup_end(arg, &(struct resolve_result){.outcome = RESOLVE_TIMEOUT,
				.detail = "no answer from the name servers in time"});
}

/* Its answer is there. Lookups that a callback starts do not join it, since it is out of the list.
 */
static void query_end(struct query *q)
{
	int error = q->answer.error;
	struct resolve_result result = {
		.outcome = !error           ? RESOLVE_OK
			   : is_none(error) ? RESOLVE_NONE
					    : RESOLVE_FAILED,
		.addresses = q->answer.addresses,
		.count = q->answer.count,
		.detail = error ? gai_strerror(error) : NULL,
	};
	struct resolve_lookup *lookup;
	while ((lookup = TAILQ_FIRST(&q->lookups)))
		lookup_end(lookup, &result);
	query_free(q);
}

static void start_queries(struct resolver *r)
{
	struct query *q, *next;
	for (q = TAILQ_FIRST(&r->queries); q && r->running < RESOLVE_MAX_THREADS; q = next) {
		next = TAILQ_NEXT(q, entry);
		if (q->running)
			continue;
		if (TAILQ_EMPTY(&q->lookups)) { /* nobody waits any more */
			TAILQ_REMOVE(&r->queries, q, entry);
			query_free(q);
			continue;
		}
		if (start_thread(q) < 0)
			return; /* the lookups have a deadline, and the next one tries again */
		q->running = true;
		r->running++;
	}
}

static void on_answers(evutil_socket_t fd, short what, void *arg)
{
	struct resolver *r = arg;
	uint64_t count;
	(void)what;
	if (read(fd, &count, sizeof count) < 0)
		return;
	pthread_mutex_lock(&r->channel->lock);
	struct query *done = r->channel->done;
	r->channel->done = NULL;
	pthread_mutex_unlock(&r->channel->lock);
	for (struct query *q = done; q; q = q->next_done) {
		TAILQ_REMOVE(&r->queries, q, entry);
		r->running--;
	}
	start_queries(r);
	while (done) {
		struct query *q = done;
		done = q->next_done;
		query_end(q);
	}
}

static struct query *query_for(struct resolver *r, const char *host)
{
	struct query *q;
	TAILQ_FOREACH (q, &r->queries, entry)
		if (!q->running && strcmp(q->host, host) == 0)
			return q;
	size_t size = strlen(host) + 1;
	q = calloc(1, sizeof *q + size);
	if (!q)
		return NULL;
	q->channel = r->channel;
	q->extent = r->extent;
	TAILQ_INIT(&q->lookups);
	memcpy(q->host, host, size);
	TAILQ_INSERT_TAIL(&r->queries, q, entry);
	return q;
}

struct resolve_lookup *resolve_start(struct resolver *resolver, const char *host,
	uint32_t timeout_ms, void (*on_done)(const struct resolve_result *result, void *arg),
	void *arg)
{
	struct resolve_lookup *lookup = calloc(1, sizeof *lookup);
	if (!lookup)
		return NULL;
	*lookup = (struct resolve_lookup){.resolver = resolver, .on_done = on_done, .arg = arg};
	lookup->deadline = timer_new(resolver->loop, on_deadline, lookup);
	struct query *q = lookup->deadline ? query_for(resolver, host) : NULL;
	if (!q) {
		lookup_free(lookup);
		return NULL;
	}
	lookup->query = q;
	TAILQ_INSERT_TAIL(&q->lookups, lookup, entry);
	timer_arm(lookup->deadline, timeout_ms);
	start_queries(resolver);
	return lookup;
}

void resolve_cancel(struct resolve_lookup **lookup)
{
	if (*lookup)
		lookup_free(*lookup);
	*lookup = NULL;
}

/* ---- life ---- */

static struct channel *channel_new(void)
{
	struct channel *channel = calloc(1, sizeof *channel);
	if (!channel)
		return NULL;
	channel->refs = 1;
	channel->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	pthread_mutex_init(&channel->lock, NULL);
	if (channel->fd < 0) {
		pthread_mutex_destroy(&channel->lock);
		free(channel);
		return NULL;
	}
	return channel;
}

struct resolver *resolver_new(struct loop *loop, enum resolve_extent extent)
{
	struct resolver *r = calloc(1, sizeof *r);
	if (!r)
		return NULL;
	r->loop = loop;
	r->extent = extent;
	TAILQ_INIT(&r->queries);
	r->channel = channel_new();
	if (r->channel)
		r->event = event_new(
			loop_base(loop), r->channel->fd, EV_READ | EV_PERSIST, on_answers, r);
	if (!r->event || event_add(r->event, NULL) < 0)
		resolver_free(&r);
	return r;
}

/* Of those that run the thread is the owner from now on. */
static void drop_queries(struct resolver *r)
{
	struct query *q;
	while ((q = TAILQ_FIRST(&r->queries))) {
		struct resolve_lookup *lookup;
		TAILQ_REMOVE(&r->queries, q, entry);
		while ((lookup = TAILQ_FIRST(&q->lookups)))
			lookup_free(lookup);
		if (!q->running)
			query_free(q);
	}
}

void resolver_free(struct resolver **resolver)
{
	struct resolver *r = *resolver;
	if (!r)
		return;
	*resolver = NULL;
	if (r->event)
		event_free(r->event);
	if (r->channel) {
		pthread_mutex_lock(&r->channel->lock);
		r->channel->closed = true;
		struct query *done = r->channel->done;
		r->channel->done = NULL;
		drop_queries(r);
		while (done) {
			struct query *q = done;
			done = q->next_done;
			query_free(q);
		}
		channel_unref(r->channel);
	}
	free(r);
}
