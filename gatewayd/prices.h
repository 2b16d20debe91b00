#ifndef GATEWAYD_PRICES_H
#define GATEWAYD_PRICES_H

/*
 * What tokens cost: "MODEL=DOLLARS,MODEL=DOLLARS", dollars for a million tokens. A model that is
 * not in the table costs nothing. Pure.
 */
#include <stdbool.h>

#include "common/span.h"

#define PRICES_DEFAULT_DATE "2024-01-25"
#define PRICES_DEFAULT \
	"text-embedding-3-small=0.02,text-embedding-3-large=0.13,text-embedding-ada-002=0.10"

bool prices_valid(const char *table);
/* Dollars for one token. */
double prices_of(const char *table, struct span model);

#endif
