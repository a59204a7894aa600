#include "config.h"

#include "folder.h"

#include "shm/breaker.h"
#include "shm/region.h"

enum { NOW = 100000000, MS = 1000, S = 1000000, ME = 1 };

static const struct region_options options = { .folder = folder, .instance = "0123456789abcdef" };

static const struct breaker_terms terms = {
	.window_us = 10 * S, .calls_min = 20, .failure_percent = 50, .slow_percent = 80,
	.open_us = 200 * MS, .open_max_us = 1600 * MS, .probes = 2,
};

/* Two workers of a host. */
static struct region *region[2];
static struct breakers *a, *b;
static struct breaker *users;

static struct breakers *open_one(unsigned n)
{
	region[n] = region_open(&options);
	struct breakers *all = region[n] ? breakers_open(region[n]) : NULL;
	if (!all)
		_exit(1);
	region_ready(region[n]);
	return all;
}

static int setup(void **state)
{
	int failed = new_folder(state);
	if (!failed) {
		a = open_one(0);
		b = open_one(1);
		users = breaker_find(a, VIEW("users reads"));
	}
	return failed || !users;
}

static int teardown(void **state)
{
	breakers_close(a);
	breakers_close(b);
	region_close(region[0]);
	region_close(region[1]);
	return remove_folder(state);
}

/* Somebody's bit among the callers: the six highest. */
static uint64_t caller(unsigned n)
{
	return (uint64_t)n << 58;
}

static bool passes(int64_t now, struct breaker_call *call)
{
	int64_t wait_us;
	bool let = breaker_pass(users, &terms, now, S, call, &wait_us);
	assert_true(let || wait_us > 0);
	return let;
}

static void call_by(enum outcome outcome, uint64_t who, int64_t now)
{
	struct breaker_call call;
	if (passes(now, &call))
		(void)breaker_ended(&call, &terms, outcome, who, now);
}

static void calls(unsigned n, enum outcome outcome, int64_t now)
{
	while (n--)
		call_by(outcome, caller(ME), now);
}

static int64_t opens_at(int64_t now)
{
	int64_t wait_us;
	assert_int_equal(breaker_state(users, now, &wait_us), BREAKER_OPEN);
	return now + wait_us;
}

/* There is a line that begins and ends so. */
static void assert_described(const char *begin, const char *end)
{
	char *text = NULL;
	size_t bytes;
	FILE *f = open_memstream(&text, &bytes);
	assert_non_null(f);
	breakers_describe(a, &terms, NOW, f);
	(void)fclose(f);
	const char *line = strstr(text, begin), *rest = line ? strstr(line, end) : NULL;
	assert_non_null(rest);
	assert_ptr_equal(rest + strlen(end) - 1, strchr(line, '\n'));
	free(text);
}

static void people_are_told_what_it_counts(void **state)
{
	(void)state;
	calls(7, OUTCOME_GOOD, NOW);
	calls(2, OUTCOME_BAD, NOW);
	calls(1, OUTCOME_SLOW, NOW);
	assert_described("breaker     users reads: closed, ", "; of 10 calls 2 failed, 1 were slow\n");
}

static void a_cell_is_the_same_for_all_workers(void **state)
{
	(void)state;
	assert_ptr_not_equal(users, breaker_find(a, VIEW("users writes")));
	struct breaker *theirs = breaker_find(b, VIEW("users reads"));
	assert_true(breaker_trip(users, &terms, NOW));
	assert_int_equal(breaker_state(theirs, NOW, NULL), BREAKER_OPEN);
	breaker_heal(theirs);
	assert_int_equal(breaker_state(users, NOW, NULL), BREAKER_CLOSED);
}

static void too_few_calls_say_nothing(void **state)
{
	(void)state;
	calls(19, OUTCOME_BAD, NOW);
	assert_int_equal(breaker_state(users, NOW, NULL), BREAKER_CLOSED);
	calls(1, OUTCOME_BAD, NOW);
	assert_int_equal(breaker_state(users, NOW, NULL), BREAKER_OPEN);
}

static void half_of_them_open_it_and_less_does_not(void **state)
{
	(void)state;
	calls(101, OUTCOME_GOOD, NOW);
	calls(100, OUTCOME_BAD, NOW);
	assert_int_equal(breaker_state(users, NOW, NULL), BREAKER_CLOSED);
	calls(1, OUTCOME_BAD, NOW);
	assert_int_equal(breaker_state(users, NOW, NULL), BREAKER_OPEN);
}

static void what_fails_counts_however_many_calls_there_were(void **state)
{
	(void)state;
	/* A turn has room for 16383. */
	calls(20000, OUTCOME_GOOD, NOW);
	calls(20000, OUTCOME_BAD, NOW);
	assert_int_equal(breaker_state(users, NOW, NULL), BREAKER_OPEN);
}

static void slow_calls_have_a_share_of_their_own(void **state)
{
	(void)state;
	calls(20, OUTCOME_GOOD, NOW);
	calls(79, OUTCOME_SLOW, NOW);
	assert_int_equal(breaker_state(users, NOW, NULL), BREAKER_CLOSED);
	calls(1, OUTCOME_SLOW, NOW);
	assert_int_equal(breaker_state(users, NOW, NULL), BREAKER_OPEN);
}

static void what_was_before_the_window_is_forgotten(void **state)
{
	(void)state;
	calls(19, OUTCOME_BAD, NOW);
	calls(19, OUTCOME_BAD, NOW + 11 * S);
	assert_int_equal(breaker_state(users, NOW + 11 * S, NULL), BREAKER_CLOSED);
	/* And within it is not. */
	calls(1, OUTCOME_BAD, NOW + 19 * S);
	assert_int_equal(breaker_state(users, NOW + 19 * S, NULL), BREAKER_OPEN);
}

static void one_client_does_not_open_it_for_the_others(void **state)
{
	(void)state;
	call_by(OUTCOME_GOOD, caller(10), NOW);
	calls(200, OUTCOME_BAD, NOW);
	assert_int_equal(breaker_state(users, NOW, NULL), BREAKER_CLOSED);
	for (unsigned n = 11; n < 14; n++)
		call_by(OUTCOME_GOOD, caller(n), NOW);
	calls(200, OUTCOME_BAD, NOW);
	assert_int_equal(breaker_state(users, NOW, NULL), BREAKER_CLOSED);
	call_by(OUTCOME_BAD, caller(10), NOW);
	call_by(OUTCOME_BAD, caller(11), NOW);
	assert_int_equal(breaker_state(users, NOW, NULL), BREAKER_OPEN);
}

static void open_it_lets_nobody_through_and_then_a_few(void **state)
{
	(void)state;
	struct breaker_call one, two, three;
	assert_true(breaker_trip(users, &terms, NOW));
	int64_t at = opens_at(NOW);
	assert_in_range(at - NOW, 100 * MS, 201 * MS);
	assert_false(passes(at - MS, &one));
	assert_true(passes(at, &one));
	assert_true(one.probe);
	assert_true(passes(at, &two));
	assert_false(passes(at, &three));
	assert_int_equal(breaker_ended(&one, &terms, OUTCOME_GOOD, ME, at), BREAKER_STAYS);
	assert_int_equal(breaker_state(users, at, NULL), BREAKER_HALF_OPEN);
	assert_int_equal(breaker_ended(&two, &terms, OUTCOME_GOOD, ME, at), BREAKER_CLOSES);
	assert_int_equal(breaker_state(users, at, NULL), BREAKER_CLOSED);
}

static void each_probe_that_fails_doubles_the_time(void **state)
{
	(void)state;
	int64_t now = NOW;
	assert_true(breaker_trip(users, &terms, now));
	for (int64_t us = 400 * MS; us <= 6400 * MS; us *= 2) {
		struct breaker_call probe;
		now = opens_at(now);
		assert_true(passes(now, &probe));
		assert_int_equal(breaker_ended(&probe, &terms, OUTCOME_BAD, ME, now), BREAKER_OPENS);
		int64_t most = us < terms.open_max_us ? us : terms.open_max_us;
		assert_in_range(opens_at(now) - now, most / 2, most + MS);
	}
}

static void probes_that_do_not_end_in_time_have_failed(void **state)
{
	(void)state;
	struct breaker_call lost, late;
	assert_true(breaker_trip(users, &terms, NOW));
	int64_t at = opens_at(NOW);
	assert_true(passes(at, &lost));
	assert_true(passes(at, &lost));
	assert_false(passes(at + S - MS, &late));
	assert_false(passes(at + S + MS, &late)); /* open again */
	at = opens_at(at + S + MS);
	assert_true(passes(at, &late));
	/* The late word of one of the half-open time before counts for nothing. */
	(void)breaker_ended(&lost, &terms, OUTCOME_BAD, ME, at);
	assert_int_equal(breaker_state(users, at, NULL), BREAKER_HALF_OPEN);
}

static void where_few_ask_each_probe_has_its_own_time(void **state)
{
	(void)state;
	struct breaker_call probe;
	assert_true(breaker_trip(users, &terms, NOW));
	int64_t at = opens_at(NOW);
	for (unsigned n = 0; n < terms.probes; n++, at += 5 * S) {
		assert_true(passes(at, &probe));
		(void)breaker_ended(&probe, &terms, OUTCOME_GOOD, ME, at);
	}
	assert_int_equal(breaker_state(users, at, NULL), BREAKER_CLOSED);
}

static void a_probe_that_says_nothing_makes_room_for_another(void **state)
{
	(void)state;
	struct breaker_call one, two;
	assert_true(breaker_trip(users, &terms, NOW));
	int64_t at = opens_at(NOW);
	assert_true(passes(at, &one));
	assert_true(passes(at, &two));
	(void)breaker_ended(&two, &terms, OUTCOME_NONE, ME, at);
	assert_true(passes(at, &two));
}

static void so_many_failures_in_a_row_open_it_at_once(void **state)
{
	(void)state;
	struct breaker_terms server = terms;
	struct breaker_call call;
	int64_t wait_us;
	server.in_row = 3;
	calls(1000, OUTCOME_GOOD, NOW);
	for (unsigned i = 0; i < 5; i++) {
		assert_true(breaker_pass(users, &server, NOW, S, &call, &wait_us));
		enum breaker_turn turn = breaker_ended(&call, &server, i == 1 ? OUTCOME_GOOD : OUTCOME_BAD, ME, NOW);
		assert_int_equal(turn, i == 4 ? BREAKER_OPENS : BREAKER_STAYS);
	}
	assert_int_equal(breaker_state(users, NOW, NULL), BREAKER_OPEN);
}

static void a_doubt_lasts_as_long_as_it_is_told(void **state)
{
	(void)state;
	assert_false(breaker_doubted(users, NOW));
	breaker_doubt(users, NOW + 60 * MS);
	assert_true(breaker_doubted(breaker_find(b, VIEW("users reads")), NOW + 59 * MS));
	assert_false(breaker_doubted(users, NOW + 60 * MS));
	assert_int_equal(breaker_state(users, NOW, NULL), BREAKER_CLOSED);
}

static void a_bulkhead_has_so_many_places_for_all_workers(void **state)
{
	(void)state;
	unsigned held;
	struct breaker *theirs = breaker_find(b, VIEW("users reads"));
	assert_true(bulkhead_enter(a, users, 2, &held));
	assert_true(bulkhead_enter(b, theirs, 2, &held));
	assert_false(bulkhead_enter(a, users, 2, &held));
	assert_int_equal(held, 2);
	bulkhead_leave(b, theirs);
	assert_true(bulkhead_enter(a, users, 2, &held));
}

static void takes_the_only_place(void)
{
	unsigned held;
	struct breakers *mine = open_one(1);
	if (!bulkhead_enter(mine, breaker_find(mine, VIEW("users reads")), 1, &held))
		_exit(1);
}

static void the_places_of_the_dead_are_free(void **state)
{
	(void)state;
	unsigned held;
	pid_t pid = other(takes_the_only_place);
	assert_false(bulkhead_enter(a, users, 1, &held));
	end_other(pid);
	assert_true(bulkhead_enter(a, users, 1, &held));
}

static void where_there_is_no_room_all_is_let_through(void **state)
{
	(void)state;
	char name[32];
	struct breaker *none = users;
	for (unsigned i = 0; i < 5000 && none; i++) {
		int n = snprintf(name, sizeof name, "resource %u", i);
		none = breaker_find(a, view_make(name, (size_t)n));
	}
	assert_null(none);
	assert_described("breakers    ", ", 1 calls found no room\n");
	struct breaker_call call;
	int64_t wait_us;
	unsigned held;
	assert_true(breaker_pass(none, &terms, NOW, S, &call, &wait_us));
	assert_int_equal(breaker_ended(&call, &terms, OUTCOME_BAD, ME, NOW), BREAKER_STAYS);
	assert_true(bulkhead_enter(a, none, 0, &held));
	bulkhead_leave(a, none);
	assert_int_equal(breaker_state(none, NOW, NULL), BREAKER_CLOSED);
}

#define breaker_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		breaker_test(a_cell_is_the_same_for_all_workers),
		breaker_test(people_are_told_what_it_counts),
		breaker_test(too_few_calls_say_nothing),
		breaker_test(half_of_them_open_it_and_less_does_not),
		breaker_test(what_fails_counts_however_many_calls_there_were),
		breaker_test(slow_calls_have_a_share_of_their_own),
		breaker_test(what_was_before_the_window_is_forgotten),
		breaker_test(one_client_does_not_open_it_for_the_others),
		breaker_test(open_it_lets_nobody_through_and_then_a_few),
		breaker_test(each_probe_that_fails_doubles_the_time),
		breaker_test(probes_that_do_not_end_in_time_have_failed),
		breaker_test(where_few_ask_each_probe_has_its_own_time),
		breaker_test(a_probe_that_says_nothing_makes_room_for_another),
		breaker_test(so_many_failures_in_a_row_open_it_at_once),
		breaker_test(a_doubt_lasts_as_long_as_it_is_told),
		breaker_test(a_bulkhead_has_so_many_places_for_all_workers),
		breaker_test(the_places_of_the_dead_are_free),
		breaker_test(where_there_is_no_room_all_is_let_through),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
