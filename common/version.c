#include "common/daemon.h"

#ifndef EG_VERSION
#define EG_VERSION "unknown"
#endif

const char *daemon_version(void)
{
	return EG_VERSION;
}
