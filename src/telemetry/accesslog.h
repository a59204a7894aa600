/* accesslog: one JSON line a request, written in one write(2) a wake-up of the loop. */
#ifndef COMPOSURE_ACCESSLOG_H
#define COMPOSURE_ACCESSLOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "base/view.h"

struct accesslog;

/* What there is to say of a request. Absent views are left out. The query string is not among it: it may hold what
 * is nobody else's business. */
struct access {
	struct view request_id, trace_id, method, path, resource, key_id, remote_addr, code;
	int status;
	uint64_t body_bytes;
	int64_t took_us;
};

/* To "-" (stderr), a file (appended to), or "none". NULL and errno when the file cannot be opened. */
struct accesslog *accesslog_open(struct loop *, const char *to);
void accesslog_close(struct accesslog *); /* writes what is left; NULL is fine */

/* A line that cannot be written (a full disk, a full pipe) is dropped: a log must not stop a request. What is not UTF-8
 * is left out; a long path is cut. */
void accesslog_write(struct accesslog *, const struct access *);

#endif
