/* body: rows as they go out: a page of JSON, CSV (RFC 4180), JSON lines, or one object. */
#ifndef COMPOSURE_BODY_H
#define COMPOSURE_BODY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/attributes.h"
#include "base/buf.h"
#include "db/rows.h"
#include "query/page.h"
#include "query/read.h"

/*   id      media type */
#define FORMAT_LIST(X)                                     \
	X(JSON, "application/json")                        \
	X(CSV, "text/csv")                                 \
	X(LINES, "application/x-ndjson")                   \
	X(OBJECT, "application/vnd.pgrst.object+json")

enum format {
#define X(id, type) FORMAT_##id,
	FORMAT_LIST(X)
#undef X
	FORMAT_COUNT
};

/* The media types in the order of the enum: the first is the default. */
extern const struct view format_type[FORMAT_COUNT];

/* Writing a page goes in pieces, so that a big one does not hold up the loop. */
struct page_writer {
	const struct page *page;
	const struct shape *shape;
	const struct rows *rows;
	enum format format;
	int n, at;        /* rows that belong to the page, written so far */
	struct view behind; /* members of a JSON page that stand behind the three, with a comma before each */
	size_t max_bytes; /* the page ends early at this size: what is left is the next page's */
	bool cursor_too_long; /* there is more, but no cursor can say where: the body is not to be sent */
};

void page_begin(struct page_writer *, struct buf *body);

/* Writes about piece_bytes more. True when the body is whole. */
bool page_write(struct page_writer *, struct buf *body, size_t piece_bytes) MUST_CHECK;

/* Whether there are rows behind, or in front of, those that were written; of a whole page. */
bool page_has_next(const struct page_writer *);
bool page_has_prev(const struct page_writer *);

/* Appends the cursor to the page behind, or in front. False when it is too long. */
bool page_cursor(const struct page_writer *, bool backward, struct buf *);

/* Appends, as text, a column of the list's own order in the k-th of its rows. False: the order has no such column, plain. */
bool page_sorted_by(const struct page_writer *, int k, const struct column *, struct buf *) MUST_CHECK;

/* One row as an object. */
void row_write(struct buf *, const struct shape *, const struct rows *, int row);

#endif
