#include "config.h"

#include "unit.h"

static void text_grows_and_stays_whole(void **state)
{
	(void)state;
	struct buf b = BUF(1 << 20);
	for (int i = 0; i < 10000; i++)
		buf_printf(&b, "%05d ", i);
	assert_false(buf_failed(&b));
	assert_int_equal(b.n, 60000);
	assert_memory_equal(b.p + 6 * 1234, "01234 ", 6);
	buf_free(&b);
}

static void the_limit_holds_to_the_byte(void **state)
{
	(void)state;
	struct buf b = BUF(10);
	buf_lit(&b, "0123456789");
	assert_false(buf_failed(&b));
	buf_putc(&b, 'x');
	assert_true(buf_failed(&b));
	assert_view(buf_view(&b), "0123456789");
	buf_free(&b);
}

static void once_marked_it_takes_nothing_more(void **state)
{
	(void)state;
	struct buf b = BUF(10);
	buf_lit(&b, "01234");
	buf_lit(&b, "too much for it");
	buf_lit(&b, "5");
	assert_view(buf_view(&b), "01234"); /* no text with a hole in it */
	assert_true(buf_failed(&b));
	buf_clear(&b);
	assert_false(buf_failed(&b));
	buf_lit(&b, "again");
	assert_view(buf_view(&b), "again");
	buf_free(&b);
}

static void zeroed_it_is_a_buf_that_takes_nothing(void **state)
{
	(void)state;
	struct buf b = { 0 };
	assert_view(buf_view(&b), "");
	buf_put(&b, NULL, 0);
	assert_false(buf_failed(&b));
	buf_putc(&b, 'x');
	assert_true(buf_failed(&b));
	buf_free(&b);
}

static void numbers_are_written_to_their_extremes(void **state)
{
	(void)state;
	struct buf b = BUF(1000);
	buf_u64(&b, 0);
	buf_putc(&b, ' ');
	buf_u64(&b, UINT64_MAX);
	buf_putc(&b, ' ');
	buf_i64(&b, INT64_MIN);
	buf_putc(&b, ' ');
	buf_i64(&b, INT64_MAX);
	assert_view(buf_view(&b), "0 18446744073709551615 -9223372036854775808 9223372036854775807");
	buf_free(&b);
}

static void consuming_moves_the_rest_to_the_front(void **state)
{
	(void)state;
	struct buf b = BUF(100);
	buf_lit(&b, "abcdef");
	buf_consume(&b, 0);
	buf_consume(&b, 2);
	assert_view(buf_view(&b), "cdef");
	buf_consume(&b, 4);
	assert_view(buf_view(&b), "");
	buf_free(&b);
}

static void reserved_room_may_be_left_unused(void **state)
{
	(void)state;
	struct buf b = BUF(100);
	char *at = buf_reserve(&b, 50);
	memcpy(at, "abc", 3);
	buf_advance(&b, 3);
	assert_view(buf_view(&b), "abc");
	assert_null(buf_reserve(&b, 98));
	assert_true(buf_failed(&b));
	buf_free(&b);
}

static void freed_it_is_usable_with_the_same_limit(void **state)
{
	(void)state;
	struct buf b = BUF(4);
	buf_lit(&b, "12345");
	buf_free(&b);
	assert_false(buf_failed(&b));
	buf_lit(&b, "1234");
	assert_view(buf_view(&b), "1234");
	buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_grows_and_stays_whole),
		cmocka_unit_test(the_limit_holds_to_the_byte),
		cmocka_unit_test(once_marked_it_takes_nothing_more),
		cmocka_unit_test(zeroed_it_is_a_buf_that_takes_nothing),
		cmocka_unit_test(numbers_are_written_to_their_extremes),
		cmocka_unit_test(consuming_moves_the_rest_to_the_front),
		cmocka_unit_test(reserved_room_may_be_left_unused),
		cmocka_unit_test(freed_it_is_usable_with_the_same_limit),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
