/* page: what a request asks of a list, out of its query string, checked: columns, filters, order, limit, cursor. */
#ifndef COMPOSURE_PAGE_H
#define COMPOSURE_PAGE_H

#include <stdbool.h>

#include "base/status.h"
#include "base/view.h"
#include "catalog/catalog.h"
#include "http/params.h"
#include "query/cursor.h"
#include "query/embed.h"
#include "query/scan.h"
#include "query/select.h"
#include "query/sort.h"

struct page {
	struct bounds bounds;
	struct asker asker;
	struct tree tree;
	int limit;
	bool plain;           /* in its default order, every row: its cursors are plain ones */
	struct view binding;  /* what its cursors are bound to: empty for a plain page */
	struct cursor cursor;
	struct sort walk;     /* the order in which rows come: the list's own, or for a backward cursor its reverse */
};

/* Fills in all of it: `bounds` and `asker` are copied. Not to be moved afterwards. Any other status than OK is the
 * client's to read, with *detail in the arena. */
enum status page_read(struct page *, const struct bounds *, const struct asker *, const struct resource *,
                      const struct params *, struct view *detail) MUST_CHECK;

/* The same for an item, which takes `select` and what belongs to embedded resources. */
enum status item_read(struct page *, const struct bounds *, const struct asker *, const struct resource *,
                      const struct params *, struct view *detail) MUST_CHECK;

/* Whether code of the user's may run in it: a view's, a policy's, of whatever it reads. */
bool page_runs_code(const struct page *);

/* Whether all that it reads is public and `anybody` (a role; absent: the worker itself) may read it: then its answer is the
 * same whoever asks. */
bool page_is_public(const struct page *, struct view anybody);

/* Of a statement of which PostgreSQL could not read a value (absent: it did not say which): whose fault it is, and the
 * place.
 * ERR_INVALID_CURSOR, ERR_INVALID_VALUE, or OK when it is nobody's. */
enum status page_blame(const struct page *, struct view value, struct view *detail) MUST_CHECK;

#endif
