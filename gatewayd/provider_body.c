#include "gatewayd/provider_body.h"

#include "common/log.h"
#include "common/reclaim.h"

/* Up to this size the loop writes it sooner than a worker would begin. */
#define INLINE_BYTES (256u << 10)

static int write_now(struct provider_body *body, const struct provider_request *request)
{
	struct buf text = BUF_INIT(SIZE_MAX / 2);
	if (body->write(request, &text) < 0) {
		buf_free(&text);
		return -1;
	}
	body->data = buf_take(&text, &body->len_bytes);
	return 0;
}

static void work(struct job *job)
{
	struct provider_body *body = (struct provider_body *)job;
	(void)write_now(body, &body->request.request);
}

static void done(struct job *job)
{
	struct provider_body *body = (struct provider_body *)job;
	body->writing = false;
	provider_request_copy_free(&body->request);
	body->on_written(body->arg);
}

int provider_body_write(struct provider_body *body, struct loop *loop, struct workers *workers,
	int (*write)(const struct provider_request *request, struct buf *out),
	const struct provider_request *request, void (*on_written)(void *arg), void *arg)
{
	size_t bytes = 0;
	for (size_t i = 0; i < request->n_inputs; i++)
		bytes += request->inputs[i].len;
	*body = (struct provider_body){
		.job = {.work = work, .done = done},
		.loop = loop,
		.write = write,
		.on_written = on_written,
		.arg = arg,
	};
	/* To copy the inputs would take as long as to write the body. */
	if (bytes <= INLINE_BYTES || !request->body)
		return write_now(body, request);
	if (provider_request_copy(&body->request, request) < 0 ||
		workers_submit(workers, &body->job) < 0) {
		provider_request_copy_free(&body->request);
		return write_now(body, request);
	}
	body->writing = true;
	return 1;
}

void provider_body_free(struct provider_body *body)
{
	BUG_ON(body->writing);
	if (body->data)
		reclaim(body->loop, body->data, body->len_bytes);
	body->data = NULL;
}
