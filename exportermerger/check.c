#include "exportermerger/check.h"

#include <errno.h>
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
		"< page\n",
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

static int read_page(struct page_parser *parser)
{
	static char bytes[64 << 10];
	for (;;) {
		ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			perror("exportermerger: standard input");
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
	printf("line %llu: %s\n", (unsigned long long)error->line, error->reason);
	return 1;
}

int check_run(int argc, char **argv)
{
	struct page_options options = {.format = PAGE_TEXT, .strict = true};
	for (int i = 1; i < argc; i++) {
		const char *format = NULL;
		if (is(argv[i], "--check"))
			continue;
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
	page_parser_start(parser, &options);
	int code = read_page(parser);
	page_parser_free(&parser);
	return code;
}
