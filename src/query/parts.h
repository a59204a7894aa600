/* parts: what an answer may come without: each resource that is embedded at the top, and each optional column there.
 *
 * A part that is skipped is not read: PostgreSQL is sent a NULL of its type in its place, so that the result keeps its
 * columns.
 */
#ifndef COMPOSURE_PARTS_H
#define COMPOSURE_PARTS_H

#include <stdbool.h>

#include "base/arena.h"
#include "catalog/catalog.h"
#include "query/page.h"
#include "query/select.h"

struct part {
	struct node *node;           /* an embedded resource, or */
	const struct column *column; /* a column: all members that are made of it */
};

/* The page's parts, in the arena, and how many there are. None where a NULL could be taken for "no row": with !inner, and
 * where filters or the order are of an embedded resource. A column that filters, the order or an embedded resource need is
 * none. 0, too, when the arena is full. */
unsigned parts_find(struct arena *, struct page *, struct part **);

/* Whether statements of the page are to read it. */
void part_skip(struct page *, const struct part *, bool skip);

/* Whether the member, of the page's top, is of that part. */
bool part_has(const struct part *, const struct member *);

#endif
