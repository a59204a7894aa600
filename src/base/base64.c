#include "config.h"

#include "base/base64.h"

#include <stdint.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void base64url_put(struct buf *b, struct view v)
{
	size_t left = v.n;
	const unsigned char *p = (const unsigned char *)v.p;
	char *at = v.n ? buf_reserve(b, v.n / 3 * 4 + (v.n % 3 ? v.n % 3 + 1 : 0)) : NULL;
	if (!at)
		return;
	char *start = at;
	for (; left >= 3; left -= 3, p += 3) {
		*at++ = alphabet[p[0] >> 2];
		*at++ = alphabet[(p[0] & 3) << 4 | p[1] >> 4];
		*at++ = alphabet[(p[1] & 15) << 2 | p[2] >> 6];
		*at++ = alphabet[p[2] & 63];
	}
	if (left) {
		int second = left == 2 ? p[1] : 0;
		*at++ = alphabet[p[0] >> 2];
		*at++ = alphabet[(p[0] & 3) << 4 | second >> 4];
		if (left == 2)
			*at++ = alphabet[(second & 15) << 2];
	}
	buf_advance(b, (size_t)(at - start));
}

static int digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '-' ? 62 : c == '_' ? 63 : -1;
}

struct view base64url_decode(struct arena *a, struct view v)
{
	if (!v.p || v.n % 4 == 1)
		return VIEW_NONE;
	char *out = arena_alloc(a, v.n / 4 * 3 + 3);
	if (!out)
		return VIEW_NONE;
	size_t n = 0;
	uint32_t bits = 0;
	unsigned n_bits = 0;
	for (size_t i = 0; i < v.n; i++) {
		int d = digit(v.p[i]);
		if (d < 0)
			return VIEW_NONE;
		bits = (bits << 6 | (uint32_t)d) & 0xffff;
		n_bits += 6;
		if (n_bits >= 8) {
			n_bits -= 8;
			out[n++] = (char)(bits >> n_bits & 0xff);
		}
	}
	if (bits & ((1u << n_bits) - 1))
		return VIEW_NONE;
	return view_make(out, n);
}
