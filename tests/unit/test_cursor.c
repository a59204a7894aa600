#include "config.h"

#include "unit.h"

#include "base/base64.h"
#include "query/cursor.h"

enum { BIGINT = 20, TEXT = 25, BOOL = 16, NUMERIC = 1700, UUID = 2950, DATE = 1082, JSONB = 3802, TEXTS = 1009 };

/* Nullable ones are lower case, the others upper case. */
enum { ID, A, B, n, m, T, FLAG, AMOUNT, KEY, DAY, DOC, TAGS };

static struct column columns[] = {
	[ID] = { VIEW_INIT("id"), VIEW_INIT("\"id\""), .base_oid = BIGINT, .category = 'N', .not_null = true },
	[A] = { VIEW_INIT("a"), VIEW_INIT("\"a\""), .base_oid = BIGINT, .category = 'N', .not_null = true },
	[B] = { VIEW_INIT("b"), VIEW_INIT("\"b\""), .base_oid = TEXT, .category = 'S', .not_null = true },
	[n] = { VIEW_INIT("n"), VIEW_INIT("\"n\""), .base_oid = NUMERIC, .category = 'N' },
	[m] = { VIEW_INIT("m"), VIEW_INIT("\"m\""), .base_oid = TEXT, .category = 'S' },
	[T] = { VIEW_INIT("a \"b\""), VIEW_INIT("\"a \"\"b\"\"\""), .base_oid = TEXT, .category = 'S', .not_null = true },
	[FLAG] = { VIEW_INIT("flag"), VIEW_INIT("\"flag\""), .base_oid = BOOL, .category = 'B', .not_null = true },
	[AMOUNT] = { VIEW_INIT("amount"), VIEW_INIT("\"amount\""), .base_oid = NUMERIC, .category = 'N', .not_null = true },
	[KEY] = { VIEW_INIT("key"), VIEW_INIT("\"key\""), .base_oid = UUID, .category = 'U', .not_null = true },
	[DAY] = { VIEW_INIT("day"), VIEW_INIT("\"day\""), .base_oid = DATE, .category = 'D', .not_null = true },
	[DOC] = { VIEW_INIT("doc"), VIEW_INIT("\"doc\""), .base_oid = JSONB, .category = 'U', .not_null = true },
	[TAGS] = { VIEW_INIT("tags"), VIEW_INIT("\"tags\""), .base_oid = TEXTS, .category = 'A', .not_null = true },
};
static const struct resource table = { .columns = columns, .n_columns = ARRAY_LEN(columns) };

static struct sort sorted_by(struct arena *a, const struct order_term *term, unsigned terms)
{
	struct sort sort;
	assert_true(sort_of(a, &table, term, terms, &sort));
	return sort;
}

#define ORDER(...)                                                          \
	sorted_by(*state, (const struct order_term[]){ __VA_ARGS__ },       \
		sizeof((const struct order_term[]){ __VA_ARGS__ }) / sizeof(struct order_term))

#define order_id ORDER({ ID, false, false })

enum { CURSOR_BYTES_MAX = 6144 };

/* --- what is taken --- */

static enum status parse_json(struct arena *a, struct sort order, struct view json, struct cursor *c)
{
	struct buf text = BUF(65536);
	struct view detail = VIEW_NONE;
	base64url_put(&text, json);
	*c = (struct cursor){ .set = false };
	enum status st = cursor_parse(a, &order, VIEW(""), CURSOR_BYTES_MAX, buf_view(&text), c, &detail);
	assert_int_equal(c->set, st == OK);
	assert_int_equal(detail.p != NULL, st != OK);
	buf_free(&text);
	return st;
}

#define taken(order, json, c) assert_int_equal(parse_json(*state, (order), VIEW(json), (c)), OK)
#define refused(order, json) assert_int_equal(parse_json(*state, (order), VIEW(json), &(struct cursor){ 0 }), ERR_INVALID_CURSOR)

static void the_cursor_of_the_contract_is_taken(void **state)
{
	struct cursor c = { .set = false };
	struct sort order = order_id;
	struct view detail;
	assert_int_equal(cursor_parse(*state, &order, VIEW(""), 1024, VIEW("eyJpZCI6MTI4fQ"), &c, &detail), OK);
	assert_true(c.set);
	assert_view(c.value[0], "128");
}

static void values_keep_their_text(void **state)
{
	struct cursor c;
	taken(order_id, "{\"id\":-9223372036854775808}", &c);
	assert_view(c.value[0], "-9223372036854775808");
	struct sort order = ORDER({ n, false, false }, { T, false, false });
	taken(order, "{\"a \\\"b\\\"\":\"\\u00e9\\n\\\"\",\"n\":1.50e+300}", &c);
	assert_view(c.value[0], "1.50e+300");
	assert_view(c.value[1], "\xc3\xa9\n\"");
	taken(order, "{\"n\":\"NaN\",\"a \\\"b\\\"\":\"\"}", &c);
	assert_view(c.value[0], "NaN");
	assert_view(c.value[1], "");
	taken(order, "{\"n\":null,\"a \\\"b\\\"\":\"x\"}", &c);
	assert_absent(c.value[0]);
	taken(ORDER({ FLAG, false, false }, { ID, false, false }), "{\"flag\":false,\"id\":1}", &c);
	assert_view(c.value[0], "false");
	taken(ORDER({ DOC, false, false }, { TAGS, false, false }), "{\"doc\":\"{\\\"x\\\": null}\",\"tags\":\"{a,NULL}\"}", &c);
	assert_view(c.value[0], "{\"x\": null}");
	assert_view(c.value[1], "{a,NULL}");
}

static void what_is_no_base64url_is_refused(void **state)
{
	static const char *const bad[] = {
		"", "!", "eyJpZCI6MTI4fQ==", "eyJpZCI6MTI4f", "eyJpZCI6MTI4fR", "eyJpZCI6 MTI4fQ", "ey+/", "\xff\xff\xff\xff",
	};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct cursor c = { .set = false };
		struct view detail = VIEW_NONE;
		struct sort order = order_id;
		assert_int_equal(cursor_parse(*state, &order, VIEW(""), 1024, view_of(bad[i]), &c, &detail), ERR_INVALID_CURSOR);
		assert_false(c.set);
		assert_non_null(detail.p);
	}
}

static void what_is_no_object_of_the_sort_columns_is_refused(void **state)
{
	refused(order_id, "128");
	refused(order_id, "[128]");
	refused(order_id, "null");
	refused(order_id, "{}");
	refused(order_id, "{\"id\":128");
	refused(order_id, "{\"id\":128}x");
	refused(order_id, "{\"id\":128,\"id\":129}");
	refused(order_id, "{\"id\":128,\"a\":1}");
	refused(order_id, "{\"a\":128}");
	refused(order_id, "{\"ID\":128}");
	refused(order_id, "\"\\ud800\"");
	refused(order_id, "\xff");
	refused(ORDER({ A, false, false }, { ID, false, false }), "{\"id\":128}");
}

static void what_is_of_another_type_is_refused(void **state)
{
	refused(order_id, "{\"id\":null}");
	refused(order_id, "{\"id\":true}");
	refused(order_id, "{\"id\":\"128\"}");
	refused(order_id, "{\"id\":1.5}");
	refused(order_id, "{\"id\":1e3}");
	refused(order_id, "{\"id\":1E3}");
	refused(order_id, "{\"id\":[128]}");
	refused(order_id, "{\"id\":{}}");
	refused(order_id, "{\"id\":-92233720368547758080}");
	struct sort by_text = ORDER({ B, false, false });
	refused(by_text, "{\"b\":5}");
	refused(by_text, "{\"b\":false}");
	refused(by_text, "{\"b\":null}");
	refused(ORDER({ FLAG, false, false }), "{\"flag\":\"true\"}");
	refused(ORDER({ FLAG, false, false }), "{\"flag\":1}");
	refused(ORDER({ n, false, false }), "{\"n\":[1]}");
}

static void a_cursor_may_be_long_but_not_longer(void **state)
{
	struct buf text = BUF(65536), json = BUF(65536);
	struct cursor c = { .set = false };
	struct view detail = VIEW_NONE;
	buf_lit(&json, "{\"b\":\"");
	while (json.n < CURSOR_BYTES_MAX / 4 * 3 - 2)
		buf_putc(&json, 'x');
	buf_lit(&json, "\"}");
	base64url_put(&text, buf_view(&json));
	assert_int_equal(text.n, CURSOR_BYTES_MAX);
	struct sort order = ORDER({ B, false, false });
	assert_int_equal(cursor_parse(*state, &order, VIEW(""), CURSOR_BYTES_MAX, buf_view(&text), &c, &detail), OK);
	buf_lit(&text, "eyJ4");
	assert_int_equal(cursor_parse(*state, &order, VIEW(""), CURSOR_BYTES_MAX, buf_view(&text), &c, &detail),
		ERR_INVALID_CURSOR);
	buf_free(&text);
	buf_free(&json);
}

/* --- the SQL --- */

/* Branch by branch: "condition | condition  [values]". NULL is not among the values: it is written as IS NULL. */
static struct view sql_after(struct arena *a, struct sort order, struct view json)
{
	struct cursor c;
	struct buf out = BUF(65536);
	assert_int_equal(parse_json(a, order, json, &c), OK);
	unsigned branches = cursor_branches(&order, &c);
	for (unsigned i = 0; i < branches; i++) {
		struct statement s;
		statement_init(&s, a);
		cursor_condition(&s, &order, &c, i, VIEW("t."));
		assert_true(statement_finish(&s));
		if (i)
			buf_lit(&out, " | ");
		buf_view_put(&out, view_of(s.text));
		buf_lit(&out, " [");
		for (int p = 0; p < s.n_params; p++)
			buf_printf(&out, "%s%s:%u", p ? " " : "", s.values[p], s.types[p]);
		buf_lit(&out, "]");
	}
	struct view v = arena_copy(a, buf_view(&out));
	buf_free(&out);
	return v;
}

#define after(order, json, expected) assert_view(sql_after(*state, (order), VIEW(json)), expected)

static void one_column_is_one_comparison(void **state)
{
	after(order_id, "{\"id\":128}", "(t.\"id\") > ($1) [128:20]");
	after(ORDER({ ID, true, true }), "{\"id\":128}", "(t.\"id\") < ($1) [128:20]");
}

static void one_direction_without_nulls_is_a_row_comparison(void **state)
{
	after(ORDER({ A, false, false }, { B, false, false }, { ID, false, false }), "{\"a\":1,\"b\":\"x\",\"id\":3}",
		"(t.\"a\", t.\"b\", t.\"id\") > ($1, $2, $3) [1:20 x:25 3:20]");
	after(ORDER({ A, true, true }, { ID, true, true }), "{\"a\":1,\"id\":3}", "(t.\"a\", t.\"id\") < ($1, $2) [1:20 3:20]");
}

static void parameters_have_the_type_of_the_column(void **state)
{
	after(ORDER({ DAY, false, false }, { AMOUNT, false, false }, { KEY, false, false }),
		"{\"day\":\"0044-03-15 BC\",\"amount\":1.10,\"key\":\"x\"}",
		"(t.\"day\", t.\"amount\", t.\"key\") > ($1, $2, $3) [0044-03-15 BC:1082 1.10:1700 x:2950]");
}

static void names_are_quoted_as_the_catalog_has_them(void **state)
{
	after(ORDER({ T, false, false }), "{\"a \\\"b\\\"\":\"'; --\"}", "(t.\"a \"\"b\"\"\") > ($1) ['; --:25]");
}

static void mixed_directions_are_a_branch_for_each_prefix(void **state)
{
	after(ORDER({ A, true, true }, { ID, false, false }), "{\"a\":1,\"id\":3}",
		"t.\"a\" < $1 [1:20] | t.\"a\" = $1 AND (t.\"id\") > ($2) [1:20 3:20]");
	after(ORDER({ A, false, false }, { B, true, true }, { ID, false, false }), "{\"a\":1,\"b\":\"x\",\"id\":3}",
		"t.\"a\" > $1 [1:20] | t.\"a\" = $1 AND t.\"b\" < $2 [1:20 x:25] | "
		"t.\"a\" = $1 AND t.\"b\" = $2 AND (t.\"id\") > ($3) [1:20 x:25 3:20]");
	/* What ends in one direction ends in a row comparison. */
	after(ORDER({ A, false, false }, { B, true, true }, { ID, true, true }), "{\"a\":1,\"b\":\"x\",\"id\":3}",
		"t.\"a\" > $1 [1:20] | t.\"a\" = $1 AND (t.\"b\", t.\"id\") < ($2, $3) [1:20 x:25 3:20]");
}

static void behind_a_value_come_the_nulls_that_are_last(void **state)
{
	after(ORDER({ n, false, false }, { ID, false, false }), "{\"n\":1.5,\"id\":3}",
		"(t.\"n\", t.\"id\") > ($1, $2) [1.5:1700 3:20] | t.\"n\" IS NULL []");
	after(ORDER({ n, true, false }, { ID, true, true }), "{\"n\":1.5,\"id\":3}",
		"(t.\"n\", t.\"id\") < ($1, $2) [1.5:1700 3:20] | t.\"n\" IS NULL []");
}

static void nulls_that_are_first_do_not_come_behind_a_value(void **state)
{
	after(ORDER({ n, false, true }, { ID, false, false }), "{\"n\":1.5,\"id\":3}",
		"(t.\"n\", t.\"id\") > ($1, $2) [1.5:1700 3:20]");
	after(ORDER({ n, true, true }, { ID, true, true }), "{\"n\":1.5,\"id\":3}",
		"(t.\"n\", t.\"id\") < ($1, $2) [1.5:1700 3:20]");
}

static void among_the_nulls_the_next_column_decides(void **state)
{
	after(ORDER({ n, false, false }, { ID, false, false }), "{\"n\":null,\"id\":3}",
		"t.\"n\" IS NULL AND (t.\"id\") > ($1) [3:20]");
	after(ORDER({ n, false, true }, { ID, false, false }), "{\"n\":null,\"id\":3}",
		"t.\"n\" IS NOT NULL [] | t.\"n\" IS NULL AND (t.\"id\") > ($1) [3:20]");
	after(ORDER({ n, true, true }, { ID, true, true }), "{\"n\":null,\"id\":3}",
		"t.\"n\" IS NOT NULL [] | t.\"n\" IS NULL AND (t.\"id\") < ($1) [3:20]");
}

static void nulls_in_the_middle_are_branches_under_their_prefix(void **state)
{
	after(ORDER({ A, false, false }, { n, false, false }, { ID, false, false }), "{\"a\":1,\"n\":2,\"id\":3}",
		"t.\"a\" > $1 [1:20] | t.\"a\" = $1 AND (t.\"n\", t.\"id\") > ($2, $3) [1:20 2:1700 3:20] | "
		"t.\"a\" = $1 AND t.\"n\" IS NULL [1:20]");
	after(ORDER({ n, false, false }, { m, true, true }, { ID, false, false }), "{\"n\":2,\"m\":null,\"id\":3}",
		"t.\"n\" > $1 [2:1700] | t.\"n\" IS NULL [] | t.\"n\" = $1 AND t.\"m\" IS NOT NULL [2:1700] | "
		"t.\"n\" = $1 AND t.\"m\" IS NULL AND (t.\"id\") > ($2) [2:1700 3:20]");
}

static void a_last_null_of_the_last_column_has_nothing_behind_it(void **state)
{
	struct cursor c;
	struct sort order = ORDER({ n, false, false });
	taken(order, "{\"n\":null}", &c);
	assert_int_equal(cursor_branches(&order, &c), 0);
}

/* --- what it is bound to, and the way back --- */

static enum status parse_bound(struct arena *a, struct sort order, struct view bound_to, struct view json, struct cursor *c)
{
	struct buf text = BUF(65536);
	struct view detail = VIEW_NONE;
	base64url_put(&text, json);
	*c = (struct cursor){ .set = false };
	enum status st = cursor_parse(a, &order, bound_to, CURSOR_BYTES_MAX, buf_view(&text), c, &detail);
	buf_free(&text);
	return st;
}

static void a_bound_cursor_is_taken_by_its_own_list_alone(void **state)
{
	struct cursor c;
	assert_int_equal(parse_bound(*state, order_id, VIEW("abc"), VIEW("{\"id\":1,\"\":\"abc\"}"), &c), OK);
	assert_false(c.backward);
	assert_int_equal(parse_bound(*state, order_id, VIEW("abd"), VIEW("{\"id\":1,\"\":\"abc\"}"), &c), ERR_INVALID_CURSOR);
	assert_int_equal(parse_bound(*state, order_id, VIEW(""), VIEW("{\"id\":1,\"\":\"abc\"}"), &c), ERR_INVALID_CURSOR);
	assert_int_equal(parse_bound(*state, order_id, VIEW("abc"), VIEW("{\"id\":1,\"\":7}"), &c), ERR_INVALID_CURSOR);
	assert_int_equal(parse_bound(*state, order_id, VIEW("abc"), VIEW("{\"\":\"abc\"}"), &c), ERR_INVALID_CURSOR);
}

static void a_plain_cursor_is_taken_everywhere(void **state)
{
	struct cursor c;
	assert_int_equal(parse_bound(*state, order_id, VIEW("abc"), VIEW("{\"id\":1}"), &c), OK);
	assert_int_equal(parse_bound(*state, order_id, VIEW("abc"), VIEW("{\"id\":1,\"\":\"<\"}"), &c), OK);
	assert_true(c.backward);
}

static void what_is_put_is_taken(void **state)
{
	static const struct view binding[] = { VIEW_INIT(""), VIEW_INIT("abc") };
	static const enum render_kind kind[] = { RENDER_TEXT };
	struct sort order = ORDER({ B, false, false });
	for (unsigned i = 0; i < 4; i++) {
		struct buf text = BUF(65536);
		struct cursor c = { .set = false };
		struct view value = VIEW("\"<\n"), detail;
		assert_true(cursor_put(&text, &order, binding[i / 2], i % 2, kind, &value, 64));
		assert_int_equal(cursor_parse(*state, &order, binding[i / 2], 64, buf_view(&text), &c, &detail), OK);
		assert_int_equal(c.backward, i % 2);
		assert_view(c.value[0], "\"<\n");
		buf_free(&text);
	}
}

static void what_would_be_too_long_is_not_put(void **state)
{
	static const enum render_kind kind[] = { RENDER_TEXT };
	struct sort order = ORDER({ B, false, false });
	struct buf text = BUF(65536);
	assert_false(cursor_put(&text, &order, VIEW(""), false, kind, &VIEW("01234567890123456789012345678901234567890"), 64));
	assert_int_equal(text.n, 0);
	buf_free(&text);
}

static void without_a_cursor_there_is_one_branch(void **state)
{
	struct sort order = order_id;
	assert_int_equal(cursor_branches(&order, &(struct cursor){ .set = false }), 1);
}

static struct view ordered(struct arena *a, struct sort order)
{
	struct statement s;
	statement_init(&s, a);
	sort_write(&s, &order, VIEW("t."), false);
	assert_true(statement_finish(&s));
	return view_of(s.text);
}

static void an_order_says_only_what_is_not_default(void **state)
{
	assert_view(ordered(*state, ORDER({ A, false, false }, { n, false, false }, { m, true, true }, { ID, true, true })),
		" ORDER BY t.\"a\", t.\"n\", t.\"m\" DESC, t.\"id\" DESC");
	assert_view(ordered(*state, ORDER({ n, false, true }, { m, true, false }, { ID, true, false })),
		" ORDER BY t.\"n\" NULLS FIRST, t.\"m\" DESC NULLS LAST, t.\"id\" DESC");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		arena_test(the_cursor_of_the_contract_is_taken),
		arena_test(values_keep_their_text),
		arena_test(what_is_no_base64url_is_refused),
		arena_test(what_is_no_object_of_the_sort_columns_is_refused),
		arena_test(what_is_of_another_type_is_refused),
		arena_test(a_cursor_may_be_long_but_not_longer),
		arena_test(one_column_is_one_comparison),
		arena_test(one_direction_without_nulls_is_a_row_comparison),
		arena_test(parameters_have_the_type_of_the_column),
		arena_test(names_are_quoted_as_the_catalog_has_them),
		arena_test(mixed_directions_are_a_branch_for_each_prefix),
		arena_test(behind_a_value_come_the_nulls_that_are_last),
		arena_test(nulls_that_are_first_do_not_come_behind_a_value),
		arena_test(among_the_nulls_the_next_column_decides),
		arena_test(nulls_in_the_middle_are_branches_under_their_prefix),
		arena_test(a_last_null_of_the_last_column_has_nothing_behind_it),
		arena_test(a_bound_cursor_is_taken_by_its_own_list_alone),
		arena_test(a_plain_cursor_is_taken_everywhere),
		arena_test(what_is_put_is_taken),
		arena_test(what_would_be_too_long_is_not_put),
		arena_test(without_a_cursor_there_is_one_branch),
		arena_test(an_order_says_only_what_is_not_default),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
