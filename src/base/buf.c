#include "config.h"

#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { SMALLEST = 256 };

void buf_free(struct buf *b)
{
	free(b->p);
	*b = BUF(b->limit);
}

bool buf_grow(struct buf *b, size_t n)
{
	if (b->failed || n > b->limit || b->n > b->limit - n) {
		b->failed = true;
		return false;
	}
	size_t cap = b->cap ? b->cap : SMALLEST;
	while (cap < b->n + n)
		cap *= 2;
	if (cap > b->limit)
		cap = b->limit; /* so that appending within cap needs no look at the limit */
	char *p = realloc(b->p, cap);
	if (!p) {
		b->failed = true;
		return false;
	}
	b->p = p;
	b->cap = cap;
	return true;
}

struct view decimal(uint64_t v, char room[DECIMAL_MAX])
{
	size_t at = DECIMAL_MAX;
	do {
		room[--at] = (char)('0' + v % 10);
		v /= 10;
	} while (v);
	return view_make(room + at, DECIMAL_MAX - at);
}

void buf_u64(struct buf *b, uint64_t v)
{
	char room[DECIMAL_MAX];
	buf_view_put(b, decimal(v, room));
}

void buf_i64(struct buf *b, int64_t v)
{
	if (v < 0)
		buf_putc(b, '-');
	buf_u64(b, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	char *at = n < 0 ? NULL : buf_reserve(b, (size_t)n + 1);
	if (!at)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(at, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->n += (size_t)n;
}

void buf_consume(struct buf *b, size_t n)
{
	if (n && b->n > n)
		memmove(b->p, b->p + n, b->n - n);
	b->n -= n;
}
