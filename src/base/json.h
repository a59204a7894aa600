/* json: strict JSON text (RFC 8259), read as tokens and written as text. Numbers stay text: nothing here turns
 * digits into integers or doubles, so nothing can round or saturate them.
 */
#ifndef COMPOSURE_JSON_H
#define COMPOSURE_JSON_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/status.h"
#include "base/view.h"

enum json_kind { JSON_NULL, JSON_TRUE, JSON_FALSE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

/* One value of a parsed document. Children of an array or object are a list by `next`. */
struct json {
	enum json_kind kind;
	struct view text;   /* the value as it stands in the document, quotes included */
	struct view string; /* STRING: decoded (UTF-8); NUMBER: its digits; else absent */
	struct view name;   /* decoded member name, when this is an object's member; else absent */
	struct json *child; /* first element or member */
	struct json *next;
	size_t n_children;
};

struct json_limits {
	unsigned depth;     /* of nested arrays and objects */
	size_t values;      /* in all */
};

/* Parses a whole document; the tree lies in the arena, `text` views point into doc, which must outlive it. NULL when
 * it is not JSON: bad syntax, trailing data, invalid UTF-8, duplicate members, \u0000 (PostgreSQL's text cannot hold
 * it), lone surrogates, NaN, or over a limit; *detail then says what and at which byte, in words for the client. */
struct json *json_parse(struct arena *, struct view doc, const struct json_limits *, struct view *detail) MUST_CHECK;

/* The member called name, or NULL. */
struct json *json_member(const struct json *object, struct view name);

/* Appends v as a JSON string with its quotes. v must be valid UTF-8 (what PostgreSQL sends is); control characters,
 * quotes and backslashes are escaped as to_json() does it. */
void json_string(struct buf *, struct view v);

/* True when v is UTF-8 without overlong forms, surrogates, or code points above U+10FFFF (RFC 3629). */
bool utf8_valid(struct view v);

#endif
