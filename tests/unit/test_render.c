#include "config.h"

#include "unit.h"

#include "query/render.h"

static struct view rendered(struct arena *a, enum render_kind kind, struct view v)
{
	struct buf b = BUF(1 << 20);
	render_value(&b, kind, v);
	assert_false(buf_failed(&b));
	struct view out = arena_copy(a, buf_view(&b));
	buf_free(&b);
	return out;
}

static struct view as_text(struct arena *a, enum render_kind kind, struct view v)
{
	struct buf b = BUF(1 << 20);
	render_text(&b, kind, v);
	struct view out = arena_copy(a, buf_view(&b));
	buf_free(&b);
	return out;
}

#define shows(kind, bytes, json) assert_view(rendered(*state, (kind), VIEW(bytes)), json)

static void null_is_null_whatever_the_kind(void **state)
{
	for (int kind = RENDER_RAW; kind <= RENDER_JSONB; kind++) {
		assert_view(rendered(*state, (enum render_kind)kind, VIEW_NONE), "null");
		assert_int_equal(as_text(*state, (enum render_kind)kind, VIEW_NONE).n, 0);
	}
}

static void bools_and_integers_to_their_extremes(void **state)
{
	shows(RENDER_BOOL, "\x01", "true");
	shows(RENDER_BOOL, "\x00", "false");
	shows(RENDER_INT, "\x00\x00", "0");
	shows(RENDER_INT, "\x80\x00", "-32768");
	shows(RENDER_INT, "\x7f\xff\xff\xff", "2147483647");
	shows(RENDER_INT, "\x80\x00\x00\x00\x00\x00\x00\x00", "-9223372036854775808");
	shows(RENDER_INT, "\x7f\xff\xff\xff\xff\xff\xff\xff", "9223372036854775807");
}

/* numeric_send(): digits, weight, sign, scale, then digits of base 10000. */
static void numerics_have_their_exact_digits(void **state)
{
	shows(RENDER_NUMERIC, "\x00\x00\x00\x00\x00\x00\x00\x00", "0");
	shows(RENDER_NUMERIC, "\x00\x00\x00\x00\x00\x00\x00\x02", "0.00");
	shows(RENDER_NUMERIC, "\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01", "1");
	shows(RENDER_NUMERIC, "\x00\x01\x00\x00\x40\x00\x00\x00\x00\x01", "-1");
	/* 10000: a digit that is not stored. 100000001 */
	shows(RENDER_NUMERIC, "\x00\x01\x00\x01\x00\x00\x00\x00\x00\x01", "10000");
	shows(RENDER_NUMERIC, "\x00\x03\x00\x02\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01", "100000001");
	/* 12345678.90 */
	shows(RENDER_NUMERIC, "\x00\x03\x00\x01\x00\x00\x00\x02\x04\xd2\x16\x2e\x23\x28", "12345678.90");
	/* 0.0001, 0.00000001, 0.5 and 0.50000: the scale says how many of the digits there are */
	shows(RENDER_NUMERIC, "\x00\x01\xff\xff\x00\x00\x00\x04\x00\x01", "0.0001");
	shows(RENDER_NUMERIC, "\x00\x01\xff\xfe\x00\x00\x00\x08\x00\x01", "0.00000001");
	shows(RENDER_NUMERIC, "\x00\x01\xff\xff\x00\x00\x00\x01\x13\x88", "0.5");
	shows(RENDER_NUMERIC, "\x00\x01\xff\xff\x40\x00\x00\x05\x13\x88", "-0.50000");
}

static void numerics_that_are_no_numbers_are_strings(void **state)
{
	shows(RENDER_NUMERIC, "\x00\x00\x00\x00\xc0\x00\x00\x00", "\"NaN\"");
	shows(RENDER_NUMERIC, "\x00\x00\x00\x00\xd0\x00\x00\x00", "\"Infinity\"");
	shows(RENDER_NUMERIC, "\x00\x00\x00\x00\xf0\x00\x00\x00", "\"-Infinity\"");
	assert_view(as_text(*state, RENDER_NUMERIC, VIEW("\x00\x00\x00\x00\xf0\x00\x00\x00")), "-Infinity");
}

static void text_is_escaped_as_json_wants_it(void **state)
{
	shows(RENDER_TEXT, "", "\"\"");
	shows(RENDER_TEXT, "a\"b\\c/d", "\"a\\\"b\\\\c/d\"");
	shows(RENDER_TEXT, "\b\f\n\r\t\x01\x1f\x7f", "\"\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\"");
	shows(RENDER_TEXT, "gr\xc3\xb6\xc3\x9f \xf0\x9f\x90\x98 </script>",
		"\"gr\xc3\xb6\xc3\x9f \xf0\x9f\x90\x98 </script>\"");
	assert_view(as_text(*state, RENDER_TEXT, VIEW("a\"b\\c\n")), "a\"b\\c\n");
}

static void uuids_in_their_usual_form(void **state)
{
	static const char bytes[] = "\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10";
	shows(RENDER_UUID, "\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10",
		"\"01234567-89ab-cdef-fedc-ba9876543210\"");
	assert_view(as_text(*state, RENDER_UUID, view_make(bytes, 16)), "01234567-89ab-cdef-fedc-ba9876543210");
}

/* Days since 2000-01-01. */
static void dates_from_the_first_to_the_last(void **state)
{
	shows(RENDER_DATE, "\x00\x00\x00\x00", "\"2000-01-01\"");
	shows(RENDER_DATE, "\xff\xff\xff\xff", "\"1999-12-31\"");
	shows(RENDER_DATE, "\x00\x00\x00\x3b", "\"2000-02-29\"");
	shows(RENDER_DATE, "\x00\x2c\x95\xd3", "\"9999-12-31\"");
	shows(RENDER_DATE, "\x00\x2c\x95\xd4", "\"10000-01-01\"");
	shows(RENDER_DATE, "\xff\xf4\xdb\xf9", "\"0001-01-01\"");
	shows(RENDER_DATE, "\xff\xf4\xdb\xf8", "\"0001-12-31 BC\"");
	shows(RENDER_DATE, "\x7f\xff\xff\xff", "\"infinity\"");
	shows(RENDER_DATE, "\x80\x00\x00\x00", "\"-infinity\"");
	/* PostgreSQL's first and last: Julian day 0 and 5874897-12-31. */
	shows(RENDER_DATE, "\xff\xda\x97\xa7", "\"4714-11-24 BC\"");
	shows(RENDER_DATE, "\x7f\xda\x97\x0c", "\"5874897-12-31\"");
}

/* Microseconds since 2000-01-01. */
static void moments_to_the_microsecond(void **state)
{
	shows(RENDER_TIMESTAMP, "\x00\x00\x00\x00\x00\x00\x00\x00", "\"2000-01-01T00:00:00\"");
	shows(RENDER_TIMESTAMPTZ, "\x00\x00\x00\x00\x00\x00\x00\x00", "\"2000-01-01T00:00:00+00:00\"");
	shows(RENDER_TIMESTAMPTZ, "\xff\xff\xff\xff\xff\xff\xff\xff", "\"1999-12-31T23:59:59.999999+00:00\"");
	shows(RENDER_TIMESTAMP, "\x00\x00\x00\x00\x00\x07\xa1\x20", "\"2000-01-01T00:00:00.5\"");
	shows(RENDER_TIMESTAMP, "\x00\x00\x00\x00\x00\x00\x00\x0a", "\"2000-01-01T00:00:00.00001\"");
	shows(RENDER_TIMESTAMP, "\x7f\xff\xff\xff\xff\xff\xff\xff", "\"infinity\"");
	shows(RENDER_TIMESTAMPTZ, "\x80\x00\x00\x00\x00\x00\x00\x00", "\"-infinity\"");
	/* A second before our era. */
	shows(RENDER_TIMESTAMPTZ, "\xff\x1f\xe2\xff\xc5\x8d\x1d\xc0", "\"0001-12-31T23:59:59+00:00 BC\"");
}

static void json_is_passed_on_and_jsonb_loses_its_version(void **state)
{
	shows(RENDER_RAW, "{\"a\": [1, null]}", "{\"a\": [1, null]}");
	shows(RENDER_JSONB, "\x01{\"a\": 1}", "{\"a\": 1}");
}

static void a_value_of_a_wrong_length_is_null(void **state)
{
	shows(RENDER_BOOL, "", "null");
	shows(RENDER_INT, "\x00\x00\x00", "null");
	shows(RENDER_UUID, "123456789012345", "null");
	shows(RENDER_DATE, "\x00\x00", "null");
	shows(RENDER_TIMESTAMP, "\x00\x00\x00\x00", "null");
	shows(RENDER_TIMESTAMPTZ, "", "null");
	shows(RENDER_JSONB, "\x01", "null");
	shows(RENDER_NUMERIC, "\x00\x00", "null");
	shows(RENDER_NUMERIC, "\x00\x02\x00\x00\x00\x00\x00\x00\x00\x01", "null");
	shows(RENDER_NUMERIC, "\xff\xff\x00\x00\x00\x00\x00\x00", "null");
}

static struct column column(uint32_t base_oid, char type_kind, char category)
{
	return (struct column){
		.quoted = VIEW("\"c\""), .base_oid = base_oid, .type_kind = type_kind, .category = category
	};
}

static struct view selected(struct arena *a, const struct column *c)
{
	struct statement s;
	statement_init(&s, a);
	render_select(&s, c, VIEW("t."));
	assert_true(statement_finish(&s));
	return view_of(s.text);
}

static void plain_types_are_asked_for_as_they_are_and_others_as_json(void **state)
{
	static const struct {
		uint32_t oid;
		char kind, category;
		enum render_kind rendered;
		const char *sql;
		bool needs_text;
	} table[] = {
		{ 20, 'b', 'N', RENDER_INT, "t.\"c\"", false },
		{ 25, 'b', 'S', RENDER_TEXT, "t.\"c\"", false },
		{ 1042, 'b', 'S', RENDER_TEXT, "t.\"c\"", false },
		{ 54321, 'e', 'E', RENDER_TEXT, "t.\"c\"", false },
		{ 114, 'b', 'U', RENDER_RAW, "t.\"c\"", true },
		{ 3802, 'b', 'U', RENDER_JSONB, "t.\"c\"", true },
		{ 701, 'b', 'N', RENDER_RAW, "pg_catalog.to_json(t.\"c\")", false },
		{ 869, 'b', 'I', RENDER_RAW, "pg_catalog.to_json(t.\"c\")", false },
		{ 17, 'b', 'U', RENDER_RAW, "pg_catalog.to_json(t.\"c\")", true },
		{ 1009, 'b', 'A', RENDER_RAW, "pg_catalog.to_json(t.\"c\")", true },
		{ 3904, 'r', 'R', RENDER_RAW, "pg_catalog.to_json(t.\"c\")", true },
		{ 54322, 'b', 'S', RENDER_RAW, "pg_catalog.to_json(t.\"c\")", true },
		{ 54323, 'c', 'C', RENDER_RAW, "pg_catalog.to_json(t.\"c\")", true },
	};
	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		struct column c = column(table[i].oid, table[i].kind, table[i].category);
		assert_int_equal(render_kind(&c), table[i].rendered);
		assert_int_equal(render_needs_text(&c), table[i].needs_text);
		assert_same_view(selected(*state, &c), view_of(table[i].sql));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		arena_test(null_is_null_whatever_the_kind),
		arena_test(bools_and_integers_to_their_extremes),
		arena_test(numerics_have_their_exact_digits),
		arena_test(numerics_that_are_no_numbers_are_strings),
		arena_test(text_is_escaped_as_json_wants_it),
		arena_test(uuids_in_their_usual_form),
		arena_test(dates_from_the_first_to_the_last),
		arena_test(moments_to_the_microsecond),
		arena_test(json_is_passed_on_and_jsonb_loses_its_version),
		arena_test(a_value_of_a_wrong_length_is_null),
		arena_test(plain_types_are_asked_for_as_they_are_and_others_as_json),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
