#include "config.h"

#include "unit.h"

#include "base/base64.h"
#include "query/read.h"
#include "results.h"

enum { ID, NAME, SECRET, TAGS, TENANT };

static struct column columns[] = {
	[ID] = { VIEW_INIT("id"), VIEW_INIT("\"id\""), .base_oid = 20, .type_kind = 'b', .category = 'N', .not_null = true },
	[NAME] = { VIEW_INIT("a \"name\""), VIEW_INIT("\"a \"\"name\"\"\""), .base_oid = 25, .type_kind = 'b', .category = 'S' },
	[SECRET] = { VIEW_INIT("secret"), VIEW_INIT("\"secret\""), .base_oid = 25, .type_kind = 'b', .category = 'S',
		.hidden = true },
	[TAGS] = { VIEW_INIT("tags"), VIEW_INIT("\"tags\""), .base_oid = 1009, .type_kind = 'b', .category = 'A',
		.not_null = true },
	[TENANT] = { VIEW_INIT("tenant"), VIEW_INIT("\"tenant\""), .base_oid = 23, .type_kind = 'b', .category = 'N',
		.hidden = true, .not_null = true },
};
static unsigned key[] = { ID };
static struct order_term by_id[] = { { ID, false, false } };
static struct order_term by_tags[] = { { NAME, true, false }, { TAGS, true, true }, { ID, true, true } };

static struct resource people = {
	.relation = VIEW_INIT("\"s\".\"people\""),
	.columns = columns,
	.n_columns = ARRAY_LEN(columns),
	.key = key,
	.n_key = 1,
	.order = by_id,
	.n_order = 1,
	.owner = -1,
};

static struct view pairs_of(struct arena *a, const struct statement *s)
{
	struct buf out = BUF(65536);
	buf_view_put(&out, view_of(s->text));
	buf_lit(&out, " [");
	for (int p = 0; p < s->n_params; p++)
		buf_printf(&out, "%s%s:%u", p ? " " : "", s->values[p] ? s->values[p] : "NULL", s->types[p]);
	buf_lit(&out, "]");
	struct view v = arena_copy(a, buf_view(&out));
	buf_free(&out);
	return v;
}

static struct view page_sql(struct arena *a, const struct resource *res, const struct page *page)
{
	struct statement s;
	assert_true(page_statement(&s, a, res, page));
	return pairs_of(a, &s);
}

#define COLUMNS "t.\"id\", t.\"a \"\"name\"\"\", pg_catalog.to_json(t.\"tags\")"

static void a_page_asks_for_one_row_more(void **state)
{
	struct page page = { .limit = 50, .order = { by_id, 1 } };
	assert_view(page_sql(*state, &people, &page),
		"SELECT " COLUMNS " FROM \"s\".\"people\" t ORDER BY t.\"id\" LIMIT 51 []");
	page.cursor = (struct cursor){ .set = true, .value = { VIEW("128") } };
	assert_view(page_sql(*state, &people, &page),
		"SELECT " COLUMNS " FROM \"s\".\"people\" t WHERE (t.\"id\") > ($1) ORDER BY t.\"id\" LIMIT 51 [128:20]");
}

static void an_owner_sees_its_own_rows(void **state)
{
	struct resource owned = people;
	owned.owner = TENANT;
	struct page page = { .limit = 1, .order = { by_id, 1 }, .owner = VIEW("7") };
	page.cursor = (struct cursor){ .set = true, .value = { VIEW("128") } };
	assert_view(page_sql(*state, &owned, &page),
		"SELECT " COLUMNS " FROM \"s\".\"people\" t WHERE t.\"tenant\" = $1 AND (t.\"id\") > ($2) "
		"ORDER BY t.\"id\" LIMIT 2 [7:23 128:20]");
	page.cursor.set = false;
	assert_view(page_sql(*state, &owned, &page),
		"SELECT " COLUMNS " FROM \"s\".\"people\" t WHERE t.\"tenant\" = $1 ORDER BY t.\"id\" LIMIT 2 [7:23]");
}

static void branches_are_ordered_and_limited_each_by_itself(void **state)
{
	struct resource res = people;
	res.order = by_tags;
	res.n_order = 3;
	res.owner = TENANT;
	struct page page = { .limit = 2, .order = { by_tags, 3 }, .owner = VIEW("7") };
	page.cursor = (struct cursor){ .set = true, .value = { VIEW("n"), VIEW("{a,b}"), VIEW("3") } };
#define BRANCH "(SELECT t.\"id\", t.\"a \"\"name\"\"\", t.\"tags\" FROM \"s\".\"people\" t WHERE t.\"tenant\" = "
#define BY(q) " ORDER BY " q ".\"a \"\"name\"\"\" DESC NULLS LAST, " q ".\"tags\" DESC, " q ".\"id\" DESC LIMIT 3"
	assert_view(page_sql(*state, &res, &page),
		"SELECT u.\"id\", u.\"a \"\"name\"\"\", pg_catalog.to_json(u.\"tags\"), u.\"tags\"::pg_catalog.text FROM ("
		BRANCH "$1 AND (t.\"a \"\"name\"\"\", t.\"tags\", t.\"id\") < ($2, $3, $4)" BY("t") ") UNION ALL "
		BRANCH "$5 AND t.\"a \"\"name\"\"\" IS NULL" BY("t") ")) u" BY("u") " [7:23 n:25 {a,b}:1009 3:20 7:23]");
}

static void behind_the_last_row_there_is_nothing(void **state)
{
	static const struct order_term by_name[] = { { NAME, false, false } };
	struct page page = { .limit = 5, .order = { by_name, 1 } };
	page.cursor = (struct cursor){ .set = true, .value = { VIEW_NONE } };
	assert_view(page_sql(*state, &people, &page),
		"SELECT " COLUMNS " FROM \"s\".\"people\" t WHERE false ORDER BY t.\"a \"\"name\"\"\" LIMIT 6 []");
}

static void an_item_is_asked_for_by_its_key(void **state)
{
	struct statement s;
	struct resource owned = people;
	owned.owner = TENANT;
	assert_true(item_statement(&s, *state, &people, &VIEW("128"), VIEW_NONE));
	assert_view(pairs_of(*state, &s), "SELECT " COLUMNS " FROM \"s\".\"people\" t WHERE t.\"id\" = $1 [128:20]");
	assert_true(item_statement(&s, *state, &owned, &VIEW("-128"), VIEW("7")));
	assert_view(pairs_of(*state, &s),
		"SELECT " COLUMNS " FROM \"s\".\"people\" t WHERE t.\"tenant\" = $1 AND t.\"id\" = $2 [7:23 -128:20]");
}

static void what_is_no_integer_names_no_row(void **state)
{
	static const char *const bad[] = { "", "-", "x", "1x", " 1", "+1", "1.0", "1e3", "12345678901234567890", "0x10", "--1" };
	struct statement s;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(item_statement(&s, *state, &people, &(struct view){ bad[i], strlen(bad[i]) }, VIEW_NONE));
}

/* --- bodies --- */

#define INT(n) VIEW("\x00\x00\x00\x00\x00\x00\x00" n)

static struct view written(struct arena *a, const struct resource *res, const struct page *page, struct rows *rows,
	size_t max_bytes, size_t piece_bytes, bool *too_long)
{
	struct shape shape;
	struct buf body = BUF(1 << 20);
	assert_true(shape_of(a, res, &shape));
	struct page_writer w = { .resource = res, .page = page, .shape = &shape, .rows = rows, .max_bytes = max_bytes };
	page_begin(&w, &body);
	while (!page_write(&w, &body, piece_bytes))
		;
	*too_long = w.cursor_too_long;
	struct view v = arena_copy(a, buf_view(&body));
	buf_free(&body);
	rows_free(rows);
	return v;
}

static struct rows *three_people(void)
{
	const struct view cells[] = {
		INT("\x7f"), VIEW("Ada"), VIEW("[\"x\",null]"),
		INT("\x01"), VIEW_NONE, VIEW("[]"),
		INT("\x02"), VIEW("\""), VIEW("[\"y\"]"),
	};
	return result_of(3, 3, cells);
}

#define ROW1 "{\"id\":127,\"a \\\"name\\\"\":\"Ada\",\"tags\":[\"x\",null]}"
#define ROW2 "{\"id\":1,\"a \\\"name\\\"\":null,\"tags\":[]}"
#define ROW3 "{\"id\":2,\"a \\\"name\\\"\":\"\\\"\",\"tags\":[\"y\"]}"

static void the_last_page_has_no_cursor(void **state)
{
	bool too_long;
	struct page page = { .limit = 3, .order = { by_id, 1 } };
	assert_view(written(*state, &people, &page, three_people(), 100000, 100000, &too_long),
		"{\"data\":[" ROW1 "," ROW2 "," ROW3 "],\"next_cursor\":null,\"has_more\":false}");
	assert_view(written(*state, &people, &page, result_of(0, 3, NULL), 100000, 100000, &too_long),
		"{\"data\":[],\"next_cursor\":null,\"has_more\":false}");
}

static void the_row_over_the_limit_says_that_there_is_more(void **state)
{
	bool too_long;
	struct page page = { .limit = 2, .order = { by_id, 1 } };
	assert_view(written(*state, &people, &page, three_people(), 100000, 100000, &too_long),
		"{\"data\":[" ROW1 "," ROW2 "],\"next_cursor\":\"eyJpZCI6MX0\",\"has_more\":true}");
	assert_false(too_long);
}

static void a_page_in_pieces_is_the_same_page(void **state)
{
	bool too_long;
	struct page page = { .limit = 2, .order = { by_id, 1 } };
	struct view whole = written(*state, &people, &page, three_people(), 100000, 100000, &too_long);
	for (size_t piece = 1; piece < 200; piece++)
		assert_same_view(written(*state, &people, &page, three_people(), 100000, piece, &too_long), whole);
}

static void a_page_that_grows_too_big_ends_early(void **state)
{
	bool too_long;
	struct page page = { .limit = 3, .order = { by_id, 1 } };
	struct view first = VIEW("{\"data\":[" ROW1 "],\"next_cursor\":\"eyJpZCI6MTI3fQ\",\"has_more\":true}");
	/* One row at least, whatever its size. */
	assert_same_view(written(*state, &people, &page, three_people(), 1, 100000, &too_long), first);
	assert_same_view(written(*state, &people, &page, three_people(), 20, 1, &too_long), first);
}

static void a_cursor_holds_what_postgresql_reads_back(void **state)
{
	bool too_long;
	struct resource res = people;
	res.order = by_tags;
	res.n_order = 3;
	struct page page = { .limit = 1, .order = { by_tags, 3 } };
	const struct view cells[] = {
		INT("\x01"), VIEW_NONE, VIEW("[\"x\",null]"), VIEW("{x,NULL}"),
		INT("\x02"), VIEW_NONE, VIEW("[]"), VIEW("{}"),
	};
	struct view body = written(*state, &res, &page, result_of(2, 4, cells), 100000, 100000, &too_long);
	const char *at = strstr(body.p, "\"next_cursor\":\"");
	assert_non_null(at);
	struct view rest = view_of(at + strlen("\"next_cursor\":\"")), cursor;
	assert_true(view_split(&rest, '"', &cursor));
	assert_view(base64url_decode(*state, cursor), "{\"a \\\"name\\\"\":null,\"tags\":\"{x,NULL}\",\"id\":1}");
}

static void a_cursor_that_would_be_too_long_is_told(void **state)
{
	bool too_long;
	static char text[CURSOR_BYTES_MAX];
	memset(text, 'x', sizeof text);
	static const struct order_term by_name[] = { { NAME, false, false }, { ID, false, false } };
	struct page page = { .limit = 1, .order = { by_name, 2 } };
	for (int n = 0; n < 2; n++) {
		/* {"a \"name\"":"...","id":1} fits by a byte, and then no longer */
		struct view name = view_make(text, CURSOR_BYTES_MAX / 4 * 3 - strlen("{\"a \\\"name\\\"\":\"\",\"id\":1}") + (size_t)n);
		const struct view cells[] = { INT("\x01"), name, VIEW("[]"), INT("\x02"), name, VIEW("[]") };
		(void)written(*state, &people, &page, result_of(2, 3, cells), 100000, 100000, &too_long);
		assert_int_equal(too_long, n == 1);
	}
}

static void order_columns_stand_behind_the_visible_ones(void **state)
{
	(void)state;
	enum render_kind kind;
	struct order order = { by_tags, 3 };
	assert_int_equal(order_column(&people, order, 0, &kind), 1);
	assert_int_equal(kind, RENDER_TEXT);
	assert_int_equal(order_column(&people, order, 1, &kind), 3);
	assert_int_equal(kind, RENDER_TEXT);
	assert_int_equal(order_column(&people, order, 2, &kind), 0);
	assert_int_equal(kind, RENDER_INT);
}

static void a_full_arena_makes_no_statement(void **state)
{
	(void)state;
	struct statement s;
	struct page page = { .limit = 50, .order = { by_id, 1 } };
	struct arena *a = arena_create(256);
	assert_false(page_statement(&s, a, &people, &page));
	arena_reset(a);
	assert_false(item_statement(&s, a, &people, &VIEW("1"), VIEW_NONE));
	assert_true(arena_full(a));
	arena_reset(a);
	assert_non_null(arena_alloc(a, 200));
	assert_false(shape_of(a, &people, &(struct shape){ 0 }));
	arena_destroy(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		arena_test(a_page_asks_for_one_row_more),
		arena_test(an_owner_sees_its_own_rows),
		arena_test(branches_are_ordered_and_limited_each_by_itself),
		arena_test(behind_the_last_row_there_is_nothing),
		arena_test(an_item_is_asked_for_by_its_key),
		arena_test(what_is_no_integer_names_no_row),
		arena_test(the_last_page_has_no_cursor),
		arena_test(the_row_over_the_limit_says_that_there_is_more),
		arena_test(a_page_in_pieces_is_the_same_page),
		arena_test(a_page_that_grows_too_big_ends_early),
		arena_test(a_cursor_holds_what_postgresql_reads_back),
		arena_test(a_cursor_that_would_be_too_long_is_told),
		arena_test(order_columns_stand_behind_the_visible_ones),
		cmocka_unit_test(a_full_arena_makes_no_statement),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
