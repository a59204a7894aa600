/* siphash: SipHash-2-4 with 128 bits of output (Aumasson, Bernstein 2012; https://github.com/veorq/SipHash), a keyed hash
 * for what clients bring: without the key nobody can make two texts meet. A tenth of SHA-256's time. */
#ifndef COMPOSURE_SIPHASH_H
#define COMPOSURE_SIPHASH_H

#include <stdint.h>

#include "base/view.h"

enum { SIPHASH_KEY_BYTES = 16, SIPHASH_BYTES = 16 };

void siphash_of(const uint8_t key[SIPHASH_KEY_BYTES], struct view, uint8_t out[SIPHASH_BYTES]);

#endif
