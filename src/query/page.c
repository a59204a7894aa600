#include "config.h"

#include "query/page.h"

#include <stdlib.h>

#include "base/base64.h"
#include "base/sha256.h"

/* --- parameters --- */

enum { PARAMS_MAX = 64 };

/* A parameter, and the part of it that is a node's own: payments.users.name is "name" of users in payments. */
struct routed {
	const struct param *param;
	struct node *node;
	struct view rest;
};

static bool is_word(struct view v, const char *word)
{
	return view_eq(v, view_of(word));
}

static struct routed route(struct tree *tree, const struct param *p)
{
	struct routed r = { p, &tree->root, p->name };
	for (struct node *c = tree->root.child; c;) {
		bool inside = view_starts(r.rest, c->name) && r.rest.n > c->name.n && r.rest.p[c->name.n] == '.';
		if (resource_column(r.node->resource, r.rest))
			break;
		if (inside) {
			r.node = c;
			r.rest = view_skip(r.rest, c->name.n + 1);
		}
		c = inside ? c->child : c->next;
	}
	return r;
}

static enum status fault(struct arena *a, enum status st, const struct param *p, const char *what, struct view *detail)
{
	*detail = arena_printf(a, "%s (\"%.*s\").", what, VIEW_ARG(p->name));
	return st;
}

static enum status take_limit(struct arena *a, const struct param *p, int most, int *limit, struct view *detail)
{
	int64_t n = 0;
	for (size_t i = 0; i < p->value.n; i++) {
		if (p->value.p[i] < '0' || p->value.p[i] > '9')
			return fault(a, ERR_INVALID_LIMIT, p, "A limit is a positive number", detail);
		if (n <= most)
			n = n * 10 + (p->value.p[i] - '0');
	}
	if (n == 0)
		return fault(a, ERR_INVALID_LIMIT, p, "A limit is a positive number", detail);
	*limit = n > most ? most : (int)n;
	return OK;
}

static enum status take_order(struct node *n, const struct param *p, struct view *detail)
{
	struct scan s = scan_of(n->asker->arena, p->name, p->value);
	if (sort_read(&s, n, &n->sort))
		return OK;
	*detail = s.detail;
	return s.status;
}

static enum status take_select(struct page *page, const struct param *p, struct view *detail)
{
	struct scan s = scan_of(page->asker.arena, p->name, p->value);
	if (tree_select(&page->tree, &s))
		return OK;
	*detail = s.detail;
	return s.status;
}

/* What may stand there once. The cursor comes last: it is judged by all the others. */
struct once {
	const struct param *select, *cursor;
};

static enum status note_once(struct arena *a, const struct params *all, struct once *once, struct view *detail)
{
	static const char *const words[] = { "select", "cursor", "limit", "order" };
	unsigned seen = 0;
	for (size_t i = 0; i < all->n; i++) {
		const struct param *p = &all->item[i];
		for (unsigned w = 0; w < ARRAY_LEN(words); w++) {
			if (!is_word(p->name, words[w]))
				continue;
			if (seen & 1U << w)
				return fault(a, ERR_INVALID_PARAMETER, p, "This parameter comes twice", detail);
			seen |= 1U << w;
			if (w < 2)
				*(w == 0 ? &once->select : &once->cursor) = p;
		}
		if (is_word(p->name, "offset"))
			return fault(a, ERR_UNKNOWN_PARAMETER, p,
			             "Pages are asked for by cursor, not by offset: follow next_cursor", detail);
	}
	return OK;
}

static enum status take_one(struct page *page, const struct param *p, bool item, struct view *detail)
{
	struct arena *a = page->asker.arena;
	struct routed r = route(&page->tree, p);
	struct node *root = &page->tree.root;
	if (item && r.node == root)
		return fault(a, ERR_UNKNOWN_PARAMETER, p, "An item takes no parameters but select", detail);
	if (is_word(r.rest, "limit"))
		return take_limit(a, p, r.node->resource->page_max, r.node == root ? &page->limit : &r.node->limit, detail);
	if (is_word(r.rest, "order"))
		return take_order(r.node, p, detail);
	if (r.node != root && (is_word(r.rest, "offset") || is_word(r.rest, "cursor")))
		return fault(a, ERR_UNKNOWN_PARAMETER, p, "Embedded lists have a limit, but no pages", detail);
	r.node->filters.prefix = p->name.n - r.rest.n;
	return filters_take(&r.node->filters, p, detail);
}

/* --- what a cursor is bound to --- */

static int by_name_and_value(const void *a, const void *b)
{
	const struct param *x = a, *y = b;
	int order = view_cmp(x->name, y->name);
	return order ? order : view_cmp(x->value, y->value);
}

static void add_part(struct sha256 *h, struct view part)
{
	uint64_t n = part.n;
	sha256_add(h, view_make((const char *)&n, sizeof n));
	sha256_add(h, part);
}

/* Whether a parameter says which rows there are. */
static bool chooses_rows(struct tree *tree, const struct param *p)
{
	struct view rest = route(tree, p).rest;
	return !is_word(rest, "select") && !is_word(rest, "limit") && !is_word(rest, "order") && !is_word(rest, "cursor");
}

/* Embedded resources that keep rows out. */
static bool add_inner(struct sha256 *h, const struct node *n)
{
	bool any = false;
	for (const struct node *c = n->child; c; c = c->next) {
		if (c->inner) {
			add_part(h, c->name);
			add_part(h, c->link.near->constraint);
			any = true;
		}
		any |= add_inner(h, c);
	}
	return any;
}

static bool is_default_order(const struct page *page)
{
	const struct resource *res = page->tree.root.resource;
	const struct sort *sort = &page->tree.root.sort;
	if (sort->n != res->n_order)
		return false;
	for (unsigned i = 0; i < sort->n; i++) {
		const struct sort_term *t = &sort->term[i];
		const struct order_term *o = &res->order[i];
		if (sort_term_is_made(t) || t->field.column != &res->columns[o->column] || t->desc != o->desc ||
		    t->nulls_first != o->nulls_first)
			return false;
	}
	return true;
}

/* Resource, order and filters, whatever the order of the parameters. Short: it guards against mistakes. */
static bool bind_cursor(struct page *page, const struct params *all)
{
	enum { BYTES = 6 };
	struct param chosen[PARAMS_MAX];
	size_t n = 0;
	for (size_t i = 0; i < all->n && n < PARAMS_MAX; i++)
		if (chooses_rows(&page->tree, &all->item[i]))
			chosen[n++] = all->item[i];
	qsort(chosen, n, sizeof chosen[0], by_name_and_value);
	struct sha256 h;
	sha256_init(&h);
	add_part(&h, page->tree.root.resource->name);
	const struct sort *sort = &page->tree.root.sort;
	for (unsigned i = 0; i < sort->n; i++) {
		add_part(&h, sort->term[i].name);
		add_part(&h, view_make(sort->term[i].desc ? "d" : "a", 1));
		add_part(&h, view_make(sort->term[i].nulls_first ? "f" : "l", 1));
	}
	for (size_t i = 0; i < n; i++) {
		add_part(&h, chosen[i].name);
		add_part(&h, chosen[i].value);
	}
	bool inner = add_inner(&h, &page->tree.root);
	page->plain = n == 0 && !inner && is_default_order(page);
	page->binding = VIEW("");
	if (page->plain)
		return true;
	uint8_t hash[SHA256_BYTES];
	struct buf text = BUF(64);
	sha256_end(&h, hash);
	base64url_put(&text, view_make((const char *)hash, BYTES));
	page->binding = arena_copy(page->asker.arena, buf_view(&text));
	buf_free(&text);
	return page->binding.p != NULL;
}

/* --- all of it --- */

static enum status init(struct page *page, const struct bounds *bounds, const struct asker *asker,
                        const struct resource *res)
{
	page->bounds = *bounds;
	page->asker = *asker;
	page->asker.bounds = &page->bounds;
	page->limit = res->page_default;
	page->cursor.set = page->cursor.backward = false;
	page->binding = VIEW("");
	page->plain = true;
	return tree_init(&page->tree, &page->asker, res) ? OK : ERR_QUERY_TOO_COMPLEX;
}

static enum status take_all(struct page *page, const struct params *all, const struct once *once, bool item,
                            struct view *detail)
{
	enum status st = once->select ? take_select(page, once->select, detail) : OK;
	for (size_t i = 0; st == OK && i < all->n; i++)
		if (&all->item[i] != once->select && &all->item[i] != once->cursor)
			st = take_one(page, &all->item[i], item, detail);
	return st;
}

enum status page_read(struct page *page, const struct bounds *bounds, const struct asker *asker,
                      const struct resource *res, const struct params *all, struct view *detail)
{
	struct once once = { NULL, NULL };
	enum status st = init(page, bounds, asker, res);
	if (st == OK)
		st = note_once(asker->arena, all, &once, detail);
	if (st == OK)
		st = take_all(page, all, &once, false, detail);
	if (st != OK)
		return st;
	if (!bind_cursor(page, all))
		return ERR_QUERY_TOO_COMPLEX;
	page->walk = page->tree.root.sort;
	if (!once.cursor)
		return OK;
	st = cursor_parse(asker->arena, &page->walk, page->binding, bounds->cursor_bytes, once.cursor->value, &page->cursor,
	                  detail);
	if (st == OK && page->cursor.backward && !sort_flip(asker->arena, &page->tree.root.sort, &page->walk))
		return ERR_QUERY_TOO_COMPLEX;
	return st;
}

enum status item_read(struct page *page, const struct bounds *bounds, const struct asker *asker,
                      const struct resource *res, const struct params *all, struct view *detail)
{
	struct once once = { NULL, NULL };
	enum status st = init(page, bounds, asker, res);
	if (st == OK)
		st = note_once(asker->arena, all, &once, detail);
	if (st == OK && once.cursor)
		st = fault(asker->arena, ERR_UNKNOWN_PARAMETER, once.cursor, "An item takes no parameters but select", detail);
	if (st == OK)
		st = take_all(page, all, &once, true, detail);
	page->walk = page->tree.root.sort;
	return st;
}

/* --- whose fault --- */

static bool blame_node(const struct node *n, struct view value, struct view *detail)
{
	if (filters_blame(&n->filters, value, detail))
		return true;
	for (const struct node *c = n->child; c; c = c->next)
		if (blame_node(c, value, detail))
			return true;
	return false;
}

enum status page_blame(const struct page *page, struct view value, struct view *detail)
{
	if (!value.p)
		return page->cursor.set ? ERR_INVALID_CURSOR : page->tree.n_filters || page->tree.casts ? ERR_INVALID_VALUE : OK;
	if (blame_node(&page->tree.root, value, detail))
		return ERR_INVALID_VALUE;
	for (unsigned i = 0; page->cursor.set && i < page->walk.n; i++)
		if (page->cursor.value[i].p && view_eq(page->cursor.value[i], value))
			return ERR_INVALID_CURSOR;
	return OK;
}

static bool node_runs_code(const struct node *n)
{
	if (n->resource->reading_runs_code || (n->link.junction && n->link.junction->reading_runs_code))
		return true;
	for (const struct node *c = n->child; c; c = c->next)
		if (node_runs_code(c))
			return true;
	return false;
}

bool page_runs_code(const struct page *p)
{
	return node_runs_code(&p->tree.root);
}

static bool all_may(const struct page *p, const struct resource *r, struct view anybody)
{
	return r->policy.is_public && r->owner < 0 && resource_may(p->asker.catalog, r, PRIVILEGE_SELECT, anybody);
}

static bool node_is_public(const struct page *p, const struct node *n, struct view anybody)
{
	if (!all_may(p, n->resource, anybody) || (n->link.junction && !all_may(p, n->link.junction, anybody)))
		return false;
	for (const struct node *c = n->child; c; c = c->next)
		if (!node_is_public(p, c, anybody))
			return false;
	return true;
}

bool page_is_public(const struct page *p, struct view anybody)
{
	return node_is_public(p, &p->tree.root, anybody);
}
