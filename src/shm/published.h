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

/* The area's content as such: zeros are nothing published. What a dead writer left is made good when the region is ours
 * alone. NULL: out of memory. The region outlives it. */
struct published *published_open(struct region *, enum region_area);
void published_close(struct published *);

/* Counts publications, from 1; 0: nothing was published yet. Two loads. */
uint64_t published_serial(const struct published *);

/* What the text of this serial was last said to be true of: the writer's word, of no meaning here. False: another text
 * is the current one by now. */
bool published_stamp(const struct published *, uint64_t serial, uint64_t *stamp);

enum published_result { PUBLISHED, PUBLISH_BUSY, PUBLISH_TOO_LARGE };

/* Replaces the text. BUSY: somebody else is writing, or was stopped or killed while he did. */
enum published_result published_write(struct published *, struct region *, struct view text, struct view tag,
                                      uint64_t stamp) MUST_CHECK;

/* Another stamp for the text of this serial; no effect when it is not the current one, or the lock is not got. */
void published_restamp(struct published *, struct region *, uint64_t serial, uint64_t stamp);

struct publication {
	uint64_t serial, stamp;
};

/* Appends the current text to out and its tag to tag; what published_serial() and published_stamp() say of it goes into
 * the last. False: nothing there, or it changed while it was read (try again later). */
bool published_read(const struct published *, struct buf *out, struct buf *tag, struct publication *) MUST_CHECK;

/* Frees the lock when its holder is dead. True: it was. */
bool published_repair(struct published *, struct region *);

/* For people: lengths, and whether the lock is held. */
void published_describe(const struct published *, FILE *);

#endif
