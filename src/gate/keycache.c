#include "config.h"

#include "gate/keycache.h"

#include <assert.h>
#include <stdlib.h>

#include "cache/generation.h"
#include "shm/point.h"
#include "shm/words.h"

/* Keys in use at the same time may be as many as half the room: a set that overflows asks for each of its keys anew.
 * With 8 ways and 4,000 keys that is 1 set in 50; with 4 ways it was 4 sets of 1,024 with 1,000 keys. */
enum { WAYS = 8, SETS_KNOWN = 1024, SETS_UNKNOWN = 2048 };

struct stamp {
	int64_t put_us;      /* CLOCK_MONOTONIC, the same for all processes of a host; 0: empty */
	uint64_t generation;
};

struct known {
	struct key_record record;
	struct stamp stamp;
};

struct unknown {
	char id[16]; /* zero-padded */
	struct stamp stamp;
};

static_assert(sizeof(struct known) % 8 == 0 && sizeof(struct unknown) % 8 == 0, "they are copied in words");

/* Of a set: the lock guards entries and version; an odd version is a set being written. */
struct set_head {
	struct lock lock;
	_Atomic uint64_t version;
};

/* The heads stand together, so that looking through them for locks of the dead touches few pages. */
struct table {
	struct set_head known_head[SETS_KNOWN];
	struct set_head unknown_head[SETS_UNKNOWN];
	_Atomic uint64_t known[SETS_KNOWN][WAYS][sizeof(struct known) / 8];
	_Atomic uint64_t unknown[SETS_UNKNOWN][WAYS][sizeof(struct unknown) / 8];
};

struct keycache {
	struct region *region;
	struct watch *watch;
	struct table *table;
	int64_t ttl_us, grace_us;
};

static uint64_t tag_of(struct view id)
{
	return generation_tag(VIEW("key"), id);
}

static uint64_t tag_of_all(void)
{
	return generation_tag(VIEW("keys"), VIEW(""));
}

struct keycache *keycache_open(struct region *r, struct watch *w, int64_t ttl_us, int64_t grace_us)
{
	struct keycache *k = calloc(1, sizeof *k);
	if (!k)
		return NULL;
	size_t bytes;
	*k = (struct keycache){ r, w, region_area(r, AREA_KEYS, &bytes), ttl_us, grace_us };
	assert(bytes >= sizeof *k->table);
	if (region_repairing(r))
		(void)keycache_repair(k);
	return k;
}

void keycache_close(struct keycache *k)
{
	free(k);
}

/* --- reading --- */

/* Copies a way out if nobody writes the set meanwhile. */
static bool read_way(const struct set_head *head, const _Atomic uint64_t *way, void *out, size_t bytes)
{
	uint64_t version = atomic_load_explicit(&head->version, memory_order_acquire);
	if (version & 1)
		return false;
	words_load(out, way, bytes);
	atomic_thread_fence(memory_order_acquire);
	return atomic_load_explicit(&head->version, memory_order_relaxed) == version;
}

static bool way_has_id(const _Atomic uint64_t *way, struct view id)
{
	char first[16];
	words_load(first, way, sizeof first);
	return memcmp(first, id.p, APIKEY_ID_CHARS) == 0;
}

/* The hard half below the soft one, of which only everybody's counts: a tag's own is shared with rows that change often. */
uint64_t keycache_generation(const struct keycache *k, struct view id)
{
	uint32_t hard = generation_read(k->watch, tag_of(id)).hard + generation_read(k->watch, tag_of_all()).hard;
	return (uint64_t)generation_read_all(k->watch).soft << 32 | hard;
}

static enum key_state judge(const struct keycache *k, const struct stamp *s, uint64_t generation, int64_t now_us,
                            enum key_state fresh)
{
	if (s->put_us == 0 || s->put_us > now_us || (uint32_t)s->generation != (uint32_t)generation)
		return KEY_MISSING;
	if (now_us - s->put_us <= k->ttl_us && s->generation == generation)
		return fresh;
	return fresh == KEY_KNOWN && now_us - s->put_us <= k->grace_us ? KEY_OLD : KEY_MISSING;
}

enum key_state keycache_get(struct keycache *k, struct view id, int64_t now_us, struct key_record *record)
{
	if (id.n != APIKEY_ID_CHARS)
		return KEY_UNKNOWN;
	uint64_t tag = tag_of(id);
	uint64_t generation = keycache_generation(k, id);
	size_t set = tag % SETS_KNOWN;
	for (int i = 0; i < WAYS; i++) {
		const _Atomic uint64_t *way = k->table->known[set][i];
		struct known e;
		if (!way_has_id(way, id) || !read_way(&k->table->known_head[set], way, &e, sizeof e) ||
		    memcmp(e.record.id, id.p, id.n) != 0 || e.record.n_secrets > KEY_SECRETS_MAX)
			continue;
		enum key_state st = judge(k, &e.stamp, generation, now_us, KEY_KNOWN);
		if (st == KEY_MISSING)
			break; /* of another generation: the key may be known as an unknown one by now */
		e.record.role[KEY_ROLE_MAX - 1] = e.record.tenant[KEY_TENANT_MAX - 1] = '\0';
		*record = e.record;
		return st;
	}
	set = tag % SETS_UNKNOWN;
	for (int i = 0; i < WAYS; i++) {
		const _Atomic uint64_t *way = k->table->unknown[set][i];
		struct unknown e;
		if (way_has_id(way, id) && read_way(&k->table->unknown_head[set], way, &e, sizeof e) &&
		    memcmp(e.id, id.p, id.n) == 0)
			return judge(k, &e.stamp, generation, now_us, KEY_UNKNOWN);
	}
	return KEY_MISSING;
}

/* --- writing --- */

/* Which way to write: the one that has the id, else the oldest; `stamp_at` is the stamp's place in a way, in words.
 * Holding the lock. */
static int choose_way(const _Atomic uint64_t *ways, size_t words, size_t stamp_at, struct view id)
{
	int victim = 0;
	uint64_t oldest = UINT64_MAX;
	for (int i = 0; i < WAYS; i++) {
		const _Atomic uint64_t *way = ways + (size_t)i * words;
		uint64_t put = atomic_load_explicit(&way[stamp_at], memory_order_relaxed);
		if (way_has_id(way, id))
			return i;
		if (put < oldest) {
			oldest = put;
			victim = i;
		}
	}
	return victim;
}

/* Writes one way of a set, under its lock; dropped when that is not got. */
static void write_way(struct keycache *k, struct set_head *head, _Atomic uint64_t *ways, size_t bytes, size_t stamp_at,
                      struct view id, const void *entry)
{
	if (!lock_try(&head->lock, region_me(k->region)))
		return;
	shm_point("key-locked");
	int way = choose_way(ways, bytes / 8, stamp_at / 8, id);
	uint64_t version = atomic_load_explicit(&head->version, memory_order_relaxed);
	atomic_store_explicit(&head->version, version | 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	shm_point("key-writing");
	words_store(ways + (size_t)way * (bytes / 8), entry, bytes);
	shm_point("key-written");
	atomic_store_explicit(&head->version, (version | 1) + 1, memory_order_release);
	lock_release(&head->lock);
}

void keycache_put(struct keycache *k, const struct key_record *r, uint64_t generation, int64_t now_us)
{
	struct view id = view_make(r->id, sizeof r->id);
	struct known e = { .record = *r, .stamp = { now_us, generation } };
	size_t set = tag_of(id) % SETS_KNOWN;
	write_way(k, &k->table->known_head[set], k->table->known[set][0], sizeof e, offsetof(struct known, stamp), id, &e);
}

void keycache_put_unknown(struct keycache *k, struct view id, uint64_t generation, int64_t now_us)
{
	if (id.n != APIKEY_ID_CHARS)
		return;
	struct unknown e = { .stamp = { now_us, generation } };
	memcpy(e.id, id.p, id.n);
	size_t set = tag_of(id) % SETS_UNKNOWN;
	write_way(k, &k->table->unknown_head[set], k->table->unknown[set][0], sizeof e, offsetof(struct unknown, stamp), id, &e);
}

void keycache_invalidate(struct keycache *k, struct view id)
{
	generation_bump(k->watch, id.p ? tag_of(id) : tag_of_all(), GENERATION_HARD);
}

/* --- repair --- */

/* A set whose writer died half-way is emptied: what it held is asked for again. */
static bool repair_set(struct keycache *k, struct set_head *head, _Atomic uint64_t *ways, size_t words)
{
	if (!lock_take_over(&head->lock, k->region))
		return false;
	for (size_t i = 0; i < WAYS * words; i++)
		atomic_store_explicit(&ways[i], 0, memory_order_relaxed);
	uint64_t version = atomic_load_explicit(&head->version, memory_order_relaxed);
	atomic_store_explicit(&head->version, (version | 1) + 1, memory_order_release);
	lock_release(&head->lock);
	return true;
}

unsigned keycache_repair(struct keycache *k)
{
	unsigned n = 0;
	struct table *t = k->table;
	for (size_t i = 0; i < SETS_KNOWN; i++)
		n += repair_set(k, &t->known_head[i], t->known[i][0], sizeof(struct known) / 8);
	for (size_t i = 0; i < SETS_UNKNOWN; i++)
		n += repair_set(k, &t->unknown_head[i], t->unknown[i][0], sizeof(struct unknown) / 8);
	return n;
}

void keycache_describe(const struct keycache *k, FILE *f)
{
	unsigned held = 0, used = 0;
	for (size_t i = 0; i < SETS_KNOWN; i++) {
		held += atomic_load(&k->table->known_head[i].lock.holder) != 0;
		for (int w = 0; w < WAYS; w++)
			used += atomic_load(&k->table->known[i][w][offsetof(struct known, stamp) / 8]) != 0;
	}
	for (size_t i = 0; i < SETS_UNKNOWN; i++)
		held += atomic_load(&k->table->unknown_head[i].lock.holder) != 0;
	(void)fprintf(f, "keys        %u of %d known ones, locks held: %u\n", used, SETS_KNOWN * WAYS, held);
}
