#include "config.h"

#include "telemetry/accesslog.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"

/* What a client chose is cut, so that a line fits into PIPE_BUF whatever of it has to be escaped. */
enum { PENDING_MAX = 1 << 20, METHOD_MAX = 32, PATH_MAX_BYTES = 1536 };

struct accesslog {
	struct loop *loop;
	struct task flush;
	struct buf pending;
	int fd; /* -1: none */
	bool owned;
	bool in_pieces; /* no regular file: a pipe to the web server or to systemd, a terminal */
};

static bool takes_a_piece(const struct accesslog *l)
{
	struct pollfd p = { .fd = l->fd, .events = POLLOUT };
	return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT);
}

/* Whole lines: a pipe that is writable takes PIPE_BUF bytes at once or none, and standard error is not ours to make
 * non-blocking. */
static size_t piece_of(const char *p, size_t n)
{
	if (n <= PIPE_BUF)
		return n;
	const char *last = memrchr(p, '\n', PIPE_BUF);
	return last ? (size_t)(last - p) + 1 : PIPE_BUF;
}

static void flush(struct accesslog *l)
{
	for (size_t at = 0; at < l->pending.n;) {
		const char *p = l->pending.p + at;
		size_t left = l->pending.n - at;
		if (l->in_pieces && !takes_a_piece(l))
			break;
		ssize_t n = write(l->fd, p, l->in_pieces ? piece_of(p, left) : left);
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
	struct stat st;
	l->in_pieces = fstat(l->fd, &st) != 0 || !S_ISREG(st.st_mode);
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

/* Only what is UTF-8 can stand in JSON, and a client may send anything. */
static void member(struct buf *b, const char *name, struct view v)
{
	if (!v.p || !utf8_valid(v))
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

/* At the end of a character. */
static struct view cut(struct view v, size_t max)
{
	if (v.n <= max)
		return v;
	while (max && ((unsigned char)v.p[max] & 0xc0) == 0x80)
		max--;
	return view_make(v.p, max);
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
	member(b, "method", cut(a->method, METHOD_MAX));
	member(b, "path", cut(a->path, PATH_MAX_BYTES));
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
