/* region_churn: uses the shared region as a worker does, as fast as it can, and checks that what it reads is whole.
 *
 *     region_churn FOLDER            until it is killed
 *     region_churn FOLDER --settle   until each set of the key cache, the catalog and each shard of the store can be
 *                                    written, and each flight be led: locks of the dead are freed, whoever died where
 *     region_churn FOLDER --attach N N times: how long attaching takes, in nanoseconds of user and of wall time
 *
 * Exit status 1 and a line on standard output when something read is not as somebody wrote it. Every key's record,
 * every published text and every answer can be told from its first bytes alone, so what is torn or mixed shows.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../unit/answers.h"
#include "base/loop.h"
#include "cache/flight.h"
#include "cache/generation.h"
#include "gate/keycache.h"
#include "shm/published.h"

enum { KEYS = 20000, TEXT_MAX = 200000, SETTLE_US = 20000000, STORE_BYTES = 8500000, ANSWERS = 4000, FLIGHTS = 20 };

static struct region *region;
static struct watch *watch;
static struct published *published;
static struct keycache *keys;
static struct store *store;
static struct flights *flights;
static uint64_t seed;

static uint64_t draw(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static _Noreturn void violation(const char *what)
{
	printf("violation: %s\n", what);
	exit(1);
}

static void attach(const char *folder)
{
	static const char instance[] = "c0ffee0000000000";
	watch = watch_open(folder, instance);
	region = region_open(&(struct region_options){ .folder = folder, .instance = instance, .store_bytes = STORE_BYTES });
	if (!watch || !region)
		violation("no memory");
	published = published_open(region, AREA_CATALOG);
	keys = keycache_open(region, watch, 60000000, 60000000);
	store = store_open(region);
	flights = flights_open(region);
	if (!store || !flights)
		violation("no memory");
	region_ready(region);
	if (!region_is_shared(region) || !watch_is_shared(watch)) {
		printf("violation: not shared: %s %s\n", region_note(region).p, watch_note(watch).p);
		exit(1);
	}
}

static void detach(void)
{
	store_close(store);
	flights_close(flights);
	keycache_close(keys);
	published_close(published);
	region_close(region);
	watch_close(watch);
}

/* --- what can be told from its name --- */

static struct key_record record_of(unsigned n)
{
	char id[APIKEY_ID_CHARS + 1];
	struct key_record r = { .n_secrets = KEY_SECRETS_MAX, .has_role = 1, .has_tenant = 1, .expires_us = (int64_t)n };
	(void)snprintf(id, sizeof id, "%014u", n);
	memcpy(r.id, id, sizeof r.id);
	memset(r.role, 'a' + (int)(n % 26), sizeof r.role - 1);
	memset(r.tenant, 'A' + (int)(n % 26), sizeof r.tenant - 1);
	for (int i = 0; i < KEY_SECRETS_MAX; i++) {
		r.secret_until_us[i] = (int64_t)n + i;
		memset(r.hash[i], (int)((n + (unsigned)i) & 0xff), sizeof r.hash[i]);
	}
	return r;
}

static size_t text_of(char *text, uint64_t n)
{
	size_t length = 100 + n * 7919 % (TEXT_MAX - 100);
	int head = snprintf(text, 32, "%020llu:", (unsigned long long)n);
	for (size_t i = (size_t)head; i < length; i++)
		text[i] = (char)('!' + (n + i) % 90);
	return length;
}

static void use_key(void)
{
	unsigned n = (unsigned)(draw() % KEYS);
	struct key_record expected = record_of(n), got;
	struct view id = view_make(expected.id, sizeof expected.id);
	int64_t now = clock_us();
	uint64_t generation = keycache_generation(keys, id);
	enum key_state st = keycache_get(keys, id, now, &got);
	if (st == KEY_OLD)
		violation("a key is old before its time");
	if (st == KEY_KNOWN && n % 2)
		violation("an unknown id is known");
	if (st == KEY_UNKNOWN && n % 2 == 0)
		violation("a key is unknown");
	if (st == KEY_KNOWN && memcmp(&got, &expected, sizeof got) != 0)
		violation("a key's record is not as it was written");
	if (n % 2)
		keycache_put_unknown(keys, id, generation, now);
	else
		keycache_put(keys, &expected, generation, now);
}

static uint64_t hash_of(unsigned n)
{
	return answers_mix(n / 2 + 1) | 1; /* two keys each: a hash alone must not do */
}

static void use_answer(void)
{
	unsigned n = (unsigned)(draw() % ANSWERS);
	struct store_entry e;
	struct store_ref ref;
	enum answer_found what = answer_find(store, hash_of(n), n, &e, &ref);
	if (what == ANSWER_WRONG)
		violation("an answer is not as it was put");
	if (what == ANSWER_WHOLE)
		store_used(store, &ref, clock_us());
	if (what == ANSWER_NONE || draw() % 8 == 0)
		(void)answer_put(store, hash_of(n), n, clock_us(), (int64_t)draw());
}

static enum flight_role use_flight(unsigned n)
{
	struct flight_ref ref;
	int64_t now = clock_us();
	atomic_store(&region_slot(region)->beat_us, now);
	enum flight_role role = flight_take(flights, answers_mix(n + 1), draw() % 3, now, 0, &ref);
	if (role == FLIGHT_LEAD)
		flight_end(flights, &ref, false);
	return role;
}

static void check_published(void)
{
	static char expected[TEXT_MAX + 32];
	struct buf out = BUF(1 << 22), tag = BUF(1024);
	struct publication pub;
	if (published_read(published, &out, &tag, &pub)) {
		size_t n = text_of(expected, pub.stamp);
		if (out.n != n || memcmp(out.p, expected, n) != 0)
			violation("the published text is not as it was written");
		if (tag.n != 8 || memcmp(tag.p, &pub.stamp, 8) != 0)
			violation("the tag is another text's");
	}
	buf_free(&out);
	buf_free(&tag);
}

static enum published_result publish(void)
{
	static char text[TEXT_MAX + 32];
	uint64_t n = draw();
	size_t length = text_of(text, n);
	return published_write(published, region, view_make(text, length), view_make((const char *)&n, 8), n);
}

static void repair(void)
{
	(void)published_repair(published, region);
	(void)keycache_repair(keys);
	(void)store_repair(store);
}

static void churn(void)
{
	for (unsigned round = 0;; round++) {
		for (int i = 0; i < 200; i++)
			use_key();
		for (unsigned i = 0; i < 400; i++) {
			use_answer();
			(void)use_flight(i % FLIGHTS);
		}
		check_published();
		if (round % 4 == 0)
			(void)publish();
		if (watch_hold(watch, watch_clock_ms()) && round % 8 == 0) {
			watch_beat(watch, watch_clock_ms());
			repair();
		}
		if (!region_intact(region) || !watch_intact(watch))
			violation("the files are not intact");
	}
}

/* --- after the churn --- */

/* Alone or not: everything can be written again. */
static void settle(void)
{
	int64_t end = clock_us() + SETTLE_US, begun_ms = watch_clock_ms();
	for (unsigned n = 0; n < KEYS; n += 2) {
		struct key_record r = record_of(n), got;
		struct view id = view_make(r.id, sizeof r.id);
		for (;;) {
			keycache_put(keys, &r, keycache_generation(keys, id), clock_us());
			if (keycache_get(keys, id, clock_us(), &got) == KEY_KNOWN)
				break;
			if (clock_us() > end)
				violation("a set of the key cache cannot be written");
			repair();
		}
	}
	for (unsigned n = 0; n < ANSWERS; n++) {
		while (!answer_put(store, hash_of(n), n, clock_us(), 1)) {
			if (clock_us() > end)
				violation("a shard of the store cannot be written");
			repair();
		}
	}
	for (unsigned n = 0; n < FLIGHTS; n++)
		while (use_flight(n) != FLIGHT_LEAD)
			if (clock_us() > end)
				violation("a flight cannot be led");
	while (publish() != PUBLISHED) {
		if (clock_us() > end)
			violation("nothing can be published");
		repair();
	}
	check_published();
	/* By us, or by somebody who has come meanwhile. */
	while (region_alone(region) && !watch_hold(watch, watch_clock_ms()) && watch_heartbeat_ms(watch) <= begun_ms)
		if (clock_us() > end)
			violation("the watch cannot be had");
	printf("settled\n");
}

static int64_t ns_of(clockid_t which)
{
	struct timespec t;
	clock_gettime(which, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

/* The files exist already, and somebody else is attached. */
static void time_attaching(const char *folder, int n)
{
	int64_t *wall = calloc((size_t)n, sizeof *wall), *cpu = calloc((size_t)n, sizeof *cpu);
	if (!wall || !cpu)
		violation("no memory");
	for (int i = 0; i < n; i++) {
		int64_t w = ns_of(CLOCK_MONOTONIC), c = ns_of(CLOCK_THREAD_CPUTIME_ID);
		attach(folder);
		wall[i] = ns_of(CLOCK_MONOTONIC) - w;
		cpu[i] = ns_of(CLOCK_THREAD_CPUTIME_ID) - c;
		detach();
	}
	qsort(wall, (size_t)n, sizeof *wall, by_size);
	qsort(cpu, (size_t)n, sizeof *cpu, by_size);
	printf("attach: median %lld ns wall, %lld ns cpu; 99%%: %lld ns wall\n", (long long)wall[n / 2],
	       (long long)cpu[n / 2], (long long)wall[n * 99 / 100]);
	free(wall);
	free(cpu);
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		(void)fprintf(stderr, "usage: region_churn FOLDER [--settle | --attach N]\n");
		return 2;
	}
	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	seed = (((uint64_t)clock_us() * 0x9e3779b97f4a7c15u) ^ ((uint64_t)getpid() << 32)) | 1;
	if (argc == 4) {
		time_attaching(argv[1], atoi(argv[3]));
		return 0;
	}
	attach(argv[1]);
	if (argc == 2)
		churn();
	settle();
	detach();
	return 0;
}
