/* The one hard fact: a transaction that was not committed is over only when its ROLLBACK has been answered. So failed()
 * comes after that: whoever tries again at once would otherwise find the locks of its own last attempt. */
#include "config.h"

#include "db/tx.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"

enum { MARKS = SEGMENT_STATEMENTS_MAX, TEXT_OID = 25 };

enum phase {
	WAITING,  /* for a connection */
	COMPOSING, /* the owner's turn */
	OUT,      /* a trip is out */
	ROLLING,  /* the ROLLBACK is out */
	SCRUBBING,
	OVER,     /* no connection any more; the owner is still to be told */
};

struct tx {
	struct query place; /* in the pool: the wait for a connection, and the hold of it */
	struct loop *loop;
	struct pool *pool;
	struct conn *conn;
	struct tx_options options;
	struct tx_owner owner;
	bool owned;         /* owner is to be told */
	enum phase phase;
	struct segment segment;
	struct segment after; /* behind the commit, in the same trip: how far the log is */
	bool asking;          /* it is out */
	uint64_t position;
	struct task turn;   /* what came of the last trip is acted upon when no callback of conn's runs */
	bool open, committing, committed;
	struct rows *rows[MARKS];
	int8_t mark[SEGMENT_STATEMENTS_MAX]; /* of each statement of the trip; -1: our own */

	/* how it failed */
	bool failed;
	enum status status;
	int failed_mark;
	struct db_error error;
	struct arena *words; /* of error */
};

static void free_rows(struct tx *tx)
{
	for (int i = 0; i < MARKS; i++) {
		rows_free(tx->rows[i]);
		tx->rows[i] = NULL;
	}
}

static void destroy(struct tx *tx)
{
	loop_undefer(tx->loop, &tx->turn);
	free_rows(tx);
	arena_destroy(tx->words);
	free(tx);
}

static void give_back(struct tx *tx)
{
	if (tx->conn)
		pool_release(tx->pool, &tx->place);
	tx->conn = NULL;
}

/* --- what went wrong --- */

static struct view kept(struct tx *tx, struct view v)
{
	return v.p && tx->words ? arena_copy(tx->words, v) : VIEW_NONE;
}

static void note_failure(struct tx *tx, enum status status, int mark, const struct db_error *e)
{
	if (tx->failed)
		return;
	tx->failed = true;
	tx->status = status;
	tx->failed_mark = mark;
	tx->error = (struct db_error){ .sqlstate = "" };
	if (!e || !tx->owned)
		return;
	tx->words = arena_create(65536);
	memcpy(tx->error.sqlstate, e->sqlstate, sizeof tx->error.sqlstate);
	tx->error.message = kept(tx, e->message);
	tx->error.detail = kept(tx, e->detail);
	tx->error.hint = kept(tx, e->hint);
	tx->error.constraint = kept(tx, e->constraint);
	tx->error.column = kept(tx, e->column);
	tx->error.table = kept(tx, e->table);
	tx->error.context = kept(tx, e->context);
	tx->error.no_writes = e->no_writes;
}

static void tell_failure(struct tx *tx)
{
	bool owned = tx->owned;
	tx->owned = false;
	if (owned)
		tx->owner.failed(tx->owner.context, tx, tx->status, tx->failed_mark, &tx->error);
}

/* --- segments --- */

static bool on_rows(struct segment *s, unsigned statement, struct rows *rows)
{
	struct tx *tx = CONTAINER_OF(s, struct tx, segment);
	int mark = tx->phase == OUT ? tx->mark[statement] : -1;
	if (mark < 0 || !tx->owned)
		return false;
	rows_free(tx->rows[mark]);
	tx->rows[mark] = rows;
	return true;
}

static void on_segment(struct segment *s, enum segment_end end, int failed, const struct db_error *error)
{
	struct tx *tx = CONTAINER_OF(s, struct tx, segment);
	bool has_state = error && error->sqlstate[0];
	if (end == SEGMENT_LOST) {
		/* A statement's error says that it was rolled back; one of the session's own may have come behind the commit. */
		if (tx->phase == OUT)
			note_failure(tx, tx->committing && !(has_state && failed >= 0) ? ERR_OUTCOME_UNKNOWN : ERR_UNAVAILABLE, -1, error);
		return; /* on_place() follows */
	}
	if (end == SEGMENT_FAILED && tx->phase == OUT)
		note_failure(tx, db_error_status(error),
		             failed >= 0 ? tx->mark[failed] : -1, error);
	else if (end == SEGMENT_FAILED)
		note_failure(tx, ERR_DATABASE, -1, error), tx->phase = OVER; /* neither rolled back nor clean */
	else if (tx->phase == OUT && tx->committing)
		tx->committed = true;
	if (!tx->asking)
		loop_defer(tx->loop, &tx->turn);
}

static bool on_position(struct segment *s, unsigned statement, struct rows *rows)
{
	struct tx *tx = CONTAINER_OF(s, struct tx, after);
	(void)statement;
	if (rows_count(rows) == 1)
		tx->position = (uint64_t)rows_int(rows_value(rows, 0, 0));
	return false;
}

/* Whatever came of it, the commit is what it was. */
static void on_after(struct segment *s, enum segment_end end, int failed, const struct db_error *error)
{
	struct tx *tx = CONTAINER_OF(s, struct tx, after);
	(void)failed, (void)error;
	tx->asking = false;
	if (end != SEGMENT_LOST)
		loop_defer(tx->loop, &tx->turn);
}

/* Behind the commit: with synchronous_commit off, what is written out lags (pg_current_wal_lsn()), what is inserted does not. */
static void ask_position(struct tx *tx)
{
	tx->after.rows = on_position;
	tx->after.done = on_after;
	tx->asking = true;
	conn_begin(tx->conn, &tx->after);
	conn_text(tx->conn, &tx->after, "SELECT pg_catalog.pg_current_wal_insert_lsn()");
	conn_sync(tx->conn, &tx->after);
}

static void segment_begin(struct tx *tx)
{
	tx->segment.rows = on_rows;
	tx->segment.done = on_segment;
	conn_begin(tx->conn, &tx->segment);
}

static void send_scrub(struct tx *tx)
{
	tx->phase = SCRUBBING;
	segment_begin(tx);
	conn_scrub(tx->conn, &tx->segment);
	conn_sync(tx->conn, &tx->segment);
}

static void send_rollback(struct tx *tx)
{
	tx->phase = ROLLING;
	segment_begin(tx);
	conn_text(tx->conn, &tx->segment, "ROLLBACK");
	conn_sync(tx->conn, &tx->segment);
}

/* The transaction is over, one way or the other. */
static void conclude(struct tx *tx)
{
	free_rows(tx);
	if (tx->conn && tx->options.scrub) {
		send_scrub(tx);
		return;
	}
	give_back(tx);
	destroy(tx);
}

/* A trip came back. */
static void trip_ended(struct tx *tx)
{
	if (tx->committed) {
		bool owned = tx->owned;
		tx->open = tx->owned = false;
		if (owned)
			tx->owner.committed(tx->owner.context, tx);
		conclude(tx);
	} else if (tx->failed || !tx->owned) {
		if (tx->open) {
			send_rollback(tx);
		} else {
			tell_failure(tx);
			conclude(tx);
		}
	} else {
		tx->phase = COMPOSING;
		tx->owner.ready(tx->owner.context, tx);
	}
}

static void on_turn(struct task *t)
{
	struct tx *tx = CONTAINER_OF(t, struct tx, turn);
	switch (tx->phase) {
	case OUT:
		trip_ended(tx);
		return;
	case ROLLING:
		tx->open = false;
		tell_failure(tx);
		conclude(tx);
		return;
	case SCRUBBING:
		give_back(tx);
		destroy(tx);
		return;
	case OVER:
		/* Without a connection, or with one in a state that nobody knows. */
		if (tx->conn) {
			struct conn *c = tx->conn;
			give_back(tx);
			conn_close(c, VIEW("a transaction could not be rolled back, or its session not cleaned"));
		}
		tell_failure(tx);
		destroy(tx);
		return;
	case WAITING:
	case COMPOSING: break;
	}
}

/* --- the place in the pool --- */

static void on_granted(struct query *q, struct conn *c)
{
	struct tx *tx = CONTAINER_OF(q, struct tx, place);
	tx->conn = c;
	tx->phase = COMPOSING;
	tx->owner.ready(tx->owner.context, tx);
}

/* No connection, or no longer. */
static void on_place(struct query *q, enum status status, const struct db_error *error)
{
	struct tx *tx = CONTAINER_OF(q, struct tx, place);
	(void)error;
	tx->conn = NULL;
	if (tx->committed && tx->phase == OUT) {
		loop_defer(tx->loop, &tx->turn); /* it went after the commit was through */
		return;
	}
	note_failure(tx, status, -1, NULL);
	tx->phase = OVER;
	if (tx->owned)
		loop_defer(tx->loop, &tx->turn);
	else
		destroy(tx);
}

struct tx *tx_start(struct loop *loop, struct pool *p, const struct tx_options *options, const struct tx_owner *owner)
{
	struct tx *tx = calloc(1, sizeof *tx);
	if (!tx)
		return NULL;
	tx->loop = loop;
	tx->pool = p;
	tx->options = *options;
	tx->owner = *owner;
	tx->owned = true;
	tx->turn.run = on_turn;
	tx->place = (struct query){
		.deadline_us = options->deadline_us,
		.write = true,
		.group = options->group,
		.granted = on_granted,
		.done = on_place,
	};
	pool_submit(p, &tx->place);
	return tx;
}

void tx_abandon(struct tx *tx)
{
	tx->owned = false;
	switch (tx->phase) {
	case WAITING:
		pool_abandon(tx->pool, &tx->place);
		destroy(tx);
		return;
	case COMPOSING:
		if (tx->open)
			send_rollback(tx);
		else
			conclude(tx);
		return;
	case OVER:
		if (!tx->conn)
			destroy(tx);
		return;
	case OUT:
	case ROLLING:
	case SCRUBBING: return; /* what is out comes back */
	}
}

/* --- trips --- */

void tx_trip(struct tx *tx)
{
	assert(tx->phase == COMPOSING);
	free_rows(tx);
	segment_begin(tx);
}

static void mark_next(struct tx *tx, int mark)
{
	assert(mark < MARKS && tx->segment.n_statements < SEGMENT_STATEMENTS_MAX);
	tx->mark[tx->segment.n_statements] = (int8_t)mark;
}

void tx_begin(struct tx *tx)
{
	assert(!tx->open);
	tx->open = true;
	tx_text(tx, "BEGIN ISOLATION LEVEL READ COMMITTED", -1);
}

/* A worker that is stopped between two trips holds its locks no longer than it had time. */
static void bound_idling(struct tx *tx)
{
	static const char text[] = "SELECT pg_catalog.set_config('idle_in_transaction_session_timeout', $1, true)";
	char digits[DECIMAL_MAX + 1];
	struct view ms = decimal((uint64_t)loop_left_ms(tx->loop, tx->options.deadline_us), digits);
	const char *value = memmove(digits, ms.p, ms.n);
	uint32_t type = TEXT_OID;
	digits[ms.n] = '\0';
	struct statement st = {
		.text = (char *)(uintptr_t)text, .hash = statement_hash(view_make(text, sizeof text - 1)), .values = &value, .types = &type, .n_params = 1,
	};
	tx_statement(tx, &st, -1);
}

void tx_settings(struct tx *tx)
{
	conn_settings(tx->conn, &tx->segment, &tx->options.session, loop_left_ms(tx->loop, tx->options.deadline_us),
	              tx->options.read_only);
	if (tx->open)
		bound_idling(tx);
}

void tx_statement(struct tx *tx, const struct statement *st, int mark)
{
	mark_next(tx, mark);
	/* Prepared names may be deallocated, and taken, by code of the user's. */
	conn_statement(tx->conn, &tx->segment, st, !tx->options.scrub);
}

void tx_text(struct tx *tx, const char *sql, int mark)
{
	mark_next(tx, mark);
	if (tx->options.scrub) {
		conn_text(tx->conn, &tx->segment, sql);
		return;
	}
	struct statement st = { .text = (char *)(uintptr_t)sql, .hash = statement_hash(view_of(sql)) };
	conn_statement(tx->conn, &tx->segment, &st, true);
}

void tx_commit(struct tx *tx)
{
	if (tx->open)
		tx_text(tx, "COMMIT", -1);
	tx->committing = true;
}

void tx_send(struct tx *tx)
{
	tx->phase = OUT;
	conn_sync(tx->conn, &tx->segment);
	if (tx->committing && tx->options.position)
		ask_position(tx);
}

uint64_t tx_position(const struct tx *tx)
{
	return tx->position;
}

struct rows *tx_rows(const struct tx *tx, int mark)
{
	return tx->rows[mark];
}

struct rows *tx_take_rows(struct tx *tx, int mark)
{
	struct rows *r = tx->rows[mark];
	tx->rows[mark] = NULL;
	return r;
}

bool tx_committing(const struct tx *tx)
{
	return tx->committing;
}
