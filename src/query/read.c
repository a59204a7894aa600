/* The one hard fact: what is embedded is made for the rows of a page and no others. So a list is read first, ordered and
 * limited, and what belongs to its rows is joined to that, by LATERAL, at each level of the tree:
 *
 *     SELECT t.a, j1.j FROM (SELECT t.a, t.id FROM rel t WHERE ... ORDER BY ... LIMIT 51) t
 *       LEFT JOIN LATERAL (SELECT '[' || string_agg(x.j, ',') || ']' AS j FROM (... e1 ...) x) j1 ON true
 *       ORDER BY ...
 */
#include "config.h"

#include "query/read.h"

#include "base/json.h"
#include "query/value.h"

enum { OID_TEXT = 25, OID_JSON = 114, NAME_BYTES_MAX = 63 /* PostgreSQL cuts longer identifiers */ };

/* --- what a result holds --- */

static bool shape_init(struct arena *a, unsigned n, unsigned n_sort, struct shape *shape)
{
	*shape = (struct shape){
		.kind = ARENA_ARRAY(a, enum render_kind, n + 1),
		.name = ARENA_ARRAY(a, struct view, n + 1),
		.label = ARENA_ARRAY(a, struct view, n + 1),
		.type = ARENA_ARRAY(a, uint32_t, n + n_sort + 1),
		.n_sort = n_sort,
		.sort_at = ARENA_ARRAY(a, int, n_sort + 1),
		.sort_kind = ARENA_ARRAY(a, enum render_kind, n_sort + 1),
	};
	return !arena_full(a);
}

/* What a column is sent as. */
static uint32_t type_sent(const struct column *c)
{
	return render_kind(c) == RENDER_RAW ? OID_JSON : c->base_oid;
}

/* `text` is room to work in. */
static void shape_add(struct arena *a, struct shape *shape, struct view name, enum render_kind kind, uint32_t type,
                      struct buf *text)
{
	buf_clear(text);
	buf_putc(text, shape->n ? ',' : '{');
	json_string(text, name);
	buf_putc(text, ':');
	shape->kind[shape->n] = kind;
	shape->name[shape->n] = name;
	shape->label[shape->n] = arena_copy(a, buf_view(text));
	shape->type[shape->n] = type;
	shape->n_columns = ++shape->n;
}

bool shape_of(struct arena *a, const struct resource *res, struct shape *shape)
{
	if (!shape_init(a, res->n_columns, 0, shape))
		return false;
	struct buf text = BUF(1 << 20);
	for (unsigned i = 0; i < res->n_columns; i++) {
		const struct column *c = &res->columns[i];
		if (!c->hidden)
			shape_add(a, shape, c->name, render_kind(c), type_sent(c), &text);
	}
	buf_free(&text);
	return !arena_full(a);
}

bool shape_fits(const struct shape *shape, const struct rows *rows)
{
	unsigned n = (unsigned)rows_columns(rows);
	if (n < shape->n)
		return false;
	for (unsigned i = 0; i < n && i < shape->n_columns; i++) /* an item comes without those that sort */
		if (rows_type(rows, (int)i) != shape->type[i])
			return false;
	return true;
}

static unsigned count_members(const struct node *n)
{
	unsigned count = 0;
	for (struct member m = { 0 }; member_next(n, &m);)
		count++;
	return count;
}

/* The member that shows what the term sorts by, -1 when none does. */
static int member_of_term(const struct node *root, const struct sort_term *t)
{
	if (t->of || render_needs_text(&t->field.type))
		return -1;
	int at = 0;
	for (struct member m = { 0 }; member_next(root, &m); at++)
		if (m.of == root && !m.item->embed && !m.item->cast && field_same(&m.item->field, &t->field))
			return at;
	return -1;
}

bool page_shape(const struct page *page, struct shape *shape)
{
	struct arena *a = page->asker.arena;
	const struct node *root = &page->tree.root;
	if (!shape_init(a, count_members(root), page->walk.n, shape))
		return false;
	struct buf text = BUF(1 << 20);
	for (struct member m = { 0 }; member_next(root, &m);)
		if (m.item->embed) /* JSON that is put together as a text */
			shape_add(a, shape, m.item->name, RENDER_RAW, OID_TEXT, &text);
		else
			shape_add(a, shape, m.item->name, render_kind(&m.item->type), type_sent(&m.item->type), &text);
	buf_free(&text);
	for (unsigned i = 0; i < page->walk.n; i++) {
		const struct sort_term *t = &page->walk.term[i];
		bool as_text = render_needs_text(&t->field.type);
		int at = member_of_term(root, t);
		if (at < 0) {
			at = (int)shape->n_columns++;
			shape->type[at] = as_text ? OID_TEXT : type_sent(&t->field.type);
		}
		shape->sort_at[i] = at;
		shape->sort_kind[i] = as_text ? RENDER_TEXT : render_kind(&t->field.type);
	}
	return !arena_full(a);
}

/* --- one member --- */

static void write_field(struct statement *s, const struct item *item, struct view qualifier)
{
	field_write(s, &item->field, qualifier);
	if (item->cast) {
		statement_lit(s, "::");
		statement_text(s, item->type.type);
	}
}

static struct view qualifier_of(const struct node *n, const struct member *m, struct view qualifier)
{
	return m->of == n ? qualifier : m->of->as_row;
}

static void write_json_of(struct statement *s, const struct node *embed)
{
	statement_text(s, embed->as_json);
	statement_lit(s, "j");
}

/* As a column of the result. */
static void write_member(struct statement *s, const struct node *n, const struct member *m, struct view qualifier)
{
	if (m->item->embed) {
		write_json_of(s, m->item->embed);
		return;
	}
	bool convert = render_converts(&m->item->type);
	if (convert)
		statement_lit(s, "pg_catalog.to_json(");
	write_field(s, m->item, qualifier_of(n, m, qualifier));
	if (convert)
		statement_lit(s, ")");
}

static void write_sort_value(struct statement *s, const struct sort *sort, unsigned i, struct view qualifier,
                             bool exported)
{
	const struct column *type = &sort->term[i].field.type;
	bool convert = render_converts(type) && !render_needs_text(type);
	if (convert)
		statement_lit(s, "pg_catalog.to_json(");
	sort_term_write(s, sort, i, qualifier, exported);
	if (convert)
		statement_lit(s, ")");
	if (render_needs_text(type))
		statement_lit(s, "::pg_catalog.text");
}

/* All that the result holds: members, then what the cursor needs beside them. What is skipped is a parameter of its type: a
 * domain of its own might not take NULL. */
static void write_columns(struct statement *s, const struct page *page, const struct shape *shape, struct view qualifier,
                          bool exported)
{
	const struct node *root = &page->tree.root;
	const uint32_t *type = shape->type;
	bool first = true;
	for (struct member m = { 0 }; member_next(root, &m); first = false, type++) {
		if (!first)
			statement_lit(s, ", ");
		if (member_is_skipped(&m))
			statement_param(s, VIEW_NONE, *type);
		else
			write_member(s, root, &m, qualifier);
	}
	for (unsigned i = 0; i < shape->n_sort; i++) {
		if (shape->sort_at[i] < (int)shape->n)
			continue;
		if (!first)
			statement_lit(s, ", ");
		write_sort_value(s, &page->walk, i, qualifier, exported);
		first = false;
	}
}

/* --- an object, made by PostgreSQL --- */

/* Members of which each is called as the catalog calls it can be an SQL row. */
static bool is_row(const struct node *n)
{
	for (struct member m = { 0 }; member_next(n, &m);)
		if (m.item->renamed || m.item->name.n > NAME_BYTES_MAX)
			return false;
	return true;
}

static void write_row_object(struct statement *s, const struct node *n, struct view qualifier)
{
	bool first = true;
	statement_lit(s, "(SELECT pg_catalog.row_to_json(r)::pg_catalog.text FROM (SELECT ");
	for (struct member m = { 0 }; member_next(n, &m); first = false) {
		if (!first)
			statement_lit(s, ", ");
		if (m.item->embed) {
			write_json_of(s, m.item->embed);
			statement_lit(s, "::pg_catalog.json");
		} else {
			write_field(s, m.item, qualifier_of(n, &m, qualifier));
		}
		statement_lit(s, " AS ");
		statement_text(s, quote_identifier(s->arena, m.item->name));
	}
	statement_lit(s, ") r)");
}

/* Names that are the client's are parameters, like all that is his: {"name": as text, then the value, and so on. */
static void write_text_object(struct statement *s, const struct node *n, struct view qualifier)
{
	bool first = true;
	struct buf label = BUF(1 << 16);
	statement_lit(s, "(");
	for (struct member m = { 0 }; member_next(n, &m); first = false) {
		buf_clear(&label);
		buf_putc(&label, first ? '{' : ',');
		json_string(&label, m.item->name);
		buf_putc(&label, ':');
		if (!first)
			statement_lit(s, " || ");
		statement_param(s, buf_view(&label), OID_TEXT);
		statement_lit(s, " || coalesce(");
		if (m.item->embed) {
			write_json_of(s, m.item->embed);
		} else {
			statement_lit(s, "pg_catalog.to_json(");
			write_field(s, m.item, qualifier_of(n, &m, qualifier));
			statement_lit(s, ")::pg_catalog.text");
		}
		statement_lit(s, ", 'null')");
	}
	statement_text(s, first ? VIEW("'{}')") : VIEW(" || '}')"));
	buf_free(&label);
}

static void write_object(struct statement *s, const struct node *n, struct view qualifier)
{
	if (n->first && is_row(n))
		write_row_object(s, n, qualifier);
	else
		write_text_object(s, n, qualifier);
}

/* --- rows of one node --- */

/* A list to read: whose, inside of which outer row, in which order, behind which cursor. */
struct list {
	const struct node *node;
	struct view outer;
	const struct sort *sort;     /* NULL: one row, or none */
	const struct cursor *cursor; /* NULL: from the start */
	const struct view *key;      /* of an item */
	int limit;
};

static void write_limit(struct statement *s, const struct list *l)
{
	statement_lit(s, " LIMIT ");
	/* A number of ours in the text: a page size is a class of its own to the planner, and there are few. */
	statement_number(s, (int64_t)l->limit);
}

/* To-one embedded resources that the order needs. */
static void write_sort_joins(struct statement *s, const struct list *l, struct view qualifier)
{
	for (unsigned i = 0; l->sort && i < l->sort->n; i++) {
		const struct node *of = l->sort->term[i].of;
		bool joined = !of;
		for (unsigned k = 0; k < i; k++)
			joined |= l->sort->term[k].of == of;
		if (joined)
			continue;
		struct view lead = VIEW(" ON ");
		embed_table(s, VIEW(" LEFT JOIN "), of->resource, of->as_sort);
		embed_where(s, of, of->as_sort, qualifier, &lead);
	}
}

static void write_key(struct statement *s, const struct list *l, struct view qualifier, struct view *lead)
{
	const struct resource *res = l->node->resource;
	for (unsigned i = 0; l->key && i < res->n_key; i++) {
		const struct column *c = &res->columns[res->key[i]];
		statement_text(s, *lead);
		statement_text(s, qualifier);
		statement_text(s, c->quoted);
		statement_lit(s, " = ");
		statement_param(s, l->key[i], c->base_oid);
		*lead = VIEW(" AND ");
	}
}

/* From FROM to LIMIT: branch i of what comes behind the cursor. */
static void write_rows(struct statement *s, const struct list *l, unsigned branch, unsigned branches)
{
	struct view qualifier = l->node->as_row, lead = VIEW(" WHERE ");
	embed_table(s, VIEW(" FROM "), l->node->resource, qualifier);
	write_sort_joins(s, l, qualifier);
	embed_where(s, l->node, qualifier, l->outer, &lead);
	write_key(s, l, qualifier, &lead);
	if (branches == 0) {
		statement_text(s, lead);
		statement_lit(s, "false");
	} else if (l->cursor && l->cursor->set) {
		statement_text(s, lead);
		cursor_condition(s, l->sort, l->cursor, branch, qualifier);
	}
	if (l->sort) {
		sort_write(s, l->sort, qualifier, false);
		write_limit(s, l);
	}
}

static unsigned list_branches(const struct list *l)
{
	return l->cursor ? cursor_branches(l->sort, l->cursor) : 1;
}

/* Whether the outer query has a use for the column. */
static bool needs_column(const struct list *l, const struct column *c)
{
	const struct node *n = l->node;
	for (const struct item *i = n->first; i; i = i->next)
		if (!i->embed && !i->skipped && i->field.column == c)
			return true;
	for (const struct node *e = n->child; e; e = e->next)
		if (!e->skipped && link_compares(&e->link, c))
			return true;
	for (unsigned i = 0; l->sort && i < l->sort->n; i++)
		if (!sort_term_is_made(&l->sort->term[i]) && l->sort->term[i].field.column == c)
			return true;
	return false;
}

/* By name, not t.*: what nobody asked for is not even read, and need not be readable. */
static void write_raw_columns(struct statement *s, const struct list *l)
{
	const struct resource *res = l->node->resource;
	bool first = true;
	for (unsigned i = 0; i < res->n_columns; i++) {
		if (!needs_column(l, &res->columns[i]))
			continue;
		if (!first)
			statement_lit(s, ", ");
		statement_text(s, l->node->as_row);
		statement_text(s, res->columns[i].quoted);
		first = false;
	}
	for (unsigned i = 0; l->sort && i < l->sort->n; i++) {
		if (!sort_term_is_made(&l->sort->term[i]))
			continue;
		if (!first)
			statement_lit(s, ", ");
		sort_export(s, l->sort, i, l->node->as_row);
		first = false;
	}
}

/* Each branch ordered and limited by itself. */
static void write_union(struct statement *s, const struct list *l, unsigned branches)
{
	for (unsigned i = 0; i < branches; i++) {
		statement_text(s, i ? VIEW(" UNION ALL (SELECT ") : VIEW("(SELECT "));
		write_raw_columns(s, l);
		write_rows(s, l, i, branches);
		statement_lit(s, ")");
	}
}

/* The rows, raw, as a table called `qualifier`. */
static void write_inner(struct statement *s, const struct list *l, struct view qualifier)
{
	unsigned branches = list_branches(l);
	statement_lit(s, " FROM (");
	if (branches > 1) {
		statement_lit(s, "SELECT * FROM (");
		write_union(s, l, branches);
		statement_lit(s, ") u");
		sort_write(s, l->sort, VIEW("u."), true);
		write_limit(s, l);
	} else {
		statement_lit(s, "SELECT ");
		write_raw_columns(s, l);
		write_rows(s, l, 0, branches);
	}
	statement_lit(s, ") ");
	statement_text(s, view_make(qualifier.p, qualifier.n - 1));
}

/* --- what is embedded --- */

static void write_joins(struct statement *, const struct node *, struct view qualifier);

static struct list list_of(const struct node *n, struct view outer)
{
	return (struct list){ .node = n, .outer = outer, .sort = n->to_one ? NULL : &n->sort, .limit = n->limit };
}

/* The object of each row. */
static void write_objects(struct statement *s, const struct list *l)
{
	const struct node *n = l->node;
	statement_lit(s, "SELECT ");
	write_object(s, n, n->as_row);
	statement_lit(s, " AS j");
	if (!node_joins(n)) {
		write_rows(s, l, 0, 1);
		return;
	}
	write_inner(s, l, n->as_row);
	write_joins(s, n, n->as_row);
	if (l->sort)
		sort_write(s, l->sort, n->as_row, true);
}

static void write_embed(struct statement *s, const struct node *n, struct view outer)
{
	struct list l = list_of(n, outer);
	if (!n->to_one)
		statement_lit(s, "SELECT coalesce('[' || pg_catalog.string_agg(x.j, ',') || ']', '[]') AS j FROM (");
	write_objects(s, &l);
	if (!n->to_one)
		statement_lit(s, ") x");
}

static void write_spread(struct statement *s, const struct node *n, struct view outer)
{
	struct view lead = VIEW(" ON ");
	embed_table(s, VIEW(" LEFT JOIN "), n->resource, n->as_row);
	embed_where(s, n, n->as_row, outer, &lead);
	write_joins(s, n, n->as_row);
}

static void write_joins(struct statement *s, const struct node *n, struct view qualifier)
{
	for (const struct node *c = n->child; c; c = c->next) {
		if (!c->first || c->skipped)
			continue;
		if (c->spread) {
			write_spread(s, c, qualifier);
			continue;
		}
		statement_lit(s, " LEFT JOIN LATERAL (");
		write_embed(s, c, qualifier);
		statement_lit(s, ") ");
		statement_text(s, view_make(c->as_json.p, c->as_json.n - 1));
		statement_lit(s, " ON true");
	}
}

/* --- statements --- */

bool page_statement(struct statement *s, const struct page *page, const struct shape *shape)
{
	const struct node *root = &page->tree.root;
	struct list l = { .node = root, .sort = &page->walk, .cursor = &page->cursor, .limit = page->limit + 1 };
	unsigned branches = list_branches(&l);
	bool joins = node_joins(root);
	statement_init(s, page->asker.arena);
	statement_lit(s, "SELECT ");
	if (joins) {
		write_columns(s, page, shape, root->as_row, true);
		write_inner(s, &l, root->as_row);
		write_joins(s, root, root->as_row);
		sort_write(s, l.sort, root->as_row, true);
	} else if (branches > 1) {
		write_columns(s, page, shape, VIEW("u."), true);
		statement_lit(s, " FROM (");
		write_union(s, &l, branches);
		statement_lit(s, ") u");
		sort_write(s, l.sort, VIEW("u."), true);
		write_limit(s, &l);
	} else {
		write_columns(s, page, shape, root->as_row, false);
		write_rows(s, &l, 0, branches);
	}
	return statement_finish(s);
}

bool item_statement(struct statement *s, const struct page *page, const struct shape *shape, const struct view *key)
{
	const struct node *root = &page->tree.root;
	const struct resource *res = root->resource;
	struct shape members = *shape;
	struct list l = { .node = root, .key = key };
	members.n_sort = 0;
	for (unsigned i = 0; i < res->n_key; i++)
		if (!value_may_be(&res->columns[res->key[i]], key[i]))
			return false;
	statement_init(s, page->asker.arena);
	statement_lit(s, "SELECT ");
	write_columns(s, page, &members, root->as_row, false);
	if (node_joins(root)) {
		write_inner(s, &l, root->as_row);
		write_joins(s, root, root->as_row);
	} else {
		write_rows(s, &l, 0, 1);
	}
	return statement_finish(s);
}

static void write_every_row(struct statement *s, const struct page *page)
{
	struct list l = { .node = &page->tree.root };
	write_rows(s, &l, 0, 1);
}

bool count_statement(struct statement *s, const struct page *page)
{
	statement_init(s, page->asker.arena);
	statement_lit(s, "SELECT pg_catalog.count(*)");
	write_every_row(s, page);
	return statement_finish(s);
}

bool count_statement_bounded(struct statement *s, const struct page *page, int bound)
{
	statement_init(s, page->asker.arena);
	statement_lit(s, "SELECT pg_catalog.count(*) FROM (SELECT");
	write_every_row(s, page);
	statement_lit(s, " LIMIT ");
	statement_number(s, bound);
	statement_lit(s, ") c");
	return statement_finish(s);
}

bool plan_statement(struct statement *s, const struct page *page)
{
	statement_init(s, page->asker.arena);
	statement_lit(s, "EXPLAIN (FORMAT JSON) SELECT");
	write_every_row(s, page);
	return statement_finish(s);
}

int64_t planned_rows(struct arena *a, struct view json)
{
	struct json_limits limits = { .depth = 100, .values = 100000 };
	struct view why;
	const struct json *o = json_parse(a, json, &limits, &why);
	const struct json *plan = o && o->kind == JSON_ARRAY && o->child ? json_member(o->child, VIEW("Plan")) : NULL;
	const struct json *rows = plan && plan->kind == JSON_OBJECT ? json_member(plan, VIEW("Plan Rows")) : NULL;
	int64_t n = 0;
	if (!rows || rows->kind != JSON_NUMBER || rows->string.n > 18)
		return -1;
	for (size_t i = 0; i < rows->string.n && rows->string.p[i] >= '0' && rows->string.p[i] <= '9'; i++)
		n = n * 10 + (rows->string.p[i] - '0');
	return n;
}

/* --- for what writes --- */

void select_columns(struct statement *s, const struct resource *res, struct order order, struct view qualifier)
{
	bool first = true;
	for (unsigned i = 0; i < res->n_columns; i++) {
		const struct column *c = &res->columns[i];
		if (c->hidden)
			continue;
		if (!first)
			statement_lit(s, ", ");
		render_select(s, c, qualifier);
		first = false;
	}
	for (unsigned i = 0; i < order.n; i++) {
		const struct column *c = &res->columns[order.term[i].column];
		if (!render_needs_text(c))
			continue;
		statement_lit(s, ", ");
		statement_text(s, qualifier);
		statement_text(s, c->quoted);
		statement_lit(s, "::pg_catalog.text");
	}
}

static int visible_before(const struct resource *res, unsigned column)
{
	int n = 0;
	for (unsigned i = 0; i < column; i++)
		n += !res->columns[i].hidden;
	return n;
}

int order_column(const struct resource *res, struct order order, unsigned term, enum render_kind *kind)
{
	unsigned column = order.term[term].column;
	if (!render_needs_text(&res->columns[column])) {
		*kind = render_kind(&res->columns[column]);
		return visible_before(res, column);
	}
	int at = visible_before(res, res->n_columns);
	for (unsigned i = 0; i < term; i++)
		at += render_needs_text(&res->columns[order.term[i].column]);
	*kind = RENDER_TEXT;
	return at;
}
