#include "config.h"

#include "query/value.h"

#include <stdint.h>

enum {
	OID_NAME = 19, OID_INT8 = 20, OID_INT2 = 21, OID_INT4 = 23, OID_TEXT = 25, OID_BPCHAR = 1042, OID_VARCHAR = 1043,
	OID_NUMERIC = 1700, OID_UUID = 2950,
};

/* From -most - 1 to most. */
static bool is_integer(struct view v, int64_t most)
{
	bool negative = v.n && v.p[0] == '-';
	size_t at = negative || (v.n && v.p[0] == '+');
	uint64_t n = 0, bound = negative ? (uint64_t)most + 1 : (uint64_t)most;
	if (at == v.n)
		return false;
	for (; at < v.n; at++) {
		unsigned digit = (unsigned)(unsigned char)v.p[at] - '0';
		if (digit > 9 || n > (bound - digit) / 10)
			return false;
		n = n * 10 + digit;
	}
	return true;
}

/* PostgreSQL 16 reads 0x1F and 1_000, too; we do not, so that every version answers alike. */
static bool is_number(struct view v)
{
	static const struct view words[] = { VIEW_INIT("nan"), VIEW_INIT("infinity"), VIEW_INIT("inf") };
	if (v.n && (v.p[0] == '-' || v.p[0] == '+'))
		v = view_skip(v, 1);
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (view_ieq(v, words[i]))
			return true;
	size_t digits = 0, points = 0, at = 0;
	for (; at < v.n && ((v.p[at] >= '0' && v.p[at] <= '9') || v.p[at] == '.'); at++) {
		points += v.p[at] == '.';
		digits += v.p[at] != '.';
	}
	if (digits == 0 || points > 1)
		return false;
	if (at == v.n)
		return true;
	if (v.p[at] != 'e' && v.p[at] != 'E')
		return false;
	return is_integer(view_skip(v, at + 1), 1000000);
}

/* {8-4-4-4-12} with or without braces and dashes: PostgreSQL takes a dash behind any four digits. */
static bool is_uuid(struct view v)
{
	if (v.n > 1 && v.p[0] == '{' && v.p[v.n - 1] == '}')
		v = view_make(v.p + 1, v.n - 2);
	size_t digits = 0;
	for (size_t i = 0; i < v.n; i++) {
		char c = v.p[i];
		if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))
			digits++;
		else if (c != '-' || digits == 0 || digits % 4 || v.p[i - 1] == '-')
			return false;
	}
	return digits == 32;
}

bool value_may_be(const struct column *c, struct view v)
{
	switch (c->base_oid) {
	case OID_INT2: return is_integer(v, INT16_MAX);
	case OID_INT4: return is_integer(v, INT32_MAX);
	case OID_INT8: return is_integer(v, INT64_MAX);
	case OID_NUMERIC: return is_number(v);
	case OID_UUID: return is_uuid(v);
	default: return true;
	}
}

bool value_is_integer(const struct column *c)
{
	return c->base_oid == OID_INT2 || c->base_oid == OID_INT4 || c->base_oid == OID_INT8;
}

bool value_is_text(const struct column *c)
{
	return c->base_oid == OID_TEXT || c->base_oid == OID_VARCHAR || c->base_oid == OID_BPCHAR || c->base_oid == OID_NAME;
}

struct view value_array(struct arena *a, const struct view *item, unsigned n)
{
	size_t room = 3;
	for (unsigned i = 0; i < n; i++)
		room += 2 * item[i].n + 3;
	char *out = arena_alloc(a, room), *at = out;
	if (!out)
		return VIEW_NONE;
	*at++ = '{';
	for (unsigned i = 0; i < n; i++) {
		if (i)
			*at++ = ',';
		*at++ = '"';
		for (size_t k = 0; k < item[i].n; k++) {
			if (item[i].p[k] == '"' || item[i].p[k] == '\\')
				*at++ = '\\';
			*at++ = item[i].p[k];
		}
		*at++ = '"';
	}
	*at++ = '}';
	return view_make(out, (size_t)(at - out));
}
