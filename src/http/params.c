#include "config.h"

#include "http/params.h"

#include "base/json.h"

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte that a percent escape at p stands for, -1 when it is none. */
static int unescape(const char *p, size_t left)
{
	int high = left > 2 ? hex_digit(p[1]) : -1;
	int low = high < 0 ? -1 : hex_digit(p[2]);
	return low < 0 ? -1 : high * 16 + low;
}

struct view percent_decode(struct arena *a, struct view v, bool plus_is_blank)
{
	char *out = v.p ? arena_alloc(a, v.n + 1) : NULL;
	if (!out)
		return VIEW_NONE;
	size_t n = 0;
	for (size_t i = 0; i < v.n; i++) {
		char c = v.p[i];
		if (c == '%') {
			int byte = unescape(v.p + i, v.n - i);
			if (byte < 0)
				return VIEW_NONE;
			c = (char)byte;
			i += 2;
		} else if (c == '+' && plus_is_blank) {
			c = ' ';
		}
		out[n++] = c;
	}
	return view_make(out, n);
}

static bool is_unreserved(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
		c == '_' || c == '~';
}

void percent_encode(struct buf *out, struct view v)
{
	static const char hex[] = "0123456789ABCDEF";
	for (size_t i = 0; i < v.n; i++) {
		char c = v.p[i];
		if (is_unreserved(c))
			buf_putc(out, c);
		else
			buf_put(out, (char[]){ '%', hex[c >> 4 & 15], hex[c & 15] }, 3);
	}
}

/* A name or a value; what has nothing to decode stays a view of the query. */
static enum status decode(struct arena *a, struct view raw, struct view *decoded, struct view *detail)
{
	struct view v = raw;
	if (raw.n && (memchr(raw.p, '%', raw.n) || memchr(raw.p, '+', raw.n)))
		v = percent_decode(a, raw, true);
	if (!v.p && arena_full(a)) {
		*detail = VIEW("The query is too large.");
		return ERR_QUERY_TOO_COMPLEX;
	}
	if (!v.p)
		*detail = VIEW("A percent escape in the query is not two hexadecimal digits.");
	else if (v.n && memchr(v.p, '\0', v.n))
		*detail = VIEW("The query has a NUL in it.");
	else if (!utf8_valid(v))
		*detail = VIEW("The query is not UTF-8.");
	else
		return *decoded = v, OK;
	return ERR_BAD_REQUEST;
}

static size_t count_pieces(struct view query)
{
	size_t n = 0;
	for (struct view piece; view_split(&query, '&', &piece);)
		n += piece.n > 0;
	return n;
}

enum status params_parse(struct arena *a, struct view query, size_t max, struct params *params, struct view *detail)
{
	size_t n = count_pieces(query);
	struct param *item = n <= max ? ARENA_ARRAY(a, struct param, n) : NULL;
	if (!item) {
		*detail = n > max ? VIEW("The query has too many parameters.") : VIEW("The query is too large.");
		return ERR_QUERY_TOO_COMPLEX;
	}
	size_t at = 0;
	for (struct view piece, name; view_split(&query, '&', &piece);) {
		if (!piece.n)
			continue;
		(void)view_split(&piece, '=', &name);
		enum status s = decode(a, name, &item[at].name, detail);
		if (s == OK)
			s = decode(a, piece.p ? piece : VIEW(""), &item[at].value, detail);
		if (s != OK)
			return s;
		at++;
	}
	*params = (struct params){ .item = item, .n = n };
	return OK;
}
