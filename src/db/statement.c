#include "config.h"

#include "db/statement.h"

#include "base/buf.h"

void statement_init(struct statement *s, struct arena *a)
{
	*s = (struct statement){ .arena = a };
}

static bool text_room(struct statement *s, size_t n)
{
	if (s->failed)
		return false;
	if (s->cap_text - s->n_text >= n)
		return true;
	size_t cap = s->cap_text ? s->cap_text : 512;
	while (cap < s->n_text + n)
		cap *= 2;
	char *grown = arena_alloc(s->arena, cap);
	if (!grown) {
		s->failed = true;
		return false;
	}
	if (s->n_text)
		memcpy(grown, s->text, s->n_text);
	s->text = grown;
	s->cap_text = cap;
	return true;
}

void statement_text(struct statement *s, struct view sql)
{
	if (!sql.n || !text_room(s, sql.n))
		return;
	memcpy(s->text + s->n_text, sql.p, sql.n);
	s->n_text += sql.n;
}

void statement_number(struct statement *s, int64_t n)
{
	char room[DECIMAL_MAX];
	if (n < 0)
		statement_lit(s, "-");
	statement_text(s, decimal(n < 0 ? 0 - (uint64_t)n : (uint64_t)n, room));
}

static bool params_room(struct statement *s)
{
	if (s->n_params < s->cap_params)
		return true;
	if (s->failed || s->n_params == STATEMENT_PARAMS_MAX)
		return false;
	size_t cap = s->cap_params ? (size_t)s->cap_params * 2 : 16;
	const char **values = ARENA_ARRAY(s->arena, const char *, cap);
	uint32_t *types = ARENA_ARRAY(s->arena, uint32_t, cap);
	if (!values || !types)
		return false;
	if (s->n_params) {
		memcpy(values, s->values, (size_t)s->n_params * sizeof *values);
		memcpy(types, s->types, (size_t)s->n_params * sizeof *types);
	}
	s->values = values;
	s->types = types;
	s->cap_params = (int)cap;
	return true;
}

void statement_param(struct statement *s, struct view value, uint32_t type_oid)
{
	if (!params_room(s)) {
		s->failed = true;
		return;
	}
	struct view kept = arena_copy(s->arena, value);
	if (value.p && !kept.p)
		s->failed = true;
	s->values[s->n_params] = kept.p;
	s->types[s->n_params] = type_oid;
	s->n_params++;
	statement_lit(s, "$");
	statement_number(s, s->n_params);
}

/* Like FNV-1a, but eight bytes at a time: a class is a bucket and a name, nothing that an attacker gains by colliding: a
 * statement whose name is taken by another text would fail to bind, so conn compares the texts (see conn.c). */
uint64_t statement_hash(struct view text)
{
	uint64_t h = 0xcbf29ce484222325u + text.n;
	for (uint64_t word = 0; text.n; word = 0) {
		size_t n = text.n < sizeof word ? text.n : sizeof word;
		memcpy(&word, text.p, n);
		h = (h ^ word) * 0x9e3779b97f4a7c15u;
		h ^= h >> 32;
		text = view_skip(text, n);
	}
	return h ? h : 1;
}

bool statement_finish(struct statement *s)
{
	if (!text_room(s, 1))
		return false;
	s->text[s->n_text] = '\0';
	s->hash = statement_hash(view_make(s->text, s->n_text));
	return true;
}

struct view quote_identifier(struct arena *a, struct view name)
{
	size_t quotes = 0;
	for (size_t i = 0; i < name.n; i++)
		quotes += name.p[i] == '"';
	char *out = arena_alloc(a, name.n + quotes + 3);
	if (!out)
		return VIEW_NONE;
	size_t n = 0;
	out[n++] = '"';
	for (size_t i = 0; i < name.n; i++) {
		if (name.p[i] == '"')
			out[n++] = '"';
		out[n++] = name.p[i];
	}
	out[n++] = '"';
	out[n] = '\0';
	return view_make(out, n);
}
