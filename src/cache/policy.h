/* policy: how long an answer may be kept, and by whom: what expose() was told, as header fields.
 *
 * Without a word of the user's an answer is "private, no-cache": a browser may keep it, and asks each time whether it is
 * still right (ETag). `ttl`, `min-fresh` and `max-lag` are ours alone and are never sent. What is not `public` goes to no
 * shared cache.
 */
#ifndef COMPOSURE_POLICY_H
#define COMPOSURE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/view.h"

struct cache_policy {
	/* In our own store, microseconds: how long an answer lives (0: it is not kept), how long it may be served after that or
	 * after a change while it is made anew, and while PostgreSQL fails; and how long it lives through others' changes. */
	int64_t ttl_us, revalidate_us, if_error_us, min_fresh_us;
	int64_t max_lag_us; /* of a replica that it is read from; 0: of none, below 0: as the setting says */
	bool is_public;     /* it is the same for everybody, and shared caches may keep it */
	struct view control; /* Cache-Control */
	struct view cdn;     /* CDN-Cache-Control (RFC 9213); absent: none is sent */
	struct view narrow;  /* Cache-Control of an answer that holds something that is not public */
};

/* The policy's text: directives of RFC 9111, RFC 5861 and RFC 8246, ttl, min-fresh and max-lag, by comma, as
 * composure.parse_cache() leaves them; absent: the default. False: the arena is full. */
bool cache_policy(struct cache_policy *, struct arena *, struct view text) MUST_CHECK;

#endif
