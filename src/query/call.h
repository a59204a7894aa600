/* call: a function, its arguments by name, and what it returned as JSON. */
#ifndef COMPOSURE_CALL_H
#define COMPOSURE_CALL_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/status.h"
#include "catalog/catalog.h"
#include "db/rows.h"
#include "db/statement.h"
#include "http/params.h"

struct call {
	const struct function *function;
	const struct json *body;     /* an object of arguments; NULL: they come as texts */
	const struct params *params;
	const struct argument **given; /* in the order of the object's members, or of the parameters */
	unsigned n_given;
};

/* Takes the arguments out of an object, or out of a query string. ERR_INVALID_BODY, ERR_UNKNOWN_PARAMETER,
 * ERR_INVALID_PARAMETER; *detail names what is unknown, missing or twice. Needs function. */
enum status call_take(struct call *, struct arena *, const struct json *body, struct view *detail) MUST_CHECK;
enum status call_take_params(struct call *, struct arena *, const struct params *, struct view *detail) MUST_CHECK;

/* One column of JSON. Of a set, one row more than function->rows_max. False: the arena is full. */
bool call_statement(struct statement *, struct arena *, const struct call *) MUST_CHECK;

/* Appends the bare value; of a set the envelope of a page; nothing for void. */
void call_write(struct buf *, const struct call *, const struct rows *);

/* Which argument PostgreSQL could not read, in words for the client; absent: it cannot be told. */
struct view call_blame(const struct call *, struct arena *, struct view message);

#endif
