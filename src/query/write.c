#include "config.h"

#include "query/write.h"

#include "query/read.h"

enum { JSON_OID = 114, DEPTH_MAX = 64, VALUES_MAX = 200000 };

static enum status check_members(struct arena *a, const struct resource *res, const struct json *o, struct view *detail)
{
	for (const struct json *m = o->child; m; m = m->next) {
		const struct column *c = resource_column(res, m->name);
		if (!c) {
			*detail = arena_printf(a, "There is no column \"%.*s\".", VIEW_ARG(m->name));
			return ERR_UNKNOWN_COLUMN;
		}
		bool owner = res->owner >= 0 && c == &res->columns[res->owner];
		if (c->read_only || c->generated || owner) {
			*detail = arena_printf(a, "The column \"%.*s\" cannot be written.", VIEW_ARG(m->name));
			return ERR_READ_ONLY_COLUMN;
		}
	}
	return OK;
}

/* Of an object that has passed check_members(): no longer than the table is wide. */
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

static enum status check_rows(struct arena *a, const struct resource *res, const struct json *first, struct view *detail)
{
	for (const struct json *o = first; o; o = o->next) {
		if (o->kind != JSON_OBJECT) {
			*detail = VIEW("The body has to be an object or an array of objects.");
			return ERR_INVALID_BODY;
		}
		enum status st = o == first ? check_members(a, res, o, detail) : OK;
		if (st != OK)
			return st;
		if (o != first && !same_members(first, o)) {
			*detail = VIEW("All objects have to have the same members.");
			return ERR_INVALID_BODY;
		}
	}
	return OK;
}

enum status insert_parse(struct arena *a, const struct resource *res, struct view body, struct insert *in,
                         struct view *detail)
{
	struct json_limits limits = { .depth = DEPTH_MAX, .values = VALUES_MAX };
	const struct json *doc = json_parse(a, body, &limits, detail);
	if (!doc)
		return ERR_INVALID_BODY;
	const struct json *first = doc->kind == JSON_ARRAY ? doc->child : doc;
	if (!first) {
		*detail = VIEW("The array is empty: there is nothing to insert.");
		return ERR_INVALID_BODY;
	}
	enum status st = check_rows(a, res, first, detail);
	if (st != OK)
		return st;
	if (doc->kind == JSON_ARRAY && first->n_children == 0) {
		*detail = VIEW("The objects of an array need at least one member.");
		return ERR_INVALID_BODY;
	}
	in->body = doc;
	in->many = doc->kind == JSON_ARRAY;
	return OK;
}

static void put_names(struct statement *s, const struct resource *res, const struct json *o, struct view prefix)
{
	for (const struct json *m = o->child; m; m = m->next) {
		if (m != o->child)
			statement_lit(s, ", ");
		statement_text(s, prefix);
		statement_text(s, resource_column(res, m->name)->quoted);
	}
}

/* The document as a table of the members that it has, each of its column's type. Not json_populate_record(NULL::table):
 * that runs the columns which are not in the document through their types, too, and a domain that is NOT NULL then
 * refuses a row whose column has a default. */
static void from_document(struct statement *s, const struct resource *res, const struct insert *in,
                          const struct json *first)
{
	statement_text(s, in->many ? VIEW(" FROM pg_catalog.json_to_recordset(") : VIEW(" FROM pg_catalog.json_to_record("));
	statement_param(s, in->body->text, JSON_OID);
	statement_lit(s, ") AS j(");
	for (const struct json *m = first->child; m; m = m->next) {
		const struct column *c = resource_column(res, m->name);
		if (m != first->child)
			statement_lit(s, ", ");
		statement_text(s, c->quoted);
		statement_lit(s, " ");
		statement_text(s, c->type);
	}
	statement_lit(s, ")");
}

bool insert_statement(struct statement *s, struct arena *a, const struct resource *res, const struct insert *in,
                      struct view owner)
{
	const struct json *first = in->many ? in->body->child : in->body;
	struct view comma = first->child ? VIEW(", ") : VIEW("");
	statement_init(s, a);
	statement_lit(s, "INSERT INTO ");
	statement_text(s, res->relation);
	statement_lit(s, " AS t");
	if (!first->child && res->owner < 0 && !in->many) {
		statement_lit(s, " DEFAULT VALUES");
	} else {
		statement_lit(s, " (");
		put_names(s, res, first, VIEW(""));
		if (res->owner >= 0) {
			statement_text(s, comma);
			statement_text(s, res->columns[res->owner].quoted);
		}
		statement_lit(s, ") SELECT ");
		put_names(s, res, first, VIEW("j."));
		if (res->owner >= 0) {
			statement_text(s, comma);
			statement_param(s, owner, res->columns[res->owner].base_oid);
		}
		if (first->child)
			from_document(s, res, in, first);
	}
	if (in->returning) {
		statement_lit(s, " RETURNING ");
		select_columns(s, res, (struct order){ res->order, res->n_order }, VIEW("t."));
	}
	return statement_finish(s);
}
