#include "config.h"

#include "unit.h"

#include "gate/apikey.h"

/* Made by composure.create_key() and rotate_key() of an installation whose secret is the bytes 0..31. */
static const char *const keys[] = {
	"cmps_QHzg4hzEABwxTU_VSnR0QeYkSAlqtuAbpa6DrxIoh118NWfm",
	"cmps_QHzg4hzEABwxTU_MXnqdMGDqIytZBLWtrFGdz7LUDE1QR41Q",
	"cmps_A4LrKLnnwVilgJ_N2bAYpevidOhmgAnJNe2OnBu18v3lFZME",
	"cmps_X60QiDYKPXxbRL_4DSbFTPMvL3CXdHQ977g9usDtWn04BrR6",
};

/* composure.api_secret.hash of the first two, which are one identity's. */
static const unsigned char hashes[2][SHA256_BYTES] = {
	{ 0x77, 0xd0, 0x85, 0xe6, 0xc5, 0x66, 0x56, 0x3c, 0x46, 0x26, 0x61, 0x5e, 0xf9, 0x4d, 0x67, 0x1c, 0x08, 0x7c,
		0x43, 0x50, 0x0d, 0x5f, 0x23, 0xf6, 0x8c, 0xc8, 0x7d, 0xbd, 0x96, 0xe1, 0xff, 0xa4 },
	{ 0x7b, 0x3d, 0xd6, 0x9f, 0x73, 0xde, 0x83, 0xf4, 0xe4, 0x3d, 0xac, 0xb8, 0x3a, 0x95, 0xef, 0xe5, 0xb0, 0x4c,
		0x8f, 0xd7, 0x9d, 0x69, 0x89, 0xed, 0x39, 0xea, 0xd9, 0x35, 0xf9, 0x41, 0x56, 0x2e },
};

static unsigned char ours[32], another[32] = { 1 };

static int installation(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof ours; i++)
		ours[i] = (unsigned char)i;
	return 0;
}

static void keys_made_by_sql_are_taken(void **state)
{
	(void)state;
	struct apikey k;
	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		assert_true(apikey_parse(view_of(keys[i]), ours, &k));
	assert_true(apikey_parse(view_of(keys[0]), ours, &k));
	assert_view(k.id, "QHzg4hzEABwxTU");
	assert_view(k.secret, "VSnR0QeYkSAlqtuAbpa6DrxIoh1");
}

static void keys_of_another_installation_are_refused(void **state)
{
	(void)state;
	struct apikey k;
	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		assert_false(apikey_parse(view_of(keys[i]), another, &k));
}

/* Every place, every other character: the form, the id's HMAC or the checksum tells. */
static void one_wrong_character_is_refused(void **state)
{
	(void)state;
	static const char others[] = "0aZ_-\xff \"";
	struct apikey k;
	char text[64];
	size_t n = strlen(keys[0]);
	for (size_t i = 0; i < n; i++) {
		for (const char *c = others; *c; c++) {
			memcpy(text, keys[0], n);
			if (text[i] == *c)
				continue;
			text[i] = *c;
			assert_false(apikey_parse(view_make(text, n), ours, &k));
		}
	}
}

static void another_length_is_refused(void **state)
{
	(void)state;
	struct apikey k;
	char text[128];
	size_t n = strlen(keys[0]);
	memset(text, '0', sizeof text);
	memcpy(text, keys[0], n);
	for (size_t len = 0; len < sizeof text; len++)
		assert_int_equal(apikey_parse(view_make(text, len), ours, &k), len == n);
	assert_false(apikey_parse(VIEW_NONE, ours, &k));
	assert_false(apikey_parse(VIEW(" cmps_QHzg4hzEABwxTU_VSnR0QeYkSAlqtuAbpa6DrxIoh118NWf"), ours, &k));
}

static struct apikey parsed(size_t i)
{
	struct apikey k = { .id = VIEW_NONE };
	assert_true(apikey_parse(view_of(keys[i]), ours, &k));
	return k;
}

static void a_secret_is_one_of_those_that_are_stored(void **state)
{
	(void)state;
	static const int64_t always[2] = { 0, 0 };
	struct apikey first = parsed(0), second = parsed(1), other = parsed(2);
	assert_true(apikey_verify(&first, hashes, always, 2, 1));
	assert_true(apikey_verify(&second, hashes, always, 2, 1));
	assert_false(apikey_verify(&other, hashes, always, 2, 1));
	assert_false(apikey_verify(&second, hashes, always, 1, 1));
	assert_false(apikey_verify(&first, hashes, always, 0, 1));
}

static void a_secret_ends_at_its_time(void **state)
{
	(void)state;
	static const int64_t until[2] = { 1000, 0 };
	struct apikey old = parsed(0), new = parsed(1);
	assert_true(apikey_verify(&old, hashes, until, 2, 999));
	assert_false(apikey_verify(&old, hashes, until, 2, 1000));
	assert_false(apikey_verify(&old, hashes, until, 2, INT64_MAX));
	assert_true(apikey_verify(&new, hashes, until, 2, INT64_MAX));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_made_by_sql_are_taken),
		cmocka_unit_test(keys_of_another_installation_are_refused),
		cmocka_unit_test(one_wrong_character_is_refused),
		cmocka_unit_test(another_length_is_refused),
		cmocka_unit_test(a_secret_is_one_of_those_that_are_stored),
		cmocka_unit_test(a_secret_ends_at_its_time),
	};
	return cmocka_run_group_tests(tests, installation, NULL);
}
