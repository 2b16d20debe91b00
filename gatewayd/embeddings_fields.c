#include "gatewayd/embeddings_fields.h"

#include "common/http_accept.h"
#include "gatewayd/cache_control.h"
#include "gatewayd/surrogate_keys.h"

int embeddings_fields_read(const struct exchange *exchange, const struct gatewayd_conf *conf,
	struct embeddings_fields *fields, struct api_error *error)
{
	struct span type = exchange_header(exchange, "content-type");
	struct span coding = exchange_header(exchange, "content-encoding");
	struct span control = exchange_header(exchange, "cache-control");
	struct span tags[SURROGATE_MAX_KEYS];
	const char *reason;
	*error = (struct api_error){0};
	*fields = (struct embeddings_fields){
		.surrogate_keys = exchange_header(exchange, "surrogate-key")};
	if (conf->cache_request_control) {
		fields->keep_nothing = cache_control_has(control, "no-store");
		fields->fresh = fields->keep_nothing || cache_control_has(control, "no-cache");
	}
	if (!exchange->has_body)
		api_error_set(error, 400, NULL, NULL,
			"The request has no body; send a JSON object with model and input.");
	else if (type.data && !http_is_media_type(type, "application/json"))
		api_error_set(error, 415, NULL, "unsupported_media_type",
			"Content-Type must be application/json.");
	else if (coding.data && !span_equal_nocase(coding, "identity"))
		api_error_set(error, 415, NULL, "unsupported_content_encoding",
			"Content-Encoding is not supported on requests; send the body as it is.");
	else if (surrogate_keys_read(fields->surrogate_keys, tags, &reason) < 0)
		api_error_set(error, 400, NULL, "bad_surrogate_key", "%s", reason);
	return error->status ? -1 : 0;
}
