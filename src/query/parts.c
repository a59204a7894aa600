#include "config.h"

#include "query/parts.h"

static bool has_inner(const struct node *n)
{
	for (const struct node *c = n->child; c; c = c->next)
		if (c->inner || has_inner(c))
			return true;
	return false;
}

/* Which rows there are, and in which order, is not to depend on what may be missing. */
static bool is_chosen_by_embeds(const struct page *page)
{
	for (unsigned i = 0; i < page->walk.n; i++)
		if (page->walk.term[i].of)
			return true;
	return has_inner(&page->tree.root) || filters_use_embeds(&page->tree.root.filters);
}

static bool is_needed(const struct page *page, const struct column *c)
{
	const struct node *root = &page->tree.root;
	for (unsigned i = 0; i < page->walk.n; i++)
		if (page->walk.term[i].field.column == c)
			return true;
	for (const struct node *e = root->child; e; e = e->next)
		if (link_compares(&e->link, c))
			return true;
	return filters_use_column(&root->filters, c);
}

static bool is_selected(const struct node *n, const struct column *c)
{
	for (const struct item *i = n->first; i; i = i->next)
		if (!i->embed && i->field.column == c)
			return true;
	return false;
}

unsigned parts_find(struct arena *a, struct page *page, struct part **found)
{
	const struct resource *res = page->tree.root.resource;
	struct part *part = ARENA_ARRAY(a, struct part, page->tree.n_embeds + res->n_columns);
	unsigned n = 0;
	if (!part || is_chosen_by_embeds(page))
		return 0;
	for (struct node *c = page->tree.root.child; c; c = c->next)
		if (c->first)
			part[n++].node = c;
	for (unsigned i = 0; i < res->n_columns; i++) {
		const struct column *c = &res->columns[i];
		if (c->optional && is_selected(&page->tree.root, c) && !is_needed(page, c))
			part[n++].column = c;
	}
	*found = part;
	return n;
}

void part_skip(struct page *page, const struct part *p, bool skip)
{
	if (p->node)
		p->node->skipped = skip;
	for (struct item *i = page->tree.root.first; i; i = i->next)
		if (!i->embed && i->field.column == p->column)
			i->skipped = skip;
}

bool part_has(const struct part *p, const struct member *m)
{
	if (!p->node)
		return !m->of->parent && !m->item->embed && m->item->field.column == p->column;
	for (const struct node *n = m->of; n; n = n->parent)
		if (n == p->node)
			return true;
	return m->item->embed == p->node;
}
