#ifndef EXPORTERMERGER_RPC_PAGE_H
#define EXPORTERMERGER_RPC_PAGE_H

/* What one of our daemons answers to RPC `metrics`, as a page of classic text, so that it is
 * checked and merged like everybody else's. */
#include "common/buf.h"
#include "common/messages.h"

/* Append the page. NULL, or the reason why the message is none (a static string). */
const char *rpc_page_write(const struct msg_metrics_result *metrics, struct buf *out);

#endif
