#include "config.h"

#include "unit.h"

#include "query/write.h"

enum { ID, NAME, PRICE, SECRET, TOTAL, MADE, TENANT };

static struct column columns[] = {
	[ID] = { VIEW_INIT("id"), VIEW_INIT("\"id\""), VIEW_INIT("pg_catalog.int8"), .base_oid = 20, .category = 'N' },
	[NAME] = { VIEW_INIT("a \"name\""), VIEW_INIT("\"a \"\"name\"\"\""), VIEW_INIT("\"my types\".word"), .base_oid = 25,
		.category = 'S' },
	[PRICE] = { VIEW_INIT("price"), VIEW_INIT("\"price\""), VIEW_INIT("pg_catalog.\"numeric\""), .base_oid = 1700,
		.category = 'N' },
	[SECRET] = { VIEW_INIT("secret"), VIEW_INIT("\"secret\""), VIEW_INIT("pg_catalog.text"), .base_oid = 25,
		.category = 'S', .hidden = true },
	[TOTAL] = { VIEW_INIT("total"), VIEW_INIT("\"total\""), VIEW_INIT("pg_catalog.int8"), .base_oid = 20,
		.category = 'N', .generated = true },
	[MADE] = { VIEW_INIT("made"), VIEW_INIT("\"made\""), VIEW_INIT("pg_catalog.date"), .base_oid = 1082,
		.category = 'D', .read_only = true },
	[TENANT] = { VIEW_INIT("tenant"), VIEW_INIT("\"tenant\""), VIEW_INIT("pg_catalog.int4"), .base_oid = 23,
		.category = 'N' },
};
static unsigned key[] = { ID };
static struct order_term by_id[] = { { ID, false, false } };

static struct resource things = {
	.relation = VIEW_INIT("\"s\".\"things\""),
	.columns = columns,
	.n_columns = ARRAY_LEN(columns),
	.key = key,
	.n_key = 1,
	.order = by_id,
	.n_order = 1,
	.owner = -1,
};

static struct resource owned(void)
{
	struct resource r = things;
	r.owner = TENANT;
	return r;
}

static const struct write_limits limits = { .depth = 64, .values = 200000, .rows = 1000 };

static enum status parse(struct arena *a, const struct resource *res, const char *body, struct view *detail)
{
	struct write w = { .resource = res };
	*detail = VIEW_NONE;
	const struct json *doc = write_document(a, DOCUMENT_JSON, view_of(body), &limits, detail);
	return doc ? write_rows(&w, a, doc, VIEW_NONE, &limits, detail) : ERR_INVALID_BODY;
}

static void what_cannot_be_inserted_is_named(void **state)
{
	static const struct {
		const char *body;
		enum status status;
		const char *detail;
	} table[] = {
		{ "{\"nope\":1}", ERR_UNKNOWN_COLUMN, "There is no column \"nope\"." },
		{ "{\"id\":1,\"ID\":1}", ERR_UNKNOWN_COLUMN, "There is no column \"ID\"." },
		{ "{\"secret\":1}", ERR_UNKNOWN_COLUMN, "There is no column \"secret\"." },
		{ "{\"total\":1}", ERR_READ_ONLY_COLUMN, "The column \"total\" cannot be written." },
		{ "{\"made\":1}", ERR_READ_ONLY_COLUMN, "The column \"made\" cannot be written." },
		{ "[{\"id\":1},{\"id\":2,\"price\":3}]", ERR_INVALID_BODY, "All objects have to have the same members; the parameter \"columns\" names them otherwise." },
		{ "[{\"id\":1},{\"price\":3}]", ERR_INVALID_BODY, "All objects have to have the same members; the parameter \"columns\" names them otherwise." },
		{ "[{\"id\":1},5]", ERR_INVALID_BODY, "The body has to be an object or an array of objects." },
		{ "[[{\"id\":1}]]", ERR_INVALID_BODY, "The body has to be an object or an array of objects." },
		{ "5", ERR_INVALID_BODY, "The body has to be an object or an array of objects." },
		{ "null", ERR_INVALID_BODY, "The body has to be an object or an array of objects." },
		{ "\"{}\"", ERR_INVALID_BODY, "The body has to be an object or an array of objects." },
		{ "[]", ERR_INVALID_BODY, "The array is empty: there is nothing to write." },
		{ "[{},{}]", ERR_INVALID_BODY, "The objects of an array need at least one member." },
		{ "", ERR_INVALID_BODY, "the document ends where a value is expected (byte 0)" },
		{ "{\"id\":1", ERR_INVALID_BODY, "a comma or } is expected (byte 7)" },
		{ "{\"id\":1}x", ERR_INVALID_BODY, "there is text behind the end of the document (byte 8)" },
		{ "{\"id\":1,\"id\":2}", ERR_INVALID_BODY, "a member of this name is there already (byte 13)" },
		{ "{\"id\":NaN}", ERR_INVALID_BODY, "a value is expected (byte 6)" },
		{ "{\"a\":\"\xff\"}", ERR_INVALID_BODY, "the text is not UTF-8 (byte 6)" },
	};
	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		struct view detail;
		assert_int_equal(parse(*state, &things, table[i].body, &detail), table[i].status);
		assert_same_view(detail, view_of(table[i].detail));
	}
}

static void the_owner_column_is_not_the_clients_to_write(void **state)
{
	struct view detail;
	struct resource res = owned();
	assert_int_equal(parse(*state, &res, "{\"tenant\":1}", &detail), ERR_READ_ONLY_COLUMN);
	assert_int_equal(parse(*state, &things, "{\"tenant\":1}", &detail), OK);
}

static struct view sql_of(struct arena *a, const struct statement *stm)
{
	struct statement s = *stm;
	struct buf out = BUF(65536);
	buf_view_put(&out, view_of(s.text));
	for (int p = 0; p < s.n_params; p++)
		buf_printf(&out, "%s%s:%u", p ? ", " : " <- ", s.values[p], s.types[p]);
	struct view v = arena_copy(a, buf_view(&out));
	buf_free(&out);
	return v;
}

static struct view insert_sql(struct arena *a, const struct resource *res, const char *body, bool returning, struct view owner)
{
	struct write w = { .resource = res, .owner = owner, .returning = returning };
	struct view detail = VIEW_NONE;
	struct statement s;
	const struct json *doc = write_document(a, DOCUMENT_JSON, view_of(body), &limits, &detail);
	assert_non_null(doc);
	assert_int_equal(write_rows(&w, a, doc, VIEW_NONE, &limits, &detail), OK);
	assert_true(insert_statement(&s, a, &w));
	return sql_of(a, &s);
}

static void a_row_is_what_the_document_has(void **state)
{
	assert_view(insert_sql(*state, &things, " {\"price\": 1.10, \"a \\\"name\\\"\": null} ", false, VIEW_NONE),
		"INSERT INTO \"s\".\"things\" AS t (\"price\", \"a \"\"name\"\"\") SELECT j.\"price\", j.\"a \"\"name\"\"\" "
		"FROM pg_catalog.json_to_record($1) AS j(\"price\" pg_catalog.\"numeric\", \"a \"\"name\"\"\" \"my types\".word)"
		" <- {\"price\": 1.10, \"a \\\"name\\\"\": null}:114");
}

static void rows_come_of_one_document(void **state)
{
	assert_view(insert_sql(*state, &things, "[{\"id\":1},{\"id\":2}]", true, VIEW_NONE),
		"INSERT INTO \"s\".\"things\" AS t (\"id\") SELECT j.\"id\" FROM pg_catalog.json_to_recordset($1) "
		"AS j(\"id\" pg_catalog.int8) RETURNING t.\"id\", t.\"a \"\"name\"\"\", t.\"price\", t.\"total\", t.\"made\", "
		"t.\"tenant\" <- [{\"id\":1},{\"id\":2}]:114");
}

static void members_may_come_in_any_order(void **state)
{
	struct view detail;
	assert_int_equal(parse(*state, &things, "[{\"id\":1,\"price\":2},{\"price\":2,\"id\":1}]", &detail), OK);
}

static void a_row_of_defaults(void **state)
{
	struct resource res = owned();
	assert_view(insert_sql(*state, &things, "{}", false, VIEW_NONE), "INSERT INTO \"s\".\"things\" AS t DEFAULT VALUES");
	assert_view(insert_sql(*state, &res, "{}", false, VIEW("7")),
		"INSERT INTO \"s\".\"things\" AS t (\"tenant\") SELECT $1 <- 7:23");
}

static void an_owner_is_written_beside_the_document(void **state)
{
	struct resource res = owned();
	assert_view(insert_sql(*state, &res, "{\"id\":1}", false, VIEW("7")),
		"INSERT INTO \"s\".\"things\" AS t (\"id\", \"tenant\") SELECT j.\"id\", $1 FROM pg_catalog.json_to_record($2) "
		"AS j(\"id\" pg_catalog.int8) <- 7:23, {\"id\":1}:114");
}

/* A body of a megabyte of members that are no columns: refused at the first, not after comparing each with each. */
static void many_unknown_members_cost_no_more_than_reading_them(void **state)
{
	struct buf body = BUF(1 << 20);
	buf_lit(&body, "[");
	for (int o = 0; o < 2; o++) {
		buf_lit(&body, "{");
		for (int i = 0; i < 40000; i++)
			buf_printf(&body, "%s\"%x\":1", i ? "," : "", i);
		buf_view_put(&body, o ? VIEW("}]") : VIEW("},"));
	}
	buf_putc(&body, '\0');
	struct view detail;
	assert_int_equal(parse(*state, &things, body.p, &detail), ERR_UNKNOWN_COLUMN);
	assert_view(detail, "There is no column \"0\".");
	buf_free(&body);
}

static struct view csv_of(struct arena *a, const char *body)
{
	struct view detail = VIEW_NONE;
	const struct json *doc = write_document(a, DOCUMENT_CSV, view_of(body), &limits, &detail);
	return doc ? doc->text : detail;
}

static void csv_becomes_json(void **state)
{
	assert_view(csv_of(*state, "a,b\n1,2"), "[{\"a\":\"1\",\"b\":\"2\"}]");
	assert_view(csv_of(*state, "a,b\r\n1,\r\n\"x \"\"y\"\"\n,z\",\"\"\r\n"),
		"[{\"a\":\"1\",\"b\":null},{\"a\":\"x \\\"y\\\"\\n,z\",\"b\":\"\"}]");
	static const char *const broken[] = { "", "a", "a\n", "a,b\n1", "a,b\n1,2,3", "a\n\"x", "a\nx\"y", "a\n\"x\"y", "a\n\xff" };
	for (size_t i = 0; i < ARRAY_LEN(broken); i++)
		assert_true(view_starts(csv_of(*state, broken[i]), VIEW("The CSV is malformed in line ")));
}

static void a_form_is_one_row(void **state)
{
	struct view detail = VIEW_NONE;
	const struct json *doc = write_document(*state, DOCUMENT_FORM, VIEW("a=1&b=x+%22y"), &limits, &detail);
	assert_non_null(doc);
	assert_view(doc->text, "{\"a\":\"1\",\"b\":\"x \\\"y\"}");
}

static struct view item_sql(struct arena *a, const char *body, bool (*make)(struct statement *, struct arena *, const struct write *))
{
	static const struct view five[] = { VIEW_INIT("5") };
	struct resource res = owned();
	struct write w = { .resource = &res, .owner = VIEW("7"), .key = five };
	struct view detail = VIEW_NONE;
	struct statement s;
	assert_int_equal(write_rows(&w, a, write_document(a, DOCUMENT_JSON, view_of(body), &limits, &detail), VIEW_NONE, &limits,
	                            &detail), OK);
	assert_true(make(&s, a, &w));
	return sql_of(a, &s);
}

static void an_item_is_changed_replaced_and_deleted_by_its_key_and_owner(void **state)
{
	assert_view(item_sql(*state, "{\"price\":1,\"id\":5}", update_statement),
		"UPDATE \"s\".\"things\" AS t SET \"price\" = j.\"price\" FROM pg_catalog.json_to_record($1) AS j(\"price\" "
		"pg_catalog.\"numeric\") WHERE t.\"id\" = $2 AND t.\"tenant\" = $3 <- {\"price\":1,\"id\":5}:114, 5:20, 7:23");
	assert_view(item_sql(*state, "{\"price\":1}", replace_statement),
		"UPDATE \"s\".\"things\" AS t SET \"a \"\"name\"\"\" = DEFAULT, \"price\" = j.\"price\" FROM "
		"pg_catalog.json_to_record($1) AS j(\"price\" pg_catalog.\"numeric\") WHERE t.\"id\" = $2 AND t.\"tenant\" = $3"
		" <- {\"price\":1}:114, 5:20, 7:23");
	assert_view(item_sql(*state, "{\"price\":1}", insert_statement),
		"INSERT INTO \"s\".\"things\" AS t (\"price\", \"id\", \"tenant\") SELECT j.\"price\", $1, $2 FROM "
		"pg_catalog.json_to_record($3) AS j(\"price\" pg_catalog.\"numeric\") <- 5:20, 7:23, {\"price\":1}:114");
	assert_view(item_sql(*state, "{\"price\":1}", delete_statement),
		"DELETE FROM \"s\".\"things\" AS t WHERE t.\"id\" = $1 AND t.\"tenant\" = $2 <- 5:20, 7:23");
}

static void a_body_does_not_contradict_its_path(void **state)
{
	static const struct view five[] = { VIEW_INIT("5") };
	struct write w = { .resource = &things, .key = five };
	struct view detail = VIEW_NONE;
	const struct json *doc = write_document(*state, DOCUMENT_JSON, VIEW("{\"id\":6}"), &limits, &detail);
	assert_int_equal(write_rows(&w, *state, doc, VIEW_NONE, &limits, &detail), ERR_INVALID_BODY);
	assert_view(detail, "The body's \"id\" is not the one in the path.");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		arena_test(what_cannot_be_inserted_is_named),
		arena_test(the_owner_column_is_not_the_clients_to_write),
		arena_test(a_row_is_what_the_document_has),
		arena_test(rows_come_of_one_document),
		arena_test(members_may_come_in_any_order),
		arena_test(a_row_of_defaults),
		arena_test(an_owner_is_written_beside_the_document),
		arena_test(many_unknown_members_cost_no_more_than_reading_them),
		arena_test(csv_becomes_json),
		arena_test(a_form_is_one_row),
		arena_test(an_item_is_changed_replaced_and_deleted_by_its_key_and_owner),
		arena_test(a_body_does_not_contradict_its_path),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
