#include "config.h"

#include "query/call.h"

enum { JSON_OID = 114 };

static const struct argument *find(const struct function *f, struct view name)
{
	for (unsigned i = 0; i < f->n_arguments; i++)
		if (view_eq(f->arguments[i].name, name))
			return &f->arguments[i];
	return NULL;
}

static bool is_given(const struct call *c, const struct argument *arg)
{
	for (unsigned i = 0; i < c->n_given; i++)
		if (c->given[i] == arg)
			return true;
	return false;
}

static enum status take(struct call *c, struct arena *a, struct view name, struct view *detail)
{
	const struct argument *arg = find(c->function, name);
	if (!arg) {
		*detail = arena_printf(a, "The function has no argument \"%.*s\".", VIEW_ARG(name));
		return ERR_UNKNOWN_PARAMETER;
	}
	if (is_given(c, arg)) {
		*detail = arena_printf(a, "The argument \"%.*s\" comes twice.", VIEW_ARG(name));
		return ERR_INVALID_PARAMETER;
	}
	c->given[c->n_given++] = arg;
	return OK;
}

static enum status all_there(struct call *c, struct arena *a, struct view *detail)
{
	for (unsigned i = 0; i < c->function->n_arguments; i++) {
		const struct argument *arg = &c->function->arguments[i];
		if (!arg->has_default && !is_given(c, arg)) {
			*detail = arena_printf(a, "The argument \"%.*s\" is missing.", VIEW_ARG(arg->name));
			return ERR_INVALID_PARAMETER;
		}
	}
	return OK;
}

static bool begin(struct call *c, struct arena *a)
{
	c->n_given = 0;
	c->given = ARENA_ARRAY(a, const struct argument *, c->function->n_arguments + 1);
	return c->given;
}

enum status call_take(struct call *c, struct arena *a, const struct json *body, struct view *detail)
{
	if (body->kind != JSON_OBJECT) {
		*detail = VIEW("The body has to be one object, whose members are the function's arguments.");
		return ERR_INVALID_BODY;
	}
	if (!begin(c, a))
		return ERR_QUERY_TOO_COMPLEX;
	c->body = body;
	enum status st = OK;
	for (const struct json *m = body->child; st == OK && m; m = m->next)
		st = take(c, a, m->name, detail);
	return st == OK ? all_there(c, a, detail) : st;
}

enum status call_take_params(struct call *c, struct arena *a, const struct params *params, struct view *detail)
{
	if (!begin(c, a))
		return ERR_QUERY_TOO_COMPLEX;
	c->params = params;
	enum status st = OK;
	for (size_t i = 0; st == OK && i < params->n; i++)
		st = take(c, a, params->item[i].name, detail);
	return st == OK ? all_there(c, a, detail) : st;
}

static void put_call(struct statement *s, const struct call *c)
{
	statement_text(s, c->function->call);
	statement_lit(s, "(");
	for (unsigned i = 0; i < c->n_given; i++) {
		const struct argument *arg = c->given[i];
		if (i)
			statement_lit(s, ", ");
		statement_text(s, arg->quoted);
		statement_lit(s, " => ");
		if (c->body) {
			statement_lit(s, "j.");
			statement_text(s, arg->quoted);
		} else {
			/* As a value of the argument's own type: an overloaded name stays the function that was exposed. */
			statement_param(s, c->params->item[i].value, arg->base_oid);
			statement_lit(s, "::");
			statement_text(s, arg->type);
		}
	}
	statement_lit(s, ")");
}

static void put_document(struct statement *s, const struct call *c)
{
	statement_lit(s, "pg_catalog.json_to_record(");
	statement_param(s, c->body->text, JSON_OID);
	statement_lit(s, ") AS j(");
	for (unsigned i = 0; i < c->n_given; i++) {
		if (i)
			statement_lit(s, ", ");
		statement_text(s, c->given[i]->quoted);
		statement_lit(s, " ");
		statement_text(s, c->given[i]->type);
	}
	statement_lit(s, ")");
}

bool call_statement(struct statement *s, struct arena *a, const struct call *c)
{
	bool set = c->function->returns == RETURNS_SET;
	statement_init(s, a);
	statement_text(s, c->function->returns == RETURNS_VOID ? VIEW("SELECT NULL FROM ") : VIEW("SELECT pg_catalog.to_json(f) FROM "));
	if (c->body && c->n_given) {
		put_document(s, c);
		statement_lit(s, ", LATERAL ");
	}
	put_call(s, c);
	statement_lit(s, " AS f");
	if (set) {
		statement_lit(s, " LIMIT ");
		statement_number(s, (int64_t)c->function->rows_max + 1);
	}
	return statement_finish(s);
}

static void put_value(struct buf *b, struct view v)
{
	buf_view_put(b, v.p ? v : VIEW("null"));
}

void call_write(struct buf *b, const struct call *c, const struct rows *rows)
{
	int n = rows ? rows_count(rows) : 0;
	if (c->function->returns == RETURNS_VOID)
		return;
	if (c->function->returns == RETURNS_VALUE) {
		put_value(b, n ? rows_value(rows, 0, 0) : VIEW_NONE);
		return;
	}
	bool more = n > c->function->rows_max;
	buf_lit(b, "{\"data\":[");
	for (int i = 0; i < n - more; i++) {
		if (i)
			buf_putc(b, ',');
		put_value(b, rows_value(rows, i, 0));
	}
	buf_view_put(b, more ? VIEW("],\"next_cursor\":null,\"has_more\":true}") : VIEW("],\"next_cursor\":null,\"has_more\":false}"));
}

static bool quotes(struct view message, struct view value)
{
	for (size_t i = 0; value.n && i + value.n + 2 <= message.n; i++)
		if (message.p[i] == '"' && message.p[i + value.n + 1] == '"' && memcmp(message.p + i + 1, value.p, value.n) == 0)
			return true;
	return false;
}

struct view call_blame(const struct call *c, struct arena *a, struct view message)
{
	const struct json *m = c->body ? c->body->child : NULL;
	for (unsigned i = 0; i < c->n_given; i++) {
		struct view value = m ? m->string : c->params ? c->params->item[i].value : VIEW_NONE;
		if (value.p && quotes(message, value))
			return arena_printf(a, "The value of the argument \"%.*s\" does not fit its type.", VIEW_ARG(c->given[i]->name));
		m = m ? m->next : NULL;
	}
	return VIEW_NONE;
}
