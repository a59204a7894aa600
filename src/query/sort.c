#include "config.h"

#include "query/sort.h"

#include "query/embed.h"
#include "query/select.h"

/* --- reading --- */

static struct sort_term own_term(const struct column *c, bool desc, bool nulls_first)
{
	return (struct sort_term){
		.field = field_of(c), .name = c->name, .desc = desc, .nulls_first = nulls_first, .not_null = c->not_null,
	};
}

bool sort_of(struct arena *a, const struct resource *res, const struct order_term *term, unsigned n, struct sort *sort)
{
	sort->n = 0;
	sort->term = ARENA_ARRAY(a, struct sort_term, n + 1);
	for (unsigned i = 0; sort->term && i < n; i++)
		sort->term[sort->n++] = own_term(&res->columns[term[i].column], term[i].desc, term[i].nulls_first);
	return sort->term != NULL;
}

/* users(name): a column of a to-one embedded resource. */
static bool read_embedded(struct scan *s, const struct node *node, struct view name, size_t at, struct sort_term *term)
{
	const struct node *embed = embed_called(node, name);
	if (!embed)
		return scan_fail(s, ERR_INVALID_ORDER, at, "\"%.*s\" is not embedded: add it to select.", VIEW_ARG(name));
	if (!embed->to_one)
		return scan_fail(s, ERR_INVALID_ORDER, at, "A list cannot be sorted by \"%.*s\": there may be many.", VIEW_ARG(name));
	term->of = embed;
	return field_read(s, embed->resource, ERR_INVALID_ORDER, &term->field) &&
	       (scan_take(s, ')') || scan_fail(s, ERR_INVALID_ORDER, s->at, "A parenthesis is not closed."));
}

static bool read_subject(struct scan *s, const struct node *node, struct sort_term *term)
{
	struct view name;
	scan_blanks(s);
	size_t at = s->at;
	if (!scan_name(s, ERR_INVALID_ORDER, &name))
		return false;
	if (scan_take(s, '(')) {
		if (!read_embedded(s, node, name, at, term))
			return false;
	} else {
		const struct column *c = resource_column(node->resource, name);
		if (!c)
			return scan_fail(s, ERR_UNKNOWN_COLUMN, at, "There is no column \"%.*s\".", VIEW_ARG(name));
		if (!field_steps(s, c, ERR_INVALID_ORDER, &term->field))
			return false;
	}
	if (!term->field.type.sortable)
		return scan_fail(s, ERR_INVALID_ORDER, at, "The type of \"%.*s\" has no order.", VIEW_ARG(name));
	bool plain = !term->of && !term->field.n_steps;
	term->not_null = plain && term->field.column->not_null;
	term->name = plain ? term->field.column->name : arena_copy(s->arena, view_make(s->text.p + at, s->at - at));
	return true;
}

static bool read_directions(struct scan *s, struct sort_term *term)
{
	bool nulls_said = false;
	while (scan_take(s, '.')) {
		if (scan_take_text(s, VIEW("asc"))) {
			term->desc = false;
		} else if (scan_take_text(s, VIEW("desc"))) {
			term->desc = true;
		} else if (scan_take_text(s, VIEW("nullsfirst"))) {
			nulls_said = term->nulls_first = true;
		} else if (scan_take_text(s, VIEW("nullslast"))) {
			nulls_said = true;
			term->nulls_first = false;
		} else {
			return scan_fail(s, ERR_INVALID_ORDER, s->at, "asc, desc, nullsfirst or nullslast is expected.");
		}
	}
	if (!nulls_said)
		term->nulls_first = term->desc;
	scan_blanks(s);
	return scan_end(s) || scan_peek(s) == ',' ||
	       scan_fail(s, ERR_INVALID_ORDER, s->at, "A comma is expected between columns.");
}

static bool is_there(const struct sort *sort, struct view name)
{
	for (unsigned i = 0; i < sort->n; i++)
		if (view_eq(sort->term[i].name, name))
			return true;
	return false;
}

/* In the direction of the last term, so that one index, read forwards or backwards, serves the whole. */
static void append_key(const struct resource *res, struct sort *sort)
{
	bool desc = sort->n && sort->term[sort->n - 1].desc;
	for (unsigned i = 0; i < res->n_key; i++) {
		const struct column *c = &res->columns[res->key[i]];
		if (!is_there(sort, c->name))
			sort->term[sort->n++] = own_term(c, desc, desc);
	}
}

bool sort_read(struct scan *s, const struct node *node, struct sort *sort)
{
	sort->n = 0;
	sort->term = ARENA_ARRAY(s->arena, struct sort_term, SORT_TERMS_MAX);
	if (!sort->term)
		return scan_fail(s, ERR_QUERY_TOO_COMPLEX, 0, "The query is too large.");
	do {
		struct sort_term term = { .of = NULL };
		if (!read_subject(s, node, &term) || !read_directions(s, &term))
			return false;
		if (sort->n + node->resource->n_key >= SORT_TERMS_MAX)
			return scan_fail(s, ERR_QUERY_TOO_COMPLEX, s->at, "The order has too many columns.");
		if (!is_there(sort, term.name))
			sort->term[sort->n++] = term;
	} while (scan_take(s, ','));
	append_key(node->resource, sort);
	return true;
}

bool sort_flip(struct arena *a, const struct sort *sort, struct sort *flipped)
{
	flipped->n = sort->n;
	flipped->term = ARENA_ARRAY(a, struct sort_term, sort->n + 1);
	for (unsigned i = 0; flipped->term && i < sort->n; i++) {
		flipped->term[i] = sort->term[i];
		flipped->term[i].desc = !sort->term[i].desc;
		flipped->term[i].nulls_first = !sort->term[i].nulls_first;
	}
	return flipped->term != NULL;
}

/* --- SQL --- */

bool sort_term_is_made(const struct sort_term *t)
{
	return t->of || t->field.n_steps;
}

/* No column is likely to be called so. */
static void write_export_name(struct statement *s, unsigned i)
{
	statement_lit(s, "\"#");
	statement_number(s, i);
	statement_lit(s, "\"");
}

void sort_term_write(struct statement *s, const struct sort *sort, unsigned i, struct view qualifier, bool exported)
{
	const struct sort_term *t = &sort->term[i];
	if (exported && sort_term_is_made(t)) {
		statement_text(s, qualifier);
		write_export_name(s, i);
	} else {
		field_write(s, &t->field, t->of ? t->of->as_sort : qualifier);
	}
}

void sort_export(struct statement *s, const struct sort *sort, unsigned i, struct view qualifier)
{
	sort_term_write(s, sort, i, qualifier, false);
	statement_lit(s, " AS ");
	write_export_name(s, i);
}

void sort_write(struct statement *s, const struct sort *sort, struct view qualifier, bool exported)
{
	for (unsigned i = 0; i < sort->n; i++) {
		const struct sort_term *t = &sort->term[i];
		statement_text(s, i ? VIEW(", ") : VIEW(" ORDER BY "));
		sort_term_write(s, sort, i, qualifier, exported);
		if (t->desc)
			statement_lit(s, " DESC");
		/* PostgreSQL's default is said by silence, so that plain indexes match plain orders. */
		if (t->nulls_first != t->desc && !t->not_null)
			statement_text(s, t->nulls_first ? VIEW(" NULLS FIRST") : VIEW(" NULLS LAST"));
	}
}
