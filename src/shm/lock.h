/* lock: a word in shared memory that says who writes, tried and never waited for.
 *
 * The word names a worker slot and the slot's epoch, so a holder that died is told from one that lives, also when the
 * slot is somebody else's by now. Taking over from the dead is repair's business (the watcher's, and whoever attaches),
 * never the request path's: there, not got is a miss.
 */
#ifndef COMPOSURE_LOCK_H
#define COMPOSURE_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/attributes.h"

struct region;

struct lock {
	_Atomic uint64_t holder; /* 0: free; else slot + 1 in the low 16 bits, its epoch above */
};

/* True: ours until lock_release(). */
bool lock_try(struct lock *, uint64_t me) MUST_CHECK;
void lock_release(struct lock *);

/* Takes the lock over when its holder is dead, whoever it names when the region is ours alone: true, and what it guards is to be made good before lock_release(). */
bool lock_take_over(struct lock *, struct region *) MUST_CHECK;

#endif
