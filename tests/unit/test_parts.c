/* What an answer may come without, and the statement that is left. */
#include "config.h"

#include "unit.h"

#include "http/params.h"
#include "query/page.h"
#include "query/parts.h"
#include "query/read.h"

enum { OID_DATE_ARRAY = 1182 };

#define COLUMN(text, oid, cat, opt)                                                                                      \
	{ .name = VIEW_INIT(text), .quoted = VIEW_INIT("\"" text "\""), .type_oid = oid, .base_oid = oid,                \
	  .array_oid = 1016, .type_kind = 'b', .category = cat, .sortable = true, .not_null = true, .optional = opt }

static struct column users_columns[] = {
	COLUMN("id", 20, 'N', false), COLUMN("score", 23, 'N', true), COLUMN("days", OID_DATE_ARRAY, 'A', true),
	COLUMN("team_id", 20, 'N', true),
};
static struct column pays_columns[] = { COLUMN("id", 20, 'N', false), COLUMN("user_id", 20, 'N', false), COLUMN("sum", 20, 'N', true) };
static struct column teams_columns[] = { COLUMN("id", 20, 'N', false), COLUMN("name", 25, 'S', false) };
static unsigned by_first[] = { 0 };
static struct order_term first_up[] = { { 0, false, false } };

enum { PAYS, TEAMS, USERS }; /* by name */
static struct resource resources[] = {
#define RESOURCE(text, number, cols)                                                                               \
	{ .name = VIEW_INIT(text), .oid = number, .relation = VIEW_INIT(text), .methods = CATALOG_GET, .columns = cols, \
	  .n_columns = ARRAY_LEN(cols), .key = by_first, .n_key = 1, .order = first_up, .n_order = 1, .page_default = 5,   \
	  .page_max = 9, .owner = -1 }
	[PAYS] = RESOURCE("pays", 2, pays_columns),
	[TEAMS] = RESOURCE("teams", 3, teams_columns),
	[USERS] = RESOURCE("users", 1, users_columns),
};

#define NAMES(id, text) static struct view id[] = { VIEW_INIT(text) }, quoted_##id[] = { VIEW_INIT("\"" text "\"") }
NAMES(id, "id");
NAMES(user_id, "user_id");
NAMES(team_id, "team_id");

#define KEY(name, from, to, f, t) { VIEW_INIT(name), from, to, 1, f, t, quoted_##f, quoted_##t, false }
static struct relationship relationships[] = {
	KEY("pays_user", 2, 1, user_id, id), KEY("users_team", 1, 3, team_id, id),
};
static struct catalog catalog = {
	.resources = resources, .n_resources = ARRAY_LEN(resources), .relationships = relationships,
	.n_relationships = ARRAY_LEN(relationships),
};
static const struct bounds bounds = { 32, 200, 3, 8, 256, 1024 };

static void read_users(struct arena *a, struct page *page, const char *query)
{
	struct params all;
	struct view detail = VIEW_NONE;
	struct asker asker = { .arena = a, .catalog = &catalog };
	assert_int_equal(params_parse(a, view_of(query), 64, &all, &detail), OK);
	enum status st = page_read(page, &bounds, &asker, &resources[USERS], &all, &detail);
	if (st != OK)
		print_error("%.*s\n", VIEW_ARG(detail));
	assert_int_equal(st, OK);
}

/* Its parts by name: "pays score". */
static struct view parts(struct arena *a, const char *query)
{
	struct page page;
	struct part *part;
	struct buf out = BUF(1024);
	read_users(a, &page, query);
	unsigned n = parts_find(a, &page, &part);
	for (unsigned i = 0; i < n; i++) {
		if (i)
			buf_putc(&out, ' ');
		buf_view_put(&out, part[i].node ? part[i].node->name : part[i].column->name);
	}
	struct view v = arena_copy(a, buf_view(&out));
	buf_free(&out);
	return v;
}

/* The statement without the parts whose bit is set; behind it the members that they have. */
static struct view without(struct arena *a, const char *query, unsigned bits)
{
	struct page page;
	struct shape shape;
	struct statement s;
	struct part *part;
	struct buf out = BUF(65536);
	read_users(a, &page, query);
	unsigned n = parts_find(a, &page, &part);
	for (unsigned i = 0; i < n; i++)
		part_skip(&page, &part[i], bits >> i & 1);
	assert_true(page_shape(&page, &shape) && page_statement(&s, &page, &shape));
	buf_view_put(&out, view_of(s.text));
	for (int p = 0; p < s.n_params; p++)
		buf_printf(&out, " %s:%u", s.values[p] ? s.values[p] : "NULL", s.types[p]);
	buf_lit(&out, " without");
	for (struct member m = { 0 }; member_next(&page.tree.root, &m);)
		for (unsigned i = 0; i < n; i++)
			if ((bits >> i & 1) && part_has(&part[i], &m))
				buf_printf(&out, " %.*s", VIEW_ARG(m.item->name));
	struct view v = arena_copy(a, buf_view(&out));
	buf_free(&out);
	return v;
}

static void what_is_embedded_and_optional_at_the_top_is_a_part(void **state)
{
	assert_view(parts(*state, ""), "score days team_id");
	assert_view(parts(*state, "select=id"), "");
	assert_view(parts(*state, "select=id,a:score,b:score::text"), "score");
	assert_view(parts(*state, "select=id,pays(sum),days"), "pays days");
	assert_view(parts(*state, "select=id,pays()"), "");
}

static void what_chooses_or_sorts_is_none(void **state)
{
	assert_view(parts(*state, "score=eq.1"), "days team_id");
	assert_view(parts(*state, "or=(score.eq.1,not.and(days.is.null,id.eq.1))"), "team_id");
	assert_view(parts(*state, "order=score.desc"), "days team_id");
	assert_view(parts(*state, "select=score,team_id,teams(name)"), "teams score");
	assert_view(parts(*state, "select=score,pays(id)&pays.sum=eq.1&pays.order=sum"), "pays score");
}

static void where_an_embedded_resource_chooses_or_sorts_there_are_none(void **state)
{
	assert_view(parts(*state, "select=score,pays!inner(id)"), "");
	assert_view(parts(*state, "select=score,pays(users!inner(id))"), "");
	assert_view(parts(*state, "select=score,pays(id)&pays=is.null"), "");
	assert_view(parts(*state, "select=score,pays(id)&or=(id.eq.1,pays.not.is.null)"), "");
	assert_view(parts(*state, "select=score,teams(id)&order=teams(name)"), "");
}

static void a_column_that_is_skipped_is_a_parameter_of_its_type(void **state)
{
	assert_view(without(*state, "select=id,score,days&limit=1", 0),
		"SELECT t.\"id\", t.\"score\", pg_catalog.to_json(t.\"days\") FROM users t ORDER BY t.\"id\" LIMIT 2 without");
	assert_view(without(*state, "select=id,a:score,b:score::text,days&limit=1", 3),
		"SELECT t.\"id\", $1, $2, $3 FROM users t ORDER BY t.\"id\" LIMIT 2 NULL:23 NULL:25 NULL:114 without a b days");
	assert_view(without(*state, "select=id,score,pays(id)&limit=1", 3),
		"SELECT t.\"id\", $1, $2 FROM users t ORDER BY t.\"id\" LIMIT 2 NULL:23 NULL:25 without score pays");
}

static void a_resource_that_is_skipped_is_not_joined(void **state)
{
	assert_view(without(*state, "select=id,pays(id),teams(name)&pays.id=gt.7&limit=1", 1),
		"SELECT t.\"id\", $1, j2.j FROM (SELECT t.\"id\", t.\"team_id\" FROM users t ORDER BY t.\"id\" LIMIT 2) t"
		" LEFT JOIN LATERAL (SELECT (SELECT pg_catalog.row_to_json(r)::pg_catalog.text FROM (SELECT e2.\"name\" AS \"name\") r) AS j"
		" FROM teams e2 WHERE t.\"team_id\" = e2.\"id\") j2 ON true ORDER BY t.\"id\" NULL:25 without pays");
	assert_view(without(*state, "select=id,...teams(name,n:id)&limit=1", 1),
		"SELECT t.\"id\", $1, $2 FROM users t ORDER BY t.\"id\" LIMIT 2 NULL:25 NULL:20 without name n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		arena_test(what_is_embedded_and_optional_at_the_top_is_a_part),
		arena_test(what_chooses_or_sorts_is_none),
		arena_test(where_an_embedded_resource_chooses_or_sorts_there_are_none),
		arena_test(a_column_that_is_skipped_is_a_parameter_of_its_type),
		arena_test(a_resource_that_is_skipped_is_not_joined),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
