/* read: a page or an item of a resource: the statement, and the body made of its rows. */
#ifndef COMPOSURE_READ_H
#define COMPOSURE_READ_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/status.h"
#include "catalog/catalog.h"
#include "db/rows.h"
#include "db/statement.h"
#include "query/cursor.h"
#include "query/render.h"

/* What is asked for. */
struct page {
	int limit;
	struct order order;
	struct cursor cursor;
	struct view owner; /* the tenant, where the resource has an owner column */
};

/* The columns of a result, ready to be written: kinds, and member names with their quotes, comma and colon. */
struct shape {
	unsigned n;
	enum render_kind *kind;
	struct view *name;
};

/* The visible columns of the resource in their order. False: the arena is full. */
bool shape_of(struct arena *, const struct resource *, struct shape *) MUST_CHECK;

/* Appends the visible columns, as shape_of() describes them; behind them, once more as text, those of the order that
 * render_needs_text(). */
void select_columns(struct statement *, const struct resource *, struct order, struct view qualifier);

/* Where a column of the order stands in such a result, in a form that PostgreSQL reads back, and what form it is. */
int order_column(const struct resource *, struct order, unsigned term, enum render_kind *);

/* One row more than the limit is asked for: it tells whether there is more. False: the arena is full. */
bool page_statement(struct statement *, struct arena *, const struct resource *, const struct page *) MUST_CHECK;

/* key has one value for each key column. False: the arena is full, or a value cannot be one of its column. Selects the
 * visible columns alone. */
bool item_statement(struct statement *, struct arena *, const struct resource *, const struct view *key,
                    struct view owner) MUST_CHECK;

/* Writing a page goes in pieces, so that a big one does not hold up the loop. */
struct page_writer {
	const struct resource *resource;
	const struct page *page;
	const struct shape *shape;
	const struct rows *rows;
	int n, at;       /* rows that belong to the page, written so far */
	size_t max_bytes; /* the page ends early at this size: what is left is the next page's */
	bool cursor_too_long; /* there is more, but no cursor can say where: the body is not to be sent */
};

void page_begin(struct page_writer *, struct buf *body);

/* Writes about piece_bytes more. True when the body is whole. */
bool page_write(struct page_writer *, struct buf *body, size_t piece_bytes) MUST_CHECK;

/* One row as an object. */
void row_write(struct buf *, const struct shape *, const struct rows *, int row);

#endif
