#include "config.h"

#include "folder.h"

#include "shm/watch.h"

static const char instance[] = "0123456789abcdef";

static void other_holds(void)
{
	struct watch *w = watch_open(folder, instance);
	if (!w || !watch_hold(w, watch_clock_ms()))
		_exit(1);
}

static void one_holds_the_watch_until_it_gives_it_up(void **state)
{
	(void)state;
	struct watch *a = watch_open(folder, instance), *b = watch_open(folder, instance);
	assert_true(watch_is_shared(a) && watch_is_shared(b) && watch_intact(a));
	assert_true(watch_hold(a, 1000));
	assert_false(watch_hold(b, 1000));
	assert_true(watch_hold(a, 1400));
	assert_false(watch_hold(b, 1500));
	watch_give_up(a);
	assert_true(watch_hold(b, 1500));
	assert_false(watch_hold(a, 1500));
	watch_close(b);
	assert_true(watch_hold(a, 1501));
	watch_close(a);
}

static void the_watch_of_the_dead_is_free_at_once(void **state)
{
	(void)state;
	pid_t pid = other(other_holds);
	struct watch *w = watch_open(folder, instance);
	int64_t now = watch_clock_ms();
	assert_false(watch_hold(w, now));
	end_other(pid);
	assert_true(watch_hold(w, now));
	watch_close(w);
}

static void the_watch_of_the_stopped_is_free_when_its_lease_ends(void **state)
{
	(void)state;
	struct watch *stopped = watch_open(folder, instance), *b = watch_open(folder, instance),
		     *c = watch_open(folder, instance);
	assert_true(watch_hold(stopped, 1000));
	assert_false(watch_hold(b, 1000 + WATCH_LEASE_MS - 1));
	assert_true(watch_hold(b, 1000 + WATCH_LEASE_MS));
	assert_false(watch_hold(c, 1000 + WATCH_LEASE_MS));
	assert_false(watch_hold(stopped, 1100 + WATCH_LEASE_MS)); /* goes on, and finds that it is over */
	assert_true(watch_hold(b, 1200 + WATCH_LEASE_MS)); /* now with the byte */
	assert_false(watch_hold(c, 1200 + WATCH_LEASE_MS));
	assert_false(watch_hold(stopped, 1200 + WATCH_LEASE_MS));
	watch_close(stopped);
	watch_close(b);
	watch_close(c);
}

static void an_expiry_of_another_time_does_not_hold(void **state)
{
	(void)state;
	struct watch *a = watch_open(folder, instance), *b = watch_open(folder, instance);
	assert_true(watch_hold(a, 1000000));
	assert_true(watch_hold(b, 1000)); /* that lease is not of this boot */
	watch_close(a);
	watch_close(b);
}

static void counters_are_common_and_begin_at_random(void **state)
{
	(void)state;
	struct watch *a = watch_open(folder, instance), *b = watch_open(folder, instance);
	assert_ptr_not_equal(watch_counter(a, 5), watch_counter(b, 5));
	watch_counter(a, 5)->both = 77;
	assert_int_equal(watch_counter(b, 5 + WATCH_TAGS)->both, 77);
	uint64_t all = watch_counter_all(a)->both;
	assert_int_equal(watch_counter_all(b)->both, all);
	watch_close(a);
	watch_close(b);
	assert_int_equal(remove_folder(NULL), 0);
	assert_int_equal(mkdir(folder, 0700), 0);
	a = watch_open(folder, instance);
	assert_int_not_equal(watch_counter_all(a)->both, all);
	assert_int_equal(watch_counter(a, 5)->both, 0);
	watch_close(a);
}

static void the_heartbeat_is_everybodys(void **state)
{
	(void)state;
	struct watch *a = watch_open(folder, instance), *b = watch_open(folder, instance);
	assert_int_equal(watch_heartbeat_ms(b), 0);
	watch_beat(a, 12345);
	assert_int_equal(watch_heartbeat_ms(b), 12345);
	watch_close(a);
	watch_close(b);
}

static void the_feeds_place_is_kept_whole_or_not_at_all(void **state)
{
	(void)state;
	struct watch *a = watch_open(folder, instance), *b = watch_open(folder, instance);
	assert_absent(watch_chain(b));
	watch_keep_chain(a, VIEW("1 E 100:100:"));
	assert_view(watch_chain(b), "1 E 100:100:");
	watch_keep_chain(a, VIEW("2 E 7:7:"));
	assert_view(watch_chain(b), "2 E 7:7:");
	/* Half another one's: the lock that is not there. */
	char *bytes = (char *)watch_counter_all(a) + 24;
	assert_memory_equal(bytes, "2 E 7:7:", 8);
	bytes[4] = '8';
	assert_absent(watch_chain(b));
	static char large[5000];
	memset(large, 'x', sizeof large);
	watch_keep_chain(a, view_make(large, sizeof large));
	assert_absent(watch_chain(b));
	watch_close(a);
	watch_close(b);
}

static void a_watch_that_cannot_be_had_is_private_and_held(void **state)
{
	(void)state;
	assert_int_equal(chmod(folder, 0755), 0);
	struct watch *a = watch_open(folder, instance), *b = watch_open(folder, instance);
	assert_false(watch_is_shared(a));
	assert_int_not_equal(watch_note(a).n, 0);
	assert_true(watch_hold(a, 1) && watch_hold(b, 1) && watch_intact(a));
	watch_close(a);
	watch_close(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		folder_test(one_holds_the_watch_until_it_gives_it_up),
		folder_test(the_watch_of_the_dead_is_free_at_once),
		folder_test(the_watch_of_the_stopped_is_free_when_its_lease_ends),
		folder_test(an_expiry_of_another_time_does_not_hold),
		folder_test(counters_are_common_and_begin_at_random),
		folder_test(the_heartbeat_is_everybodys),
		folder_test(the_feeds_place_is_kept_whole_or_not_at_all),
		folder_test(a_watch_that_cannot_be_had_is_private_and_held),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
