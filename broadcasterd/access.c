#include "broadcasterd/access.h"

#include <unistd.h>

#include "broadcasterd/conf.h"
#include "common/digest.h"

static bool is_token(const struct broadcaster_conf *conf, struct span shown)
{
	struct digest wanted = digest_of(span_of(conf->token)), given = digest_of(shown);
	return digest_equal_secret(&wanted, &given);
}

bool access_by_http(const struct broadcaster_conf *conf, struct span authorization)
{
	static const char scheme[] = "bearer ";
	size_t len = sizeof scheme - 1;
	if (!conf->token[0])
		return true;
	if (authorization.len <= len || strncasecmp(authorization.data, scheme, len) != 0)
		return false;
	struct span shown = {authorization.data + len, authorization.len - len};
	while (shown.len && *shown.data == ' ') {
		shown.data++;
		shown.len--;
	}
	return is_token(conf, shown);
}

bool access_by_rpc(
	const struct broadcaster_conf *conf, const struct rpc_peer *peer, struct span token)
{
	if (conf->token[0])
		return is_token(conf, token);
	return peer->uid == 0 || peer->uid == geteuid();
}
