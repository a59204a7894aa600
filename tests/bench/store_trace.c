/* store_trace: which entry is to make room for the next one in the workers' store of answers. Seven ways to choose are
 * given the same requests, and the same room: blocks of 1 KiB, of which an answer takes as many as it needs, and slots,
 * of which it takes one. Printed is how much of what was asked for, in requests and in bytes, was there.
 *
 *     store_trace [--blocks N] [--requests N]
 *
 * The requests: keys by Zipf's law; the same with three of ten requests for keys that come once, in a row, as a crawler
 * or an export asks; the same with the thousand most wanted answers eight times as large from half-way on. An answer of
 * which the size has changed is another one: what is stored of it is thrown away and counts as not there. The first
 * fifth of the requests fills the room and is not counted. The seed is fixed: the same figures each time.
 *
 * S3-FIFO and its figures (a tenth of the room, moved on when read more than once, two bits of frequency): Yang, Zhang,
 * Qiu, Yue, Rashmi: FIFO queues are all you need for cache eviction, SOSP 2023. SIEVE: Zhang et al., NSDI 2024. */
#include "config.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS = 100000, WANTED = 1000, GROWN = 8, BLOCKS_PER_SLOT = 4, N_QUEUES = 2, REQUESTS_MAX = 10000000 };

/* An answer that is stored, or a key that might be. Queues are rings through their own entry behind all keys. */
struct entry {
	uint32_t older, newer;
	uint16_t n_blocks;   /* as stored; 0: it is not */
	uint8_t queue, read; /* read: how often since it was stored or last looked at, as far as the policy counts */
};

struct queue {
	uint32_t ring;
	unsigned n_blocks;
};

struct request {
	uint32_t key;
	uint16_t n_blocks;
};

/* What a policy sees of the store: entries in up to two queues. */
static struct entry *entries;
static struct queue queues[N_QUEUES];
static unsigned n_blocks_max = 16384, n_slots_max, n_used;

struct policy {
	const char *name;
	void (*on_hit)(uint32_t);
	void (*store)(uint32_t);   /* puts a new entry into a queue */
	uint32_t (*victim)(void);  /* the entry that goes, still in its queue; moves others as it likes */
	void (*on_gone)(uint32_t); /* may be NULL: an entry leaves its queue for good, evicted or thrown away */
};

/* --- queues --- */

static void put_newest(uint32_t at, unsigned q)
{
	struct entry *e = &entries[at], *ring = &entries[queues[q].ring];
	e->queue = (uint8_t)q;
	e->newer = queues[q].ring;
	e->older = ring->older;
	entries[ring->older].newer = at;
	ring->older = at;
	queues[q].n_blocks += e->n_blocks;
}

static void take_out(uint32_t at)
{
	struct entry *e = &entries[at];
	entries[e->older].newer = e->newer;
	entries[e->newer].older = e->older;
	queues[e->queue].n_blocks -= e->n_blocks;
}

static void move(uint32_t at, unsigned q)
{
	take_out(at);
	put_newest(at, q);
}

static bool is_empty(unsigned q)
{
	return entries[queues[q].ring].newer == queues[q].ring;
}

/* The oldest of a queue that has one. */
static uint32_t oldest(unsigned q)
{
	return entries[queues[q].ring].newer;
}

/* --- the policies --- */

static void store_newest(uint32_t at)
{
	put_newest(at, 0);
}

static uint32_t victim_oldest(void)
{
	return oldest(0);
}

static void hit_nothing(uint32_t at)
{
	(void)at;
}

static void hit_newest(uint32_t at)
{
	move(at, entries[at].queue);
}

static void hit_mark(uint32_t at)
{
	entries[at].read = 1;
}

/* CLOCK: who was read goes round once more. */
static uint32_t victim_unread(void)
{
	for (uint32_t at = oldest(0);; at = oldest(0)) {
		if (!entries[at].read)
			return at;
		entries[at].read = 0;
		move(at, 0);
	}
}

/* SIEVE: as CLOCK, but who was read stays where it is, and a hand goes from the oldest to the newest. */
static uint32_t hand;

static uint32_t victim_at_hand(void)
{
	for (uint32_t ring = queues[0].ring;; hand = entries[hand].newer) {
		if (hand == ring || hand == UINT32_MAX)
			hand = oldest(0);
		if (!entries[hand].read)
			return hand;
		entries[hand].read = 0;
	}
}

static void gone_from_hand(uint32_t at)
{
	if (hand == at)
		hand = entries[at].newer;
}

/* LRU in two parts: four fifths are for what was read again since it was stored, the rest is for what was not. */
enum { ONCE, AGAIN };

static void hit_again(uint32_t at)
{
	move(at, AGAIN);
	while (queues[AGAIN].n_blocks > n_blocks_max / 5 * 4)
		move(oldest(AGAIN), ONCE);
}

static uint32_t victim_once(void)
{
	return oldest(is_empty(ONCE) ? AGAIN : ONCE);
}

/* LFU by lot: of sixteen entries out of all those stored the one that was read least often; all counts are halved when
 * each entry has been read ten times on average, so that old fame fades. */
static uint32_t *stored, *place, n_stored, n_read;
static uint64_t dice;

static uint64_t throw_dice(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void hit_count(uint32_t at)
{
	if (entries[at].read < UINT8_MAX)
		entries[at].read++;
	if (++n_read < 10 * n_stored)
		return;
	n_read = 0;
	for (uint32_t i = 0; i < n_stored; i++)
		entries[stored[i]].read /= 2;
}

static void store_counted(uint32_t at)
{
	put_newest(at, 0);
	stored[place[at] = n_stored++] = at;
}

static void gone_counted(uint32_t at)
{
	uint32_t last = stored[--n_stored];
	stored[place[last] = place[at]] = last;
}

static uint32_t victim_least(void)
{
	uint32_t least = stored[throw_dice(&dice) % n_stored];
	for (int i = 1; i < 16; i++) {
		uint32_t at = stored[throw_dice(&dice) % n_stored];
		if (entries[at].read < entries[least].read)
			least = at;
	}
	return least;
}

/* S3-FIFO. Who leaves `small` unread leaves a fingerprint in a table with a place for each slot, where the next one
 * with the same place overwrites it; who comes back while it is there goes to `main` at once. */
enum { SMALL, MAIN };

static uint16_t *ghosts;

static uint16_t *ghost_of(uint32_t at, uint16_t *fingerprint)
{
	uint64_t h = (at + UINT64_C(1)) * UINT64_C(0x9e3779b97f4a7c15);
	h ^= h >> 29;
	h *= UINT64_C(0xbf58476d1ce4e5b9);
	*fingerprint = (uint16_t)(h | 1);
	return &ghosts[(h >> 32) % n_slots_max];
}

static void hit_frequency(uint32_t at)
{
	if (entries[at].read < 3)
		entries[at].read++;
}

static void store_small(uint32_t at)
{
	uint16_t mine, *ghost = ghost_of(at, &mine);
	bool was_here = *ghost == mine;
	if (was_here)
		*ghost = 0;
	put_newest(at, was_here ? MAIN : SMALL);
}

static uint32_t victim_small(void)
{
	for (;;) {
		bool from_small = is_empty(MAIN) || (!is_empty(SMALL) && queues[SMALL].n_blocks >= n_blocks_max / 10);
		uint32_t at = oldest(from_small ? SMALL : MAIN);
		struct entry *e = &entries[at];
		if (from_small && e->read > 1) {
			e->read = 0;
			move(at, MAIN);
		} else if (from_small) {
			uint16_t mine, *ghost = ghost_of(at, &mine);
			*ghost = mine;
			return at;
		} else if (e->read) {
			e->read--;
			move(at, MAIN);
		} else {
			return at;
		}
	}
}

static const struct policy policies[] = {
	{ "FIFO", hit_nothing, store_newest, victim_oldest, NULL },
	{ "CLOCK", hit_mark, store_newest, victim_unread, NULL },
	{ "LRU", hit_newest, store_newest, victim_oldest, NULL },
	{ "LRU, two parts", hit_again, store_newest, victim_once, NULL },
	{ "LFU by lot", hit_count, store_counted, victim_least, gone_counted },
	{ "SIEVE", hit_mark, store_newest, victim_at_hand, gone_from_hand },
	{ "S3-FIFO", hit_frequency, store_small, victim_small, NULL },
};
enum { N_POLICIES = sizeof policies / sizeof *policies };

/* --- one policy over one trace --- */

struct outcome {
	double requests, bytes; /* of 1 */
};

static void drop(const struct policy *p, uint32_t at)
{
	if (p->on_gone)
		p->on_gone(at);
	take_out(at);
	entries[at].n_blocks = 0;
	n_used--;
}

static void empty_store(size_t n_keys)
{
	memset(entries, 0, (n_keys + N_QUEUES) * sizeof *entries);
	for (unsigned q = 0; q < N_QUEUES; q++) {
		uint32_t ring = (uint32_t)(n_keys + q);
		queues[q] = (struct queue){ .ring = ring };
		entries[ring].older = entries[ring].newer = ring;
	}
	memset(ghosts, 0, n_slots_max * sizeof *ghosts);
	n_used = n_stored = n_read = 0;
	hand = UINT32_MAX;
	dice = 88172645463325252u;
}

static struct outcome run(const struct policy *p, const struct request *requests, size_t n, size_t n_keys)
{
	double asked = 0, asked_blocks = 0, hit = 0, hit_blocks = 0;
	empty_store(n_keys);
	for (size_t i = 0; i < n; i++) {
		const struct request *r = &requests[i];
		struct entry *e = &entries[r->key];
		bool is_hit = e->n_blocks == r->n_blocks;
		if (i >= n / 5) {
			asked++;
			asked_blocks += r->n_blocks;
			hit += is_hit;
			hit_blocks += is_hit ? r->n_blocks : 0;
		}
		if (is_hit) {
			p->on_hit(r->key);
			continue;
		}
		if (e->n_blocks)
			drop(p, r->key);
		while (n_used == n_slots_max || queues[0].n_blocks + queues[1].n_blocks + r->n_blocks > n_blocks_max)
			drop(p, p->victim());
		*e = (struct entry){ .n_blocks = r->n_blocks };
		p->store(r->key);
		n_used++;
	}
	return (struct outcome){ hit / asked, hit_blocks / asked_blocks };
}

/* --- traces --- */

struct trace {
	const char *name;
	double exponent;
	bool scanned, grown;
};

static const struct trace traces[] = {
	{ "Zipf 0.8", 0.8, false, false },
	{ "Zipf 1.0", 1.0, false, false },
	{ "0.8, and 30 % come once", 0.8, true, false },
	{ "1.0, and 30 % come once", 1.0, true, false },
	{ "0.8, the wanted grow", 0.8, false, true },
	{ "1.0, the wanted grow", 1.0, false, true },
};
enum { N_TRACES = sizeof traces / sizeof *traces };

/* Single rows, short and long pages, exports: whatever the key is wanted for has nothing to do with it. */
static uint16_t blocks_of(uint32_t key)
{
	static const uint16_t sizes[10] = { 1, 1, 1, 1, 1, 4, 4, 8, 8, 32 };
	return sizes[(key * 2654435761u >> 16) % 10];
}

/* Keys 0 to KEYS-1, the most wanted first; behind them those that come once. Returns how many keys there are. */
static size_t make_trace(const struct trace *t, struct request *out, size_t n)
{
	static double up_to[KEYS];
	uint64_t state = 42424242u;
	uint32_t once = KEYS;
	double sum = 0;
	for (int i = 0; i < KEYS; i++)
		up_to[i] = sum += pow(i + 1, -t->exponent);
	for (size_t i = 0; i < n; i++) {
		double u = (double)(throw_dice(&state) >> 11) / 9007199254740992.0;
		bool is_once = t->scanned && throw_dice(&state) % 10 < 3;
		uint32_t low = 0, high = KEYS - 1;
		while (low < high) {
			uint32_t middle = (low + high) / 2;
			if (up_to[middle] > u * sum)
				high = middle;
			else
				low = middle + 1;
		}
		uint32_t key = is_once ? once++ : low;
		bool is_larger = t->grown && i >= n / 2 && key < WANTED;
		out[i] = (struct request){ key, (uint16_t)(blocks_of(key) * (is_larger ? GROWN : 1)) };
	}
	return once;
}

/* --- */

static void *allocate(size_t n, size_t size)
{
	void *p = calloc(n, size);
	if (!p) {
		(void)fprintf(stderr, "store_trace: out of memory\n");
		exit(EXIT_FAILURE);
	}
	return p;
}

static void print_table(const char *what, const struct outcome seen[N_POLICIES][N_TRACES], bool bytes)
{
	printf("\n| %s |", what);
	for (int t = 0; t < N_TRACES; t++)
		printf(" %s |", traces[t].name);
	printf("\n| --- |");
	for (int t = 0; t < N_TRACES; t++)
		printf(" ---: |");
	for (int p = 0; p < N_POLICIES; p++) {
		printf("\n| %s |", policies[p].name);
		for (int t = 0; t < N_TRACES; t++)
			printf(" %.3f |", bytes ? seen[p][t].bytes : seen[p][t].requests);
	}
	printf("\n");
}

int main(int argc, char **argv)
{
	size_t n = 2000000;
	for (int i = 1; i < argc; i += 2) {
		unsigned long value = i + 1 < argc ? strtoul(argv[i + 1], NULL, 10) : 0;
		if (strcmp(argv[i], "--blocks") == 0 && value >= 1024 && value <= 1 << 30)
			n_blocks_max = (unsigned)value;
		else if (strcmp(argv[i], "--requests") == 0 && value >= 10 && value <= REQUESTS_MAX)
			n = value;
		else
			return (void)fprintf(stderr, "usage: store_trace [--blocks N, at least 1024] [--requests N]\n"),
			       2;
	}
	n_slots_max = n_blocks_max / BLOCKS_PER_SLOT;
	entries = allocate(KEYS + n + N_QUEUES, sizeof *entries);
	place = allocate(KEYS + n, sizeof *place);
	stored = allocate(n_slots_max, sizeof *stored);
	ghosts = allocate(n_slots_max, sizeof *ghosts);
	struct request *requests = allocate(n, sizeof *requests);
	static struct outcome seen[N_POLICIES][N_TRACES];
	double all_blocks = 0;
	for (uint32_t key = 0; key < KEYS; key++)
		all_blocks += blocks_of(key);
	for (int t = 0; t < N_TRACES; t++) {
		size_t n_keys = make_trace(&traces[t], requests, n);
		for (int p = 0; p < N_POLICIES; p++)
			seen[p][t] = run(&policies[p], requests, n, n_keys);
	}
	printf("%zu requests, %d keys, %u blocks of 1 KiB (%.1f %% of all answers), %u slots\n", n, KEYS, n_blocks_max,
		100 * n_blocks_max / all_blocks, n_slots_max);
	print_table("hits of requests", (const struct outcome(*)[N_TRACES])seen, false);
	print_table("hits of bytes", (const struct outcome(*)[N_TRACES])seen, true);
	free(requests);
	free(ghosts);
	free(stored);
	free(place);
	free(entries);
	return EXIT_SUCCESS;
}
