/* cgi: the same program run as plain CGI (RFC 3875): environ, stdin, stdout, one request. */
#ifndef COMPOSURE_CGI_H
#define COMPOSURE_CGI_H

#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/status.h"
#include "http/request.h"
#include "http/response.h"

/* Feeds environ's CGI variables to the request. */
void cgi_params(struct request *, struct arena *);

/* Reads exactly content_length bytes of fd into body, which may be a pipe, a socket or a file, waiting no longer than
 * until deadline_us (CLOCK_MONOTONIC). OK, ERR_INVALID_BODY (ended early), ERR_REQUEST_TIMEOUT,
 * ERR_BODY_TOO_LARGE (over body's limit). */
enum status cgi_body(int fd, size_t content_length, int64_t deadline_us, struct buf *body) MUST_CHECK;

/* Writes the whole answer to fd (blocking: the web server is waiting for it). 0, or -1 and errno. */
int cgi_answer(int fd, const struct response *);

#endif
