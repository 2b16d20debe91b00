#include "supervisor/ctl/purge.h"

#include <stdio.h>

#define ANSWER_MAX_BYTES (4u << 20)

static const struct session_peer broadcasterd = {
	.name = "broadcasterd",
	.who = "the broadcaster",
	.start = "start the pod with `make run`, or: broadcasterd",
};

/* Nobody was told: why. */
static enum ctl_exit refused(const struct msg_purge_result *result)
{
	fprintf(stderr, "podctl: %.*s\n", SPAN_ARG(result->error));
	if (result->status == 403)
		fprintf(stderr,
			"  set " PURGE_COMMAND_TOKEN_ENV ", or name a file: --token-file\n");
	return result->status == 400 ? CTL_USAGE : CTL_FAILED;
}

static enum ctl_exit show(const struct buf *answer, const struct purge_options *options)
{
	struct msg_purge_result result;
	struct msg_error error;
	struct buf out = BUF_INIT(ANSWER_MAX_BYTES);
	enum ctl_exit exit;
	if (msg_purge_result_unpack(
		    (struct span){(char *)answer->data, answer->len}, &result, &error) < 0) {
		fprintf(stderr, "podctl: an answer of another version: %s\n", error.text);
		return CTL_FAILED;
	}
	if (options->json)
		purge_report_write_json(&result, true, &out);
	else if (result.results.count)
		purge_report_write(&result, options->color, &out);
	if (out.len)
		fwrite(out.data, 1, out.len, stdout);
	if (result.results.count)
		exit = result.status == 200 ? CTL_OK : CTL_FAILED;
	else
		exit = refused(&result);
	msg_purge_result_free(&result);
	buf_free(&out);
	return exit;
}

enum ctl_exit purge_run(struct purge_command *command, const struct purge_options *options)
{
	char path[4096], text[512];
	enum ctl_exit exit;
	const char *error = purge_command_read_token(command, text, sizeof text);
	if (error) {
		fprintf(stderr, "podctl: %s\n", error);
		return CTL_FAILED;
	}
	snprintf(path, sizeof path, "%s/broadcasterd.sock", options->run_dir);
	struct session *session = session_open(
		&broadcasterd, options->socket ? options->socket : path, 0, &exit);
	if (!session)
		return exit;
	struct buf answer = BUF_INIT(ANSWER_MAX_BYTES);
	exit = session_ask(session, "purge", msg_purge_params_schema(), &command->params,
		options->timeout_ms, false, &answer);
	if (exit == CTL_OK)
		exit = show(&answer, options);
	buf_free(&answer);
	session_free(&session);
	return exit;
}
