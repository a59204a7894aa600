/* generation: counters by tag, which say whether something remembered is still true.
 *
 * Who remembers keeps the generations of the tags it depends on, read before it asked; to invalidate is to add one.
 * Two counters a tag: hard (rights, catalog, keys, purge: never to be used again) and soft (rows changed: may still be
 * used as a stale answer). A tag hashes into a table, so that a collision costs a miss and never a lie.
 *
 * The counters and the watch (shm/watch.h) lie in a small file of their own whose layout never changes, so that old and
 * new builds invalidate each other during an upgrade.
 */
#ifndef COMPOSURE_GENERATION_H
#define COMPOSURE_GENERATION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/view.h"
#include "shm/watch.h"

struct generation {
	uint32_t hard, soft; /* sums of the tag's own and everybody's */
};

enum generation_kind { GENERATION_SOFT, GENERATION_HARD };

/* A tag is the hash of a kind and a name: ("key", id), ("resource", name), ("row", ...). */
uint64_t generation_tag(struct view kind, struct view name);

struct generation generation_read(const struct watch *, uint64_t tag);
struct generation generation_read_all(const struct watch *); /* everybody's alone */
void generation_bump(struct watch *, uint64_t tag, enum generation_kind);

/* Rows of a resource changed: these, or (none) it may be any of them. What holds many rows hangs on the resource's tag, a
 * row on its own and on that of all rows, which counts only where nobody said which. */
uint64_t generation_of_resource(struct view resource);
uint64_t generation_of_rows(struct view resource);
uint64_t generation_of_row(struct view resource, struct view key);
void generation_changed(struct watch *, struct view resource, const struct view *keys, unsigned n_keys, bool hard);

/* Everything that anybody remembers. */
void generation_bump_all(struct watch *, enum generation_kind);

#endif
