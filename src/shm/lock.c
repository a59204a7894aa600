#include "config.h"

#include "shm/lock.h"

#include "shm/region.h"

bool lock_try(struct lock *l, uint64_t me)
{
	uint64_t free_word = 0;
	return atomic_compare_exchange_strong_explicit(&l->holder, &free_word, me, memory_order_acquire,
	                                               memory_order_relaxed);
}

void lock_release(struct lock *l)
{
	atomic_store_explicit(&l->holder, 0, memory_order_release);
}

bool lock_take_over(struct lock *l, struct region *r)
{
	uint64_t holder = atomic_load_explicit(&l->holder, memory_order_relaxed);
	if (holder == 0 || (!region_repairing(r) && region_holder_alive(r, holder)))
		return false;
	return atomic_compare_exchange_strong_explicit(&l->holder, &holder, region_me(r), memory_order_acquire,
	                                               memory_order_relaxed);
}
