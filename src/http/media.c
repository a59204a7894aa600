#include "config.h"

#include "http/media.h"

/* What stands before the first `c` that is not inside a quoted string; like view_split(). */
static bool split_unquoted(struct view *rest, char c, struct view *part)
{
	if (!rest->p)
		return false;
	bool quoted = false;
	for (size_t i = 0; i < rest->n; i++) {
		char at = rest->p[i];
		if (quoted && at == '\\') {
			i++;
		} else if (at == '"') {
			quoted = !quoted;
		} else if (at == c && !quoted) {
			*part = view_make(rest->p, i);
			*rest = view_skip(*rest, i + 1);
			return true;
		}
	}
	*part = *rest;
	*rest = VIEW_NONE;
	return true;
}

/* A weight in thousandths, -1 when it is none (RFC 9110 section 12.4.2). ".2" is taken: Java's HttpURLConnection
 * has sent it by default for decades. */
static int weight(struct view v)
{
	int q = 0;
	if (v.n && (v.p[0] == '0' || v.p[0] == '1')) {
		q = (v.p[0] - '0') * 1000;
		v = view_skip(v, 1);
	} else if (v.n < 2) {
		return -1;
	}
	if (!v.n)
		return q;
	if (v.p[0] != '.' || v.n > 4)
		return -1;
	int unit = 100;
	for (size_t i = 1; i < v.n; i++, unit /= 10) {
		if (v.p[i] < '0' || v.p[i] > '9')
			return -1;
		q += unit * (v.p[i] - '0');
	}
	return q <= 1000 ? q : -1;
}

struct range {
	struct view type, subtype;
	int q;
};

/* One element of Accept; false when it is malformed. A lone "*" means all (Java again). */
static bool read_range(struct view element, struct range *range)
{
	struct view media, parameter;
	(void)split_unquoted(&element, ';', &media);
	media = view_trim(media);
	if (view_eq(media, VIEW("*")))
		media = VIEW("*/*");
	(void)view_split(&media, '/', &range->type);
	range->subtype = media;
	if (!range->type.n || !range->subtype.n)
		return false;
	if (view_eq(range->type, VIEW("*")) && !view_eq(range->subtype, VIEW("*")))
		return false;
	range->q = 1000;
	while (split_unquoted(&element, ';', &parameter)) {
		struct view name, value = view_trim(parameter);
		(void)view_split(&value, '=', &name);
		if (view_ieq(name, VIEW("q")))
			return (range->q = weight(value)) >= 0;
	}
	return true;
}

/* 3: the type itself, 2: type/..., 1: everything, 0: not this one. */
static int specificity(const struct range *range, struct view offer)
{
	struct view type, subtype = offer;
	(void)view_split(&subtype, '/', &type);
	if (view_eq(range->type, VIEW("*")))
		return 1;
	if (!view_ieq(range->type, type))
		return 0;
	if (view_eq(range->subtype, VIEW("*")))
		return 2;
	return view_ieq(range->subtype, subtype) ? 3 : 0;
}

/* What `accept` weighs the offer at: by its most specific range, of several such the highest. */
static int quality(struct view accept, struct view offer)
{
	int best = 0, q = 0;
	struct range range;
	for (struct view element; split_unquoted(&accept, ',', &element);) {
		if (!read_range(element, &range))
			continue;
		int s = specificity(&range, offer);
		if (s > best || (s && s == best && range.q > q)) {
			best = s;
			q = range.q;
		}
	}
	return q;
}

static bool has_range(struct view accept)
{
	struct range range;
	for (struct view element; split_unquoted(&accept, ',', &element);)
		if (read_range(element, &range))
			return true;
	return false;
}

int media_choose(struct view accept, const struct view *offered, size_t n_offered)
{
	if (n_offered == 0)
		return -1;
	if (view_eq(accept, VIEW("*/*")) || !has_range(accept))
		return 0;
	int chosen = -1, best = 0;
	for (size_t i = 0; i < n_offered; i++) {
		int q = quality(accept, offered[i]);
		if (q > best) {
			best = q;
			chosen = (int)i;
		}
	}
	return chosen;
}

bool media_is(struct view content_type, struct view type)
{
	struct view media;
	return view_split(&content_type, ';', &media) && view_ieq(view_trim(media), type);
}
