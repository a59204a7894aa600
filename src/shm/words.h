/* words: copying between private and shared memory in relaxed 8-byte words, so that a reader that races with a writer
 * has read garbage (which a version tells), not undefined behaviour (Boehm, "Can seqlocks get along with programming
 * language memory models?", 2012).
 */
#ifndef COMPOSURE_WORDS_H
#define COMPOSURE_WORDS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* n_bytes is a multiple of 8; `out` and `in` need no alignment. */
static inline void words_load(void *out, const _Atomic uint64_t *from, size_t n_bytes)
{
	for (size_t i = 0; i < n_bytes / 8; i++) {
		uint64_t w = atomic_load_explicit(&from[i], memory_order_relaxed);
		memcpy((char *)out + 8 * i, &w, 8);
	}
}

static inline void words_store(_Atomic uint64_t *to, const void *in, size_t n_bytes)
{
	for (size_t i = 0; i < n_bytes / 8; i++) {
		uint64_t w;
		memcpy(&w, (const char *)in + 8 * i, 8);
		atomic_store_explicit(&to[i], w, memory_order_relaxed);
	}
}

#endif
