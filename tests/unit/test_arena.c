#include "config.h"

#include "unit.h"

#include <stdalign.h>

static void memory_is_aligned_apart_and_writable(void **state)
{
	uint64_t seed = 1;
	struct {
		unsigned char *p;
		size_t n;
	} piece[500];
	for (size_t i = 0; i < ARRAY_LEN(piece); i++) {
		piece[i].n = (size_t)(draw(&seed) % (i % 50 ? 300 : 10000));
		piece[i].p = arena_alloc(*state, piece[i].n);
		assert_non_null(piece[i].p);
		assert_int_equal((uintptr_t)piece[i].p % alignof(max_align_t), 0);
		memset(piece[i].p, (int)(i & 0xff), piece[i].n);
	}
	for (size_t i = 0; i < ARRAY_LEN(piece); i++)
		for (size_t k = 0; k < piece[i].n; k++)
			assert_int_equal(piece[i].p[k], i & 0xff);
}

static void past_its_limit_it_is_full_until_reset(void **state)
{
	(void)state;
	struct arena *a = arena_create(1000);
	assert_non_null(arena_alloc(a, 900));
	assert_false(arena_full(a));
	assert_null(arena_alloc(a, 200));
	assert_true(arena_full(a));
	(void)!arena_alloc(a, 1);
	assert_true(arena_full(a)); /* a small one may fit, the mark stays */
	arena_reset(a);
	assert_false(arena_full(a));
	assert_int_equal(arena_used(a), 0);
	assert_non_null(arena_alloc(a, 1000));
	arena_destroy(a);
}

static void a_size_that_would_wrap_is_refused(void **state)
{
	assert_null(arena_alloc(*state, SIZE_MAX));
	assert_null(arena_alloc(*state, SIZE_MAX - 15));
	assert_true(arena_full(*state));
}

static void a_copy_is_terminated_and_independent(void **state)
{
	char text[] = "abc";
	struct view v = arena_copy(*state, view_make(text, 3));
	text[0] = 'x';
	assert_view(v, "abc");
	assert_int_equal(v.p[3], '\0');
	assert_view(arena_copy(*state, VIEW("")), "");
	assert_absent(arena_copy(*state, VIEW_NONE));
}

static void formatted_text_fits_exactly(void **state)
{
	assert_view(arena_printf(*state, "%s=%d", "answer", 42), "answer=42");
	assert_view(arena_printf(*state, "%s", ""), "");
	struct view longer = arena_printf(*state, "%10000d", 7);
	assert_int_equal(longer.n, 10000);
	assert_int_equal(longer.p[9999], '7');
}

static void a_full_arena_gives_absent_text(void **state)
{
	(void)state;
	struct arena *a = arena_create(8);
	assert_absent(arena_copy(a, VIEW("more than eight")));
	assert_absent(arena_printf(a, "%s", "more than eight"));
	assert_null(arena_zero(a, 9));
	assert_true(arena_full(a));
	arena_destroy(a);
}

static void zeroed_memory_is_zero_even_when_reused(void **state)
{
	memset(arena_alloc(*state, 64), 0xff, 64);
	arena_reset(*state);
	unsigned char *p = arena_zero(*state, 64);
	for (size_t i = 0; i < 64; i++)
		assert_int_equal(p[i], 0);
}

static void destroying_none_is_nothing(void **state)
{
	(void)state;
	arena_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		arena_test(memory_is_aligned_apart_and_writable),
		cmocka_unit_test(past_its_limit_it_is_full_until_reset),
		arena_test(a_size_that_would_wrap_is_refused),
		arena_test(a_copy_is_terminated_and_independent),
		arena_test(formatted_text_fits_exactly),
		cmocka_unit_test(a_full_arena_gives_absent_text),
		arena_test(zeroed_memory_is_zero_even_when_reused),
		cmocka_unit_test(destroying_none_is_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
