#include "tests/common/http_client_bench.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

/* --- a certificate made for the occasion, which signs itself --- */

struct identity {
	EVP_PKEY *key;
	X509 *certificate;
	char path[64]; /* the certificate as PEM, to be trusted */
};

static void identity_make(struct identity *id, const char *alternative_name, long valid_s)
{
	id->key = EVP_EC_gen("P-256");
	id->certificate = X509_new();
	assert_non_null(id->key);
	assert_non_null(id->certificate);
	X509_set_version(id->certificate, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(id->certificate), 1);
	X509_gmtime_adj(X509_getm_notBefore(id->certificate), -7200);
	X509_gmtime_adj(X509_getm_notAfter(id->certificate), valid_s);
	X509_set_pubkey(id->certificate, id->key);
	X509_NAME *name = X509_get_subject_name(id->certificate);
	X509_NAME_add_entry_by_txt(
		name, "CN", MBSTRING_ASC, (const unsigned char *)"provider", -1, -1, 0);
	X509_set_issuer_name(id->certificate, name);
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(
		NULL, NULL, NID_subject_alt_name, alternative_name);
	assert_non_null(extension);
	X509_add_ext(id->certificate, extension, -1);
	X509_EXTENSION_free(extension);
	assert_true(X509_sign(id->certificate, id->key, EVP_sha256()) > 0);

	snprintf(id->path, sizeof id->path, "/tmp/http_client_tls_test.XXXXXX");
	int fd = mkstemp(id->path);
	assert_true(fd >= 0);
	FILE *file = fdopen(fd, "w");
	assert_int_equal(PEM_write_X509(file, id->certificate), 1);
	fclose(file);
}

static void identity_free(struct identity *id)
{
	unlink(id->path);
	X509_free(id->certificate);
	EVP_PKEY_free(id->key);
}

/* --- a server that has it --- */

/* Answers every request that ends in an empty line; s->arg is the SSL_CTX. */
static void serve_tls(struct raw_server *s, int fd, unsigned nth)
{
	(void)nth;
	SSL *ssl = SSL_new((SSL_CTX *)(uintptr_t)s->arg);
	SSL_set_fd(ssl, fd);
	if (SSL_accept(ssl) == 1) {
		int n;
		while ((n = SSL_read(ssl, s->request, 4096)) > 0) {
			s->request[n] = '\0';
			atomic_fetch_add(&s->requests, 1);
			SSL_write(ssl, ANSWER_OK, (int)strlen(ANSWER_OK));
		}
	}
	SSL_free(ssl);
}

struct tls_case {
	const char *alternative_name;
	long valid_s;
	bool trusted;
	int version_max;
	enum http_call_outcome expected;
};

static void run_case(const struct tls_case *c)
{
	struct identity id;
	identity_make(&id, c->alternative_name, c->valid_s);
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	SSL_CTX_use_certificate(ctx, id.certificate);
	SSL_CTX_use_PrivateKey(ctx, id.key);
	SSL_CTX_set_security_level(ctx, 0);
	SSL_CTX_set_max_proto_version(ctx, c->version_max);

	struct raw_server s;
	raw_server_start(&s, serve_tls, NULL);
	s.arg = ctx;
	struct http_client_options client_options = http_client_defaults;
	client_options.ca_file = c->trusted ? id.path : NULL;
	struct bench b;
	set_up_with(&b, &client_options);
	char url[300];
	snprintf(url, sizeof url, "https%s/", s.url + strlen("http"));
	struct http_call_options options = options_for("GET", url);
	static const char *const headers[] = {"Authorization: Bearer secret", NULL};
	options.headers = headers;
	for (int i = 0; i < 2; i++) {
		struct outcome o = call_once(&b, &options);
		assert_int_equal(o.outcome, c->expected);
		assert_int_equal(o.sent, c->expected == HTTP_CALL_OK);
		assert_string_equal(o.body, c->expected == HTTP_CALL_OK ? "hi" : "");
	}
	bool ok = c->expected == HTTP_CALL_OK;
	assert_int_equal(atomic_load(&s.requests), ok ? 2 : 0);
	assert_int_equal(atomic_load(&s.connections), ok ? 1 : 2);
	tear_down(&b);
	raw_server_stop(&s);
	raw_server_free(&s);
	SSL_CTX_free(ctx);
	identity_free(&id);
}

static void test_trusted_server_is_talked_to(void **state)
{
	(void)state;
	run_case(&(struct tls_case){"IP:127.0.0.1", 3600, true, TLS1_3_VERSION, HTTP_CALL_OK});
	run_case(&(struct tls_case){"IP:127.0.0.1", 3600, true, TLS1_2_VERSION, HTTP_CALL_OK});
}

/* None of these ever sees a byte of the request, the credential above all. */
static void test_doubtful_server_is_sent_nothing(void **state)
{
	(void)state;
	static const struct tls_case cases[] = {
		{"IP:127.0.0.1", 3600, false, TLS1_3_VERSION, HTTP_CALL_CONNECT},
		{"IP:127.0.0.2", 3600, true, TLS1_3_VERSION, HTTP_CALL_CONNECT},
		{"DNS:api.test", 3600, true, TLS1_3_VERSION, HTTP_CALL_CONNECT},
		{"IP:127.0.0.1", -3600, true, TLS1_3_VERSION, HTTP_CALL_CONNECT},
		{"IP:127.0.0.1", 3600, true, TLS1_1_VERSION, HTTP_CALL_CONNECT},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		run_case(&cases[i]);
}

static void test_missing_ca_file_trusts_nobody(void **state)
{
	(void)state;
	struct http_client_options client_options = http_client_defaults;
	client_options.ca_file = "/nonexistent/ca.pem";
	struct bench b;
	struct raw_server s;
	set_up_with(&b, &client_options);
	raw_server_start(&s, serve_nothing, NULL);
	char url[300];
	snprintf(url, sizeof url, "https%s/", s.url + strlen("http"));
	struct http_call_options options = options_for("GET", url);
	struct outcome o = call_once(&b, &options);
	assert_int_equal(o.outcome, HTTP_CALL_CONNECT);
	assert_false(o.sent);
	tear_down(&b);
	raw_server_stop(&s);
	raw_server_free(&s);
}

int main(void)
{
	prepare_process();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_trusted_server_is_talked_to),
		cmocka_unit_test(test_doubtful_server_is_sent_nothing),
		cmocka_unit_test(test_missing_ca_file_trusts_nobody),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
