#include "config.h"

#include "unit.h"

#include <stdio.h>

#include "base/sha256.h"

static void assert_digest(const uint8_t digest[SHA256_BYTES], const char *hex)
{
	char text[2 * SHA256_BYTES + 1];
	for (size_t i = 0; i < SHA256_BYTES; i++)
		snprintf(text + 2 * i, 3, "%02x", digest[i]);
	assert_string_equal(text, hex);
}

static void assert_sha256(struct view v, const char *hex)
{
	uint8_t digest[SHA256_BYTES];
	sha256_of(v, digest);
	assert_digest(digest, hex);
}

static void the_vectors_of_fips_180_4_hold(void **state)
{
	(void)state;
	assert_sha256(VIEW(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	assert_sha256(VIEW("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	assert_sha256(VIEW("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
		"248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
	assert_sha256(
		VIEW("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrs"
		     "mnopqrstnopqrstu"),
		"cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
}

static void a_million_times_a_in_uneven_pieces_is_the_vector(void **state)
{
	(void)state;
	char piece[251];
	memset(piece, 'a', sizeof piece);
	struct sha256 s;
	sha256_init(&s);
	uint64_t seed = 5;
	for (size_t left = 1000000, n; left; left -= n) {
		n = (size_t)(draw(&seed) % (sizeof piece + 1));
		n = n < left ? n : left;
		sha256_add(&s, view_make(piece, n));
	}
	uint8_t digest[SHA256_BYTES];
	sha256_end(&s, digest);
	assert_digest(digest, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

/* Around the block's border, where the padding takes one block or two. */
static void every_split_gives_the_same_digest(void **state)
{
	(void)state;
	char text[150];
	for (size_t i = 0; i < sizeof text; i++)
		text[i] = (char)i;
	for (size_t n = 0; n <= sizeof text; n++) {
		uint8_t whole[SHA256_BYTES], split[SHA256_BYTES];
		sha256_of(view_make(text, n), whole);
		for (size_t at = 0; at <= n; at++) {
			struct sha256 s;
			sha256_init(&s);
			sha256_add(&s, view_make(text, at));
			sha256_add(&s, view_make(text + at, n - at));
			sha256_end(&s, split);
			assert_memory_equal(whole, split, SHA256_BYTES);
		}
	}
}

static void nothing_added_changes_nothing(void **state)
{
	(void)state;
	struct sha256 s;
	sha256_init(&s);
	sha256_add(&s, VIEW_NONE);
	sha256_add(&s, VIEW("abc"));
	sha256_add(&s, VIEW_NONE);
	uint8_t digest[SHA256_BYTES];
	sha256_end(&s, digest);
	assert_digest(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void assert_hmac(struct view key, struct view message, const char *hex)
{
	uint8_t digest[SHA256_BYTES];
	hmac_sha256(key, message, digest);
	assert_digest(digest, hex);
}

static void the_vectors_of_rfc_4231_hold(void **state)
{
	(void)state;
	char key[131], text[50];
	memset(key, 0x0b, 20);
	assert_hmac(view_make(key, 20), VIEW("Hi There"),
		"b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
	assert_hmac(VIEW("Jefe"), VIEW("what do ya want for nothing?"),
		"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
	memset(key, 0xaa, 20);
	memset(text, 0xdd, 50);
	assert_hmac(view_make(key, 20), view_make(text, 50),
		"773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
	for (size_t i = 0; i < 25; i++)
		key[i] = (char)(i + 1);
	memset(text, 0xcd, 50);
	assert_hmac(view_make(key, 25), view_make(text, 50),
		"82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b");
	memset(key, 0xaa, 131);
	assert_hmac(view_make(key, 131), VIEW("Test Using Larger Than Block-Size Key - Hash Key First"),
		"60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
	assert_hmac(view_make(key, 131),
		VIEW("This is a test using a larger than block-size key and a larger than block-size data. The key "
		     "needs to be "
		     "hashed before being used by the HMAC algorithm."),
		"9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2");
}

static void another_key_gives_another_mac(void **state)
{
	(void)state;
	uint8_t a[SHA256_BYTES], b[SHA256_BYTES];
	hmac_sha256(VIEW("key"), VIEW("message"), a);
	hmac_sha256(VIEW("kez"), VIEW("message"), b);
	assert_memory_not_equal(a, b, SHA256_BYTES);
	hmac_sha256(VIEW_NONE, VIEW("message"), a);
	hmac_sha256(VIEW(""), VIEW("message"), b);
	assert_memory_equal(a, b, SHA256_BYTES);
}

static void crc32_is_that_of_zlib(void **state)
{
	(void)state;
	assert_int_equal(crc32_of(VIEW("")), 0);
	assert_int_equal(crc32_of(VIEW("123456789")), 0xcbf43926);
	assert_int_equal(crc32_of(VIEW("The quick brown fox jumps over the lazy dog")), 0x414fa339);
	assert_int_equal(crc32_of(VIEW("\xff\xff\xff\xff")), 0xffffffff);
}

static void one_bit_anywhere_makes_bytes_differ(void **state)
{
	(void)state;
	uint8_t a[33] = { 0 }, b[33] = { 0 };
	assert_true(bytes_equal_const_time(a, b, sizeof a));
	for (size_t bit = 0; bit < 8 * sizeof a; bit++) {
		b[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_false(bytes_equal_const_time(a, b, sizeof a));
		b[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_true(bytes_equal_const_time(a, b, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_vectors_of_fips_180_4_hold),
		cmocka_unit_test(a_million_times_a_in_uneven_pieces_is_the_vector),
		cmocka_unit_test(every_split_gives_the_same_digest),
		cmocka_unit_test(nothing_added_changes_nothing),
		cmocka_unit_test(the_vectors_of_rfc_4231_hold),
		cmocka_unit_test(another_key_gives_another_mac),
		cmocka_unit_test(crc32_is_that_of_zlib),
		cmocka_unit_test(one_bit_anywhere_makes_bytes_differ),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
