/* Text: what strtod() reads from a JSON number. The first 8 bytes as a double: shortest text that
 * comes back. */
#include <math.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/number_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(struct span text)
{
	struct number_text_form form;
	double value;
	const char *end = text.data + text.len;
	const char *read = number_text_read(text.data, end, &value);
	BUG_ON(read != number_text_skip(text.data, end, &form));
	BUG_ON((number_text_parse(text, &value) == 0) != (read == end && text.len > 0));
	if (!read)
		return;
	struct buf copy = BUF_INIT(text.len + 1);
	BUG_ON(buf_append(&copy, text.data, (size_t)(read - text.data)));
	BUG_ON(buf_append_char(&copy, '\0'));
	double expected = strtod((char *)copy.data, NULL);
	number_text_read(text.data, end, &value);
	BUG_ON(memcmp(&value, &expected, sizeof value) != 0);
	BUG_ON(isinf(value) && !form.large && form.integer_digits <= 308);
	buf_free(&copy);
}

static void check_value(double value)
{
	char text[NUMBER_TEXT_BYTES];
	double back;
	size_t len = number_text_write(value, text);
	BUG_ON(isfinite(value) != (len > 0) || len > 24);
	if (len == 0)
		return;
	BUG_ON(number_text_parse((struct span){text, len}, &back));
	BUG_ON(memcmp(&value, &back, sizeof value) != 0);
	check_text((struct span){text, len});
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	double value;
	if (size >= sizeof value) {
		memcpy(&value, data, sizeof value);
		check_value(value);
		check_value((double)(float)value);
	}
	check_text((struct span){(const char *)data, size});
	return 0;
}
