#ifndef EXPORTERMERGER_STATUS_PAGE_H
#define EXPORTERMERGER_STATUS_PAGE_H

/*
 * The page for people: status.html, put into the program when it is built. It needs nothing from
 * anywhere else and asks for nothing but /status, which its Content-Security-Policy (W3C CSP 3)
 * makes certain: only the very style and script that it was built with are allowed, by their
 * digests.
 */
struct http_exchange;
struct status_page;

/* NULL when out of memory. */
struct status_page *status_page_new(void);
/* Answers GET and HEAD, with an ETag, compressed for who accepts that; 405 for other methods. */
void status_page_serve(const struct status_page *page, struct http_exchange *exchange);
void status_page_free(struct status_page **page);

#endif
