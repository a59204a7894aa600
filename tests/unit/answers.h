/* answers: entries of the store of which every byte follows from the key's number and two numbers of the fixed part, so
 * that one that is torn, mixed with another or under the wrong key shows. For the unit test and for both stress programs. */
#ifndef COMPOSURE_ANSWERS_H
#define COMPOSURE_ANSWERS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/store.h"

/* Where the first shard, and its lock, lies in the store's area. */
enum { ANSWERS_FIRST_SHARD = 20480 };

enum { ANSWERS_HEAD_MAX = 700, ANSWERS_BODY_MAX = 40000, ANSWERS_KEY_MAX = 1400, ANSWERS_ROOM = ANSWERS_BODY_MAX + 8 };

struct answer {
	struct store_entry entry;
	char key[ANSWERS_KEY_MAX + 8], head[ANSWERS_HEAD_MAX + 8], body[ANSWERS_ROOM];
};

static inline uint64_t answers_mix(uint64_t x)
{
	x = (x ^ x >> 31) * 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 29) * 0xbf58476d1ce4e5b9u;
	return x ^ x >> 32;
}

static inline void answers_fill(char *out, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i += 8) {
		uint64_t word = answers_mix(seed + i);
		memcpy(out + i, &word, n - i < 8 ? n - i : 8);
	}
}

/* One in eight is longer than a piece of the comparison, one in 64 longer than a block. */
static inline struct view answer_key(struct answer *a, unsigned n)
{
	size_t length = n % 64 == 0 ? ANSWERS_KEY_MAX : n % 8 == 0 ? 600 : 20;
	memset(a->key, 'k', length);
	(void)snprintf(a->key + length - 11, 12, "%011u", n);
	return view_make(a->key, length);
}

/* The answer to n that was asked for then and says what `value` is. */
static inline void answer_make(struct answer *a, unsigned n, int64_t asked_us, int64_t value)
{
	uint64_t h = answers_mix(answers_mix(n) + answers_mix((uint64_t)asked_us) * 3 + answers_mix((uint64_t)value) * 5);
	struct store_entry *e = &a->entry;
	*e = (struct store_entry){ .asked_us = asked_us, .ttl_us = value };
	e->n_key = (uint32_t)answer_key(a, n).n;
	e->n_head = (uint32_t)(h % ANSWERS_HEAD_MAX);
	e->n_body = (uint32_t)((h >> 16) % (h % 16 == 0 ? ANSWERS_BODY_MAX : 3000));
	e->n_tags = (uint8_t)((h >> 8) % (STORE_TAGS_MAX + 1));
	e->n_etag = (uint8_t)((h >> 24) % (STORE_ETAG_CHARS + 1));
	e->for_all = h >> 60 & 1;
	answers_fill(e->etag, e->n_etag, h + 1);
	answers_fill((char *)e->tags, e->n_tags * sizeof *e->tags, h + 2);
	answers_fill(a->head, e->n_head, h + 3);
	answers_fill(a->body, e->n_body, h + 4);
}

/* What was found under n is what somebody put there. */
static inline bool answer_whole(unsigned n, const struct store_entry *e, const char *head, const char *body)
{
	static _Thread_local struct answer right;
	answer_make(&right, n, e->asked_us, e->ttl_us);
	return memcmp(e, &right.entry, offsetof(struct store_entry, tags) + right.entry.n_tags * sizeof *e->tags) == 0 &&
	       memcmp(head, right.head, e->n_head) == 0 && memcmp(body, right.body, e->n_body) == 0;
}

static inline bool answer_put(struct store *s, uint64_t hash, unsigned n, int64_t asked_us, int64_t value)
{
	static _Thread_local struct answer a;
	answer_make(&a, n, asked_us, value);
	return store_put(s, hash, answer_key(&a, n), &a.entry, view_make(a.head, a.entry.n_head),
	                 view_make(a.body, a.entry.n_body));
}

enum answer_found { ANSWER_NONE, ANSWER_WHOLE, ANSWER_WRONG };

/* Reads it as a worker does, and looks at every byte. */
static inline enum answer_found answer_find(struct store *s, uint64_t hash, unsigned n, struct store_entry *e,
                                            struct store_ref *ref)
{
	static _Thread_local struct answer a;
	if (!store_find(s, hash, answer_key(&a, n), e, ref))
		return ANSWER_NONE;
	if (e->n_head > ANSWERS_HEAD_MAX || e->n_body > ANSWERS_BODY_MAX)
		return ANSWER_WRONG;
	if (!store_copy(s, ref, e, a.head, a.body))
		return ANSWER_NONE;
	return answer_whole(n, e, a.head, a.body) ? ANSWER_WHOLE : ANSWER_WRONG;
}

#endif
