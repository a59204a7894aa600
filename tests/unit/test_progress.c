#include "config.h"

#include "folder.h"

#include "shm/progress.h"

enum { MS = 1000, S = 1000000 };

static const struct region_options options = { .folder = folder, .instance = "0123456789abcdef" };

static struct region *region;
static struct progress *p;

static int setup(void **state)
{
	int failed = new_folder(state);
	region = failed ? NULL : region_open(&options);
	if (!region)
		return -1;
	p = progress_open(region);
	region_ready(region);
	return 0;
}

static int teardown(void **state)
{
	region_close(region);
	return remove_folder(state);
}

#define progress_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static void a_replica_is_as_old_as_the_newest_position_it_has(void **state)
{
	(void)state;
	for (int i = 1; i <= 100; i++)
		progress_hear(p, (uint64_t)i * 1000, (int64_t)i * 25 * MS);
	progress_replayed(p, 0, 100000, 2600 * MS, 2600 * MS);
	assert_int_equal(progress_replica(p, 0).as_of_us, 100 * 25 * MS);
	progress_replayed(p, 0, 50999, 2600 * MS, 2600 * MS);
	assert_int_equal(progress_replica(p, 0).as_of_us, 50 * 25 * MS);
	progress_replayed(p, 0, 999, 2600 * MS, 2600 * MS);
	assert_int_equal(progress_replica(p, 0).as_of_us, 0);
	assert_int_equal(progress_replica(p, 0).asked_us, 2600 * MS);
	assert_int_equal(progress_replica(p, 1).asked_us, 0);
}

static void where_nothing_is_written_a_replica_stays_young(void **state)
{
	(void)state;
	progress_hear(p, 5000, 1 * S);
	progress_replayed(p, 0, 5000, 1 * S, 1 * S);
	progress_hear(p, 5000, 100 * S);
	progress_replayed(p, 0, 5000, 100 * S, 100 * S);
	assert_int_equal(progress_replica(p, 0).as_of_us, 100 * S);
}

static void the_head_of_a_page_is_not_waited_for(void **state)
{
	(void)state;
	progress_hear(p, 3 * 8192 + 40, 1 * S);
	progress_replayed(p, 0, 3 * 8192, 1 * S, 1 * S);
	assert_int_equal(progress_replica(p, 0).as_of_us, 1 * S);
	progress_hear(p, 3 * 8192 + 48, 2 * S);
	progress_replayed(p, 0, 3 * 8192, 2 * S, 2 * S);
	assert_int_equal(progress_replica(p, 0).as_of_us, 1 * S);
}

static void half_an_hour_is_known_to_ten_seconds(void **state)
{
	(void)state;
	for (int64_t i = 1; i <= 1800 * 10; i++)
		progress_hear(p, (uint64_t)i * 100, i * 100 * MS);
	progress_replayed(p, 0, 900 * 10 * 100, 1800 * S, 1800 * S);
	int64_t as_of = progress_replica(p, 0).as_of_us;
	assert_in_range(as_of, 890 * S, 900 * S);
}

static void told_is_what_the_feed_or_a_write_has_told(void **state)
{
	(void)state;
	assert_int_equal(progress_told(p, 1), 0);
	progress_tell(p, 70, 5);
	progress_tell(p, 60, 6);
	assert_int_equal(progress_told(p, 7), 70);
	progress_wrote(p, 1, 90, 7);
	assert_int_equal(progress_told(p, 7), 90);
	progress_wrote(p, 1, 0, 7);
	assert_true(progress_told(p, 8) == PROGRESS_NEVER);
	assert_int_equal(progress_told(p, 11 * S), 90);
}

static void an_identity_reads_its_last_write(void **state)
{
	(void)state;
	progress_wrote(p, 1, 90, 7);
	progress_wrote(p, 1, 80, 8);
	assert_int_equal(progress_written(p, 1, 9), 90);
	assert_int_equal(progress_written(p, 2, 9), 0);
	progress_wrote(p, 2, 0, 9);
	assert_true(progress_written(p, 2, 10) == PROGRESS_NEVER);
	assert_int_equal(progress_written(p, 2, 11 * S), 0);
}

static void a_position_is_heard_when_the_log_has_gone_on(void **state)
{
	(void)state;
	progress_hear(p, 500, 1 * S);
	assert_true(progress_heard(p, 499));
	assert_false(progress_heard(p, 500));
	progress_hear(p, 501, 2 * S);
	assert_true(progress_heard(p, 500));
	progress_hear(p, 900, 1 * S); /* of one who had the watch before, and is late */
	assert_false(progress_heard(p, 600));
	assert_int_equal(progress_heard_us(p), 2 * S);
}

static void the_primary_was_last_seen_when_anybody_saw_it(void **state)
{
	(void)state;
	assert_int_equal(progress_seen_us(p), 0);
	progress_saw(p, 5 * S);
	progress_saw(p, 4 * S);
	assert_int_equal(progress_seen_us(p), 5 * S);
	progress_hear(p, 100, 6 * S);
	assert_int_equal(progress_seen_us(p), 5 * S);
}

static void another_history_begins_from_nothing(void **state)
{
	(void)state;
	progress_tell(p, 9000, 1 * S);
	progress_hear(p, 9000, 1 * S);
	progress_wrote(p, 1, 9000, 1 * S);
	progress_replayed(p, 0, 9000, 1 * S, 1 * S);
	progress_tell(p, 100, 2 * S);
	assert_int_equal(progress_told(p, 2 * S), 100);
	assert_int_equal(progress_written(p, 1, 2 * S), 0);
	assert_int_equal(progress_replica(p, 0).as_of_us, 0);
	progress_hear(p, 100, 2 * S);
	progress_replayed(p, 0, 100, 3 * S, 3 * S);
	assert_int_equal(progress_replica(p, 0).as_of_us, 2 * S);
	progress_replayed(p, 1, 100, 3 * S, 3 * S); /* nothing was known of it before: it may have more in a moment */
	assert_int_equal(progress_replica(p, 1).as_of_us, 0);
	progress_hear(p, 110, 4 * S);
	progress_replayed(p, 1, 110, 5 * S, 5 * S);
	assert_int_equal(progress_replica(p, 1).as_of_us, 4 * S);
}

static void who_is_ahead_of_the_primary_is_of_another_history(void **state)
{
	(void)state;
	progress_hear(p, 1000, 1 * S);
	progress_replayed(p, 0, 5000, 2 * S, 2 * S);
	progress_replayed(p, 1, 1100, 2 * S, 4 * S);
	assert_int_equal(progress_replica(p, 0).as_of_us, 1 * S); /* the primary may have been there by then */
	progress_hear(p, 1050, 3 * S);
	assert_int_equal(progress_replica(p, 0).as_of_us, 0);
	assert_true(progress_replica(p, 0).foreign);
	assert_int_equal(progress_replica(p, 1).as_of_us, 1 * S); /* it answered after the primary was asked */
	assert_false(progress_replica(p, 1).foreign);
	/* It stays there, and the primary comes by. */
	progress_hear(p, 9000, 5 * S);
	progress_replayed(p, 0, 5000, 6 * S, 6 * S);
	assert_int_equal(progress_replica(p, 0).as_of_us, 0);
	/* It was taken back to where both agree, and follows. */
	progress_replayed(p, 0, 9000, 7 * S, 7 * S);
	assert_int_equal(progress_replica(p, 0).as_of_us, 5 * S);
	assert_false(progress_replica(p, 0).foreign);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		progress_test(a_replica_is_as_old_as_the_newest_position_it_has),
		progress_test(where_nothing_is_written_a_replica_stays_young),
		progress_test(the_head_of_a_page_is_not_waited_for),
		progress_test(half_an_hour_is_known_to_ten_seconds),
		progress_test(told_is_what_the_feed_or_a_write_has_told),
		progress_test(an_identity_reads_its_last_write),
		progress_test(a_position_is_heard_when_the_log_has_gone_on),
		progress_test(the_primary_was_last_seen_when_anybody_saw_it),
		progress_test(another_history_begins_from_nothing),
		progress_test(who_is_ahead_of_the_primary_is_of_another_history),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
