#include "gatewayd/access.h"

#include "common/loop.h"
#include "gatewayd/api_error.h"
#include "gatewayd/client_keys.h"
#include "gatewayd/credential.h"
#include "gatewayd/gateway.h"

/* "Bearer KEY" -> KEY (RFC 6750 2.1); the scheme's case does not matter. */
static struct span bearer_key(struct span authorization)
{
	static const char scheme[] = "Bearer ";
	size_t n = sizeof scheme - 1;
	if (authorization.len < n || strncasecmp(authorization.data, scheme, n) != 0)
		return (struct span){0};
	return (struct span){authorization.data + n, authorization.len - n};
}

/* false: *error says why not. */
static bool key_is_accepted(
	struct gateway *gateway, const struct exchange *exchange, struct api_error *error)
{
	struct span key = bearer_key(exchange_header(exchange, "authorization"));
	int64_t retry_after_ms = -1;
	switch (client_keys_check(
		gateway->client_keys, key, loop_now_us(gateway->loop), &retry_after_ms)) {
	case CLIENT_KEY_ACCEPTED:
		return true;
	case CLIENT_KEY_LIMITED:
		api_error_set(error, 429, NULL, "rate_limit_exceeded",
			"This key has used up its requests for now.");
		error->retry_after_ms = retry_after_ms;
		return false;
	default:
		api_error_set(error, 401, NULL, key.len ? "invalid_api_key" : "missing_api_key",
			key.len ? "This gateway does not know this API key."
				: "You didn't provide an API key. Send it as \"Authorization: "
				  "Bearer KEY\".");
		return false;
	}
}

bool access_check(struct gateway *gateway, struct exchange *exchange, struct credential *credential,
	struct digest *scope)
{
	struct api_error error = {0};
	const char *own_key = gateway->conf->openai_api_key;
	struct span sent_scope = exchange_header(exchange, "x-cache-scope");
	/* A sibling has asked already; the scope of the one who asked it comes along. */
	bool checked = exchange->fetch || !gateway->client_keys;
	if (!checked && !key_is_accepted(gateway, exchange, &error))
		goto refuse;

	int has_key = credential_take(exchange, own_key, credential);
	*scope = credential_digest(credential);
	if (exchange->fetch && digest_parse_hex(sent_scope, scope) < 0)
		*scope = credential_digest(credential);
	if (has_key > 0 && !checked && *own_key)
		has_key = credential_use(credential, own_key);
	if (has_key > 0 || (has_key == 0 && gateway->keyless))
		return true;

	if (has_key < 0) {
		api_error_set(&error, 503, NULL, "overloaded", "The gateway is out of memory.");
		error.retry_after_ms = 1000;
	} else {
		api_error_set(&error, 401, NULL, "missing_api_key",
			"You didn't provide an API key. Send it as \"Authorization: Bearer KEY\", "
			"or give the gateway one of its own in OPENAI_API_KEY.");
	}
	credential_free(credential);
refuse:
	stats_count_request(gateway->stats, STATS_ERROR, error.status, exchange->started_us);
	api_error_respond(exchange, &error, NULL);
	return false;
}
