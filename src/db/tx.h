/* tx: a transaction on a connection of its own, in as many trips as its owner needs.
 *
 * A trip is what goes to PostgreSQL in one write and is answered in one: tx_trip(), statements, tx_send(). Between two
 * trips the owner looks at the rows and decides how it goes on; tx_begin() in the first one keeps the transaction open
 * until tx_commit(). Whatever else happens it is rolled back, the connection cleaned where code of the user's ran in
 * it, and only then given back; an owner that has ended, or abandoned it, need not wait for that.
 */
#ifndef COMPOSURE_TX_H
#define COMPOSURE_TX_H

#include <stdbool.h>
#include <stdint.h>

#include "db/pool.h"

struct tx;

/* Exactly one of committed() and failed() is called, last, unless tx_abandon() was; the tx is then no longer the
 * owner's. None is called from within a function of this header. */
struct tx_owner {
	/* The connection is there, or a trip's statements have all succeeded: send the next one, or tx_abandon(). */
	void (*ready)(void *context, struct tx *);
	/* The commit is through. Rows of its trip may be read until this returns, or taken. */
	void (*committed)(void *context, struct tx *);
	/* Nothing took effect, except that ERR_OUTCOME_UNKNOWN says that this is not known: the connection went after the
	 * commit was sent. `mark` is that of the statement at fault, -1 for settings and commit; error may be NULL, its
	 * views are valid during the call. */
	void (*failed)(void *context, struct tx *, enum status, int mark, const struct db_error *error);
	void *context;
};

struct tx_options {
	struct session session; /* its views outlive the tx, or its abandonment */
	int64_t deadline_us;
	uint64_t group;         /* of what hangs together (db/pool.h) */
	bool read_only;
	bool position;          /* the commit is followed by the question how far the log is then: tx_position() */
	bool scrub;             /* code of the user's may run: the connection is cleaned afterwards */
};

/* Begins to wait for a connection. NULL: out of memory. */
struct tx *tx_start(struct loop *, struct pool *, const struct tx_options *, const struct tx_owner *);

/* The owner wants no more of it, at any time before committed() or failed(). */
void tx_abandon(struct tx *);

/* A trip, in this order; tx_begin() and tx_settings() at most once each, in the first. */
void tx_trip(struct tx *);
void tx_begin(struct tx *);
void tx_settings(struct tx *);
/* mark is the owner's number for it, 0 to 7: its rows are found under it. The statement is not needed after tx_send(). */
void tx_statement(struct tx *, const struct statement *, int mark);
/* A fixed text without parameters. */
void tx_text(struct tx *, const char *sql, int mark);
void tx_commit(struct tx *); /* last in its trip */
void tx_send(struct tx *);

/* Rows of the last trip; NULL when that statement was not in it. Owned by the tx until tx_trip() or its end; taken rows
 * are the taker's to free. */
struct rows *tx_rows(const struct tx *, int mark);
struct rows *tx_take_rows(struct tx *, int mark);

/* In committed(): the commit is in the log before this; 0: not known, its answer was lost. */
uint64_t tx_position(const struct tx *);

/* Was the commit sent? Then nobody knows before committed() or failed(). */
bool tx_committing(const struct tx *);

#endif
