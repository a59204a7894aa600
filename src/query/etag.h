/* etag: the strong entity tag of a body (RFC 9110 section 8.8.3): the beginning of its SHA-256. */
#ifndef COMPOSURE_ETAG_H
#define COMPOSURE_ETAG_H

#include <stdbool.h>

#include "base/view.h"

enum { ETAG_CHARS = 2 + 32 }; /* quotes and all */

void etag_of(struct view body, char out[ETAG_CHARS]);

/* Whether a list of tags (If-Match, If-None-Match), or "*", takes in this one. `strong`: a weak tag never matches;
 * else weakness is not looked at. */
bool etag_matches(struct view list, struct view tag, bool strong);

#endif
