#include "config.h"

#include "unit.h"

static void absent_is_not_empty(void **state)
{
	(void)state;
	assert_null(VIEW_NONE.p);
	assert_non_null(VIEW("").p);
	assert_null(view_of(NULL).p);
	assert_true(view_eq(VIEW_NONE, VIEW("")));
}

static void split_gives_every_part_and_then_none(void **state)
{
	(void)state;
	struct view rest = VIEW("a,,b,"), part;
	assert_true(view_split(&rest, ',', &part));
	assert_view(part, "a");
	assert_true(view_split(&rest, ',', &part));
	assert_view(part, "");
	assert_true(view_split(&rest, ',', &part));
	assert_view(part, "b");
	assert_true(view_split(&rest, ',', &part));
	assert_view(part, "");
	assert_false(view_split(&rest, ',', &part));
}

static void split_of_an_absent_view_gives_nothing(void **state)
{
	(void)state;
	struct view rest = VIEW_NONE, part = VIEW("untouched");
	assert_false(view_split(&rest, ',', &part));
	assert_view(part, "untouched");
}

static void split_of_an_empty_view_gives_one_empty_part(void **state)
{
	(void)state;
	struct view rest = VIEW(""), part;
	assert_true(view_split(&rest, ',', &part));
	assert_view(part, "");
	assert_false(view_split(&rest, ',', &part));
}

static void case_is_ignored_for_ascii_only(void **state)
{
	(void)state;
	assert_true(view_ieq(VIEW("Content-Type"), VIEW("cOnTENT-tYPE")));
	assert_false(view_ieq(VIEW("Content-Type"), VIEW("Content-Typ")));
	assert_false(view_ieq(VIEW("\xc3\x84"), VIEW("\xc3\xa4")));
	assert_false(view_ieq(VIEW("["), VIEW("{"))); /* 32 apart, as 'A' and 'a' are */
	assert_false(view_ieq(VIEW("@"), VIEW("`")));
}

static void trim_takes_blanks_and_tabs_from_the_ends_only(void **state)
{
	(void)state;
	assert_view(view_trim(VIEW(" \t a b\t ")), "a b");
	assert_view(view_trim(VIEW(" \t ")), "");
	assert_view(view_trim(VIEW("\na")), "\na");
}

static void order_is_that_of_bytes_with_the_prefix_first(void **state)
{
	(void)state;
	assert_true(view_cmp(VIEW("a"), VIEW("ab")) < 0);
	assert_true(view_cmp(VIEW("b"), VIEW("ab")) > 0);
	assert_true(view_cmp(VIEW("\x7f"), VIEW("\x80")) < 0);
	assert_int_equal(view_cmp(VIEW("ab"), VIEW("ab")), 0);
	assert_int_equal(view_cmp(VIEW_NONE, VIEW("")), 0);
}

static void starts_is_true_of_a_prefix(void **state)
{
	(void)state;
	assert_true(view_starts(VIEW("/api/x"), VIEW("/api")));
	assert_true(view_starts(VIEW("x"), VIEW("")));
	assert_false(view_starts(VIEW("/ap"), VIEW("/api")));
	assert_false(view_starts(VIEW("/apj"), VIEW("/api")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(absent_is_not_empty),
		cmocka_unit_test(split_gives_every_part_and_then_none),
		cmocka_unit_test(split_of_an_absent_view_gives_nothing),
		cmocka_unit_test(split_of_an_empty_view_gives_one_empty_part),
		cmocka_unit_test(case_is_ignored_for_ascii_only),
		cmocka_unit_test(trim_takes_blanks_and_tabs_from_the_ends_only),
		cmocka_unit_test(order_is_that_of_bytes_with_the_prefix_first),
		cmocka_unit_test(starts_is_true_of_a_prefix),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
