/* etag: the strong entity tag of a body (RFC 9110 section 8.8.3): its hash under a key of the installation, so that all
 * hosts give the same one and no client can make two bodies that share one. */
#ifndef COMPOSURE_ETAG_H
#define COMPOSURE_ETAG_H

#include <stdbool.h>

#include "base/siphash.h"
#include "base/view.h"

enum { ETAG_CHARS = 2 + 2 * SIPHASH_BYTES }; /* quotes and all */

void etag_of(const uint8_t key[SIPHASH_KEY_BYTES], struct view body, char out[ETAG_CHARS]);

/* Whether a list of tags (If-Match, If-None-Match), or "*", takes in this one. `strong`: a weak tag never matches;
 * else weakness is not looked at. */
bool etag_matches(struct view list, struct view tag, bool strong);

#endif
