/* write: rows out of a request's body, and the statements that insert, change, replace or delete them. */
#ifndef COMPOSURE_WRITE_H
#define COMPOSURE_WRITE_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/json.h"
#include "base/status.h"
#include "catalog/catalog.h"
#include "db/statement.h"
#include "query/filter.h"

/* The media types that a body may have; all of them become one JSON document. */
enum document { DOCUMENT_JSON, DOCUMENT_FORM, DOCUMENT_CSV };

struct write_limits {
	unsigned depth;  /* of nested arrays and objects */
	size_t values;   /* in all */
	size_t rows;
};

/* What becomes of a row that is there already. */
enum resolution { RESOLVE_REFUSE, RESOLVE_MERGE, RESOLVE_IGNORE };

struct write {
	const struct resource *resource;
	struct view owner;        /* the tenant, where the resource has an owner column */
	const struct view *key;   /* of an item, one value for each key column; NULL: none */

	const struct filters *filters; /* which rows, without a key; NULL: all, or those of the key */

	const struct json *body;  /* an object, or an array of objects */
	bool many;                /* it is an array */
	size_t n_rows;
	const struct column **column; /* what of the body is written, in its order */
	unsigned n_columns;
	enum resolution resolution;
	const struct column **conflict; /* the columns that make a row the same; for RESOLVE_* */
	unsigned n_conflict;

	bool returning;           /* the role may read what it wrote, and somebody looks at it */
	size_t rows_max;          /* more rows need not come back: 0, no bound */
};

/* Reads a body. OK, or ERR_INVALID_BODY with *detail in the arena. One row of a form; CSV needs a line of names, and
 * its empty fields without quotes are null. */
const struct json *write_document(struct arena *, enum document, struct view body, const struct write_limits *,
                                  struct view *detail) MUST_CHECK;

/* Takes the body as the rows of the write. `columns` (absent: those of the first row, which all rows must then have) is
 * the parameter of that name. OK, ERR_INVALID_BODY, ERR_UNKNOWN_COLUMN, ERR_READ_ONLY_COLUMN, ERR_QUERY_TOO_COMPLEX;
 * *detail names what is wrong. Needs resource and, for an item, key. */
enum status write_rows(struct write *, struct arena *, const struct json *body, struct view columns,
                       const struct write_limits *, struct view *detail) MUST_CHECK;

/* Takes the parameter on_conflict; absent: the key. ERR_UNKNOWN_COLUMN. */
enum status write_conflict(struct write *, struct arena *, struct view columns, struct view *detail) MUST_CHECK;

/* One statement for all rows; the document itself is the parameter, so that PostgreSQL reads numbers from their own
 * digits. RETURNING what select_columns() selects for the default order. False: the arena is full, or a value of the
 * key cannot be one of its column. */
bool insert_statement(struct statement *, struct arena *, const struct write *) MUST_CHECK;

/* Whether PostgreSQL itself can make the answer to the insertion of one row: its key needs no more than its own digits in
 * a path, and no column has the name that insert_answered() uses. */
bool insert_can_answer(const struct write *);

/* insert_statement() of one row, which also makes the answer (path: what stands before the key in its Location) and
 * keeps it for the rest of the transaction: one row of its body, as `body` says what that is, and its Location. The
 * caller's role is given back, so that the answer can be recorded in the same trip. Only where no code of the user's runs:
 * such code could change the answer. */
bool insert_answered(struct statement *, struct arena *, const struct write *, struct view path, bool body) MUST_CHECK;

/* The columns of the body, in the rows of the key or of the filters. */
bool update_statement(struct statement *, struct arena *, const struct write *) MUST_CHECK;

/* The whole row of the key: columns that are not in the body get their defaults. */
bool replace_statement(struct statement *, struct arena *, const struct write *) MUST_CHECK;

bool delete_statement(struct statement *, struct arena *, const struct write *) MUST_CHECK;

/* Reads the row of the key and locks it until the end of the transaction. */
bool lock_statement(struct statement *, struct arena *, const struct write *) MUST_CHECK;

/* The column whose value in the body PostgreSQL could not read, by the words of its error; NULL: it cannot be told. */
const struct column *write_blame(const struct write *, struct view message);

#endif
