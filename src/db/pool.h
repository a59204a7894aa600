/* pool: a worker's few connections, and which query may share one with which.
 *
 * Queries that are ready in one wake-up are sent together at its end. Rules, each measured (doc/design.md):
 *  - A class of statements (one SQL text) is unproven, fast, or slow, by what its statements took lately. Only reads of
 *    a proven-fast class queue behind one another, at most 8 on a connection; those of one session that are ready
 *    together share settings and Sync, unless the class loses half a connection to statements slow without warning.
 *  - Everything else has a connection to itself while it runs: writes always, reads of an unproven class on at most
 *    half of the connections for each class (the first of all on one), reads of slow ones on at most half for all of
 *    them, and all together never on the last one. Classes take turns: however many wait of one, the next one is
 *    another's.
 *  - A query that may run code of the user's is one of these, and its session is cleaned behind it before anything else
 *    is sent there. Where its class is proven fast it may have any connection but the last.
 *  - When the oldest segment of a connection is out for too long (5 ms; up to 12 where all are slow), nothing more is
 *    sent behind it, and the reads that wait there are sent once more elsewhere; the first answer counts. A sixteenth
 *    of the answers bounds how many are. Behind one that is out for 50 ms, and 16 times as long as is usual, all are, as often
 *    as there are connections, and as long as it is out those of its class have a connection to themselves.
 *  - A read whose connection is lost is sent once more; a write never is: its caller learns that it is not known.
 *  - What is asked of one thing (a group: the reads of a resource, its writes) is out on all connections but one at most,
 *    writes on all but two: what hangs in it leaves the others a way.
 *  - A vital query for which there is no place for 20 ms gets a connection of its own, one more than the options say: the look
 *    at the change feed must not wait behind a table that is locked.
 *  - When the breaker opens, what stands is in doubt: idle connections are asked for a sign of life, and one more is made to find out
 *    who is there. When the server has been heard of again, here or by another worker, and nothing came on any of those that
 *    stood, they are closed: it was replaced, and they lead to nobody. An answer on one of them vouches for all.
 *  - While PostgreSQL cannot be reached, a few queries wait for the next attempt, due within a quarter of a second, so
 *    that the first ones work once it is back; the others fail at once (ERR_UNAVAILABLE) instead of waiting.
 */
#ifndef COMPOSURE_POOL_H
#define COMPOSURE_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "base/status.h"
#include "db/conn.h"
#include "shm/breaker.h"

struct pool;
struct flight;
struct class;
struct list;
struct slot;

struct pool_options {
	struct conn_options conn;
	unsigned connections;
	struct breaker *breaker; /* of this server, shared by all workers; NULL: none. Both outlive the pool */
	const struct breaker_terms *breaker_terms;
	bool share_segments; /* false: settings and Sync for each read (for measuring what sharing is worth) */
};

/* One statement on its way. The caller owns it and keeps it, the statement and the session's views unchanged until
 * done() was called or pool_abandon() returned. */
struct query {
	const struct statement *statement;
	struct session session;
	int64_t deadline_us; /* PostgreSQL is given what is left of it; the caller watches its own clock */
	bool write;
	bool scrub; /* it may leave something in the session */
	bool vital; /* goes out while the breaker is open, too: it is the worker's own, and finds out when that is over */
	uint64_t group; /* a hash of what hangs together; 0: of nothing */

	/* The statement's rows, which the callee owns from then on: rows_free(). Not called when it failed; at most once. A
	 * write's rows come before its commit is known: only done() says that it took effect. */
	void (*rows)(struct query *, struct rows *);
	uint64_t lsn; /* by done(OK), where conn_options.positions are asked for: how far its server's log was before the statement */

	/* Exactly once unless abandoned: OK; ERR_UNAVAILABLE (not sent, or not carried out); ERR_OUTCOME_UNKNOWN (a write
	 * whose connection was lost); ERR_DEADLINE (statement_timeout); any other status by the SQLSTATE. error is NULL
	 * unless PostgreSQL gave one, and valid during the call. */
	void (*done)(struct query *, enum status, const struct db_error *error);
	/* Set in place of a statement and rows(): the query is a connection of its own, to be used freely until
	 * pool_release(). done() then says that there is none, or that it was lost. */
	void (*granted)(struct query *, struct conn *);

	/* the pool's own */
	struct query *next, **link;
	struct list *in;       /* where it waits */
	struct class *class;
	struct group *in_group;
	struct flight *flights;
	struct slot *held;
	int64_t since_us;
	uint8_t n_sent;
	bool alone;    /* send by itself, unnamed: its shared segment or its prepared statement failed */
	bool retried;  /* it was sent again for that or for a lost connection: not a second time */
};

/* NULL when malloc fails. The strings in options outlive the pool. Opens nothing before the first query. */
struct pool *pool_create(struct loop *, const struct pool_options *);

/* Closes everything; queries that are out or waiting are forgotten without a call. */
void pool_destroy(struct pool *);

void pool_submit(struct pool *, struct query *);

/* The caller no longer wants the answer: no call will come; what was sent runs on and is dropped. */
void pool_abandon(struct pool *, struct query *);

/* Gives back what was granted, with nothing out on it and no transaction open. */
void pool_release(struct pool *, struct query *);

/* True when a connection stands, or none was needed yet, and the breaker is closed. `why` (may be NULL) gets the last failure, for people. */
bool pool_reachable(const struct pool *, struct view *why);

/* False: every connection was lost, something waits for one, and none has been made yet. */
bool pool_stands(const struct pool *);

/* When the last connection that stood was lost; 0: never. CLOCK_MONOTONIC. */
int64_t pool_lost_us(const struct pool *);

/* Nothing came for so long although something is out; 0: nothing is. Microseconds. */
int64_t pool_silent_us(const struct pool *);

/* Every few hundredths of a second: after an opening of the breaker, who still answers is found out, and what does not is closed. */
void pool_round(struct pool *);

/* This worker did not run for a while: what came meanwhile lies in the sockets, and nobody was silent. */
void pool_not_run(struct pool *);

/* Nobody waits for it any more: its connections are closed, and reads end with ERR_UNAVAILABLE soon. Not from within a call of
 * its own. */
void pool_give_up(struct pool *, struct view why);

/* Queries waiting or out. */
unsigned pool_in_use(const struct pool *);

/* What the SQLSTATE of an error means for the client. */
enum status sqlstate_status(const char *sqlstate);

#endif
