/* sort: the order of a list, which is always a total one: the key ends it. */
#ifndef COMPOSURE_SORT_H
#define COMPOSURE_SORT_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/view.h"
#include "catalog/catalog.h"
#include "db/statement.h"
#include "query/field.h"
#include "query/scan.h"

struct node;

struct sort_term {
	struct field field;
	const struct node *of; /* the to-one embedded resource that the field is of; NULL: the list's own */
	struct view name;      /* as a cursor names it: id, data->a->>b, users(name) */
	bool desc, nulls_first, not_null;
};

struct sort {
	struct sort_term *term;
	unsigned n;
};

enum { SORT_TERMS_MAX = 64 };

/* The order that the resource has by default, or one that the catalog's terms say. False: the arena is full. */
bool sort_of(struct arena *, const struct resource *, const struct order_term *, unsigned n, struct sort *) MUST_CHECK;

/* `a.desc.nullslast,data->>b,users(name)`, then the key. Columns that come again are left out. False, and failed. */
bool sort_read(struct scan *, const struct node *, struct sort *) MUST_CHECK;

/* The same order backwards. False: the arena is full. */
bool sort_flip(struct arena *, const struct sort *, struct sort *) MUST_CHECK;

/* Appends what term i compares, for the table that `qualifier` names. exported: it stands there under a name that
 * sort_export() has given it, as what is not a plain column does outside of the query that made it. */
void sort_term_write(struct statement *, const struct sort *, unsigned i, struct view qualifier, bool exported);
void sort_export(struct statement *, const struct sort *, unsigned i, struct view qualifier);

/* Whether the term is more than a column of the list's own. */
bool sort_term_is_made(const struct sort_term *);

/* Appends " ORDER BY ..." */
void sort_write(struct statement *, const struct sort *, struct view qualifier, bool exported);

#endif
