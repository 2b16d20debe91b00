#include "supervisor/ctl/programs.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/daemon.h"
#include "common/json.h"
#include "common/messages.h"
#include "supervisor/ctl/table.h"

#define ANSWER_MAX_BYTES (4u << 20)

static struct msg_strs make_names(char **names, int n)
{
	struct msg_strs list = {calloc((size_t)n + 1, sizeof(struct span)), (size_t)n};
	for (int i = 0; i < n && list.items; i++)
		list.items[i] = span_of(names[i]);
	if (!list.items)
		die(CTL_FAILED, "out of memory");
	return list;
}

static enum ctl_exit refuse_version(const struct msg_error *error)
{
	fprintf(stderr, "podctl: an answer of another version: %s\n", error->text);
	return CTL_FAILED;
}

/* ---- what came back ---- */

static enum ctl_exit judge(const struct msg_program_list *programs, bool is_status)
{
	enum ctl_exit worst = CTL_OK;
	for (size_t i = 0; i < programs->count; i++) {
		const struct msg_program *p = &programs->items[i];
		if (!p->state.len)
			return CTL_UNKNOWN;
		if (p->error.len)
			worst = CTL_FAILED;
		else if (is_status && !p->ready &&
			 !(span_equal_str(p->state, "EXITED") && p->exit_code == 0) && !worst)
			worst = CTL_NOT_RUNNING;
	}
	return worst;
}

/* Print what came back; how well it is. */
static enum ctl_exit show(
	const struct ctl_options *options, const struct buf *answer, bool is_status)
{
	struct msg_programs_result result;
	struct msg_error error;
	if (msg_programs_result_unpack(
		    (struct span){(char *)answer->data, answer->len}, &result, &error) < 0)
		return refuse_version(&error);
	struct buf out = BUF_INIT(ANSWER_MAX_BYTES);
	if (ctl_options_has(options, CTL_OPTION_JSON))
		table_write_json(&result.programs, &out);
	else
		table_write(&result.programs, options->color, &out);
	fwrite(out.data, 1, out.len, stdout);
	enum ctl_exit worst = judge(&result.programs, is_status);
	msg_programs_result_free(&result);
	buf_free(&out);
	return worst;
}

/* ---- status, start, stop, restart, signal, shutdown ---- */

enum ctl_exit programs_status(
	const struct ctl_options *options, struct session *session, char **names, int n_names)
{
	struct buf answer = BUF_INIT(ANSWER_MAX_BYTES);
	struct msg_programs_params params = {.names = make_names(names, n_names),
		.wait = ctl_options_has(options, CTL_OPTION_WAIT)};
	uint64_t wait_ms = options->timeout_ms ? options->timeout_ms : PROGRAMS_WAIT_MS;
	enum ctl_exit result = session_ask(session, "status", msg_programs_params_schema(), &params,
		params.wait ? wait_ms : options->timeout_ms, params.wait, &answer);
	bool late = result == CTL_TIMEOUT && params.wait;
	if (late) {
		params.wait = false;
		result = session_ask(session, "status", msg_programs_params_schema(), &params, 0,
			false, &answer);
	}
	if (result == CTL_OK)
		result = show(options, &answer, true);
	if (late)
		fprintf(stderr, "podctl: not all were up within %g s\n", (double)wait_ms / 1000);
	free(params.names.items);
	buf_free(&answer);
	return late ? CTL_TIMEOUT : result;
}

/* Ask for something to be done, and show what has become of the programs. */
static enum ctl_exit change(const char *method, const struct msg_schema *schema, const void *params,
	const struct ctl_options *options, struct session *session)
{
	struct buf answer = BUF_INIT(ANSWER_MAX_BYTES);
	enum ctl_exit result = session_ask(
		session, method, schema, params, options->timeout_ms, false, &answer);
	if (result == CTL_OK)
		result = show(options, &answer, false);
	buf_free(&answer);
	return result;
}

static enum ctl_exit change_programs(const char *method, const struct ctl_options *options,
	struct session *session, char **names, int n_names)
{
	struct msg_programs_params params = {.names = make_names(names, n_names),
		.wait = !ctl_options_has(options, CTL_OPTION_NO_WAIT)};
	enum ctl_exit result = change(
		method, msg_programs_params_schema(), &params, options, session);
	free(params.names.items);
	return result;
}

enum ctl_exit programs_start(
	const struct ctl_options *options, struct session *session, char **names, int n_names)
{
	return change_programs("start", options, session, names, n_names);
}

enum ctl_exit programs_stop(
	const struct ctl_options *options, struct session *session, char **names, int n_names)
{
	return change_programs("stop", options, session, names, n_names);
}

enum ctl_exit programs_restart(
	const struct ctl_options *options, struct session *session, char **names, int n_names)
{
	return change_programs("restart", options, session, names, n_names);
}

enum ctl_exit programs_signal(
	const struct ctl_options *options, struct session *session, char **names, int n_names)
{
	int number;
	if (value_signal(names[0], &number) < 0) {
		fprintf(stderr, "podctl: no such signal: %s\n", names[0]);
		return CTL_USAGE;
	}
	struct msg_signal_params params = {
		.names = make_names(names + 1, n_names - 1), .signal = span_of(names[0])};
	enum ctl_exit result = change(
		"signal", msg_signal_params_schema(), &params, options, session);
	free(params.names.items);
	return result;
}

enum ctl_exit programs_shutdown(
	const struct ctl_options *options, struct session *session, char **names, int n_names)
{
	(void)names;
	(void)n_names;
	static const struct msg_empty nothing;
	struct buf answer = BUF_INIT(ANSWER_MAX_BYTES);
	enum ctl_exit result = session_ask(session, "shutdown", msg_empty_schema(), &nothing,
		options->timeout_ms, false, &answer);
	buf_free(&answer);
	return result;
}

enum ctl_exit programs_find(
	struct session *session, char **names, int n_names, struct strings *labels)
{
	struct buf answer = BUF_INIT(ANSWER_MAX_BYTES);
	struct msg_programs_params params = {.names = make_names(names, n_names)};
	struct msg_programs_result result = {0};
	struct msg_error error;
	*labels = (struct strings){0};
	enum ctl_exit exit = session_ask(
		session, "status", msg_programs_params_schema(), &params, 0, false, &answer);
	if (exit == CTL_OK &&
		msg_programs_result_unpack(
			(struct span){(char *)answer.data, answer.len}, &result, &error) < 0)
		exit = refuse_version(&error);
	for (size_t i = 0; exit != CTL_FAILED && i < result.programs.count; i++) {
		const struct msg_program *p = &result.programs.items[i];
		if (!p->state.len) {
			fprintf(stderr, "podctl: no such program: %.*s\n", SPAN_ARG(p->name));
			exit = CTL_UNKNOWN;
		} else if (strings_add(labels, p->name) < 0) {
			die(CTL_FAILED, "out of memory");
		}
	}
	msg_programs_result_free(&result);
	free(params.names.items);
	buf_free(&answer);
	return exit;
}

/* ---- reload ---- */

static void append_json(struct buf *out, const char *key, const struct msg_strs *list)
{
	buf_printf(out, "\"%s\":[", key);
	for (size_t i = 0; i < list->count; i++) {
		if (i)
			buf_append_char(out, ',');
		json_append_string(out, list->items[i]);
	}
	buf_append(out, "],", 2);
}

/* {"added":[…],…} and the programs as `status` prints them. */
static void show_reload_json(const struct msg_reload_result *result)
{
	struct buf out = BUF_INIT(ANSWER_MAX_BYTES), programs = BUF_INIT(ANSWER_MAX_BYTES);
	buf_append_char(&out, '{');
	append_json(&out, "added", &result->added);
	append_json(&out, "changed", &result->changed);
	append_json(&out, "adjusted", &result->adjusted);
	append_json(&out, "removed", &result->removed);
	append_json(&out, "warnings", &result->warnings);
	table_write_json(&result->programs, &programs);
	if (programs.len)
		printf("%.*s%.*s", (int)out.len, (const char *)out.data, (int)programs.len - 1,
			(const char *)programs.data + 1);
	buf_free(&programs);
	buf_free(&out);
}

static void print_labels(const char *what, const struct msg_strs *labels)
{
	for (size_t i = 0; i < labels->count; i++)
		printf("%-8s %.*s\n", what, SPAN_ARG(labels->items[i]));
}

static void show_reload_text(const struct msg_reload_result *result)
{
	for (size_t i = 0; i < result->warnings.count; i++)
		fprintf(stderr, "podctl: %.*s\n", SPAN_ARG(result->warnings.items[i]));
	print_labels("added", &result->added);
	print_labels("changed", &result->changed);
	print_labels("adjusted", &result->adjusted);
	print_labels("removed", &result->removed);
	if (!result->added.count && !result->changed.count && !result->adjusted.count &&
		!result->removed.count)
		printf("nothing has changed\n");
}

enum ctl_exit programs_reload(
	const struct ctl_options *options, struct session *session, char **names, int n_names)
{
	(void)names;
	(void)n_names;
	static const struct msg_empty nothing;
	struct buf answer = BUF_INIT(ANSWER_MAX_BYTES);
	struct msg_reload_result result = {0};
	struct msg_error error;
	enum ctl_exit exit = session_ask(session, "reload", msg_empty_schema(), &nothing,
		options->timeout_ms, false, &answer);
	if (exit == CTL_OK &&
		msg_reload_result_unpack(
			(struct span){(char *)answer.data, answer.len}, &result, &error) < 0)
		exit = refuse_version(&error);
	if (exit == CTL_OK) {
		if (ctl_options_has(options, CTL_OPTION_JSON))
			show_reload_json(&result);
		else
			show_reload_text(&result);
	}
	for (size_t i = 0; i < result.programs.count; i++) {
		const struct msg_program *p = &result.programs.items[i];
		if (!p->error.len)
			continue;
		exit = CTL_FAILED;
		fprintf(stderr, "podctl: %.*s is %.*s: %.*s\n", SPAN_ARG(p->name),
			SPAN_ARG(p->state), SPAN_ARG(p->error));
	}
	msg_reload_result_free(&result);
	buf_free(&answer);
	return exit;
}
