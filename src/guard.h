/* guard: what a request has to get past before it asks PostgreSQL: the circuit breaker of what it asks for, and its bulkhead
 * (shm/breaker.h). Reads and writes of a resource have one each, shared by all workers of the host.
 *
 * A breaker counts what is the resource's own doing: that it did not answer within its own deadline, that it answered late,
 * or that PostgreSQL ran out of something over it. A client in a hurry, an error in what it sent, and a server that is away
 * say nothing of a resource. A bulkhead has as many places as can be answered in time, by how long they take of late: more
 * would only wait for their deadline.
 */
#ifndef COMPOSURE_GUARD_H
#define COMPOSURE_GUARD_H

#include "exchange.h"

/* The step. DONE: 503 with Retry-After, or what is kept (recall.h). */
enum next guard(struct exchange *);

/* It is answered, or given up: its place is free. Before what is kept takes the place of an error. */
void guard_end(struct exchange *, bool answered);

/* The same for a part of an answer that can be left out: past the breaker of the reads of what it is read from. False: it is
 * open. And what became of it: OK, ERR_DEADLINE, or anything that says nothing. */
bool guard_part(struct exchange *, const struct resource *, struct breaker_call *) MUST_CHECK;
void guard_part_end(const struct exchange *, const struct resource *, const struct breaker_call *, enum status);

/* A process that ends with its answer (plain CGI) has nobody who finds out when PostgreSQL is back: it tries itself, as often as the
 * breaker lets anybody through. */
bool guard_may_try(const struct service *);

/* Each second: how many workers share what there is. */
void guard_round(struct service *);

/* By the settings: of what a server is asked, and of a resource. */
void guard_terms(const struct settings *, struct breaker_terms *server, struct breaker_terms *resource);

/* Seconds until the primary is asked again, at least 1. */
int64_t guard_retry_after(const struct service *);

#endif
