#include "config.h"

#include "cache/generation.h"

static const uint64_t HARD_ONE = (uint64_t)1 << 32;

/* FNV-1a, 64 bits, folded; a zero byte keeps kind and name apart. */
uint64_t generation_tag(struct view kind, struct view name)
{
	uint64_t h = 0xcbf29ce484222325u;
	for (size_t i = 0; i < kind.n; i++)
		h = (h ^ (unsigned char)kind.p[i]) * 0x100000001b3u;
	h *= 0x100000001b3u;
	for (size_t i = 0; i < name.n; i++)
		h = (h ^ (unsigned char)name.p[i]) * 0x100000001b3u;
	return h ^ h >> 29;
}

static uint64_t word(const struct watch_counter *c)
{
	return atomic_load_explicit(&c->both, memory_order_acquire);
}

struct generation generation_read(const struct watch *w, uint64_t tag)
{
	uint64_t own = word(watch_counter(w, (uint32_t)tag)), all = word(watch_counter_all(w));
	return (struct generation){ .hard = (uint32_t)(own >> 32) + (uint32_t)(all >> 32),
				    .soft = (uint32_t)own + (uint32_t)all };
}

/* The soft half counts too when a hard change comes, so that "soft unchanged" alone means "nothing changed". A carry
 * from the soft half into the hard one costs a miss in four thousand million. */
void generation_bump(struct watch *w, uint64_t tag, enum generation_kind kind)
{
	uint64_t add = kind == GENERATION_HARD ? HARD_ONE + 1 : 1;
	(void)atomic_fetch_add_explicit(&watch_counter(w, (uint32_t)tag)->both, add, memory_order_acq_rel);
}

void generation_bump_all(struct watch *w)
{
	(void)atomic_fetch_add_explicit(&watch_counter_all(w)->both, HARD_ONE + 1, memory_order_acq_rel);
}
