/* render: values as PostgreSQL sends them (binary format) to JSON, byte for byte what to_json() makes of them in a
 * session whose time zone is UTC.
 *
 * Types whose JSON form is plain are asked for as they are and written here (measured: PostgreSQL serves 3.7 times as
 * many 50-row pages when it does not build the JSON); all others go through to_json() in SQL and are copied.
 */
#ifndef COMPOSURE_RENDER_H
#define COMPOSURE_RENDER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/view.h"
#include "catalog/catalog.h"
#include "db/statement.h"

enum render_kind {
	RENDER_RAW, /* JSON text already */
	RENDER_BOOL,
	RENDER_INT,
	RENDER_NUMERIC,
	RENDER_TEXT,
	RENDER_UUID,
	RENDER_DATE,
	RENDER_TIMESTAMP,
	RENDER_TIMESTAMPTZ,
	RENDER_JSONB,
};

enum render_kind render_kind(const struct column *);

/* Whether it has to go through to_json() in SQL. */
bool render_converts(const struct column *);

/* Appends the column as it is to be selected, of the table that `qualifier` names ("t." or empty). */
void render_select(struct statement *, const struct column *, struct view qualifier);

/* True where PostgreSQL does not read back what the JSON says: arrays, jsonb, and types that bring a cast to json of
 * their own. In a cursor or a path such a value stands as PostgreSQL's text of it, selected beside its JSON. */
bool render_needs_text(const struct column *);

/* Appends the value as JSON; absent is null. A value of a length that its type cannot have is null, too. */
void render_value(struct buf *, enum render_kind, struct view value);

/* Appends the value as plain text, as it stands in a URL: a string without its quotes. */
void render_text(struct buf *, enum render_kind, struct view value);

#endif
