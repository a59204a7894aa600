#include "config.h"

#include "unit.h"

#include "http/media.h"

static const struct view offered[] = { VIEW_INIT("application/json"), VIEW_INIT("text/csv"), VIEW_INIT("text/plain") };

static int choose(const char *accept)
{
	return media_choose(view_of(accept), offered, ARRAY_LEN(offered));
}

static void without_accept_the_first_is_chosen(void **state)
{
	(void)state;
	assert_int_equal(choose(NULL), 0);
	assert_int_equal(choose(""), 0);
	assert_int_equal(choose(" , ,"), 0);
	assert_int_equal(choose("*/*"), 0);
}

static void the_highest_weight_wins_and_of_equals_the_first_offered(void **state)
{
	(void)state;
	assert_int_equal(choose("text/csv"), 1);
	assert_int_equal(choose("text/csv, application/json"), 0);
	assert_int_equal(choose("application/json;q=0.5, text/csv;q=0.501"), 1);
	assert_int_equal(choose("application/json;q=0.9,text/csv;q=1.000"), 1);
	assert_int_equal(choose("text/plain;q=0.1"), 2);
	assert_int_equal(choose("TEXT/CSV"), 1);
	assert_int_equal(choose("text/csv;Q=0.2, */*;q=0.1"), 1);
}

static void the_more_specific_range_wins_over_wildcards(void **state)
{
	(void)state;
	assert_int_equal(choose("text/*"), 1);
	assert_int_equal(choose("text/*, text/csv;q=0"), 2);
	assert_int_equal(choose("*/*, application/json;q=0.1"), 1);
	assert_int_equal(choose("application/json;q=0, */*"), 1);
	assert_int_equal(choose("*/*;q=0.1, text/*;q=0.2, text/csv;q=0.15"), 2);
	assert_int_equal(choose("text/*;q=0, */*;q=0.5"), 0);
}

static void what_is_not_accepted_is_not_chosen(void **state)
{
	(void)state;
	assert_int_equal(choose("image/png"), -1);
	assert_int_equal(choose("image/*, application/xml"), -1);
	assert_int_equal(choose("application/json;q=0, text/*;q=0.0"), -1);
	assert_int_equal(choose("*/*;q=0"), -1);
	assert_int_equal(choose("application/jso, application/jsonx"), -1);
	assert_int_equal(media_choose(VIEW("*/*"), offered, 0), -1);
}

static void parameters_other_than_the_weight_are_ignored(void **state)
{
	(void)state;
	assert_int_equal(choose("text/csv;header=present;q=0.5, application/json;q=0.4"), 1);
	assert_int_equal(choose("text/csv;x=\"a,b;q=0\\\"\";q=1, application/json;q=0.4"), 1);
	assert_int_equal(choose("text/csv ; charset=utf-8 ; q=1, application/json;q=0.4"), 1);
}

static void malformed_elements_are_ignored(void **state)
{
	(void)state;
	assert_int_equal(choose("text/csv;q=2, text/plain;q=0.1"), 2);
	assert_int_equal(choose("text/csv;q=, text/plain;q=0.1"), 2);
	assert_int_equal(choose("text/csv;q=0.1234, text/plain;q=0.1"), 2);
	assert_int_equal(choose("text/csv;q=1.001, text/plain;q=0.1"), 2);
	assert_int_equal(choose("text/csv;q=-1, text/plain;q=0.1"), 2);
	assert_int_equal(choose("text/csv;q=0.x, text/plain;q=0.1"), 2);
	assert_int_equal(choose("*/csv, csv, /csv, text/, text/plain;q=0.1"), 2);
	assert_int_equal(choose("garbage"), 0); /* nothing is left: as if there were none */
}

static void what_java_sends_by_default_is_understood(void **state)
{
	(void)state;
	assert_int_equal(choose("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"), 0);
	assert_int_equal(choose("text/csv; q=.3, *; q=.2"), 1);
}

static void what_browsers_send_takes_the_first(void **state)
{
	(void)state;
	assert_int_equal(
		choose("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"), 0);
}

static void a_content_type_is_known_whatever_its_parameters(void **state)
{
	(void)state;
	assert_true(media_is(VIEW("application/json"), VIEW("application/json")));
	assert_true(media_is(VIEW("Application/JSON; charset=utf-8"), VIEW("application/json")));
	assert_true(media_is(VIEW(" application/json ;x"), VIEW("application/json")));
	assert_false(media_is(VIEW("application/jsonx"), VIEW("application/json")));
	assert_false(media_is(VIEW("application/json, text/csv"), VIEW("application/json")));
	assert_false(media_is(VIEW(""), VIEW("application/json")));
	assert_false(media_is(VIEW_NONE, VIEW("application/json")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_accept_the_first_is_chosen),
		cmocka_unit_test(the_highest_weight_wins_and_of_equals_the_first_offered),
		cmocka_unit_test(the_more_specific_range_wins_over_wildcards),
		cmocka_unit_test(what_is_not_accepted_is_not_chosen),
		cmocka_unit_test(parameters_other_than_the_weight_are_ignored),
		cmocka_unit_test(malformed_elements_are_ignored),
		cmocka_unit_test(what_java_sends_by_default_is_understood),
		cmocka_unit_test(what_browsers_send_takes_the_first),
		cmocka_unit_test(a_content_type_is_known_whatever_its_parameters),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
