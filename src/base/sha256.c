#include "config.h"

#include "base/sha256.h"

#include <string.h>

enum { BLOCK = 64 };

/* clang-format off */
/* The first 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4, 4.2.2). */
static const uint32_t K[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98,
	0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
	0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8,
	0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
	0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819,
	0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
	0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
	0xc67178f2,
};
/* clang-format on */

static uint32_t rotr(uint32_t x, unsigned n)
{
	return x >> n | x << (32 - n);
}

static uint32_t load_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void store_be32(uint8_t *p, uint32_t x)
{
	p[0] = (uint8_t)(x >> 24);
	p[1] = (uint8_t)(x >> 16);
	p[2] = (uint8_t)(x >> 8);
	p[3] = (uint8_t)x;
}

/* One round with the eight variables renamed instead of moved; the schedule is a ring of 16 words. */
#define ROUND(a, b, c, d, e, f, g, h, i)                                                                               \
	do {                                                                                                           \
		uint32_t t = (h) + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) + ((g) ^ ((e) & ((f) ^ (g)))) + K[i] +     \
			w[(i)&15];                                                                                     \
		(d) += t;                                                                                              \
		(h) = t + (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + (((a) & (b)) | ((c) & ((a) | (b))));              \
	} while (0)

static void schedule(uint32_t w[16])
{
	for (unsigned i = 0; i < 16; i++) {
		uint32_t x = w[(i + 1) & 15], y = w[(i + 14) & 15];
		w[i] += (rotr(x, 7) ^ rotr(x, 18) ^ x >> 3) + w[(i + 9) & 15] + (rotr(y, 17) ^ rotr(y, 19) ^ y >> 10);
	}
}

static void compress(uint32_t state[8], const uint8_t block[BLOCK])
{
	uint32_t w[16];
	for (unsigned i = 0; i < 16; i++)
		w[i] = load_be32(block + (size_t)4 * i);
	uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
	uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
	for (unsigned i = 0; i < 64; i += 8) {
		if (i && i % 16 == 0)
			schedule(w);
		ROUND(a, b, c, d, e, f, g, h, i);
		ROUND(h, a, b, c, d, e, f, g, i + 1);
		ROUND(g, h, a, b, c, d, e, f, i + 2);
		ROUND(f, g, h, a, b, c, d, e, i + 3);
		ROUND(e, f, g, h, a, b, c, d, i + 4);
		ROUND(d, e, f, g, h, a, b, c, i + 5);
		ROUND(c, d, e, f, g, h, a, b, i + 6);
		ROUND(b, c, d, e, f, g, h, a, i + 7);
	}
	state[0] += a;
	state[1] += b;
	state[2] += c;
	state[3] += d;
	state[4] += e;
	state[5] += f;
	state[6] += g;
	state[7] += h;
}

void sha256_init(struct sha256 *s)
{
	*s = (struct sha256){ .h = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab,
				      0x5be0cd19 } };
}

void sha256_add(struct sha256 *s, struct view v)
{
	size_t held = s->n_bytes % BLOCK;
	s->n_bytes += v.n;
	if (held) {
		size_t n = v.n < BLOCK - held ? v.n : BLOCK - held;
		if (n)
			memcpy(s->block + held, v.p, n);
		if (held + n < BLOCK)
			return;
		compress(s->h, s->block);
		v = view_skip(v, n);
	}
	for (; v.n >= BLOCK; v = view_skip(v, BLOCK))
		compress(s->h, (const uint8_t *)v.p);
	if (v.n)
		memcpy(s->block, v.p, v.n);
}

void sha256_end(struct sha256 *s, uint8_t out[SHA256_BYTES])
{
	uint64_t n_bits = s->n_bytes * 8;
	size_t held = s->n_bytes % BLOCK;
	s->block[held++] = 0x80;
	if (held > BLOCK - 8) {
		memset(s->block + held, 0, BLOCK - held);
		compress(s->h, s->block);
		held = 0;
	}
	memset(s->block + held, 0, BLOCK - 8 - held);
	store_be32(s->block + BLOCK - 8, (uint32_t)(n_bits >> 32));
	store_be32(s->block + BLOCK - 4, (uint32_t)n_bits);
	compress(s->h, s->block);
	for (size_t i = 0; i < 8; i++)
		store_be32(out + 4 * i, s->h[i]);
}

void sha256_of(struct view v, uint8_t out[SHA256_BYTES])
{
	struct sha256 s;
	sha256_init(&s);
	sha256_add(&s, v);
	sha256_end(&s, out);
}

static void pad_start(struct sha256 *s, const uint8_t key[BLOCK], uint8_t with)
{
	char pad[BLOCK];
	for (size_t i = 0; i < BLOCK; i++)
		pad[i] = (char)(key[i] ^ with);
	sha256_init(s);
	sha256_add(s, view_make(pad, BLOCK));
}

void hmac_key(struct hmac_key *k, struct view key)
{
	uint8_t block[BLOCK] = { 0 };
	if (key.n > BLOCK)
		sha256_of(key, block);
	else if (key.n)
		memcpy(block, key.p, key.n);
	pad_start(&k->inner, block, 0x36);
	pad_start(&k->outer, block, 0x5c);
}

void hmac_with(const struct hmac_key *k, struct view message, uint8_t out[SHA256_BYTES])
{
	uint8_t inner[SHA256_BYTES];
	struct sha256 s = k->inner;
	sha256_add(&s, message);
	sha256_end(&s, inner);
	s = k->outer;
	sha256_add(&s, view_make((const char *)inner, sizeof inner));
	sha256_end(&s, out);
}

void hmac_sha256(struct view key, struct view message, uint8_t out[SHA256_BYTES])
{
	struct hmac_key k;
	hmac_key(&k, key);
	hmac_with(&k, message, out);
}

/* Half a byte at a time: the table has 16 entries, and what is checked has 30 bytes. */
/* clang-format off */
static const uint32_t crc_table[16] = {
	0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
	0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
};
/* clang-format on */

uint32_t crc32_of(struct view v)
{
	uint32_t crc = 0xffffffff;
	for (size_t i = 0; i < v.n; i++) {
		crc ^= (uint8_t)v.p[i];
		crc = crc >> 4 ^ crc_table[crc & 15];
		crc = crc >> 4 ^ crc_table[crc & 15];
	}
	return ~crc;
}

bool bytes_equal_const_time(const void *a, const void *b, size_t n)
{
	/* volatile: a compiler that saw through it could stop at the first difference. */
	const volatile uint8_t *p = a, *q = b;
	uint8_t differs = 0;
	for (size_t i = 0; i < n; i++)
		differs |= (uint8_t)(p[i] ^ q[i]);
	return differs == 0;
}
