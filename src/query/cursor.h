/* cursor: a place in a list, as clients carry it: base64url of a JSON object with the sort columns of a row,
 * {"id":128}. Opaque to them, checked like any input.
 *
 * No column has an empty name, so the member "" is ours: {"amount":5,"id":128,"":"<u8dXk2Qm"}. A "<" in it means the
 * rows before the place; the rest binds the cursor to the list that it was made for (its order and filters). Without
 * one, as in {"id":128}, it is taken wherever its columns fit the order.
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
#include "query/render.h"
#include "query/sort.h"

/* A position: one value for each term of the order, absent is NULL. Not set: before the first row. */
struct cursor {
	bool set, backward;
	struct view value[SORT_TERMS_MAX];
};

/* OK, or ERR_INVALID_CURSOR: longer than max_bytes, not base64url, not a JSON object, bound to another list, or its
 * members are not the order's columns with values of their kinds. *detail says which. Values lie in the arena. */
enum status cursor_parse(struct arena *, const struct sort *, struct view bound_to, size_t max_bytes, struct view text,
                         struct cursor *, struct view *detail) MUST_CHECK;

/* Appends a cursor to the row whose sort columns have these values, in the forms that `kind` says. bound_to is empty
 * for a plain one. False, and nothing appended, when it is longer than max_bytes. */
bool cursor_put(struct buf *, const struct sort *, struct view bound_to, bool backward, const enum render_kind *kind,
                const struct view *value, size_t max_bytes);

/* How many branches the condition takes: 1 is a plain WHERE, more are to be joined by UNION ALL, each ordered and
 * limited by itself. 0: nothing comes after the cursor. A backward cursor wants the order that sort_flip() made. */
unsigned cursor_branches(const struct sort *, const struct cursor *);

/* Appends the condition of branch i, for the table that `qualifier` names. Lexicographic and such that an index on the
 * order answers it: a row comparison where directions agree and no NULL can be met, else one branch per prefix. */
void cursor_condition(struct statement *, const struct sort *, const struct cursor *, unsigned branch,
                      struct view qualifier);

#endif
