#include "config.h"

#include "base/view.h"

static unsigned char lower(char c)
{
	return (unsigned char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

bool view_ieq(struct view a, struct view b)
{
	if (a.n != b.n)
		return false;
	for (size_t i = 0; i < a.n; i++)
		if (lower(a.p[i]) != lower(b.p[i]))
			return false;
	return true;
}

bool view_split(struct view *rest, char c, struct view *part)
{
	if (!rest->p)
		return false;
	const char *at = rest->n ? memchr(rest->p, c, rest->n) : NULL;
	if (!at) {
		*part = *rest;
		*rest = VIEW_NONE;
		return true;
	}
	size_t n = (size_t)(at - rest->p);
	*part = view_make(rest->p, n);
	*rest = view_skip(*rest, n + 1);
	return true;
}

struct view view_trim(struct view v)
{
	while (v.n && (v.p[0] == ' ' || v.p[0] == '\t'))
		v = view_skip(v, 1);
	while (v.n && (v.p[v.n - 1] == ' ' || v.p[v.n - 1] == '\t'))
		v.n--;
	return v;
}

int view_cmp(struct view a, struct view b)
{
	size_t n = a.n < b.n ? a.n : b.n;
	int c = n ? memcmp(a.p, b.p, n) : 0;
	if (c)
		return c;
	return a.n < b.n ? -1 : a.n > b.n;
}
