/* cursor: where a page ended, as clients carry it: base64url of a JSON object with the sort columns of the last row,
 * {"id":128}. Opaque to them, checked like any input.
 */
#ifndef COMPOSURE_CURSOR_H
#define COMPOSURE_CURSOR_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/status.h"
#include "base/view.h"
#include "catalog/catalog.h"
#include "db/statement.h"

/* A text key may be as long as an index row, 2,704 bytes, and JSON and base64 make it longer; the URL has to hold it. */
enum { CURSOR_BYTES_MAX = 6144, CURSOR_TERMS_MAX = 64 };

/* A total order: the last terms make it so. */
struct order {
	const struct order_term *term;
	unsigned n;
};

/* A position: one value for each term of the order, absent is NULL. Not set: before the first row. */
struct cursor {
	bool set;
	struct view value[CURSOR_TERMS_MAX];
};

/* OK, or ERR_INVALID_CURSOR: not base64url, not a JSON object, or its members are not the order's columns with values
 * of their kinds. *detail says which. Values lie in the arena. */
enum status cursor_parse(struct arena *, const struct resource *, struct order, struct view text, struct cursor *,
                         struct view *detail) MUST_CHECK;

/* How many branches the condition takes: 1 is a plain WHERE, more are to be joined by UNION ALL, each ordered and
 * limited by itself. 0: nothing comes after the cursor. */
unsigned cursor_branches(const struct resource *, struct order, const struct cursor *);

/* Appends the condition of branch i, for the table that `qualifier` names. Lexicographic and such that an index on the
 * order answers it: a row comparison where directions agree and no NULL can be met, else one branch per prefix. */
void cursor_condition(struct statement *, const struct resource *, struct order, const struct cursor *, unsigned branch,
                      struct view qualifier);

/* Appends " ORDER BY ..." for the order. */
void order_by(struct statement *, const struct resource *, struct order, struct view qualifier);

#endif
