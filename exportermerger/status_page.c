#include "exportermerger/status_page.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "common/buf.h"
#include "common/digest.h"
#include "common/gzip.h"
#include "common/http_server.h"
#include "common/log.h"
#include "exportermerger/negotiate.h"

#define MAX_BYTES   (1u << 20)
#define LINES_BYTES 2048
#define GZIP_LEVEL  9
#define BASE64_MAX  (DIGEST_BYTES / 3 * 4 + 5)

/* mk/build.mk has this file made again when the page changes. */
__asm__(".section .rodata\n"
	".global status_html, status_html_end\n"
	"status_html:\n"
	".incbin \"exportermerger/status.html\"\n"
	"status_html_end:\n"
	".byte 0\n"
	".previous\n");
extern const char status_html[], status_html_end[];

struct status_page {
	struct buf gzip;
	struct buf lines; /* of every answer */
	char etag[DIGEST_HEX + 5];
};

/* What stands between <tag> and </tag>, the first time. */
static struct span inside(struct span page, const char *tag)
{
	char open[16], close[16];
	snprintf(open, sizeof open, "<%s>", tag);
	snprintf(close, sizeof close, "</%s>", tag);
	const char *begin = memmem(page.data, page.len, open, strlen(open));
	BUG_ON(!begin);
	begin += strlen(open);
	const char *end = memmem(
		begin, (size_t)(page.data + page.len - begin), close, strlen(close));
	BUG_ON(!end);
	return (struct span){begin, (size_t)(end - begin)};
}

static void source_of(struct span page, const char *tag, char text[BASE64_MAX])
{
	struct digest digest = digest_of(inside(page, tag));
	EVP_EncodeBlock((unsigned char *)text, digest.bytes, DIGEST_BYTES);
}

static void make_lines(struct status_page *p, struct span page)
{
	char style[BASE64_MAX], script[BASE64_MAX];
	source_of(page, "style", style);
	source_of(page, "script", script);
	buf_append_str(&p->lines, "Content-Type: text/html; charset=utf-8\r\n");
	buf_printf(&p->lines,
		"Content-Security-Policy: default-src 'none'; style-src 'sha256-%s'; "
		"script-src 'sha256-%s'; connect-src 'self'; img-src data:; base-uri 'none'; "
		"form-action 'none'; frame-ancestors 'none'\r\n",
		style, script);
	buf_append_str(&p->lines, "X-Content-Type-Options: nosniff\r\n"
				  "Referrer-Policy: no-referrer\r\n"
				  "Cross-Origin-Resource-Policy: same-origin\r\n"
				  "Cache-Control: no-cache\r\n"
				  "Vary: Accept-Encoding\r\n");
	buf_printf(&p->lines, "ETag: %s\r\n", p->etag);
}

struct status_page *status_page_new(void)
{
	struct span page = {status_html, (size_t)(status_html_end - status_html)};
	struct status_page *p = calloc(1, sizeof *p);
	if (!p)
		return NULL;
	buf_init(&p->gzip, MAX_BYTES);
	buf_init(&p->lines, LINES_BYTES);
	struct digest digest = digest_of(page);
	char hex[DIGEST_HEX + 1];
	digest_hex(&digest, hex);
	/* Weak: compressed or not, it is the same page (RFC 9110 8.8.1). */
	snprintf(p->etag, sizeof p->etag, "W/\"%s\"", hex);
	make_lines(p, page);
	if (gzip_compress(page, (struct span){0}, GZIP_LEVEL, &p->gzip) < 0 ||
		buf_failed(&p->lines))
		status_page_free(&p);
	return p;
}

static struct span borrow(const struct buf *buf)
{
	return (struct span){(const char *)buf->data, buf->len};
}

void status_page_serve(const struct status_page *p, struct http_exchange *exchange)
{
	struct span method = http_exchange_method(exchange);
	struct span seen = http_exchange_header(exchange, "if-none-match");
	if (!span_equal_str(method, "GET") && !span_equal_str(method, "HEAD")) {
		http_exchange_respond(exchange, 405, SPAN_LITERAL("Allow: GET, HEAD\r\n"), NULL, 0);
		return;
	}
	if (seen.data && memmem(seen.data, seen.len, p->etag, strlen(p->etag))) {
		http_exchange_respond(exchange, 304, borrow(&p->lines), NULL, 0);
		return;
	}
	/* Both outlive the server. */
	struct slice body = {
		.data = status_html, .len_bytes = (size_t)(status_html_end - status_html)};
	struct buf lines = BUF_INIT(LINES_BYTES);
	buf_append(&lines, p->lines.data, p->lines.len);
	if (negotiate_gzip(http_exchange_header(exchange, "accept-encoding"))) {
		body = (struct slice){.data = p->gzip.data, .len_bytes = p->gzip.len};
		http_header_add(&lines, "Content-Encoding", SPAN_LITERAL("gzip"));
	}
	http_exchange_respond(exchange, 200, borrow(&lines), &body, 1);
	buf_free(&lines);
}

void status_page_free(struct status_page **page)
{
	struct status_page *p = *page;
	if (!p)
		return;
	buf_free(&p->gzip);
	buf_free(&p->lines);
	free(p);
	*page = NULL;
}
