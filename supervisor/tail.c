#include "supervisor/tail.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/messages.h"
#include "supervisor/pod.h"

#define DEFAULT_BYTES 1600

/* One who asked for all that comes. */
struct follower {
	struct tail *tail;
	struct rpc_request *request;
	struct follower *next;
	char *label;
	bool out, err;       /* which streams */
	uint64_t lost_bytes; /* there was no credit */
};

struct tail {
	struct pod *pod;
	struct follower *followers;
	struct rpc_method methods[2];
};

/* ---- followers ---- */

static void follower_free(struct follower *follower)
{
	struct tail *tail = follower->tail;
	struct follower **at = &tail->followers;
	while (*at && *at != follower)
		at = &(*at)->next;
	if (*at)
		*at = follower->next;
	free(follower->label);
	free(follower);
}

static void put(struct follower *follower, struct span data)
{
	char note[96] = "";
	if (follower->lost_bytes)
		snprintf(note, sizeof note, "\n[%" PRIu64 " bytes lost: read too slowly]\n",
			follower->lost_bytes);
	size_t said = strlen(note), len = said + data.len;
	char *copy = rpc_request_credit(follower->request) >= len ? malloc(len) : NULL;
	if (!copy) {
		follower->lost_bytes += data.len;
		return;
	}
	memcpy(copy, note, said);
	memcpy(copy + said, data.data, data.len);
	follower->lost_bytes = 0;
	rpc_request_send_chunk(follower->request, slice_malloced(copy, len), false);
}

static void output_came(const char *label, bool is_stderr, struct span data, void *arg)
{
	struct tail *tail = arg;
	for (struct follower *f = tail->followers; f; f = f->next)
		if ((is_stderr ? f->err : f->out) && strcmp(f->label, label) == 0)
			put(f, data);
}

static void follower_left(void *arg)
{
	follower_free(arg);
}

/* What is wanted of whom. */
struct choice {
	const struct process *process;
	bool out, err;
};

static void follow(struct tail *tail, struct rpc_request *request, const struct choice *choice,
	struct span end)
{
	static const struct rpc_request_events events = {.on_cancel = follower_left};
	struct msg_tail_result result = {.chunked = true};
	struct follower *follower = calloc(1, sizeof *follower);
	char *copy = strdup(choice->process->config->label);
	if (!follower || !copy) {
		free(follower);
		free(copy);
		rpc_request_fail(request, RPC_FAILED, "out of memory");
		return;
	}
	*follower = (struct follower){.tail = tail,
		.request = request,
		.label = copy,
		.out = choice->out,
		.err = choice->err};
	follower->next = tail->followers;
	tail->followers = follower;
	rpc_request_accept(request, &events, follower);
	if (msg_tail_reply_start(request, &result) < 0) {
		follower_free(follower);
		return;
	}
	pod_watch_output(tail->pod, output_came, tail);
	if (end.len)
		put(follower, end);
}

void tail_forget_removed(struct tail *tail)
{
	for (struct follower *f = tail->followers, *next; f; f = next) {
		bool there = false;
		next = f->next;
		for (size_t i = 0; i < pod_count(tail->pod); i++)
			there |= strcmp(pod_process(tail->pod, i)->config->label, f->label) == 0;
		if (there)
			continue;
		rpc_request_abort(f->request);
		follower_free(f);
	}
}

/* ---- the end of what there is ---- */

static struct process *find_process(struct pod *pod, struct span name)
{
	char text[300];
	if (name.len >= sizeof text)
		return NULL;
	snprintf(text, sizeof text, "%.*s", SPAN_ARG(name));
	for (size_t i = 0; i < pod_count(pod); i++) {
		struct process *process = pod_process(pod, i);
		if (process_config_matches(process->config, text))
			return process;
	}
	return NULL;
}

/* The end of a file; -1 with errno. */
static ssize_t read_end(const char *path, char *data, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -1;
	off_t end = lseek(fd, 0, SEEK_END);
	off_t from = end > (off_t)size ? end - (off_t)size : 0;
	ssize_t n = end < 0 ? -1 : pread(fd, data, size, from);
	int saved = errno;
	close(fd);
	errno = saved;
	return n;
}

/* Appends it; -1 with a sentence in error. */
static int find_end(const struct process *process, bool is_stderr, size_t size, struct buf *out,
	char *error, size_t error_size)
{
	const struct log_config *log = is_stderr ? &process->config->err : &process->config->out;
	const struct output *output = is_stderr ? process->err : process->out;
	if (log->kind == LOG_KIND_NONE) {
		snprintf(error, error_size, "its output goes to /dev/null (NONE)");
		return -1;
	}
	if (!log->path || strncmp(log->path, "/dev/", 5) == 0) {
		if (output)
			output_recent(output, size, out);
		return 0;
	}
	void *room = buf_reserve(out, size);
	ssize_t n = room ? read_end(log->path, room, size) : 0;
	if (n < 0) {
		snprintf(error, error_size, "%s: %s", log->path, strerror(errno));
		return -1;
	}
	buf_commit(out, (size_t)n);
	return 0;
}

/* Which streams a request is about; -1: there is no such stream. */
static int choose(struct choice *choice, struct span stream)
{
	bool all = span_equal_str(stream, "all"), err = span_equal_str(stream, "stderr");
	if (stream.len && !all && !err && !span_equal_str(stream, "stdout"))
		return -1;
	bool one = choice->process->config->redirect_stderr;
	choice->err = (all || err) && !one;
	choice->out = all || !err || one;
	return 0;
}

static void serve_tail(struct rpc_request *request, struct span bytes, void *arg)
{
	struct tail *tail = arg;
	struct msg_tail_params params;
	char error[256];
	if (msg_tail_serve_params(request, bytes, &params) < 0)
		return;
	struct choice choice = {.process = find_process(tail->pod, params.name)};
	size_t size = params.max_bytes ? params.max_bytes : DEFAULT_BYTES;
	if (size > RPC_INLINE_BODY_BYTES)
		size = RPC_INLINE_BODY_BYTES;
	if (!choice.process) {
		rpc_request_fail(
			request, RPC_FAILED, "no such program: %.*s", SPAN_ARG(params.name));
		return;
	}
	if (choose(&choice, params.stream) < 0) {
		rpc_request_fail(request, RPC_BAD_PARAMS, "stream: stdout, stderr or all");
		return;
	}
	struct buf end = BUF_INIT(4 * RPC_INLINE_BODY_BYTES);
	unsigned streams = choice.out + choice.err, failed = 0;
	if (choice.err)
		failed += find_end(choice.process, true, size, &end, error, sizeof error) < 0;
	if (choice.out)
		failed += find_end(choice.process, false, size, &end, error, sizeof error) < 0;
	struct span data = {(const char *)end.data, end.len};
	if (data.len > size && !params.follow)
		data = (struct span){data.data + data.len - size, size};
	struct msg_tail_result result = {.data = data};
	/* A file that is not there yet can be followed; what goes nowhere can not. */
	bool nowhere = choice.process->config->out.kind == LOG_KIND_NONE;
	if (failed == streams && (!params.follow || nowhere))
		rpc_request_fail(request, RPC_FAILED, "%s", error);
	else if (params.follow)
		follow(tail, request, &choice, data);
	else
		msg_tail_reply(request, &result);
	buf_free(&end);
}

struct tail *tail_new(struct rpc_server *server, struct pod *pod)
{
	struct tail *tail = calloc(1, sizeof *tail);
	if (!tail)
		return NULL;
	*tail = (struct tail){.pod = pod, .methods = {{"tail", serve_tail, tail}, {0}}};
	if (rpc_server_add(server, tail->methods) < 0)
		tail_free(&tail);
	return tail;
}

void tail_free(struct tail **tail)
{
	struct tail *t = *tail;
	if (!t)
		return;
	*tail = NULL;
	for (struct follower *f = t->followers, *next; f; f = next) {
		next = f->next;
		free(f->label);
		free(f);
	}
	free(t);
}
