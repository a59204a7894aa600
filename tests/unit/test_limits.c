#include "config.h"

#include "folder.h"

#include <sys/wait.h>
#include <unistd.h>

#include "gate/limits.h"

enum { NOW = 100000000, SECOND = 1000000 };

static const struct region_options options = { .folder = folder, .instance = "0123456789abcdef" };
static struct region *region;
static struct limits *limits;

static void open_it(void)
{
	region = region_open(&options);
	limits = region ? limits_open(region) : NULL;
	if (!limits)
		_exit(1);
	region_ready(region);
}

static void close_it(void)
{
	limits_close(limits);
	region_close(region);
}

static int setup(void **state)
{
	int failed = new_folder(state);
	if (!failed)
		open_it();
	return failed;
}

static int teardown(void **state)
{
	close_it();
	return remove_folder(state);
}

static const struct limit_terms ten_a_second = {
	.n = 1, .policy = "\"default\";q=10;w=1", .rate_us = { 10e-6 }, .burst = { 20 }, .left = { 5 }, .at_us = NOW,
};

static struct bucket_ref bucket(const char *owner)
{
	struct bucket_ref ref;
	assert_true(limits_find(limits, view_of(owner), NOW, &ref));
	return ref;
}

static struct limit_ask ask(const struct bucket_ref *ref, uint32_t generation, int64_t now)
{
	struct limit_ask a;
	assert_true(limits_ask(limits, ref, 1, generation, now, &a));
	limits_count(limits, &a);
	return a;
}

static void lease(const struct bucket_ref *ref, unsigned tokens, int64_t wait_us)
{
	struct limit_ask a = ask(ref, 1, NOW);
	limits_leased(limits, &a, tokens, wait_us, 1, &ten_a_second, NOW);
}

static enum take take(const struct bucket_ref *ref, unsigned cost, uint32_t generation, int64_t now, struct taken *t)
{
	return limits_take(limits, ref, cost, generation, now, t);
}

static void what_is_leased_is_spent_once_and_then_asked_for(void **state)
{
	(void)state;
	struct bucket_ref b = bucket("key");
	struct taken t;
	assert_int_equal(take(&b, 1, 1, NOW, &t), TAKE_ASK);
	lease(&b, 3, 0);
	assert_int_equal(take(&b, 2, 1, NOW, &t), TAKE_ADMITTED);
	assert_int_equal(take(&b, 2, 1, NOW, &t), TAKE_ASK);
	assert_int_equal(take(&b, 1, 1, NOW, &t), TAKE_ADMITTED);
	assert_int_equal(take(&b, 1, 1, NOW, &t), TAKE_ASK);
}

static void a_refusal_says_until_when_and_then_it_is_asked_again(void **state)
{
	(void)state;
	struct bucket_ref b = bucket("key");
	struct taken t;
	lease(&b, 0, SECOND);
	assert_int_equal(take(&b, 1, 1, NOW + 1, &t), TAKE_REFUSED);
	assert_int_equal(t.wait_us, SECOND - 1);
	assert_int_equal(t.violated, 1);
	assert_int_equal(take(&b, 1, 1, NOW + SECOND, &t), TAKE_ASK);
}

static void one_asks_at_a_time_and_whoever_does_not_hear_loses_his_turn(void **state)
{
	(void)state;
	struct bucket_ref b = bucket("key");
	struct limit_ask first = ask(&b, 1, NOW), second;
	assert_string_equal(first.owner, "key");
	assert_false(limits_ask(limits, &b, 1, 1, NOW + 1000, &second));
	assert_true(limits_ask(limits, &b, 1, 1, NOW + (int64_t)3 * SECOND, &second));
}

static void as_much_is_wanted_as_there_is_and_enough_for_who_waits(void **state)
{
	(void)state;
	struct bucket_ref b = bucket("key");
	struct limit_ask a;
	assert_true(limits_ask(limits, &b, 0, 1, NOW, &a));
	assert_true(a.wanted > 100000);
	assert_int_equal(a.least, 1);
	limits_not_leased(limits, &a, false);
	assert_true(limits_ask(limits, &b, 7, 1, NOW, &a));
	assert_int_equal(a.least, 7);
}

static void of_other_terms_no_token_counts_and_all_go_back(void **state)
{
	(void)state;
	struct bucket_ref b = bucket("key");
	struct taken t;
	lease(&b, 3, 0);
	assert_int_equal(take(&b, 1, 2, NOW, &t), TAKE_ASK);
	struct limit_ask a = ask(&b, 2, NOW);
	assert_int_equal(a.returned, 3);
	limits_leased(limits, &a, 1, 0, 0, &ten_a_second, NOW);
	assert_int_equal(take(&b, 1, 2, NOW, &t), TAKE_ADMITTED);
	assert_int_equal(take(&b, 1, 2, NOW, &t), TAKE_ASK);
}

static void without_a_limit_everybody_is_admitted_and_counted(void **state)
{
	(void)state;
	struct bucket_ref b = bucket("key");
	struct limit_terms none = { .n = 0 };
	struct limit_ask a = ask(&b, 1, NOW);
	struct taken t;
	limits_leased(limits, &a, 1, 0, 0, &none, NOW);
	for (int i = 0; i < 5; i++)
		assert_int_equal(take(&b, 1000, 1, NOW, &t), TAKE_ADMITTED);
	assert_false(t.low);
	assert_false(limits_terms(limits, &b, &none));
	a = ask(&b, 1, NOW);
	assert_int_equal(a.admitted, 5);
}

static void what_lies_unused_goes_back_and_counts_are_told(void **state)
{
	(void)state;
	struct bucket_ref b = bucket("key");
	struct limit_ask a;
	struct taken t;
	unsigned at = 0;
	lease(&b, 3, 0);
	assert_int_equal(take(&b, 1, 1, NOW, &t), TAKE_ADMITTED);
	assert_false(limits_idle(limits, &at, NOW + SECOND / 2, &a));
	at = 0;
	assert_true(limits_idle(limits, &at, NOW + (int64_t)2 * SECOND, &a));
	limits_count(limits, &a);
	assert_int_equal(a.wanted, 0);
	assert_int_equal(a.returned, 2);
	assert_int_equal(a.admitted, 1);
	limits_leased(limits, &a, 0, 0, 0, &ten_a_second, NOW);
	assert_int_equal(take(&b, 1, 1, NOW, &t), TAKE_ASK);
	at = 0;
	assert_false(limits_idle(limits, &at, NOW + (int64_t)2 * SECOND, &a));
}

static void what_was_surely_not_heard_is_told_again_and_never_given_back_twice(void **state)
{
	(void)state;
	struct bucket_ref b = bucket("key");
	struct limit_ask a;
	struct taken t;
	for (int unknown = 0; unknown < 2; unknown++) {
		unsigned at = 0;
		lease(&b, 3, 0);
		assert_true(limits_idle(limits, &at, NOW + (int64_t)2 * SECOND, &a));
		limits_not_leased(limits, &a, unknown);
		assert_int_equal(take(&b, 3, 1, NOW, &t), unknown ? TAKE_ASK : TAKE_ADMITTED);
	}
}

static void low_is_said_in_time_but_not_of_a_few_tokens(void **state)
{
	(void)state;
	struct bucket_ref b = bucket("key"), few = bucket("few");
	struct taken t;
	lease(&b, 8, 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(take(&b, 1, 1, NOW, &t), TAKE_ADMITTED);
		assert_false(t.low);
	}
	assert_int_equal(take(&b, 1, 1, NOW, &t), TAKE_ADMITTED);
	assert_true(t.low);
	lease(&few, 1, 0);
	assert_int_equal(take(&few, 1, 1, NOW, &t), TAKE_ADMITTED);
	assert_false(t.low);
}

/* Of 5 left in the bucket and 10 a second, over a second: all for one host, half for one of two. */
static unsigned alone_for_a_second(unsigned hosts)
{
	struct bucket_ref b = bucket(hosts == 1 ? "one" : "two");
	struct taken t;
	unsigned n = 0;
	lease(&b, 0, SECOND);
	limits_reached(limits, VIEW("epoch"), hosts);
	limits_failed(limits, NOW);
	for (int i = 0; i <= 1000; i++)
		n += limits_take_alone(limits, &b, 1, NOW + i * 1000, &t) == TAKE_ADMITTED;
	assert_int_equal(limits_take_alone(limits, &b, 1, NOW + SECOND, &t), TAKE_REFUSED);
	assert_true(t.wait_us > 0);
	assert_int_equal(limits_take_alone(limits, &b, 1, NOW + SECOND + t.wait_us, &t), TAKE_ADMITTED);
	struct limit_ask a = ask(&b, 1, NOW);
	assert_int_equal(a.debt, n + 1);
	limits_not_leased(limits, &a, true);
	a = ask(&b, 1, NOW);
	assert_int_equal(a.debt, n + 1); /* a debt that may not have been heard is told again */
	limits_leased(limits, &a, 0, SECOND, 0, &ten_a_second, NOW);
	return n;
}

static void alone_a_host_goes_on_at_its_share(void **state)
{
	(void)state;
	assert_in_range(alone_for_a_second(1), 14, 15);
	assert_in_range(alone_for_a_second(2), 7, 8);
}

static void alone_every_window_counts_and_a_refusal_takes_nothing(void **state)
{
	(void)state;
	struct bucket_ref b = bucket("key");
	struct limit_terms two = { .n = 2, .policy = "\"a\";q=10;w=1, \"b\";q=3;w=60", .rate_us = { 10e-6, 3 / 60e6 },
				   .burst = { 10, 3 }, .left = { 10, 3 }, .at_us = NOW };
	struct limit_ask a = ask(&b, 1, NOW);
	struct taken t;
	limits_leased(limits, &a, 0, SECOND, 0, &two, NOW);
	limits_failed(limits, NOW);
	for (int i = 0; i < 3; i++)
		assert_int_equal(limits_take_alone(limits, &b, 1, NOW, &t), TAKE_ADMITTED);
	for (int i = 0; i < 20; i++)
		assert_int_equal(limits_take_alone(limits, &b, 1, NOW, &t), TAKE_REFUSED);
	assert_int_equal(t.violated, 2);
	assert_in_range(t.wait_us, (int64_t)19 * SECOND, (int64_t)20 * SECOND);
	assert_int_equal(limits_take_alone(limits, &b, 1, NOW + (int64_t)20 * SECOND, &t), TAKE_ADMITTED);
}

static void of_an_unknown_owner_a_bounded_number_is_admitted_alone(void **state)
{
	(void)state;
	struct bucket_ref b = bucket("stranger");
	struct taken t;
	unsigned n = 0;
	limits_failed(limits, NOW);
	for (int i = 0; i < 1000; i++)
		n += limits_take_alone(limits, &b, 1, NOW, &t) == TAKE_ADMITTED;
	assert_in_range(n, 1, 20);
}

static void after_a_failure_one_asks_at_the_end_of_each_pause(void **state)
{
	(void)state;
	assert_true(limits_may_ask(limits, NOW));
	limits_failed(limits, NOW);
	assert_false(limits_may_ask(limits, NOW));
	assert_true(limits_may_ask(limits, NOW + SECOND));
	assert_false(limits_may_ask(limits, NOW + SECOND)); /* the one is on its way */
	limits_reached(limits, VIEW("e"), 3);
	assert_true(limits_may_ask(limits, NOW));
	char epoch[LIMIT_EPOCH_MAX];
	limits_epoch(limits, epoch);
	assert_string_equal(epoch, "e");
}

static void too_many_failed_keys_of_an_address_are_told_until_when(void **state)
{
	(void)state;
	int64_t wait = 0;
	for (int i = 0; i < 30; i++)
		assert_int_equal(limits_failure(limits, VIEW("a"), 30, NOW), 0);
	wait = limits_failure(limits, VIEW("a"), 30, NOW);
	assert_in_range(wait, SECOND, (int64_t)2 * SECOND);
	assert_int_equal(limits_failure(limits, VIEW("b"), 30, NOW), 0);
	assert_int_equal(limits_failure(limits, VIEW("a"), 30, NOW + wait), 0);
}

static void a_bucket_that_made_room_is_noticed(void **state)
{
	(void)state;
	struct bucket_ref b = bucket("key");
	struct taken t;
	char owner[32];
	lease(&b, 3, 0);
	struct limit_ask a = ask(&b, 1, NOW);
	for (int i = 0; i < 200000; i++) {
		struct bucket_ref other;
		(void)snprintf(owner, sizeof owner, "key %d", i);
		assert_true(limits_find(limits, view_of(owner), NOW + i + 1, &other));
	}
	assert_int_equal(take(&b, 1, 1, NOW, &t), TAKE_ASK);
	limits_leased(limits, &a, 100, 0, 0, &ten_a_second, NOW); /* nobody has that now */
	struct bucket_ref again = bucket("key");
	assert_int_equal(take(&again, 1, 1, NOW, &t), TAKE_ASK);
}

static void addresses_push_no_key_out(void **state)
{
	(void)state;
	struct bucket_ref b = bucket("key"), other;
	struct taken t;
	char owner[32];
	lease(&b, 3, 0);
	for (int i = 0; i < 200000; i++) {
		(void)snprintf(owner, sizeof owner, "address/%d", i);
		assert_true(limits_find(limits, view_of(owner), NOW + i + 1, &other));
	}
	assert_int_equal(take(&b, 1, 1, NOW, &t), TAKE_ADMITTED);
}

static void a_new_outage_is_no_new_burst(void **state)
{
	(void)state;
	struct bucket_ref b = bucket("key");
	struct taken t;
	unsigned n = 0;
	lease(&b, 0, SECOND);
	for (int outage = 0; outage < 5; outage++) {
		limits_failed(limits, NOW);
		for (int i = 0; i < 100; i++)
			n += limits_take_alone(limits, &b, 1, NOW, &t) == TAKE_ADMITTED;
		limits_reached(limits, VIEW("epoch"), 1);
	}
	assert_int_equal(n, 5); /* that were left */
}

static void fewer_tokens_may_be_there_than_were_asked_for_in_vain(void **state)
{
	(void)state;
	struct bucket_ref b = bucket("key");
	struct limit_ask a;
	struct taken t;
	assert_true(limits_ask(limits, &b, 4, 1, NOW, &a));
	limits_leased(limits, &a, 0, SECOND, 1, &ten_a_second, NOW);
	assert_int_equal(take(&b, 4, 1, NOW, &t), TAKE_REFUSED);
	assert_int_equal(take(&b, 1, 1, NOW, &t), TAKE_ASK);
	assert_true(limits_ask(limits, &b, 50, 1, NOW, &a));
	limits_leased(limits, &a, 0, -1, 1, &ten_a_second, NOW); /* so many there will never be */
	assert_int_equal(take(&b, 1, 1, NOW, &t), TAKE_ASK);
}

/* Ten processes spend what is there once. */
static void several_processes_spend_each_token_once(void **state)
{
	(void)state;
	struct bucket_ref b = bucket("key");
	struct taken t;
	int status, total = 0;
	lease(&b, 1000, 0);
	pid_t child[10];
	for (int i = 0; i < 10; i++) {
		child[i] = fork();
		if (child[i] == 0) {
			int n = 0;
			for (int k = 0; k < 200; k++)
				n += take(&b, 1, 1, NOW, &t) == TAKE_ADMITTED;
			_exit(n);
		}
	}
	for (int i = 0; i < 10; i++) {
		assert_int_equal(waitpid(child[i], &status, 0), child[i]);
		total += WEXITSTATUS(status);
	}
	assert_int_equal(total, 1000);
}

static void terms_are_read_whole(void **state)
{
	(void)state;
	struct bucket_ref b = bucket("key");
	struct limit_terms t;
	assert_false(limits_terms(limits, &b, &t));
	lease(&b, 4, 0);
	assert_true(limits_terms(limits, &b, &t));
	assert_string_equal(t.policy, ten_a_second.policy);
	assert_in_range((int)limits_left(&b, &t, 0, NOW), 9, 9);
	assert_in_range((int)limits_left(&b, &t, 0, NOW + SECOND), 19, 19);
	assert_in_range((int)limits_left(&b, &t, 0, NOW + (int64_t)60 * SECOND), 20, 20);
}

#define limits_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		limits_test(what_is_leased_is_spent_once_and_then_asked_for),
		limits_test(a_refusal_says_until_when_and_then_it_is_asked_again),
		limits_test(one_asks_at_a_time_and_whoever_does_not_hear_loses_his_turn),
		limits_test(as_much_is_wanted_as_there_is_and_enough_for_who_waits),
		limits_test(of_other_terms_no_token_counts_and_all_go_back),
		limits_test(without_a_limit_everybody_is_admitted_and_counted),
		limits_test(what_lies_unused_goes_back_and_counts_are_told),
		limits_test(what_was_surely_not_heard_is_told_again_and_never_given_back_twice),
		limits_test(low_is_said_in_time_but_not_of_a_few_tokens),
		limits_test(alone_a_host_goes_on_at_its_share),
		limits_test(alone_every_window_counts_and_a_refusal_takes_nothing),
		limits_test(of_an_unknown_owner_a_bounded_number_is_admitted_alone),
		limits_test(after_a_failure_one_asks_at_the_end_of_each_pause),
		limits_test(too_many_failed_keys_of_an_address_are_told_until_when),
		limits_test(a_bucket_that_made_room_is_noticed),
		limits_test(addresses_push_no_key_out),
		limits_test(a_new_outage_is_no_new_burst),
		limits_test(fewer_tokens_may_be_there_than_were_asked_for_in_vain),
		limits_test(several_processes_spend_each_token_once),
		limits_test(terms_are_read_whole),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
