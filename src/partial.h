/* partial: a list or an item that comes without the parts that failed, where that is asked for (doc/degradation.md).
 *
 * The whole is asked for first, within half of the time that is left. If that fails, each part (query/parts.h) is asked for
 * beside the page alone, all at the same time; then the page with what came of them; then the page. Each of these but the
 * last has half of what is then left. With one part there is nothing to find out: the page is asked for at once. So a
 * request sends at most parts + 3 statements, and no more than two where the answer has one part; those of a replica that fails
 * them once more each.
 */
#ifndef COMPOSURE_PARTIAL_H
#define COMPOSURE_PARTIAL_H

#include <stdbool.h>

#include "exchange.h"

struct partial;

/* Before a read asks or waits: reads what is asked for, if its answer may be partial, and begins to count the time. Once.
 * DONE: it is a problem. */
enum next partial_prepare(struct exchange *);

/* The statement of the whole is about to be written: what it is to leave out, and by when it is to be done, is set. True:
 * statements are on their way already, and the step waits for them. */
bool partial_begin(struct exchange *);

/* A read failed so: true when another one is on its way, that wants less. */
bool partial_goes_on(struct exchange *, enum status);

/* Its share of the time was over while it waited for another request's answer (recall.h): it is not to wait again. */
bool partial_is_late(const struct exchange *);

/* Whether the answer lacks something, now that its rows are there. */
bool partial_lacks(const struct exchange *);

/* What such an answer says: headers in place of those for caches, and the members behind a list's three. */
void partial_headers(struct exchange *);
struct view partial_members(struct exchange *);

/* Whether it honours the client's Prefer: partial. */
bool partial_preferred(const struct exchange *);

/* The answer is made, or there is none: the breakers of its parts hear what became of them. */
void partial_answered(struct exchange *);

/* Lets go of all that is on its way. */
void partial_end(struct exchange *);

#endif
