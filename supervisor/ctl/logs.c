#include "supervisor/ctl/logs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_BYTES   65536
#define ANSWER_MAX_BYTES (1u << 20)

/* One program whose lines are put together: several of them come at the same time. */
struct source {
	const char *name;
	struct buf line;
};

struct printer {
	const struct logs_options *options;
	struct source *sources;
	int name_width;
};

static void print_prefix(const struct printer *printer, size_t i)
{
	/* Neighbours get colours that are easy to tell apart. */
	static const int colors[] = {36, 33, 32, 35, 34, 31};
	const char *name = printer->sources[i].name;
	if (printer->options->color)
		printf("\033[%dm%-*s\033[0m | ", colors[i % (sizeof colors / sizeof *colors)],
			printer->name_width, name);
	else
		printf("%-*s | ", printer->name_width, name);
}

static void end_line(struct printer *printer, size_t i)
{
	struct source *source = &printer->sources[i];
	print_prefix(printer, i);
	fwrite(source->line.data, 1, source->line.len, stdout);
	putchar('\n');
	buf_clear(&source->line);
}

static bool print_data(size_t i, struct span data, void *arg)
{
	struct printer *printer = arg;
	struct source *source = &printer->sources[i];
	if (!printer->options->prefix)
		fwrite(data.data, 1, data.len, stdout);
	for (size_t n = 0; printer->options->prefix && n < data.len; n++)
		if (data.data[n] == '\n' || buf_append_char(&source->line, data.data[n]) < 0)
			end_line(printer, i);
	return fflush(stdout) == 0;
}

/* Only what there is. */
static enum ctl_exit show_ends(struct session *session, struct printer *printer,
	const struct msg_tail_params *params, size_t n)
{
	struct buf answer = BUF_INIT(ANSWER_MAX_BYTES);
	enum ctl_exit worst = CTL_OK;
	for (size_t i = 0; i < n; i++) {
		struct msg_tail_result tail;
		struct msg_error error;
		enum ctl_exit result = session_ask(
			session, "tail", msg_tail_params_schema(), &params[i], 0, false, &answer);
		if (result == CTL_OK &&
			msg_tail_result_unpack(
				(struct span){(char *)answer.data, answer.len}, &tail, &error) == 0)
			print_data(i, tail.data, printer);
		if (printer->sources[i].line.len)
			end_line(printer, i);
		if (result != CTL_OK)
			worst = result;
	}
	buf_free(&answer);
	return worst;
}

enum ctl_exit logs_show(struct session *session, const struct logs_options *options,
	char *const *names, size_t n_names)
{
	struct source *sources = calloc(n_names + 1, sizeof *sources);
	struct msg_tail_params *params = calloc(n_names + 1, sizeof *params);
	struct printer printer = {.options = options, .sources = sources};
	enum ctl_exit result = CTL_FAILED;
	for (size_t i = 0; sources && params && i < n_names; i++) {
		sources[i] = (struct source){names[i], BUF_INIT(LINE_MAX_BYTES)};
		params[i] = (struct msg_tail_params){.name = span_of(names[i]),
			.stream = span_of(options->stream),
			.max_bytes = options->bytes,
			.follow = options->follow};
		if ((int)strlen(names[i]) > printer.name_width)
			printer.name_width = (int)strlen(names[i]);
	}
	if (!sources || !params)
		fprintf(stderr, "podctl: out of memory\n");
	else if (options->follow)
		result = session_follow(session, params, n_names, print_data, &printer);
	else
		result = show_ends(session, &printer, params, n_names);
	for (size_t i = 0; sources && i < n_names; i++)
		buf_free(&sources[i].line);
	free(sources);
	free(params);
	return result;
}
