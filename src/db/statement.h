/* statement: an SQL text and its parameters, grown together, so that a value is never in the text.
 *
 * Text and parameters lie in the arena. Names come out of the catalog already quoted; values only ever become `$n`,
 * with the type they are to be read as (a base type's OID, so that an index of that type can be used).
 */
#ifndef COMPOSURE_STATEMENT_H
#define COMPOSURE_STATEMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/view.h"

enum { STATEMENT_PARAMS_MAX = 1024 };

/* The parts of libpq's call, kept as it wants them. Values are text, NUL-terminated; NULL is SQL's NULL. */
struct statement {
	struct arena *arena;
	char *text; /* NUL-terminated by statement_finish() */
	size_t n_text, cap_text;
	const char **values;
	uint32_t *types; /* 0: let PostgreSQL infer it */
	int n_params, cap_params;
	uint64_t hash; /* of the text: the class of the statement, set by statement_finish() */
	bool failed;   /* the arena is full, or there are too many parameters */
};

void statement_init(struct statement *, struct arena *);

/* Text that is ours: literals of this program, and names as the catalog quotes them. */
void statement_text(struct statement *, struct view sql);
#define statement_lit(s, lit) statement_text((s), VIEW(lit))

/* Appends $n and takes value as its n-th parameter; an absent value is NULL. The value is copied. */
void statement_param(struct statement *, struct view value, uint32_t type_oid);

/* Appends the decimal digits of a number of ours. */
void statement_number(struct statement *, int64_t);

/* Terminates the text and computes the hash. False when something did not fit: the statement is not to be used. */
bool statement_finish(struct statement *) MUST_CHECK;

/* The class of a text. */
uint64_t statement_hash(struct view text);

/* A double-quoted SQL identifier in the arena. */
struct view quote_identifier(struct arena *, struct view name) MUST_CHECK;

#endif
