/* request: what the web server says of a request, checked.
 *
 * Parameters (CGI/1.1, RFC 3875) are fed one by one; request_finish() then judges the whole. Views point into the
 * arena; all of it lives as long as the arena's content. Headers arrive as HTTP_* and can be forged by spelling
 * ("X_Api_Key" and "X-Api-Key" are one name), so a second identity, forwarding or idempotency header is an error.
 */
#ifndef COMPOSURE_REQUEST_H
#define COMPOSURE_REQUEST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/status.h"
#include "base/view.h"

/* GET..OPTIONS are what a resource may take; OTHER is a method that we do not know (501). */
#define METHOD_LIST(X) X(GET) X(HEAD) X(POST) X(PUT) X(PATCH) X(DELETE) X(OPTIONS)

enum method {
#define X(name) METHOD_##name,
	METHOD_LIST(X)
#undef X
	METHOD_OTHER
};

const char *method_name(enum method);

/*   id                    CGI name                 may it come twice? */
#define HEADER_LIST(X)                                        \
	X(ACCEPT, "HTTP_ACCEPT", true)                        \
	X(ACCEPT_ENCODING, "HTTP_ACCEPT_ENCODING", true)      \
	X(AUTHORIZATION, "HTTP_AUTHORIZATION", false)         \
	X(API_KEY, "HTTP_X_API_KEY", false)                   \
	X(IDEMPOTENCY_KEY, "HTTP_IDEMPOTENCY_KEY", false)     \
	X(IF_MATCH, "HTTP_IF_MATCH", false)                   \
	X(IF_NONE_MATCH, "HTTP_IF_NONE_MATCH", false)         \
	X(PREFER, "HTTP_PREFER", true)                        \
	X(ORIGIN, "HTTP_ORIGIN", false)                       \
	X(CORS_METHOD, "HTTP_ACCESS_CONTROL_REQUEST_METHOD", false) \
	X(CORS_HEADERS, "HTTP_ACCESS_CONTROL_REQUEST_HEADERS", true) \
	X(CACHE_CONTROL, "HTTP_CACHE_CONTROL", true)          \
	X(REQUEST_ID, "HTTP_X_REQUEST_ID", false)             \
	X(REQUEST_START, "HTTP_X_REQUEST_START", false)       \
	X(REQUEST_TIMEOUT, "HTTP_X_REQUEST_TIMEOUT", false)   \
	X(TRACEPARENT, "HTTP_TRACEPARENT", false)             \
	X(FORWARDED, "HTTP_FORWARDED", false)                 \
	X(FORWARDED_FOR, "HTTP_X_FORWARDED_FOR", false)       \
	X(COMPOSURE_LSN, "HTTP_COMPOSURE_LSN", false)

enum header {
#define X(id, cgi, twice) HEADER_##id,
	HEADER_LIST(X)
#undef X
	HEADER_COUNT
};

struct request_limits {
	size_t url_bytes;  /* path and query together: 414 beyond */
	size_t body_bytes; /* Content-Length: 413 beyond */
};

enum { REQUEST_SEGMENTS_MAX = 8, REQUEST_PARTS_MAX = 32 /* PostgreSQL's keys have no more columns */ };

/* Zero-initialised, it is ready for request_param(). */
struct request {
	enum method method; /* after request_finish() */
	struct view method_text;
	struct view uri;          /* REQUEST_URI; request_finish() strips the absolute form to its path and query */
	struct view path;         /* of uri, still encoded; "*" in OPTIONS * */
	struct view query;        /* behind the '?', still encoded; absent without one */
	struct view content_type; /* absent when not sent */
	struct view length_text; /* CONTENT_LENGTH as sent; request_finish() makes the next two of it */
	bool has_length;
	size_t content_length;
	struct view remote_addr; /* of the web server's peer, as it says */
	struct view header[HEADER_COUNT]; /* absent when not sent; an empty header is empty, not absent */
	bool repeated;            /* a header that must not come twice did; `repeated_name` is its CGI name */
	struct view repeated_name;
	bool malformed;           /* a value held a control character; `malformed_name` is its CGI name */
	struct view malformed_name;
	bool full; /* the arena was */
};

/* Takes one CGI parameter; others than those above are ignored. Values are copied into the arena, values with NUL or
 * control characters other than tab are kept out and mark the request (request_finish says ERR_INVALID_HEADER). */
void request_param(struct request *, struct arena *, struct view name, struct view value);

/* OK, or the status of the first thing wrong: 400 (no method or URI, repeated or malformed headers, a URI that is
 * neither a path nor an http URL or has a fragment, a bad Content-Length), 413, 414, 431 (the arena was full), 501.
 * *detail says what, in words for the client. */
enum status request_finish(struct request *, const struct request_limits *, struct view *detail) MUST_CHECK;

/* A path below the mount, taken apart: split on '/', each segment then on ',', each part then percent-decoded once.
 * Segment 0 of "/api/payments/1,EUR" below "/api" is {"payments"}, segment 1 is {"1", "EUR"}. */
struct route_segment {
	struct view *part; /* decoded, valid UTF-8, without NUL and control characters */
	size_t n_parts;
};

struct route_path {
	struct route_segment segment[REQUEST_SEGMENTS_MAX];
	size_t n;
};

/* OK; ERR_NOT_FOUND when the path is not below `mount` ("/api", "" for none), or has an empty, dot, NUL, control or
 * bad UTF-8 segment, a bad escape, a trailing slash, an empty part, or too many segments or parts;
 * ERR_HEADERS_TOO_LARGE when the arena is full. The mount itself ("/api" and "/api/") is n == 0. */
enum status request_route(const struct request *, struct arena *, struct view mount, struct route_path *) MUST_CHECK;

#endif
