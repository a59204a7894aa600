/* value: texts that are to become a column's value, judged as far as that can be done without PostgreSQL. */
#ifndef COMPOSURE_VALUE_H
#define COMPOSURE_VALUE_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/view.h"
#include "catalog/catalog.h"

/* False where PostgreSQL would certainly refuse it: no integer, or beyond the bounds of its type; no number, no uuid.
 * True says nothing. */
bool value_may_be(const struct column *, struct view text);

/* Whether its type is one of PostgreSQL's integers. */
bool value_is_integer(const struct column *);

/* Whether its type is one of PostgreSQL's own for text: text, varchar, char, name. */
bool value_is_text(const struct column *);

/* The text of an array of one dimension, every element in quotes. Absent when the arena is full. */
struct view value_array(struct arena *, const struct view *item, unsigned n) MUST_CHECK;

#endif
