#include "config.h"

#include "query/body.h"

#include "query/render.h"

const struct view format_type[FORMAT_COUNT] = {
#define X(id, type) [FORMAT_##id] = VIEW_INIT(type),
	FORMAT_LIST(X)
#undef X
};

/* --- one row --- */

void row_write(struct buf *b, const struct shape *shape, const struct rows *rows, int row)
{
	for (unsigned i = 0; i < shape->n; i++) {
		buf_view_put(b, shape->label[i]);
		render_value(b, shape->kind[i], rows_value(rows, row, (int)i));
	}
	if (shape->n == 0)
		buf_putc(b, '{');
	buf_putc(b, '}');
}

/* RFC 4180: in quotes where it has to be, and where it is empty but not NULL. */
static void put_csv(struct buf *b, struct view v)
{
	bool plain = v.n > 0;
	for (size_t i = 0; plain && i < v.n; i++)
		plain = v.p[i] != '"' && v.p[i] != ',' && v.p[i] != '\r' && v.p[i] != '\n';
	if (plain) {
		buf_view_put(b, v);
		return;
	}
	buf_putc(b, '"');
	for (size_t i = 0; i < v.n; i++) {
		if (v.p[i] == '"')
			buf_putc(b, '"');
		buf_putc(b, v.p[i]);
	}
	buf_putc(b, '"');
}

static void csv_header(struct buf *b, const struct shape *shape)
{
	for (unsigned i = 0; i < shape->n; i++) {
		if (i)
			buf_putc(b, ',');
		put_csv(b, shape->name[i]);
	}
	buf_lit(b, "\r\n");
}

static void csv_row(struct buf *b, const struct shape *shape, const struct rows *rows, int row)
{
	struct buf text = BUF(b->limit);
	for (unsigned i = 0; i < shape->n; i++) {
		struct view v = rows_value(rows, row, (int)i);
		if (i)
			buf_putc(b, ',');
		if (!v.p)
			continue;
		buf_clear(&text);
		render_text(&text, shape->kind[i], v);
		put_csv(b, buf_view(&text));
	}
	buf_lit(b, "\r\n");
	b->failed |= buf_failed(&text);
	buf_free(&text);
}

static void put_row(struct page_writer *w, struct buf *b, int row)
{
	switch (w->format) {
	case FORMAT_JSON:
		if (w->at)
			buf_putc(b, ',');
		row_write(b, w->shape, w->rows, row);
		break;
	case FORMAT_CSV:
		csv_row(b, w->shape, w->rows, row);
		break;
	case FORMAT_LINES:
		row_write(b, w->shape, w->rows, row);
		buf_putc(b, '\n');
		break;
	case FORMAT_OBJECT:
	case FORMAT_COUNT:
		row_write(b, w->shape, w->rows, row);
		break;
	}
}

/* --- a page --- */

/* Which row of the result is the k-th of the page: a backward walk found them in reverse. */
static int row_at(const struct page_writer *w, int k)
{
	return w->page->cursor.backward ? w->n - 1 - k : k;
}

/* A page that was walked backwards is written from its far end, so where it is to end early is known only by what the
 * rows are about to need: as much as they came with. */
static int rows_that_fit(const struct page_writer *w, int n)
{
	size_t bytes = 0;
	int columns = rows_columns(w->rows), fit = 0;
	while (fit < n && (fit == 0 || bytes < w->max_bytes)) {
		for (int c = 0; c < columns; c++)
			bytes += rows_value(w->rows, fit, c).n;
		for (unsigned c = 0; c < w->shape->n; c++)
			bytes += w->shape->label[c].n;
		fit++;
	}
	return fit;
}

void page_begin(struct page_writer *w, struct buf *body)
{
	int got = rows_count(w->rows);
	w->n = got > w->page->limit ? w->page->limit : got;
	if (w->page->cursor.backward)
		w->n = rows_that_fit(w, w->n);
	w->at = 0;
	w->cursor_too_long = false;
	if (w->format == FORMAT_JSON)
		buf_lit(body, "{\"data\":[");
	else if (w->format == FORMAT_CSV)
		csv_header(body, w->shape);
}

bool page_has_next(const struct page_writer *w)
{
	if (w->page->cursor.backward)
		return w->at > 0; /* the row that the cursor was made of */
	return rows_count(w->rows) > w->at;
}

bool page_has_prev(const struct page_writer *w)
{
	if (w->page->cursor.backward)
		return rows_count(w->rows) > w->n;
	return w->page->cursor.set && w->at > 0;
}

bool page_cursor(const struct page_writer *w, bool backward, struct buf *b)
{
	const struct shape *shape = w->shape;
	struct view value[SORT_TERMS_MAX];
	int row = row_at(w, backward ? 0 : w->at - 1);
	for (unsigned i = 0; i < shape->n_sort && i < SORT_TERMS_MAX; i++)
		value[i] = rows_value(w->rows, row, shape->sort_at[i]);
	return cursor_put(b, &w->page->walk, w->page->binding, backward, shape->sort_kind, value,
	                  w->page->bounds.cursor_bytes);
}

bool page_sorted_by(const struct page_writer *w, int k, const struct column *column, struct buf *b)
{
	const struct shape *shape = w->shape;
	const struct sort *order = &w->page->walk;
	for (unsigned i = 0; i < order->n && i < shape->n_sort; i++) {
		if (sort_term_is_made(&order->term[i]) || order->term[i].field.column != column)
			continue;
		render_text(b, shape->sort_kind[i], rows_value(w->rows, row_at(w, k), shape->sort_at[i]));
		return true;
	}
	return false;
}

static void end_json(struct page_writer *w, struct buf *body)
{
	bool more = page_has_next(w);
	buf_lit(body, "],\"next_cursor\":");
	if (more) {
		buf_putc(body, '"');
		w->cursor_too_long = !page_cursor(w, false, body);
		buf_putc(body, '"');
	} else {
		buf_lit(body, "null");
	}
	buf_view_put(body, more ? VIEW(",\"has_more\":true") : VIEW(",\"has_more\":false"));
	buf_view_put(body, w->behind);
	buf_putc(body, '}');
}

bool page_write(struct page_writer *w, struct buf *body, size_t piece_bytes)
{
	size_t until = body->n + piece_bytes;
	bool bounded = !w->page->cursor.backward;
	while (w->at < w->n && body->n < until && (!bounded || w->at == 0 || body->n < w->max_bytes)) {
		put_row(w, body, row_at(w, w->at));
		w->at++;
	}
	if (w->at < w->n && (!bounded || body->n < w->max_bytes) && !buf_failed(body))
		return false;
	if (w->format == FORMAT_JSON)
		end_json(w, body);
	return true;
}
