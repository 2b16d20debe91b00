#include "gatewayd/embeddings_fields.h"

#include "common/http_accept.h"
#include "gatewayd/cache_control.h"

int embeddings_fields_read(const struct exchange *exchange, const struct gatewayd_conf *conf,
	struct embeddings_fields *fields, struct api_error *error)
{
	struct span type = exchange_header(exchange, "content-type");
	struct span coding = exchange_header(exchange, "content-encoding");
	const char *reason;
	int n_tags = surrogate_keys_of_request(exchange, fields->tags, &reason);
	*error = (struct api_error){0};
	fields->n_tags = n_tags > 0 ? (size_t)n_tags : 0;
	fields->keep_nothing = fields->fresh = false;
	if (conf->cache_request_control) {
		fields->keep_nothing = cache_control_asks(exchange, "no-store");
		fields->fresh = fields->keep_nothing || cache_control_asks(exchange, "no-cache");
	}
	if (!exchange->has_body)
		api_error_set(error, 400, NULL, NULL,
			"The request has no body; send a JSON object with model and input.");
	else if (type.data && !http_is_media_type(type, "application/json"))
		api_error_set(error, 415, NULL, "unsupported_media_type",
			"Content-Type must be application/json.");
	else if (coding.data && !span_equal_nocase(coding, "identity")) {
		api_error_set(error, 415, NULL, "unsupported_content_encoding",
			"Content-Encoding is not supported on requests; send the body as it is.");
		error->accept_encoding = "identity";
	} else if (n_tags < 0)
		api_error_set(error, 400, NULL, "bad_surrogate_key", "%s", reason);
	return error->status ? -1 : 0;
}
