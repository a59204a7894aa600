/* The tree of a query over a catalog of three tables, and the statement that it becomes. */
#include "config.h"

#include "unit.h"

#include "http/params.h"
#include "query/page.h"
#include "query/read.h"

#define COLUMN(text, oid, array, cat, nn)                                                                       \
	{ .name = VIEW_INIT(text), .quoted = VIEW_INIT("\"" text "\""), .type_oid = oid, .base_oid = oid,        \
	  .array_oid = array, .type_kind = 'b', .category = cat, .sortable = true, .not_null = nn }

static struct column users_columns[] = {
	COLUMN("id", 20, 1016, 'N', true), COLUMN("name", 25, 1009, 'S', false), COLUMN("boss", 20, 1016, 'N', false),
	COLUMN("doc", 3802, 3807, 'U', false),
};
static struct column pays_columns[] = {
	COLUMN("id", 20, 1016, 'N', true), COLUMN("user_id", 20, 1016, 'N', true), COLUMN("tenant", 25, 1009, 'S', true),
};
static struct column likes_columns[] = { COLUMN("user_id", 20, 1016, 'N', true), COLUMN("pay_id", 20, 1016, 'N', true) };
static unsigned by_first[] = { 0, 1 };
static struct order_term first_up[] = { { 0, false, false }, { 1, false, false } };

enum { LIKES, PAYS, USERS }; /* by name */
static struct resource resources[] = {
#define RESOURCE(text, number, cols, n, own)                                                                       \
	{ .name = VIEW_INIT(text), .oid = number, .relation = VIEW_INIT(text), .methods = CATALOG_GET, .columns = cols, \
	  .n_columns = ARRAY_LEN(cols), .key = by_first, .n_key = n, .order = first_up, .n_order = n, .page_default = 5,   \
	  .page_max = 9, .owner = own }
	[LIKES] = RESOURCE("likes", 3, likes_columns, 2, -1),
	[PAYS] = RESOURCE("pays", 2, pays_columns, 1, 2),
	[USERS] = RESOURCE("users", 1, users_columns, 1, -1),
};

#define NAMES(id, text) static struct view id[] = { VIEW_INIT(text) }, quoted_##id[] = { VIEW_INIT("\"" text "\"") }
NAMES(id, "id");
NAMES(boss, "boss");
NAMES(user_id, "user_id");
NAMES(pay_id, "pay_id");

#define KEY(name, from, to, f, t) { VIEW_INIT(name), from, to, 1, f, t, quoted_##f, quoted_##t, false }
static struct relationship relationships[] = {
	KEY("likes_pay", 3, 2, pay_id, id), KEY("likes_user", 3, 1, user_id, id), KEY("pays_user", 2, 1, user_id, id),
	KEY("users_boss", 1, 1, boss, id),
};
static struct catalog catalog = {
	.resources = resources, .n_resources = ARRAY_LEN(resources), .relationships = relationships,
	.n_relationships = ARRAY_LEN(relationships),
};
static const struct bounds bounds = { 32, 200, 3, 8, 256, 1024 };

static enum status read_page(struct arena *a, struct page *page, unsigned resource, const char *query, struct view *detail)
{
	struct params all;
	struct asker asker = { .arena = a, .catalog = &catalog, .tenant = VIEW("T") };
	assert_int_equal(params_parse(a, view_of(query), 64, &all, detail), OK);
	return page_read(page, &bounds, &asker, &resources[resource], &all, detail);
}

static struct view sql(struct arena *a, unsigned resource, const char *query)
{
	struct page page;
	struct shape shape;
	struct statement s;
	struct view detail = VIEW_NONE;
	if (read_page(a, &page, resource, query, &detail) != OK)
		print_error("%.*s\n", VIEW_ARG(detail));
	assert_true(page_shape(&page, &shape) && page_statement(&s, &page, &shape));
	struct buf out = BUF(65536);
	buf_view_put(&out, view_of(s.text));
	buf_lit(&out, " [");
	for (int p = 0; p < s.n_params; p++)
		buf_printf(&out, "%s%s:%u", p ? " " : "", s.values[p], s.types[p]);
	buf_lit(&out, "]");
	struct view v = arena_copy(a, buf_view(&out));
	buf_free(&out);
	return v;
}

static void refused(struct arena *a, unsigned resource, const char *query, enum status st, const char *said)
{
	struct page page;
	struct view detail = VIEW_NONE;
	assert_int_equal(read_page(a, &page, resource, query, &detail), st);
	if (!memmem(detail.p, detail.n, said, strlen(said)))
		fail_msg("\"%.*s\" does not say \"%s\"", VIEW_ARG(detail), said);
}

static void columns_have_names_casts_and_paths(void **state)
{
	assert_view(sql(*state, USERS, "select=who:name,id::text,doc->a->>'b'&limit=1"),
		"SELECT t.\"name\", t.\"id\"::pg_catalog.text, (t.\"doc\" -> $1 ->> $2), t.\"id\" FROM users t ORDER BY t.\"id\" LIMIT 2 "
		"[a:25 'b':25]");
}

static void what_is_embedded_is_joined_to_the_page(void **state)
{
	assert_view(sql(*state, PAYS, "select=id,users(name)&limit=1"),
		"SELECT t.\"id\", j1.j FROM (SELECT t.\"id\", t.\"user_id\" FROM pays t WHERE t.\"tenant\" = $1 ORDER BY t.\"id\" LIMIT 2) t"
		" LEFT JOIN LATERAL (SELECT (SELECT pg_catalog.row_to_json(r)::pg_catalog.text FROM (SELECT e1.\"name\" AS \"name\") r) AS j"
		" FROM users e1 WHERE t.\"user_id\" = e1.\"id\") j1 ON true ORDER BY t.\"id\" [T:25]");
	assert_view(sql(*state, USERS, "select=id,p:pays!pays_user(n:id)&p.id=gt.3&p.limit=2&limit=1"),
		"SELECT t.\"id\", j1.j FROM (SELECT t.\"id\" FROM users t ORDER BY t.\"id\" LIMIT 2) t"
		" LEFT JOIN LATERAL (SELECT coalesce('[' || pg_catalog.string_agg(x.j, ',') || ']', '[]') AS j FROM (SELECT"
		" ($1 || coalesce(pg_catalog.to_json(e1.\"id\")::pg_catalog.text, 'null') || '}') AS j FROM pays e1"
		" WHERE e1.\"user_id\" = t.\"id\" AND e1.\"tenant\" = $2 AND e1.\"id\" > $3 ORDER BY e1.\"id\" LIMIT 2) x) j1 ON true"
		" ORDER BY t.\"id\" [{\"n\"::25 T:25 3:20]");
}

static void inner_keeps_rows_out_of_the_page(void **state)
{
	assert_view(sql(*state, USERS, "select=id,pays!inner()&pays.id=eq.7&limit=1"),
		"SELECT t.\"id\" FROM users t WHERE EXISTS (SELECT FROM pays x1 WHERE x1.\"user_id\" = t.\"id\" AND x1.\"tenant\" = $1"
		" AND x1.\"id\" = $2) ORDER BY t.\"id\" LIMIT 2 [T:25 7:20]");
}

static void a_junction_is_passed_by_exists(void **state)
{
	struct view text = sql(*state, PAYS, "select=id,fans:users!likes(name)&limit=1");
	assert_non_null(memmem(text.p, text.n, "FROM users e1 WHERE EXISTS (SELECT FROM likes y1 WHERE y1.\"pay_id\" = t.\"id\" AND "
		"y1.\"user_id\" = e1.\"id\")", 100));
}

static void an_order_by_what_is_embedded_joins_it_before_the_limit(void **state)
{
	assert_view(sql(*state, PAYS, "select=id,users()&order=users(name).desc&limit=1"),
		"SELECT t.\"id\", o1.\"name\" FROM pays t LEFT JOIN users o1 ON t.\"user_id\" = o1.\"id\" WHERE t.\"tenant\" = $1"
		" ORDER BY o1.\"name\" DESC, t.\"id\" DESC LIMIT 2 [T:25]");
}

static void a_list_is_one_parameter(void **state)
{
	assert_view(sql(*state, USERS, "select=id&id=in.(1,2)&name=not.like(any).{a*,b}&limit=1"),
		"SELECT t.\"id\" FROM users t WHERE t.\"id\" = ANY ($1) AND NOT (t.\"name\" LIKE ANY ($2)) ORDER BY t.\"id\" LIMIT 2 "
		"[{\"1\",\"2\"}:1016 {\"a%\",\"b\"}:1009]");
}

static void a_reference_to_itself_has_two_directions(void **state)
{
	refused(*state, USERS, "select=users(*)", ERR_AMBIGUOUS_RELATIONSHIP, "!boss, !users_boss");
	struct view up = sql(*state, USERS, "select=id,users!boss(id)"), down = sql(*state, USERS, "select=id,users!users_boss(id)");
	assert_non_null(memmem(up.p, up.n, "WHERE t.\"boss\" = e1.\"id\"", 22));
	assert_non_null(memmem(down.p, down.n, "WHERE e1.\"boss\" = t.\"id\"", 22));
	assert_non_null(memmem(sql(*state, USERS, "select=id,boss(id)").p, up.n, "WHERE t.\"boss\" = e1.\"id\"", 22));
}

static void what_is_wrong_is_told_with_its_place(void **state)
{
	refused(*state, USERS, "select=id,likes2(*)", ERR_UNKNOWN_RELATIONSHIP, "byte 3 of \"select\"");
	refused(*state, USERS, "select=id,...pays(id)", ERR_INVALID_SELECT, "once");
	refused(*state, USERS, "select=pays(id),pays(id)", ERR_INVALID_SELECT, "twice");
	refused(*state, USERS, "select=pays(nope)", ERR_UNKNOWN_COLUMN, "byte 5 of \"select\"");
	refused(*state, USERS, "select=id,pays(id&id=eq.1", ERR_INVALID_SELECT, "parenthesis");
	refused(*state, USERS, "select=pays(users(pays(users(id))))", ERR_QUERY_TOO_COMPLEX, "3 levels");
	refused(*state, USERS, "select=id,pays(id)&pays.id=eq.x", ERR_INVALID_VALUE, "byte 3 of \"pays.id\"");
	refused(*state, USERS, "select=id,pays(id)&pays.nope=eq.1", ERR_UNKNOWN_PARAMETER, "pays.nope");
	refused(*state, USERS, "select=id,pays(id)&pays.offset=1", ERR_UNKNOWN_PARAMETER, "pays.offset");
	refused(*state, USERS, "order=pays(id)", ERR_INVALID_ORDER, "not embedded");
	refused(*state, USERS, "select=id,pays(id)&order=pays(id)", ERR_INVALID_ORDER, "many");
}

static void without_a_tenant_what_belongs_to_tenants_is_not_there(void **state)
{
	struct params all;
	struct page page;
	struct view detail = VIEW_NONE;
	struct asker asker = { .arena = *state, .catalog = &catalog };
	assert_int_equal(params_parse(*state, VIEW("select=pays(id)"), 64, &all, &detail), OK);
	assert_int_equal(page_read(&page, &bounds, &asker, &resources[USERS], &all, &detail), ERR_UNKNOWN_RELATIONSHIP);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		arena_test(columns_have_names_casts_and_paths),
		arena_test(what_is_embedded_is_joined_to_the_page),
		arena_test(inner_keeps_rows_out_of_the_page),
		arena_test(a_junction_is_passed_by_exists),
		arena_test(an_order_by_what_is_embedded_joins_it_before_the_limit),
		arena_test(a_list_is_one_parameter),
		arena_test(a_reference_to_itself_has_two_directions),
		arena_test(what_is_wrong_is_told_with_its_place),
		arena_test(without_a_tenant_what_belongs_to_tenants_is_not_there),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
