#include "config.h"

#include "cache/policy.h"

#include "base/buf.h"

enum { CONTROL_MAX = 1024 };

static const struct view otherwise = VIEW_INIT("private, no-cache");

struct directives {
	struct view s_maxage, max_age; /* whole, with their seconds; absent: not given */
	bool is_public, says_how_long;
};

static bool named(struct view part, struct view name)
{
	return view_starts(part, name) && (part.n == name.n || part.p[name.n] == '=');
}

static void put(struct buf *b, struct view directive)
{
	if (!directive.p)
		return;
	if (b->n)
		buf_lit(b, ", ");
	buf_view_put(b, directive);
}

/* What shared caches alone heed does not go where none may keep it. */
static bool for_shared(struct view part)
{
	return named(part, VIEW("public")) || named(part, VIEW("s-maxage"));
}

static int64_t seconds_us(struct view part)
{
	int64_t n = 0;
	const char *digits = memchr(part.p, '=', part.n);
	for (const char *c = digits ? digits + 1 : part.p + part.n; c < part.p + part.n && *c >= '0' && *c <= '9' && n < 1000000000; c++)
		n = n * 10 + (*c - '0');
	return n * 1000000;
}

/* What we take of it ourselves. True: it is for nobody else. */
static bool own(struct view part, struct cache_policy *p)
{
	if (named(part, VIEW("stale-while-revalidate")))
		p->revalidate_us = seconds_us(part);
	else if (named(part, VIEW("stale-if-error")))
		p->if_error_us = seconds_us(part);
	else if (named(part, VIEW("min-fresh")))
		p->min_fresh_us = seconds_us(part);
	else if (named(part, VIEW("ttl")))
		p->ttl_us = seconds_us(part);
	else if (named(part, VIEW("max-lag")))
		p->max_lag_us = seconds_us(part);
	return named(part, VIEW("ttl")) || named(part, VIEW("min-fresh")) || named(part, VIEW("max-lag"));
}

/* `all` as it was said, `narrow` what is left where no shared cache may keep it, `others` what says neither who nor how long. */
static struct directives read(struct cache_policy *p, struct view text, struct buf *all, struct buf *narrow, struct buf *others)
{
	struct directives d = { .is_public = false };
	for (struct view part; view_split(&text, ',', &part);) {
		part = view_trim(part);
		if (own(part, p) || !part.n)
			continue;
		d.is_public |= named(part, VIEW("public"));
		d.says_how_long |= named(part, VIEW("max-age")) || named(part, VIEW("no-cache")) || named(part, VIEW("no-store"));
		if (named(part, VIEW("s-maxage")))
			d.s_maxage = part;
		else if (named(part, VIEW("max-age")))
			d.max_age = part;
		else if (!for_shared(part) && !named(part, VIEW("private")))
			put(others, part);
		put(all, part);
		if (!for_shared(part) && !named(part, VIEW("private")))
			put(narrow, part);
	}
	return d;
}

/* RFC 9213 section 2.1: what a CDN is told stands for itself, so it says how long in max-age, and all the rest again. */
static struct view for_cdn(struct arena *a, const struct directives *d, struct view others)
{
	struct buf b = BUF(CONTROL_MAX);
	if (d->s_maxage.p) {
		buf_lit(&b, "max-age=");
		buf_view_put(&b, view_skip(d->s_maxage, sizeof "s-maxage=" - 1));
	} else {
		put(&b, d->max_age);
	}
	if (b.n && others.n)
		put(&b, others);
	struct view text = b.n ? arena_copy(a, buf_view(&b)) : VIEW_NONE;
	buf_free(&b);
	return text;
}

/* "private" goes in front, and "no-cache" where nothing says how long: a browser would choose for itself. */
static struct view kept_private(struct arena *a, const struct directives *d, struct view rest)
{
	struct view first = d->says_how_long ? VIEW("private") : otherwise;
	return rest.n ? arena_printf(a, "%.*s, %.*s", VIEW_ARG(first), VIEW_ARG(rest)) : first;
}

bool cache_policy(struct cache_policy *p, struct arena *a, struct view text)
{
	struct buf all = BUF(CONTROL_MAX), narrow = BUF(CONTROL_MAX), others = BUF(CONTROL_MAX);
	*p = (struct cache_policy){ .max_lag_us = -1 };
	struct directives d = read(p, text, &all, &narrow, &others);
	p->is_public = d.is_public;
	p->narrow = kept_private(a, &d, buf_view(&narrow));
	if (d.is_public && !d.says_how_long && !d.s_maxage.p)
		put(&all, VIEW("no-cache")); /* a shared cache would choose for itself, too */
	p->control = d.is_public ? arena_copy(a, buf_view(&all)) : p->narrow;
	if (d.is_public)
		p->cdn = for_cdn(a, &d, buf_view(&others));
	bool good = !buf_failed(&all) && !buf_failed(&narrow) && !buf_failed(&others) && p->control.p && p->narrow.p;
	buf_free(&all);
	buf_free(&narrow);
	buf_free(&others);
	return good;
}
