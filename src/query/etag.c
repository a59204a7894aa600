#include "config.h"

#include "query/etag.h"

void etag_of(const uint8_t key[SIPHASH_KEY_BYTES], struct view body, char out[ETAG_CHARS])
{
	static const char digit[] = "0123456789abcdef";
	uint8_t hash[SIPHASH_BYTES];
	siphash_of(key, body, hash);
	out[0] = out[ETAG_CHARS - 1] = '"';
	for (size_t i = 0; i < sizeof hash; i++) {
		out[1 + 2 * i] = digit[hash[i] >> 4];
		out[2 + 2 * i] = digit[hash[i] & 15];
	}
}

/* A tag may have a comma in it; ours has none, so that pieces of such a one match nothing. */
bool etag_matches(struct view list, struct view tag, bool strong)
{
	if (view_eq(view_trim(list), VIEW("*")))
		return true;
	for (struct view one; view_split(&list, ',', &one);) {
		one = view_trim(one);
		bool weak = view_starts(one, VIEW("W/"));
		if (weak && !strong)
			one = view_skip(one, 2);
		if (view_eq(one, tag))
			return true;
	}
	return false;
}
