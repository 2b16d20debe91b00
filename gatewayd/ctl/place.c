#include "gatewayd/ctl/place.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/loop.h"
#include "gatewayd/epoch_place.h"
#include "gatewayd/s3_client.h"
#include "gatewayd/store.h"
#include "gatewayd/store_s3.h"

#define TIMEOUT_MS      60000
#define LIST_MAX_BYTES  (8u << 20)
#define MAX_METADATA    8
#define METADATA_BYTES  4096
#define TOKEN_MAX_BYTES 2048

struct place {
	struct loop *loop;
	char *location;
	const char *dir, *bucket; /* one of them, in it */
	uint64_t run, next_tmp;
	FTS *fts;
	struct s3_client *s3;
	/* The page of a bucket that place_next() goes through. */
	struct buf page;
	size_t page_at;
	bool listing, page_ready, listed;
	char *list_error;
	char token[TOKEN_MAX_BYTES];
	char name[PATH_MAX];
};

struct place_call {
	struct place *place;
	struct s3_call *s3;
	struct deferred later; /* of a directory */
	int error;
	char reason[512];
	struct buf body;
	bool has_body;
	uint64_t time_ms;
	struct buf metadata; /* of a put */
	void (*done)(const struct place_result *result, void *arg);
	void *arg;
};

/* ---- Names ---- */

enum place_kind place_kind_of(const char *name, struct digest *key)
{
	static const char mock[] = "mock/", element[] = "embeddings/", epoch[] = "purges/";
	size_t len = strlen(name);
	bool of_mock = strncmp(name, mock, sizeof mock - 1) == 0;
	const char *rest = of_mock ? name + sizeof mock - 1 : name;
	if (strncmp(rest, epoch, sizeof epoch - 1) == 0 || strncmp(name, "tmp/", 4) == 0 ||
		strcmp(name, "janitor.lock") == 0)
		return PLACE_OWN;
	if (strncmp(rest, element, sizeof element - 1) == 0) {
		/* Some tools make an empty object for a folder. */
		if (name[len - 1] == '/')
			return PLACE_OTHER;
		if (store_object_key(span_of(rest + sizeof element - 1), key) < 0)
			return PLACE_MISNAMED;
		return of_mock ? PLACE_MOCK : PLACE_ELEMENT;
	}
	if (len == DIGEST_HEX + 5 && name[4] == '/' && strncmp(name, name + 5, 4) == 0 &&
		digest_parse_hex((struct span){name + 5, DIGEST_HEX}, key) == 0)
		return PLACE_HASHED;
	return PLACE_OTHER;
}

/* ---- Opening ---- */

static const char *setting(const char *name, const char *fallback)
{
	const char *value = getenv(name);
	return value && *value ? value : fallback;
}

static struct s3_options options_of(const char *bucket)
{
	return (struct s3_options){
		.endpoint = setting("S3_ENDPOINT_URL", setting("S3_ENDPOINT", "")),
		.bucket = bucket,
		.region = setting("AWS_REGION", ""),
		.access_key = setting("AWS_ACCESS_KEY_ID", ""),
		.secret = setting("AWS_SECRET_ACCESS_KEY", ""),
		.session_token = setting("AWS_SESSION_TOKEN", ""),
	};
}

static int open_bucket(struct place *place, const char *bucket)
{
	struct s3_options options = options_of(bucket);
	if (!s3_bucket_valid(bucket)) {
		fprintf(stderr, "cachectl: s3://%s: not a name that a bucket can have\n", bucket);
		return -1;
	}
	if (!*options.access_key || !*options.secret) {
		fprintf(stderr,
			"cachectl: s3://%s needs AWS_ACCESS_KEY_ID and "
			"AWS_SECRET_ACCESS_KEY in the environment\n",
			bucket);
		return -1;
	}
	place->bucket = bucket;
	place->s3 = s3_client_new(place->loop, &options);
	return place->s3 ? 0 : -1;
}

struct place *place_open(struct loop *loop, const char *location)
{
	static const char scheme[] = "s3://";
	struct place *place = calloc(1, sizeof *place);
	if (!place)
		return NULL;
	place->loop = loop;
	buf_init(&place->page, LIST_MAX_BYTES);
	digest_random(&place->run, sizeof place->run);
	place->location = strdup(location);
	int rc = place->location ? 0 : -1;
	if (rc == 0 && strncmp(location, scheme, sizeof scheme - 1) == 0)
		rc = open_bucket(place, place->location + sizeof scheme - 1);
	else
		place->dir = place->location;
	if (rc < 0)
		place_close(&place);
	return place;
}

void place_close(struct place **pointer)
{
	struct place *place = *pointer;
	if (!place)
		return;
	*pointer = NULL;
	if (place->fts)
		fts_close(place->fts);
	s3_client_free(&place->s3);
	buf_free(&place->page);
	free(place->list_error);
	free(place->location);
	free(place);
}

const char *place_location(const struct place *place)
{
	return place->location;
}

enum ctl_exit place_check(const struct place *place)
{
	struct stat st;
	if (!place->dir)
		return CTL_OK;
	if (stat(place->dir, &st)) {
		fprintf(stderr, "cachectl: %s: %s\n", place->dir, strerror(errno));
		return CTL_UNAVAILABLE;
	}
	if (S_ISDIR(st.st_mode))
		return CTL_OK;
	fprintf(stderr, "cachectl: %s: a store is a directory or a bucket, and this is a file\n",
		place->dir);
	return CTL_NO_INPUT;
}

struct epoch_place *place_epochs(struct place *place, struct workers *workers, const char *prefix)
{
	if (place->dir)
		return epoch_place_dir(place->loop, workers, place->dir, prefix);
	struct s3_options options = options_of(place->bucket);
	return epoch_place_s3(place->loop, &options, prefix);
}

/* ---- One object ---- */

static void call_free(struct place_call *call)
{
	buf_free(&call->body);
	buf_free(&call->metadata);
	free(call);
}

static void done_later(void *arg)
{
	struct place_call *call = arg;
	struct place_result result = {
		.error = call->error,
		.reason = call->error ? strerror(call->error) : NULL,
		.body = call->has_body ? &call->body : NULL,
		.time_ms = call->time_ms,
	};
	call->done(&result, call->arg);
	call_free(call);
}

static struct place_call *call_new(
	struct place *place, void (*done)(const struct place_result *result, void *arg), void *arg)
{
	struct place_call *call = calloc(1, sizeof *call);
	if (!call)
		return NULL;
	call->place = place;
	call->done = done;
	call->arg = arg;
	buf_init(&call->body, STORED_LEGACY_MAX_BYTES);
	buf_init(&call->metadata, METADATA_BYTES);
	deferred_init(&call->later, done_later, call);
	return call;
}

static int path_of(const struct place *place, const char *name, char path[PATH_MAX])
{
	int len = snprintf(path, PATH_MAX, "%s/%s", place->dir, name);
	return len > 0 && len < PATH_MAX ? 0 : ENAMETOOLONG;
}

static int read_file(const char *path, struct buf *body, uint64_t *time_ms)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), error = 0;
	struct stat st;
	if (fd < 0)
		return errno;
	if (fstat(fd, &st) == 0)
		*time_ms = (uint64_t)st.st_mtim.tv_sec * 1000;
	for (;;) {
		void *room = buf_reserve(body, 65536);
		if (!room) {
			error = EFBIG;
			break;
		}
		ssize_t n = read(fd, room, 65536);
		if (n <= 0) {
			error = n < 0 ? errno : 0;
			break;
		}
		buf_commit(body, (size_t)n);
	}
	close(fd);
	return error;
}

static int make_parents(char *path)
{
	for (char *at = path + 1; (at = strchr(at, '/')); at++) {
		*at = 0;
		int failed = mkdir(path, 0700) && errno != EEXIST;
		*at = '/';
		if (failed)
			return errno;
	}
	return 0;
}

/* As the dir store does: nothing is visible before it is whole. */
static int write_file(struct place *place, const char *name, struct span body)
{
	char path[PATH_MAX], tmp[PATH_MAX], tmp_name[64];
	snprintf(tmp_name, sizeof tmp_name, "tmp/%016llx.%llu", (unsigned long long)place->run,
		(unsigned long long)place->next_tmp++);
	int error = path_of(place, name, path);
	if (!error)
		error = path_of(place, tmp_name, tmp);
	if (!error)
		error = make_parents(path);
	if (!error)
		error = make_parents(tmp);
	if (error)
		return error;
	int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno;
	while (body.len && !error) {
		ssize_t n = write(fd, body.data, body.len);
		if (n < 0 && errno != EINTR)
			error = errno;
		if (n > 0)
			body = (struct span){body.data + n, body.len - (size_t)n};
	}
	if (close(fd) && !error)
		error = errno;
	if (!error && rename(tmp, path))
		error = errno;
	if (error)
		unlink(tmp);
	return error;
}

static void on_s3(struct s3_call *s3, const struct s3_result *answer, void *arg)
{
	struct place_call *call = arg;
	struct place_result result = {.body = answer->body,
		.reason = answer->reason,
		.time_ms = store_s3_time_ms(s3_call_header(s3, "last-modified")),
		.model = s3_call_header(s3, "x-amz-meta-model"),
		.dimensions = s3_call_header(s3, "x-amz-meta-dimensions"),
		.encoding = s3_call_header(s3, "content-encoding"),
		.encoding_told = true};
	result.error = answer->outcome == S3_OK        ? 0
		       : answer->outcome == S3_MISSING ? ENOENT
		       : answer->outcome == S3_DENIED  ? EACCES
						       : EIO;
	call->done(&result, call->arg);
	call_free(call);
}

static int start_s3(struct place_call *call, const struct s3_request *request)
{
	call->s3 = s3_client_call(call->place->s3, request, on_s3, call);
	if (call->s3)
		return 0;
	call_free(call);
	return -1;
}

int place_get(struct place *place, const char *name,
	void (*done)(const struct place_result *result, void *arg), void *arg)
{
	struct place_call *call = call_new(place, done, arg);
	char path[PATH_MAX];
	if (!call)
		return -1;
	if (place->s3) {
		struct s3_request request = {.method = "GET",
			.name = name,
			.timeout_ms = TIMEOUT_MS,
			.max_response_bytes = STORED_LEGACY_MAX_BYTES};
		return start_s3(call, &request);
	}
	call->has_body = true;
	call->error = path_of(place, name, path);
	if (!call->error)
		call->error = read_file(path, &call->body, &call->time_ms);
	loop_defer(place->loop, &call->later);
	return 0;
}

int place_has(struct place *place, const char *name,
	void (*done)(const struct place_result *result, void *arg), void *arg)
{
	struct place_call *call = call_new(place, done, arg);
	char path[PATH_MAX];
	if (!call)
		return -1;
	if (place->s3) {
		struct s3_request request = {.method = "HEAD",
			.name = name,
			.timeout_ms = TIMEOUT_MS,
			.max_response_bytes = 65536};
		return start_s3(call, &request);
	}
	call->error = path_of(place, name, path);
	if (!call->error && access(path, F_OK))
		call->error = errno;
	loop_defer(place->loop, &call->later);
	return 0;
}

int place_put(struct place *place, const char *name, struct span body,
	const struct stored_fields *fields,
	void (*done)(const struct place_result *result, void *arg), void *arg)
{
	struct place_call *call = call_new(place, done, arg);
	if (!call)
		return -1;
	if (!place->s3) {
		call->error = write_file(place, name, body);
		loop_defer(place->loop, &call->later);
		return 0;
	}
	const char *headers[MAX_METADATA + 3] = {
		"Content-Type: application/json", "Content-Encoding: gzip"};
	size_t n = 2;
	if (fields)
		store_s3_metadata(fields, &call->metadata);
	for (const char *line = (const char *)call->metadata.data;
		line && *line && n < MAX_METADATA; line += strlen(line) + 1)
		headers[n++] = line;
	struct digest digest = digest_of(body);
	struct s3_request request = {.method = "PUT",
		.name = name,
		.headers = headers,
		.body = {.data = body.data, .len_bytes = body.len},
		.body_digest = &digest,
		.timeout_ms = TIMEOUT_MS,
		.max_response_bytes = 65536};
	return start_s3(call, &request);
}

/* ---- All objects ---- */

static int next_file(struct place *place, const char **name)
{
	if (!place->fts) {
		char *const paths[] = {place->location, NULL};
		place->fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	}
	FTSENT *entry;
	while (place->fts && (entry = fts_read(place->fts))) {
		if (entry->fts_info == FTS_NS || entry->fts_info == FTS_DNR ||
			entry->fts_info == FTS_ERR) {
			fprintf(stderr, "cachectl: %s: %s\n", entry->fts_path,
				strerror(entry->fts_errno));
			return -1;
		}
		if (entry->fts_info != FTS_F)
			continue;
		*name = entry->fts_path + strlen(place->dir);
		while (**name == '/')
			(*name)++;
		return 1;
	}
	if (place->fts && errno == 0)
		return 0;
	fprintf(stderr, "cachectl: %s: %s\n", place->dir, strerror(errno));
	return -1;
}

static void on_page(struct s3_call *call, const struct s3_result *result, void *arg)
{
	struct place *place = arg;
	(void)call;
	place->page_ready = true;
	place->page_at = 0;
	if (result->outcome == S3_OK) {
		size_t len;
		void *data = buf_take(result->body, &len);
		buf_clear(&place->page);
		buf_append(&place->page, data, len);
		buf_append_char(&place->page, 0);
		free(data);
	} else {
		place->list_error = strdup(result->reason);
	}
	loop_stop(place->loop);
}

static int start_page(struct place *place)
{
	struct buf query = BUF_INIT(TOKEN_MAX_BYTES * 3 + 64);
	if (*place->token) {
		buf_append_str(&query, "continuation-token=");
		s3_escape(span_of(place->token), true, &query);
		buf_append_char(&query, '&');
	}
	buf_append_str(&query, "list-type=2&max-keys=1000");
	buf_append_char(&query, 0);
	struct s3_request request = {.method = "GET",
		.name = "",
		.query = (const char *)query.data,
		.timeout_ms = TIMEOUT_MS,
		.max_response_bytes = LIST_MAX_BYTES - 1};
	place->page_ready = false;
	struct s3_call *call = buf_failed(&query)
				       ? NULL
				       : s3_client_call(place->s3, &request, on_page, place);
	buf_free(&query);
	return call ? 0 : -1;
}

/* The text between <tag> and </tag> behind *at, which moves behind it. Names of ours and tokens
 * need no unescaping. */
static bool next_tag(const char **at, const char *tag, char *out, size_t size)
{
	char open[64];
	snprintf(open, sizeof open, "<%s>", tag);
	const char *start = strstr(*at, open);
	if (!start)
		return false;
	start += strlen(open);
	const char *end = strchr(start, '<');
	if (!end || (size_t)(end - start) >= size)
		return false;
	memcpy(out, start, (size_t)(end - start));
	out[end - start] = 0;
	*at = end;
	return true;
}

static int next_page(struct place *place)
{
	if (start_page(place) < 0)
		return -1;
	while (!place->page_ready)
		loop_run(place->loop);
	if (place->list_error) {
		fprintf(stderr, "cachectl: %s\n", place->list_error);
		return -1;
	}
	const char *text = (const char *)place->page.data;
	if (!strstr(text, "<IsTruncated>true</IsTruncated>") ||
		!next_tag(&text, "NextContinuationToken", place->token, sizeof place->token))
		place->listed = true;
	return 0;
}

static int next_in_bucket(struct place *place, const char **name)
{
	for (;;) {
		if (place->page_ready) {
			const char *at = (const char *)place->page.data + place->page_at;
			if (next_tag(&at, "Key", place->name, sizeof place->name)) {
				place->page_at = (size_t)(at - (const char *)place->page.data);
				*name = place->name;
				return 1;
			}
			if (place->listed)
				return 0;
		}
		if (next_page(place) < 0)
			return -1;
	}
}

int place_next(struct place *place, const char **name)
{
	errno = 0;
	return place->s3 ? next_in_bucket(place, name) : next_file(place, name);
}
