/* The one hard fact: a breaker's state is one word, so whoever changes it has seen all of it. What is counted beside it are
 * hints: a count that is lost in a race between two workers moves no call from good to bad. */
#include "config.h"

#include "shm/breaker.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/siphash.h"
#include "shm/region.h"

/* Two cells for each resource. They are never freed: what is gone from the catalog may come back. */
enum { CELLS = 2048, TRIES = 64, TURNS = 10, NAME_MAX_BYTES = 72, LEVEL_MAX = 20, PROBES_MAX = 15 };

/* Which tenth of the window it is, and what happened in it: turn:22 calls:14 bad:14 slow:14. */
struct turn {
	_Atomic uint64_t counts;
	_Atomic uint64_t callers, hit; /* a bit for each identity */
};

enum { TURN_AT = 42, CALLS_AT = 28, BAD_AT = 14, COUNT_BITS = 14, COUNT_MASK = (1 << COUNT_BITS) - 1 };

struct breaker {
	_Atomic uint64_t hash;   /* 0: nobody's */
	_Atomic uint32_t named;
	_Atomic uint32_t in_row;
	_Atomic uint64_t state;  /* see below */
	_Atomic uint64_t opened, refused; /* so often, ever */
	_Atomic uint64_t usual_us;
	_Atomic int64_t doubted_until_us;
	char name[NAME_MAX_BYTES];
	struct turn turn[TURNS];
	_Atomic uint16_t held[REGION_SLOTS];
};

struct area {
	uint8_t key[SIPHASH_KEY_BYTES]; /* zeros: names are the user's, not a client's */
	_Atomic uint64_t without;       /* how often there was no room for another cell */
	struct breaker cell[CELLS];
};

struct breakers {
	struct region *region;
	struct area *area;
	bool told; /* that there is no room */
};

/* --- the state: state:2 level:6 serial:8 out:4 good:4 until_ms:40 --- */

struct word {
	unsigned state, level, serial, out, good;
	int64_t until_ms;
};

static uint64_t pack(struct word w)
{
	return (uint64_t)w.state << 62 | (uint64_t)w.level << 56 | (uint64_t)(w.serial & 0xff) << 48 | (uint64_t)w.out << 44 |
	       (uint64_t)w.good << 40 | ((uint64_t)w.until_ms & 0xffffffffff);
}

static struct word unpack(uint64_t v)
{
	return (struct word){
		.state = (unsigned)(v >> 62), .level = v >> 56 & 0x3f, .serial = v >> 48 & 0xff,
		.out = v >> 44 & 0xf, .good = v >> 40 & 0xf, .until_ms = (int64_t)(v & 0xffffffffff),
	};
}

static struct word word_of(const struct breaker *b, uint64_t *raw)
{
	*raw = atomic_load_explicit(&b->state, memory_order_acquire);
	return unpack(*raw);
}

static bool change(struct breaker *b, uint64_t *raw, struct word w)
{
	return atomic_compare_exchange_strong_explicit(&b->state, raw, pack(w), memory_order_acq_rel, memory_order_acquire);
}

/* Half of the time is fixed, so that it is open for a while; half is chance, so that hosts do not come back together. */
static int64_t open_for_us(const struct breaker_terms *t, unsigned level)
{
	int64_t us = t->open_us;
	for (unsigned i = 0; i < level && us < t->open_max_us; i++)
		us *= 2;
	us = us < t->open_max_us ? us : t->open_max_us;
	return us / 2 + (us > 1 ? random() % (us / 2 + 1) : 0);
}

static struct word opened(const struct word *from, const struct breaker_terms *t, int64_t now_us, unsigned level)
{
	level = level < LEVEL_MAX ? level : LEVEL_MAX;
	return (struct word){
		.state = BREAKER_OPEN, .level = level, .serial = from->serial,
		.until_ms = (now_us + open_for_us(t, level) + 999) / 1000,
	};
}

/* What was counted before it opened says nothing of what comes after it closed. */
static void forget_counts(struct breaker *b)
{
	for (unsigned i = 0; i < TURNS; i++)
		atomic_store_explicit(&b->turn[i].counts, 0, memory_order_relaxed);
	atomic_store_explicit(&b->in_row, 0, memory_order_relaxed);
}

static bool open_it(struct breaker *b, const struct breaker_terms *t, int64_t now_us, unsigned from_state, unsigned serial)
{
	uint64_t raw;
	struct word w = word_of(b, &raw);
	while (w.state == from_state && (from_state == BREAKER_CLOSED || w.serial == (serial & 0xff))) {
		unsigned level = w.state == BREAKER_HALF_OPEN ? w.level + 1 : 0;
		if (change(b, &raw, opened(&w, t, now_us, level))) {
			atomic_fetch_add_explicit(&b->opened, 1, memory_order_relaxed);
			forget_counts(b);
			return true;
		}
		w = unpack(raw);
	}
	return false;
}

bool breaker_trip(struct breaker *b, const struct breaker_terms *t, int64_t now_us)
{
	return b && open_it(b, t, now_us, BREAKER_CLOSED, 0);
}

uint64_t breaker_openings(const struct breaker *b)
{
	return b ? atomic_load_explicit(&b->opened, memory_order_relaxed) : 0;
}

void breaker_well(struct breaker *b)
{
	if (b && atomic_load_explicit(&b->in_row, memory_order_relaxed))
		atomic_store_explicit(&b->in_row, 0, memory_order_relaxed);
}

void breaker_heal(struct breaker *b)
{
	uint64_t raw;
	if (!b)
		return;
	atomic_store_explicit(&b->in_row, 0, memory_order_relaxed);
	struct word w = word_of(b, &raw);
	while (w.state != BREAKER_CLOSED && !change(b, &raw, (struct word){ .state = BREAKER_CLOSED, .serial = w.serial }))
		w = unpack(raw);
}

void breaker_doubt(struct breaker *b, int64_t until_us)
{
	if (b)
		atomic_store_explicit(&b->doubted_until_us, until_us, memory_order_relaxed);
}

bool breaker_doubted(const struct breaker *b, int64_t now_us)
{
	return b && now_us < atomic_load_explicit(&b->doubted_until_us, memory_order_relaxed);
}

enum breaker_state breaker_state(const struct breaker *b, int64_t now_us, int64_t *wait_us)
{
	uint64_t raw;
	struct word w = b ? word_of(b, &raw) : (struct word){ .state = BREAKER_CLOSED };
	int64_t wait = w.until_ms * 1000 - now_us;
	if (wait_us)
		*wait_us = w.state == BREAKER_CLOSED || wait < 0 ? 0 : wait;
	return w.state;
}

/* --- calls --- */

static bool refuse(struct breaker *b, const struct word *w, int64_t now_us, int64_t *wait_us)
{
	atomic_fetch_add_explicit(&b->refused, 1, memory_order_relaxed);
	*wait_us = w->until_ms * 1000 - now_us;
	if (*wait_us < 1000)
		*wait_us = 1000;
	return false;
}

bool breaker_pass(struct breaker *b, const struct breaker_terms *t, int64_t now_us, int64_t probe_us,
                  struct breaker_call *call, int64_t *wait_us)
{
	*call = (struct breaker_call){ .breaker = b, .since_us = now_us };
	*wait_us = 0;
	if (!b)
		return true;
	uint64_t raw;
	unsigned probes = t->probes < PROBES_MAX ? t->probes : PROBES_MAX;
	for (struct word w = word_of(b, &raw);; w = unpack(raw)) {
		bool over = now_us >= w.until_ms * 1000;
		struct word to = w;
		if (w.state == BREAKER_CLOSED)
			return true;
		if (w.state == BREAKER_HALF_OPEN && over && w.out > w.good) {
			/* A probe did not end in time. */
			to = opened(&w, t, now_us, w.level + 1);
		} else if (w.state == BREAKER_OPEN && over) {
			to.state = BREAKER_HALF_OPEN;
			to.serial = (w.serial + 1) & 0xff;
			to.out = 1;
			to.good = 0;
			to.until_ms = (now_us + probe_us + 999) / 1000;
		} else if (w.state == BREAKER_HALF_OPEN && w.out < probes) {
			/* Those before it are through, or have their time: few come, and each has its own. */
			to.out++;
			to.until_ms = (now_us + probe_us + 999) / 1000;
		} else {
			return refuse(b, &w, now_us, wait_us);
		}
		if (!change(b, &raw, to))
			continue;
		if (to.state == BREAKER_OPEN)
			return refuse(b, &to, now_us, wait_us);
		call->probe = true;
		call->serial = (uint8_t)to.serial;
		return true;
	}
}

/* A probe that said nothing makes room for another one. */
static enum breaker_turn probe_ended(const struct breaker_call *call, const struct breaker_terms *t, enum outcome outcome,
                                     int64_t now_us)
{
	struct breaker *b = call->breaker;
	uint64_t raw;
	if (outcome == OUTCOME_BAD || outcome == OUTCOME_SLOW)
		return open_it(b, t, now_us, BREAKER_HALF_OPEN, call->serial) ? BREAKER_OPENS : BREAKER_STAYS;
	for (struct word w = word_of(b, &raw);; w = unpack(raw)) {
		if (w.state != BREAKER_HALF_OPEN || w.serial != call->serial)
			return BREAKER_STAYS;
		struct word to = w;
		if (outcome == OUTCOME_NONE)
			to.out -= to.out > 0;
		else if (++to.good >= t->probes || to.good >= PROBES_MAX)
			to = (struct word){ .state = BREAKER_CLOSED, .serial = w.serial };
		if (change(b, &raw, to))
			return to.state == BREAKER_CLOSED ? BREAKER_CLOSES : BREAKER_STAYS;
	}
}

static uint64_t turn_now(const struct breaker_terms *t, int64_t now_us)
{
	int64_t turn_us = t->window_us / TURNS > 0 ? t->window_us / TURNS : 1;
	return (uint64_t)(now_us / turn_us) & 0x3fffff;
}

static uint64_t halves(uint64_t counts)
{
	uint64_t half = COUNT_MASK >> 1;
	return counts >> 1 & (half << CALLS_AT | half << BAD_AT | half);
}

static void count(struct breaker *b, const struct breaker_terms *t, enum outcome outcome, uint64_t who, int64_t now_us)
{
	uint64_t turn = turn_now(t, now_us), bit = (uint64_t)1 << (who >> 58);
	struct turn *at = &b->turn[turn % TURNS];
	uint64_t counts = atomic_load_explicit(&at->counts, memory_order_relaxed), to;
	bool fresh;
	do {
		fresh = counts >> TURN_AT != turn || counts == 0;
		to = fresh ? turn << TURN_AT : counts;
		if ((to >> CALLS_AT & COUNT_MASK) == COUNT_MASK)
			to = turn << TURN_AT | halves(to); /* the shares stay, and what comes now counts, too */
		to += (uint64_t)1 << CALLS_AT;
		to += outcome == OUTCOME_BAD ? (uint64_t)1 << BAD_AT : outcome == OUTCOME_SLOW;
	} while (!atomic_compare_exchange_weak_explicit(&at->counts, &counts, to, memory_order_relaxed, memory_order_relaxed));
	if (fresh) {
		atomic_store_explicit(&at->callers, bit, memory_order_relaxed);
		atomic_store_explicit(&at->hit, outcome == OUTCOME_GOOD ? 0 : bit, memory_order_relaxed);
		return;
	}
	if (!(atomic_load_explicit(&at->callers, memory_order_relaxed) & bit))
		atomic_fetch_or_explicit(&at->callers, bit, memory_order_relaxed);
	if (outcome != OUTCOME_GOOD)
		atomic_fetch_or_explicit(&at->hit, bit, memory_order_relaxed);
}

struct sums {
	uint64_t calls, bad, slow, callers, hit;
};

static struct sums sums_of(const struct breaker *b, const struct breaker_terms *t, int64_t now_us)
{
	struct sums s = { .calls = 0 };
	uint64_t turn = turn_now(t, now_us);
	for (unsigned i = 0; i < TURNS; i++) {
		uint64_t counts = atomic_load_explicit(&b->turn[i].counts, memory_order_relaxed);
		if (((turn - (counts >> TURN_AT)) & 0x3fffff) >= TURNS)
			continue;
		s.calls += counts >> CALLS_AT & COUNT_MASK;
		s.bad += counts >> BAD_AT & COUNT_MASK;
		s.slow += counts & COUNT_MASK;
		s.callers |= atomic_load_explicit(&b->turn[i].callers, memory_order_relaxed);
		s.hit |= atomic_load_explicit(&b->turn[i].hit, memory_order_relaxed);
	}
	return s;
}

static bool too_many(const struct breaker *b, const struct breaker_terms *t, int64_t now_us)
{
	struct sums s = sums_of(b, t, now_us);
	if (s.calls < t->calls_min)
		return false;
	uint64_t of_callers = (uint64_t)__builtin_popcountll(s.callers), of_hit = (uint64_t)__builtin_popcountll(s.hit);
	if (of_hit < 2 && of_callers > 1)
		return false;
	bool failing = 100 * s.bad >= t->failure_percent * s.calls && 100 * of_hit >= t->failure_percent * of_callers;
	/* One that failed was not fast either. */
	bool slowly = 100 * (s.bad + s.slow) >= t->slow_percent * s.calls && 100 * of_hit >= t->slow_percent * of_callers;
	return (s.bad && failing) || (s.slow && slowly);
}

enum breaker_turn breaker_ended(const struct breaker_call *call, const struct breaker_terms *t, enum outcome outcome, uint64_t who,
                                int64_t now_us)
{
	struct breaker *b = call->breaker;
	if (!b)
		return BREAKER_STAYS;
	if (call->probe)
		return probe_ended(call, t, outcome, now_us);
	if (outcome == OUTCOME_NONE)
		return BREAKER_STAYS;
	if (outcome != OUTCOME_BAD && atomic_load_explicit(&b->in_row, memory_order_relaxed))
		atomic_store_explicit(&b->in_row, 0, memory_order_relaxed);
	uint64_t raw;
	if (word_of(b, &raw).state != BREAKER_CLOSED)
		return BREAKER_STAYS; /* it was let through before it opened */
	count(b, t, outcome, who, now_us);
	if (outcome == OUTCOME_GOOD)
		return BREAKER_STAYS;
	bool row = outcome == OUTCOME_BAD && t->in_row &&
		   atomic_fetch_add_explicit(&b->in_row, 1, memory_order_relaxed) + 1 >= t->in_row;
	return (row || too_many(b, t, now_us)) && open_it(b, t, now_us, BREAKER_CLOSED, 0) ? BREAKER_OPENS : BREAKER_STAYS;
}

/* --- bulkheads --- */

static unsigned count_held(struct breakers *all, struct breaker *b, bool living)
{
	unsigned n = 0;
	for (unsigned i = 0; i < REGION_SLOTS; i++) {
		unsigned held = atomic_load_explicit(&b->held[i], memory_order_relaxed);
		if (held && (!living || region_slot_alive(all->region, i)))
			n += held;
	}
	return n;
}

static _Atomic uint16_t *own(struct breakers *all, struct breaker *b)
{
	return &b->held[(region_me(all->region) & 0xffff) - 1];
}

bool bulkhead_enter(struct breakers *all, struct breaker *b, unsigned most, unsigned *held)
{
	*held = 0;
	if (!b)
		return true;
	_Atomic uint16_t *mine = own(all, b);
	if (atomic_load_explicit(mine, memory_order_relaxed) == UINT16_MAX)
		return false;
	/* First ours, then the sum: of two who take the last place at the same moment both may go without, never too many in. */
	atomic_fetch_add(mine, 1);
	*held = count_held(all, b, false);
	if (*held <= most)
		return true;
	*held = count_held(all, b, true);
	if (*held <= most)
		return true;
	atomic_fetch_sub(mine, 1);
	(*held)--;
	return false;
}

void bulkhead_leave(struct breakers *all, struct breaker *b)
{
	if (!b)
		return;
	/* Nobody else counts here. Of memory that was written over, a place less is better than 65535 more. */
	_Atomic uint16_t *mine = own(all, b);
	if (atomic_load_explicit(mine, memory_order_relaxed) > 0)
		atomic_fetch_sub(mine, 1);
}

void bulkhead_took(struct breaker *b, int64_t us)
{
	if (!b || us < 0)
		return;
	int64_t usual = (int64_t)atomic_load_explicit(&b->usual_us, memory_order_relaxed);
	int64_t to = usual ? usual + (us - usual) / 8 : us;
	atomic_store_explicit(&b->usual_us, (uint64_t)(to > 0 ? to : 1), memory_order_relaxed);
}

int64_t bulkhead_usual_us(const struct breaker *b)
{
	return b ? (int64_t)atomic_load_explicit(&b->usual_us, memory_order_relaxed) : 0;
}

/* --- cells --- */

/* What a dead worker left in this slot. */
static void forget_places(struct breakers *all, unsigned slot)
{
	for (unsigned i = 0; i < CELLS && slot < REGION_SLOTS; i++) {
		struct breaker *b = &all->area->cell[i];
		if (atomic_load_explicit(&b->hash, memory_order_relaxed))
			atomic_store(&b->held[slot], 0);
	}
}

struct breakers *breakers_open(struct region *r)
{
	struct breakers *all = calloc(1, sizeof *all);
	if (!all)
		return NULL;
	size_t bytes;
	all->region = r;
	all->area = region_area(r, AREA_BREAKERS, &bytes);
	assert(bytes >= sizeof *all->area);
	forget_places(all, (unsigned)(region_me(r) & 0xffff) - 1);
	return all;
}

void breakers_close(struct breakers *all)
{
	free(all);
}

static void tell_no_room(struct breakers *all)
{
	atomic_fetch_add_explicit(&all->area->without, 1, memory_order_relaxed);
	if (!all->told)
		log_warn("there is no room for more circuit breakers and bulkheads: some resources have none");
	all->told = true;
}

struct breaker *breaker_find(struct breakers *all, struct view name)
{
	uint8_t out[SIPHASH_BYTES];
	uint64_t hash;
	siphash_of(all->area->key, name, out);
	memcpy(&hash, out, sizeof hash);
	hash = hash ? hash : 1;
	for (unsigned i = 0; i < TRIES; i++) {
		struct breaker *b = &all->area->cell[(hash + i) % CELLS];
		uint64_t theirs = atomic_load_explicit(&b->hash, memory_order_acquire);
		if (theirs == hash)
			return b;
		if (theirs)
			continue;
		if (!atomic_compare_exchange_strong_explicit(&b->hash, &theirs, hash, memory_order_acq_rel, memory_order_acquire)) {
			if (theirs == hash)
				return b;
			continue;
		}
		size_t n = name.n < sizeof b->name - 1 ? name.n : sizeof b->name - 1;
		memcpy(b->name, name.p, n);
		b->name[n] = '\0';
		atomic_store_explicit(&b->named, 1, memory_order_release);
		return b;
	}
	tell_no_room(all);
	return NULL;
}

void breakers_describe(struct breakers *all, const struct breaker_terms *t, int64_t now_us, FILE *f)
{
	static const char *const states[] = { "closed", "open", "half open", "?" };
	unsigned used = 0;
	for (unsigned i = 0; i < CELLS; i++) {
		struct breaker *b = &all->area->cell[i];
		uint64_t raw;
		if (!atomic_load_explicit(&b->named, memory_order_acquire))
			continue;
		struct sums s = sums_of(b, t, now_us);
		used++;
		(void)fprintf(f, "breaker     %.*s: %s, opened %llu times, %llu refused, %u out, usually %llu us; "
		              "of %llu calls %llu failed, %llu were slow\n",
		              (int)strnlen(b->name, sizeof b->name), b->name, states[word_of(b, &raw).state],
		              (unsigned long long)atomic_load(&b->opened), (unsigned long long)atomic_load(&b->refused),
		              count_held(all, b, true), (unsigned long long)atomic_load(&b->usual_us),
		              (unsigned long long)s.calls, (unsigned long long)s.bad, (unsigned long long)s.slow);
	}
	(void)fprintf(f, "breakers    %u of %d in use, %llu calls found no room\n", used, CELLS,
	              (unsigned long long)atomic_load(&all->area->without));
}
