#include "config.h"

#include "base/siphash.h"

/* Names as in the paper; all words are little-endian. */
struct state {
	uint64_t v0, v1, v2, v3;
};

static uint64_t rotl(uint64_t x, unsigned n)
{
	return x << n | x >> (64 - n);
}

static void sip_round(struct state *s)
{
	s->v0 += s->v1;
	s->v1 = rotl(s->v1, 13) ^ s->v0;
	s->v0 = rotl(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = rotl(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = rotl(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = rotl(s->v1, 17) ^ s->v2;
	s->v2 = rotl(s->v2, 32);
}

static void compress(struct state *s, uint64_t word)
{
	s->v3 ^= word;
	sip_round(s);
	sip_round(s);
	s->v0 ^= word;
}

static uint64_t finalize(struct state *s)
{
	for (int i = 0; i < 4; i++)
		sip_round(s);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/* Up to eight bytes; compilers make one load of it when there are eight. */
static uint64_t load_le(const void *from, size_t n)
{
	const uint8_t *p = from;
	uint64_t x = 0;
	for (size_t i = 0; i < n; i++)
		x |= (uint64_t)p[i] << 8 * i;
	return x;
}

static void store_le64(uint8_t *p, uint64_t x)
{
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)(x >> 8 * i);
}

void siphash_of(const uint8_t key[SIPHASH_KEY_BYTES], struct view text, uint8_t out[SIPHASH_BYTES])
{
	uint64_t k0 = load_le(key, 8), k1 = load_le(key + 8, 8), last = (uint64_t)text.n << 56;
	struct state s = {
		.v0 = k0 ^ 0x736f6d6570736575u,
		.v1 = k1 ^ 0x646f72616e646f6du ^ 0xee,
		.v2 = k0 ^ 0x6c7967656e657261u,
		.v3 = k1 ^ 0x7465646279746573u,
	};
	for (; text.n >= 8; text = view_skip(text, 8))
		compress(&s, load_le(text.p, 8));
	compress(&s, last | load_le(text.p, text.n));
	s.v2 ^= 0xee;
	store_le64(out, finalize(&s));
	s.v1 ^= 0xdd;
	store_le64(out + 8, finalize(&s));
}
