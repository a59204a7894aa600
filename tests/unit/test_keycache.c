#include "config.h"

#include "folder.h"

#include "cache/generation.h"
#include "gate/keycache.h"

enum { TTL_US = 1000, GRACE_US = 10000, NOW = 1000000 };

static const struct region_options options = { .folder = folder, .instance = "0123456789abcdef" };
static struct region *region;
static struct watch *watch;
static struct keycache *keys;

static void open_it(void)
{
	watch = watch_open(folder, options.instance);
	region = region_open(&options);
	keys = watch && region ? keycache_open(region, watch, TTL_US, GRACE_US) : NULL;
	if (!keys)
		_exit(1);
	region_ready(region);
}

static void close_it(void)
{
	keycache_close(keys);
	region_close(region);
	watch_close(watch);
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

static struct view id_of(unsigned n)
{
	static char text[APIKEY_ID_CHARS + 1];
	(void)snprintf(text, sizeof text, "%014u", n);
	return view_make(text, APIKEY_ID_CHARS);
}

static struct key_record record_of(unsigned n)
{
	struct key_record r = { .n_secrets = 1, .has_role = 1 };
	memcpy(r.id, id_of(n).p, sizeof r.id);
	(void)snprintf(r.role, sizeof r.role, "role%u", n);
	memset(r.hash[0], (int)(n & 0xff), sizeof r.hash[0]);
	return r;
}

static void put(unsigned n, int64_t now)
{
	struct key_record r = record_of(n);
	keycache_put(keys, &r, keycache_generation(keys, id_of(n)), now);
}

static enum key_state get(unsigned n, int64_t now)
{
	struct key_record r = { .n_secrets = 0 }, expected = record_of(n);
	enum key_state st = keycache_get(keys, id_of(n), now, &r);
	if (st == KEY_KNOWN || st == KEY_OLD)
		assert_memory_equal(&r, &expected, sizeof r);
	return st;
}

static void a_key_is_known_then_old_then_missing(void **state)
{
	(void)state;
	assert_int_equal(get(1, NOW), KEY_MISSING);
	put(1, NOW);
	assert_int_equal(get(1, NOW), KEY_KNOWN);
	assert_int_equal(get(1, NOW + TTL_US), KEY_KNOWN);
	assert_int_equal(get(1, NOW + TTL_US + 1), KEY_OLD);
	assert_int_equal(get(1, NOW + GRACE_US), KEY_OLD);
	assert_int_equal(get(1, NOW + GRACE_US + 1), KEY_MISSING);
	assert_int_equal(get(1, NOW - 1), KEY_MISSING); /* of another time */
	put(1, NOW + GRACE_US);
	assert_int_equal(get(1, NOW + GRACE_US), KEY_KNOWN);
}

static void an_unknown_id_is_remembered_for_its_time_and_not_longer(void **state)
{
	(void)state;
	keycache_put_unknown(keys, id_of(2), keycache_generation(keys, id_of(2)), NOW);
	assert_int_equal(get(2, NOW + TTL_US), KEY_UNKNOWN);
	assert_int_equal(get(2, NOW + TTL_US + 1), KEY_MISSING);
	assert_int_equal(get(3, NOW), KEY_MISSING);
}

static void what_may_have_changed_unseen_is_old(void **state)
{
	(void)state;
	put(1, NOW);
	keycache_put_unknown(keys, id_of(2), keycache_generation(keys, id_of(2)), NOW);
	generation_bump(watch, generation_tag(VIEW("key"), id_of(1)), GENERATION_SOFT); /* a row that shares its counter */
	assert_int_equal(get(1, NOW), KEY_KNOWN);
	generation_bump_all(watch, GENERATION_SOFT);
	assert_int_equal(get(1, NOW), KEY_OLD);
	assert_int_equal(get(2, NOW), KEY_MISSING);
	put(1, NOW);
	assert_int_equal(get(1, NOW), KEY_KNOWN);
	generation_bump_all(watch, GENERATION_HARD);
	assert_int_equal(get(1, NOW), KEY_MISSING);
}

static void what_was_invalidated_is_forgotten_one_or_all(void **state)
{
	(void)state;
	put(1, NOW);
	put(2, NOW);
	keycache_put_unknown(keys, id_of(3), keycache_generation(keys, id_of(3)), NOW);
	keycache_invalidate(keys, id_of(1));
	assert_int_equal(get(1, NOW), KEY_MISSING);
	assert_int_equal(get(2, NOW), KEY_KNOWN);
	keycache_invalidate(keys, id_of(3)); /* created */
	assert_int_equal(get(3, NOW), KEY_MISSING);
	keycache_invalidate(keys, VIEW_NONE);
	assert_int_equal(get(2, NOW), KEY_MISSING);
}

static void an_answer_that_a_change_overtook_is_out_of_date_when_it_comes(void **state)
{
	(void)state;
	struct key_record r = record_of(1);
	uint64_t generation = keycache_generation(keys, id_of(1));
	keycache_invalidate(keys, id_of(1));
	keycache_put(keys, &r, generation, NOW);
	assert_int_equal(get(1, NOW), KEY_MISSING);
	keycache_put_unknown(keys, id_of(1), generation, NOW);
	assert_int_equal(get(1, NOW), KEY_MISSING);
}

/* Its old entry stood before the new one, and each request asked. */
static void a_revoked_key_is_remembered_as_unknown(void **state)
{
	(void)state;
	put(1, NOW);
	keycache_invalidate(keys, id_of(1));
	keycache_put_unknown(keys, id_of(1), keycache_generation(keys, id_of(1)), NOW);
	assert_int_equal(get(1, NOW), KEY_UNKNOWN);
}

static void any_number_of_unknown_ids_pushes_no_good_key_out(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 100; n++)
		put(n, NOW);
	unsigned known = 0;
	for (unsigned n = 0; n < 100; n++)
		known += get(n, NOW) == KEY_KNOWN;
	for (unsigned n = 1000; n < 101000; n++)
		keycache_put_unknown(keys, id_of(n), keycache_generation(keys, id_of(n)), NOW);
	for (unsigned n = 0; n < 100; n++)
		known -= get(n, NOW) == KEY_KNOWN;
	assert_int_equal(known, 0);
}

static void in_a_full_set_the_oldest_makes_room(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 60000; n++)
		put(n, NOW + n / 100);
	unsigned early = 0, late = 0;
	for (unsigned n = 0; n < 500; n++)
		early += get(n, NOW + 600) == KEY_KNOWN;
	for (unsigned n = 59500; n < 60000; n++)
		late += get(n, NOW + 600) == KEY_KNOWN;
	assert_int_equal(early, 0);
	assert_int_equal(late, 500);
}

static void an_id_of_another_length_is_unknown(void **state)
{
	(void)state;
	struct key_record r;
	assert_int_equal(keycache_get(keys, VIEW("short"), NOW, &r), KEY_UNKNOWN);
	keycache_put_unknown(keys, VIEW("short"), 0, NOW);
}

static void stale_lock_words_cost_a_miss_until_they_are_repaired(void **state)
{
	(void)state;
	size_t bytes;
	put(1, NOW);
	/* Every lock of the known sets: as after a reboot, or a copy of the file. */
	uint64_t *head = region_area(region, AREA_KEYS, &bytes);
	for (size_t i = 0; i < 1024; i++)
		head[2 * i] = (uint64_t)(i + 1) << 16 | (i % REGION_SLOTS + 1);
	put(2, NOW);
	assert_int_equal(get(2, NOW), KEY_MISSING);
	assert_int_equal(get(1, NOW), KEY_KNOWN); /* readers need no lock */
	unsigned repaired = keycache_repair(keys);
	assert_true(repaired >= 1023);
	assert_int_equal(get(1, NOW), KEY_MISSING); /* emptied: it may have been half written */
	put(2, NOW);
	assert_int_equal(get(2, NOW), KEY_KNOWN);
	for (size_t i = 0; i < 1024; i++)
		head[2 * i] = region_me(region) + (1 << 16);
	close_it();
	open_it();
	put(3, NOW);
	assert_int_equal(get(3, NOW), KEY_KNOWN);
}

/* Counters that begin anew must not make a revoked key's entry fit again. */
static void a_new_watch_file_forgets_what_was_remembered_under_the_old_one(void **state)
{
	(void)state;
	char command[128];
	put(1, NOW);
	keycache_invalidate(keys, id_of(1));
	put(2, NOW);
	close_it();
	(void)snprintf(command, sizeof command, "rm %s/watch-*", folder);
	assert_int_equal(system(command), 0);
	open_it();
	assert_false(region_fresh(region));
	assert_int_equal(get(1, NOW), KEY_MISSING);
	assert_int_equal(get(2, NOW), KEY_MISSING);
}

static void a_watch_file_cut_short_forgets_everything(void **state)
{
	(void)state;
	char command[128];
	close_it(); /* cmocka took SIGBUS since setup() */
	open_it();
	put(1, NOW);
	keycache_invalidate(keys, id_of(1));
	put(2, NOW);
	(void)snprintf(command, sizeof command, "truncate -s 0 %s/watch-*", folder);
	assert_int_equal(system(command), 0);
	assert_int_equal(get(1, NOW), KEY_MISSING);
	assert_int_equal(get(2, NOW), KEY_MISSING);
	assert_false(watch_intact(watch));
}

static void a_thousand_keys_find_room(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 1000; n++)
		put(n * 7919, NOW);
	for (unsigned n = 0; n < 1000; n++)
		assert_int_equal(get(n * 7919, NOW), KEY_KNOWN);
}

#define keys_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		keys_test(a_key_is_known_then_old_then_missing),
		keys_test(an_unknown_id_is_remembered_for_its_time_and_not_longer),
		keys_test(what_may_have_changed_unseen_is_old),
		keys_test(what_was_invalidated_is_forgotten_one_or_all),
		keys_test(an_answer_that_a_change_overtook_is_out_of_date_when_it_comes),
		keys_test(a_revoked_key_is_remembered_as_unknown),
		keys_test(any_number_of_unknown_ids_pushes_no_good_key_out),
		keys_test(a_thousand_keys_find_room),
		keys_test(in_a_full_set_the_oldest_makes_room),
		keys_test(an_id_of_another_length_is_unknown),
		keys_test(stale_lock_words_cost_a_miss_until_they_are_repaired),
		keys_test(a_new_watch_file_forgets_what_was_remembered_under_the_old_one),
		keys_test(a_watch_file_cut_short_forgets_everything),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
