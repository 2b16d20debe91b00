#include "common/http_parser.h"
#include "common/http_server.h"

static const char *const reasons[] = {
	[100] = "Continue",
	[101] = "Switching Protocols",
	[200] = "OK",
	[201] = "Created",
	[202] = "Accepted",
	[203] = "Non-Authoritative Information",
	[204] = "No Content",
	[205] = "Reset Content",
	[206] = "Partial Content",
	[300] = "Multiple Choices",
	[301] = "Moved Permanently",
	[302] = "Found",
	[303] = "See Other",
	[304] = "Not Modified",
	[307] = "Temporary Redirect",
	[308] = "Permanent Redirect",
	[400] = "Bad Request",
	[401] = "Unauthorized",
	[402] = "Payment Required",
	[403] = "Forbidden",
	[404] = "Not Found",
	[405] = "Method Not Allowed",
	[406] = "Not Acceptable",
	[407] = "Proxy Authentication Required",
	[408] = "Request Timeout",
	[409] = "Conflict",
	[410] = "Gone",
	[411] = "Length Required",
	[412] = "Precondition Failed",
	[413] = "Content Too Large",
	[414] = "URI Too Long",
	[415] = "Unsupported Media Type",
	[416] = "Range Not Satisfiable",
	[417] = "Expectation Failed",
	[421] = "Misdirected Request",
	[422] = "Unprocessable Content",
	[425] = "Too Early",
	[426] = "Upgrade Required",
	[428] = "Precondition Required",
	[429] = "Too Many Requests",
	[431] = "Request Header Fields Too Large",
	[500] = "Internal Server Error",
	[501] = "Not Implemented",
	[502] = "Bad Gateway",
	[503] = "Service Unavailable",
	[504] = "Gateway Timeout",
	[505] = "HTTP Version Not Supported",
	[507] = "Insufficient Storage",
};

const char *http_status_reason(int status)
{
	if (status < 0 || (size_t)status >= sizeof reasons / sizeof reasons[0] || !reasons[status])
		return "Unknown";
	return reasons[status];
}

int http_header_add(struct buf *lines, const char *name, struct span value)
{
	if (!http_is_token(span_of(name)) || !http_is_field_value(value)) {
		lines->failed = true;
		return -1;
	}
	size_t len = lines->len;
	buf_append_str(lines, name);
	buf_append(lines, ": ", 2);
	buf_append(lines, value.data, value.len);
	if (buf_append(lines, "\r\n", 2)) {
		/* Half a line must never go out, whether or not the caller asks. */
		lines->len = len;
		return -1;
	}
	return 0;
}
