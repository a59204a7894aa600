/* select: what is read: a tree of resources, each with its columns, filters, order and limit.
 *
 *     select=id,total:amount::text,data->a->>b,payments!inner(id,...users(name))
 */
#ifndef COMPOSURE_SELECT_H
#define COMPOSURE_SELECT_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/view.h"
#include "catalog/catalog.h"
#include "query/embed.h"
#include "query/field.h"
#include "query/filter.h"
#include "query/scan.h"
#include "query/sort.h"

/* A member of the answer's objects. */
struct item {
	struct view name;
	bool renamed;         /* the name is the client's, not the catalog's */
	struct field field;   /* unless embed is set */
	struct column type;   /* after the cast */
	bool cast;
	struct node *embed;
	bool skipped;         /* the statement has a NULL in its place */
	struct item *next;
};

/* A resource in the tree: the list's own, or an embedded one. */
struct node {
	const struct asker *asker;
	const struct resource *resource;
	struct node *parent, *child, *next;
	unsigned depth;
	struct view name;    /* as parameters call it: its alias, else as it was written */
	struct link link;
	bool to_one, inner, spread;
	bool skipped;        /* the statement does not read it: what is of it is NULL */
	struct item *first;
	struct filters filters;
	struct sort sort;
	int limit;
	/* Qualifiers: in its own query; its JSON in the outer one's; where only its being there counts; where it only
	 * sorts; its junction. */
	struct view as_row, as_json, as_exists, as_sort, as_junction;
};

struct tree {
	struct node root;
	unsigned n_embeds;   /* below it */
	unsigned n_filters;  /* of all of them */
	bool casts;          /* something is cast, which may fail */
};

/* A tree of the one resource, with all of its visible columns and its own order. Not to be moved. False: the arena is
 * full. */
bool tree_init(struct tree *, const struct asker *, const struct resource *) MUST_CHECK;

/* Reads what `select` says in place of that. False, and failed: ERR_INVALID_SELECT, ERR_UNKNOWN_COLUMN, and as
 * embed_find(). */
bool tree_select(struct tree *, struct scan *) MUST_CHECK;

/* An item of the node or, of spread ones in it, of those: all that its objects have, in their order. For
 * (struct member m = { 0 }; member_next(node, &m);). */
struct member {
	const struct node *of;
	const struct item *item;
};
bool member_next(const struct node *, struct member *);

/* Whether the statement has a NULL in its place. */
bool member_is_skipped(const struct member *);

/* Whether its query has something to join: embedded resources that show. */
bool node_joins(const struct node *);

#endif
