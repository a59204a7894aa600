/* field: a column, or a place inside one by a json path (data->items->0->>name), with the type that it yields. */
#ifndef COMPOSURE_FIELD_H
#define COMPOSURE_FIELD_H

#include <stdbool.h>

#include "base/view.h"
#include "catalog/catalog.h"
#include "db/statement.h"
#include "query/scan.h"

/* One step of a path: a member's name, or an element's number. They are the client's, so they become parameters. */
struct path_step {
	struct view key;
	bool is_number, as_text; /* as_text: ->> */
};

struct field {
	const struct column *column; /* of the resource */
	const struct path_step *step;
	unsigned n_steps;
	struct column type; /* what it yields, as a column: the column itself when there is no path */
};

/* The field that is written next; steps may follow a name. False, and failed: ERR_UNKNOWN_COLUMN, or `otherwise` when
 * its form is wrong. */
bool field_read(struct scan *, const struct resource *, enum status otherwise, struct field *) MUST_CHECK;

/* The steps behind a column that was found already. */
bool field_steps(struct scan *, const struct column *, enum status otherwise, struct field *) MUST_CHECK;

/* The column itself. */
struct field field_of(const struct column *);

/* What such a member is called where no alias is given: the last name in the path. */
struct view field_name(const struct field *);

bool field_same(const struct field *, const struct field *);

/* Appends the expression for the table that `qualifier` names. */
void field_write(struct statement *, const struct field *, struct view qualifier);

#endif
