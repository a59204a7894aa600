/* Blocks of at least 4 KiB in a list, newest first; the first one lives as long as the arena, so that an exchange of
 * usual size asks malloc for nothing. */
#include "config.h"

#include "base/arena.h"

#include <stdalign.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { BLOCK_BYTES = 4096, ALIGN = alignof(max_align_t) };

struct block {
	struct block *older;
	size_t size;
	size_t used;
	alignas(max_align_t) char data[];
};

struct arena {
	struct block *newest;
	size_t limit;
	size_t used;
	bool full;
};

static struct block *block_create(size_t size)
{
	struct block *b = malloc(sizeof *b + size);
	if (b)
		*b = (struct block){ .size = size };
	return b;
}

struct arena *arena_create(size_t limit_bytes)
{
	struct arena *a = malloc(sizeof *a);
	struct block *b = block_create(BLOCK_BYTES);
	if (!a || !b) {
		free(a);
		free(b);
		return NULL;
	}
	*a = (struct arena){ .newest = b, .limit = limit_bytes };
	return a;
}

void arena_destroy(struct arena *a)
{
	if (!a)
		return;
	for (struct block *b = a->newest, *older; b; b = older) {
		older = b->older;
		free(b);
	}
	free(a);
}

void arena_reset(struct arena *a)
{
	while (a->newest->older) {
		struct block *b = a->newest;
		a->newest = b->older;
		free(b);
	}
	a->newest->used = 0;
	a->used = 0;
	a->full = false;
}

void *arena_alloc(struct arena *a, size_t n)
{
	if (n > a->limit || a->used > a->limit - n)
		goto full;
	size_t rounded = (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
	struct block *b = a->newest;
	if (b->size - b->used < rounded) {
		struct block *fresh = block_create(rounded > BLOCK_BYTES ? rounded : BLOCK_BYTES);
		if (!fresh)
			goto full;
		fresh->older = b;
		a->newest = b = fresh;
	}
	void *p = b->data + b->used;
	b->used += rounded;
	a->used += rounded;
	return p;
full:
	a->full = true;
	return NULL;
}

void *arena_zero(struct arena *a, size_t n)
{
	void *p = arena_alloc(a, n);
	if (p)
		memset(p, 0, n);
	return p;
}

struct view arena_copy(struct arena *a, struct view v)
{
	char *p = v.p ? arena_alloc(a, v.n + 1) : NULL;
	if (!p)
		return VIEW_NONE;
	if (v.n)
		memcpy(p, v.p, v.n);
	p[v.n] = '\0';
	return view_make(p, v.n);
}

struct view arena_printf(struct arena *a, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	char *p = n < 0 ? NULL : arena_alloc(a, (size_t)n + 1);
	if (!p)
		return VIEW_NONE;
	va_start(ap, fmt);
	(void)vsnprintf(p, (size_t)n + 1, fmt, ap);
	va_end(ap);
	return view_make(p, (size_t)n);
}

bool arena_full(const struct arena *a)
{
	return a->full;
}

size_t arena_used(const struct arena *a)
{
	return a->used;
}
