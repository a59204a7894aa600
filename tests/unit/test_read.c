#include "config.h"

#include "unit.h"

#include "base/base64.h"
#include "query/body.h"
#include "query/page.h"
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
	.page_default = 50,
	.page_max = 200,
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

enum { CURSOR_BYTES_MAX = 1024 };

static const struct bounds bounds = { 32, 200, 3, 8, 256, CURSOR_BYTES_MAX };
static struct catalog nothing_else;

static void page_of(struct arena *a, struct page *page, const struct resource *res, const char *query, struct view tenant)
{
	struct params all;
	struct view detail = VIEW_NONE;
	struct asker asker = { .arena = a, .catalog = &nothing_else, .tenant = tenant };
	assert_int_equal(params_parse(a, view_of(query), 64, &all, &detail), OK);
	enum status st = page_read(page, &bounds, &asker, res, &all, &detail);
	if (st != OK)
		print_error("%.*s\n", VIEW_ARG(detail));
	assert_int_equal(st, OK);
}

static const char *cursor_of(struct arena *a, struct view json)
{
	struct buf b = BUF(65536);
	buf_lit(&b, "cursor=");
	base64url_put(&b, json);
	struct view v = arena_copy(a, buf_view(&b));
	buf_free(&b);
	return v.p;
}

static struct view sql_of(struct arena *a, const struct resource *res, const char *query, struct view tenant)
{
	struct statement s;
	struct page page;
	struct shape shape;
	page_of(a, &page, res, query, tenant);
	assert_true(page_shape(&page, &shape));
	assert_true(page_statement(&s, &page, &shape));
	return pairs_of(a, &s);
}

#define COLUMNS "t.\"id\", t.\"a \"\"name\"\"\", pg_catalog.to_json(t.\"tags\")"

static void a_page_asks_for_one_row_more(void **state)
{
	assert_view(sql_of(*state, &people, "limit=50", VIEW_NONE),
		"SELECT " COLUMNS " FROM \"s\".\"people\" t ORDER BY t.\"id\" LIMIT 51 []");
	assert_view(sql_of(*state, &people, cursor_of(*state, VIEW("{\"id\":128}")), VIEW_NONE),
		"SELECT " COLUMNS " FROM \"s\".\"people\" t WHERE (t.\"id\") > ($1) ORDER BY t.\"id\" LIMIT 51 [128:20]");
}

static void the_way_back_is_the_order_backwards(void **state)
{
	assert_view(sql_of(*state, &people, cursor_of(*state, VIEW("{\"id\":128,\"\":\"<\"}")), VIEW_NONE),
		"SELECT " COLUMNS " FROM \"s\".\"people\" t WHERE (t.\"id\") < ($1) ORDER BY t.\"id\" DESC LIMIT 51 [128:20]");
}

static void an_owner_sees_its_own_rows(void **state)
{
	struct resource owned = people;
	owned.owner = TENANT;
	assert_view(sql_of(*state, &owned, cursor_of(*state, VIEW("{\"id\":128}")), VIEW("7")),
		"SELECT " COLUMNS " FROM \"s\".\"people\" t WHERE t.\"tenant\" = $1 AND (t.\"id\") > ($2) "
		"ORDER BY t.\"id\" LIMIT 51 [7:23 128:20]");
	assert_view(sql_of(*state, &owned, "limit=1", VIEW("7")),
		"SELECT " COLUMNS " FROM \"s\".\"people\" t WHERE t.\"tenant\" = $1 ORDER BY t.\"id\" LIMIT 2 [7:23]");
}

static void branches_are_ordered_and_limited_each_by_itself(void **state)
{
	struct resource res = people;
	res.order = by_tags;
	res.n_order = 3;
	res.owner = TENANT;
	res.page_default = 2;
	struct view cursor = VIEW("{\"a \\\"name\\\"\":\"n\",\"tags\":\"{a,b}\",\"id\":3}");
#define BRANCH "(SELECT t.\"id\", t.\"a \"\"name\"\"\", t.\"tags\" FROM \"s\".\"people\" t WHERE t.\"tenant\" = "
#define BY(q) " ORDER BY " q ".\"a \"\"name\"\"\" DESC NULLS LAST, " q ".\"tags\" DESC, " q ".\"id\" DESC LIMIT 3"
	assert_view(sql_of(*state, &res, cursor_of(*state, cursor), VIEW("7")),
		"SELECT u.\"id\", u.\"a \"\"name\"\"\", pg_catalog.to_json(u.\"tags\"), u.\"tags\"::pg_catalog.text FROM ("
		BRANCH "$1 AND (t.\"a \"\"name\"\"\", t.\"tags\", t.\"id\") < ($2, $3, $4)" BY("t") ") UNION ALL "
		BRANCH "$5 AND t.\"a \"\"name\"\"\" IS NULL" BY("t") ")) u" BY("u") " [7:23 n:25 {a,b}:1009 3:20 7:23]");
}

static void behind_the_last_row_there_is_nothing(void **state)
{
	static struct order_term by_name[] = { { NAME, false, false } };
	struct resource res = people;
	res.order = by_name;
	assert_view(sql_of(*state, &res, cursor_of(*state, VIEW("{\"a \\\"name\\\"\":null}")), VIEW_NONE),
		"SELECT " COLUMNS " FROM \"s\".\"people\" t WHERE false ORDER BY t.\"a \"\"name\"\"\" LIMIT 51 []");
}

static bool item_of(struct arena *a, struct statement *s, const struct resource *res, struct view key_value, struct view tenant)
{
	struct page page;
	struct shape shape;
	struct view detail;
	struct asker asker = { .arena = a, .catalog = &nothing_else, .tenant = tenant };
	assert_int_equal(item_read(&page, &bounds, &asker, res, &(struct params){ .n = 0 }, &detail), OK);
	assert_true(page_shape(&page, &shape));
	return item_statement(s, &page, &shape, &key_value);
}

static void an_item_is_asked_for_by_its_key(void **state)
{
	struct statement s;
	struct resource owned = people;
	owned.owner = TENANT;
	assert_true(item_of(*state, &s, &people, VIEW("128"), VIEW_NONE));
	assert_view(pairs_of(*state, &s), "SELECT " COLUMNS " FROM \"s\".\"people\" t WHERE t.\"id\" = $1 [128:20]");
	assert_true(item_of(*state, &s, &owned, VIEW("-128"), VIEW("7")));
	assert_view(pairs_of(*state, &s),
		"SELECT " COLUMNS " FROM \"s\".\"people\" t WHERE t.\"tenant\" = $1 AND t.\"id\" = $2 [7:23 -128:20]");
}

static void what_is_no_integer_names_no_row(void **state)
{
	static const char *const bad[] = { "", "-", "x", "1x", " 1", "1.0", "1e3", "12345678901234567890", "0x10", "--1" };
	struct statement s;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(item_of(*state, &s, &people, view_of(bad[i]), VIEW_NONE));
}

/* --- bodies --- */

#define INT(n) VIEW("\x00\x00\x00\x00\x00\x00\x00" n)

static struct view written_as(struct arena *a, enum format format, const struct resource *res, const char *query,
	struct rows *rows, size_t max_bytes, size_t piece_bytes, bool *too_long)
{
	struct page page;
	struct shape shape;
	struct buf body = BUF(1 << 20);
	page_of(a, &page, res, query, VIEW_NONE);
	assert_true(page_shape(&page, &shape));
	struct page_writer w = { .page = &page, .shape = &shape, .rows = rows, .max_bytes = max_bytes, .format = format };
	page_begin(&w, &body);
	while (!page_write(&w, &body, piece_bytes))
		;
	*too_long = w.cursor_too_long;
	struct view v = arena_copy(a, buf_view(&body));
	buf_free(&body);
	rows_free(rows);
	return v;
}

static struct view written(struct arena *a, const struct resource *res, const char *query, struct rows *rows,
	size_t max_bytes, size_t piece_bytes, bool *too_long)
{
	return written_as(a, FORMAT_JSON, res, query, rows, max_bytes, piece_bytes, too_long);
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
	const char *page = "limit=3";
	assert_view(written(*state, &people, page, three_people(), 100000, 100000, &too_long),
		"{\"data\":[" ROW1 "," ROW2 "," ROW3 "],\"next_cursor\":null,\"has_more\":false}");
	assert_view(written(*state, &people, page, result_of(0, 3, NULL), 100000, 100000, &too_long),
		"{\"data\":[],\"next_cursor\":null,\"has_more\":false}");
}

static void the_row_over_the_limit_says_that_there_is_more(void **state)
{
	bool too_long;
	const char *page = "limit=2";
	assert_view(written(*state, &people, page, three_people(), 100000, 100000, &too_long),
		"{\"data\":[" ROW1 "," ROW2 "],\"next_cursor\":\"eyJpZCI6MX0\",\"has_more\":true}");
	assert_false(too_long);
}

static void a_page_in_pieces_is_the_same_page(void **state)
{
	bool too_long;
	const char *page = "limit=2";
	struct view whole = written(*state, &people, page, three_people(), 100000, 100000, &too_long);
	for (size_t piece = 1; piece < 200; piece++)
		assert_same_view(written(*state, &people, page, three_people(), 100000, piece, &too_long), whole);
}

static void a_page_that_grows_too_big_ends_early(void **state)
{
	bool too_long;
	const char *page = "limit=3";
	struct view first = VIEW("{\"data\":[" ROW1 "],\"next_cursor\":\"eyJpZCI6MTI3fQ\",\"has_more\":true}");
	/* One row at least, whatever its size. */
	assert_same_view(written(*state, &people, page, three_people(), 1, 100000, &too_long), first);
	assert_same_view(written(*state, &people, page, three_people(), 20, 1, &too_long), first);
}

static void a_cursor_holds_what_postgresql_reads_back(void **state)
{
	bool too_long;
	struct resource res = people;
	res.order = by_tags;
	res.n_order = 3;
	const char *page = "limit=1";
	const struct view cells[] = {
		INT("\x01"), VIEW_NONE, VIEW("[\"x\",null]"), VIEW("{x,NULL}"),
		INT("\x02"), VIEW_NONE, VIEW("[]"), VIEW("{}"),
	};
	struct view body = written(*state, &res, page, result_of(2, 4, cells), 100000, 100000, &too_long);
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
	static struct order_term by_name[] = { { NAME, false, false }, { ID, false, false } };
	struct resource res = people;
	res.order = by_name;
	res.n_order = 2;
	for (int n = 0; n < 2; n++) {
		/* {"a \"name\"":"...","id":1} fits by a byte, and then no longer */
		struct view name = view_make(text, CURSOR_BYTES_MAX / 4 * 3 - strlen("{\"a \\\"name\\\"\":\"\",\"id\":1}") + (size_t)n);
		const struct view cells[] = { INT("\x01"), name, VIEW("[]"), INT("\x02"), name, VIEW("[]") };
		(void)written(*state, &res, "limit=1", result_of(2, 3, cells), 100000, 100000, &too_long);
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

static void a_page_comes_as_csv_and_as_lines(void **state)
{
	bool too_long;
	assert_view(written_as(*state, FORMAT_CSV, &people, "limit=3", three_people(), 100000, 7, &too_long),
		"id,\"a \"\"name\"\"\",tags\r\n127,Ada,\"[\"\"x\"\",null]\"\r\n1,,[]\r\n2,\"\"\"\",\"[\"\"y\"\"]\"\r\n");
	assert_view(written_as(*state, FORMAT_LINES, &people, "limit=3", three_people(), 100000, 7, &too_long),
		ROW1 "\n" ROW2 "\n" ROW3 "\n");
}

static void a_backward_page_is_written_forward(void **state)
{
	bool too_long;
	struct view body = written(*state, &people, cursor_of(*state, VIEW("{\"id\":9,\"\":\"<\"}")), three_people(), 100000,
		100000, &too_long);
	assert_view(body, "{\"data\":[" ROW3 "," ROW2 "," ROW1 "],\"next_cursor\":\"eyJpZCI6MTI3fQ\",\"has_more\":true}");
}

static void a_full_arena_makes_no_statement(void **state)
{
	(void)state;
	struct statement s;
	struct page page;
	struct shape shape;
	struct arena *a = arena_create(3072);
	page_of(a, &page, &people, "limit=50", VIEW_NONE);
	while (arena_alloc(a, 64))
		;
	assert_false(page_shape(&page, &shape));
	assert_false(page_statement(&s, &page, &(struct shape){ .n = 0 }));
	assert_true(arena_full(a));
	assert_false(shape_of(a, &people, &(struct shape){ .n = 0 }));
	arena_destroy(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		arena_test(a_page_asks_for_one_row_more),
		arena_test(the_way_back_is_the_order_backwards),
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
		arena_test(a_page_comes_as_csv_and_as_lines),
		arena_test(a_backward_page_is_written_forward),
		cmocka_unit_test(a_full_arena_makes_no_statement),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
