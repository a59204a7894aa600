/* embed: how a resource that is read inside of another belongs to it: along a foreign key, against one, or through a
 * junction that has two.
 *
 * `rel(...)` takes the one way there is between the two; `rel!hint(...)` names it by its constraint, a column of the
 * foreign key, or the junction. The foreign key's own name or column does for rel, too. Where a table refers to itself,
 * a column means the row that it names (manager!manager_id), the constraint those that name this row.
 */
#ifndef COMPOSURE_EMBED_H
#define COMPOSURE_EMBED_H

#include <stdbool.h>

#include "base/view.h"
#include "catalog/catalog.h"
#include "db/statement.h"
#include "query/scan.h"

struct node;

struct link {
	const struct relationship *near; /* a foreign key of the outer or, if back, of the inner; or the junction's to the outer */
	const struct relationship *far;  /* the junction's to the inner; NULL without one */
	const struct resource *junction;
	bool back;
};

/* Who asks: what he may not read is not there. */
struct asker {
	struct arena *arena;
	const struct catalog *catalog;
	const struct bounds *bounds;
	struct view role, tenant; /* absent: none */
	bool public_only;
};

/* Finds the way from `outer` to what is called `target`, and what that is. `at` is its place. False, and failed:
 * ERR_UNKNOWN_RELATIONSHIP, ERR_AMBIGUOUS_RELATIONSHIP. */
bool embed_find(struct scan *, const struct asker *, const struct resource *outer, struct view target, struct view hint,
                size_t at, const struct resource **inner, struct link *) MUST_CHECK;

bool link_is_to_one(const struct link *);

/* Whether the outer resource's column is one of those that the link compares. */
bool link_compares(const struct link *, const struct column *);

/* The embedded resource that select has so in this one, or NULL; node may be NULL. */
struct node *embed_called(const struct node *, struct view name);

/* Appends every condition on the node's rows, in the table that `qualifier` names: that they belong to the row of the
 * outer one (`outer` names it; unused at the top), are the asker's own, pass its filters, and have what is !inner in
 * them. *lead (" WHERE ", " ON ") is written before the first and is " AND " then. */
void embed_where(struct statement *, const struct node *, struct view qualifier, struct view outer, struct view *lead);

/* Appends EXISTS (...): there is such a row. */
void embed_exists(struct statement *, const struct node *, struct view outer);

/* " FROM relation alias", " LEFT JOIN relation alias": the alias is a qualifier without its point. */
void embed_table(struct statement *, struct view words, const struct resource *, struct view qualifier);

#endif
