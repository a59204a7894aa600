/* read: a page or an item of a resource, as one statement. */
#ifndef COMPOSURE_READ_H
#define COMPOSURE_READ_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/view.h"
#include "catalog/catalog.h"
#include "db/rows.h"
#include "db/statement.h"
#include "query/page.h"
#include "query/render.h"

/* The columns of a result, ready to be written: kinds, member names, and these with their quotes, comma and colon. */
struct shape {
	unsigned n, n_columns;
	enum render_kind *kind;
	struct view *name, *label;
	uint32_t *type; /* of each column, those behind the n that show included: its OID */
	/* Where the values of the order stand, in a form that PostgreSQL reads back. */
	unsigned n_sort;
	int *sort_at;
	enum render_kind *sort_kind;
};

/* What a page's or an item's statement will return. False: the arena is full. */
bool page_shape(const struct page *, struct shape *) MUST_CHECK;

/* Whether the rows are of these types. They are not where a column was changed after the catalog was read: bytes would
 * then be taken for what they are not. */
bool shape_fits(const struct shape *, const struct rows *) MUST_CHECK;

/* One row more than the limit is asked for: it tells whether there is more. False: it is too large. */
bool page_statement(struct statement *, const struct page *, const struct shape *) MUST_CHECK;

/* key has one value for each key column. False: it is too large, or a value cannot be one of its column. */
bool item_statement(struct statement *, const struct page *, const struct shape *, const struct view *key) MUST_CHECK;

/* How many rows the page's list has in all: counted, counted up to a bound, or as the planner estimates it (a row of
 * JSON, for planned_rows()). False: it is too large. */
bool count_statement(struct statement *, const struct page *) MUST_CHECK;
bool count_statement_bounded(struct statement *, const struct page *, int bound) MUST_CHECK;
bool plan_statement(struct statement *, const struct page *) MUST_CHECK;

/* The planner's estimate, out of EXPLAIN's JSON. -1 where it is none. */
int64_t planned_rows(struct arena *, struct view json);

/* --- for what writes and returns rows of one resource --- */

/* A total order out of the catalog. */
struct order {
	const struct order_term *term;
	unsigned n;
};

/* The visible columns of the resource in their order. False: the arena is full. */
bool shape_of(struct arena *, const struct resource *, struct shape *) MUST_CHECK;

/* Appends the visible columns, as shape_of() describes them; behind them, once more as text, those of the order that
 * render_needs_text(). */
void select_columns(struct statement *, const struct resource *, struct order order, struct view qualifier);

/* Where a column of the order stands in such a result, in a form that PostgreSQL reads back, and what form it is. */
int order_column(const struct resource *, struct order, unsigned term, enum render_kind *);

#endif
