/* arena: memory for one exchange, given back all at once.
 *
 * What a request needs lies in its arena and is never freed singly. An arena has a limit; past it (or when malloc
 * fails) arena_alloc() returns NULL and the arena is marked: arena_full() stays true until arena_reset(). So code that
 * builds several things may check once, at its end (compare Varnish's WS_Alloc and WS_Overflowed).
 */
#ifndef COMPOSURE_ARENA_H
#define COMPOSURE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

#include "base/attributes.h"
#include "base/view.h"

struct arena;

/* An arena that hands out at most `limit_bytes` between two resets. NULL when malloc fails. The caller owns it. */
struct arena *arena_create(size_t limit_bytes);
void arena_destroy(struct arena *);

/* Frees everything handed out and the mark; keeps the first block for the next user. */
void arena_reset(struct arena *);

/* Aligned for any type, not zeroed. NULL when full. Valid until arena_reset() or arena_destroy(). */
void *arena_alloc(struct arena *, size_t n_bytes) MUST_CHECK;

/* The same, zeroed. */
void *arena_zero(struct arena *, size_t n_bytes) MUST_CHECK;

/* A NUL-terminated copy; the view does not count the NUL. Absent when v is absent or the arena is full. */
struct view arena_copy(struct arena *, struct view v) MUST_CHECK;

/* Formatted text, NUL-terminated behind the view; absent when full. */
struct view arena_printf(struct arena *, const char *fmt, ...) PRINTF_LIKE(2, 3) MUST_CHECK;

bool arena_full(const struct arena *);

/* Bytes handed out since the last reset, alignment included. */
size_t arena_used(const struct arena *);

#define ARENA_NEW(arena, type) ((type *)arena_zero((arena), sizeof(type)))
#define ARENA_ARRAY(arena, type, count) ((type *)arena_zero((arena), sizeof(type) * (count)))

#endif
