/* timing: what headers say of time: how long a client waits, and when the web server took a request.
 *
 * Neither has a standard. X-Request-Timeout is seconds ("2.5", "2.5s") or milliseconds ("300ms"). X-Request-Start is an
 * instant since 1970, with or without "t=": seconds with a point (nginx: "t=${msec}"), microseconds (Apache: "t=%t"), or
 * milliseconds (load balancers); which of them is told by how large it is.
 */
#ifndef COMPOSURE_TIMING_H
#define COMPOSURE_TIMING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attributes.h"
#include "base/view.h"

/* False: it is not one, or not above 0. */
bool timing_timeout(struct view, int64_t *us) MUST_CHECK;

/* How long what came then has waited (microseconds since 1970; *us: not below 0). False: that is longer than anything waits, or it
 * is yet to come: the two clocks do not agree. */
bool timing_waited(int64_t came_us, int64_t now_us, int64_t *us) MUST_CHECK;

/* Microseconds since 1970. False: it is no instant between 2001 and 2286. */
bool timing_instant(struct view, int64_t *us) MUST_CHECK;

#endif
