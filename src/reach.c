#include "config.h"

#include "reach.h"

#include <stdlib.h>
#include <string.h>

#include "cache/generation.h"
#include "http/params.h"

enum { PARAMS_MAX = 64 };

static void put_part(struct buf *b, struct view part)
{
	uint32_t n = part.p ? (uint32_t)part.n : UINT32_MAX;
	buf_put(b, &n, sizeof n);
	buf_view_put(b, part);
}

static void add_tag(struct reach *reach, uint64_t tag)
{
	struct store_entry *e = reach->entry;
	for (unsigned i = 0; i < e->n_tags; i++)
		if (e->tags[i].tag == tag)
			return;
	if (e->n_tags < STORE_TAGS_MAX)
		e->tags[e->n_tags++].tag = tag;
	else
		reach->all_tags = false;
}

static void bound_ttl(struct reach *reach, const struct cache_policy *p, int64_t bound_us)
{
	struct store_entry *e = reach->entry;
	int64_t ttl = bound_us && bound_us < p->ttl_us ? bound_us : p->ttl_us;
	bool first = !reach->any;
	reach->any = true;
	e->bounded |= bound_us != 0;
	if (first || ttl < e->ttl_us)
		e->ttl_us = ttl;
	if (first || p->revalidate_us < e->revalidate_us)
		e->revalidate_us = p->revalidate_us;
	if (first || p->if_error_us < e->if_error_us)
		e->if_error_us = p->if_error_us;
	if (first || p->min_fresh_us < e->min_fresh_us)
		e->min_fresh_us = p->min_fresh_us;
}

/* A public table that is read together with one that is not, or that the anonymous role may no longer read, is one like
 * others. Code of the user's may look at who asks. */
static enum cache_scope narrow_scope(const struct resource *r)
{
	bool plain = (r->kind == 'r' || r->kind == 'p') && !r->rls && !r->reading_runs_code;
	if (r->scope == SCOPE_NONE)
		return SCOPE_NONE;
	return plain && r->scope != SCOPE_IDENTITY ? SCOPE_ROLE : SCOPE_IDENTITY;
}

static void reach_resource(struct reach *reach, const struct exchange *ex, const struct resource *r, bool tagged)
{
	bound_ttl(reach, &r->policy, r->ttl_bound_us);
	if (!tagged)
		add_tag(reach, generation_of_resource(r->name));
	enum cache_scope scope = narrow_scope(r);
	if (scope < reach->scope)
		reach->scope = scope;
	reach->of_tenants |= r->owner >= 0;
	reach->all_public &= r->scope == SCOPE_PUBLIC && r->owner < 0 &&
			     resource_may(ex->catalog, r, PRIVILEGE_SELECT, reach->anybody);
}

static void reach_embedded(struct reach *reach, const struct exchange *ex, const struct node *n)
{
	for (const struct node *c = n->child; c; c = c->next) {
		reach_resource(reach, ex, c->resource, false);
		if (c->link.junction)
			reach_resource(reach, ex, c->link.junction, false);
		reach_embedded(reach, ex, c);
	}
}

/* Is the key in the path as PostgreSQL writes it? Then the row has a tag of its own; else (01 for 1, another case, a type
 * with more than one form) it hangs on the whole resource. */
static bool written_alike(const struct column *c, struct view v)
{
	switch (c->base_oid) {
	case 20: case 21: case 23: { /* integers */
		size_t sign = v.n && v.p[0] == '-';
		bool digits = v.n > sign && v.n < 20 && (v.p[sign] != '0' || v.n == 1);
		for (size_t i = sign; i < v.n; i++)
			digits &= v.p[i] >= '0' && v.p[i] <= '9';
		return digits;
	}
	case 2950: /* uuid */
		for (size_t i = 0; i < v.n; i++)
			if (i == 8 || i == 13 || i == 18 || i == 23 ? v.p[i] != '-' : !strchr("0123456789abcdef", v.p[i]) || !v.p[i])
				return false;
		return v.n == 36;
	case 25: case 1043: return !c->nondeterministic; /* text, varchar */
	}
	return false;
}

static bool row_tags(const struct exchange *ex, struct reach *reach)
{
	const struct resource *r = ex->resource;
	struct buf key = BUF(1024);
	bool alike = true;
	for (unsigned i = 0; i < r->n_key; i++) {
		alike &= written_alike(&r->columns[r->key[i]], ex->key[i]);
		if (i)
			buf_putc(&key, ',');
		buf_view_put(&key, ex->key[i]);
	}
	alike &= !buf_failed(&key);
	if (alike) {
		add_tag(reach, generation_of_row(r->name, buf_view(&key)));
		add_tag(reach, generation_of_rows(r->name));
	}
	buf_free(&key);
	return alike;
}

static void reach_function(struct reach *reach, const struct exchange *ex)
{
	const struct function *f = ex->function;
	struct view name = arena_printf(ex->arena, "rpc/%.*s", VIEW_ARG(f->name));
	bound_ttl(reach, &f->policy, f->ttl_bound_us);
	add_tag(reach, generation_of_resource(name));
	reach->scope = f->scope == SCOPE_NONE ? SCOPE_NONE : SCOPE_IDENTITY;
	reach->all_public = f->scope == SCOPE_PUBLIC && function_may(ex->catalog, f, reach->anybody);
}

enum next reach_find(struct exchange *ex, struct store_entry *e, struct reach *reach)
{
	*reach = (struct reach){
		.entry = e, .scope = SCOPE_PUBLIC, .all_public = true, .all_tags = true, .anybody = ex->catalog->anonymous_role,
	};
	if (ex->function) {
		reach_function(reach, ex);
		return NEXT;
	}
	/* Only what is in parentheses can be another resource's. */
	struct view q = ex->request.query;
	bool plain = !q.n || (!memchr(q.p, '(', q.n) && !memchr(q.p, '%', q.n));
	if (!plain) {
		enum next n = read_prepare(ex);
		if (n != NEXT)
			return n;
	}
	reach_resource(reach, ex, ex->resource, ex->key && row_tags(ex, reach));
	if (!plain)
		reach_embedded(reach, ex, &ex->page.tree.root);
	return NEXT;
}

static int by_param(const void *a, const void *b)
{
	const struct param *x = a, *y = b;
	int order = view_cmp(x->name, y->name);
	return order ? order : view_cmp(x->value, y->value);
}

bool reach_key(struct exchange *ex, const struct reach *reach, struct view *key)
{
	const struct principal *who = &ex->principal;
	struct params all;
	struct view detail;
	struct buf b = BUF(STORE_KEY_MAX);
	if (params_parse(ex->arena, ex->request.query, PARAMS_MAX, &all, &detail) != OK)
		return false;
	if (all.n > 1)
		qsort(all.item, all.n, sizeof *all.item, by_param);
	enum cache_scope scope = ex->for_all ? SCOPE_PUBLIC : reach->scope;
	if (ex->operation == OP_PAGE)
		read_count(ex);
	const char what[5] = { (char)scope, (char)ex->operation, (char)ex->format, ex->function ? 'f' : 'r', (char)ex->total.how };
	buf_put(&b, what, sizeof what);
	buf_put(&b, ex->catalog->digest, sizeof ex->catalog->digest);
	if (scope != SCOPE_PUBLIC)
		put_part(&b, who->role);
	if (scope != SCOPE_PUBLIC)
		put_part(&b, scope == SCOPE_IDENTITY || reach->of_tenants ? who->tenant : VIEW_NONE);
	if (scope == SCOPE_IDENTITY)
		put_part(&b, who->key_id);
	put_part(&b, ex->function ? ex->function->name : ex->resource->name);
	for (unsigned i = 0; ex->key && i < ex->resource->n_key; i++)
		put_part(&b, ex->key[i]);
	for (size_t i = 0; i < all.n; i++) {
		put_part(&b, all.item[i].name);
		put_part(&b, all.item[i].value);
	}
	struct view made = buf_failed(&b) ? VIEW_NONE : arena_copy(ex->arena, buf_view(&b));
	buf_free(&b);
	if (made.p)
		*key = made;
	return made.p;
}
