#ifndef GATEWAYD_CREDENTIAL_H
#define GATEWAYD_CREDENTIAL_H

/*
 * Whose account pays: the caller's Authorization, with the organization and project it belongs to;
 * the gateway's own key for a caller that brings none.
 */
#include "common/digest.h"
#include "gatewayd/exchange.h"
#include "gatewayd/provider.h"

/* own_key may be "". 1: a credential; 0: there is none; -1: out of memory. credential_free() in any
 * case. */
int credential_take(
	const struct exchange *exchange, const char *own_key, struct credential *credential);
/* Pay with this key, the gateway's own, instead, without the caller's organization and project. 1,
 * or -1 when out of memory. */
int credential_use(struct credential *credential, const char *key);
/* Equal for equal credentials; of nothing when memory was short. */
struct digest credential_digest(const struct credential *credential);
void credential_free(struct credential *credential);

#endif
