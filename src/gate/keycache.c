/* Two tables of sets of four: known keys, and unknown ids. In a full set the oldest goes. */
#include "config.h"

#include "gate/keycache.h"

#include <stdlib.h>

enum { WAYS = 4, SETS_KNOWN = 256, SETS_UNKNOWN = 256 };

struct entry {
	bool used;
	int64_t put_us;
	struct key_record record;
};

struct unknown {
	bool used;
	int64_t put_us;
	char id[APIKEY_ID_CHARS];
};

struct keycache {
	int64_t ttl_us;
	struct entry known[SETS_KNOWN][WAYS];
	struct unknown unknown[SETS_UNKNOWN][WAYS];
};

static const struct key_record UNKNOWN = { .known = false };

struct keycache *keycache_create(int64_t ttl_us)
{
	struct keycache *k = calloc(1, sizeof *k);
	if (k)
		k->ttl_us = ttl_us;
	return k;
}

void keycache_destroy(struct keycache *k)
{
	free(k);
}

static size_t set_of(const char *id, size_t sets)
{
	return crc32_of(view_make(id, APIKEY_ID_CHARS)) % sets;
}

const struct key_record *keycache_get(struct keycache *k, struct view id, int64_t now_us)
{
	if (id.n != APIKEY_ID_CHARS)
		return &UNKNOWN;
	const struct entry *known = k->known[set_of(id.p, SETS_KNOWN)];
	for (size_t i = 0; i < WAYS; i++)
		if (known[i].used && now_us - known[i].put_us < k->ttl_us && memcmp(known[i].record.id, id.p, id.n) == 0)
			return &known[i].record;
	const struct unknown *unknown = k->unknown[set_of(id.p, SETS_UNKNOWN)];
	for (size_t i = 0; i < WAYS; i++)
		if (unknown[i].used && now_us - unknown[i].put_us < k->ttl_us && memcmp(unknown[i].id, id.p, id.n) == 0)
			return &UNKNOWN;
	return NULL;
}

static void put_known(struct keycache *k, const struct key_record *r, int64_t now_us)
{
	struct entry *set = k->known[set_of(r->id, SETS_KNOWN)], *victim = set;
	for (size_t i = 0; i < WAYS; i++) {
		if (set[i].used && memcmp(set[i].record.id, r->id, sizeof r->id) == 0) {
			victim = &set[i];
			break;
		}
		if (victim->used && (!set[i].used || set[i].put_us < victim->put_us))
			victim = &set[i];
	}
	*victim = (struct entry){ .used = true, .put_us = now_us, .record = *r };
}

void keycache_put(struct keycache *k, const struct key_record *r, int64_t now_us)
{
	if (r->known) {
		put_known(k, r, now_us);
		return;
	}
	struct unknown *set = k->unknown[set_of(r->id, SETS_UNKNOWN)], *victim = set;
	for (size_t i = 0; i < WAYS; i++)
		if (victim->used && (!set[i].used || set[i].put_us < victim->put_us))
			victim = &set[i];
	victim->used = true;
	victim->put_us = now_us;
	memcpy(victim->id, r->id, sizeof victim->id);
}

void keycache_forget(struct keycache *k)
{
	int64_t ttl_us = k->ttl_us;
	memset(k, 0, sizeof *k);
	k->ttl_us = ttl_us;
}
