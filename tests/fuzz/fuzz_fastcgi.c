/* The first byte says how the rest is cut into pieces. Whole and cut must give the same events, replies and state; what
 * is consumed must be there; no event may come out of order. */
#include "config.h"

#include "fuzz.h"

#include "http/fastcgi.h"

struct run {
	struct fastcgi codec;
	struct buf events; /* kinds, and the bytes of the streams; neighbouring pieces joined */
	struct buf reply;
	enum fastcgi_event_kind last;
	bool running, params_done, stdin_done, broken;
};

static void check_order(struct run *r, enum fastcgi_event_kind kind)
{
	switch (kind) {
	case FASTCGI_BEGIN:
		must(!r->running);
		r->running = true;
		r->params_done = r->stdin_done = false;
		break;
	case FASTCGI_PARAMS: must(r->running && !r->params_done); break;
	case FASTCGI_PARAMS_END:
		must(r->running && !r->params_done);
		r->params_done = true;
		break;
	case FASTCGI_STDIN: must(r->running && r->params_done && !r->stdin_done); break;
	case FASTCGI_STDIN_END:
		must(r->running && r->params_done && !r->stdin_done);
		r->stdin_done = true;
		break;
	case FASTCGI_ABORT: must(r->running); break;
	case FASTCGI_BROKEN: r->broken = true; break;
	case FASTCGI_REPLY:
	case FASTCGI_MORE: break;
	}
}

static void note(struct run *r, struct fastcgi_event e)
{
	check_order(r, e.kind);
	bool data = e.kind == FASTCGI_PARAMS || e.kind == FASTCGI_STDIN;
	must((e.data.n > 0) == data);
	if (!data || e.kind != r->last)
		buf_putc(&r->events, (char)('A' + e.kind));
	buf_view_put(&r->events, e.data.p ? e.data : VIEW(""));
	r->last = e.kind;
	if (e.kind == FASTCGI_STDIN_END || e.kind == FASTCGI_ABORT) {
		fastcgi_end(&r->codec, &r->reply);
		r->running = false;
	}
}

/* Decodes what is held until it asks for more; returns how much is left of it. */
static void decode_held(struct run *r, struct buf *held)
{
	while (!r->broken) {
		size_t n_reply = r->reply.n, consumed = SIZE_MAX;
		struct view in = exact_copy(buf_view(held));
		struct fastcgi_event e = fastcgi_decode(&r->codec, in, &consumed, &r->reply);
		must(consumed <= in.n);
		must((e.kind == FASTCGI_REPLY) == (r->reply.n > n_reply));
		must(e.data.n == 0 || (e.data.p >= in.p && e.data.p + e.data.n <= in.p + consumed));
		if (e.kind != FASTCGI_MORE)
			note(r, e);
		exact_free(in);
		buf_consume(held, consumed);
		if (e.kind == FASTCGI_MORE)
			break;
		must(consumed > 0 || r->broken);
	}
	must(r->broken || held->n < FASTCGI_WHOLE_BYTES);
}

static struct run run(struct view in, uint64_t seed)
{
	struct run r = { .events = BUF(8 << 20), .reply = BUF(8 << 20) };
	struct buf held = BUF(8 << 20);
	while (in.n && !r.broken) {
		size_t n = seed ? 1 + (size_t)(fuzz_draw(&seed) % 30) : in.n;
		n = n < in.n ? n : in.n;
		buf_put(&held, in.p, n);
		in = view_skip(in, n);
		decode_held(&r, &held);
	}
	buf_free(&held);
	return r;
}

static void check_pairs(struct view stream)
{
	struct view rest = stream, name, value;
	bool broken = false;
	while (fastcgi_pair(&rest, &name, &value, &broken)) {
		must(name.p >= stream.p && name.p + name.n == value.p);
		must(value.p + value.n == rest.p && rest.p + rest.n == stream.p + stream.n);
	}
	must(broken == (rest.n > 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	if (n == 0)
		return 0;
	struct view in = exact_copy(view_make((const char *)data + 1, n - 1));
	struct run whole = run(in, 0), cut = run(in, (uint64_t)data[0] * 2 + 1);
	must(view_eq(buf_view(&whole.events), buf_view(&cut.events)));
	must(view_eq(buf_view(&whole.reply), buf_view(&cut.reply)));
	must(whole.broken == cut.broken && whole.running == cut.running && whole.codec.id == cut.codec.id);
	check_pairs(in);
	buf_free(&whole.events);
	buf_free(&whole.reply);
	buf_free(&cut.events);
	buf_free(&cut.reply);
	exact_free(in);
	return 0;
}
