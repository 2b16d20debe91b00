#ifndef GATEWAYD_ACCESS_H
#define GATEWAYD_ACCESS_H

/*
 * May this request be served, and on whose account? Asked before any look-up, so that a hit needs a
 * key too.
 *
 *   without CLIENT_KEYS_FILE   the caller's Authorization goes to the provider; without one the
 * gateway's own key (OPENAI_API_KEY); without either: 401 (the mock and Ollama need none) with it
 * the caller's key must be in the file; the gateway's own key, if it has one, goes to the provider,
 * else the caller's
 */
#include <stdbool.h>

#include "common/digest.h"
#include "gatewayd/exchange.h"
#include "gatewayd/provider.h"

struct gateway;

/*
 * true: *credential is for the provider (credential_free() it), *scope is the digest of the
 * caller's own credential. false: answered, nothing to free.
 */
bool access_check(struct gateway *gateway, struct exchange *exchange, struct credential *credential,
	struct digest *scope);

#endif
