/* The one hard fact: "after the cursor" is lexicographic, not each column after its value; and PostgreSQL answers it
 * from an index only in a few forms. With one million rows: a row comparison 4 buffers; a pure OR 405 ms; UNION ALL of
 * one branch per prefix, each ordered and limited, 0.19 ms. NULLs are in no comparison, so they get branches of their
 * own. */
#include "config.h"

#include "query/cursor.h"

#include <assert.h>

#include "base/base64.h"
#include "base/json.h"
#include "query/value.h"

/* --- reading --- */

static bool value_fits(const struct sort_term *t, const struct json *v)
{
	const struct column *c = &t->field.type;
	switch (v->kind) {
	case JSON_NULL: return !t->not_null;
	case JSON_TRUE:
	case JSON_FALSE: return c->category == 'B';
	case JSON_NUMBER: return c->category == 'N' && value_may_be(c, v->string);
	case JSON_STRING: /* a number's too: "NaN", "Infinity" */
		return c->category != 'B' && (c->category != 'N' || !value_is_integer(c));
	case JSON_ARRAY:
	case JSON_OBJECT: return c->category != 'B' && c->category != 'N';
	}
	return false;
}

static struct view value_text(const struct json *v)
{
	switch (v->kind) {
	case JSON_NULL: return VIEW_NONE;
	case JSON_STRING:
	case JSON_NUMBER: return v->string;
	case JSON_TRUE:
	case JSON_FALSE:
	case JSON_ARRAY:
	case JSON_OBJECT: break;
	}
	return v->text;
}

/* "<" and what the cursor is bound to, as the member "" has it. False: it is another list's. */
static bool take_binding(const struct json *o, struct view bound_to, struct cursor *cursor)
{
	const struct json *m = json_member(o, VIEW(""));
	cursor->backward = false;
	if (!m)
		return true;
	if (m->kind != JSON_STRING)
		return false;
	struct view v = m->string;
	cursor->backward = view_starts(v, VIEW("<"));
	if (cursor->backward)
		v = view_skip(v, 1);
	return v.n == 0 || view_eq(v, bound_to);
}

enum status cursor_parse(struct arena *a, const struct sort *sort, struct view bound_to, size_t max_bytes,
                         struct view text, struct cursor *cursor, struct view *detail)
{
	if (text.n > max_bytes || sort->n > SORT_TERMS_MAX) {
		*detail = VIEW("The cursor is too long.");
		return ERR_INVALID_CURSOR;
	}
	struct view bytes = base64url_decode(a, text);
	if (!bytes.p || bytes.n == 0) {
		*detail = VIEW("The cursor is not base64url.");
		return ERR_INVALID_CURSOR;
	}
	struct json_limits limits = { .depth = 8, .values = 256 };
	struct view why;
	const struct json *o = json_parse(a, bytes, &limits, &why);
	if (!o || o->kind != JSON_OBJECT || o->n_children != sort->n + (json_member(o, VIEW("")) != NULL)) {
		*detail = VIEW("The cursor does not hold the sort columns of this list.");
		return ERR_INVALID_CURSOR;
	}
	if (!take_binding(o, bound_to, cursor)) {
		*detail = VIEW("The cursor belongs to a list with another order or other filters.");
		return ERR_INVALID_CURSOR;
	}
	for (unsigned i = 0; i < sort->n; i++) {
		const struct sort_term *t = &sort->term[i];
		const struct json *v = json_member(o, t->name);
		if (!v || !value_fits(t, v)) {
			*detail = arena_printf(a, "The cursor has no fitting value for \"%.*s\".", VIEW_ARG(t->name));
			return ERR_INVALID_CURSOR;
		}
		cursor->value[i] = value_text(v);
	}
	cursor->set = true;
	return OK;
}

bool cursor_put(struct buf *b, const struct sort *sort, struct view bound_to, bool backward, const enum render_kind *kind,
                const struct view *value, size_t max_bytes)
{
	struct buf json = BUF(max_bytes / 4 * 3);
	for (unsigned i = 0; i < sort->n; i++) {
		buf_putc(&json, i ? ',' : '{');
		json_string(&json, sort->term[i].name);
		buf_putc(&json, ':');
		render_value(&json, kind[i], value[i]);
	}
	if (bound_to.n || backward) {
		buf_view_put(&json, backward ? VIEW(",\"\":\"<") : VIEW(",\"\":\""));
		buf_view_put(&json, bound_to);
		buf_putc(&json, '"');
	}
	buf_putc(&json, '}');
	bool good = !buf_failed(&json) && sort->n <= SORT_TERMS_MAX;
	if (good)
		base64url_put(b, buf_view(&json));
	buf_free(&json);
	return good;
}

/* --- writing SQL --- */

/* What a branch asks of term `at`, the ones before it being equal to the cursor. */
enum branch_kind {
	BRANCH_ROW,   /* (at, ..., last) after the cursor's values, as one row comparison */
	BRANCH_VALUE, /* at after its value */
	BRANCH_NULL,  /* at is NULL, where NULLs come after values */
	BRANCH_NOT_NULL, /* at is not NULL, where the cursor stands among the NULLs that come first */
};

struct branch {
	enum branch_kind kind;
	unsigned at;
};

enum { BRANCHES_MAX = 2 * SORT_TERMS_MAX };

/* One direction from term i on, and no NULL in the terms behind it. A NULL in term i itself makes the row comparison
 * NULL, so such rows are not in it: they are BRANCH_NULL's. */
static bool row_comparable(const struct sort *sort, unsigned i)
{
	for (unsigned k = i + 1; k < sort->n; k++)
		if (sort->term[k].desc != sort->term[i].desc || !sort->term[k].not_null)
			return false;
	return true;
}

static unsigned branches(const struct sort *sort, const struct cursor *cursor, struct branch out[BRANCHES_MAX])
{
	unsigned n = 0;
	for (unsigned i = 0; i < sort->n; i++) {
		const struct sort_term *t = &sort->term[i];
		bool at_null = !cursor->value[i].p;
		if (at_null && t->nulls_first) {
			out[n++] = (struct branch){ BRANCH_NOT_NULL, i };
		} else if (!at_null) {
			bool row = row_comparable(sort, i);
			out[n++] = (struct branch){ row ? BRANCH_ROW : BRANCH_VALUE, i };
			if (!t->not_null && !t->nulls_first)
				out[n++] = (struct branch){ BRANCH_NULL, i };
			if (row)
				break;
		}
	}
	return n;
}

unsigned cursor_branches(const struct sort *sort, const struct cursor *cursor)
{
	struct branch b[BRANCHES_MAX];
	return cursor->set ? branches(sort, cursor, b) : 1;
}

static void put_value(struct statement *s, const struct sort *sort, const struct cursor *cursor, unsigned i)
{
	statement_param(s, cursor->value[i], sort->term[i].field.type.base_oid);
}

static void put_row_comparison(struct statement *s, const struct sort *sort, const struct cursor *cursor, unsigned at,
                               struct view qualifier)
{
	statement_lit(s, "(");
	for (unsigned i = at; i < sort->n; i++) {
		if (i > at)
			statement_lit(s, ", ");
		sort_term_write(s, sort, i, qualifier, false);
	}
	statement_text(s, sort->term[at].desc ? VIEW(") < (") : VIEW(") > ("));
	for (unsigned i = at; i < sort->n; i++) {
		if (i > at)
			statement_lit(s, ", ");
		put_value(s, sort, cursor, i);
	}
	statement_lit(s, ")");
}

static void put_prefix(struct statement *s, const struct sort *sort, const struct cursor *cursor, unsigned until,
                       struct view qualifier)
{
	for (unsigned i = 0; i < until; i++) {
		sort_term_write(s, sort, i, qualifier, false);
		if (cursor->value[i].p) {
			statement_lit(s, " = ");
			put_value(s, sort, cursor, i);
		} else {
			statement_lit(s, " IS NULL");
		}
		statement_lit(s, " AND ");
	}
}

void cursor_condition(struct statement *s, const struct sort *sort, const struct cursor *cursor, unsigned branch,
                      struct view qualifier)
{
	struct branch all[BRANCHES_MAX];
	unsigned n = branches(sort, cursor, all);
	assert(branch < n);
	(void)n;
	struct branch b = all[branch];
	put_prefix(s, sort, cursor, b.at, qualifier);
	if (b.kind == BRANCH_ROW) {
		put_row_comparison(s, sort, cursor, b.at, qualifier);
		return;
	}
	sort_term_write(s, sort, b.at, qualifier, false);
	if (b.kind == BRANCH_VALUE) {
		statement_text(s, sort->term[b.at].desc ? VIEW(" < ") : VIEW(" > "));
		put_value(s, sort, cursor, b.at);
	} else {
		statement_text(s, b.kind == BRANCH_NULL ? VIEW(" IS NULL") : VIEW(" IS NOT NULL"));
	}
}
