/* progress: how far the primary has come, as the change feed heard it, and how far its replicas have followed. In positions of
 * the write-ahead log (LSN), which only grow, and in time.
 *
 * Written by whoever holds the watch, and by each worker for what it writes itself. Single atomic words without a lock: two
 * writers for a moment make a replica seem to lag more, never less.
 *
 *     told     the feed has told of changes, or a worker of this host of its own, up to here: an answer of a replica that had
 *              not replayed that much must not be kept
 *     heard    everything that was committed before the primary was here has been told
 *     wrote    an identity's last write, on this host
 */
#ifndef COMPOSURE_PROGRESS_H
#define COMPOSURE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "shm/region.h"

struct progress;

enum { PROGRESS_REPLICAS = 4 };

/* No position is so late: it cannot be replayed. */
static const uint64_t PROGRESS_NEVER = UINT64_MAX;

struct progress *progress_open(struct region *);

/* Before the generations of what was committed until `lsn` are added to. asked_us: when PostgreSQL was asked for it
 * (CLOCK_MONOTONIC). A position that is earlier than one heard before is another history's, after a restore or a failover:
 * all that is known is forgotten. */
void progress_tell(struct progress *, uint64_t lsn, int64_t asked_us);

/* A worker's own write was committed before `lsn`; 0: that is not known, and nothing of a replica is kept for a while. Before
 * its generations are added to. */
void progress_wrote(struct progress *, uint64_t identity, uint64_t lsn, int64_t now_us);

/* What an answer of a replica must have replayed to be kept. Read after the generations. */
uint64_t progress_told(const struct progress *, int64_t now_us);

/* What the identity (a hash of it) is to read at least; 0: anything. A collision makes it later. */
uint64_t progress_written(const struct progress *, uint64_t identity, int64_t now_us);

/* A poll that was asked for at asked_us succeeded, and the primary was at `lsn` before it looked. */
void progress_hear(struct progress *, uint64_t lsn, int64_t asked_us);

/* Has everything been told that was committed by the time at which the primary was at `lsn`? */
bool progress_heard(const struct progress *, uint64_t lsn);

/* When the poll was asked for that succeeded last; 0: none. */
int64_t progress_heard_us(const struct progress *);

/* The primary was well at this time, whatever became of the polls; and when it was so last. */
void progress_saw(struct progress *, int64_t now_us);
int64_t progress_seen_us(const struct progress *);

/* What replica n said of itself when it was asked at asked_us; it is now_us. */
void progress_replayed(struct progress *, unsigned n, uint64_t lsn, int64_t asked_us, int64_t now_us);

struct progress_replica {
	uint64_t lsn;     /* it has replayed that much; 0: not known */
	int64_t asked_us; /* when it was asked, */
	int64_t as_of_us; /* and what it has then is what the primary had at this time, or later; 0: nobody can say */
	bool foreign;     /* it has what the primary has not: it followed another one */
};

struct progress_replica progress_replica(const struct progress *, unsigned n);

/* For people: a line for each replica that was ever asked. */
void progress_describe(const struct progress *, FILE *);

#endif
