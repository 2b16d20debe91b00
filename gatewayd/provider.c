#include "gatewayd/provider.h"

#include <stdlib.h>

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

/* The buffer was reserved for all of it, so it does not move. */
static struct span keep(struct provider_request_copy *copy, struct span span)
{
	struct span kept = {(char *)copy->text.data + copy->text.len, span.len};
	buf_append(&copy->text, span.data, span.len);
	buf_append_char(&copy->text, '\0');
	return kept;
}

static char *keep_string(struct provider_request_copy *copy, const char *text)
{
	return (char *)keep(copy, span_of(text)).data;
}

int provider_request_copy(
	struct provider_request_copy *copy, const struct provider_request *request)
{
	const struct credential *credential = request->credential;
	size_t n = request->n_inputs;
	size_t size = request->model_json.len + request->params_json.len + request->model.len + 3 +
		      strlen(credential->authorization) + strlen(credential->organization) +
		      strlen(credential->project) + 3;
	for (size_t i = 0; i < n && !request->body; i++)
		size += request->inputs[i].len + 1;
	*copy = (struct provider_request_copy){.text = BUF_INIT(size)};
	copy->inputs = calloc(n, sizeof *copy->inputs);
	if (!copy->inputs || !buf_reserve(&copy->text, size))
		return -1;
	copy->credential = (struct credential){
		.authorization = keep_string(copy, credential->authorization),
		.organization = keep_string(copy, credential->organization),
		.project = keep_string(copy, credential->project),
	};
	copy->request = (struct provider_request){
		.model_json = keep(copy, request->model_json),
		.params_json = keep(copy, request->params_json),
		.body = request->body ? shared_slice_ref(request->body) : NULL,
		.inputs = copy->inputs,
		.n_inputs = n,
		.model = keep(copy, request->model),
		.dimensions = request->dimensions,
		.credential = &copy->credential,
		.trace = request->trace ? &copy->trace : NULL,
	};
	if (request->trace)
		copy->trace = *request->trace;
	for (size_t i = 0; i < n; i++)
		copy->inputs[i] = request->body ? request->inputs[i]
						: keep(copy, request->inputs[i]);
	return buf_failed(&copy->text) ? -1 : 0;
}

void provider_request_copy_free(struct provider_request_copy *copy)
{
	shared_slice_unref(copy->request.body);
	buf_free(&copy->text);
	free(copy->inputs);
	*copy = (struct provider_request_copy){0};
}

void embedding_pack(struct embedding *embedding, float *values, uint32_t dims)
{
	size_t len_bytes = dims * sizeof *values;
	embedding->source = VECTOR_BASE64;
	embedding->packed = true;
	embedding->dims = dims;
	embedding->text = (struct buf){.data = (uint8_t *)values,
		.len = len_bytes,
		.capacity = len_bytes,
		.max_len = len_bytes};
}

int embedding_text(const struct embedding *embedding, struct buf *scratch, struct span *text)
{
	const struct buf *from = &embedding->text;
	if (embedding->packed) {
		buf_clear(scratch);
		if (vector_floats_append_base64(
			    (const float *)(const void *)from->data, embedding->dims, scratch) < 0)
			return -1;
		from = scratch;
	}
	*text = (struct span){(const char *)from->data, from->len};
	return 0;
}
