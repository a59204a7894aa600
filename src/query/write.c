#include "config.h"

#include "query/write.h"

#include "base/buf.h"
#include "http/params.h"
#include "query/read.h"

enum { TEXT_OID = 25, JSON_OID = 114, JSONB_OID = 3802, DOCUMENT_BYTES_MAX = 64 << 20, FORM_FIELDS_MAX = 1000 };

/* --- documents that are not JSON become it --- */

static const struct json *parse(struct arena *a, struct view text, const struct write_limits *limits, struct view *detail)
{
	struct json_limits within = { .depth = limits->depth, .values = limits->values };
	return json_parse(a, text, &within, detail);
}

static const struct json *from_buf(struct arena *a, struct buf *text, const struct write_limits *limits, struct view *detail)
{
	struct view kept = buf_failed(text) ? VIEW_NONE : arena_copy(a, buf_view(text));
	buf_free(text);
	if (!kept.p) {
		*detail = VIEW("The body is too large.");
		return NULL;
	}
	return parse(a, kept, limits, detail);
}

static const struct json *form(struct arena *a, struct view body, const struct write_limits *limits, struct view *detail)
{
	struct params fields;
	struct buf text = BUF(DOCUMENT_BYTES_MAX);
	if (params_parse(a, body, FORM_FIELDS_MAX, &fields, detail) != OK)
		return NULL;
	buf_putc(&text, '{');
	for (size_t i = 0; i < fields.n; i++) {
		if (i)
			buf_putc(&text, ',');
		json_string(&text, fields.item[i].name);
		buf_putc(&text, ':');
		json_string(&text, fields.item[i].value);
	}
	buf_putc(&text, '}');
	return from_buf(a, &text, limits, detail);
}

/* RFC 4180, with line ends of either kind. */
struct csv {
	struct view rest;
	struct buf field; /* of the last one */
	bool quoted;
	enum { CSV_FIELD, CSV_LINE, CSV_END, CSV_BROKEN } after;
};

static void csv_quoted(struct csv *c)
{
	c->quoted = true;
	c->rest = view_skip(c->rest, 1);
	while (c->rest.n) {
		const char *quote = memchr(c->rest.p, '"', c->rest.n);
		if (!quote)
			break;
		size_t n = (size_t)(quote - c->rest.p);
		buf_put(&c->field, c->rest.p, n);
		c->rest = view_skip(c->rest, n + 1);
		if (c->rest.n == 0 || c->rest.p[0] != '"')
			return;
		buf_putc(&c->field, '"');
		c->rest = view_skip(c->rest, 1);
	}
	c->after = CSV_BROKEN;
}

static void csv_next(struct csv *c)
{
	buf_clear(&c->field);
	c->quoted = false;
	c->after = CSV_FIELD;
	if (c->rest.n && c->rest.p[0] == '"')
		csv_quoted(c);
	while (c->after != CSV_BROKEN && c->rest.n && !memchr(",\r\n", c->rest.p[0], 3)) {
		if (c->quoted || c->rest.p[0] == '"') {
			c->after = CSV_BROKEN;
			return;
		}
		buf_putc(&c->field, c->rest.p[0]);
		c->rest = view_skip(c->rest, 1);
	}
	if (c->after == CSV_BROKEN)
		return;
	if (c->rest.n == 0) {
		c->after = CSV_END;
		return;
	}
	char end = c->rest.p[0];
	c->rest = view_skip(c->rest, 1);
	if (end == ',')
		return;
	if (end == '\r' && c->rest.n && c->rest.p[0] == '\n')
		c->rest = view_skip(c->rest, 1);
	c->after = c->rest.n ? CSV_LINE : CSV_END;
}

static bool csv_names(struct csv *c, struct arena *a, struct view *name, size_t max, size_t *n)
{
	for (*n = 0; *n < max;) {
		csv_next(c);
		name[(*n)++] = arena_copy(a, buf_view(&c->field));
		if (c->after != CSV_FIELD)
			return c->after == CSV_LINE;
	}
	return false;
}

static bool csv_rows(struct csv *c, struct buf *text, const struct view *name, size_t n_names, size_t *line)
{
	for (*line = 2;; (*line)++) {
		size_t at = 0;
		do {
			csv_next(c);
			if (c->after == CSV_BROKEN || at == n_names)
				return false;
			buf_view_put(text, at ? VIEW(",") : *line > 2 ? VIEW(",{") : VIEW("[{"));
			json_string(text, name[at++]);
			buf_putc(text, ':');
			if (c->field.n == 0 && !c->quoted)
				buf_lit(text, "null");
			else
				json_string(text, buf_view(&c->field));
		} while (c->after == CSV_FIELD);
		if (at != n_names)
			return false;
		buf_putc(text, '}');
		if (c->after == CSV_END) {
			buf_putc(text, ']');
			return true;
		}
	}
}

static const struct json *csv(struct arena *a, struct view body, const struct write_limits *limits, struct view *detail)
{
	enum { NAMES_MAX = 1600 };
	struct view *name = ARENA_ARRAY(a, struct view, NAMES_MAX);
	struct buf text = BUF(DOCUMENT_BYTES_MAX);
	struct csv c = { .rest = body, .field = BUF(DOCUMENT_BYTES_MAX) };
	size_t n_names = 0, line = 1;
	/* json_string() wants UTF-8. */
	bool good = name && utf8_valid(body) && csv_names(&c, a, name, NAMES_MAX, &n_names) &&
		    csv_rows(&c, &text, name, n_names, &line);
	buf_free(&c.field);
	if (!good) {
		buf_free(&text);
		*detail = arena_printf(a, "The CSV is malformed in line %zu: each line has as many fields as the first one, which "
		                          "names the columns.", line);
		return NULL;
	}
	return from_buf(a, &text, limits, detail);
}

const struct json *write_document(struct arena *a, enum document kind, struct view body, const struct write_limits *limits,
                                  struct view *detail)
{
	switch (kind) {
	case DOCUMENT_FORM: return form(a, body, limits, detail);
	case DOCUMENT_CSV: return csv(a, body, limits, detail);
	case DOCUMENT_JSON: break;
	}
	return parse(a, body, limits, detail);
}

/* --- columns --- */

static bool is_owner(const struct resource *res, const struct column *c)
{
	return res->owner >= 0 && c == &res->columns[res->owner];
}

static bool is_writable(const struct resource *res, const struct column *c)
{
	return !c->read_only && !c->generated && !is_owner(res, c);
}

static const struct column *key_column(const struct resource *res, unsigned i)
{
	return &res->columns[res->key[i]];
}

/* Which of the key's columns it is; -1: none. */
static int key_index(const struct resource *res, const struct column *c)
{
	for (unsigned i = 0; i < res->n_key; i++)
		if (key_column(res, i) == c)
			return (int)i;
	return -1;
}

static enum status find_column(const struct write *w, struct arena *a, struct view name, bool written,
                               const struct column **found, struct view *detail)
{
	const struct column *c = resource_column(w->resource, name);
	if (!c) {
		*detail = arena_printf(a, "There is no column \"%.*s\".", VIEW_ARG(name));
		return ERR_UNKNOWN_COLUMN;
	}
	if (written && !is_writable(w->resource, c)) {
		*detail = arena_printf(a, "The column \"%.*s\" cannot be written.", VIEW_ARG(name));
		return ERR_READ_ONLY_COLUMN;
	}
	*found = c;
	return OK;
}

static size_t count_names(struct view list)
{
	size_t n = 1;
	for (size_t i = 0; i < list.n; i++)
		n += list.p[i] == ',';
	return n;
}

/* A parameter's list of names; each at most once. */
static enum status take_names(const struct write *w, struct arena *a, struct view list, bool written,
                              const struct column ***columns, unsigned *n, struct view *detail)
{
	const struct column **all = ARENA_ARRAY(a, const struct column *, count_names(list));
	if (!all)
		return ERR_QUERY_TOO_COMPLEX;
	*n = 0;
	for (struct view name; view_split(&list, ',', &name);) {
		const struct column *c;
		enum status st = find_column(w, a, view_trim(name), written, &c, detail);
		if (st != OK)
			return st;
		for (unsigned i = 0; i < *n; i++) {
			if (all[i] == c) {
				*detail = arena_printf(a, "The column \"%.*s\" is named twice.", VIEW_ARG(c->name));
				return ERR_INVALID_PARAMETER;
			}
		}
		all[(*n)++] = c;
	}
	*columns = all;
	return OK;
}

/* --- rows --- */

/* What the path says of a key column, the body may repeat, but not contradict. */
static bool same_key_value(const struct json *m, struct view value)
{
	return (m->kind == JSON_STRING || m->kind == JSON_NUMBER) && view_eq(m->string, value);
}

static enum status take_members(struct write *w, struct arena *a, const struct json *o, struct view *detail)
{
	const struct column **all = ARENA_ARRAY(a, const struct column *, o->n_children + 1);
	if (!all)
		return ERR_QUERY_TOO_COMPLEX;
	for (const struct json *m = o->child; m; m = m->next) {
		const struct column *c;
		enum status st = find_column(w, a, m->name, false, &c, detail);
		if (st != OK)
			return st;
		int key = w->key ? key_index(w->resource, c) : -1;
		if (key >= 0 && same_key_value(m, w->key[key]))
			continue;
		st = find_column(w, a, m->name, true, &c, detail);
		if (st != OK)
			return st;
		if (key >= 0) {
			*detail = arena_printf(a, "The body's \"%.*s\" is not the one in the path.", VIEW_ARG(m->name));
			return ERR_INVALID_BODY;
		}
		all[w->n_columns++] = c;
	}
	w->column = all;
	return OK;
}

/* Of an object that has passed take_members(): no longer than the table is wide. */
static bool same_members(const struct json *a, const struct json *b)
{
	if (a->n_children != b->n_children)
		return false;
	const struct json *at = b->child; /* in the same order they cost one comparison each */
	for (const struct json *m = a->child; m; m = m->next, at = at->next)
		if (!view_eq(at->name, m->name) && !json_member(b, m->name))
			return false;
	return true;
}

static enum status check_rows(const struct json *first, bool same, struct view *detail)
{
	for (const struct json *o = first; o; o = o->next) {
		if (o->kind != JSON_OBJECT) {
			*detail = VIEW("The body has to be an object or an array of objects.");
			return ERR_INVALID_BODY;
		}
		if (same && o != first && !same_members(first, o)) {
			*detail = VIEW("All objects have to have the same members; the parameter \"columns\" names them otherwise.");
			return ERR_INVALID_BODY;
		}
	}
	return OK;
}

enum status write_rows(struct write *w, struct arena *a, const struct json *body, struct view columns,
                       const struct write_limits *limits, struct view *detail)
{
	w->body = body;
	w->many = body->kind == JSON_ARRAY;
	w->n_rows = w->many ? body->n_children : 1;
	const struct json *first = w->many ? body->child : body;
	if (!first) {
		*detail = VIEW("The array is empty: there is nothing to write.");
		return ERR_INVALID_BODY;
	}
	if (w->n_rows > limits->rows) {
		*detail = arena_printf(a, "The body has %zu rows; at most %zu are taken.", w->n_rows, limits->rows);
		return ERR_QUERY_TOO_COMPLEX;
	}
	w->n_columns = 0;
	enum status st = OK;
	if (columns.p)
		st = take_names(w, a, columns, true, &w->column, &w->n_columns, detail);
	else if (first->kind == JSON_OBJECT)
		st = take_members(w, a, first, detail);
	if (st == OK)
		st = check_rows(first, !columns.p, detail);
	if (st == OK && w->many && w->n_columns == 0) {
		*detail = VIEW("The objects of an array need at least one member.");
		return ERR_INVALID_BODY;
	}
	return st;
}

enum status write_conflict(struct write *w, struct arena *a, struct view columns, struct view *detail)
{
	if (columns.p)
		return take_names(w, a, columns, false, &w->conflict, &w->n_conflict, detail);
	w->conflict = ARENA_ARRAY(a, const struct column *, w->resource->n_key);
	if (!w->conflict)
		return ERR_QUERY_TOO_COMPLEX;
	w->n_conflict = w->resource->n_key;
	for (unsigned i = 0; i < w->n_conflict; i++)
		w->conflict[i] = key_column(w->resource, i);
	return OK;
}

/* --- statements --- */

static void put_columns(struct statement *s, const struct write *w, struct view prefix)
{
	for (unsigned i = 0; i < w->n_columns; i++) {
		if (i)
			statement_lit(s, ", ");
		statement_text(s, prefix);
		statement_text(s, w->column[i]->quoted);
	}
}

/* The document as a table of the columns that are written, each of its column's type. Not
 * json_populate_record(NULL::table): that runs the columns which are not in the document through their types, too, and a
 * domain that is NOT NULL then refuses a row whose column has a default. */
static void from_document(struct statement *s, const struct write *w)
{
	statement_text(s, w->many ? VIEW(" FROM pg_catalog.json_to_recordset(") : VIEW(" FROM pg_catalog.json_to_record("));
	statement_param(s, w->body->text, JSON_OID);
	statement_lit(s, ") AS j(");
	for (unsigned i = 0; i < w->n_columns; i++) {
		if (i)
			statement_lit(s, ", ");
		statement_text(s, w->column[i]->quoted);
		statement_lit(s, " ");
		statement_text(s, w->column[i]->type);
	}
	statement_lit(s, ")");
}

static void put_returning(struct statement *s, const struct write *w)
{
	if (!w->returning)
		return;
	statement_lit(s, " RETURNING ");
	select_columns(s, w->resource, (struct order){ w->resource->order, w->resource->n_order }, VIEW("t."));
}

static void put_conflict(struct statement *s, const struct write *w)
{
	statement_lit(s, " ON CONFLICT (");
	for (unsigned i = 0; i < w->n_conflict; i++) {
		if (i)
			statement_lit(s, ", ");
		statement_text(s, w->conflict[i]->quoted);
	}
	if (w->resolution == RESOLVE_IGNORE) {
		statement_lit(s, ") DO NOTHING");
		return;
	}
	statement_lit(s, ") DO UPDATE SET ");
	for (unsigned i = 0; i < w->n_columns; i++) {
		if (i)
			statement_lit(s, ", ");
		statement_text(s, w->column[i]->quoted);
		statement_lit(s, " = EXCLUDED.");
		statement_text(s, w->column[i]->quoted);
	}
	if (w->resource->owner >= 0) {
		/* Another tenant's row stays what it is. */
		const struct column *c = &w->resource->columns[w->resource->owner];
		statement_lit(s, " WHERE t.");
		statement_text(s, c->quoted);
		statement_lit(s, " = ");
		statement_param(s, w->owner, c->base_oid);
	}
}

/* Columns that do not come out of the document: the tenant, and the key that the path names. */
static void put_others(struct statement *s, const struct write *w, bool values)
{
	bool first = w->n_columns == 0;
	for (unsigned i = 0; w->key && i < w->resource->n_key; i++, first = false) {
		const struct column *c = key_column(w->resource, i);
		if (!first)
			statement_lit(s, ", ");
		if (values)
			statement_param(s, w->key[i], c->base_oid);
		else
			statement_text(s, c->quoted);
	}
	if (w->resource->owner >= 0) {
		const struct column *c = &w->resource->columns[w->resource->owner];
		if (!first)
			statement_lit(s, ", ");
		if (values)
			statement_param(s, w->owner, c->base_oid);
		else
			statement_text(s, c->quoted);
	}
}

static void put_insert(struct statement *s, const struct write *w)
{
	statement_lit(s, "INSERT INTO ");
	statement_text(s, w->resource->relation);
	statement_lit(s, " AS t");
	if (w->n_columns == 0 && w->resource->owner < 0 && !w->key) {
		statement_lit(s, " DEFAULT VALUES");
	} else {
		statement_lit(s, " (");
		put_columns(s, w, VIEW(""));
		put_others(s, w, false);
		statement_lit(s, ") SELECT ");
		put_columns(s, w, VIEW("j."));
		put_others(s, w, true);
		if (w->n_columns)
			from_document(s, w);
	}
	if (w->resolution != RESOLVE_REFUSE)
		put_conflict(s, w);
}

bool insert_statement(struct statement *s, struct arena *a, const struct write *w)
{
	statement_init(s, a);
	put_insert(s, w);
	put_returning(s, w);
	return statement_finish(s);
}

/* --- answers made by PostgreSQL --- */

#define ANSWERED "composure_written"

bool insert_can_answer(const struct write *w)
{
	for (unsigned i = 0; i < w->resource->n_key; i++) {
		enum render_kind kind = render_kind(key_column(w->resource, i));
		if (kind != RENDER_INT && kind != RENDER_UUID)
			return false;
	}
	return !w->many && w->resolution == RESOLVE_REFUSE && !resource_column(w->resource, VIEW(ANSWERED));
}

static void put_visible(struct statement *s, const struct resource *res)
{
	const char *comma = "";
	for (unsigned i = 0; i < res->n_columns; i++) {
		if (res->columns[i].hidden)
			continue;
		statement_text(s, view_of(comma));
		statement_lit(s, "t.");
		statement_text(s, res->columns[i].quoted);
		comma = ", ";
	}
}

static void put_set_config(struct statement *s, const char *setting)
{
	statement_lit(s, "pg_catalog.set_config('");
	statement_text(s, view_of(setting));
	statement_lit(s, "', ");
}

/* row_to_json() of the row makes the bytes that row_write() makes of it: render.h. */
bool insert_answered(struct statement *s, struct arena *a, const struct write *w, struct view path, bool body)
{
	statement_init(s, a);
	statement_lit(s, "WITH " ANSWERED " AS (");
	put_insert(s, w);
	statement_lit(s, " RETURNING ");
	put_visible(s, w->resource);
	statement_lit(s, ") SELECT ");
	put_set_config(s, "composure.body");
	statement_text(s, body ? VIEW("pg_catalog.row_to_json(" ANSWERED ")::pg_catalog.text") : VIEW("''"));
	statement_lit(s, ", true), ");
	put_set_config(s, "composure.location");
	statement_lit(s, "pg_catalog.concat(");
	statement_param(s, path, TEXT_OID);
	for (unsigned i = 0; i < w->resource->n_key; i++) {
		statement_text(s, i ? VIEW(", ',', ") : VIEW(", '/', "));
		statement_text(s, key_column(w->resource, i)->quoted);
	}
	statement_lit(s, "), true), ");
	put_set_config(s, "role");
	statement_lit(s, "'none', true) FROM " ANSWERED);
	return statement_finish(s);
}

/* An integer column's value that is no integer names no row: PostgreSQL need not be asked. */
static bool can_be(const struct column *c, struct view v)
{
	if (c->base_oid != 20 && c->base_oid != 21 && c->base_oid != 23)
		return true;
	size_t at = v.n && v.p[0] == '-';
	if (v.n == at || v.n - at > 19)
		return false;
	for (; at < v.n; at++)
		if (v.p[at] < '0' || v.p[at] > '9')
			return false;
	return true;
}

/* WHERE: the key or the filters, and only the tenant's rows. */
static bool put_where(struct statement *s, const struct write *w)
{
	const struct resource *res = w->resource;
	struct view more = VIEW(" WHERE ");
	for (unsigned i = 0; w->key && i < res->n_key; i++) {
		const struct column *c = key_column(res, i);
		if (!can_be(c, w->key[i]))
			return false;
		statement_text(s, more);
		statement_lit(s, "t.");
		statement_text(s, c->quoted);
		statement_lit(s, " = ");
		statement_param(s, w->key[i], c->base_oid);
		more = VIEW(" AND ");
	}
	if (res->owner >= 0) {
		statement_text(s, more);
		statement_lit(s, "t.");
		statement_text(s, res->columns[res->owner].quoted);
		statement_lit(s, " = ");
		statement_param(s, w->owner, res->columns[res->owner].base_oid);
		more = VIEW(" AND ");
	}
	if (w->filters) {
		statement_text(s, more);
		filters_write(s, w->filters, VIEW("t."));
	}
	return true;
}

/* All rows are changed, but of those that come back not more than say that it were too many. */
static void bound_begin(struct statement *s, const struct write *w)
{
	if (w->returning && w->rows_max)
		statement_lit(s, "WITH w AS (");
}

static void bound_end(struct statement *s, const struct write *w)
{
	if (!w->returning || !w->rows_max)
		return;
	statement_lit(s, ") SELECT * FROM w LIMIT ");
	statement_number(s, (int64_t)w->rows_max + 1);
}

bool update_statement(struct statement *s, struct arena *a, const struct write *w)
{
	statement_init(s, a);
	bound_begin(s, w);
	statement_lit(s, "UPDATE ");
	statement_text(s, w->resource->relation);
	statement_lit(s, " AS t SET ");
	for (unsigned i = 0; i < w->n_columns; i++) {
		if (i)
			statement_lit(s, ", ");
		statement_text(s, w->column[i]->quoted);
		statement_lit(s, " = j.");
		statement_text(s, w->column[i]->quoted);
	}
	from_document(s, w);
	bool good = put_where(s, w);
	put_returning(s, w);
	bound_end(s, w);
	return statement_finish(s) && good;
}

static bool in_body(const struct write *w, const struct column *c)
{
	for (unsigned i = 0; i < w->n_columns; i++)
		if (w->column[i] == c)
			return true;
	return false;
}

bool replace_statement(struct statement *s, struct arena *a, const struct write *w)
{
	const struct resource *res = w->resource;
	bool first = true;
	statement_init(s, a);
	statement_lit(s, "UPDATE ");
	statement_text(s, res->relation);
	statement_lit(s, " AS t SET ");
	for (unsigned i = 0; i < res->n_columns; i++) {
		const struct column *c = &res->columns[i];
		if (c->hidden || !is_writable(res, c) || key_index(res, c) >= 0)
			continue;
		if (!first)
			statement_lit(s, ", ");
		first = false;
		statement_text(s, c->quoted);
		if (in_body(w, c)) {
			statement_lit(s, " = j.");
			statement_text(s, c->quoted);
		} else {
			statement_lit(s, " = DEFAULT");
		}
	}
	if (first) {
		/* There is nothing but the key: the row is what it is to be. */
		statement_text(s, key_column(res, 0)->quoted);
		statement_lit(s, " = t.");
		statement_text(s, key_column(res, 0)->quoted);
	}
	if (w->n_columns)
		from_document(s, w);
	bool good = put_where(s, w);
	put_returning(s, w);
	return statement_finish(s) && good;
}

bool delete_statement(struct statement *s, struct arena *a, const struct write *w)
{
	statement_init(s, a);
	bound_begin(s, w);
	statement_lit(s, "DELETE FROM ");
	statement_text(s, w->resource->relation);
	statement_lit(s, " AS t");
	bool good = put_where(s, w);
	put_returning(s, w);
	bound_end(s, w);
	return statement_finish(s) && good;
}

bool lock_statement(struct statement *s, struct arena *a, const struct write *w)
{
	statement_init(s, a);
	statement_lit(s, "SELECT ");
	select_columns(s, w->resource, (struct order){ w->resource->order, w->resource->n_order }, VIEW("t."));
	statement_lit(s, " FROM ");
	statement_text(s, w->resource->relation);
	statement_lit(s, " AS t");
	bool good = put_where(s, w);
	statement_lit(s, " FOR UPDATE");
	return statement_finish(s) && good;
}

/* --- whose fault it was --- */

/* PostgreSQL quotes the value that it could not read: 'invalid input syntax for type bigint: "abc"'. */
static bool quotes(struct view message, struct view value)
{
	if (!value.n || value.n + 2 > message.n)
		return false;
	for (size_t i = 0; i + value.n + 2 <= message.n; i++)
		if (message.p[i] == '"' && message.p[i + value.n + 1] == '"' && memcmp(message.p + i + 1, value.p, value.n) == 0)
			return true;
	return false;
}

const struct column *write_blame(const struct write *w, struct view message)
{
	const struct json *first = !w->body ? NULL : w->many ? w->body->child : w->body;
	for (const struct json *o = first; o; o = w->many ? o->next : NULL) {
		for (const struct json *m = o->child; m; m = m->next) {
			if (m->string.p && quotes(message, m->string))
				return resource_column(w->resource, m->name);
		}
	}
	return NULL;
}
