#include "config.h"

#include "query/embed.h"

#include "base/buf.h"
#include "query/select.h"

/* --- ways from one resource to another --- */

static bool readable(const struct asker *who, const struct resource *res)
{
	if (!(res->methods & CATALOG_GET) || (who->public_only && !res->policy.is_public))
		return false;
	return resource_may(who->catalog, res, PRIVILEGE_SELECT, who->role) && (res->owner < 0 || who->tenant.p);
}

/* A hidden column does not exist, so no way leads through it; but for the tenant's, which is the same in all rows. */
static bool all_visible(const struct resource *res, const struct view *name, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		bool owner = res->owner >= 0 && view_eq(res->columns[res->owner].name, name[i]);
		if (!owner && !resource_column(res, name[i]))
			return false;
	}
	return true;
}

static bool starts_at(const struct relationship *r, const struct resource *res)
{
	return r->from == res->oid && all_visible(res, r->from_name, r->n);
}

static bool leads_to(const struct relationship *r, const struct resource *res)
{
	return r->to == res->oid && all_visible(res, r->to_name, r->n);
}

static bool has_column(const struct relationship *r, struct view name)
{
	for (unsigned i = 0; i < r->n; i++)
		if (view_eq(r->from_name[i], name))
			return true;
	return false;
}

static bool in_key(const struct resource *res, const struct relationship *r)
{
	for (unsigned i = 0; i < r->n; i++) {
		bool found = false;
		for (unsigned k = 0; k < res->n_key; k++)
			found |= view_eq(res->columns[res->key[k]].name, r->from_name[i]);
		if (!found)
			return false;
	}
	return true;
}

struct search {
	const struct asker *who;
	const struct resource *outer, *inner;
	struct view hint;
	struct link found[2]; /* the first two */
	unsigned n;
	struct buf hints;     /* that would tell them apart */
};

static void candidate(struct search *f, struct link link, struct view told_by)
{
	if (f->n < ARRAY_LEN(f->found))
		f->found[f->n] = link;
	f->n++;
	if (f->hints.n)
		buf_lit(&f->hints, ", ");
	buf_putc(&f->hints, '!');
	buf_view_put(&f->hints, told_by);
}

static void direct_ways(struct search *f)
{
	const struct catalog *c = f->who->catalog;
	bool self = f->outer->oid == f->inner->oid;
	for (unsigned i = 0; i < c->n_relationships; i++) {
		const struct relationship *r = &c->relationships[i];
		bool any = !f->hint.p;
		bool by_column = !any && has_column(r, f->hint), by_name = !any && view_eq(r->constraint, f->hint);
		if (starts_at(r, f->outer) && leads_to(r, f->inner) && (any || by_column || (by_name && !self)))
			candidate(f, (struct link){ .near = r }, self ? r->from_name[0] : r->constraint);
		if (leads_to(r, f->outer) && starts_at(r, f->inner) && (any || by_name || (by_column && !self)))
			candidate(f, (struct link){ .near = r, .back = true }, r->constraint);
	}
}

/* A table is a junction where both foreign keys are in its key; another one only where the hint says so. */
static void ways_through(struct search *f, const struct resource *junction)
{
	const struct catalog *c = f->who->catalog;
	bool named = f->hint.p && view_eq(junction->name, f->hint);
	for (unsigned i = 0; i < c->n_relationships; i++) {
		const struct relationship *near = &c->relationships[i];
		if (!starts_at(near, junction) || !leads_to(near, f->outer))
			continue;
		for (unsigned k = 0; k < c->n_relationships; k++) {
			const struct relationship *far = &c->relationships[k];
			if (k == i || !starts_at(far, junction) || !leads_to(far, f->inner))
				continue;
			bool keyed = in_key(junction, near) && in_key(junction, far);
			bool hinted = named || (f->hint.p && (view_eq(near->constraint, f->hint) || view_eq(far->constraint, f->hint)));
			if (f->hint.p ? hinted : keyed)
				candidate(f, (struct link){ .near = near, .far = far, .junction = junction }, junction->name);
		}
	}
}

static void all_ways(struct search *f)
{
	direct_ways(f);
	if (f->n)
		return;
	for (unsigned i = 0; i < f->who->catalog->n_resources; i++) {
		const struct resource *junction = &f->who->catalog->resources[i];
		if (readable(f->who, junction))
			ways_through(f, junction);
	}
}

/* The target as a foreign key: its name, or its one column. */
static void ways_by_key(struct search *f, struct view target)
{
	const struct catalog *c = f->who->catalog;
	for (unsigned i = 0; i < c->n_relationships; i++) {
		const struct relationship *r = &c->relationships[i];
		bool by_column = r->n == 1 && view_eq(r->from_name[0], target);
		if (!by_column && !view_eq(r->constraint, target))
			continue;
		for (unsigned k = 0; k < c->n_resources; k++) {
			const struct resource *inner = &c->resources[k];
			if (!readable(f->who, inner))
				continue;
			bool along = starts_at(r, f->outer) && leads_to(r, inner);
			bool back = !by_column && !along && leads_to(r, f->outer) && starts_at(r, inner);
			if (f->n == 0 && (along || back)) {
				f->inner = inner;
				candidate(f, (struct link){ .near = r, .back = back }, r->constraint);
			}
		}
	}
}

bool embed_find(struct scan *s, const struct asker *who, const struct resource *outer, struct view target,
                struct view hint, size_t at, const struct resource **inner, struct link *link)
{
	struct search f = { .who = who, .outer = outer, .hint = hint, .hints = BUF(256) };
	f.inner = catalog_resource(who->catalog, target);
	if (f.inner && !readable(who, f.inner))
		f.inner = NULL;
	if (f.inner)
		all_ways(&f);
	else if (!hint.p)
		ways_by_key(&f, target);
	bool good = f.n == 1;
	if (f.n == 0)
		scan_fail(s, ERR_UNKNOWN_RELATIONSHIP, at, "Nothing called \"%.*s\" belongs to \"%.*s\".", VIEW_ARG(target),
		          VIEW_ARG(outer->name));
	else if (!good)
		scan_fail(s, ERR_AMBIGUOUS_RELATIONSHIP, at, "\"%.*s\" can be reached in several ways; say which: %.*s.",
		          VIEW_ARG(target), VIEW_ARG(buf_view(&f.hints)));
	buf_free(&f.hints);
	if (!good)
		return false;
	*inner = f.inner;
	*link = f.found[0];
	return true;
}

bool link_is_to_one(const struct link *l)
{
	return !l->far && (!l->back || l->near->unique);
}

bool link_compares(const struct link *l, const struct column *c)
{
	const struct relationship *r = l->near;
	bool from = !l->far && !l->back;
	for (unsigned i = 0; i < r->n; i++)
		if (view_eq(from ? r->from_name[i] : r->to_name[i], c->name))
			return true;
	return false;
}

struct node *embed_called(const struct node *node, struct view name)
{
	for (struct node *c = node ? node->child : NULL; c; c = c->next)
		if (view_eq(c->name, name))
			return c;
	return NULL;
}

/* --- SQL --- */

static void lead_in(struct statement *s, struct view *lead)
{
	statement_text(s, *lead);
	*lead = VIEW(" AND ");
}

void embed_table(struct statement *s, struct view words, const struct resource *res, struct view qualifier)
{
	statement_text(s, words);
	statement_text(s, res->relation);
	statement_lit(s, " ");
	statement_text(s, view_make(qualifier.p, qualifier.n - 1));
}

static void write_equal(struct statement *s, const struct relationship *r, struct view from, struct view to,
                        struct view *lead)
{
	for (unsigned i = 0; i < r->n; i++) {
		lead_in(s, lead);
		statement_text(s, from);
		statement_text(s, r->from_quoted[i]);
		statement_lit(s, " = ");
		statement_text(s, to);
		statement_text(s, r->to_quoted[i]);
	}
}

static void write_owner(struct statement *s, const struct resource *res, struct view qualifier, struct view tenant,
                        struct view *lead)
{
	if (res->owner < 0)
		return;
	lead_in(s, lead);
	statement_text(s, qualifier);
	statement_text(s, res->columns[res->owner].quoted);
	statement_lit(s, " = ");
	statement_param(s, tenant, res->columns[res->owner].base_oid);
}

static void write_link(struct statement *s, const struct node *n, struct view qualifier, struct view outer,
                       struct view *lead)
{
	const struct link *l = &n->link;
	if (!l->far) {
		write_equal(s, l->near, l->back ? qualifier : outer, l->back ? outer : qualifier, lead);
		return;
	}
	struct view inside = VIEW(" WHERE ");
	lead_in(s, lead);
	/* EXISTS and not a join: a row that the junction has twice is there once. */
	embed_table(s, VIEW("EXISTS (SELECT FROM "), l->junction, n->as_junction);
	write_equal(s, l->near, n->as_junction, outer, &inside);
	write_equal(s, l->far, n->as_junction, qualifier, &inside);
	write_owner(s, l->junction, n->as_junction, n->asker->tenant, &inside);
	statement_lit(s, ")");
}

void embed_where(struct statement *s, const struct node *n, struct view qualifier, struct view outer, struct view *lead)
{
	if (n->parent)
		write_link(s, n, qualifier, outer, lead);
	write_owner(s, n->resource, qualifier, n->asker->tenant, lead);
	if (filters_any(&n->filters)) {
		lead_in(s, lead);
		filters_write(s, &n->filters, qualifier);
	}
	for (const struct node *c = n->child; c; c = c->next) {
		if (!c->inner)
			continue;
		lead_in(s, lead);
		embed_exists(s, c, qualifier);
	}
}

void embed_exists(struct statement *s, const struct node *n, struct view outer)
{
	struct view lead = VIEW(" WHERE ");
	embed_table(s, VIEW("EXISTS (SELECT FROM "), n->resource, n->as_exists);
	embed_where(s, n, n->as_exists, outer, &lead);
	statement_lit(s, ")");
}
