#include "config.h"

#include "unit.h"

#include "db/rows.h"
#include "results.h"

static void integers_are_read_from_their_bytes(void **state)
{
	(void)state;
	assert_int_equal(rows_int(VIEW("\x00")), 0);
	assert_int_equal(rows_int(VIEW("\xff")), -1);
	assert_int_equal(rows_int(VIEW("\x80\x00")), INT16_MIN);
	assert_int_equal(rows_int(VIEW("\x7f\xff")), INT16_MAX);
	assert_int_equal(rows_int(VIEW("\x80\x00\x00\x00")), INT32_MIN);
	assert_int_equal(rows_int(VIEW("\x00\x00\x00\x80")), 128);
	assert_true(rows_int(VIEW("\x80\x00\x00\x00\x00\x00\x00\x00")) == INT64_MIN);
	assert_true(rows_int(VIEW("\x7f\xff\xff\xff\xff\xff\xff\xff")) == INT64_MAX);
}

static void other_lengths_are_zero(void **state)
{
	(void)state;
	assert_int_equal(rows_int(VIEW_NONE), 0);
	assert_int_equal(rows_int(VIEW("")), 0);
	assert_int_equal(rows_int(VIEW("\x01\x01\x01")), 0);
	assert_int_equal(rows_int(VIEW("\x01\x01\x01\x01\x01\x01\x01\x01\x01")), 0);
}

static void values_are_views_and_null_is_absent(void **state)
{
	(void)state;
	const char *cells[] = { "one", NULL, "", "two" };
	struct rows *r = text_result(2, 2, cells);
	assert_int_equal(rows_count(r), 2);
	assert_int_equal(rows_columns(r), 2);
	assert_view(rows_value(r, 0, 0), "one");
	assert_absent(rows_value(r, 0, 1));
	assert_view(rows_value(r, 1, 0), "");
	assert_view(rows_value(r, 1, 1), "two");
	assert_int_equal(rows_affected(r), 0);
	rows_free(r);
}

static void none_can_be_freed(void **state)
{
	(void)state;
	rows_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(integers_are_read_from_their_bytes),
		cmocka_unit_test(other_lengths_are_zero),
		cmocka_unit_test(values_are_views_and_null_is_absent),
		cmocka_unit_test(none_can_be_freed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
