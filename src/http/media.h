/* media: content negotiation (RFC 9110 section 12.5.1), for the few types that we make and take. */
#ifndef COMPOSURE_MEDIA_H
#define COMPOSURE_MEDIA_H

#include <stdbool.h>
#include <stddef.h>

#include "base/view.h"

/* The index of the offered type ("application/json") that `accept` weighs highest; of equals the one offered first.
 * An absent or empty Accept takes the first. -1 when none is acceptable. More specific ranges win over wildcards,
 * parameters other than q are ignored, a malformed element is ignored. */
int media_choose(struct view accept, const struct view *offered, size_t n_offered);

/* True when content_type names this type, whatever its parameters ("application/json; charset=utf-8"). */
bool media_is(struct view content_type, struct view type);

#endif
