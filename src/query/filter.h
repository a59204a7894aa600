/* filter: which rows. PostgREST's grammar, read into a tree that is checked against the catalog, and written as SQL.
 *
 *     ?age=gte.18&status=in.(a,"b,c")&or=(a.eq.1,not.and(b.is.null,c.like.x*))&data->a->>b=eq.5
 *
 * Whoever reads a query string takes its own parameters out of it (select, order, limit, ...) and gives each of the
 * others to filters_take(). Then:
 *
 *     struct filters f;
 *     filters_init(&f, arena, catalog, resource, &bounds);
 *     for each parameter that is not yours:
 *         if ((status = filters_take(&f, &params.item[i], &detail)) != OK)
 *             return problem(ex, status, detail);
 *     ...
 *     statement_lit(s, "UPDATE ... WHERE ");       (and the owner's condition, which is not filters' business)
 *     if (filters_any(&f))
 *         filters_write(s, &f, VIEW("t."));        (one condition, in parentheses where it needs them)
 *
 * Values become parameters of their column's base type, a list one array parameter, so that texts stay few. A value
 * that only PostgreSQL can judge comes back as SQLSTATE 22P02, 22007, 22008 or 22003 (2201B for a regular expression,
 * 42601 for fts): the client's doing.
 */
#ifndef COMPOSURE_FILTER_H
#define COMPOSURE_FILTER_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/status.h"
#include "base/view.h"
#include "catalog/catalog.h"
#include "db/statement.h"
#include "http/params.h"
#include "query/scan.h"

struct condition;
struct node;

/* The conditions of one resource: all of them hold. Zero-cost to copy; the tree lies in the arena. */
struct filters {
	struct arena *arena;
	const struct catalog *catalog;
	const struct resource *resource;
	const struct bounds *bounds;
	const struct node *node;  /* embedded resources that a condition may name (payments=is.null); NULL: none */
	unsigned *count;          /* conditions so far; filters of one query may share it */
	unsigned own_count;
	size_t prefix;            /* bytes of a parameter's name that stand before ours: "payments." */
	struct condition *first, *last;
};

/* Not to be moved afterwards, unless `count` is set to another place. */
void filters_init(struct filters *, struct arena *, const struct catalog *, const struct resource *,
                  const struct bounds *);

/* One parameter: `column=operator.value`, `and=(...)`, `or=(...)`, `not.and=(...)`, `not.or=(...)`. Any other status
 * is the client's to read, with *detail in the arena: ERR_UNKNOWN_PARAMETER (the name is no column's),
 * ERR_UNKNOWN_COLUMN (inside and/or), ERR_UNKNOWN_OPERATOR, ERR_INVALID_FILTER, ERR_INVALID_VALUE,
 * ERR_QUERY_TOO_COMPLEX. */
enum status filters_take(struct filters *, const struct param *, struct view *detail) MUST_CHECK;

static inline bool filters_any(const struct filters *f)
{
	return f->first != NULL;
}

/* Whether one of the conditions is of that column; whether one is of an embedded resource. */
bool filters_use_column(const struct filters *, const struct column *);
bool filters_use_embeds(const struct filters *);

/* Appends the condition for the table that `qualifier` names ("t." or empty). Only where filters_any(). */
void filters_write(struct statement *, const struct filters *, struct view qualifier);

/* Whether the value is one of a condition's; *detail then says which one's, with its place. For an error of
 * PostgreSQL's, which knows the value alone. */
bool filters_blame(const struct filters *, struct view value, struct view *detail);

#endif
