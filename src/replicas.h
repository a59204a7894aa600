/* replicas: which server a read is asked of, and what a client that has written is to read at least (doc/replicas.md).
 *
 * Each server of `read_dsn` has a pool of its own in each worker. Lists and items are read from the one with the least to do
 * among those that are not further behind than is allowed; all else is the primary's. Whoever holds the watch asks each of
 * them ten times a second how far it has come, and all workers of the host read that in the region (shm/progress.h).
 *
 * What a replica cannot answer, or has not got yet, is asked of another one or of the primary, three of them at most: a replica
 * that fails costs its clients nothing but time.
 */
#ifndef COMPOSURE_REPLICAS_H
#define COMPOSURE_REPLICAS_H

#include <stdbool.h>
#include <stdint.h>

#include "exchange.h"

struct replicas;

/* NULL with a line in the log: read_dsn is not what it should be, or memory is short. The service outlives it; where read_dsn
 * is empty there is none of them, and all of this does nothing. */
struct replicas *replicas_create(struct service *);
void replicas_destroy(struct replicas *);

/* The watcher's, 50 times a second: asks them how far they are, where this worker holds the watch or has lost one. */
void replicas_round(struct replicas *, bool holding);

/* Takes Composure-LSN. False: it is malformed. */
bool replicas_take_header(struct exchange *) MUST_CHECK;

/* Where the exchange's read is to be asked, from now until its answer. */
struct pool *replicas_pool(struct exchange *);

/* A replica's answer that will not do: it is to be asked again, of replicas_pool(). `failed`: there was none, but an error,
 * as ex->query_status and ex->sqlstate say. */
bool replicas_again(struct exchange *, const struct query *, bool failed);

/* What came will not do for a reason that only the caller knows: the same, of the primary. False: it was the primary's. */
bool replicas_not_yet(struct exchange *);

/* May what is kept be given to this client, or is it perhaps older than what it has seen elsewhere? */
bool replicas_heard(const struct exchange *);

/* May what was asked for be kept? `told`: progress_told() of before, and after the generations were read. */
bool replicas_may_keep(const struct exchange *, uint64_t told);

/* A write of this exchange was committed before `lsn`; 0: that is not known. Before its generations are added to. */
void replicas_wrote(struct exchange *, uint64_t lsn);

/* Composure-LSN of a write's answer. */
void replicas_headers(struct exchange *);

/* Is there one for this read, whatever the primary does? */
bool replicas_may_serve(const struct exchange *);

/* Does the server answer that was asked last, as far as is known: a replica, or the primary? */
bool replicas_server_answers(const struct exchange *);

/* Can any of them be read from, if the primary cannot be reached? */
bool replicas_serve(const struct service *);

#endif
