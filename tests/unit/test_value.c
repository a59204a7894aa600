#include "config.h"

#include "unit.h"

#include "query/value.h"

static bool may_be(uint32_t oid, const char *text)
{
	return value_may_be(&(struct column){ .base_oid = oid }, view_of(text));
}

static void integers_have_the_bounds_of_their_type(void **state)
{
	(void)state;
	assert_true(may_be(21, "32767") && may_be(21, "-32768") && may_be(21, "+7"));
	assert_false(may_be(21, "32768") || may_be(21, "-32769"));
	assert_true(may_be(23, "2147483647") && may_be(23, "-2147483648"));
	assert_false(may_be(23, "2147483648") || may_be(23, "-2147483649"));
	assert_true(may_be(20, "9223372036854775807") && may_be(20, "-9223372036854775808") && may_be(20, "000000000000000000000001"));
	assert_false(may_be(20, "9223372036854775808") || may_be(20, "-9223372036854775809"));
	assert_false(may_be(23, "") || may_be(23, "-") || may_be(23, "1.0") || may_be(23, "1e3") || may_be(23, " 1") || may_be(23, "0x1"));
}

static void numbers_are_digits_or_words(void **state)
{
	static const char *const good[] = { "1", "-1.5", ".5", "5.", "1e10", "1.5E-3", "NaN", "-infinity", "+Inf" };
	static const char *const bad[] = { "", ".", "-", "1.2.3", "e5", "1e", "1e+", "1x", "nan1", "1_0" };
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		assert_true(may_be(1700, good[i]));
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(may_be(1700, bad[i]));
}

static void a_uuid_has_32_digits(void **state)
{
	(void)state;
	assert_true(may_be(2950, "00000000-0000-0000-0000-00000000000a"));
	assert_true(may_be(2950, "{0000000000000000000000000000000A}"));
	assert_false(may_be(2950, "00000000-0000-0000-0000-00000000000") || may_be(2950, "x") || may_be(2950, ""));
	assert_false(may_be(2950, "00000000--0000-0000-0000-00000000000a"));
}

static void of_other_types_postgresql_judges(void **state)
{
	(void)state;
	assert_true(may_be(25, "") && may_be(1082, "no date"));
}

static void elements_of_an_array_are_quoted(void **state)
{
	struct view items[] = { VIEW("a,b"), VIEW("\"\\"), VIEW(""), VIEW("NULL"), VIEW("{}") };
	assert_view(value_array(*state, items, 5), "{\"a,b\",\"\\\"\\\\\",\"\",\"NULL\",\"{}\"}");
	assert_view(value_array(*state, NULL, 0), "{}");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(integers_have_the_bounds_of_their_type),
		cmocka_unit_test(numbers_are_digits_or_words),
		cmocka_unit_test(a_uuid_has_32_digits),
		cmocka_unit_test(of_other_types_postgresql_judges),
		arena_test(elements_of_an_array_are_quoted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
