#include "config.h"

#include "gate/apikey.h"

static const char BASE62[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
enum { ID_RANDOM = 8, ID_MAC = 6 };

/* The number's lowest digits, most significant first, padded with '0'. */
static void base62(uint64_t n, char *out, size_t digits)
{
	for (size_t i = digits; i-- > 0; n /= 62)
		out[i] = BASE62[n % 62];
}

static bool is_base62(struct view v)
{
	for (size_t i = 0; i < v.n; i++) {
		char c = v.p[i];
		if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')))
			return false;
	}
	return true;
}

static bool id_is_ours(struct view id, const struct hmac_key *hmac)
{
	uint8_t mac[SHA256_BYTES];
	hmac_with(hmac, view_make(id.p, ID_RANDOM), mac);
	uint64_t n = 0;
	for (size_t i = 0; i < 5; i++)
		n = n << 8 | mac[i];
	char expected[ID_MAC];
	base62(n, expected, ID_MAC);
	return bytes_equal_const_time(expected, id.p + ID_RANDOM, ID_MAC);
}

bool apikey_split(struct view text, struct apikey *key)
{
	static const size_t ID_AT = sizeof "cmps_" - 1;
	static const size_t SECRET_AT = sizeof "cmps_" - 1 + APIKEY_ID_CHARS + 1;
	if (text.n != APIKEY_CHARS || !view_starts(text, VIEW("cmps_")) || text.p[SECRET_AT - 1] != '_')
		return false;
	key->id = view_make(text.p + ID_AT, APIKEY_ID_CHARS);
	key->secret = view_make(text.p + SECRET_AT, APIKEY_SECRET_CHARS);
	return true;
}

bool apikey_parse_with(struct view text, const struct hmac_key *hmac, struct apikey *key)
{
	static const size_t CRC_AT = APIKEY_CHARS - APIKEY_CRC_CHARS;
	struct apikey k;
	if (!apikey_split(text, &k) || !is_base62(k.id) || !is_base62(k.secret))
		return false;
	char crc[APIKEY_CRC_CHARS];
	base62(crc32_of(view_make(text.p, CRC_AT)), crc, sizeof crc);
	if (memcmp(crc, text.p + CRC_AT, sizeof crc) != 0 || !id_is_ours(k.id, hmac))
		return false;
	sha256_of(k.secret, k.hash);
	*key = k;
	return true;
}

bool apikey_parse(struct view text, const unsigned char installation_secret[32], struct apikey *key)
{
	struct hmac_key hmac;
	hmac_key(&hmac, view_make((const char *)installation_secret, 32));
	return apikey_parse_with(text, &hmac, key);
}

bool apikey_verify(const struct apikey *key, const unsigned char (*hashes)[SHA256_BYTES], const int64_t *valid_until_us,
                   unsigned n, int64_t now_us)
{
	bool found = false;
	for (unsigned i = 0; i < n; i++) {
		bool same = bytes_equal_const_time(key->hash, hashes[i], SHA256_BYTES);
		found |= same && (valid_until_us[i] == 0 || valid_until_us[i] > now_us);
	}
	return found;
}
