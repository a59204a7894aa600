#include "config.h"

#include "cache/flight.h"

#include <assert.h>
#include <stdlib.h>

#include "shm/point.h"

enum { PLACES = 16384, SETS = 8192, WAYS = 7, STOPPED_US = 300000, LOOK_US = 45000 };

struct place {
	_Atomic uint64_t word;        /* hash:22 epoch:18 slot:9 begins:1 ticket:14, or 0 */
	_Atomic uint64_t generations;
	_Atomic int64_t asked_us;
};

/* The ticket makes a flight's word its own: whoever ends it ends no other, whatever stands beside the word by then. While it
 * begins, what stands beside it is an earlier one's. */
enum { HASH_AT = 42, EPOCH_AT = 24, SLOT_AT = 15 };

static const int64_t FOR_ONE = -1; /* for asked_us, when it is over */
static const uint64_t BEGINS = 1 << 14, TICKET = BEGINS - 1, SLOT = 0x1ff, EPOCH = 0x3ffff;

/* A cache line. Who is pushed out raises the floor before: of those who are not here nothing is known up to then. */
struct wrote {
	_Atomic uint64_t way[WAYS];   /* check:16 us:48, or 0 */
	_Atomic uint64_t floor_us;
};
static_assert(sizeof(struct wrote) == 64, "a cache line");

struct table {
	struct place place[PLACES];
	struct wrote wrote[SETS];
};

struct flights {
	struct region *region;
	struct table *table;
	uint64_t tickets;
};

struct flights *flights_open(struct region *r)
{
	struct flights *f = calloc(1, sizeof *f);
	if (!f)
		return NULL;
	size_t bytes;
	f->region = r;
	f->table = region_area(r, AREA_FLIGHTS, &bytes);
	assert(bytes >= sizeof *f->table);
	return f;
}

void flights_close(struct flights *f)
{
	free(f);
}

static uint64_t own_word(struct flights *f, uint64_t hash)
{
	uint64_t me = region_me(f->region);
	return hash >> HASH_AT << HASH_AT | (me >> 16 & EPOCH) << EPOCH_AT | (me & SLOT) << SLOT_AT | (++f->tickets & TICKET);
}

/* Its worker is gone: another has its slot, its loop has not turned for long, or (looked at only when it is late) its byte is
 * free. */
static bool is_void(const struct flights *f, uint64_t word, int64_t now_us)
{
	unsigned n = (unsigned)(word >> SLOT_AT & SLOT) - 1;
	if (n >= REGION_SLOTS)
		return true;
	struct slot *s = region_slot_at(f->region, n);
	if ((atomic_load_explicit(&s->epoch, memory_order_relaxed) & EPOCH) != (word >> EPOCH_AT & EPOCH))
		return true;
	int64_t quiet = now_us - atomic_load_explicit(&s->beat_us, memory_order_relaxed);
	return quiet > STOPPED_US || (quiet > LOOK_US && !region_slot_alive(f->region, n));
}

enum flight_role flight_take(struct flights *f, uint64_t hash, uint64_t generations, int64_t now_us, int64_t join_from_us,
                             struct flight_ref *ref)
{
	ref->place = (uint32_t)hash % PLACES;
	struct place *p = &f->table->place[ref->place];
	uint64_t word = atomic_load_explicit(&p->word, memory_order_acquire), own = own_word(f, hash);
	if (word && !is_void(f, word, now_us)) {
		if (word >> HASH_AT != own >> HASH_AT)
			return FLIGHT_ALONE;
		if (word & BEGINS)
			return FLIGHT_LATER;
		uint64_t theirs = atomic_load_explicit(&p->generations, memory_order_acquire);
		ref->asked_us = atomic_load_explicit(&p->asked_us, memory_order_relaxed);
		ref->word = word;
		/* Whoever asked after we had looked at the clock is as good; far in the future is nonsense. */
		if (theirs == generations && ref->asked_us >= join_from_us && ref->asked_us < now_us + STOPPED_US)
			return FLIGHT_JOIN;
	}
	if (!atomic_compare_exchange_strong_explicit(&p->word, &word, own | BEGINS, memory_order_acq_rel, memory_order_relaxed))
		return FLIGHT_LATER;
	shm_point("flight-taken");
	ref->word = own;
	ref->asked_us = now_us;
	atomic_store_explicit(&p->asked_us, now_us, memory_order_relaxed);
	atomic_store_explicit(&p->generations, generations, memory_order_relaxed);
	/* Stopped just here for long, it was void and is another's by now. */
	word = own | BEGINS;
	bool ours = atomic_compare_exchange_strong_explicit(&p->word, &word, own, memory_order_release, memory_order_relaxed);
	return ours ? FLIGHT_LEAD : FLIGHT_ALONE;
}

bool flight_goes_on(struct flights *f, const struct flight_ref *ref, int64_t now_us)
{
	struct place *p = &f->table->place[ref->place];
	return atomic_load_explicit(&p->word, memory_order_acquire) == ref->word &&
	       atomic_load_explicit(&p->asked_us, memory_order_relaxed) == ref->asked_us && !is_void(f, ref->word, now_us);
}

bool flight_is_taken(struct flights *f, uint64_t hash, int64_t now_us)
{
	uint64_t word = atomic_load_explicit(&f->table->place[(uint32_t)hash % PLACES].word, memory_order_relaxed);
	return word && word >> HASH_AT == hash >> HASH_AT && !is_void(f, word, now_us);
}

/* Should it be another's place this very moment, that one's followers look again, no more. */
void flight_end(struct flights *f, const struct flight_ref *ref, bool for_one)
{
	struct place *p = &f->table->place[ref->place];
	uint64_t word = ref->word;
	if (for_one && atomic_load_explicit(&p->word, memory_order_relaxed) == word)
		atomic_store_explicit(&p->asked_us, FOR_ONE, memory_order_relaxed);
	(void)atomic_compare_exchange_strong_explicit(&p->word, &word, 0, memory_order_release, memory_order_relaxed);
}

bool flight_was_for_one(struct flights *f, const struct flight_ref *ref)
{
	struct place *p = &f->table->place[ref->place];
	return ref->word && atomic_load_explicit(&p->word, memory_order_acquire) == 0 &&
	       atomic_load_explicit(&p->asked_us, memory_order_relaxed) == FOR_ONE;
}

/* --- who wrote what --- */

enum { CHECK_AT = 48 };

static const uint64_t TIME = ((uint64_t)1 << CHECK_AT) - 1; /* of the clock that starts with the machine: nine years */

static void raise_to(_Atomic uint64_t *at, uint64_t least)
{
	uint64_t was = atomic_load_explicit(at, memory_order_relaxed);
	while (was < least && !atomic_compare_exchange_weak_explicit(at, &was, least, memory_order_release, memory_order_relaxed))
		;
}

/* The one that is its own, else a free one, else the oldest; *word is what stands there. */
static _Atomic uint64_t *way_for(struct wrote *w, uint64_t check, uint64_t *word)
{
	_Atomic uint64_t *best = NULL;
	for (unsigned i = 0; i < WAYS; i++) {
		uint64_t v = atomic_load_explicit(&w->way[i], memory_order_relaxed);
		if (v && v >> CHECK_AT == check) {
			*word = v;
			return &w->way[i];
		}
		if (!best || (v & TIME) < (*word & TIME)) {
			best = &w->way[i];
			*word = v;
		}
	}
	return best;
}

void flights_wrote(struct flights *f, uint64_t which, int64_t now_us)
{
	struct wrote *w = &f->table->wrote[which % SETS];
	uint64_t check = which >> CHECK_AT, now = (uint64_t)now_us & TIME, word;
	for (;;) {
		_Atomic uint64_t *way = way_for(w, check, &word);
		bool own = word && word >> CHECK_AT == check;
		/* Stopped since the clock was looked at, another one's later write stands there. */
		if (own && (word & TIME) >= now)
			return;
		if (!own)
			raise_to(&w->floor_us, word & TIME);
		if (atomic_compare_exchange_strong_explicit(way, &word, check << CHECK_AT | now, memory_order_release, memory_order_relaxed))
			return;
	}
}

int64_t flights_wrote_us(const struct flights *f, uint64_t which)
{
	const struct wrote *w = &f->table->wrote[which % SETS];
	uint64_t latest = 0;
	for (unsigned i = 0; i < WAYS; i++) {
		uint64_t v = atomic_load_explicit(&w->way[i], memory_order_acquire);
		if (v && v >> CHECK_AT == which >> CHECK_AT && (v & TIME) > latest)
			latest = v & TIME;
	}
	/* After the ways: who pushed it out while they were looked at had raised this before. */
	uint64_t floor = atomic_load_explicit(&w->floor_us, memory_order_acquire);
	return (int64_t)(latest > floor ? latest : floor);
}
