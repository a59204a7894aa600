/* gate: what it costs a worker to tell who asks and whether a resource is there, out of the region and its own memory.
 * User time of one call on an otherwise idle core; under `valgrind --tool=callgrind` the same calls in instructions.
 *
 *     gate FOLDER [CALLS]
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/loop.h"
#include "catalog/catalog.h"
#include "gate/keycache.h"
#include "gate/keymemo.h"

static const unsigned char installation[32] = "an installation's 32 byte secret";
static struct keycache *keys;
static struct keymemo *memo;
static int64_t now;

/* --- keys as composure.create_key() makes them --- */

static void base62(uint64_t n, char *out, size_t digits)
{
	static const char chars[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
	for (size_t i = digits; i-- > 0; n /= 62)
		out[i] = chars[n % 62];
}

static void make_key(unsigned n, bool forged, char text[APIKEY_CHARS])
{
	uint8_t mac[SHA256_BYTES];
	memcpy(text, "cmps_", 5);
	base62(n * 2654435761u, text + 5, 8);
	hmac_sha256(view_make((const char *)installation, 32), view_make(text + 5, 8), mac);
	uint64_t m = 0;
	for (size_t i = 0; i < 5; i++)
		m = m << 8 | mac[i];
	base62(m + forged, text + 13, 6);
	text[19] = '_';
	memset(text + 20, 'a', APIKEY_SECRET_CHARS);
	base62(n, text + 40, 6);
	base62(crc32_of(view_make(text, APIKEY_CHARS - APIKEY_CRC_CHARS)), text + APIKEY_CHARS - APIKEY_CRC_CHARS,
	       APIKEY_CRC_CHARS);
}

/* As identify.c does it. */
static int judge(const char *text)
{
	struct apikey key;
	struct key_record r;
	if (!keymemo_parse(memo, view_make(text, APIKEY_CHARS), installation, &key))
		return 401;
	enum key_state st = keycache_get(keys, key.id, now, &r);
	if (st == KEY_UNKNOWN)
		return 401;
	if (st != KEY_KNOWN)
		return 0;
	const struct key_record *known = &r;
	return apikey_verify(&key, known->hash, r.secret_until_us, r.n_secrets, 1) ? 200 : 401;
}

/* --- */

static int64_t user_ns(void)
{
	struct rusage u;
	(void)getrusage(RUSAGE_SELF, &u);
	return (int64_t)u.ru_utime.tv_sec * 1000000000 + u.ru_utime.tv_usec * 1000;
}

static void measure(const char *what, char (*texts)[APIKEY_CHARS], unsigned n, int expected, int calls)
{
	int64_t begin = user_ns();
	for (int i = 0; i < calls; i++) {
		int got = judge(texts[(unsigned)i % n]);
		if (got != expected) {
			printf("%s: %d\n", what, got);
			exit(1);
		}
	}
	printf("%-44s %6.0f ns\n", what, (double)(user_ns() - begin) / calls);
}

static void put_key(const char *text, bool known)
{
	struct apikey k;
	if (!apikey_parse(view_make(text, APIKEY_CHARS), installation, &k))
		exit(1);
	struct key_record r = { .n_secrets = 1 };
	memcpy(r.id, k.id.p, sizeof r.id);
	memcpy(r.hash[0], k.hash, sizeof r.hash[0]);
	if (known)
		keycache_put(keys, &r, keycache_generation(keys, k.id), now);
	else
		keycache_put_unknown(keys, k.id, keycache_generation(keys, k.id), now);
}

/* Five hundred resources, and names that none of them has. */
static void measure_routes(int calls)
{
	enum { RESOURCES = 500, NAMES = 32 };
	static struct resource resources[RESOURCES];
	static char name[RESOURCES][16], nothing[NAMES][16];
	for (int i = 0; i < RESOURCES; i++) {
		int n = snprintf(name[i], sizeof name[i], "resource_%03d", i);
		resources[i].name = view_make(name[i], (size_t)n);
	}
	for (int i = 0; i < NAMES; i++)
		(void)snprintf(nothing[i], sizeof nothing[i], "resource_%03dx", i * 15);
	const struct catalog c = { .resources = resources, .n_resources = RESOURCES };
	int64_t begin = user_ns();
	for (int i = 0; i < calls; i++)
		if (catalog_resource(&c, view_make(nothing[i % NAMES], 13)))
			exit(1);
	printf("%-44s %6.0f ns\n", "404: none of 500 resources", (double)(user_ns() - begin) / calls);
}

/* As a worker does that comes to others: region, watch, and what lies in the region. Wall time. */
static void measure_attach(const char *folder, const char *instance, struct region *r)
{
	enum { TIMES = 200 };
	int64_t took = 0, longest = 0;
	for (int i = 0; i < TIMES; i++) {
		int64_t begin = clock_us();
		struct watch *w = watch_open(folder, instance);
		struct region *other = region_open(&(struct region_options){ .folder = folder, .instance = instance });
		struct keycache *k = keycache_open(other, w, 1, 1);
		region_ready(other);
		int64_t us = clock_us() - begin;
		took += us;
		longest = us > longest ? us : longest;
		if (!region_is_shared(other) || region_alone(other) || !region_is_shared(r))
			exit(1);
		keycache_close(k);
		region_close(other);
		watch_close(w);
	}
	printf("%-44s %6.0f us, %lld at most\n", "attach", (double)took / TIMES, (long long)longest);
}

int main(int argc, char **argv)
{
	static char good[32][APIKEY_CHARS], many[1024][APIKEY_CHARS], forged[32][APIKEY_CHARS], gone[32][APIKEY_CHARS],
		mistyped[32][APIKEY_CHARS];
	int calls = argc > 2 ? atoi(argv[2]) : 2000000;
	static const char instance[] = "be9c400000000000";
	if (argc < 2)
		return 2;
	struct watch *watch = watch_open(argv[1], instance);
	struct region *region = region_open(&(struct region_options){ .folder = argv[1], .instance = instance });
	now = clock_us();
	keys = keycache_open(region, watch, INT64_C(3600000000), INT64_C(3600000000));
	memo = keymemo_create();
	if (!watch || !region || !keys || !memo)
		return 1;
	region_ready(region);
	for (unsigned i = 0; i < 32; i++) {
		make_key(i, false, good[i]);
		put_key(good[i], true);
		make_key(i, true, forged[i]);
		make_key(100 + i, false, gone[i]);
		put_key(gone[i], false);
		memcpy(mistyped[i], good[i], APIKEY_CHARS);
		mistyped[i][30] = 'b';
	}
	for (unsigned i = 0; i < 1024; i++) {
		make_key(1000 + i, false, many[i]);
		put_key(many[i], true);
	}
	measure("a key that comes again", good, 32, 200, calls);
	measure("one of 1,024 keys in turn", many, 1024, 200, calls / 10);
	measure("401: mistyped", mistyped, 32, 401, calls / 10);
	measure("401: forged, with the right checksum", forged, 32, 401, calls / 10);
	measure("401: no such key, or revoked", gone, 32, 401, calls / 10);
	measure_routes(calls);
	measure_attach(argv[1], instance, region);
	keymemo_destroy(memo);
	keycache_close(keys);
	region_close(region);
	watch_close(watch);
	return 0;
}
