#include "config.h"

#include "unit.h"

#include "base/base64.h"

static void the_vectors_of_rfc_4648_hold_without_padding(void **state)
{
	static const struct {
		const char *plain, *encoded;
	} vector[] = {
		{ "", "" },
		{ "f", "Zg" },
		{ "fo", "Zm8" },
		{ "foo", "Zm9v" },
		{ "foob", "Zm9vYg" },
		{ "fooba", "Zm9vYmE" },
		{ "foobar", "Zm9vYmFy" },
		{ "{\"id\":128}", "eyJpZCI6MTI4fQ" },
		{ "\xfb\xff\xbe", "-_--" },
	};
	struct buf b = BUF(100);
	for (size_t i = 0; i < ARRAY_LEN(vector); i++) {
		buf_clear(&b);
		base64url_put(&b, view_of(vector[i].plain));
		assert_same_view(buf_view(&b), view_of(vector[i].encoded));
		assert_same_view(base64url_decode(*state, view_of(vector[i].encoded)), view_of(vector[i].plain));
	}
	buf_free(&b);
}

static void what_is_not_base64url_is_absent(void **state)
{
	static const char *const bad[] = { "A", "AAAAA", "Zg==", "Zg=", "Zm9+", "Zm9/", "Zm 9v", "Zm9v\n", " Zg",
		"Zm9.", "\xc3\xa4", "[]@`{" };
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_absent(base64url_decode(*state, view_of(bad[i])));
	assert_absent(base64url_decode(*state, VIEW("AA\0A")));
	assert_absent(base64url_decode(*state, VIEW_NONE));
}

static void bits_that_no_byte_carries_are_refused(void **state)
{
	assert_view(base64url_decode(*state, VIEW("Zg")), "f");
	assert_absent(base64url_decode(*state, VIEW("Zh")));
	assert_absent(base64url_decode(*state, VIEW("Zx")));
	assert_view(base64url_decode(*state, VIEW("Zm8")), "fo");
	assert_absent(base64url_decode(*state, VIEW("Zm9")));
}

static void any_bytes_come_back(void **state)
{
	uint64_t seed = 11;
	struct buf b = BUF(1000);
	for (size_t n = 0; n < 200; n++) {
		char bytes[200];
		for (size_t i = 0; i < n; i++)
			bytes[i] = (char)draw(&seed);
		buf_clear(&b);
		base64url_put(&b, view_make(bytes, n));
		assert_int_equal(b.n, (n * 8 + 5) / 6);
		assert_same_view(base64url_decode(*state, buf_view(&b)), view_make(bytes, n));
	}
	buf_free(&b);
}

/* Of all texts of two and three characters, each value has one. */
static void each_value_has_one_spelling(void **state)
{
	size_t taken = 0;
	for (int a = 0; a < 256; a++)
		for (int c = 0; c < 256; c++) {
			const char text[2] = { (char)a, (char)c };
			arena_reset(*state);
			taken += base64url_decode(*state, view_make(text, 2)).p != NULL;
		}
	assert_int_equal(taken, 256);
}

static void a_full_arena_and_a_full_buf_give_nothing(void **state)
{
	(void)state;
	struct arena *a = arena_create(4);
	assert_absent(base64url_decode(a, VIEW("Zm9vYmFyZm9vYmFy")));
	assert_true(arena_full(a));
	arena_destroy(a);
	struct buf b = BUF(7);
	base64url_put(&b, VIEW("foobar"));
	assert_true(buf_failed(&b));
	assert_int_equal(b.n, 0);
	buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		arena_test(the_vectors_of_rfc_4648_hold_without_padding),
		arena_test(what_is_not_base64url_is_absent),
		arena_test(bits_that_no_byte_carries_are_refused),
		arena_test(any_bytes_come_back),
		arena_test(each_value_has_one_spelling),
		cmocka_unit_test(a_full_arena_and_a_full_buf_give_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
