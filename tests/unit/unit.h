/* unit: cmocka, and views in its assertions. */
#ifndef COMPOSURE_UNIT_H
#define COMPOSURE_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/view.h"

#define assert_view(v, text) assert_views((v), VIEW(text), __FILE__, __LINE__)
#define assert_same_view(a, b) assert_views((a), (b), __FILE__, __LINE__)
#define assert_absent(v) assert_null((v).p)

static inline void assert_views(struct view got, struct view expected, const char *file, int line)
{
	if (got.p && view_eq(got, expected))
		return;
	print_error("got      \"%.*s\"%s\nexpected \"%.*s\"\n", VIEW_ARG(got), got.p ? "" : " (absent)",
		VIEW_ARG(expected));
	_fail(file, line);
}

/* A repeatable pseudo-random number (xorshift64). */
static inline uint64_t draw(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static inline int new_arena(void **state)
{
	*state = arena_create((size_t)16 << 20);
	return *state ? 0 : -1;
}

static inline int free_arena(void **state)
{
	arena_destroy(*state);
	return 0;
}

/* A test whose *state is a fresh arena. */
#define arena_test(f) cmocka_unit_test_setup_teardown(f, new_arena, free_arena)

#endif
