#include "gatewayd/credential.h"

#include <stdio.h>
#include <stdlib.h>

static const char scheme[] = "Bearer ";

static char *copy_header(const struct exchange *exchange, const char *name)
{
	struct span value = exchange_header(exchange, name);
	return value.data ? strndup(value.data, value.len) : strdup("");
}

/* "Bearer", or nothing but blanks: nobody's key. */
static bool is_empty(struct span authorization)
{
	if (authorization.len >= 6 && strncasecmp(authorization.data, "Bearer", 6) == 0) {
		authorization.data += 6;
		authorization.len -= 6;
	}
	for (size_t i = 0; i < authorization.len; i++)
		if (authorization.data[i] != ' ' && authorization.data[i] != '\t')
			return false;
	return true;
}

int credential_take(
	const struct exchange *exchange, const char *own_key, struct credential *credential)
{
	*credential = (struct credential){0};
	struct span brought = exchange_header(exchange, "authorization");
	if (!is_empty(brought)) {
		credential->authorization = strndup(brought.data, brought.len);
	} else if (*own_key) {
		if (asprintf(&credential->authorization, "Bearer %s", own_key) < 0)
			credential->authorization = NULL;
	} else {
		credential->authorization = strdup("");
	}
	credential->organization = copy_header(exchange, "openai-organization");
	credential->project = copy_header(exchange, "openai-project");
	if (!credential->authorization || !credential->organization || !credential->project)
		return -1;
	/* A sibling that asks brings it along. */
	const char *key = credential->authorization + sizeof scheme - 1;
	credential->is_own = *own_key &&
			     strncmp(credential->authorization, scheme, sizeof scheme - 1) == 0 &&
			     strcmp(key, own_key) == 0;
	return *credential->authorization ? 1 : 0;
}

int credential_use(struct credential *credential, const char *key)
{
	credential_free(credential);
	credential->is_own = true;
	if (asprintf(&credential->authorization, "Bearer %s", key) < 0)
		credential->authorization = NULL;
	credential->organization = strdup("");
	credential->project = strdup("");
	if (!credential->authorization || !credential->organization || !credential->project)
		return -1;
	return 1;
}

struct digest credential_digest(const struct credential *credential)
{
	if (!credential->authorization || !credential->organization || !credential->project)
		return (struct digest){{0}};
	/* The NULs between the parts keep ("ab", "c") and ("a", "bc") apart. */
	struct buf text = BUF_INIT(SIZE_MAX / 2);
	buf_append(&text, credential->authorization, strlen(credential->authorization) + 1);
	buf_append(&text, credential->organization, strlen(credential->organization) + 1);
	buf_append(&text, credential->project, strlen(credential->project) + 1);
	struct digest digest = digest_of((struct span){(char *)text.data, text.len});
	buf_free(&text);
	return digest;
}

void credential_free(struct credential *credential)
{
	free(credential->authorization);
	free(credential->organization);
	free(credential->project);
	*credential = (struct credential){0};
}
