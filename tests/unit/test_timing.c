#include "config.h"

#include "unit.h"

#include "http/timing.h"

static void a_timeout_is_seconds_or_milliseconds(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int64_t us;
	} good[] = {
		{ "1", 1000000 }, { "2.5", 2500000 }, { " 3s ", 3000000 }, { "300ms", 300000 }, { "0.25", 250000 }, { "1.5ms", 1500 },
		{ "0.0000019", 1 },
	};
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		int64_t us = 0;
		assert_true(timing_timeout(view_of(good[i].text), &us));
		assert_int_equal(us, good[i].us);
	}
}

static void what_is_no_timeout_is_told(void **state)
{
	(void)state;
	static const char *const bad[] = { "", "s", "ms", "-1", "+1", "1m", "1 s", "0", "0.0", ".5", "1.", "1e3", "99999999999999999999",
		                           "2000000000", "1,5", "0.1us" };
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		int64_t us = 7;
		assert_false(timing_timeout(view_of(bad[i]), &us));
		assert_int_equal(us, 7);
	}
}

static void an_instant_comes_in_three_units(void **state)
{
	(void)state;
	static const char *const same[] = { "t=1700000000.123456", "1700000000.123456", "t=1700000000123456", "1700000000123456" };
	int64_t us = 0;
	for (size_t i = 0; i < ARRAY_LEN(same); i++) {
		assert_true(timing_instant(view_of(same[i]), &us));
		assert_int_equal(us, 1700000000123456);
	}
	assert_true(timing_instant(VIEW("1700000000123"), &us));
	assert_int_equal(us, 1700000000123000);
	assert_true(timing_instant(VIEW("t=1700000000.123"), &us));
	assert_int_equal(us, 1700000000123000);
}

static void what_is_no_instant_is_told(void **state)
{
	(void)state;
	static const char *const bad[] = { "", "t=", "t=now", "17", "t=-1700000000", "1700000000s", "170000000000000000000", "999999999" };
	int64_t us = 7;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(timing_instant(view_of(bad[i]), &us));
	assert_int_equal(us, 7);
}

static void what_waited_too_long_or_comes_from_the_future_is_a_wrong_clock(void **state)
{
	(void)state;
	static const int64_t now = 1700000000000000, second = 1000000;
	int64_t us = 7;
	assert_true(timing_waited(now - 3 * second, now, &us));
	assert_int_equal(us, 3 * second);
	assert_true(timing_waited(now - 600 * second, now, &us));
	assert_int_equal(us, 600 * second);
	assert_true(timing_waited(now + 2 * second, now, &us));
	assert_int_equal(us, 0);
	assert_false(timing_waited(now - 601 * second, now, &us));
	assert_false(timing_waited(now + 61 * second, now, &us));
	assert_int_equal(us, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_timeout_is_seconds_or_milliseconds),
		cmocka_unit_test(what_is_no_timeout_is_told),
		cmocka_unit_test(an_instant_comes_in_three_units),
		cmocka_unit_test(what_is_no_instant_is_told),
		cmocka_unit_test(what_waited_too_long_or_comes_from_the_future_is_a_wrong_clock),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
