#include "config.h"

#include "telemetry/accesslog.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"

enum { PENDING_MAX = 1 << 20 };

struct accesslog {
	struct loop *loop;
	struct task flush;
	struct buf pending;
	int fd; /* -1: none */
	bool owned;
};

static void flush(struct accesslog *l)
{
	for (size_t at = 0; at < l->pending.n;) {
		ssize_t n = write(l->fd, l->pending.p + at, l->pending.n - at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		at += (size_t)n;
	}
	buf_clear(&l->pending);
}

static void on_flush(struct task *t)
{
	flush(CONTAINER_OF(t, struct accesslog, flush));
}

struct accesslog *accesslog_open(struct loop *loop, const char *to)
{
	struct accesslog *l = calloc(1, sizeof *l);
	if (!l)
		return NULL;
	l->loop = loop;
	l->flush.run = on_flush;
	l->pending = BUF(PENDING_MAX);
	l->fd = -1;
	if (strcmp(to, "none") == 0)
		return l;
	l->owned = strcmp(to, "-") != 0;
	l->fd = l->owned ? open(to, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0640) : STDERR_FILENO;
	if (l->fd < 0) {
		free(l);
		return NULL;
	}
	return l;
}

void accesslog_close(struct accesslog *l)
{
	if (!l)
		return;
	loop_undefer(l->loop, &l->flush);
	flush(l);
	if (l->owned)
		close(l->fd);
	buf_free(&l->pending);
	free(l);
}

static void member(struct buf *b, const char *name, struct view v)
{
	if (!v.p)
		return;
	buf_lit(b, ",\"");
	buf_view_put(b, view_of(name));
	buf_lit(b, "\":");
	json_string(b, v);
}

static void number(struct buf *b, const char *name, uint64_t n)
{
	buf_lit(b, ",\"");
	buf_view_put(b, view_of(name));
	buf_lit(b, "\":");
	buf_u64(b, n);
}

void accesslog_write(struct accesslog *l, const struct access *a)
{
	if (l->fd < 0)
		return;
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	struct buf *b = &l->pending;
	size_t before = b->n;
	buf_lit(b, "{\"time_ms\":");
	buf_u64(b, (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
	member(b, "request_id", a->request_id);
	member(b, "trace_id", a->trace_id);
	member(b, "method", a->method);
	/* A path is the client's text: only what is UTF-8 can stand in JSON. */
	member(b, "path", a->path.p && utf8_valid(a->path) ? a->path : VIEW_NONE);
	member(b, "resource", a->resource);
	member(b, "key_id", a->key_id);
	member(b, "remote_addr", a->remote_addr);
	number(b, "status", (uint64_t)a->status);
	member(b, "code", a->code);
	number(b, "bytes", a->body_bytes);
	number(b, "took_us", (uint64_t)(a->took_us < 0 ? 0 : a->took_us));
	buf_lit(b, "}\n");
	if (buf_failed(b)) {
		b->n = before;
		b->failed = false;
	}
	loop_defer(l->loop, &l->flush);
}
