#include "config.h"

#include "unit.h"

#include "http/params.h"

static struct params parse(void **state, struct view query)
{
	struct params p = { 0 };
	struct view detail = VIEW_NONE;
	assert_int_equal(params_parse(*state, query, 32, &p, &detail), OK);
	return p;
}

static void a_query_is_taken_apart_in_order(void **state)
{
	struct params p = parse(state, VIEW("limit=50&cursor=eyJpZCI6MTI4fQ&a=gte.18&a=lt.30"));
	assert_int_equal(p.n, 4);
	assert_view(p.item[0].name, "limit");
	assert_view(p.item[0].value, "50");
	assert_view(p.item[1].value, "eyJpZCI6MTI4fQ");
	assert_view(p.item[2].name, "a");
	assert_view(p.item[3].name, "a");
	assert_view(p.item[3].value, "lt.30");
}

static void names_and_values_are_decoded_once(void **state)
{
	struct params p = parse(state, VIEW("na%6de=a+b%20c%2Bd%2526&%C3%A4=%e2%82%ac"));
	assert_view(p.item[0].name, "name");
	assert_view(p.item[0].value, "a b c+d%26");
	assert_view(p.item[1].name, "\xc3\xa4");
	assert_view(p.item[1].value, "\xe2\x82\xac");
}

static void only_the_first_equals_sign_separates(void **state)
{
	struct params p = parse(state, VIEW("a=b=c&d&e=&=f"));
	assert_int_equal(p.n, 4);
	assert_view(p.item[0].value, "b=c");
	assert_view(p.item[1].name, "d");
	assert_view(p.item[1].value, "");
	assert_view(p.item[2].value, "");
	assert_view(p.item[3].name, "");
	assert_view(p.item[3].value, "f");
}

static void pieces_with_nothing_in_them_are_left_out(void **state)
{
	assert_int_equal(parse(state, VIEW_NONE).n, 0);
	assert_int_equal(parse(state, VIEW("")).n, 0);
	assert_int_equal(parse(state, VIEW("&&")).n, 0);
	struct params p = parse(state, VIEW("&a=1&&b=2&"));
	assert_int_equal(p.n, 2);
	assert_view(p.item[1].name, "b");
}

static void bad_escapes_bad_utf8_and_nul_are_refused(void **state)
{
	static const char *const bad[] = { "a=%", "a=%4", "a=%4g", "a=%g4", "a=b%", "%=1", "a=%-1", "a=%ff", "a=%c3",
		"%ed%a0%80=1", "a=%00", "a=1&b=%00", "a=\xff", "a=%C0%80" };
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct params p;
		struct view detail = VIEW_NONE;
		assert_int_equal(params_parse(*state, view_of(bad[i]), 32, &p, &detail), ERR_BAD_REQUEST);
		assert_non_null(detail.p);
	}
}

static void more_than_the_bound_is_too_complex(void **state)
{
	struct params p;
	struct view detail = VIEW_NONE;
	assert_int_equal(params_parse(*state, VIEW("a&b&c"), 3, &p, &detail), OK);
	assert_int_equal(params_parse(*state, VIEW("a&b&&c&"), 3, &p, &detail), OK);
	assert_absent(detail);
	assert_int_equal(params_parse(*state, VIEW("a&b&c&d"), 3, &p, &detail), ERR_QUERY_TOO_COMPLEX);
	assert_non_null(detail.p);
}

static void a_full_arena_is_too_complex(void **state)
{
	(void)state;
	struct arena *a = arena_create(100);
	struct params p;
	struct view detail = VIEW_NONE;
	assert_int_equal(params_parse(a, VIEW("a&b&c&d"), 32, &p, &detail), ERR_QUERY_TOO_COMPLEX);
	arena_reset(a);
	assert_int_equal(
		params_parse(a, VIEW("a=%41%41%41%41%41%41%41%41%41%41%41%41%41%41%41%41%41%41%41%41%41%41%41"), 32, &p,
			&detail),
		ERR_QUERY_TOO_COMPLEX);
	arena_destroy(a);
}

static void plus_is_a_blank_only_where_asked_for(void **state)
{
	assert_view(percent_decode(*state, VIEW("a+b%2b"), true), "a b+");
	assert_view(percent_decode(*state, VIEW("a+b%2b"), false), "a+b+");
	assert_view(percent_decode(*state, VIEW(""), false), "");
	assert_absent(percent_decode(*state, VIEW_NONE, false));
	assert_absent(percent_decode(*state, VIEW("%zz"), false));
	struct view nul = percent_decode(*state, VIEW("%00"), false);
	assert_int_equal(nul.n, 1);
}

static void all_but_unreserved_characters_are_encoded(void **state)
{
	(void)state;
	struct buf b = BUF(1000);
	percent_encode(&b, VIEW("aZ09-._~ /?&=+%\xc3\xa4\x01"));
	assert_view(buf_view(&b), "aZ09-._~%20%2F%3F%26%3D%2B%25%C3%A4%01");
	buf_free(&b);
}

static void any_bytes_come_back(void **state)
{
	char all[256];
	for (int i = 0; i < 256; i++)
		all[i] = (char)i;
	struct buf b = BUF(1000);
	percent_encode(&b, view_make(all, sizeof all));
	assert_same_view(percent_decode(*state, buf_view(&b), true), view_make(all, sizeof all));
	buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		arena_test(a_query_is_taken_apart_in_order),
		arena_test(names_and_values_are_decoded_once),
		arena_test(only_the_first_equals_sign_separates),
		arena_test(pieces_with_nothing_in_them_are_left_out),
		arena_test(bad_escapes_bad_utf8_and_nul_are_refused),
		arena_test(more_than_the_bound_is_too_complex),
		cmocka_unit_test(a_full_arena_is_too_complex),
		arena_test(plus_is_a_blank_only_where_asked_for),
		cmocka_unit_test(all_but_unreserved_characters_are_encoded),
		arena_test(any_bytes_come_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
