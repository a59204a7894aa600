/* response: an answer being made: status, header lines, body.
 *
 * One writer, in this order or another; nothing is sent before it is whole. Header values that would break the line
 * (CR, LF, NUL) are a bug of the caller's and dropped. The web server gets "Status: 200 OK" (RFC 3875 section 6.3.3).
 */
#ifndef COMPOSURE_RESPONSE_H
#define COMPOSURE_RESPONSE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"
#include "base/view.h"

enum { RESPONSE_HEAD_MAX = 3584 }; /* nginx and Apache fail between 4 and 8 KB */

struct response {
	int http;        /* status code; 0: nothing decided yet */
	struct buf head; /* header lines, each with CRLF; bounded by RESPONSE_HEAD_MAX */
	struct buf body;
	bool head_only;  /* HEAD: the length is told, the body is not sent */
};

/* An empty response whose body may grow to body_max bytes. Owns its bufs: response_free(). */
void response_init(struct response *, size_t body_max_bytes);
void response_free(struct response *);

/* Back to empty; keeps memory up to keep_bytes for the next answer. */
void response_reset(struct response *, size_t keep_bytes);

/* Adds a header line. Returns false (and adds nothing) when the head would pass RESPONSE_HEAD_MAX. */
bool response_header(struct response *, struct view name, struct view value);

/* Forgets body and headers and sets the status: for an answer that turned into another one half-way. */
void response_restart(struct response *, int http);

/* Appends the whole head to out: Status line, headers, Content-Length (not for 204 and 304), blank line. */
void response_head(const struct response *, struct buf *out);

/* Body bytes that are to follow the head: none for HEAD, 204, 304. */
struct view response_payload(const struct response *);

#endif
