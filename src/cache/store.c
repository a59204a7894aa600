/* The one hard fact: a block belongs to a slot only as long as the slot's version stands. Whoever frees or fills blocks
 * makes the version odd first and even again when it is done, so a reader whose version held has read one entry's words
 * and nobody else's. */
#include "config.h"

#include "cache/store.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/siphash.h"
#include "shm/point.h"
#include "shm/words.h"

enum {
	BLOCK = 1024,
	SHARD_BYTES = 4 << 20,
	SHARDS_MAX = 256,
	WALK_MAX = 64,       /* slots of a bucket that a reader looks at */
	READ_OFTEN = 3,
	EVICT_STEPS = 4096,  /* entries that are moved on before one is given up whatever it is worth */
};

/* 0 is none everywhere; n is slot or block n - 1. */
struct list {
	uint32_t head, tail; /* new ones at the head */
	uint32_t blocks;
};

enum queue { QUEUE_NONE, QUEUE_SMALL, QUEUE_MAIN, QUEUES };

/* All but the atomics is the lock's. */
struct slot_head {
	_Atomic uint64_t version; /* odd: being written */
	_Atomic uint64_t hash;
	_Atomic int64_t confirmed_us;
	_Atomic uint32_t first, bytes;
	_Atomic uint32_t next;    /* in its bucket */
	_Atomic uint32_t often;   /* read; 0..READ_OFTEN */
	uint32_t newer, older;    /* in its queue; `older` also in the list of free ones */
	uint16_t n_blocks;
	uint8_t queue;
	uint8_t unused[13];
};

static_assert(sizeof(struct slot_head) == 64, "a slot is a cache line");

struct shard {
	struct lock lock;
	uint32_t ready;           /* it has been put in order once */
	uint32_t free_block, n_free, free_slot;
	struct list queue[QUEUES];
	uint8_t unused[64];
};

static_assert(sizeof(struct shard) % sizeof(struct slot_head) == 0, "the slots behind it are cache lines");

struct counts {
	_Atomic uint64_t n[8];
};

static_assert(STORE_COUNT <= 8, "a worker's counts are a cache line");

struct table {
	uint64_t seed[2];
	_Alignas(64) struct counts counts[REGION_SLOTS];
};

struct store {
	struct region *region;
	struct table *table;
	char *shards;             /* NULL: no room */
	uint32_t n_shards, n_blocks, n_slots, n_buckets, n_ghosts;
	uint8_t seed[SIPHASH_KEY_BYTES];
};

/* A shard's parts, by this build's own sums. */
struct parts {
	struct shard *shard;
	struct slot_head *slot;
	_Atomic uint32_t *bucket, *link;
	uint32_t *ghost;          /* of what was given up unread: a hash's fingerprint in its place */
	_Atomic uint64_t *block;
};

static size_t page_up(size_t n)
{
	return (n + 4095) & ~(size_t)4095;
}

static size_t front_bytes(const struct store *s)
{
	return page_up(sizeof(struct shard) + sizeof(struct slot_head) * s->n_slots +
	               sizeof(uint32_t) * (s->n_buckets + s->n_ghosts + (size_t)s->n_blocks));
}

static size_t shard_bytes(const struct store *s)
{
	return front_bytes(s) + (size_t)s->n_blocks * BLOCK;
}

static struct parts parts_of(const struct store *s, uint32_t shard)
{
	struct parts p;
	char *at = s->shards + shard_bytes(s) * shard;
	p.shard = (struct shard *)(void *)at;
	p.slot = (struct slot_head *)(void *)(at + sizeof(struct shard));
	p.bucket = (_Atomic uint32_t *)(void *)(p.slot + s->n_slots);
	p.link = p.bucket + s->n_buckets;
	p.ghost = (uint32_t *)(void *)(p.link + s->n_blocks);
	p.block = (_Atomic uint64_t *)(void *)(at + front_bytes(s));
	return p;
}

/* As many blocks as go into it, three slots to four of them. */
static void measure(struct store *s, size_t bytes)
{
	size_t table = page_up(sizeof(struct table));
	if (bytes < table + SHARD_BYTES / 16)
		return;
	bytes -= table;
	s->n_shards = (uint32_t)(bytes / SHARD_BYTES);
	if (s->n_shards == 0)
		s->n_shards = 1;
	if (s->n_shards > SHARDS_MAX)
		s->n_shards = SHARDS_MAX;
	size_t each = bytes / s->n_shards & ~(size_t)4095;
	s->n_blocks = (uint32_t)(each / (BLOCK + 56));
	s->n_slots = s->n_blocks / 4 * 3;
	for (s->n_buckets = 64; s->n_buckets < s->n_slots; s->n_buckets *= 2)
		continue;
	s->n_ghosts = s->n_slots;
	while (shard_bytes(s) > each && s->n_blocks > 8) {
		s->n_blocks -= 4;
		s->n_slots = s->n_ghosts = s->n_blocks / 4 * 3;
	}
	assert(shard_bytes(s) <= each);
	assert(s->n_blocks / 4 + 1 <= UINT16_MAX && s->n_buckets >= s->n_slots); /* slot_head.n_blocks; hashing */
}

/* --- putting a shard in order --- */

/* Holding its lock, or alone. */
static void empty(const struct store *s, struct parts *p)
{
	for (uint32_t i = 0; i < s->n_slots; i++) {
		struct slot_head *slot = &p->slot[i];
		uint64_t version = atomic_load_explicit(&slot->version, memory_order_relaxed);
		atomic_store_explicit(&slot->version, version | 1, memory_order_relaxed);
		atomic_thread_fence(memory_order_release);
		atomic_store_explicit(&slot->hash, 0, memory_order_relaxed);
		atomic_store_explicit(&slot->bytes, 0, memory_order_relaxed);
		atomic_store_explicit(&slot->next, 0, memory_order_relaxed);
		slot->newer = 0;
		slot->older = i + 1 < s->n_slots ? i + 2 : 0;
		slot->queue = QUEUE_NONE;
		slot->n_blocks = 0;
		atomic_store_explicit(&slot->version, (version | 1) + 1, memory_order_release);
	}
	for (uint32_t i = 0; i < s->n_buckets; i++)
		atomic_store_explicit(&p->bucket[i], 0, memory_order_relaxed);
	for (uint32_t i = 0; i < s->n_blocks; i++)
		atomic_store_explicit(&p->link[i], i + 1 < s->n_blocks ? i + 2 : 0, memory_order_relaxed);
	memset(p->ghost, 0, sizeof *p->ghost * s->n_ghosts);
	memset(p->shard->queue, 0, sizeof p->shard->queue);
	p->shard->free_block = p->shard->free_slot = 1;
	p->shard->n_free = s->n_blocks;
	p->shard->ready = 1;
}

static bool repair_shard(const struct store *s, uint32_t n)
{
	struct parts p = parts_of(s, n);
	if (!lock_take_over(&p.shard->lock, s->region))
		return false;
	empty(s, &p);
	lock_release(&p.shard->lock);
	return true;
}

unsigned store_repair(struct store *s)
{
	unsigned n = 0;
	for (uint32_t i = 0; i < s->n_shards; i++)
		n += repair_shard(s, i);
	return n;
}

struct store *store_open(struct region *r)
{
	struct store *s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	size_t bytes;
	s->region = r;
	s->table = region_area(r, AREA_STORE, &bytes);
	measure(s, bytes);
	if (!s->n_shards)
		return s;
	s->shards = (char *)s->table + page_up(sizeof(struct table));
	if (region_repairing(r)) {
		(void)store_repair(s);
		if (!s->table->seed[0] && getrandom(s->table->seed, sizeof s->table->seed, GRND_NONBLOCK) < 0)
			s->table->seed[0] = (uint64_t)(uintptr_t)s ^ (uint64_t)region_me(r); /* before there is any: better than none */
		for (uint32_t i = 0; i < s->n_shards; i++) {
			struct parts p = parts_of(s, i);
			if (!p.shard->ready)
				empty(s, &p);
		}
	}
	memcpy(s->seed, s->table->seed, sizeof s->seed);
	return s;
}

void store_close(struct store *s)
{
	free(s);
}

size_t store_bytes_max(const struct store *s)
{
	size_t most = (size_t)s->n_blocks * BLOCK / 4;
	return most > sizeof(struct store_entry) ? most - sizeof(struct store_entry) : 0;
}

uint64_t store_hash(const struct store *s, struct view key)
{
	uint8_t out[SIPHASH_BYTES];
	uint64_t hash;
#ifdef TEST_POINTS
	/* So that every key meets every other one. */
	if (getenv("COMPOSURE_COLLIDE"))
		return 1;
#endif
	siphash_of(s->seed, key, out);
	memcpy(&hash, out, sizeof hash);
	return hash ? hash : 1;
}

void store_count(struct store *s, enum store_count what)
{
	if (!s->shards)
		return;
	unsigned n = (unsigned)(region_me(s->region) & 0xffff) - 1;
	if (n < REGION_SLOTS)
		(void)atomic_fetch_add_explicit(&s->table->counts[n].n[what], 1, memory_order_relaxed);
}

uint64_t store_counted(const struct store *s, enum store_count what)
{
	uint64_t sum = 0;
	for (unsigned n = 0; s->shards && n < REGION_SLOTS; n++)
		sum += atomic_load_explicit(&s->table->counts[n].n[what], memory_order_relaxed);
	return sum;
}

/* --- reading --- */

static uint32_t shard_of(const struct store *s, uint64_t hash)
{
	return (uint32_t)(hash >> 40) % s->n_shards;
}

static bool holds(const struct parts *p, const struct store_ref *ref)
{
	atomic_thread_fence(memory_order_acquire);
	return atomic_load_explicit(&p->slot[ref->slot].version, memory_order_relaxed) == ref->version;
}

/* Copies n bytes, in whole words, from a multiple of 8 bytes within the entry. False: the chain is not one. */
static bool copy_out(const struct store *s, const struct parts *p, uint32_t first, size_t from, size_t n, char *out)
{
	uint32_t b = first;
	for (; from >= BLOCK; from -= BLOCK) {
		if (b == 0 || b > s->n_blocks)
			return false;
		b = atomic_load_explicit(&p->link[b - 1], memory_order_relaxed);
	}
	for (n = (n + 7) & ~(size_t)7; n > 0; from = 0) {
		if (b == 0 || b > s->n_blocks)
			return false;
		size_t piece = BLOCK - from < n ? BLOCK - from : n;
		words_load(out, p->block + (size_t)(b - 1) * (BLOCK / 8) + from / 8, piece);
		out += piece;
		n -= piece;
		b = atomic_load_explicit(&p->link[b - 1], memory_order_relaxed);
	}
	return true;
}

static size_t up8(size_t n)
{
	return (n + 7) & ~(size_t)7;
}

static size_t fixed_bytes(unsigned n_tags)
{
	return offsetof(struct store_entry, tags) + n_tags * sizeof(struct store_tag);
}

static size_t bytes_of(const struct store_entry *e)
{
	return fixed_bytes(e->n_tags) + up8(e->n_key) + up8(e->n_head) + up8(e->n_body);
}

static bool same_key(const struct store *s, const struct parts *p, const struct store_ref *ref, size_t at, struct view key)
{
	char piece[512];
	for (size_t done = 0; done < key.n; done += sizeof piece) {
		size_t n = key.n - done < sizeof piece ? key.n - done : sizeof piece;
		if (!copy_out(s, p, ref->first, at + done, n, piece) || memcmp(piece, key.p + done, n) != 0)
			return false;
	}
	return true;
}

/* The entry in that slot, if it is this key's and whole. */
static bool look_at(const struct store *s, const struct parts *p, struct store_ref *ref, struct view key,
                    struct store_entry *e)
{
	const struct slot_head *slot = &p->slot[ref->slot];
	ref->version = atomic_load_explicit(&slot->version, memory_order_acquire);
	if (ref->version & 1)
		return false;
	ref->first = atomic_load_explicit(&slot->first, memory_order_relaxed);
	ref->bytes = atomic_load_explicit(&slot->bytes, memory_order_relaxed);
	ref->confirmed_us = atomic_load_explicit(&slot->confirmed_us, memory_order_relaxed);
	if (ref->bytes < fixed_bytes(0) || ref->bytes > (size_t)s->n_blocks * BLOCK)
		return false;
	if (!copy_out(s, p, ref->first, 0, fixed_bytes(0), (char *)e) || e->n_tags > STORE_TAGS_MAX ||
	    e->n_etag > STORE_ETAG_CHARS || e->n_key != key.n || e->n_head > ref->bytes || e->n_body > ref->bytes ||
	    bytes_of(e) != ref->bytes ||
	    !copy_out(s, p, ref->first, fixed_bytes(0), e->n_tags * sizeof(struct store_tag), (char *)e->tags))
		return false;
	return same_key(s, p, ref, fixed_bytes(e->n_tags), key) && holds(p, ref);
}

bool store_find(struct store *s, uint64_t hash, struct view key, struct store_entry *e, struct store_ref *ref)
{
	if (!s->shards)
		return false;
	ref->shard = shard_of(s, hash);
	struct parts p = parts_of(s, ref->shard);
	uint32_t at = atomic_load_explicit(&p.bucket[hash & (s->n_buckets - 1)], memory_order_acquire);
	for (int steps = 0; at && at <= s->n_slots && steps < WALK_MAX; steps++) {
		ref->slot = at - 1;
		if (atomic_load_explicit(&p.slot[ref->slot].hash, memory_order_relaxed) == hash && look_at(s, &p, ref, key, e))
			return true;
		at = atomic_load_explicit(&p.slot[ref->slot].next, memory_order_acquire);
	}
	return false;
}

bool store_copy(struct store *s, const struct store_ref *ref, const struct store_entry *e, char *head, char *body)
{
	struct parts p = parts_of(s, ref->shard);
	size_t at = fixed_bytes(e->n_tags) + up8(e->n_key);
	if (head && !copy_out(s, &p, ref->first, at, e->n_head, head))
		return false;
	if (body && !copy_out(s, &p, ref->first, at + up8(e->n_head), e->n_body, body))
		return false;
	return holds(&p, ref);
}

void store_used(struct store *s, const struct store_ref *ref, int64_t confirmed_us)
{
	struct parts p = parts_of(s, ref->shard);
	struct slot_head *slot = &p.slot[ref->slot];
	uint32_t often = atomic_load_explicit(&slot->often, memory_order_relaxed);
	if (often < READ_OFTEN)
		atomic_store_explicit(&slot->often, often + 1, memory_order_relaxed);
	/* It may be another entry's by now, which then counts as true for the tenth of a second that it took to become so:
	 * only how long something stale may be served is counted from here. */
	if (confirmed_us > ref->confirmed_us + 100000 && holds(&p, ref))
		atomic_store_explicit(&slot->confirmed_us, confirmed_us, memory_order_relaxed);
}

/* --- writing: holding the shard's lock. False: the shard is out of order --- */

static bool unlink_queue(const struct store *s, struct parts *p, uint32_t n)
{
	struct slot_head *slot = &p->slot[n - 1];
	if (slot->queue == QUEUE_NONE || slot->queue >= QUEUES || slot->newer > s->n_slots || slot->older > s->n_slots)
		return false;
	struct list *q = &p->shard->queue[slot->queue];
	*(slot->newer ? &p->slot[slot->newer - 1].older : &q->head) = slot->older;
	*(slot->older ? &p->slot[slot->older - 1].newer : &q->tail) = slot->newer;
	q->blocks -= slot->n_blocks;
	slot->queue = QUEUE_NONE;
	return true;
}

static bool push_queue(const struct store *s, struct parts *p, uint32_t n, enum queue into)
{
	struct slot_head *slot = &p->slot[n - 1];
	struct list *q = &p->shard->queue[into];
	if (q->head > s->n_slots)
		return false;
	slot->newer = 0;
	slot->older = q->head;
	*(q->head ? &p->slot[q->head - 1].newer : &q->tail) = n;
	q->head = n;
	q->blocks += slot->n_blocks;
	slot->queue = (uint8_t)into;
	return true;
}

static void begin(struct slot_head *slot)
{
	uint64_t version = atomic_load_explicit(&slot->version, memory_order_relaxed);
	atomic_store_explicit(&slot->version, version | 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
}

static void end(struct slot_head *slot)
{
	uint64_t version = atomic_load_explicit(&slot->version, memory_order_relaxed);
	atomic_store_explicit(&slot->version, version + 1, memory_order_release);
}

/* Its blocks go to the free ones; the version is odd. */
static bool free_blocks(const struct store *s, struct parts *p, struct slot_head *slot)
{
	uint32_t b = atomic_load_explicit(&slot->first, memory_order_relaxed), n = slot->n_blocks;
	for (; n; n--) {
		if (b == 0 || b > s->n_blocks || p->shard->n_free >= s->n_blocks)
			return false;
		uint32_t next = atomic_load_explicit(&p->link[b - 1], memory_order_relaxed);
		atomic_store_explicit(&p->link[b - 1], p->shard->free_block, memory_order_relaxed);
		p->shard->free_block = b;
		p->shard->n_free++;
		b = next;
	}
	slot->n_blocks = 0;
	return true;
}

static bool take_blocks(const struct store *s, struct parts *p, struct slot_head *slot, uint32_t n)
{
	uint32_t b = p->shard->free_block;
	atomic_store_explicit(&slot->first, b, memory_order_relaxed);
	slot->n_blocks = (uint16_t)n;
	for (; n; n--) {
		if (b == 0 || b > s->n_blocks || p->shard->n_free == 0)
			return false;
		uint32_t next = atomic_load_explicit(&p->link[b - 1], memory_order_relaxed);
		if (n == 1)
			atomic_store_explicit(&p->link[b - 1], 0, memory_order_relaxed);
		p->shard->n_free--;
		b = next;
	}
	p->shard->free_block = b;
	return true;
}

static bool unlink_bucket(const struct store *s, struct parts *p, uint32_t n)
{
	struct slot_head *slot = &p->slot[n - 1];
	_Atomic uint32_t *at = &p->bucket[atomic_load_explicit(&slot->hash, memory_order_relaxed) & (s->n_buckets - 1)];
	for (uint32_t steps = 0; steps <= s->n_slots; steps++) {
		uint32_t found = atomic_load_explicit(at, memory_order_relaxed);
		if (found == 0 || found > s->n_slots)
			return false;
		if (found == n) {
			atomic_store_explicit(at, atomic_load_explicit(&slot->next, memory_order_relaxed), memory_order_release);
			return true;
		}
		at = &p->slot[found - 1].next;
	}
	return false;
}

/* Out of the queue it was taken from already. */
static bool give_up(const struct store *s, struct parts *p, uint32_t n)
{
	struct slot_head *slot = &p->slot[n - 1];
	begin(slot);
	shm_point("store-evicting");
	bool good = unlink_bucket(s, p, n) && free_blocks(s, p, slot);
	atomic_store_explicit(&slot->hash, 0, memory_order_relaxed);
	atomic_store_explicit(&slot->bytes, 0, memory_order_relaxed);
	slot->older = p->shard->free_slot;
	p->shard->free_slot = n;
	end(slot);
	return good;
}

static uint32_t fingerprint(uint64_t hash)
{
	return (uint32_t)(hash >> 32) | 1;
}

/* One step: the oldest of a queue is given up or moved on. *freed tells which. */
static bool evict_step(const struct store *s, struct parts *p, bool whatever, bool *freed)
{
	const struct list *small = &p->shard->queue[QUEUE_SMALL], *large = &p->shard->queue[QUEUE_MAIN];
	bool from_small = small->tail && (small->blocks > s->n_blocks / 10 || !large->tail);
	uint32_t n = from_small ? small->tail : large->tail;
	*freed = false;
	if (n == 0 || n > s->n_slots || !unlink_queue(s, p, n))
		return false;
	struct slot_head *slot = &p->slot[n - 1];
	uint32_t often = atomic_load_explicit(&slot->often, memory_order_relaxed);
	if (!whatever && (from_small ? often > 1 : often > 0)) {
		atomic_store_explicit(&slot->often, from_small ? 0 : often - 1, memory_order_relaxed);
		return push_queue(s, p, n, QUEUE_MAIN);
	}
	if (from_small) {
		uint64_t hash = atomic_load_explicit(&slot->hash, memory_order_relaxed);
		p->ghost[hash % s->n_ghosts] = fingerprint(hash);
	}
	*freed = true;
	return give_up(s, p, n);
}

static bool make_room(struct store *s, struct parts *p, uint32_t blocks)
{
	for (int steps = 0; p->shard->n_free < blocks || !p->shard->free_slot; steps++) {
		bool freed;
		if (!evict_step(s, p, steps > EVICT_STEPS, &freed))
			return false;
		if (freed)
			store_count(s, STORE_EVICTED);
	}
	return true;
}

/* A writer of words over a chain of blocks. */
struct pen {
	const struct store *s;
	struct parts *p;
	uint32_t block;
	size_t at;
};

static bool pen_words(struct pen *pen, const char *from, size_t n)
{
	while (n) {
		if (pen->at == BLOCK) {
			pen->block = atomic_load_explicit(&pen->p->link[pen->block - 1], memory_order_relaxed);
			pen->at = 0;
		}
		if (pen->block == 0 || pen->block > pen->s->n_blocks)
			return false;
		size_t piece = BLOCK - pen->at < n ? BLOCK - pen->at : n;
		words_store(pen->p->block + (size_t)(pen->block - 1) * (BLOCK / 8) + pen->at / 8, from, piece);
		pen->at += piece;
		from += piece;
		n -= piece;
	}
	return true;
}

static bool pen_put(struct pen *pen, struct view v)
{
	char last[8] = { 0 };
	size_t whole = v.n & ~(size_t)7;
	if (!pen_words(pen, v.p, whole))
		return false;
	if (whole == v.n)
		return true;
	memcpy(last, v.p + whole, v.n - whole);
	return pen_words(pen, last, sizeof last);
}

static bool fill(struct store *s, struct parts *p, struct slot_head *slot, const struct store_entry *e, struct view key,
                 struct view head, struct view body)
{
	struct pen pen = { s, p, atomic_load_explicit(&slot->first, memory_order_relaxed), 0 };
	shm_point("store-writing");
	atomic_store_explicit(&slot->bytes, (uint32_t)bytes_of(e), memory_order_relaxed);
	atomic_store_explicit(&slot->confirmed_us, e->asked_us, memory_order_relaxed);
	return pen_words(&pen, (const char *)e, fixed_bytes(e->n_tags)) && pen_put(&pen, key) && pen_put(&pen, head) &&
	       pen_put(&pen, body);
}

/* The slot that has the key, or 0. *newer: what it has was asked for later. */
static uint32_t find_own(struct store *s, struct parts *p, uint64_t hash, struct view key, int64_t asked_us, bool *newer)
{
	uint32_t at = atomic_load_explicit(&p->bucket[hash & (s->n_buckets - 1)], memory_order_relaxed);
	for (uint32_t steps = 0; at && at <= s->n_slots && steps < s->n_slots; steps++) {
		struct store_ref ref = { .slot = at - 1 };
		struct store_entry e;
		if (atomic_load_explicit(&p->slot[at - 1].hash, memory_order_relaxed) == hash && look_at(s, p, &ref, key, &e)) {
			*newer = e.asked_us > asked_us;
			return at;
		}
		at = atomic_load_explicit(&p->slot[at - 1].next, memory_order_relaxed);
	}
	return 0;
}

static bool put_new(struct store *s, struct parts *p, uint64_t hash, struct view key, const struct store_entry *e,
                    struct view head, struct view body, uint32_t blocks)
{
	uint32_t n = p->shard->free_slot;
	if (n == 0 || n > s->n_slots || p->slot[n - 1].older > s->n_slots)
		return false;
	struct slot_head *slot = &p->slot[n - 1];
	_Atomic uint32_t *bucket = &p->bucket[hash & (s->n_buckets - 1)];
	p->shard->free_slot = slot->older;
	begin(slot);
	atomic_store_explicit(&slot->often, 0, memory_order_relaxed);
	if (!take_blocks(s, p, slot, blocks) || !fill(s, p, slot, e, key, head, body))
		return false;
	atomic_store_explicit(&slot->hash, hash, memory_order_relaxed);
	atomic_store_explicit(&slot->next, atomic_load_explicit(bucket, memory_order_relaxed), memory_order_relaxed);
	end(slot);
	shm_point("store-written");
	atomic_store_explicit(bucket, n, memory_order_release);
	bool known = p->ghost[hash % s->n_ghosts] == fingerprint(hash);
	return push_queue(s, p, n, known ? QUEUE_MAIN : QUEUE_SMALL);
}

/* It keeps its place in its queue, and what it was read. */
static bool put_again(struct store *s, struct parts *p, uint32_t n, struct view key, const struct store_entry *e,
                      struct view head, struct view body, uint32_t blocks)
{
	struct slot_head *slot = &p->slot[n - 1];
	if (slot->queue == QUEUE_NONE || slot->queue >= QUEUES)
		return false;
	struct list *q = &p->shard->queue[slot->queue];
	q->blocks -= slot->n_blocks;
	begin(slot);
	bool good = free_blocks(s, p, slot) && take_blocks(s, p, slot, blocks) && fill(s, p, slot, e, key, head, body);
	q->blocks += blocks;
	if (good)
		end(slot);
	return good;
}

/* Without the room for it in place, the old one goes: it is out of date. */
static bool put_locked(struct store *s, struct parts *p, uint64_t hash, struct view key, const struct store_entry *e,
                       struct view head, struct view body, bool *in_order)
{
	uint32_t blocks = (uint32_t)((bytes_of(e) + BLOCK - 1) / BLOCK);
	bool newer = false;
	uint32_t own = find_own(s, p, hash, key, e->asked_us, &newer);
	*in_order = true;
	if (newer)
		return true;
	if (own && p->shard->n_free + p->slot[own - 1].n_blocks >= blocks)
		return *in_order = put_again(s, p, own, key, e, head, body, blocks);
	*in_order = (!own || (unlink_queue(s, p, own) && give_up(s, p, own))) && make_room(s, p, blocks) &&
		    put_new(s, p, hash, key, e, head, body, blocks);
	return *in_order;
}

bool store_put(struct store *s, uint64_t hash, struct view key, const struct store_entry *given, struct view head,
               struct view body)
{
	struct store_entry e = *given;
	e.n_key = (uint32_t)key.n;
	e.n_head = (uint32_t)head.n;
	e.n_body = (uint32_t)body.n;
	bool fits = s->shards && key.n <= STORE_KEY_MAX && e.n_tags <= STORE_TAGS_MAX &&
		    head.n + body.n + key.n <= store_bytes_max(s);
	struct parts p = { 0 };
	if (fits)
		p = parts_of(s, shard_of(s, hash));
	if (!fits || !lock_try(&p.shard->lock, region_me(s->region))) {
		store_count(s, STORE_REFUSED);
		return false;
	}
	shm_point("store-locked");
	bool in_order;
	bool kept = put_locked(s, &p, hash, key, &e, head, body, &in_order);
	if (!in_order)
		empty(s, &p);
	lock_release(&p.shard->lock);
	store_count(s, kept ? STORE_STORED : STORE_REFUSED);
	return kept;
}

void store_drop(struct store *s, uint64_t hash, struct view key, int64_t asked_us)
{
	if (!s->shards)
		return;
	struct parts p = parts_of(s, shard_of(s, hash));
	if (!lock_try(&p.shard->lock, region_me(s->region)))
		return;
	bool newer = false;
	uint32_t own = find_own(s, &p, hash, key, asked_us, &newer);
	if (own && !newer && !(unlink_queue(s, &p, own) && give_up(s, &p, own)))
		empty(s, &p);
	lock_release(&p.shard->lock);
}

void store_describe(const struct store *s, FILE *f)
{
	unsigned entries = 0, held = 0;
	uint64_t used = 0;
	if (!s->shards) {
		(void)fprintf(f, "store       none (cache_bytes is too small)\n");
		return;
	}
	for (uint32_t i = 0; i < s->n_shards; i++) {
		struct parts p = parts_of(s, i);
		held += atomic_load(&p.shard->lock.holder) != 0;
		used += s->n_blocks - (uint64_t)p.shard->n_free;
		for (uint32_t n = 0; n < s->n_slots; n++)
			entries += atomic_load_explicit(&p.slot[n].hash, memory_order_relaxed) != 0;
	}
	(void)fprintf(f, "store       %u shards, %u entries, %llu of %llu KiB in use, locks held: %u\n", s->n_shards, entries,
	              (unsigned long long)used, (unsigned long long)s->n_shards * s->n_blocks, held);
	(void)fprintf(f, "answers    ");
#define X(name, text) (void)fprintf(f, " %llu " #text, (unsigned long long)store_counted(s, STORE_##name));
	STORE_COUNTS(X)
#undef X
	(void)fprintf(f, "\n");
}
