/* store: answers that are there already, kept in the shared region for all workers of a host.
 *
 * A shard has blocks of 1 KiB, slots and a hash table over them. An entry is a slot and a chain of blocks: what is said
 * of the answer, its key, its head, its body. Readers take no lock: they copy relaxed words and then look whether the
 * slot's version is what it was. Writers try the shard's lock; not got, the answer is not kept. A full shard gives up
 * what was read least lately and least often: S3-FIFO (Yang, Zhang, Qiu, Yue, Vinayak: "FIFO queues are all you need for
 * cache eviction", SOSP 2023) over slots, its queues measured in blocks. Whether what is found is still true is the
 * caller's to judge: an entry carries the generations (cache/generation.h) of what it was made from.
 *
 * Nothing read from the region is used before it is bounded. Who finds a shard out of order, or its writer dead, empties it.
 */
#ifndef COMPOSURE_STORE_H
#define COMPOSURE_STORE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/attributes.h"
#include "base/view.h"
#include "shm/region.h"

struct store;

enum { STORE_TAGS_MAX = 16, STORE_KEY_MAX = 8192, STORE_ETAG_CHARS = 39 };

/* What an entry depends on, as it was before PostgreSQL was asked. */
struct store_tag {
	uint64_t tag;
	uint32_t hard, soft;
};

/* Times are microseconds of CLOCK_MONOTONIC, which is the same for all processes of a host. */
struct store_entry {
	int64_t asked_us;    /* before PostgreSQL was asked */
	int64_t ttl_us, revalidate_us, if_error_us, min_fresh_us; /* what the policy gives it */
	uint32_t n_key, n_head, n_body;
	uint8_t n_tags, n_etag;
	uint8_t for_all;     /* the answer is the same for everybody */
	uint8_t bounded;     /* its changes are not all seen */
	uint8_t missing;     /* the answer is that there is no such thing: no head, no body */
	char etag[STORE_ETAG_CHARS];
	struct store_tag tags[STORE_TAGS_MAX];
};

/* Where an entry was found; good for as long as its version holds. */
struct store_ref {
	uint32_t shard, slot, first, bytes;
	uint64_t version;
	int64_t confirmed_us; /* when it was last known to be true: asked_us or later */
};

/* What is counted, for each worker slot. */
#define STORE_COUNTS(X)                                                 \
	X(HIT, hits)                /* fresh answers out of it */       \
	X(MISS, misses)             /* nothing there, or not to be used */ \
	X(STALE, stale)             /* stale answers out of it */       \
	X(COALESCED, coalesced)     /* waited for somebody else's question */ \
	X(STORED, stored)                                               \
	X(REFUSED, refused)         /* not kept: too large, or the lock was not got */ \
	X(EVICTED, evictions)                                           \
	X(INVALIDATED, invalidations) /* changes that were told */

enum store_count {
#define X(name, text) STORE_##name,
	STORE_COUNTS(X)
#undef X
	STORE_COUNT
};

/* The store in the region's area, which may have no room: then nothing is ever found or kept. NULL: out of memory. The
 * region outlives it. */
struct store *store_open(struct region *);
void store_close(struct store *);

/* Bytes of body, head and key together that can be kept at most. */
size_t store_bytes_max(const struct store *);

/* Of a key; nobody who does not see the region can choose keys that collide. */
uint64_t store_hash(const struct store *, struct view key);

/* Finds the entry of exactly that key: its fixed part and where it lies. */
bool store_find(struct store *, uint64_t hash, struct view key, struct store_entry *, struct store_ref *) MUST_CHECK;

/* Copies head and body (n_head and n_body bytes; each needs 7 bytes more of room behind it; NULL: not wanted). False: it
 * was given up meanwhile, and what was copied is worth nothing. */
bool store_copy(struct store *, const struct store_ref *, const struct store_entry *, char *head, char *body) MUST_CHECK;

/* It was used: it counts as read once more, and as true until then (0: that is not known). */
void store_used(struct store *, const struct store_ref *, int64_t confirmed_us);

/* Keeps an answer in place of an older one under that key. False: it was not kept. */
bool store_put(struct store *, uint64_t hash, struct view key, const struct store_entry *, struct view head, struct view body);

/* Gives up what is kept under that key, if it was asked for before then. Without the lock it stays. */
void store_drop(struct store *, uint64_t hash, struct view key, int64_t asked_us);

void store_count(struct store *, enum store_count);
uint64_t store_counted(const struct store *, enum store_count);

/* Empties shards whose writer is dead. Returns how many there were. */
unsigned store_repair(struct store *);

/* For people. */
void store_describe(const struct store *, FILE *);

#endif
