/* published: a text that one process writes now and then and all read: the catalog.
 *
 * Two copies; the one that is not current is written under the lock, then becomes current. Readers take no lock: they
 * copy, then check that the copy was not being written meanwhile, and its checksum.
 */
#ifndef COMPOSURE_PUBLISHED_H
#define COMPOSURE_PUBLISHED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attributes.h"
#include "base/buf.h"
#include "base/view.h"
#include "shm/region.h"

struct published;

/* The area's content as such: zeros are nothing published. The lock of a dead writer is freed when the region is ours
 * alone. NULL: out of memory. The region outlives it. */
struct published *published_open(struct region *, enum region_area);
void published_close(struct published *);

/* Counts publications, from 1; 0: nothing was published yet. One relaxed load. */
uint64_t published_serial(const struct published *);

/* Replaces the text. False: longer than there is room for, or somebody else is writing (then that one's is as new). */
bool published_write(struct published *, struct region *, struct view text, struct view tag) MUST_CHECK;

/* Appends the current text to out and its tag to tag; *serial is what published_serial() says of it. False: nothing
 * there, or it changed while it was read (try again later). */
bool published_read(const struct published *, struct buf *out, struct buf *tag, uint64_t *serial) MUST_CHECK;

/* Frees the lock when its holder is dead. True: it was. */
bool published_repair(struct published *, struct region *);

/* For people: lengths, and whether the lock is held. */
void published_describe(const struct published *, FILE *);

#endif
