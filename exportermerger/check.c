#include "exportermerger/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sysexits.h>
#include <unistd.h>

#include "exportermerger/page_parser.h"

static bool is(const char *argument, const char *wanted)
{
	return strcmp(argument, wanted) == 0;
}

bool check_wanted(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (is(argv[i], "--check"))
			return true;
	return false;
}

static int usage(const char *argument)
{
	fprintf(stderr,
		"exportermerger: %s: usage: exportermerger --check [--format text|openmetrics] "
		"[FILE...]\n",
		argument);
	return EX_USAGE;
}

static int parse_format(const char *word, enum page_format *format)
{
	if (is(word, "text"))
		*format = PAGE_TEXT;
	else if (is(word, "openmetrics"))
		*format = PAGE_OPENMETRICS;
	else
		return -1;
	return 0;
}

/* name: what stands before the reason; NULL: nothing. */
static int check_page(
	struct page_parser *parser, const struct page_options *options, int fd, const char *name)
{
	static char bytes[64 << 10];
	page_parser_start(parser, options);
	for (;;) {
		ssize_t n = read(fd, bytes, sizeof bytes);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			fprintf(stderr, "exportermerger: %s: %s\n", name ? name : "standard input",
				strerror(errno));
			return EX_IOERR;
		}
		if (n == 0)
			break;
		if (page_parser_feed(parser, (struct span){bytes, (size_t)n}) < 0)
			break;
	}
	struct page *page = page_parser_finish(parser);
	if (page) {
		page_free(&page);
		return 0;
	}
	const struct page_error *error = page_parser_error(parser);
	printf("%s%sline %llu: %s\n", name ? name : "", name ? ": " : "",
		(unsigned long long)error->line, error->reason);
	return 1;
}

static int check_file(
	struct page_parser *parser, const struct page_options *options, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		fprintf(stderr, "exportermerger: %s: %s\n", path, strerror(errno));
		return EX_NOINPUT;
	}
	int code = check_page(parser, options, fd, path);
	close(fd);
	return code;
}

int check_run(int argc, char **argv)
{
	struct page_options options = {.format = PAGE_TEXT, .strict = true};
	int n_files = 0;
	for (int i = 1; i < argc; i++) {
		const char *format = NULL;
		if (is(argv[i], "--check"))
			continue;
		if (argv[i][0] != '-') {
			argv[n_files++] = argv[i]; /* to the front */
			continue;
		}
		if (is(argv[i], "--format") && i + 1 < argc)
			format = argv[++i];
		else if (strncmp(argv[i], "--format=", 9) == 0)
			format = argv[i] + 9;
		if (!format || parse_format(format, &options.format) < 0)
			return usage(argv[i]);
	}
	struct page_parser *parser = page_parser_new();
	if (!parser) {
		fprintf(stderr, "exportermerger: out of memory\n");
		return EX_OSERR;
	}
	int code = n_files ? 0 : check_page(parser, &options, STDIN_FILENO, NULL);
	for (int i = 0; i < n_files; i++) {
		int one = check_file(parser, &options, argv[i]);
		code = one > code ? one : code;
	}
	page_parser_free(&parser);
	return code;
}
