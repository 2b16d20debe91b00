#include "gatewayd/provider.h"

int provider_request_write(
	const struct provider_request *request, const char *encoding_format, struct buf *out)
{
	buf_append_str(out, "{\"model\":");
	buf_append(out, request->model_json.data, request->model_json.len);
	buf_append_char(out, ',');
	buf_append(out, request->params_json.data, request->params_json.len);
	buf_append_str(out, "\"input\":[");
	for (size_t i = 0; i < request->n_inputs; i++) {
		if (i)
			buf_append_char(out, ',');
		buf_append(out, request->inputs[i].data, request->inputs[i].len);
	}
	buf_printf(out, "],\"encoding_format\":\"%s\"}", encoding_format);
	return buf_failed(out) ? -1 : 0;
}

const char *provider_outcome_code(enum provider_outcome outcome)
{
	switch (outcome) {
	case PROVIDER_TIMEOUT:
		return "provider_timeout";
	case PROVIDER_BROKEN:
		return "provider_broken_answer";
	case PROVIDER_REFUSED:
		return "provider_error";
	default:
		return "provider_unreachable";
	}
}
