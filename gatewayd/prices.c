#include "gatewayd/prices.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TOKENS 1e6

/* The entry at *at, which moves behind it. false at the end; *price is negative when it is none. */
static bool next_entry(const char **at, struct span *model, double *price)
{
	if (!**at)
		return false;
	size_t len = strcspn(*at, ",");
	const char *equals = memrchr(*at, '=', len);
	*model = (struct span){*at, equals ? (size_t)(equals - *at) : 0};
	*price = -1;
	if (equals && model->len && equals[1] >= '0' && equals[1] <= '9') {
		char *end;
		double value = strtod(equals + 1, &end);
		if (end == *at + len && isfinite(value))
			*price = value;
	}
	*at += len + ((*at)[len] == ',');
	return true;
}

bool prices_valid(const char *table)
{
	struct span model;
	double price;
	while (next_entry(&table, &model, &price))
		if (price < 0)
			return false;
	return true;
}

double prices_of(const char *table, struct span wanted)
{
	struct span model;
	double price;
	while (next_entry(&table, &model, &price))
		if (price >= 0 && span_equal(model, wanted))
			return price / TOKENS;
	return 0;
}
