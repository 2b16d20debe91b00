#include "gatewayd/exchange.h"

#include "common/log.h"

#include "common/log.h"

void answer_head_add(struct answer_head *head, const char *name, struct span value)
{
	BUG_ON(head->n_fields == ANSWER_MAX_FIELDS);
	head->fields[head->n_fields++] = (struct field){name, value};
}

void exchange_respond_object(struct exchange *exchange, const struct answer_head *head,
	struct cache_object *object, enum cache_form form)
{
	if (exchange->ops->respond_object) {
		exchange->ops->respond_object(exchange, head, object, form);
		return;
	}
	struct slice body = {0};
	BUG_ON(!cache_object_slice(object, form, &body));
	exchange_respond(exchange, head, body);
}
