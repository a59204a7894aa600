/* limiter: a worker's part in rate limits: leases tokens of PostgreSQL for this host (gate/limits.h), and lets requests
 * through or not.
 *
 * A request spends from shared memory. What runs low is leased after the answer, several buckets in one call; a request
 * waits only where its bucket is dry, and two seconds at most: then, and while PostgreSQL fails, the host goes on alone.
 */
#ifndef COMPOSURE_LIMITER_H
#define COMPOSURE_LIMITER_H

#include <stdbool.h>

#include "exchange.h"

struct limiter;

/* Whether trusted_proxies says what it may; what is wrong is logged. */
bool limiter_settings(const struct settings *);

/* NULL: out of memory. The service outlives it. */
struct limiter *limiter_create(struct service *);
void limiter_destroy(struct limiter *);

/* The step that lets a request through, or 429; and what every answer says of the limit. */
enum next admit(struct exchange *);
void limiter_headers(struct exchange *);

/* Whose bucket it is: the API key's id, or the client's address or network. In the arena; absent: that is full. */
struct view limiter_owner(const struct exchange *);

/* The exchange no longer waits. */
void limiter_unwait(struct limiter *, struct exchange *);

/* An API key that did not verify: 401, or 429 where its address has had too many of them. */
enum next limiter_failed_key(struct exchange *);

/* For whoever has the watch, once a second: what lies unused goes back, what was counted is told; what dead workers held
 * is freed, buckets in PostgreSQL that are full anyway are swept. */
void limiter_round(struct limiter *);

#endif
