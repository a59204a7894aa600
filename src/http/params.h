/* params: a query string, taken apart.
 *
 * application/x-www-form-urlencoded as browsers and curl send it: '&' separates, '+' is a blank, percent escapes are
 * decoded once. Order is kept; names may repeat (the reader decides whether they may); pieces with nothing in them
 * ("a=1&&b=2", a trailing '&') are left out.
 */
#ifndef COMPOSURE_PARAMS_H
#define COMPOSURE_PARAMS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/status.h"
#include "base/view.h"

struct param {
	struct view name;  /* decoded, valid UTF-8 without NUL */
	struct view value; /* decoded likewise; empty for "name" and "name=" */
};

struct params {
	struct param *item; /* in the arena */
	size_t n;
};

/* OK, ERR_BAD_REQUEST (bad escape, bad UTF-8, NUL), or ERR_QUERY_TOO_COMPLEX (more than max, or the arena is full).
 * *detail says what. Names and values without escapes are views of the query, the others lie in the arena. */
enum status params_parse(struct arena *, struct view query, size_t max, struct params *, struct view *detail) MUST_CHECK;

/* Decodes percent escapes (and '+' when plus_is_blank) into the arena; absent on a bad escape. No other checks. */
struct view percent_decode(struct arena *, struct view v, bool plus_is_blank) MUST_CHECK;

/* Appends v with everything but RFC 3986 unreserved characters escaped. */
void percent_encode(struct buf *out, struct view v);

#endif
