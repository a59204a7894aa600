/* rows: a result as the rooms to the right see it (binary format; PGresult stays in db/). */
#ifndef COMPOSURE_ROWS_H
#define COMPOSURE_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attributes.h"
#include "base/status.h"
#include "base/view.h"

struct rows;

/* For whoever kept them (see query.rows in db/pool.h). NULL is fine. */
void rows_free(struct rows *);

int rows_count(const struct rows *);
int rows_columns(const struct rows *);

/* The OID of the column's type: of a domain, that of what it is made of. */
uint32_t rows_type(const struct rows *, int column);

/* The value as PostgreSQL sends it in binary format; absent is NULL. Valid while the rows are. */
struct view rows_value(const struct rows *, int row, int column);

/* How many rows a statement without RETURNING touched (its command tag); 0 when the tag names none. */
int64_t rows_affected(const struct rows *);

/* Big-endian integers as binary format has them; the view must have that many bytes, else 0. */
int64_t rows_int(struct view value);

/* How many elements an array in binary format has; *value is left as what rows_array_next() takes them from. -1 when it
 * is NULL, or no array of one dimension without NULLs. Lengths are checked against the view. */
int rows_array(struct view *value);
bool rows_array_next(struct view *rest, struct view *element);

/* What PostgreSQL said was wrong. The views are valid during the callback only. */
struct db_error {
	char sqlstate[6];          /* "" when the connection failed without one */
	struct view message;       /* primary message */
	struct view detail, hint;  /* absent when not given */
	struct view constraint, column, table;
	struct view context;
	bool no_writes;            /* the server takes none: it is a replica. Nothing took effect */
};

/* What it means for the client. */
enum status db_error_status(const struct db_error *);

/* The elements of an array of texts, as views of it: how many there are. ROWS_ANY when it is absent, is not one, has an
 * element that is null, or has more than max: what is a list of keys may then be any of them. */
enum { ROWS_ANY = 1 << 30 };
unsigned rows_texts(struct view array, struct view *out, unsigned max) MUST_CHECK;

#endif
