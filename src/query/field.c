#include "config.h"

#include "query/field.h"

enum { OID_INT4 = 23, OID_TEXT = 25, OID_JSON = 114, OID_JSONB = 3802, STEPS_MAX = 32 };

static const struct column text_type = {
	.type = VIEW_INIT("pg_catalog.text"), .type_oid = OID_TEXT, .base_oid = OID_TEXT, .array_oid = 1009,
	.type_kind = 'b', .category = 'S', .sortable = true,
};
static const struct column json_type = {
	.type = VIEW_INIT("pg_catalog.json"), .type_oid = OID_JSON, .base_oid = OID_JSON, .array_oid = 199,
	.type_kind = 'b', .category = 'U',
};
static const struct column jsonb_type = {
	.type = VIEW_INIT("pg_catalog.jsonb"), .type_oid = OID_JSONB, .base_oid = OID_JSONB, .array_oid = 3807,
	.type_kind = 'b', .category = 'U', .sortable = true,
};

struct field field_of(const struct column *c)
{
	return (struct field){ .column = c, .type = *c };
}

static bool is_number(struct view v)
{
	size_t at = v.n && v.p[0] == '-';
	if (v.n == at || v.n - at > 9)
		return false;
	for (; at < v.n; at++)
		if (v.p[at] < '0' || v.p[at] > '9')
			return false;
	return true;
}

/* json and jsonb as they are; arrays and composites by to_jsonb(). */
static bool has_paths(const struct column *c)
{
	return c->base_oid == OID_JSON || c->base_oid == OID_JSONB || c->category == 'A' || c->category == 'C';
}

bool field_steps(struct scan *s, const struct column *c, enum status otherwise, struct field *field)
{
	*field = field_of(c);
	size_t begin = s->at;
	struct path_step steps[STEPS_MAX];
	unsigned n = 0;
	while (scan_take_text(s, VIEW("->"))) {
		if (n == STEPS_MAX)
			return scan_fail(s, ERR_QUERY_TOO_COMPLEX, begin, "The path is too long.");
		if (n && steps[n - 1].as_text)
			return scan_fail(s, otherwise, s->at - 2, "Nothing can follow ->>.");
		struct path_step *step = &steps[n++];
		step->as_text = scan_take(s, '>');
		bool quoted = scan_peek(s) == '"';
		if (!scan_name(s, otherwise, &step->key))
			return false;
		step->is_number = !quoted && is_number(step->key);
	}
	if (n == 0)
		return true;
	if (!has_paths(c))
		return scan_fail(s, otherwise, begin, "The column \"%.*s\" has no members.", VIEW_ARG(c->name));
	struct path_step *kept = ARENA_ARRAY(s->arena, struct path_step, n);
	if (!kept)
		return scan_fail(s, ERR_QUERY_TOO_COMPLEX, begin, "The query is too large.");
	memcpy(kept, steps, n * sizeof *kept);
	field->step = kept;
	field->n_steps = n;
	field->type = steps[n - 1].as_text ? text_type : c->base_oid == OID_JSON ? json_type : jsonb_type;
	field->type.name = c->name;
	field->type.quoted = c->quoted;
	return true;
}

bool field_read(struct scan *s, const struct resource *res, enum status otherwise, struct field *field)
{
	struct view name;
	scan_blanks(s);
	size_t at = s->at;
	if (!scan_name(s, otherwise, &name))
		return false;
	const struct column *c = resource_column(res, name);
	if (!c)
		return scan_fail(s, ERR_UNKNOWN_COLUMN, at, "There is no column \"%.*s\".", VIEW_ARG(name));
	return field_steps(s, c, otherwise, field);
}

struct view field_name(const struct field *f)
{
	for (unsigned i = f->n_steps; i > 0; i--)
		if (!f->step[i - 1].is_number)
			return f->step[i - 1].key;
	return f->column->name;
}

bool field_same(const struct field *a, const struct field *b)
{
	if (a->column != b->column || a->n_steps != b->n_steps)
		return false;
	for (unsigned i = 0; i < a->n_steps; i++)
		if (!view_eq(a->step[i].key, b->step[i].key) || a->step[i].is_number != b->step[i].is_number ||
		    a->step[i].as_text != b->step[i].as_text)
			return false;
	return true;
}

void field_write(struct statement *s, const struct field *f, struct view qualifier)
{
	bool convert = f->n_steps && f->column->base_oid != OID_JSON && f->column->base_oid != OID_JSONB;
	if (f->n_steps)
		statement_text(s, convert ? VIEW("(pg_catalog.to_jsonb(") : VIEW("("));
	statement_text(s, qualifier);
	statement_text(s, f->column->quoted);
	if (convert)
		statement_lit(s, ")");
	for (unsigned i = 0; i < f->n_steps; i++) {
		statement_text(s, f->step[i].as_text ? VIEW(" ->> ") : VIEW(" -> "));
		statement_param(s, f->step[i].key, f->step[i].is_number ? OID_INT4 : OID_TEXT);
	}
	if (f->n_steps)
		statement_lit(s, ")");
}
