#include "config.h"

#include "folder.h"

#include "cache/generation.h"

static struct watch *a, *b;

static int open_two(void **state)
{
	if (new_folder(state))
		return -1;
	a = watch_open(folder, "0123456789abcdef");
	b = watch_open(folder, "0123456789abcdef");
	return a && b ? 0 : -1;
}

static int close_two(void **state)
{
	watch_close(a);
	watch_close(b);
	return remove_folder(state);
}

static void a_bump_is_seen_by_all_and_by_its_tag_alone(void **state)
{
	(void)state;
	uint64_t one = generation_tag(VIEW("key"), VIEW("one")), two = generation_tag(VIEW("key"), VIEW("two"));
	struct generation before = generation_read(b, one), other_before = generation_read(b, two);
	generation_bump(a, one, GENERATION_SOFT);
	struct generation soft = generation_read(b, one);
	assert_int_equal(soft.hard, before.hard);
	assert_int_not_equal(soft.soft, before.soft);
	generation_bump(a, one, GENERATION_HARD);
	struct generation hard = generation_read(b, one);
	assert_int_not_equal(hard.hard, soft.hard);
	assert_int_not_equal(hard.soft, soft.soft);
	struct generation other_after = generation_read(b, two);
	assert_memory_equal(&other_after, &other_before, sizeof other_after);
}

static void everything_is_every_tag(void **state)
{
	(void)state;
	uint64_t tag = generation_tag(VIEW("resource"), VIEW("users"));
	struct generation before = generation_read(b, tag);
	generation_bump_all(a, GENERATION_SOFT);
	struct generation after = generation_read(b, tag);
	assert_int_equal(after.hard, before.hard);
	assert_int_not_equal(after.soft, before.soft);
	generation_bump_all(a, GENERATION_HARD);
	assert_int_not_equal(generation_read(b, tag).hard, after.hard);
	assert_int_not_equal(generation_read(b, tag).soft, after.soft);
}

static void kind_and_name_are_kept_apart(void **state)
{
	(void)state;
	assert_true(generation_tag(VIEW("ab"), VIEW("c")) != generation_tag(VIEW("a"), VIEW("bc")));
	assert_true(generation_tag(VIEW("a"), VIEW("")) != generation_tag(VIEW(""), VIEW("a")));
}

static void sums_that_wrap_still_differ(void **state)
{
	(void)state;
	uint64_t tag = generation_tag(VIEW("a"), VIEW("b"));
	watch_counter_all(a)->both = UINT64_MAX - 1;
	for (int i = 0; i < 4; i++) {
		struct generation before = generation_read(a, tag);
		if (i & 1)
			generation_bump_all(a, GENERATION_HARD);
		else
			generation_bump(a, tag, GENERATION_HARD);
		assert_int_not_equal(generation_read(a, tag).hard, before.hard);
	}
}

#define two_test(f) cmocka_unit_test_setup_teardown(f, open_two, close_two)

int main(void)
{
	const struct CMUnitTest tests[] = {
		two_test(a_bump_is_seen_by_all_and_by_its_tag_alone),
		two_test(everything_is_every_tag),
		two_test(kind_and_name_are_kept_apart),
		two_test(sums_that_wrap_still_differ),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
