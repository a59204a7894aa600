#include "config.h"

#include "cache/flight.h"

#include <assert.h>
#include <stdlib.h>

#include "shm/point.h"

enum { PLACES = 16384, WRITES = 65536, STOPPED_US = 300000, LOOK_US = 45000 };

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

struct table {
	struct place place[PLACES];
	_Atomic int64_t wrote_us[WRITES];
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

void flights_wrote(struct flights *f, uint64_t which, int64_t now_us)
{
	_Atomic int64_t *at = &f->table->wrote_us[which % WRITES];
	int64_t was = atomic_load_explicit(at, memory_order_relaxed);
	/* Stopped since the clock was looked at, another one's later write stands there. */
	while (was < now_us && !atomic_compare_exchange_weak_explicit(at, &was, now_us, memory_order_release, memory_order_relaxed))
		;
}

int64_t flights_wrote_us(const struct flights *f, uint64_t which)
{
	return atomic_load_explicit(&f->table->wrote_us[which % WRITES], memory_order_acquire);
}
