#ifndef GATEWAYD_CTL_VERDICT_H
#define GATEWAYD_CTL_VERDICT_H

/*
 * What an answer other than 200 means to a run that has many requests to send: by its status, and
 * by the error in OpenAI's shape, {"error":{"param":…,"code":…}}, that its body may have.
 */
#include "common/span.h"

enum verdict {
	VERDICT_TRY_AGAIN, /* 408, 429, 5xx */
	VERDICT_KEY,       /* 401, 403: no other request would fare better */
	VERDICT_URL,       /* 404, 405 of something that has no embeddings */
	VERDICT_REQUEST,   /* refused as a whole: the model, or another field */
	VERDICT_TEXT,      /* of its texts one alone may be at fault */
};
enum verdict verdict_of(int status, struct span body);

#endif
