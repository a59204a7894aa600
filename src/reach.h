/* reach: what a read's answer depends on, who may share it, and the key that it is kept under (recall.h).
 *
 * Plain rules: of all that is read together the narrowest scope, the shortest ttl and the tags of each. A resource of which
 * nothing is said in parentheses is told from the path alone; else the query is read first.
 */
#ifndef COMPOSURE_REACH_H
#define COMPOSURE_REACH_H

#include <stdbool.h>

#include "base/attributes.h"
#include "base/view.h"
#include "cache/store.h"
#include "catalog/catalog.h"
#include "exchange.h"

struct reach {
	struct store_entry *entry; /* whose tags and times are filled in; the caller's */
	enum cache_scope scope;
	bool any;                  /* something was found already */
	bool all_tags;             /* all of them have room in the entry; else it must not be kept */
	bool of_tenants;           /* rows of one tenant each */
	bool all_public;           /* the answer is for all */
	struct view anybody;       /* the anonymous role */
};

/* Of an exchange that reads. DONE: its query is a problem, which is answered. */
enum next reach_find(struct exchange *, struct store_entry *, struct reach *) MUST_CHECK;

/* Everything that makes it another answer, in the exchange's arena; what does not come is told from what is empty, and the order
 * of parameters makes no difference. False: it is too long. */
bool reach_key(struct exchange *, const struct reach *, struct view *key) MUST_CHECK;

#endif
