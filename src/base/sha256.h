/* sha256: SHA-256 (FIPS 180-4), HMAC-SHA-256 (RFC 2104) and a comparison that takes the same time for every input.
 * Our own, since the small CGI program must not load libcrypto (it would be most of its start-up). */
#ifndef COMPOSURE_SHA256_H
#define COMPOSURE_SHA256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/view.h"

enum { SHA256_BYTES = 32 };

struct sha256 {
	uint32_t h[8];
	uint64_t n_bytes;
	uint8_t block[64];
};

void sha256_init(struct sha256 *);
void sha256_add(struct sha256 *, struct view);
void sha256_end(struct sha256 *, uint8_t out[SHA256_BYTES]);

void sha256_of(struct view, uint8_t out[SHA256_BYTES]);

/* A key of HMAC's, with what it takes of the work done: half, for a short message. */
struct hmac_key {
	struct sha256 inner, outer;
};
void hmac_key(struct hmac_key *, struct view key);
void hmac_with(const struct hmac_key *, struct view message, uint8_t out[SHA256_BYTES]);

/* Both at once. */
void hmac_sha256(struct view key, struct view message, uint8_t out[SHA256_BYTES]);

/* CRC-32 (IEEE 802.3, as zlib's crc32()). */
uint32_t crc32_of(struct view);

/* Equal? Reads all n bytes whatever they are. */
bool bytes_equal_const_time(const void *a, const void *b, size_t n);

#endif
