#include "config.h"

#include "folder.h"

#include "cache/flight.h"

enum { NOW = 100000000, MS = 1000, SAME_PLACE = 16384 };

static const uint64_t HASH = 0x123456789abcdef0u;

static const struct region_options options = { .folder = folder, .instance = "0123456789abcdef" };

/* Two workers of a host. */
static struct region *region[2];
static struct flights *a, *b;

static void beat(unsigned n, int64_t now)
{
	atomic_store(&region_slot(region[n])->beat_us, now);
}

static struct flights *open_one(unsigned n)
{
	region[n] = region_open(&options);
	struct flights *f = region[n] ? flights_open(region[n]) : NULL;
	if (!f)
		_exit(1);
	region_ready(region[n]);
	beat(n, NOW);
	return f;
}

static int setup(void **state)
{
	int failed = new_folder(state);
	if (!failed) {
		a = open_one(0);
		b = open_one(1);
	}
	return failed;
}

static int teardown(void **state)
{
	flights_close(a);
	flights_close(b);
	region_close(region[0]);
	region_close(region[1]);
	return remove_folder(state);
}

static enum flight_role take(struct flights *f, uint64_t generations, int64_t now, struct flight_ref *ref)
{
	return flight_take(f, HASH, generations, now, 0, ref);
}

static void one_leads_and_the_others_join_until_it_ends(void **state)
{
	(void)state;
	struct flight_ref first, second;
	assert_false(flight_is_taken(b, HASH, NOW));
	assert_int_equal(take(a, 7, NOW, &first), FLIGHT_LEAD);
	assert_int_equal(first.asked_us, NOW);
	assert_true(flight_is_taken(b, HASH, NOW));
	assert_int_equal(take(b, 7, NOW + 5, &second), FLIGHT_JOIN);
	assert_int_equal(second.asked_us, NOW);
	assert_true(flight_goes_on(b, &second, NOW + 5));
	flight_end(a, &first, false);
	assert_false(flight_goes_on(b, &second, NOW + 5));
	assert_false(flight_is_taken(b, HASH, NOW));
	assert_int_equal(take(b, 7, NOW + 6, &second), FLIGHT_LEAD);
	assert_int_equal(take(a, 7, NOW + 7, &first), FLIGHT_JOIN);
}

static void a_place_that_is_anothers_is_left_alone(void **state)
{
	(void)state;
	struct flight_ref ref, other;
	assert_int_equal(take(a, 7, NOW, &ref), FLIGHT_LEAD);
	uint64_t elsewhere = HASH ^ (uint64_t)1 << 63;
	assert_int_equal(flight_take(b, elsewhere, 7, NOW, 0, &other), FLIGHT_ALONE);
	assert_false(flight_is_taken(b, elsewhere, NOW));
	assert_true(flight_goes_on(a, &ref, NOW));
	assert_int_equal(flight_take(b, HASH + 1, 7, NOW, 0, &other), FLIGHT_LEAD);
}

static void other_generations_take_over(void **state)
{
	(void)state;
	struct flight_ref first, joined, second, third;
	assert_int_equal(take(a, 7, NOW, &first), FLIGHT_LEAD);
	assert_int_equal(take(b, 7, NOW + 1, &joined), FLIGHT_JOIN);
	assert_int_equal(take(b, 8, NOW + 2, &second), FLIGHT_LEAD);
	assert_false(flight_goes_on(b, &joined, NOW + 2));
	assert_int_equal(take(a, 8, NOW + 3, &third), FLIGHT_JOIN);
	assert_int_equal(third.asked_us, NOW + 2);
	/* The end of the one that was taken over does not end the other. */
	flight_end(a, &first, false);
	assert_true(flight_goes_on(a, &third, NOW + 4));
	assert_int_equal(take(a, 8, NOW + 4, &joined), FLIGHT_JOIN);
	flight_end(b, &second, false);
	assert_false(flight_is_taken(a, HASH, NOW + 4));
}

/* Also where both are one worker's, and at one moment of the clock. */
static void the_end_of_one_that_was_taken_over_by_its_own_worker_does_not_end_the_other(void **state)
{
	(void)state;
	struct flight_ref first, second, joined;
	assert_int_equal(take(a, 7, NOW, &first), FLIGHT_LEAD);
	assert_int_equal(take(a, 8, NOW, &second), FLIGHT_LEAD);
	flight_end(a, &first, false);
	assert_int_equal(take(b, 8, NOW + 1, &joined), FLIGHT_JOIN);
	flight_end(a, &second, false);
	assert_false(flight_goes_on(b, &joined, NOW + 1));
	assert_false(flight_is_taken(b, HASH, NOW + 1));
}

static void who_waited_for_what_is_for_one_alone_waits_for_no_other(void **state)
{
	(void)state;
	struct flight_ref first, joined, second = { 0 };
	assert_false(flight_was_for_one(b, &second));
	assert_int_equal(take(a, 7, NOW, &first), FLIGHT_LEAD);
	assert_int_equal(take(b, 7, NOW, &joined), FLIGHT_JOIN);
	assert_false(flight_was_for_one(b, &joined));
	flight_end(a, &first, true);
	assert_false(flight_goes_on(b, &joined, NOW));
	assert_true(flight_was_for_one(b, &joined));
	assert_int_equal(take(a, 7, NOW, &first), FLIGHT_LEAD);
	assert_false(flight_was_for_one(b, &joined));
	flight_end(a, &first, false);
	assert_false(flight_was_for_one(b, &joined));
}

static void one_that_was_asked_too_early_is_not_joined(void **state)
{
	(void)state;
	struct flight_ref first, second;
	assert_int_equal(take(a, 7, NOW, &first), FLIGHT_LEAD);
	assert_int_equal(flight_take(b, HASH, 7, NOW + 9, NOW, &second), FLIGHT_JOIN);
	assert_int_equal(flight_take(b, HASH, 7, NOW + 9, NOW + 1, &second), FLIGHT_LEAD);
	assert_int_equal(second.asked_us, NOW + 9);
}

/* The one that joins had looked at the clock, and was not run until the other one had asked. */
static void one_that_was_asked_a_moment_later_is_joined(void **state)
{
	(void)state;
	struct flight_ref first, second;
	assert_int_equal(take(a, 7, NOW, &first), FLIGHT_LEAD);
	assert_int_equal(take(b, 7, NOW - 100 * MS, &second), FLIGHT_JOIN);
	assert_int_equal(take(b, 7, NOW - 400 * MS, &second), FLIGHT_LEAD);
}

static void a_leader_that_has_not_turned_for_long_is_void(void **state)
{
	(void)state;
	struct flight_ref first, second;
	assert_int_equal(take(a, 7, NOW, &first), FLIGHT_LEAD);
	assert_int_equal(take(b, 7, NOW + 290 * MS, &second), FLIGHT_JOIN); /* late, but its byte is held */
	assert_true(flight_goes_on(b, &second, NOW + 290 * MS));
	assert_false(flight_goes_on(b, &second, NOW + 310 * MS));
	assert_false(flight_is_taken(b, HASH, NOW + 310 * MS));
	beat(1, NOW + 310 * MS);
	assert_int_equal(take(b, 7, NOW + 310 * MS, &second), FLIGHT_LEAD);
	beat(0, NOW + 320 * MS); /* it goes on, and finds it taken */
	flight_end(a, &first, false);
	assert_int_equal(take(a, 7, NOW + 320 * MS, &first), FLIGHT_JOIN);
}

static void a_leader_whose_slot_is_anothers_is_void(void **state)
{
	(void)state;
	struct flight_ref first, second;
	assert_int_equal(take(a, 7, NOW, &first), FLIGHT_LEAD);
	assert_int_equal(take(b, 7, NOW, &second), FLIGHT_JOIN);
	flights_close(a);
	region_close(region[0]);
	a = open_one(0); /* the same slot, a later epoch */
	assert_int_equal(region_me(region[0]) & 0xffff, 1);
	assert_false(flight_goes_on(b, &second, NOW));
	assert_int_equal(take(b, 7, NOW, &second), FLIGHT_LEAD);
}

static void leads(void)
{
	struct flight_ref ref;
	struct flights *f = open_one(0);
	if (take(f, 7, NOW, &ref) != FLIGHT_LEAD)
		_exit(1);
}

static void a_leader_that_is_dead_is_void_once_it_is_late(void **state)
{
	(void)state;
	struct flight_ref ref;
	pid_t pid = other(leads);
	assert_int_equal(take(b, 7, NOW + 40 * MS, &ref), FLIGHT_JOIN);
	assert_int_equal(kill(pid, SIGSTOP), 0);
	assert_true(flight_goes_on(b, &ref, NOW + 50 * MS));
	end_other(pid);
	assert_true(flight_goes_on(b, &ref, NOW + 40 * MS)); /* not asked of the kernel yet */
	assert_false(flight_goes_on(b, &ref, NOW + 50 * MS));
	assert_int_equal(take(b, 7, NOW + 50 * MS, &ref), FLIGHT_LEAD);
}

#ifdef TEST_POINTS
static void takes_over_and_stops(void)
{
	struct flight_ref ref;
	(void)setenv("COMPOSURE_POINT", "flight-taken:stop", 1);
	struct flights *f = open_one(0);
	if (take(f, 8, NOW, &ref) != FLIGHT_LEAD)
		_exit(1);
	flight_end(f, &ref, false);
}

/* Its word and what stands beside it were two workers', and nobody ever freed it. */
static void two_that_take_one_over_at_once_leave_nothing_behind(void **state)
{
	(void)state;
	struct flight_ref first, second;
	int status, tries = 0;
	assert_int_equal(take(a, 7, NOW, &first), FLIGHT_LEAD);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		takes_over_and_stops();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	assert_true(WIFSTOPPED(status));
	enum flight_role role = take(b, 9, NOW + 1, &second);
	assert_int_equal(kill(pid, SIGCONT), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	for (; role == FLIGHT_LATER && tries < 3; tries++)
		role = take(b, 9, NOW + 1, &second);
	assert_int_equal(role, FLIGHT_LEAD);
	flight_end(a, &first, false);
	flight_end(b, &second, false);
	assert_false(flight_is_taken(b, HASH, NOW + 1));
}
#endif

static void random_words_are_nobodys_or_pass(void **state)
{
	(void)state;
	size_t bytes;
	uint64_t rng = 3, *word = region_area(region[0], AREA_FLIGHTS, &bytes);
	unsigned led = 0;
	for (size_t i = 0; i < bytes / sizeof *word; i++)
		word[i] = draw(&rng);
	for (uint64_t n = 0; n < SAME_PLACE; n++) {
		struct flight_ref ref;
		if (flight_take(a, n | HASH << 20, 7, NOW, 0, &ref) == FLIGHT_LEAD) {
			led++;
			flight_end(a, &ref, false);
			assert_false(flight_is_taken(a, n | HASH << 20, NOW));
		}
	}
	assert_true(led > SAME_PLACE * 9 / 10);
}

static void when_somebody_wrote_is_remembered_for_him(void **state)
{
	(void)state;
	assert_int_equal(flights_wrote_us(a, 5), 0);
	flights_wrote(a, 5, NOW);
	assert_int_equal(flights_wrote_us(b, 5), NOW);
	assert_int_equal(flights_wrote_us(b, 6), 0);
	flights_wrote(b, UINT64_MAX, NOW + 1);
	assert_int_equal(flights_wrote_us(a, UINT64_MAX), NOW + 1);
	assert_int_equal(flights_wrote_us(a, 5), NOW);
}

static void an_earlier_write_that_is_told_later_hides_no_later_one(void **state)
{
	(void)state;
	flights_wrote(a, 5, NOW + MS);
	flights_wrote(b, 5, NOW);
	assert_int_equal(flights_wrote_us(a, 5), NOW + MS);
}

/* Else hosts where much is written would serve nobody anything stale after a while. */
static void writes_of_others_are_not_taken_for_his(void **state)
{
	(void)state;
	for (uint64_t i = 0; i < 20000; i++)
		flights_wrote(a, i * 0x9e3779b97f4a7c15, NOW + (int64_t)i);
	unsigned wrong = 0;
	for (uint64_t i = 20000; i < 40000; i++)
		wrong += flights_wrote_us(b, i * 0x9e3779b97f4a7c15) != 0;
	assert_in_range(wrong, 0, 200);
}

static void however_many_write_none_is_forgotten(void **state)
{
	(void)state;
	enum { MANY = 300000 };
	for (uint64_t i = 0; i < MANY; i++)
		flights_wrote(i % 2 ? a : b, i * 0x9e3779b97f4a7c15, NOW + (int64_t)i);
	for (uint64_t i = 0; i < MANY; i++)
		assert_true(flights_wrote_us(a, i * 0x9e3779b97f4a7c15) >= NOW + (int64_t)i);
	/* What was asked for behind most of them may still be served. */
	assert_true(flights_wrote_us(a, 12345) < NOW + MANY - 10000);
}

#define flight_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		flight_test(one_leads_and_the_others_join_until_it_ends),
		flight_test(a_place_that_is_anothers_is_left_alone),
		flight_test(other_generations_take_over),
		flight_test(the_end_of_one_that_was_taken_over_by_its_own_worker_does_not_end_the_other),
		flight_test(who_waited_for_what_is_for_one_alone_waits_for_no_other),
		flight_test(one_that_was_asked_too_early_is_not_joined),
		flight_test(one_that_was_asked_a_moment_later_is_joined),
		flight_test(a_leader_that_has_not_turned_for_long_is_void),
		flight_test(a_leader_whose_slot_is_anothers_is_void),
		flight_test(a_leader_that_is_dead_is_void_once_it_is_late),
#ifdef TEST_POINTS
		flight_test(two_that_take_one_over_at_once_leave_nothing_behind),
#endif
		flight_test(random_words_are_nobodys_or_pass),
		flight_test(when_somebody_wrote_is_remembered_for_him),
		flight_test(an_earlier_write_that_is_told_later_hides_no_later_one),
		flight_test(writes_of_others_are_not_taken_for_his),
		flight_test(however_many_write_none_is_forgotten),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
