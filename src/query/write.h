/* write: new rows out of a JSON body. */
#ifndef COMPOSURE_WRITE_H
#define COMPOSURE_WRITE_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/json.h"
#include "base/status.h"
#include "catalog/catalog.h"
#include "db/statement.h"

struct insert {
	const struct json *body; /* an object, or an array of objects with the same members */
	bool many;               /* it was an array */
	bool returning;          /* the role may read what it wrote */
};

/* Judges the body: OK, ERR_INVALID_BODY, ERR_UNKNOWN_COLUMN, ERR_READ_ONLY_COLUMN. *detail names what is wrong and
 * lies in the arena. */
enum status insert_parse(struct arena *, const struct resource *, struct view body, struct insert *,
                         struct view *detail) MUST_CHECK;

/* One statement for all rows; the document itself is the parameter, so that PostgreSQL reads numbers from their own
 * digits. RETURNING what select_columns() selects for the default order. owner: the tenant that the rows are to belong
 * to, where the resource has an owner column. False: the arena is full. */
bool insert_statement(struct statement *, struct arena *, const struct resource *, const struct insert *,
                      struct view owner) MUST_CHECK;

#endif
