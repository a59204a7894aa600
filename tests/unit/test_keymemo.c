#include "config.h"

#include "unit.h"

#include "gate/keymemo.h"

/* As in test_apikey.c: the first two are one identity's. */
static const char *const keys[] = {
	"cmps_QHzg4hzEABwxTU_VSnR0QeYkSAlqtuAbpa6DrxIoh118NWfm",
	"cmps_QHzg4hzEABwxTU_MXnqdMGDqIytZBLWtrFGdz7LUDE1QR41Q",
	"cmps_A4LrKLnnwVilgJ_N2bAYpevidOhmgAnJNe2OnBu18v3lFZME",
	"cmps_X60QiDYKPXxbRL_4DSbFTPMvL3CXdHQ977g9usDtWn04BrR6",
};

static unsigned char ours[32], another[32] = { 1 };

static int set_up(void **state)
{
	for (unsigned i = 0; i < sizeof ours; i++)
		ours[i] = (unsigned char)i;
	*state = keymemo_create();
	return *state ? 0 : -1;
}

static int tear_down(void **state)
{
	keymemo_destroy(*state);
	return 0;
}

static void a_key_that_comes_again_is_judged_as_the_first_time(void **state)
{
	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
			struct apikey plain, k;
			assert_true(apikey_parse(view_of(keys[i]), ours, &plain));
			assert_true(keymemo_parse(*state, view_of(keys[i]), ours, &k));
			assert_memory_equal(k.hash, plain.hash, sizeof k.hash);
			assert_ptr_equal(k.id.p, keys[i] + 5);
			assert_ptr_equal(k.secret.p, plain.secret.p);
		}
	}
}

static void a_key_that_differs_from_a_remembered_one_is_refused(void **state)
{
	struct apikey k;
	char text[APIKEY_CHARS];
	for (size_t i = 0; i < sizeof text; i++) {
		assert_true(keymemo_parse(*state, view_of(keys[0]), ours, &k));
		memcpy(text, keys[0], sizeof text);
		text[i] = text[i] == '7' ? '8' : '7';
		assert_false(keymemo_parse(*state, view_make(text, sizeof text), ours, &k));
	}
	assert_false(keymemo_parse(*state, view_make(keys[0], APIKEY_CHARS - 1), ours, &k));
	assert_false(keymemo_parse(*state, VIEW_NONE, ours, &k));
}

static void what_was_judged_under_another_installation_is_forgotten(void **state)
{
	struct apikey k;
	assert_true(keymemo_parse(*state, view_of(keys[0]), ours, &k));
	assert_false(keymemo_parse(*state, view_of(keys[0]), another, &k));
	assert_false(keymemo_parse(*state, view_of(keys[0]), another, &k));
	assert_true(keymemo_parse(*state, view_of(keys[0]), ours, &k));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_key_that_comes_again_is_judged_as_the_first_time, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_key_that_differs_from_a_remembered_one_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_was_judged_under_another_installation_is_forgotten, set_up, tear_down),
	};
	return cmocka_run_group_tests_name("keymemo", tests, NULL, NULL);
}
