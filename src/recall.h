/* recall: answers out of the shared store (cache/store.h), and into it.
 *
 * The step `recall` ends a read whose answer is there and true. Else the request asks PostgreSQL, or waits for another one
 * that asks the same (cache/flight.h). What PostgreSQL answered is kept under the generations of before the question. An
 * answer that is no longer true may still be served where the policy says so: while it is made anew
 * (stale-while-revalidate), and when PostgreSQL fails (stale-if-error, RFC 5861); never after a hard change, and never to
 * an identity that has written since.
 */
#ifndef COMPOSURE_RECALL_H
#define COMPOSURE_RECALL_H

#include <stdbool.h>

#include "exchange.h"

struct recaller;

/* A worker's part in it: who waits for whom, what is made anew. NULL: out of memory. The service outlives it. */
struct recaller *recaller_create(struct service *);
void recaller_destroy(struct recaller *);

/* The step. DONE: the answer is whole. */
enum next recall(struct exchange *);

/* The answer is made, or there is none: keeps it if it may be kept, says what became of it in Cache-Status, and lets those go
 * on who waited for it. An error may turn into a stale answer here. */
void recall_finish(struct exchange *);

/* Its deadline has come. True: there is an answer that will do. False with *later_us set: wait until then. */
bool recall_deadline(struct exchange *, int64_t *later_us);

/* Waits no longer for another request's answer. False: it did not. The step is to be called again. */
bool recall_leave(struct exchange *);

/* Makes no whole answer any more: those who wait for it go on. `anew`: it is asked for once more, by a request of our own, which
 * has all the time that the resource allows. */
void recall_give_way(struct exchange *, bool anew);

/* The exchange ends without an answer, or begins anew. */
void recall_end(struct exchange *);

/* Does anything that is kept serve without PostgreSQL, as long after the last word of the feed as this? There is a catalog. */
bool recall_may_serve(const struct service *);

/* Has the feed told of all that was committed until then (CLOCK_MONOTONIC)? */
bool recall_heard(const struct exchange *, int64_t until_us);

/* A write of this exchange is committed: what it changed is out of date on this host from now on. `noted`: what PostgreSQL
 * noted of it (resource, keys, hard); NULL: it inserted rows, and nothing else happened. */
void recall_written(struct exchange *, const struct rows *noted);

#endif
