#include "config.h"

#include "base/status.h"

#include <assert.h>

static const struct {
	int http;
	const char *code;
	const char *title;
} table[] = {
#define X(id, http, code, title) { http, code, title },
	STATUS_LIST(X)
#undef X
};

int status_http(enum status s)
{
	assert(s < STATUS_COUNT);
	return table[s].http;
}

const char *status_code(enum status s)
{
	assert(s < STATUS_COUNT);
	return table[s].code;
}

const char *status_title(enum status s)
{
	assert(s < STATUS_COUNT);
	return table[s].title;
}

const char *status_reason(int http)
{
	switch (http) {
	case 200: return "OK";
	case 201: return "Created";
	case 204: return "No Content";
	case 206: return "Partial Content";
	case 304: return "Not Modified";
	case 400: return "Bad Request";
	case 401: return "Unauthorized";
	case 403: return "Forbidden";
	case 404: return "Not Found";
	case 405: return "Method Not Allowed";
	case 406: return "Not Acceptable";
	case 408: return "Request Timeout";
	case 409: return "Conflict";
	case 412: return "Precondition Failed";
	case 413: return "Content Too Large";
	case 414: return "URI Too Long";
	case 415: return "Unsupported Media Type";
	case 422: return "Unprocessable Content";
	case 429: return "Too Many Requests";
	case 431: return "Request Header Fields Too Large";
	case 500: return "Internal Server Error";
	case 501: return "Not Implemented";
	case 503: return "Service Unavailable";
	case 504: return "Gateway Timeout";
	default: return "";
	}
}
