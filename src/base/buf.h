/* buf: the one growing text.
 *
 * Grows by doubling up to a limit. Past the limit, or when malloc fails, it takes nothing more and is marked: append
 * freely and look at buf_failed() once, at the end; what was in it stays readable. Zero-initialised with a limit is a
 * valid empty buf: struct buf b = BUF(64 * 1024);
 */
#ifndef COMPOSURE_BUF_H
#define COMPOSURE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attributes.h"
#include "base/view.h"

struct buf {
	char *p; /* owned; NULL while empty */
	size_t n;
	size_t cap;
	size_t limit;
	bool failed;
};

#define BUF(limit_bytes) ((struct buf){ .limit = (limit_bytes) })

/* Frees the memory; the buf is then empty, unmarked and usable, with the same limit. */
void buf_free(struct buf *);

/* Empty and unmarked; keeps the memory. */
static inline void buf_clear(struct buf *b)
{
	b->n = 0;
	b->failed = false;
}

static inline bool buf_failed(const struct buf *b)
{
	return b->failed;
}

static inline struct view buf_view(const struct buf *b)
{
	return view_make(b->p ? b->p : "", b->n);
}

bool buf_grow(struct buf *, size_t n_bytes);

/* Room for n more bytes at the end, to be written by the caller and then counted with buf_advance(); NULL when
 * marked. Valid until the next call that appends. */
static inline char *buf_reserve(struct buf *b, size_t n)
{
	if ((b->failed || b->cap - b->n < n) && !buf_grow(b, n))
		return NULL;
	return b->p + b->n;
}

static inline void buf_advance(struct buf *b, size_t n)
{
	b->n += n;
}

static inline void buf_put(struct buf *b, const void *p, size_t n)
{
	char *at = n ? buf_reserve(b, n) : NULL;
	if (at) {
		memcpy(at, p, n);
		b->n += n;
	}
}

static inline void buf_putc(struct buf *b, char c)
{
	char *at = buf_reserve(b, 1);
	if (at) {
		*at = c;
		b->n++;
	}
}

static inline void buf_view_put(struct buf *b, struct view v)
{
	buf_put(b, v.p, v.n);
}

#define buf_lit(b, lit) buf_put((b), "" lit, sizeof(lit) - 1)

/* The digits of a number, in the room given; what snprintf() takes ten times as long for. */
enum { DECIMAL_MAX = 20 };
struct view decimal(uint64_t, char room[DECIMAL_MAX]);

void buf_u64(struct buf *, uint64_t);
void buf_i64(struct buf *, int64_t);
void buf_printf(struct buf *, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* The first n bytes go; the rest moves to the front. n must not exceed what is there. */
void buf_consume(struct buf *, size_t n);

#endif
