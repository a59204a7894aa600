/* The one hard fact: an operator meets a type that it does not know in PostgreSQL as an error of the statement, which
 * would be ours; so what fits which type is judged here, by the table of operators, before there is a statement. */
#include "config.h"

#include "query/filter.h"

#include <ctype.h>
#include <strings.h>

#include "query/embed.h"
#include "query/field.h"
#include "query/value.h"

enum { OID_TEXT = 25, OID_TSVECTOR = 3614, OID_JSON = 114, OID_JSONB = 3802, OID_TEXT_ARRAY = 1009 };

/* --- operators --- */

enum takes {
	TAKES_VALUE,    /* one of the column's type, which has an order */
	TAKES_PATTERN,  /* LIKE's, with * for % */
	TAKES_REGEX,
	TAKES_LIST,
	TAKES_WORD,     /* null, not_null, true, false, unknown */
	TAKES_WORDS,    /* a text search */
	TAKES_SET,      /* arrays, ranges, jsonb */
	TAKES_OVERLAP,  /* arrays, ranges */
	TAKES_RANGE,
};

static const struct operator {
	struct view name;
	const char *sql;
	enum takes takes;
	bool quantified; /* may be followed by (any) or (all) and a list in braces */
} operators[] = {
	{ VIEW_INIT("eq"), " = ", TAKES_VALUE, true },
	{ VIEW_INIT("neq"), " <> ", TAKES_VALUE, false },
	{ VIEW_INIT("gt"), " > ", TAKES_VALUE, true },
	{ VIEW_INIT("gte"), " >= ", TAKES_VALUE, true },
	{ VIEW_INIT("lt"), " < ", TAKES_VALUE, true },
	{ VIEW_INIT("lte"), " <= ", TAKES_VALUE, true },
	{ VIEW_INIT("isdistinct"), " IS DISTINCT FROM ", TAKES_VALUE, false },
	{ VIEW_INIT("like"), " LIKE ", TAKES_PATTERN, true },
	{ VIEW_INIT("ilike"), " ILIKE ", TAKES_PATTERN, true },
	{ VIEW_INIT("match"), " ~ ", TAKES_REGEX, true },
	{ VIEW_INIT("imatch"), " ~* ", TAKES_REGEX, true },
	{ VIEW_INIT("in"), " = ", TAKES_LIST, false },
	{ VIEW_INIT("is"), " IS ", TAKES_WORD, false },
	{ VIEW_INIT("fts"), "pg_catalog.to_tsquery(", TAKES_WORDS, false },
	{ VIEW_INIT("plfts"), "pg_catalog.plainto_tsquery(", TAKES_WORDS, false },
	{ VIEW_INIT("phfts"), "pg_catalog.phraseto_tsquery(", TAKES_WORDS, false },
	{ VIEW_INIT("wfts"), "pg_catalog.websearch_to_tsquery(", TAKES_WORDS, false },
	{ VIEW_INIT("cs"), " @> ", TAKES_SET, false },
	{ VIEW_INIT("cd"), " <@ ", TAKES_SET, false },
	{ VIEW_INIT("ov"), " && ", TAKES_OVERLAP, false },
	{ VIEW_INIT("sl"), " << ", TAKES_RANGE, false },
	{ VIEW_INIT("sr"), " >> ", TAKES_RANGE, false },
	{ VIEW_INIT("nxr"), " &< ", TAKES_RANGE, false },
	{ VIEW_INIT("nxl"), " &> ", TAKES_RANGE, false },
	{ VIEW_INIT("adj"), " -|- ", TAKES_RANGE, false },
};

static const struct operator *operator_of(struct view name)
{
	for (size_t i = 0; i < ARRAY_LEN(operators); i++)
		if (view_eq(operators[i].name, name))
			return &operators[i];
	return NULL;
}

static bool fits(enum takes takes, const struct column *c)
{
	bool range = c->type_kind == 'r' || c->type_kind == 'm';
	bool array = c->category == 'A' && c->sortable;
	switch (takes) {
	case TAKES_VALUE:
	case TAKES_LIST: return c->sortable;
	case TAKES_PATTERN:
	case TAKES_REGEX: return c->category == 'S' && !c->nondeterministic;
	case TAKES_WORD: return true;
	case TAKES_WORDS:
		return c->category == 'S' || c->base_oid == OID_TSVECTOR || c->base_oid == OID_JSON || c->base_oid == OID_JSONB;
	case TAKES_SET: return range || array || c->base_oid == OID_JSONB;
	case TAKES_OVERLAP: return range || array;
	case TAKES_RANGE: return range;
	}
	return false;
}

/* --- the tree --- */

enum condition_kind {
	CONDITION_VALUE, /* field op $1 */
	CONDITION_ARRAY, /* field op ANY/ALL ($1) */
	CONDITION_EACH,  /* field IN ($1, $2): of a type that has no arrays */
	CONDITION_IS,    /* field IS word */
	CONDITION_WORDS, /* field @@ query(config, $1) */
	CONDITION_EMBED, /* there is (no) such embedded row */
	CONDITION_AND,
	CONDITION_OR,
};

struct condition {
	enum condition_kind kind;
	bool negate, all;
	struct field field;
	const struct operator *operator;
	struct view value;           /* of ARRAY an array's text */
	struct view sql;             /* ours: IS's word, or the text search configuration */
	const struct view *item;     /* EACH */
	unsigned n_items;
	const struct node *embed;
	struct view param;           /* where its value stood, for errors */
	size_t at;
	struct condition *child, *next;
};

/* What is read, and for whom. */
struct reading {
	struct scan scan;
	struct filters *filters;
	bool nested; /* inside and=(...): a value ends at a comma or a parenthesis */
};

static bool fail_at(struct reading *r, size_t at, enum status st, const char *what)
{
	return scan_fail(&r->scan, st, at, "%s", what);
}

static struct condition *new_condition(struct reading *r, enum condition_kind kind)
{
	struct filters *f = r->filters;
	if (++*f->count > f->bounds->filters) {
		scan_fail(&r->scan, ERR_QUERY_TOO_COMPLEX, r->scan.at, "A query has at most %u conditions.", f->bounds->filters);
		return NULL;
	}
	struct condition *c = ARENA_NEW(f->arena, struct condition);
	if (!c)
		fail_at(r, r->scan.at, ERR_QUERY_TOO_COMPLEX, "The query is too large.");
	else
		c->kind = kind;
	return c;
}

/* --- values --- */

/* A value that ends where its condition does: at the end, and inside and=(...) at a comma or a parenthesis, unless they
 * stand in quotes or, as an array's or a range's, in braces or brackets. */
static bool read_value(struct reading *r, struct view *value)
{
	struct scan *s = &r->scan;
	if (!r->nested) {
		*value = scan_rest(s);
		s->at = s->text.n;
		return true;
	}
	if (scan_peek(s) == '"')
		return scan_quoted(s, ERR_INVALID_FILTER, value);
	size_t begin = s->at;
	if (scan_take(s, '{')) {
		while (!scan_end(s) && s->text.p[s->at - 1] != '}')
			s->at++;
	} else if (scan_peek(s) == '[' || scan_peek(s) == '(') {
		do
			s->at++;
		while (!scan_end(s) && s->text.p[s->at - 1] != ')' && s->text.p[s->at - 1] != ']');
	}
	while (!scan_end(s) && scan_peek(s) != ',' && scan_peek(s) != ')')
		s->at++;
	*value = view_make(s->text.p + begin, s->at - begin);
	return true;
}

static bool check_value(struct reading *r, const struct column *type, struct view value, size_t at)
{
	return value_may_be(type, value) ||
	       scan_fail(&r->scan, ERR_INVALID_VALUE, at, "This is no value for the column \"%.*s\".", VIEW_ARG(type->name));
}

/* Judges it and, of a pattern, makes the stars percent signs. */
static bool take_value(struct reading *r, struct condition *c, struct view *value, size_t at)
{
	const struct bounds *b = r->filters->bounds;
	enum takes takes = c->operator->takes;
	if (takes == TAKES_VALUE || takes == TAKES_LIST)
		return check_value(r, &c->field.type, *value, at);
	if (takes != TAKES_PATTERN && takes != TAKES_REGEX && takes != TAKES_WORDS)
		return true;
	if (value->n > b->pattern_bytes)
		return scan_fail(&r->scan, ERR_QUERY_TOO_COMPLEX, at, "A pattern has at most %zu bytes.", b->pattern_bytes);
	if (takes != TAKES_PATTERN)
		return true;
	struct view copy = arena_copy(r->scan.arena, *value);
	for (size_t i = 0; copy.p && i < copy.n; i++)
		if (copy.p[i] == '*')
			((char *)(uintptr_t)copy.p)[i] = '%';
	*value = copy;
	return copy.p || fail_at(r, at, ERR_QUERY_TOO_COMPLEX, "The query is too large.");
}

/* One element of (a,"b") or {a,"b"}; `close` ends the list. */
static bool read_element(struct reading *r, char close, struct view *value)
{
	struct scan *s = &r->scan;
	if (scan_peek(s) == '"') {
		if (!scan_quoted(s, ERR_INVALID_FILTER, value))
			return false;
	} else {
		size_t begin = s->at;
		/* An array or a range as an element, as PostgreSQL writes it, is to be quoted. */
		while (!scan_end(s) && scan_peek(s) != ',' && scan_peek(s) != close)
			s->at++;
		*value = view_make(s->text.p + begin, s->at - begin);
	}
	return scan_peek(s) == ',' || scan_peek(s) == close ||
	       fail_at(r, s->at, ERR_INVALID_FILTER, scan_end(s) ? "The list has no end." : "A comma is missing in the list.");
}

static bool read_list(struct reading *r, struct condition *c, char open, char close)
{
	struct scan *s = &r->scan;
	unsigned max = r->filters->bounds->list_items;
	if (!scan_take(s, open))
		return scan_fail(s, ERR_INVALID_FILTER, s->at, "A list is expected: %c...%c.", open, close);
	if (scan_take(s, close))
		return true;
	struct view *items = ARENA_ARRAY(s->arena, struct view, max);
	if (!items)
		return fail_at(r, s->at, ERR_QUERY_TOO_COMPLEX, "The query is too large.");
	do {
		size_t at = s->at;
		if (c->n_items == max)
			return scan_fail(s, ERR_QUERY_TOO_COMPLEX, at, "A list has at most %u items.", max);
		if (!read_element(r, close, &items[c->n_items]) || !take_value(r, c, &items[c->n_items], at))
			return false;
		c->n_items++;
	} while (scan_take(s, ','));
	c->item = items;
	return scan_take(s, close) || fail_at(r, s->at, ERR_INVALID_FILTER, "The list has no end.");
}

/* text, varchar, char and name compare with text's patterns; a type of an extension (citext) with its own. */
static uint32_t value_oid(const struct condition *c)
{
	enum takes takes = c->operator->takes;
	if (takes == TAKES_WORDS)
		return OID_TEXT;
	if (takes == TAKES_PATTERN || takes == TAKES_REGEX)
		return value_is_text(&c->field.type) ? OID_TEXT : c->field.type.base_oid;
	return c->field.type.base_oid;
}

static uint32_t array_oid(const struct condition *c)
{
	return value_oid(c) == OID_TEXT ? OID_TEXT_ARRAY : c->field.type.array_oid;
}

/* All of a list becomes one parameter, so that the statement's text does not depend on its length. */
static bool list_to_array(struct reading *r, struct condition *c)
{
	if (!array_oid(c)) {
		c->kind = CONDITION_EACH;
		return true;
	}
	c->kind = CONDITION_ARRAY;
	c->value = value_array(r->scan.arena, c->item, c->n_items);
	return c->value.p || fail_at(r, r->scan.at, ERR_QUERY_TOO_COMPLEX, "The query is too large.");
}

/* --- conditions --- */

static bool read_is(struct reading *r, struct condition *c)
{
	static const struct {
		struct view word, sql;
		bool any_type;
	} words[] = {
		{ VIEW_INIT("null"), VIEW_INIT("NULL"), true },    { VIEW_INIT("not_null"), VIEW_INIT("NOT NULL"), true },
		{ VIEW_INIT("true"), VIEW_INIT("TRUE"), false },   { VIEW_INIT("false"), VIEW_INIT("FALSE"), false },
		{ VIEW_INIT("unknown"), VIEW_INIT("UNKNOWN"), false },
	};
	size_t at = r->scan.at;
	struct view word;
	if (!read_value(r, &word))
		return false;
	c->kind = CONDITION_IS;
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (!view_ieq(words[i].word, word))
			continue;
		if (!words[i].any_type && c->field.type.category != 'B')
			return fail_at(r, at, ERR_INVALID_FILTER, "Only a boolean is true, false or unknown.");
		c->sql = words[i].sql;
		return true;
	}
	return fail_at(r, at, ERR_INVALID_FILTER, "is takes null, not_null, true, false or unknown.");
}

/* (english): a text search configuration, by the catalog. */
static bool read_config(struct reading *r, struct condition *c)
{
	struct scan *s = &r->scan;
	if (!scan_take(s, '('))
		return true;
	size_t at = s->at;
	struct view name;
	if (!scan_name(s, ERR_INVALID_FILTER, &name))
		return false;
	c->sql = catalog_text_search(r->filters->catalog, name);
	if (!c->sql.p)
		return fail_at(r, at, ERR_INVALID_FILTER, "There is no such text search configuration.");
	return scan_take(s, ')') || fail_at(r, s->at, ERR_INVALID_FILTER, "A parenthesis is not closed.");
}

static bool read_quantifier(struct reading *r, struct condition *c)
{
	struct scan *s = &r->scan;
	if (scan_peek(s) != '(')
		return true;
	size_t at = s->at;
	bool any = scan_take_text(s, VIEW("(any)"));
	c->all = !any && scan_take_text(s, VIEW("(all)"));
	if ((!any && !c->all) || !c->operator->quantified)
		return fail_at(r, at, ERR_INVALID_FILTER, "(any) and (all) follow eq, gt, gte, lt, lte, like, ilike, match and imatch.");
	c->kind = CONDITION_ARRAY;
	return true;
}

static bool read_operand(struct reading *r, struct condition *c)
{
	size_t at = r->scan.at;
	c->param = r->scan.param;
	c->at = at;
	if (c->operator->takes == TAKES_WORD)
		return read_is(r, c);
	if (c->operator->takes == TAKES_LIST)
		return read_list(r, c, '(', ')') && list_to_array(r, c);
	if (c->kind == CONDITION_ARRAY)
		return read_list(r, c, '{', '}') && list_to_array(r, c);
	return read_value(r, &c->value) && take_value(r, c, &c->value, at);
}

static bool may_use(struct reading *r, const struct condition *c, size_t at)
{
	const struct operator *op = c->operator;
	if (!fits(op->takes, &c->field.type))
		return scan_fail(&r->scan, ERR_INVALID_FILTER, at, "%.*s does not fit the type of \"%.*s\".", VIEW_ARG(op->name),
		                 VIEW_ARG(c->field.type.name));
	if (op->takes == TAKES_REGEX && !r->filters->resource->regular_expressions)
		return scan_fail(&r->scan, ERR_QUERY_TOO_COMPLEX, at, "This resource takes no regular expressions.");
	return true;
}

/* A word in front of a point or a parenthesis: an operator, or "not". */
static struct view read_word(struct scan *s)
{
	size_t begin = s->at;
	while (!scan_end(s) && islower((unsigned char)scan_peek(s)))
		s->at++;
	return view_make(s->text.p + begin, s->at - begin);
}

/* [not.]operator[(modifier)].value */
static bool read_comparison(struct reading *r, struct condition *c)
{
	struct scan *s = &r->scan;
	if (scan_take_text(s, VIEW("not.")))
		c->negate = true;
	size_t at = s->at;
	struct view word = read_word(s);
	c->operator = operator_of(word);
	if (!c->operator)
		return fail_at(r, at, ERR_UNKNOWN_OPERATOR, "An operator is expected, as in \"eq.5\".");
	if (!may_use(r, c, at))
		return false;
	if (c->operator->takes == TAKES_WORDS) {
		c->kind = CONDITION_WORDS;
		if (!read_config(r, c))
			return false;
	} else if (!read_quantifier(r, c)) {
		return false;
	}
	if (!scan_take(s, '.'))
		return fail_at(r, s->at, ERR_INVALID_FILTER, "A point and a value are expected behind the operator.");
	return read_operand(r, c);
}

/* An embedded resource: [not.]is.null */
static bool read_embed(struct reading *r, struct condition *c)
{
	struct scan *s = &r->scan;
	bool negate = scan_take_text(s, VIEW("not."));
	struct view word;
	size_t at = s->at;
	if (!scan_take_text(s, VIEW("is.")) || !read_value(r, &word) ||
	    (!view_ieq(word, VIEW("null")) && !view_ieq(word, VIEW("not_null"))))
		return fail_at(r, at, ERR_INVALID_FILTER, "An embedded resource is compared by is.null and not.is.null alone.");
	c->kind = CONDITION_EMBED;
	c->negate = view_ieq(word, VIEW("null")) != negate;
	return true;
}

static bool read_group(struct reading *, struct condition *);

/* Takes "and" or "or", behind "not." if need be, when a list of conditions follows. */
static bool take_group(struct scan *s, struct condition *c)
{
	static const struct {
		struct view text;
		enum condition_kind kind;
		bool negate;
	} groups[] = {
		{ VIEW_INIT("and("), CONDITION_AND, false }, { VIEW_INIT("or("), CONDITION_OR, false },
		{ VIEW_INIT("not.and("), CONDITION_AND, true }, { VIEW_INIT("not.or("), CONDITION_OR, true },
	};
	for (size_t i = 0; i < ARRAY_LEN(groups); i++) {
		if (!scan_take_text(s, groups[i].text))
			continue;
		s->at--; /* the parenthesis is the group's */
		c->kind = groups[i].kind;
		c->negate = groups[i].negate;
		return true;
	}
	return false;
}

/* What a condition in a group is of: a column, or an embedded resource. */
static bool read_subject(struct reading *r, struct condition *c)
{
	struct scan *s = &r->scan;
	struct view name;
	scan_blanks(s);
	size_t at = s->at;
	if (!scan_name(s, ERR_INVALID_FILTER, &name))
		return false;
	const struct column *column = resource_column(r->filters->resource, name);
	c->embed = column ? NULL : embed_called(r->filters->node, name);
	if (!column && !c->embed)
		return scan_fail(s, ERR_UNKNOWN_COLUMN, at, "There is no column \"%.*s\".", VIEW_ARG(name));
	return !column || field_steps(s, column, ERR_INVALID_FILTER, &c->field);
}

static bool read_member(struct reading *r, struct condition *c)
{
	struct scan *s = &r->scan;
	scan_blanks(s);
	if (take_group(s, c))
		return read_group(r, c);
	if (!read_subject(r, c))
		return false;
	if (!scan_take(s, '.'))
		return fail_at(r, s->at, ERR_INVALID_FILTER, "A point and an operator are expected behind the column.");
	return c->embed ? read_embed(r, c) : read_comparison(r, c);
}

/* (condition,condition,...) */
static bool read_group(struct reading *r, struct condition *group)
{
	struct scan *s = &r->scan;
	struct condition **last = &group->child;
	if (!scan_take(s, '('))
		return fail_at(r, s->at, ERR_INVALID_FILTER, "A list of conditions is expected: (a.eq.1,b.gt.2).");
	do {
		struct condition *c = new_condition(r, CONDITION_VALUE);
		if (!c || !read_member(r, c))
			return false;
		*last = c;
		last = &c->next;
		scan_blanks(s);
	} while (scan_take(s, ','));
	return scan_take(s, ')') || fail_at(r, s->at, ERR_INVALID_FILTER, "A comma or a parenthesis is expected.");
}

/* --- parameters --- */

static bool is_group(struct view name, struct condition *c)
{
	bool negate = view_starts(name, VIEW("not."));
	struct view word = negate ? view_skip(name, 4) : name;
	if (!view_eq(word, VIEW("and")) && !view_eq(word, VIEW("or")))
		return false;
	c->kind = view_eq(word, VIEW("and")) ? CONDITION_AND : CONDITION_OR;
	c->negate = negate;
	return true;
}

/* The parameter's name: a column, which may be in quotes and have a path behind it, or an embedded resource. */
static bool read_name(struct scan *s, const struct filters *f, struct condition *c)
{
	struct view name = scan_rest(s);
	size_t at = s->at;
	const struct column *column = resource_column(f->resource, name);
	if (column) {
		c->field = field_of(column);
		return true;
	}
	c->embed = embed_called(f->node, name);
	if (c->embed)
		return true;
	if (!scan_name(s, ERR_UNKNOWN_PARAMETER, &name))
		return false;
	column = resource_column(f->resource, name);
	if (!column)
		return scan_fail(s, ERR_UNKNOWN_PARAMETER, at, "There is no parameter or column \"%.*s\" here.", VIEW_ARG(name));
	if (!field_steps(s, column, ERR_INVALID_FILTER, &c->field))
		return false;
	return scan_end(s) || scan_fail(s, ERR_UNKNOWN_PARAMETER, s->at, "There is no such parameter or column here.");
}

static bool read_param(struct reading *r, const struct param *p)
{
	struct filters *f = r->filters;
	struct condition *c = new_condition(r, CONDITION_VALUE);
	if (!c)
		return false;
	bool good;
	if (is_group(view_skip(p->name, f->prefix), c)) {
		r->nested = true;
		good = read_group(r, c);
	} else {
		struct scan name = scan_of(f->arena, p->name, p->name);
		name.at = f->prefix;
		if (!read_name(&name, f, c)) {
			r->scan.status = name.status;
			r->scan.detail = name.detail;
			return false;
		}
		good = c->embed ? read_embed(r, c) : read_comparison(r, c);
	}
	if (good && !scan_end(&r->scan))
		good = fail_at(r, r->scan.at, ERR_INVALID_FILTER, "Nothing more is expected here.");
	if (!good)
		return false;
	*(f->last ? &f->last->next : &f->first) = c;
	f->last = c;
	return true;
}

void filters_init(struct filters *f, struct arena *a, const struct catalog *catalog, const struct resource *res,
                  const struct bounds *bounds)
{
	*f = (struct filters){ .arena = a, .catalog = catalog, .resource = res, .bounds = bounds };
	f->count = &f->own_count;
}

enum status filters_take(struct filters *f, const struct param *p, struct view *detail)
{
	struct reading r = { .scan = scan_of(f->arena, p->name, p->value), .filters = f };
	if (read_param(&r, p))
		return OK;
	*detail = r.scan.detail;
	return r.scan.status == OK ? ERR_QUERY_TOO_COMPLEX : r.scan.status;
}

/* --- SQL --- */

static void write_words(struct statement *s, const struct condition *c, struct view qualifier)
{
	bool convert = c->field.type.base_oid != OID_TSVECTOR;
	if (convert)
		statement_lit(s, "pg_catalog.to_tsvector(");
	if (convert && c->sql.p) {
		statement_text(s, c->sql);
		statement_lit(s, ", ");
	}
	field_write(s, &c->field, qualifier);
	statement_text(s, convert ? VIEW(") @@ ") : VIEW(" @@ "));
	statement_text(s, view_of(c->operator->sql));
	if (c->sql.p) {
		statement_text(s, c->sql);
		statement_lit(s, ", ");
	}
	statement_param(s, c->value, OID_TEXT);
	statement_lit(s, ")");
}

static void write_each(struct statement *s, const struct condition *c, struct view qualifier)
{
	field_write(s, &c->field, qualifier);
	statement_lit(s, " IN (");
	for (unsigned i = 0; i < c->n_items; i++) {
		if (i)
			statement_lit(s, ", ");
		statement_param(s, c->item[i], value_oid(c));
	}
	statement_text(s, c->n_items ? VIEW(")") : VIEW("NULL) AND false"));
}

static void write_condition(struct statement *, const struct condition *, struct view qualifier);

static void write_list(struct statement *s, const struct condition *first, struct view between, struct view qualifier)
{
	for (const struct condition *c = first; c; c = c->next) {
		if (c != first)
			statement_text(s, between);
		write_condition(s, c, qualifier);
	}
}

static void write_plain(struct statement *s, const struct condition *c, struct view qualifier)
{
	switch (c->kind) {
	case CONDITION_VALUE:
		field_write(s, &c->field, qualifier);
		statement_text(s, view_of(c->operator->sql));
		statement_param(s, c->value, value_oid(c));
		break;
	case CONDITION_ARRAY:
		field_write(s, &c->field, qualifier);
		statement_text(s, view_of(c->operator->sql));
		statement_text(s, c->all ? VIEW("ALL (") : VIEW("ANY ("));
		statement_param(s, c->value, array_oid(c));
		statement_lit(s, ")");
		break;
	case CONDITION_EACH:
		write_each(s, c, qualifier);
		break;
	case CONDITION_IS:
		field_write(s, &c->field, qualifier);
		statement_lit(s, " IS ");
		statement_text(s, c->sql);
		break;
	case CONDITION_WORDS:
		write_words(s, c, qualifier);
		break;
	case CONDITION_EMBED:
		embed_exists(s, c->embed, qualifier);
		break;
	case CONDITION_AND:
		write_list(s, c->child, VIEW(" AND "), qualifier);
		break;
	case CONDITION_OR:
		write_list(s, c->child, VIEW(" OR "), qualifier);
		break;
	}
}

static void write_condition(struct statement *s, const struct condition *c, struct view qualifier)
{
	bool group = c->kind == CONDITION_AND || c->kind == CONDITION_OR || c->kind == CONDITION_EACH;
	if (c->negate)
		statement_lit(s, "NOT (");
	else if (group)
		statement_lit(s, "(");
	write_plain(s, c, qualifier);
	if (c->negate || group)
		statement_lit(s, ")");
}

void filters_write(struct statement *s, const struct filters *f, struct view qualifier)
{
	write_list(s, f->first, VIEW(" AND "), qualifier);
}

static bool uses_column(const struct condition *first, const struct column *column)
{
	for (const struct condition *c = first; c; c = c->next)
		if (c->field.column == column || uses_column(c->child, column))
			return true;
	return false;
}

bool filters_use_column(const struct filters *f, const struct column *column)
{
	return uses_column(f->first, column);
}

static bool uses_embeds(const struct condition *first)
{
	for (const struct condition *c = first; c; c = c->next)
		if (c->kind == CONDITION_EMBED || uses_embeds(c->child))
			return true;
	return false;
}

bool filters_use_embeds(const struct filters *f)
{
	return uses_embeds(f->first);
}

static const struct condition *find_value(const struct condition *first, struct view value)
{
	for (const struct condition *c = first; c; c = c->next) {
		if (c->operator && c->value.p && view_eq(c->value, value))
			return c;
		for (unsigned i = 0; i < c->n_items; i++)
			if (view_eq(c->item[i], value))
				return c;
		const struct condition *inside = find_value(c->child, value);
		if (inside)
			return inside;
	}
	return NULL;
}

bool filters_blame(const struct filters *f, struct view value, struct view *detail)
{
	const struct condition *c = find_value(f->first, value);
	if (!c)
		return false;
	struct scan s = { .arena = f->arena, .param = c->param };
	scan_fail(&s, ERR_INVALID_VALUE, c->at, "This is no value for the column \"%.*s\".", VIEW_ARG(c->field.type.name));
	*detail = s.detail;
	return true;
}
