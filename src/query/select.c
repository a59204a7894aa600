#include "config.h"

#include "query/select.h"

/* --- casts --- */

/* What a value may be cast to: a few types by the names that people write, none of which comes out of the request. */
static const struct {
	struct view name;
	struct column type;
} casts[] = {
#define CAST(word, sql, oid, array, cat) \
	{ VIEW_INIT(word), { .type = VIEW_INIT("pg_catalog." sql), .type_oid = oid, .base_oid = oid, .array_oid = array, \
		.type_kind = 'b', .category = cat, .sortable = true } },
	CAST("text", "text", 25, 1009, 'S')
	CAST("varchar", "varchar", 1043, 1015, 'S')
	CAST("smallint", "int2", 21, 1005, 'N')
	CAST("int2", "int2", 21, 1005, 'N')
	CAST("integer", "int4", 23, 1007, 'N')
	CAST("int", "int4", 23, 1007, 'N')
	CAST("int4", "int4", 23, 1007, 'N')
	CAST("bigint", "int8", 20, 1016, 'N')
	CAST("int8", "int8", 20, 1016, 'N')
	CAST("numeric", "numeric", 1700, 1231, 'N')
	CAST("decimal", "numeric", 1700, 1231, 'N')
	CAST("real", "float4", 700, 1021, 'N')
	CAST("float4", "float4", 700, 1021, 'N')
	CAST("float8", "float8", 701, 1022, 'N')
	CAST("boolean", "bool", 16, 1000, 'B')
	CAST("bool", "bool", 16, 1000, 'B')
	CAST("date", "date", 1082, 1182, 'D')
	CAST("time", "time", 1083, 1183, 'D')
	CAST("timestamp", "timestamp", 1114, 1115, 'D')
	CAST("timestamptz", "timestamptz", 1184, 1185, 'D')
	CAST("interval", "interval", 1186, 1187, 'T')
	CAST("uuid", "uuid", 2950, 2951, 'U')
	CAST("json", "json", 114, 199, 'U')
	CAST("jsonb", "jsonb", 3802, 3807, 'U')
#undef CAST
};

static bool read_cast(struct scan *s, struct item *item)
{
	struct view name;
	size_t at = s->at;
	if (!scan_name(s, ERR_INVALID_SELECT, &name))
		return false;
	for (size_t i = 0; i < ARRAY_LEN(casts); i++) {
		if (!view_ieq(casts[i].name, name))
			continue;
		item->type = casts[i].type;
		item->cast = true;
		return true;
	}
	return scan_fail(s, ERR_INVALID_SELECT, at, "Nothing is cast to \"%.*s\".", VIEW_ARG(name));
}

/* --- nodes --- */

static bool set_qualifiers(struct arena *a, struct node *n, unsigned number)
{
	n->as_row = VIEW("t.");
	if (number == 0)
		return true; /* nobody embeds the root */
	n->as_row = arena_printf(a, "e%u.", number);
	n->as_json = arena_printf(a, "j%u.", number);
	n->as_exists = arena_printf(a, "x%u.", number);
	n->as_sort = arena_printf(a, "o%u.", number);
	n->as_junction = arena_printf(a, "y%u.", number);
	return !arena_full(a);
}

static bool node_init(struct node *n, struct tree *tree, const struct asker *who, const struct resource *res)
{
	*n = (struct node){ .asker = who, .resource = res, .limit = res->page_max };
	filters_init(&n->filters, who->arena, who->catalog, res, who->bounds);
	n->filters.node = n;
	n->filters.count = &tree->n_filters;
	return set_qualifiers(who->arena, n, tree->n_embeds) && sort_of(who->arena, res, res->order, res->n_order, &n->sort);
}

/* An embedded resource of which nothing is selected does not show. */
static bool shows(const struct item *i)
{
	return !i->embed || i->embed->first;
}

/* Behind the last one; what is there already, the same, is not taken again. *clash: the name is another's. */
static bool append_item(struct arena *a, struct node *n, const struct item *item, bool *clash)
{
	struct item **last = &n->first;
	for (; *last; last = &(*last)->next) {
		bool both = shows(item) && shows(*last) && !(item->embed && item->embed->spread);
		if (!both || !view_eq((*last)->name, item->name))
			continue;
		*clash = item->embed || (*last)->embed || (*last)->cast != item->cast ||
			 (*last)->type.type_oid != item->type.type_oid || !field_same(&(*last)->field, &item->field);
		return true;
	}
	struct item *kept = ARENA_NEW(a, struct item);
	if (!kept)
		return false;
	*kept = *item;
	kept->next = NULL;
	*last = kept;
	return true;
}

static bool append_all(struct arena *a, struct node *n, bool *clash)
{
	const struct resource *res = n->resource;
	for (unsigned i = 0; i < res->n_columns; i++) {
		const struct column *c = &res->columns[i];
		struct item item = { .name = c->name, .field = field_of(c), .type = *c };
		if (!c->hidden && !append_item(a, n, &item, clash))
			return false;
	}
	return true;
}

bool tree_init(struct tree *tree, const struct asker *who, const struct resource *res)
{
	bool clash = false;
	tree->n_embeds = tree->n_filters = 0;
	tree->casts = false;
	return node_init(&tree->root, tree, who, res) && append_all(who->arena, &tree->root, &clash);
}

/* --- reading --- */

static bool read_items(struct tree *, struct scan *, struct node *);

static bool too_large(struct scan *s)
{
	return scan_fail(s, ERR_QUERY_TOO_COMPLEX, s->at, "The query is too large.");
}

/* ![hint], !inner, !left */
static bool read_hints(struct scan *s, struct view *hint, bool *inner)
{
	while (scan_take(s, '!')) {
		struct view word;
		size_t at = s->at;
		if (!scan_name(s, ERR_INVALID_SELECT, &word))
			return false;
		if (view_eq(word, VIEW("inner"))) {
			*inner = true;
		} else if (!view_eq(word, VIEW("left"))) {
			if (hint->p)
				return scan_fail(s, ERR_INVALID_SELECT, at, "A relationship is named once.");
			*hint = word;
		}
	}
	return true;
}

static bool check_bounds(struct tree *tree, struct scan *s, const struct node *outer, size_t at)
{
	const struct bounds *b = outer->asker->bounds;
	if (outer->depth + 1 > b->levels)
		return scan_fail(s, ERR_QUERY_TOO_COMPLEX, at, "Resources are embedded at most %u levels deep.", b->levels);
	if (++tree->n_embeds > b->embeds)
		return scan_fail(s, ERR_QUERY_TOO_COMPLEX, at, "A query has at most %u embedded resources.", b->embeds);
	return true;
}

static struct node *new_node(struct tree *tree, struct scan *s, struct node *outer, const struct resource *res)
{
	struct node *n = ARENA_NEW(s->arena, struct node);
	if (!n || !node_init(n, tree, outer->asker, res)) {
		too_large(s);
		return NULL;
	}
	n->parent = outer;
	n->depth = outer->depth + 1;
	struct node **last = &outer->child;
	while (*last)
		last = &(*last)->next;
	*last = n;
	return n;
}

/* Behind its name: [!hint](items) */
static bool read_embed(struct tree *tree, struct scan *s, struct node *outer, struct item *item, struct view target,
                       size_t at, bool spread)
{
	struct view hint = VIEW_NONE;
	bool inner = false;
	struct link link;
	const struct resource *res;
	if (!read_hints(s, &hint, &inner))
		return false;
	if (!scan_take(s, '('))
		return scan_fail(s, ERR_INVALID_SELECT, s->at, "A parenthesis is expected behind an embedded resource.");
	if (!check_bounds(tree, s, outer, at) ||
	    !embed_find(s, outer->asker, outer->resource, target, hint, at, &res, &link))
		return false;
	struct view name = item->renamed ? item->name : target;
	if (embed_called(outer, name))
		return scan_fail(s, ERR_INVALID_SELECT, at, "\"%.*s\" is embedded twice: give one an alias.", VIEW_ARG(name));
	struct node *n = new_node(tree, s, outer, res);
	if (!n)
		return false;
	n->name = item->name = name;
	n->link = link;
	n->to_one = link_is_to_one(&link);
	n->inner = inner;
	n->spread = spread;
	if (spread && !n->to_one)
		return scan_fail(s, ERR_INVALID_SELECT, at, "Only what is there once can be spread.");
	item->embed = n;
	scan_blanks(s);
	return (scan_peek(s) == ')' || read_items(tree, s, n)) &&
	       (scan_take(s, ')') || scan_fail(s, ERR_INVALID_SELECT, s->at, "A parenthesis is not closed."));
}

/* A column with its path and cast, of which the name was read. */
static bool read_column(struct scan *s, const struct node *n, struct item *item, struct view name, size_t at)
{
	const struct column *c = resource_column(n->resource, name);
	if (!c)
		return scan_fail(s, ERR_UNKNOWN_COLUMN, at, "There is no column \"%.*s\".", VIEW_ARG(name));
	if (!field_steps(s, c, ERR_INVALID_SELECT, &item->field))
		return false;
	item->type = item->field.type;
	if (!item->renamed) {
		item->name = field_name(&item->field);
		item->renamed = item->field.n_steps > 0;
	}
	return !scan_take_text(s, VIEW("::")) || read_cast(s, item);
}

/* [alias:]column, [alias:]resource(...), ...resource(...) */
static bool read_item(struct tree *tree, struct scan *s, struct node *n, struct item *item)
{
	struct view name;
	bool spread = scan_take_text(s, VIEW("..."));
	scan_blanks(s);
	size_t at = s->at;
	if (!scan_name(s, ERR_INVALID_SELECT, &name))
		return false;
	if (!spread && scan_peek(s) == ':' && !view_starts(scan_rest(s), VIEW("::"))) {
		s->at++;
		item->name = name;
		item->renamed = true;
		scan_blanks(s);
		at = s->at;
		if (!scan_name(s, ERR_INVALID_SELECT, &name))
			return false;
	}
	bool embed = scan_peek(s) == '(' || scan_peek(s) == '!';
	if (spread && !embed)
		return scan_fail(s, ERR_INVALID_SELECT, s->at, "An embedded resource is expected behind \"...\".");
	return embed ? read_embed(tree, s, n, item, name, at, spread) : read_column(s, n, item, name, at);
}

static bool read_one(struct tree *tree, struct scan *s, struct node *n)
{
	bool clash = false;
	scan_blanks(s);
	size_t at = s->at;
	if (scan_take(s, '*')) {
		if (!append_all(s->arena, n, &clash))
			return too_large(s);
	} else {
		struct item item = { .cast = false };
		if (!read_item(tree, s, n, &item))
			return false;
		tree->casts |= item.cast;
		if (!append_item(s->arena, n, &item, &clash))
			return too_large(s);
	}
	return !clash || scan_fail(s, ERR_INVALID_SELECT, at, "Two members would have one name: give one an alias.");
}

static bool read_items(struct tree *tree, struct scan *s, struct node *n)
{
	do {
		if (!read_one(tree, s, n))
			return false;
		scan_blanks(s);
	} while (scan_take(s, ','));
	return true;
}

/* Members of spread resources stand beside the others, so their names must differ, too. */
static bool check_names(struct scan *s, const struct node *n)
{
	for (struct member a = { 0 }; member_next(n, &a);)
		for (struct member b = a; member_next(n, &b);)
			if (view_eq(a.item->name, b.item->name))
				return scan_fail(s, ERR_INVALID_SELECT, s->text.n, "Two members would have the name \"%.*s\".",
				                 VIEW_ARG(a.item->name));
	for (const struct node *c = n->child; c; c = c->next)
		if (!check_names(s, c))
			return false;
	return true;
}

bool tree_select(struct tree *tree, struct scan *s)
{
	tree->root.first = NULL;
	if (!read_items(tree, s, &tree->root))
		return false;
	if (!scan_end(s))
		return scan_fail(s, ERR_INVALID_SELECT, s->at, "A comma is expected between columns.");
	return check_names(s, &tree->root);
}

/* --- the members of an object --- */

/* The item behind `i` in node n, or behind n's own place in the node that it is spread into, up to the node `top`. */
static bool settle(const struct node *top, const struct node *n, const struct item *i, struct member *m)
{
	for (;;) {
		while (!i && n != top) {
			const struct item *own = n->parent->first;
			while (own->embed != n)
				own = own->next;
			i = own->next;
			n = n->parent;
		}
		if (!i)
			return false;
		if (shows(i) && !(i->embed && i->embed->spread)) {
			*m = (struct member){ n, i };
			return true;
		}
		if (shows(i)) { /* spread: its items in its place */
			n = i->embed;
			i = n->first;
		} else {
			i = i->next;
		}
	}
}

bool member_next(const struct node *top, struct member *m)
{
	return m->item ? settle(top, m->of, m->item->next, m) : settle(top, top, top->first, m);
}

bool member_is_skipped(const struct member *m)
{
	for (const struct node *n = m->of; n; n = n->parent)
		if (n->skipped)
			return true;
	return m->item->skipped || (m->item->embed && m->item->embed->skipped);
}

bool node_joins(const struct node *n)
{
	for (const struct node *c = n->child; c; c = c->next)
		if (c->first && !c->skipped)
			return true;
	return false;
}
