#include "common/terminal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool terminal_allows_color(void)
{
	const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
	return !(no_color && *no_color) && !(term && strcmp(term, "dumb") == 0);
}

bool terminal_wants_color(int fd)
{
	return isatty(fd) && terminal_allows_color();
}

void terminal_put(struct buf *out, struct span text, size_t width)
{
	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.data[i];
		buf_append_char(out, c < ' ' || c == 0x7f ? '?' : (char)c);
	}
	for (size_t i = text.len; i < width; i++)
		buf_append_char(out, ' ');
}
