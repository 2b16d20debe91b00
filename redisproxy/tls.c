#include "redisproxy/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "redisproxy/conf.h"

struct tls {
	SSL_CTX *context;
	const char *server_name; /* "": as connected to */
	bool verifies;
};

struct tls_session {
	SSL *ssl;
	char error[256];
};

static const char *reason(void)
{
	unsigned long code = ERR_get_error();
	const char *why = code ? ERR_reason_error_string(code) : NULL;

	ERR_clear_error();
	return why ? why : "cannot be used";
}

/* Returns -1. */
static int explain(const char *flag, const char *path, char *error, size_t size)
{
	snprintf(error, size, "%s: \"%s\": %s", flag, path, reason());
	return -1;
}

static int look_at(const char *flag, const char *path, char *error, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0) {
		snprintf(error, size, "%s: cannot read \"%s\": %s", flag, path, strerror(errno));
		return -1;
	}
	close(fd);
	return 0;
}

static int load_files(struct tls *tls, const struct redisproxy_conf *conf, char *error, size_t size)
{
	SSL_CTX *context = tls->context;

	if (*conf->tls_ca_file) {
		if (look_at("--tls-ca-file", conf->tls_ca_file, error, size) < 0)
			return -1;
		if (SSL_CTX_load_verify_locations(context, conf->tls_ca_file, NULL) != 1)
			return explain("--tls-ca-file", conf->tls_ca_file, error, size);
	} else if (SSL_CTX_set_default_verify_paths(context) != 1) {
		return explain("TLS", "the system's certificates", error, size);
	}
	if (!*conf->tls_cert_file)
		return 0;
	const char *key = *conf->tls_key_file ? conf->tls_key_file : conf->tls_cert_file;
	const char *key_flag = *conf->tls_key_file ? "--tls-key-file" : "--tls-cert-file";

	if (look_at("--tls-cert-file", conf->tls_cert_file, error, size) < 0 ||
		look_at(key_flag, key, error, size) < 0)
		return -1;
	if (SSL_CTX_use_certificate_chain_file(context, conf->tls_cert_file) != 1)
		return explain("--tls-cert-file", conf->tls_cert_file, error, size);
	if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1 ||
		SSL_CTX_check_private_key(context) != 1)
		return explain(key_flag, key, error, size);
	return 0;
}

struct tls *tls_new(const struct redisproxy_conf *conf, char *error, size_t size)
{
	struct tls *tls = calloc(1, sizeof *tls);

	snprintf(error, size, "out of memory");
	if (!tls)
		return NULL;
	tls->server_name = conf->tls_server_name;
	tls->verifies = conf->tls_verify;
	tls->context = SSL_CTX_new(TLS_client_method());
	if (!tls->context || SSL_CTX_set_min_proto_version(tls->context, TLS1_2_VERSION) != 1)
		goto fail;
	/* Bytes may have moved when a write is tried again, and a part of them is a success. */
	SSL_CTX_set_mode(tls->context, SSL_MODE_ENABLE_PARTIAL_WRITE |
					       SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					       SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_verify(tls->context, tls->verifies ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
	if (load_files(tls, conf, error, size) < 0)
		goto fail;
	return tls;
fail:
	tls_free(&tls);
	return NULL;
}

void tls_free(struct tls **tls)
{
	if (!*tls)
		return;
	SSL_CTX_free((*tls)->context);
	free(*tls);
	*tls = NULL;
}

static bool is_number(const char *host)
{
	struct in6_addr any;

	return inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1;
}

struct tls_session *tls_open(struct tls *tls, int fd, const char *host)
{
	struct tls_session *session = calloc(1, sizeof *session);
	const char *name = *tls->server_name ? tls->server_name : host;
	bool good;

	if (!session)
		return NULL;
	session->ssl = SSL_new(tls->context);
	if (!session->ssl || SSL_set_fd(session->ssl, fd) != 1)
		goto fail;
	if (is_number(name))
		good = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(session->ssl), name) == 1;
	else
		good = SSL_set1_host(session->ssl, name) == 1 &&
		       SSL_set_tlsext_host_name(session->ssl, name) == 1;
	if (!good)
		goto fail;
	SSL_set_connect_state(session->ssl);
	return session;
fail:
	ERR_clear_error();
	tls_close(&session);
	return NULL;
}

void tls_close(struct tls_session **session)
{
	if (!*session)
		return;
	/* close_notify if there is room for it; nobody waits for the answer. */
	if ((*session)->ssl && SSL_is_init_finished((*session)->ssl))
		SSL_shutdown((*session)->ssl);
	ERR_clear_error();
	SSL_free((*session)->ssl);
	free(*session);
	*session = NULL;
}

enum tls_step tls_handshake(struct tls_session *session)
{
	ERR_clear_error();
	int rc = SSL_do_handshake(session->ssl);

	if (rc == 1)
		return TLS_DONE;
	switch (SSL_get_error(session->ssl, rc)) {
	case SSL_ERROR_WANT_READ:
		return TLS_WANTS_READ;
	case SSL_ERROR_WANT_WRITE:
		return TLS_WANTS_WRITE;
	default:
		break;
	}
	long verified = SSL_get_verify_result(session->ssl);

	if (verified != X509_V_OK)
		snprintf(session->error, sizeof session->error, "TLS: %s",
			X509_verify_cert_error_string(verified));
	else if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_WRONG_VERSION_NUMBER)
		snprintf(session->error, sizeof session->error,
			"TLS: the answer is not TLS: a port without it?");
	else
		snprintf(session->error, sizeof session->error, "TLS: %s", reason());
	return TLS_FAILED;
}

const char *tls_error(const struct tls_session *session)
{
	return session->error;
}

static ssize_t result(struct tls_session *session, int rc)
{
	int why = SSL_get_error(session->ssl, rc);

	ERR_clear_error();
	switch (why) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		errno = EAGAIN;
		return -1;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	default:
		errno = EIO;
		return -1;
	}
}

ssize_t tls_read(struct tls_session *session, void *data, size_t len)
{
	int rc = SSL_read(session->ssl, data, len > INT_MAX ? INT_MAX : (int)len);

	return rc > 0 ? rc : result(session, rc);
}

ssize_t tls_write(struct tls_session *session, const void *data, size_t len)
{
	int rc = SSL_write(session->ssl, data, len > INT_MAX ? INT_MAX : (int)len);

	return rc > 0 ? rc : result(session, rc);
}

bool tls_pending(const struct tls_session *session)
{
	return SSL_pending(session->ssl) > 0;
}
