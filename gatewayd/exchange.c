#include "gatewayd/exchange.h"

#include "common/log.h"

void answer_head_add(struct answer_head *head, const char *name, struct span value)
{
	BUG_ON(head->n_fields == ANSWER_MAX_FIELDS);
	head->fields[head->n_fields++] = (struct field){name, value};
}
