#include "gatewayd/ctl/verdict.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/json_span.h"

/* The error of a body; what it does not say is empty. */
struct told {
	bool error;
	struct span param, code;
};

static struct span member(const struct json_span_doc *doc, uint32_t error, struct span name)
{
	struct span text = {0};
	uint32_t node = json_span_member(doc, error, name);
	if (node == JSON_SPAN_NONE || !json_span_borrow_string(doc, node, &text))
		return (struct span){0};
	return text;
}

static struct told read_error(struct span body)
{
	struct told told = {0};
	struct json_span_doc *doc = body.len ? json_span_new(body, NULL) : NULL;
	if (doc && json_span_step(doc, SIZE_MAX) == JSON_SPAN_DONE) {
		uint32_t error = json_span_member(doc, json_span_root(), SPAN_LITERAL("error"));
		told.error = error != JSON_SPAN_NONE;
		told.param = member(doc, error, SPAN_LITERAL("param"));
		told.code = member(doc, error, SPAN_LITERAL("code"));
	}
	json_span_free(&doc);
	return told;
}

enum verdict verdict_of(int status, struct span body)
{
	if (status == 408 || status == 429 || status >= 500)
		return VERDICT_TRY_AGAIN;
	if (status == 401 || status == 403)
		return VERDICT_KEY;
	struct told told = read_error(body);
	if ((status == 404 || status == 405) &&
		(!told.error || span_equal_str(told.code, "unknown_url")))
		return VERDICT_URL;
	if (status != 400 && status != 404 && status != 413 && status != 422)
		return VERDICT_REQUEST;
	bool input = told.param.len >= 5 && memcmp(told.param.data, "input", 5) == 0;
	if ((told.param.len && !input) || span_equal_str(told.code, "model_not_found"))
		return VERDICT_REQUEST;
	return VERDICT_TEXT;
}
