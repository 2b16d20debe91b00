#include "supervisor/ctl/log_level.h"

#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "supervisor/ctl/programs.h"

#define ANSWER_MAX_BYTES 4096

static enum ctl_exit show(const struct buf *answer, const char *label, enum log_level level)
{
	struct msg_log_level_result result;
	struct msg_error error;
	if (msg_log_level_result_unpack(
		    (struct span){(char *)answer->data, answer->len}, &result, &error) < 0) {
		fprintf(stderr, "podctl: %s: an answer of another version: %s\n", label,
			error.text);
		return CTL_FAILED;
	}
	printf("%s: %s (was %.*s)\n", label, log_level_name(level), SPAN_ARG(result.previous));
	msg_log_level_result_free(&result);
	return CTL_OK;
}

static enum ctl_exit set(
	const char *label, const char *run_dir, enum log_level level, uint64_t timeout_ms)
{
	const struct session_peer peer = {.name = label,
		.who = label,
		.start = "only a daemon of the pod that runs has a level: see podctl status"};
	char path[4096];
	enum ctl_exit exit;
	snprintf(path, sizeof path, "%s/%s.sock", run_dir, label);
	struct session *session = session_open(&peer, path, 0, &exit);
	if (!session)
		return CTL_FAILED;
	struct buf answer = BUF_INIT(ANSWER_MAX_BYTES);
	struct msg_log_level_params params = {.level = span_of(log_level_name(level))};
	exit = session_ask(session, "log_level", msg_log_level_params_schema(), &params, timeout_ms,
		false, &answer);
	if (exit == CTL_OK)
		exit = show(&answer, label, level);
	buf_free(&answer);
	session_free(&session);
	return exit == CTL_NO_SUPERVISOR ? CTL_FAILED : exit;
}

enum ctl_exit log_level_run(
	const struct ctl_options *options, struct session *session, char **names, int n_names)
{
	const char *socket = session_socket(session), *slash = strrchr(socket, '/');
	char run_dir[256]; /* longer ones hold no sockets */
	enum log_level level;
	if (log_level_parse(span_of(names[0]), &level) < 0) {
		fprintf(stderr, "podctl: no such level: %s; debug, info, warn, error or fatal\n",
			names[0]);
		return CTL_USAGE;
	}
	snprintf(run_dir, sizeof run_dir, "%.*s", slash ? (int)(slash - socket) : 1,
		slash ? socket : ".");
	struct strings labels;
	enum ctl_exit worst = programs_find(session, names + 1, n_names - 1, &labels);
	for (size_t i = 0, n = worst == CTL_OK ? labels.n : 0; i < n; i++) {
		enum ctl_exit exit = set(labels.items[i], run_dir, level, options->timeout_ms);
		if (exit != CTL_OK)
			worst = exit;
	}
	strings_free(&labels);
	return worst;
}
