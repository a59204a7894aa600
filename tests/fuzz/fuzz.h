/* fuzz: what the fuzzers share. */
#ifndef COMPOSURE_FUZZ_H
#define COMPOSURE_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/view.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* An assertion that NDEBUG does not take away. */
#define must(condition)                                                                                                \
	do {                                                                                                           \
		if (!(condition)) {                                                                                    \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                \
			abort();                                                                                       \
		}                                                                                                      \
	} while (0)

/* A copy in memory of its own and of its exact size, so that a sanitizer sees one byte too far. */
static inline struct view exact_copy(struct view v)
{
	char *p = malloc(v.n + !v.n);
	if (!p)
		abort();
	if (v.n)
		memcpy(p, v.p, v.n);
	return view_make(p, v.n);
}

static inline void exact_free(struct view v)
{
	free((char *)(uintptr_t)v.p);
}

/* A repeatable pseudo-random number (xorshift64); the state must not be 0. */
static inline uint64_t fuzz_draw(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

#endif
