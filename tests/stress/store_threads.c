/* store_threads: threads that read, write, fill up and repair one store as fast as they can, and check what they read.
 *
 *     store_threads [OPERATIONS]      of each thread; TAP on standard output
 *
 * First all of them in one mapping, where ThreadSanitizer sees each access (it is built with -fsanitize=thread where it
 * is not built with the other sanitizers). ThreadSanitizer does not model atomic_thread_fence(), of which the compilers
 * warn: here it orders nothing but relaxed atomics (store.c: slots' versions, blocks, links), and what is not atomic is
 * the lock's, a word that is taken and released by ordinary acquire and release. So no race is made up, and whether the
 * fences are right is judged by what is read. Then each with a mapping and a slot of its own, as workers have them, for
 * the flights.
 */
#include "config.h"

#include <pthread.h>
#include <unistd.h>

#include "../unit/answers.h"
#include "base/loop.h"
#include "cache/flight.h"
#include "cache/generation.h"

enum { THREADS = 6, KEYS = 300, FLIGHTS = 3, STORE_BYTES = 1 << 20 };

static unsigned long operations = 12000;
static const char *folder;
static struct region *region;
static struct watch *watch;
static struct store *store;
static _Atomic int64_t clock_now = 1000; /* one moment for each who looks */
static _Atomic unsigned violations, whole, missed, kept, emptied, led, joined;

/* What PostgreSQL has, and what of it has been told. */
static _Atomic int64_t truth[KEYS], told[KEYS];

static uint64_t draw(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void violation(const char *what, unsigned n)
{
	if (atomic_fetch_add(&violations, 1) < 10)
		printf("# violation: %s (%u)\n", what, n);
}

/* Few hashes, so that keys share buckets and some share a hash. */
static uint64_t hash_of(unsigned n)
{
	return answers_mix(n % 100 + 1) | 1;
}

/* The generations go with the answer beside it: in its times, which the store keeps for us. */
static int64_t packed(struct generation g)
{
	return (int64_t)((uint64_t)g.hard << 32 | g.soft);
}

static _Atomic int64_t generation_of[1 << 22]; /* by asked_us: what was read before the question */

static void fill(struct store *s, unsigned n)
{
	int64_t asked = atomic_fetch_add(&clock_now, 1);
	int64_t generation = packed(generation_read(watch, n));
	int64_t value = atomic_load(&truth[n]);
	atomic_store(&generation_of[asked % (1 << 22)], generation);
	if (answer_put(s, hash_of(n), n, asked, value))
		atomic_fetch_add_explicit(&kept, 1, memory_order_relaxed);
}

static void look(struct store *s, unsigned n)
{
	struct store_entry e;
	struct store_ref ref;
	int64_t least = atomic_load(&told[n]);
	enum answer_found what = answer_find(s, hash_of(n), n, &e, &ref);
	if (what == ANSWER_WRONG)
		violation("an answer is not as it was put", n);
	if (what != ANSWER_WHOLE) {
		atomic_fetch_add_explicit(&missed, 1, memory_order_relaxed);
		return;
	}
	atomic_fetch_add_explicit(&whole, 1, memory_order_relaxed);
	store_used(s, &ref, atomic_load(&clock_now));
	if (atomic_load(&generation_of[e.asked_us % (1 << 22)]) == packed(generation_read(watch, n)) && e.ttl_us < least)
		violation("an answer is older than a change that was told before", n);
}

static void change(unsigned n, uint64_t r)
{
	int64_t value = atomic_fetch_add(&truth[n], 1) + 1;
	generation_bump(watch, n, r & 1 ? GENERATION_HARD : GENERATION_SOFT);
	for (int64_t was = atomic_load(&told[n]); was < value && !atomic_compare_exchange_weak(&told[n], &was, value);)
		continue;
}

/* A writer that is dead: no process of this slot and epoch was ever there. */
static void die(void)
{
	size_t bytes;
	char *area = region_area(region, AREA_STORE, &bytes);
	_Atomic uint64_t *lock = (_Atomic uint64_t *)(void *)(area + ANSWERS_FIRST_SHARD);
	uint64_t nobody = 0;
	(void)atomic_compare_exchange_strong(lock, &nobody, (uint64_t)4321 << 16 | 9);
	atomic_fetch_add_explicit(&emptied, store_repair(store), memory_order_relaxed);
}

static void *work_together(void *arg)
{
	unsigned me = *(unsigned *)arg;
	uint64_t rng = 88172645463325252u + me * 7919u;
	for (unsigned long i = 0; i < operations; i++) {
		uint64_t r = draw(&rng);
		unsigned n = (unsigned)(r >> 32) % KEYS, what = (unsigned)r % 100;
		if (me == 0 && i % 2000 == 1999)
			die();
		else if (what < 2)
			change(n, r >> 20);
		else if (what < (me < 3 ? 50 : 10))
			fill(store, n);
		else
			look(store, n);
		if (i % 64 == 0)
			store_count(store, STORE_HIT);
	}
	return NULL;
}

/* --- flights: each has a slot --- */

static struct region *open_region(const char *where)
{
	struct region *r = region_open(&(struct region_options){ .folder = where, .instance = "0", .store_bytes = STORE_BYTES });
	if (!r)
		exit(2);
	return r;
}

static void fly(struct flights *f, struct region *r, uint64_t *rng)
{
	struct flight_ref ref;
	unsigned n = (unsigned)(draw(rng) >> 40) % FLIGHTS;
	int64_t now = clock_us();
	atomic_store(&region_slot(r)->beat_us, now);
	enum flight_role role = flight_take(f, answers_mix(n + 1), draw(rng) % 3 + 1, now, 0, &ref);
	if (role == FLIGHT_LEAD) {
		atomic_fetch_add_explicit(&led, 1, memory_order_relaxed);
		if (draw(rng) % 8 == 0)
			(void)usleep(1);
		flight_end(f, &ref, false);
	}
	if (role == FLIGHT_JOIN) {
		atomic_fetch_add_explicit(&joined, 1, memory_order_relaxed);
		(void)flight_goes_on(f, &ref, now);
	}
}

static pthread_barrier_t barrier;

static void *work_apart(void *arg)
{
	struct region *r = *(struct region **)arg;
	struct flights *f = flights_open(r);
	uint64_t rng = 7919 + region_me(r) * 104729;
	if (!f)
		exit(2);
	for (unsigned long round = 0; round < operations / 500 + 1; round++) {
		for (unsigned i = 0; i < 500; i++)
			fly(f, r, &rng);
		/* All have ended theirs: no place may still be taken, for nobody would ever free it. */
		pthread_barrier_wait(&barrier);
		for (unsigned n = 0; n < FLIGHTS; n++) {
			atomic_store(&region_slot(r)->beat_us, clock_us());
			pthread_barrier_wait(&barrier);
			if (flight_is_taken(f, answers_mix(n + 1), clock_us()))
				violation("a flight is taken and nobody leads it", n);
			pthread_barrier_wait(&barrier);
		}
	}
	flights_close(f);
	return NULL;
}

static void run(void *(*work)(void *), void *arg, size_t size)
{
	pthread_t thread[THREADS];
	for (unsigned i = 0; i < THREADS; i++)
		if (pthread_create(&thread[i], NULL, work, (char *)arg + i * size) != 0)
			exit(2);
	for (unsigned i = 0; i < THREADS; i++)
		(void)pthread_join(thread[i], NULL);
}

static bool told_result(unsigned n, const char *what)
{
	bool good = atomic_exchange(&violations, 0) == 0;
	printf("%sok %u - %s\n", good ? "" : "not ", n, what);
	return good;
}

int main(int argc, char **argv)
{
	unsigned number[THREADS];
	struct region *regions[THREADS];
	char made[] = "/tmp/cmps-unit-XXXXXX", command[64];
	if (argc > 1)
		operations = strtoul(argv[1], NULL, 10);
	printf("1..2\n");

	region = open_region("/nowhere/at/all"); /* memory of our own */
	watch = watch_open("/nowhere/at/all", "0");
	store = store_open(region);
	if (!watch || !store)
		return 2;
	region_ready(region);
	for (unsigned i = 0; i < THREADS; i++)
		number[i] = i;
	run(work_together, number, sizeof number[0]);
	printf("# %u whole, %u missed, %u kept, %llu evicted, %u emptied\n", whole, missed, kept,
	       (unsigned long long)store_counted(store, STORE_EVICTED), emptied);
	if (whole < operations / 10 || kept < operations / 10 || emptied < operations / 20000)
		violation("it was not put to the test", 0);
	bool good = told_result(1, "what threads read is whole and as new as what was told");
	store_close(store);
	watch_close(watch);
	region_close(region);

	if (!(folder = mkdtemp(made)))
		return 2;
	(void)pthread_barrier_init(&barrier, NULL, THREADS);
	for (unsigned i = 0; i < THREADS; i++) {
		regions[i] = open_region(folder);
		region_ready(regions[i]);
	}
	run(work_apart, regions, sizeof regions[0]);
	for (unsigned i = 0; i < THREADS; i++)
		region_close(regions[i]);
	printf("# %u led, %u joined\n", led, joined);
	good &= told_result(2, "a flight is over when its leader says so, whoever took it over");
	(void)snprintf(command, sizeof command, "rm -rf %s", folder);
	return system(command) == 0 && good ? 0 : 1;
}
