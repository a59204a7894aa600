#include "config.h"

#include "unit.h"

#include "cache/policy.h"

static void is(void **state, const char *text, bool is_public, const char *control, const char *cdn, const char *narrow)
{
	struct cache_policy p;
	assert_true(cache_policy(&p, *state, text ? view_of(text) : VIEW_NONE));
	assert_int_equal(p.is_public, is_public);
	assert_same_view(p.control, view_of(control));
	assert_same_view(p.narrow, view_of(narrow));
	if (cdn)
		assert_same_view(p.cdn, view_of(cdn));
	else
		assert_absent(p.cdn);
}

static void without_a_word_of_the_users_it_is_asked_for_each_time(void **state)
{
	is(state, NULL, false, "private, no-cache", NULL, "private, no-cache");
	is(state, "ttl=30", false, "private, no-cache", NULL, "private, no-cache");
	is(state, "private", false, "private, no-cache", NULL, "private, no-cache");
}

static void what_is_for_our_own_store_is_never_sent(void **state)
{
	is(state, "public, max-age=5, ttl=30", true, "public, max-age=5", "max-age=5", "private, max-age=5");
	is(state, "ttl=30, max-age=5", false, "private, max-age=5", NULL, "private, max-age=5");
	is(state, "ttl=30, min-fresh=5", false, "private, no-cache", NULL, "private, no-cache");
}

static void what_is_not_public_goes_to_no_shared_cache(void **state)
{
	is(state, "max-age=5, s-maxage=60", false, "private, max-age=5", NULL, "private, max-age=5");
	is(state, "s-maxage=60", false, "private, no-cache", NULL, "private, no-cache");
	is(state, "private, max-age=5", false, "private, max-age=5", NULL, "private, max-age=5");
	is(state, "no-store", false, "private, no-store", NULL, "private, no-store");
	is(state, "ttl=10, stale-if-error=600", false, "private, no-cache, stale-if-error=600", NULL,
	   "private, no-cache, stale-if-error=600");
	is(state, "must-revalidate, max-age=1", false, "private, must-revalidate, max-age=1", NULL,
	   "private, must-revalidate, max-age=1");
}

static void a_cdn_is_told_in_its_own_words(void **state)
{
	is(state, "public, max-age=30, s-maxage=60, stale-while-revalidate=60, stale-if-error=3600", true,
	   "public, max-age=30, s-maxage=60, stale-while-revalidate=60, stale-if-error=3600",
	   "max-age=60, stale-while-revalidate=60, stale-if-error=3600",
	   "private, max-age=30, stale-while-revalidate=60, stale-if-error=3600");
	is(state, "public, max-age=5, must-revalidate", true, "public, max-age=5, must-revalidate", "max-age=5, must-revalidate",
	   "private, max-age=5, must-revalidate");
	is(state, "public, s-maxage=60", true, "public, s-maxage=60", "max-age=60", "private, no-cache");
}

static void a_shared_cache_does_not_choose_how_long_for_itself(void **state)
{
	is(state, "public", true, "public, no-cache", NULL, "private, no-cache");
	is(state, "public, ttl=60", true, "public, no-cache", NULL, "private, no-cache");
	is(state, "public, stale-if-error=9", true, "public, stale-if-error=9, no-cache", NULL,
	   "private, no-cache, stale-if-error=9");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		arena_test(without_a_word_of_the_users_it_is_asked_for_each_time),
		arena_test(what_is_for_our_own_store_is_never_sent),
		arena_test(what_is_not_public_goes_to_no_shared_cache),
		arena_test(a_cdn_is_told_in_its_own_words),
		arena_test(a_shared_cache_does_not_choose_how_long_for_itself),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
