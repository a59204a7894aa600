#include "config.h"

#include "query/read.h"

#include "base/base64.h"
#include "base/json.h"

/* --- statements --- */

bool shape_of(struct arena *a, const struct resource *res, struct shape *shape)
{
	shape->n = 0;
	shape->kind = ARENA_ARRAY(a, enum render_kind, res->n_columns);
	shape->name = ARENA_ARRAY(a, struct view, res->n_columns);
	struct buf text = BUF(1 << 20);
	for (unsigned i = 0; shape->kind && shape->name && i < res->n_columns; i++) {
		const struct column *c = &res->columns[i];
		if (c->hidden)
			continue;
		buf_clear(&text);
		buf_putc(&text, shape->n ? ',' : '{');
		json_string(&text, c->name);
		buf_putc(&text, ':');
		shape->kind[shape->n] = render_kind(c);
		shape->name[shape->n] = arena_copy(a, buf_view(&text));
		shape->n++;
	}
	buf_free(&text);
	return !arena_full(a);
}

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

/* The owner's rows alone, where the resource has an owner. Returns what stands before a further condition. */
static struct view owner_condition(struct statement *s, const struct resource *res, struct view owner)
{
	if (res->owner < 0)
		return VIEW(" WHERE ");
	statement_lit(s, " WHERE t.");
	statement_text(s, res->columns[res->owner].quoted);
	statement_lit(s, " = ");
	statement_param(s, owner, res->columns[res->owner].base_oid);
	return VIEW(" AND ");
}

static void from(struct statement *s, const struct resource *res)
{
	statement_lit(s, " FROM ");
	statement_text(s, res->relation);
	statement_lit(s, " t");
}

static void limit(struct statement *s, const struct page *page)
{
	statement_lit(s, " LIMIT ");
	/* A number of ours in the text: a page size is a class of its own to the planner, and there are few. */
	statement_number(s, (int64_t)page->limit + 1);
}

/* By name, not t.*: hidden columns are not even read, and need not be readable. */
static void raw_columns(struct statement *s, const struct resource *res)
{
	bool first = true;
	for (unsigned i = 0; i < res->n_columns; i++) {
		if (res->columns[i].hidden)
			continue;
		statement_text(s, first ? VIEW("t.") : VIEW(", t."));
		statement_text(s, res->columns[i].quoted);
		first = false;
	}
}

/* Each branch raw, ordered and limited by itself; then the same over what they bring together. */
static void union_of_branches(struct statement *s, const struct resource *res, const struct page *page, unsigned n)
{
	statement_lit(s, "SELECT ");
	select_columns(s, res, page->order, VIEW("u."));
	statement_lit(s, " FROM (");
	for (unsigned i = 0; i < n; i++) {
		statement_text(s, i ? VIEW(" UNION ALL (SELECT ") : VIEW("(SELECT "));
		raw_columns(s, res);
		from(s, res);
		struct view more = owner_condition(s, res, page->owner);
		statement_text(s, more);
		cursor_condition(s, res, page->order, &page->cursor, i, VIEW("t."));
		order_by(s, res, page->order, VIEW("t."));
		limit(s, page);
		statement_lit(s, ")");
	}
	statement_lit(s, ") u");
	order_by(s, res, page->order, VIEW("u."));
	limit(s, page);
}

bool page_statement(struct statement *s, struct arena *a, const struct resource *res, const struct page *page)
{
	statement_init(s, a);
	unsigned n = cursor_branches(res, page->order, &page->cursor);
	if (n > 1) {
		union_of_branches(s, res, page, n);
		return statement_finish(s);
	}
	statement_lit(s, "SELECT ");
	select_columns(s, res, page->order, VIEW("t."));
	from(s, res);
	struct view more = owner_condition(s, res, page->owner);
	if (n == 0) {
		statement_text(s, more);
		statement_lit(s, "false");
	} else if (page->cursor.set) {
		statement_text(s, more);
		cursor_condition(s, res, page->order, &page->cursor, 0, VIEW("t."));
	}
	order_by(s, res, page->order, VIEW("t."));
	limit(s, page);
	return statement_finish(s);
}

/* An integer column's value that is no integer names no row: PostgreSQL need not be asked. */
static bool can_be(const struct column *c, struct view v)
{
	if (c->base_oid != 20 && c->base_oid != 21 && c->base_oid != 23)
		return true;
	size_t at = v.n && v.p[0] == '-';
	if (v.n == at || v.n - at > 19)
		return false;
	for (; at < v.n; at++)
		if (v.p[at] < '0' || v.p[at] > '9')
			return false;
	return true;
}

bool item_statement(struct statement *s, struct arena *a, const struct resource *res, const struct view *key,
                    struct view owner)
{
	statement_init(s, a);
	statement_lit(s, "SELECT ");
	select_columns(s, res, (struct order){ .n = 0 }, VIEW("t."));
	from(s, res);
	struct view more = owner_condition(s, res, owner);
	for (unsigned i = 0; i < res->n_key; i++) {
		const struct column *c = &res->columns[res->key[i]];
		if (!can_be(c, key[i]))
			return false;
		statement_text(s, more);
		statement_lit(s, "t.");
		statement_text(s, c->quoted);
		statement_lit(s, " = ");
		statement_param(s, key[i], c->base_oid);
		more = VIEW(" AND ");
	}
	return statement_finish(s);
}

/* --- bodies --- */

void row_write(struct buf *b, const struct shape *shape, const struct rows *rows, int row)
{
	for (unsigned i = 0; i < shape->n; i++) {
		buf_view_put(b, shape->name[i]);
		render_value(b, shape->kind[i], rows_value(rows, row, (int)i));
	}
	if (shape->n == 0)
		buf_putc(b, '{');
	buf_putc(b, '}');
}

void page_begin(struct page_writer *w, struct buf *body)
{
	int got = rows_count(w->rows);
	w->n = got > w->page->limit ? w->page->limit : got;
	w->at = 0;
	w->cursor_too_long = false;
	buf_lit(body, "{\"data\":[");
}

/* Of the last row written. */
static void put_cursor(struct page_writer *w, struct buf *body)
{
	struct order order = w->page->order;
	struct buf json = BUF(CURSOR_BYTES_MAX / 4 * 3);
	for (unsigned i = 0; i < order.n; i++) {
		enum render_kind kind;
		int at = order_column(w->resource, order, i, &kind);
		buf_putc(&json, i ? ',' : '{');
		json_string(&json, w->resource->columns[order.term[i].column].name);
		buf_putc(&json, ':');
		render_value(&json, kind, rows_value(w->rows, w->at - 1, at));
	}
	buf_putc(&json, '}');
	w->cursor_too_long = buf_failed(&json) || order.n > CURSOR_TERMS_MAX;
	buf_putc(body, '"');
	base64url_put(body, buf_view(&json));
	buf_putc(body, '"');
	buf_free(&json);
}

bool page_write(struct page_writer *w, struct buf *body, size_t piece_bytes)
{
	size_t until = body->n + piece_bytes;
	while (w->at < w->n && body->n < until && (w->at == 0 || body->n < w->max_bytes)) {
		if (w->at)
			buf_putc(body, ',');
		row_write(body, w->shape, w->rows, w->at);
		w->at++;
	}
	if (w->at < w->n && body->n < w->max_bytes)
		return false;
	bool more = rows_count(w->rows) > w->at;
	buf_lit(body, "],\"next_cursor\":");
	if (more)
		put_cursor(w, body);
	else
		buf_lit(body, "null");
	buf_view_put(body, more ? VIEW(",\"has_more\":true}") : VIEW(",\"has_more\":false}"));
	return true;
}
