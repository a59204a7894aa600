/* The one hard fact: FastCGI lets the web server send the body while we answer, and Apache sends its end in a record of
 * its own after everything else. So "answered" and "body read" are two conditions, and END_REQUEST goes out when both
 * are true. What comes of a body after END_REQUEST is decoded to nothing, so an early one is harmless: a web server
 * that is not through with the request does not use the connection for the next. */
#include "config.h"

#include "http/peer.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/fastcgi.h"

enum {
	READ_BYTES = 16384,  /* one read(2) */
	WINDOW = 65536,      /* of an answer, encoded at a time */
	WINDOWS_AT_ONCE = 8, /* then the others have their turn, however fast this one reads */
	OUT_LIMIT = WINDOW * 2 + RESPONSE_HEAD_MAX * 2,
	KEEP_BYTES = WINDOW / 2, /* of buffers, between two requests */
};

enum request_state { IDLE, PARAMS, RUNNING, ANSWERING };

struct peer {
	struct loop *loop;
	const struct peer_owner *owner;
	const struct peer_options *options;
	void *user;
	struct io io;
	struct timer idle;
	struct fastcgi codec;
	enum request_state state;
	bool stdin_done;   /* of the running request; or nobody waits for it any more */
	bool params_over;  /* they did not fit */
	bool closing, dead;
	bool busy;         /* inside a callback: peer_close() only marks */
	struct buf in;     /* what is left of an incomplete record */
	struct buf params;
	struct buf head;   /* of the answer, before it is encoded */
	struct buf out;
	size_t out_at;     /* of out, written */
	struct view payload; /* what of the answer is not encoded yet */
	bool head_done;
	int64_t over_us;   /* when the answer has to be through */
	const struct response *response;
};

static void on_io(struct io *, unsigned events);
static void on_idle(struct timer *);
static void pump(struct peer *);

/* Something moved: idle_us from now, but an answer has its end. */
static void touch(struct peer *p)
{
	int64_t due = loop_now_us(p->loop) + p->options->idle_us;
	if (p->state == ANSWERING && p->over_us < due)
		due = p->over_us;
	loop_timer_set(p->loop, &p->idle, due);
}

struct peer *peer_create(struct loop *loop, int fd, const struct peer_owner *owner, const struct peer_options *options)
{
	struct peer *p = calloc(1, sizeof *p);
	if (!p) {
		close(fd);
		return NULL;
	}
	p->loop = loop;
	p->owner = owner;
	p->options = options;
	p->io.ready = on_io;
	p->idle.fire = on_idle;
	p->in = BUF(READ_BYTES + FASTCGI_WHOLE_BYTES);
	p->params = BUF(options->params_max_bytes);
	p->head = BUF(RESPONSE_HEAD_MAX * 2);
	p->out = BUF(OUT_LIMIT);
	if (loop_io_start(loop, &p->io, fd, LOOP_READ, false) < 0) {
		close(fd);
		free(p);
		return NULL;
	}
	touch(p);
	return p;
}

void peer_set_user(struct peer *p, void *user)
{
	p->user = user;
}

void *peer_user(const struct peer *p)
{
	return p->user;
}

bool peer_is_kept(const struct peer *p)
{
	return p->codec.keep_conn;
}

static void destroy(struct peer *p)
{
	int fd = p->io.fd;
	loop_io_stop(p->loop, &p->io);
	loop_timer_stop(p->loop, &p->idle);
	close(fd);
	if (p->state == RUNNING || p->state == ANSWERING)
		p->owner->aborted(p->owner->context, p);
	p->owner->closed(p->owner->context, p);
	buf_free(&p->in);
	buf_free(&p->params);
	buf_free(&p->head);
	buf_free(&p->out);
	free(p);
}

void peer_close(struct peer *p)
{
	if (p->busy)
		p->dead = true;
	else
		destroy(p);
}

/* --- reading --- */

static void begin(struct peer *p)
{
	p->state = PARAMS;
	p->stdin_done = p->params_over = p->head_done = false;
	p->response = NULL;
	p->payload = VIEW_NONE;
	buf_clear(&p->params);
	touch(p); /* once: they have to be there in that time, however they trickle */
}

static void params_piece(struct peer *p, struct view piece)
{
	buf_view_put(&p->params, piece);
	if (buf_failed(&p->params))
		p->params_over = true;
}

static void aborted(struct peer *p)
{
	if (p->state == RUNNING || p->state == ANSWERING)
		p->owner->aborted(p->owner->context, p);
	/* Nobody reads the rest of it; what is encoded already goes out, so that the records stay whole. */
	p->state = IDLE;
	p->response = NULL;
	p->payload = VIEW_NONE;
	touch(p);
	bool keep = p->codec.keep_conn;
	fastcgi_end(&p->codec, &p->out);
	p->closing |= !keep;
}

static void take_event(struct peer *p, const struct fastcgi_event *ev)
{
	switch (ev->kind) {
	case FASTCGI_BEGIN:
		begin(p);
		break;
	case FASTCGI_PARAMS:
		params_piece(p, ev->data);
		break;
	case FASTCGI_PARAMS_END:
		p->state = RUNNING;
		p->owner->request(p->owner->context, p, p->params_over ? VIEW_NONE : buf_view(&p->params));
		break;
	case FASTCGI_STDIN:
		touch(p);
		if (p->state == RUNNING)
			p->owner->body(p->owner->context, p, ev->data);
		break;
	case FASTCGI_STDIN_END:
		p->stdin_done = true;
		if (p->state == RUNNING)
			p->owner->body_end(p->owner->context, p);
		break;
	case FASTCGI_ABORT:
		aborted(p);
		break;
	case FASTCGI_BROKEN:
		p->dead = true;
		break;
	case FASTCGI_MORE:
	case FASTCGI_REPLY:
		break;
	}
}

/* Decodes what is there; what is left over is kept for the next piece. */
static void feed(struct peer *p, struct view in)
{
	while (!p->dead) {
		size_t consumed = 0;
		struct fastcgi_event ev = fastcgi_decode(&p->codec, in, &consumed, &p->out);
		if (ev.kind == FASTCGI_MORE) {
			in = view_skip(in, consumed);
			break;
		}
		take_event(p, &ev);
		in = view_skip(in, consumed);
	}
	if (in.n && p->in.n && in.p >= p->in.p && in.p < p->in.p + p->in.n) {
		buf_consume(&p->in, (size_t)(in.p - p->in.p)); /* it lies in the buffer already */
		return;
	}
	buf_clear(&p->in);
	if (in.n)
		buf_view_put(&p->in, in);
}

static void read_some(struct peer *p)
{
	char bytes[READ_BYTES];
	ssize_t n = recv(p->io.fd, bytes, sizeof bytes, 0);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
		p->dead = true;
		return;
	}
	if (n < 0)
		return;
	if (p->in.n == 0) {
		feed(p, view_make(bytes, (size_t)n));
		return;
	}
	buf_put(&p->in, bytes, (size_t)n);
	if (buf_failed(&p->in))
		p->dead = true;
	else
		feed(p, buf_view(&p->in));
}

/* --- writing --- */

/* An idle connection holds as little as one that never had a request. */
static void keep_little(struct buf *b)
{
	if (b->cap > KEEP_BYTES)
		buf_free(b);
}

static bool more_to_encode(const struct peer *p)
{
	return p->state == ANSWERING && (p->payload.n || !p->head_done);
}

/* Encodes the next window of the answer, and its end when all else is done. */
static void encode(struct peer *p)
{
	if (p->state != ANSWERING || p->out.n - p->out_at >= WINDOW)
		return;
	if (!p->head_done) {
		buf_clear(&p->head);
		response_head(p->response, &p->head);
		fastcgi_stdout(&p->codec, &p->out, buf_view(&p->head));
		p->head_done = true;
	}
	while (p->payload.n && p->out.n - p->out_at < WINDOW) {
		size_t n = p->payload.n < WINDOW / 2 ? p->payload.n : WINDOW / 2;
		fastcgi_stdout(&p->codec, &p->out, view_make(p->payload.p, n));
		p->payload = view_skip(p->payload, n);
	}
	if (p->payload.n || !p->stdin_done)
		return;
	p->closing |= !p->codec.keep_conn;
	fastcgi_end(&p->codec, &p->out);
	bool last = !p->closing && p->options->last && p->options->last(p->owner->context);
	if (last && p->options->trailer)
		fastcgi_trailer(&p->out);
	else
		p->closing |= last;
	p->state = IDLE;
	p->response = NULL;
	keep_little(&p->params);
	touch(p);
	p->owner->sent(p->owner->context, p);
}

static bool write_some(struct peer *p)
{
	while (p->out_at < p->out.n) {
		ssize_t n = send(p->io.fd, p->out.p + p->out_at, p->out.n - p->out_at, MSG_NOSIGNAL);
		if (n < 0) {
			if (errno != EAGAIN && errno != EINTR)
				p->dead = true;
			return false;
		}
		p->out_at += (size_t)n;
		touch(p);
	}
	buf_clear(&p->out);
	p->out_at = 0;
	return true;
}

/* Encodes and writes until the kernel takes no more, nothing is left, or it is the others' turn. */
static void pump(struct peer *p)
{
	int windows = 0;
	do {
		encode(p);
	} while (!p->dead && p->out.n && write_some(p) && more_to_encode(p) && ++windows < WINDOWS_AT_ONCE);
	/* Written bytes go to the front when much of the buffer is theirs. */
	if (p->out_at > WINDOW) {
		buf_consume(&p->out, p->out_at);
		p->out_at = 0;
	}
	if (buf_failed(&p->out))
		p->dead = true;
	if (p->state == IDLE && !p->out.n)
		keep_little(&p->out);
	if (!p->dead && loop_io_change(p->loop, &p->io, LOOP_READ | (p->out.n || more_to_encode(p) ? LOOP_WRITE : 0u)) < 0)
		p->dead = true;
}

static void settle(struct peer *p)
{
	pump(p);
	p->busy = false;
	if (p->dead || (p->closing && p->state == IDLE && !p->out.n))
		destroy(p);
}

static void on_io(struct io *io, unsigned events)
{
	struct peer *p = CONTAINER_OF(io, struct peer, io);
	p->busy = true;
	if (events & LOOP_READ)
		read_some(p);
	settle(p);
}

/* Silence is the request's own business while it runs: it has a deadline. Once it is answered, the end of a body that
 * does not come is not waited for. Otherwise the connection ends: it is idle, or its reader is too slow. */
static void on_idle(struct timer *t)
{
	struct peer *p = CONTAINER_OF(t, struct peer, idle);
	if (p->state == RUNNING) {
		touch(p);
	} else if (p->state == ANSWERING && !p->stdin_done && !p->out.n && !more_to_encode(p)) {
		p->busy = p->stdin_done = true;
		settle(p);
	} else {
		destroy(p);
	}
}

void peer_answer(struct peer *p, const struct response *r)
{
	p->response = r;
	p->payload = response_payload(r);
	p->state = ANSWERING;
	p->over_us = loop_now_us(p->loop) + p->options->idle_us +
		     (int64_t)(p->payload.n * 1000000 / p->options->slowest_bytes_s);
	/* Who was too slow to send it gets the answer, but is not waited for again. */
	p->stdin_done |= r->http == 408;
	touch(p);
	if (p->busy)
		return; /* settle() will write */
	p->busy = true;
	settle(p);
}

