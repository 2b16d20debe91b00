#ifndef REDISPROXY_TLS_H
#define REDISPROXY_TLS_H

/*
 * TLS to the upstream (OpenSSL), on a descriptor that its owner has: calls return as read(2) and
 * send(2) do, so that the owner's loop is the same with and without it. TLS 1.2 and newer. What was
 * decrypted and not yet read is in no descriptor's readiness: a reader goes on until EAGAIN, or
 * asks tls_pending().
 *
 * The name of the server is checked against its certificate: --tls-server-name, else the name or
 * number that was connected to (a name is also sent, SNI).
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct redisproxy_conf;
struct tls;
struct tls_session;

/* NULL with one line in error: files that cannot be used. */
struct tls *tls_new(const struct redisproxy_conf *conf, char *error, size_t size);
void tls_free(struct tls **tls);

/* The client's side on a connected, or connecting, descriptor, which stays the caller's. NULL when
 * out of memory. */
struct tls_session *tls_open(struct tls *tls, int fd, const char *host);
/* Without waiting; before the descriptor is closed. NULL is fine. */
void tls_close(struct tls_session **session);

enum tls_step { TLS_DONE, TLS_WANTS_READ, TLS_WANTS_WRITE, TLS_FAILED };
enum tls_step tls_handshake(struct tls_session *session);
/* Why it failed; valid until the next call. */
const char *tls_error(const struct tls_session *session);

/* Bytes; 0: the end; -1 with errno (EAGAIN, EIO). */
ssize_t tls_read(struct tls_session *session, void *data, size_t len);
ssize_t tls_write(struct tls_session *session, const void *data, size_t len);
bool tls_pending(const struct tls_session *session);

#endif
