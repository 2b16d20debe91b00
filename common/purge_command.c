#include "common/purge_command.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "common/terminal.h"

#define MAX_TOKEN_BYTES (64u << 10)
#define MAX_TAG_BYTES   256 /* gatewayd's (gatewayd/surrogate_keys.h) */

#define RED             "\033[31m"
#define GREEN           "\033[32m"
#define DIM             "\033[2m"
#define BOLD            "\033[1m"
#define RESET           "\033[0m"

/* ---- what is typed ---- */

const char purge_command_help[] =
	"  PATH             answers to that path, query included, e.g. /v1/models\n"
	"  --all            everything\n"
	"  --tag=TAG        what has this tag (Surrogate-Key); may be repeated: any of them\n"
	"  --model=NAME     what a model made: the tag model:NAME\n"
	"  --body-hash=H    answers to one request body (X-Body-Hash)\n"
	"  --key=K          one embedding, by its key (the name of its object in the store)\n"
	"  --store          the store too: with --all, one --model, or --key\n"
	"  --token-file=F   the broadcaster's token, when it wants one (" PURGE_COMMAND_TOKEN_ENV
	" or\n"
	"                   " PURGE_COMMAND_TOKEN_ENV "_FILE)\n";

static const char *set_scope(struct purge_command *c, const char *scope)
{
	if (c->params.scope.len && !span_equal_str(c->params.scope, scope))
		return "only one of PATH, --all, --tag and --model, --body-hash, --key";
	c->params.scope = span_of(scope);
	return NULL;
}

static const char *check_value(const char *scope, const char *value)
{
	bool is_tag = strcmp(scope, "tag") == 0, is_path = strcmp(scope, "path") == 0;
	if (!*value)
		return "an empty value";
	for (const char *c = value; *c; c++) {
		if (is_tag && (*c == ' ' || *c == '\t'))
			return "a tag has no spaces";
		if (is_tag && ((unsigned char)*c < ' ' || (unsigned char)*c > '~'))
			return "a tag is made of visible ASCII characters";
		if (is_path && ((unsigned char)*c <= ' ' || *c == 0x7f))
			return "a path has no spaces and no control characters";
	}
	return is_tag && strlen(value) > MAX_TAG_BYTES ? "a tag has at most 256 bytes" : NULL;
}

static const char *add_value(
	struct purge_command *c, const char *scope, const char *value, char *owned)
{
	size_t n = c->params.values.count;
	const char *error = set_scope(c, scope);
	bool one = strcmp(scope, "tag") != 0;
	if (!error && n == (one ? 1 : PURGE_COMMAND_MAX_VALUES))
		error = one ? "only one PATH, --body-hash or --key" : "at most 32 tags";
	if (!error)
		error = check_value(scope, value);
	if (error) {
		free(owned);
		return error;
	}
	c->owned[n] = owned;
	c->values[n] = span_of(value);
	c->params.values = (struct msg_strs){c->values, n + 1};
	return NULL;
}

const char *purge_command_option(
	struct purge_command *command, enum purge_option option, const char *value)
{
	char *tag = NULL;
	switch (option) {
	case PURGE_OPTION_ALL:
		return set_scope(command, "all");
	case PURGE_OPTION_TAG:
		return add_value(command, "tag", value, NULL);
	case PURGE_OPTION_MODEL:
		if (!*value || asprintf(&tag, "model:%s", value) < 0)
			return "an empty value";
		return add_value(command, "tag", tag, tag);
	case PURGE_OPTION_BODY_HASH:
		return add_value(command, "body_hash", value, NULL);
	case PURGE_OPTION_KEY:
		return add_value(command, "key", value, NULL);
	case PURGE_OPTION_STORE:
		command->params.store = true;
		return NULL;
	case PURGE_OPTION_TOKEN_FILE:
		command->token_file = value;
		return NULL;
	}
	return NULL;
}

/* The store knows no tags, paths and body hashes. */
static const char *check_store(const struct msg_purge_params *params)
{
	static const char model[] = "model:";
	const struct msg_strs *values = &params->values;
	bool one_model = values->count == 1 && values->items[0].len >= sizeof model - 1 &&
			 memcmp(values->items[0].data, model, sizeof model - 1) == 0;
	if (span_equal_str(params->scope, "all") || span_equal_str(params->scope, "key") ||
		(span_equal_str(params->scope, "tag") && one_model))
		return NULL;
	return "--store takes --all, one --model or --key";
}

const char *purge_command_complete(struct purge_command *command, char **paths, int n_paths)
{
	const char *error = NULL;
	for (int i = 0; i < n_paths && !error; i++)
		error = *paths[i] == '/' ? add_value(command, "path", paths[i], NULL)
					 : "a path begins with a slash";
	if (!error && !command->params.scope.len)
		error = "what? A PATH, --all, --tag, --model, --body-hash or --key";
	if (!error && command->params.store)
		error = check_store(&command->params);
	return error;
}

static bool is_token(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (text[i] < ' ' || text[i] > '~')
			return false;
	return true;
}

static const char *read_file(const char *path, char **token, char *text, size_t size)
{
	char *data = malloc(MAX_TOKEN_BYTES);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t n = fd >= 0 && data ? read(fd, data, MAX_TOKEN_BYTES) : -1;
	if (n < 0)
		snprintf(text, size, "%s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	if (n > 0 && data[n - 1] == '\n')
		n--;
	if (n > 0 && data[n - 1] == '\r')
		n--;
	bool usable = n > 0 && is_token(data, (size_t)n);
	*token = usable ? strndup(data, (size_t)n) : NULL;
	free(data);
	if (n == 0)
		snprintf(text, size, "%s is empty: no token in it", path);
	else if (n > 0 && !usable)
		snprintf(text, size, "%s is no token: one line of visible ASCII characters", path);
	else if (n > 0 && !*token)
		snprintf(text, size, "out of memory");
	return *token ? NULL : text;
}

const char *purge_command_read_token(struct purge_command *command, char *text, size_t size)
{
	const char *value = getenv(PURGE_COMMAND_TOKEN_ENV);
	const char *file = command->token_file;
	if (!file && value && *value) {
		command->token = strdup(value);
		if (!command->token)
			return "out of memory";
	} else {
		if (!file)
			file = getenv(PURGE_COMMAND_TOKEN_ENV "_FILE");
		const char *error = file && *file ? read_file(file, &command->token, text, size)
						  : NULL;
		if (error)
			return error;
	}
	command->params.token = span_of(command->token ? command->token : "");
	return NULL;
}

void purge_command_free(struct purge_command *command)
{
	for (size_t i = 0; i < PURGE_COMMAND_MAX_VALUES; i++)
		free(command->owned[i]);
	free(command->token);
	*command = (struct purge_command){0};
}

/* ---- what comes back ---- */

static size_t count_ok(const struct msg_purge_target_list *results)
{
	size_t n = 0;
	for (size_t i = 0; i < results->count; i++)
		n += results->items[i].success;
	return n;
}

/* By their status, as broadcasterd judges (broadcasterd/redelivery.h). */
static bool is_told_again(const struct msg_purge_target *r)
{
	return !r->success && (r->status < 400 || r->status > 499 || r->status == 401 ||
				      r->status == 403 || r->status == 408 || r->status == 429);
}

/* How the sentence ends. */
static const char *what_comes_next(const struct msg_purge_target_list *results)
{
	size_t n_failed = results->count - count_ok(results), n_again = 0;
	for (size_t i = 0; i < results->count; i++)
		n_again += is_told_again(&results->items[i]);
	if (!n_failed)
		return ".";
	if (n_again == n_failed)
		return "; the others are told again until they have purged.";
	return n_again ? "; the others are told again until they have purged, but for what was refused."
		       : "; what was refused is not told again.";
}

static void put_colored(
	struct buf *out, const char *begin, bool color, struct span text, size_t width)
{
	if (color)
		buf_append_str(out, begin);
	terminal_put(out, text, width);
	if (color)
		buf_append_str(out, RESET);
}

static void put_row(struct buf *out, const struct msg_purge_target *r, size_t width, bool color)
{
	char status[24] = "-";
	if (r->status)
		snprintf(status, sizeof status, "%" PRIu64, r->status);
	terminal_put(out, r->pod, width);
	buf_append_str(out, "  ");
	put_colored(out, r->success ? GREEN : RED, color,
		r->success ? SPAN_LITERAL("purged") : SPAN_LITERAL("failed"), 6);
	buf_printf(out, "  %6s", status);
	if (r->error.len) {
		buf_append_str(out, "  ");
		put_colored(out, RED, color, r->error, 0);
	}
	buf_append_char(out, '\n');
}

void purge_report_write(const struct msg_purge_result *result, bool color, struct buf *out)
{
	const struct msg_purge_target_list *results = &result->results;
	size_t width = strlen("TARGET"), n_ok = count_ok(results);
	char sentence[160];
	for (size_t i = 0; i < results->count; i++)
		if (results->items[i].pod.len > width)
			width = results->items[i].pod.len;
	if (color)
		buf_append_str(out, BOLD);
	terminal_put(out, SPAN_LITERAL("TARGET"), width);
	buf_append_str(out, "  RESULT  STATUS  DETAIL");
	if (color)
		buf_append_str(out, RESET);
	buf_append_char(out, '\n');
	for (size_t i = 0; i < results->count; i++)
		put_row(out, &results->items[i], width, color);
	snprintf(sentence, sizeof sentence,
		"%zu of %zu targets purged, %" PRIu64 " object%s gone%s", n_ok, results->count,
		result->purged, result->purged == 1 ? "" : "s", what_comes_next(results));
	put_colored(out, DIM, color, span_of(sentence), 0);
	buf_append_char(out, '\n');
}

void purge_report_write_json(
	const struct msg_purge_result *result, bool tell_purged, struct buf *out)
{
	const struct msg_purge_target_list *results = &result->results;
	size_t n_ok = count_ok(results);
	if (!results->count) {
		buf_append_str(out, "{\"error\":");
		json_append_string(out, result->error);
		buf_append_str(out, "}\n");
		return;
	}
	buf_append_char(out, '{');
	if (tell_purged)
		buf_printf(out, "\"purged\":%" PRIu64 ",", result->purged);
	buf_printf(out, "\"total\":%zu,\"success\":%zu,\"failed\":%zu,\"results\":[",
		results->count, n_ok, results->count - n_ok);
	for (size_t i = 0; i < results->count; i++) {
		const struct msg_purge_target *r = &results->items[i];
		buf_append_str(out, i ? ",{\"pod\":" : "{\"pod\":");
		json_append_string(out, r->pod);
		buf_printf(out, ",\"status\":%" PRIu64 ",\"success\":%s,\"error\":", r->status,
			r->success ? "true" : "false");
		if (r->error.len)
			json_append_string(out, r->error);
		else
			buf_append_str(out, "null");
		buf_append_char(out, '}');
	}
	buf_append_str(out, "]}\n");
}
