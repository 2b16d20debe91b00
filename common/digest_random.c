/* Apart from digest.c, so that who only wants random bytes does not carry OpenSSL along. */
#include "common/digest.h"

#include <errno.h>
#include <sys/random.h>

#include "common/log.h"

void digest_random(void *data, size_t len_bytes)
{
	uint8_t *to = data;
	while (len_bytes) {
		ssize_t n = getrandom(to, len_bytes, 0);
		if (n < 0) {
			BUG_ON(errno != EINTR);
			continue;
		}
		to += n;
		len_bytes -= (size_t)n;
	}
}
