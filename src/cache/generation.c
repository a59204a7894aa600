#include "config.h"

#include "cache/generation.h"

static const uint64_t HARD_ONE = (uint64_t)1 << 32;

/* FNV-1a, 64 bits, folded; a zero byte keeps the parts apart. */
static const uint64_t FNV_START = 0xcbf29ce484222325u, FNV_PRIME = 0x100000001b3u;

static uint64_t add_part(uint64_t h, struct view part)
{
	for (size_t i = 0; i < part.n; i++)
		h = (h ^ (unsigned char)part.p[i]) * FNV_PRIME;
	return h;
}

static uint64_t fold(uint64_t h)
{
	return h ^ h >> 29;
}

uint64_t generation_tag(struct view kind, struct view name)
{
	return fold(add_part(add_part(FNV_START, kind) * FNV_PRIME, name));
}

uint64_t generation_of_resource(struct view resource)
{
	return generation_tag(VIEW("resource"), resource);
}

uint64_t generation_of_rows(struct view resource)
{
	return generation_tag(VIEW("rows"), resource);
}

uint64_t generation_of_row(struct view resource, struct view key)
{
	return fold(add_part(add_part(add_part(FNV_START, VIEW("row")) * FNV_PRIME, resource) * FNV_PRIME, key));
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

struct generation generation_read_all(const struct watch *w)
{
	uint64_t all = word(watch_counter_all(w));
	return (struct generation){ .hard = (uint32_t)(all >> 32), .soft = (uint32_t)all };
}

/* The soft half counts too when a hard change comes, so that "soft unchanged" alone means "nothing changed". A carry
 * from the soft half into the hard one costs a miss in four thousand million. */
static void bump(struct watch_counter *c, enum generation_kind kind)
{
	(void)atomic_fetch_add_explicit(&c->both, kind == GENERATION_HARD ? HARD_ONE + 1 : 1, memory_order_acq_rel);
}

void generation_bump(struct watch *w, uint64_t tag, enum generation_kind kind)
{
	bump(watch_counter(w, (uint32_t)tag), kind);
}

void generation_bump_all(struct watch *w, enum generation_kind kind)
{
	bump(watch_counter_all(w), kind);
}

void generation_changed(struct watch *w, struct view resource, const struct view *keys, unsigned n_keys, bool hard)
{
	enum generation_kind kind = hard ? GENERATION_HARD : GENERATION_SOFT;
	for (unsigned i = 0; i < n_keys; i++)
		generation_bump(w, generation_of_row(resource, keys[i]), kind);
	if (n_keys == 0)
		generation_bump(w, generation_of_rows(resource), kind);
	generation_bump(w, generation_of_resource(resource), kind);
}
