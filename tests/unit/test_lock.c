#include "config.h"

#include "folder.h"

#include "shm/lock.h"
#include "shm/region.h"

static const struct region_options options = { .folder = folder, .instance = "0123456789abcdef" };

/* A lock in shared memory: the first word of the area that is left alone here. */
static struct lock *lock_of(struct region *r)
{
	size_t bytes;
	return region_area(r, AREA_KEYS, &bytes);
}

static void other_locks(void)
{
	struct region *r = region_open(&options);
	if (!r)
		_exit(1);
	region_ready(r);
	if (!lock_try(lock_of(r), region_me(r)))
		_exit(1);
}

static void a_lock_is_tried_and_not_got_twice(void **state)
{
	(void)state;
	struct lock l = { 0 };
	assert_true(lock_try(&l, 5));
	assert_false(lock_try(&l, 6));
	assert_false(lock_try(&l, 5));
	lock_release(&l);
	assert_true(lock_try(&l, 6));
}

static void a_lock_is_taken_over_from_the_dead_alone(void **state)
{
	(void)state;
	pid_t pid = other(other_locks);
	struct region *r = region_open(&options);
	region_ready(r);
	struct lock *l = lock_of(r);
	assert_false(lock_take_over(l, r));
	assert_int_equal(kill(pid, SIGSTOP), 0);
	assert_false(lock_take_over(l, r));
	assert_false(lock_try(l, region_me(r)));
	end_other(pid);
	assert_false(lock_try(l, region_me(r)));
	assert_true(lock_take_over(l, r));
	lock_release(l);
	assert_false(lock_take_over(l, r)); /* free: nothing to make good */
	region_close(r);
}

static void stale_words_count_as_nobodys_for_who_comes_alone(void **state)
{
	(void)state;
	struct region *r = region_open(&options);
	region_ready(r);
	uint64_t later = region_me(r) + (1u << 16); /* what the next one in this slot will be called */
	region_close(r);
	static const uint64_t words[] = { 1, UINT64_MAX, 0x10000 };
	for (size_t i = 0; i <= ARRAY_LEN(words); i++) {
		r = region_open(&options);
		assert_true(region_alone(r));
		if (i)
			assert_true(lock_take_over(lock_of(r), r));
		lock_of(r)->holder = i < ARRAY_LEN(words) ? words[i] : later + ((i + 1) << 16);
		region_ready(r);
		region_close(r);
	}
	r = region_open(&options);
	assert_int_equal(lock_of(r)->holder, region_me(r)); /* it happens to name us */
	assert_true(lock_take_over(lock_of(r), r));
	region_close(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		folder_test(a_lock_is_tried_and_not_got_twice),
		folder_test(a_lock_is_taken_over_from_the_dead_alone),
		folder_test(stale_words_count_as_nobodys_for_who_comes_alone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
