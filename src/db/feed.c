/* The one hard fact: a poll's changes are those between two snapshots, so the second must become the first of the next
 * poll only together with what it brought. Whatever breaks that chain (a lost snapshot, another epoch, deleted rows)
 * ends in everything(), told after the answer of the poll that begins the new chain. */
#include "config.h"

#include "db/feed.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/log.h"

enum {
	POLL_US = 2000000,       /* patience with one poll */
	CLEAN_US = 5000000,      /* and with one deletion */
	SECOND_US = 1000000,     /* between two snapshots to delete by, and so between two deletions */
	PAUSE_MAX_US = 500000,   /* between two polls that fail */
	CHAIN_MAX = 1 << 20,
	CLEAN_FULL = 20000,      /* rows that composure.feed_clean() deletes at most */
	ARENA_BYTES = 8 << 20,   /* a snapshot has up to 21 bytes for each transaction that runs */
	EPOCH_MAX = 200,
};

#define RESTARTED VIEW("PostgreSQL was restarted")
#define REPLACED VIEW("PostgreSQL crashed or was replaced")

enum { SNAPSHOT, EPOCH, GONE, RESOURCE, KEYS, HARD, LSN, COLUMNS };

/* A statement of ours and its way through the pool. */
struct ask {
	struct feed *feed;
	struct query query;
	struct arena *arena;
	struct statement statement;
	struct rows *rows;
	bool out;
};

/* A snapshot of a past poll. */
struct mark {
	struct mark *next;
	int64_t asked_us;
	char snapshot[];
};

struct feed {
	struct loop *loop;
	struct pool *pool;
	struct feed_options options;
	struct feed_owner owner;
	bool running;
	unsigned life; /* counts stops: a callback's is noticed by it */

	struct ask poll; /* or feed_begin() */
	struct timer timer; /* the next poll; while one is out, the end of patience with it */
	int64_t asked_us, polled_us; /* the poll that is out; the last that succeeded */
	int64_t waits_since_us;      /* of the polls since then the first that went out; 0: none did */
	bool succeeded;              /* one did, since it was started or of the chain that it resumed */
	int64_t pause_us; /* after a failure; 0 after a success */
	char *snapshot; /* of the last poll; NULL: begin anew */
	struct view anew; /* why there is none */
	char epoch[EPOCH_MAX];
	struct buf chain; /* see feed_chain() */

	struct ask clean;
	struct mark *marks, **last_mark; /* one a second, oldest first */
	int64_t marked_us;
	char *cleaning, *cleaned;
	bool clean_failed;
};

static void poll_now(struct feed *);
static void poll_failed(struct feed *, enum status, struct view why);

/* --- asking --- */

static void on_rows(struct query *q, struct rows *rows)
{
	struct ask *a = CONTAINER_OF(q, struct ask, query);
	rows_free(a->rows);
	a->rows = rows;
}

static struct statement *ask_begin(struct ask *a, struct view text)
{
	arena_reset(a->arena);
	statement_init(&a->statement, a->arena);
	statement_text(&a->statement, text);
	return &a->statement;
}

static bool ask_submit(struct ask *a, bool write, int64_t patience_us,
                       void (*done)(struct query *, enum status, const struct db_error *))
{
	struct feed *f = a->feed;
	if (!statement_finish(&a->statement))
		return false;
	a->query = (struct query){
		.statement = &a->statement,
		.deadline_us = loop_now_us(f->loop) + patience_us,
		.write = write,
		.vital = true,
		.rows = on_rows,
		.done = done,
	};
	a->out = true;
	pool_submit(f->pool, &a->query);
	return true;
}

static struct rows *ask_take_rows(struct ask *a)
{
	struct rows *rows = a->rows;
	a->rows = NULL;
	return rows;
}

static void ask_drop(struct ask *a)
{
	if (a->out)
		pool_abandon(a->feed->pool, &a->query);
	a->out = false;
	rows_free(ask_take_rows(a));
}

/* --- snapshots: "xmin:xmax:xip,..." --- */

static uint64_t number_at(struct view v)
{
	uint64_t n = 0;
	for (size_t i = 0; i < v.n && v.p[i] >= '0' && v.p[i] <= '9'; i++)
		n = n * 10 + (uint64_t)(v.p[i] - '0');
	return n;
}

/* 0, which no transaction has, when it is no snapshot. */
static uint64_t xmax_of(struct view snapshot)
{
	struct view xmin;
	return view_split(&snapshot, ':', &xmin) && snapshot.p ? number_at(snapshot) : 0;
}

static char *copy_of(struct view v)
{
	return v.p ? strndup(v.p, v.n) : NULL;
}

static void forget(struct feed *f, struct view why)
{
	free(f->snapshot);
	f->snapshot = NULL;
	f->anew = why;
}

/* --- deleting what everyone has read --- */

static void mark_drop(struct feed *f)
{
	struct mark *oldest = f->marks;
	f->marks = oldest->next;
	if (!f->marks)
		f->last_mark = &f->marks;
	free(oldest);
}

static void marks_forget(struct feed *f)
{
	while (f->marks)
		mark_drop(f);
	free(f->cleaning);
	free(f->cleaned);
	f->cleaning = f->cleaned = NULL;
}

static void on_cleaned(struct query *q, enum status status, const struct db_error *error);

static void clean_ask(struct feed *f)
{
	struct statement *st = ask_begin(&f->clean, VIEW("SELECT composure.feed_clean("));
	statement_param(st, view_of(f->cleaning), 0);
	statement_lit(st, ", ");
	statement_param(st, view_of(f->cleaned), 0);
	statement_lit(st, ")");
	(void)ask_submit(&f->clean, true, CLEAN_US, on_cleaned);
}

/* Deleted rows have been read by every follower that is not late; those that are late see by feed_epoch.gone. */
static void on_cleaned(struct query *q, enum status status, const struct db_error *error)
{
	struct feed *f = CONTAINER_OF(q, struct ask, query)->feed;
	f->clean.out = false;
	struct rows *rows = ask_take_rows(&f->clean);
	if (status != OK && !f->clean_failed)
		log_warn("old rows of the change feed were not deleted: %.*s",
		         VIEW_ARG(error && error->message.p ? error->message : view_of(status_title(status))));
	f->clean_failed = status != OK;
	struct view n = status == OK && rows && rows_count(rows) == 1 ? rows_value(rows, 0, 0) : VIEW_NONE;
	bool full = n.p && rows_int(n) >= CLEAN_FULL;
	if (n.p && !full) {
		free(f->cleaned);
		f->cleaned = f->cleaning;
		f->cleaning = NULL;
	}
	rows_free(rows);
	if (full)
		clean_ask(f);
}

static bool old_enough(const struct feed *f, const struct mark *m, int64_t now)
{
	return m && now - m->asked_us >= f->options.retention_us;
}

/* The youngest of those that are old enough does for all before it. */
static void clean_with_old(struct feed *f, int64_t now)
{
	if (f->clean.out && now > f->clean.query.deadline_us + SECOND_US)
		ask_drop(&f->clean);
	while (f->marks && old_enough(f, f->marks->next, now))
		mark_drop(f);
	if (f->clean.out || !old_enough(f, f->marks, now))
		return;
	free(f->cleaning);
	f->cleaning = strdup(f->marks->snapshot);
	mark_drop(f);
	if (f->cleaning)
		clean_ask(f);
}

static void mark_this(struct feed *f, int64_t now)
{
	if (f->marks && f->asked_us - f->marked_us < SECOND_US)
		return;
	size_t n = strlen(f->snapshot) + 1;
	struct mark *m = malloc(sizeof *m + n);
	if (m) {
		m->next = NULL;
		m->asked_us = f->marked_us = f->asked_us;
		memcpy(m->snapshot, f->snapshot, n);
		*f->last_mark = m;
		f->last_mark = &m->next;
	}
	clean_with_old(f, now);
}

/* --- polling --- */

static void next_poll(struct feed *f)
{
	int64_t due = f->asked_us + f->options.interval_us;
	int64_t soonest = loop_now_us(f->loop) + f->options.interval_us / 4;
	loop_timer_set(f->loop, &f->timer, due > soonest ? due : soonest);
}

/* An epoch is the feed's id, its table and its database, and when PostgreSQL was started: all but the last is the same when it was
 * shut down in good order, which is the only case in which an UNLOGGED table keeps its rows. */
static bool same_feed(struct view a, struct view b)
{
	struct view one, other;
	for (int part = 0; part < 3; part++)
		if (!view_split(&a, '.', &one) || !view_split(&b, '.', &other) || !view_eq(one, other) || !a.p || !b.p)
			return false;
	return true;
}

/* What breaks the chain from the last snapshot to this one; absent when it holds. */
static struct view broken(const struct feed *f, const struct rows *rows, int64_t now)
{
	if (!f->snapshot)
		return f->anew;
	uint64_t before = xmax_of(view_of(f->snapshot));
	bool same = view_eq(rows_value(rows, 0, EPOCH), view_of(f->epoch));
	if ((!same && !same_feed(rows_value(rows, 0, EPOCH), view_of(f->epoch))) || xmax_of(rows_value(rows, 0, SNAPSHOT)) < before)
		return REPLACED;
	if (number_at(rows_value(rows, 0, GONE)) >= before)
		return VIEW("changes were deleted before they were read");
	if (rows_count(rows) - 1 > FEED_CHANGES_MAX)
		return VIEW("more changed at once than is read one by one");
	if (now - f->polled_us > f->options.retention_us / 2)
		return VIEW("the last poll was long ago");
	return same ? VIEW_NONE : RESTARTED;
}

static void tell_change(struct feed *f, const struct rows *rows, int row)
{
	struct view hard = rows_value(rows, row, HARD);
	struct view resource = rows_value(rows, row, RESOURCE), keys[FEED_KEYS_MAX];
	if (view_eq(resource, VIEW("@all"))) {
		f->owner.everything(f->owner.context, VIEW("rights changed"), true);
		return;
	}
	unsigned n = rows_texts(rows_value(rows, row, KEYS), keys, FEED_KEYS_MAX);
	bool all = n == ROWS_ANY;
	if (n > 0)
		f->owner.changed(f->owner.context, resource, all ? NULL : keys, all ? 0 : n,
		                 hard.n == 1 && hard.p[0]);
}

/* The chain goes on from here before anything is told, so that a callback may stop the feed. */
static void tell(struct feed *f, const struct rows *rows)
{
	int64_t now = loop_now_us(f->loop), asked = f->asked_us;
	struct view why = broken(f, rows, now);
	char *snapshot = copy_of(rows_value(rows, 0, SNAPSHOT));
	if (!snapshot) {
		forget(f, VIEW("memory was short"));
		poll_failed(f, ERR_INTERNAL, f->anew);
		return;
	}
	free(f->snapshot);
	f->snapshot = snapshot;
	(void)snprintf(f->epoch, sizeof f->epoch, "%.*s", VIEW_ARG(rows_value(rows, 0, EPOCH)));
	f->polled_us = asked;
	f->waits_since_us = 0;
	f->succeeded = true;
	f->pause_us = 0;
	next_poll(f);
	if (why.p)
		marks_forget(f);
	mark_this(f, now);

	unsigned life = f->life;
	bool restarted = view_eq(why, RESTARTED);
	/* Read behind the snapshot: whatever that shows was in the log by then. */
	uint64_t told_lsn = (uint64_t)rows_int(rows_value(rows, 0, LSN)), heard_lsn = f->poll.query.lsn;
	if (why.p || rows_count(rows) > 1)
		f->owner.telling(f->owner.context, told_lsn, asked);
	if (why.p)
		f->owner.everything(f->owner.context, why, !restarted);
	/* What was told before the restart goes on after it: what must not be served again is known. */
	for (int row = 1; (!why.p || restarted) && row < rows_count(rows) && f->life == life; row++)
		tell_change(f, rows, row);
	if (f->life == life)
		f->owner.polled(f->owner.context, asked, heard_lsn);
}

static void poll_failed(struct feed *f, enum status status, struct view why)
{
	f->pause_us = f->pause_us ? f->pause_us * 2 : f->options.interval_us;
	if (f->pause_us > PAUSE_MAX_US)
		f->pause_us = PAUSE_MAX_US;
	loop_timer_set(f->loop, &f->timer, loop_now_us(f->loop) + f->pause_us);
	f->owner.failed(f->owner.context, status, why);
}

static void refused(struct feed *f, enum status status, const struct db_error *error)
{
	struct view why = VIEW_NONE;
	(void)pool_reachable(f->pool, &why);
	if (error && (strcmp(error->sqlstate, "3F000") == 0 || strcmp(error->sqlstate, "42883") == 0))
		why = VIEW("The database lacks Composure's functions: run psql -f sql/migrate.sql.");
	else if (error && error->message.n)
		why = error->message;
	if (error && error->sqlstate[0])
		f->waits_since_us = 0; /* that was an answer, too */
	poll_failed(f, status, why.n ? why : view_of(status_title(status)));
}

static void on_begun(struct query *q, enum status status, const struct db_error *error)
{
	struct feed *f = CONTAINER_OF(q, struct ask, query)->feed;
	f->poll.out = false;
	rows_free(ask_take_rows(&f->poll));
	if (status == OK)
		poll_now(f);
	else
		refused(f, status, error);
}

static void on_polled(struct query *q, enum status status, const struct db_error *error)
{
	struct feed *f = CONTAINER_OF(q, struct ask, query)->feed;
	f->poll.out = false;
	struct rows *rows = ask_take_rows(&f->poll);
	if (status != OK) {
		refused(f, status, error);
	} else if (!rows || rows_count(rows) < 1 || rows_columns(rows) != COLUMNS ||
	           !xmax_of(rows_value(rows, 0, SNAPSHOT))) {
		poll_failed(f, ERR_DATABASE, VIEW("composure.feed_poll() answered in another form"));
	} else if (!rows_value(rows, 0, EPOCH).p) {
		/* A crash emptied the feed, or a restore brought a row that cannot be. */
		forget(f, REPLACED);
		(void)ask_begin(&f->poll, VIEW("SELECT composure.feed_begin()"));
		if (!ask_submit(&f->poll, true, POLL_US, on_begun))
			poll_failed(f, ERR_INTERNAL, VIEW("memory was short"));
	} else {
		tell(f, rows);
	}
	rows_free(rows);
}

static void poll_now(struct feed *f)
{
	f->asked_us = loop_now_us(f->loop);
	if (!f->waits_since_us && f->succeeded)
		f->waits_since_us = f->asked_us;
	struct statement *st = ask_begin(&f->poll, VIEW("SELECT snapshot, epoch, gone, resource, keys, hard, pg_catalog.pg_current_wal_insert_lsn() FROM composure.feed_poll("));
	statement_param(st, view_of(f->snapshot), 0);
	statement_lit(st, ")");
	loop_timer_set(f->loop, &f->timer, f->asked_us + POLL_US);
	if (!ask_submit(&f->poll, false, POLL_US, on_polled)) {
		forget(f, VIEW("memory was short"));
		poll_failed(f, ERR_INTERNAL, f->anew);
	}
}

static void on_timer(struct timer *t)
{
	struct feed *f = CONTAINER_OF(t, struct feed, timer);
	if (f->poll.out) {
		ask_drop(&f->poll);
		poll_failed(f, ERR_DEADLINE, VIEW("PostgreSQL did not answer in time"));
	} else {
		poll_now(f);
	}
}

/* --- the feed --- */

struct feed *feed_create(struct loop *loop, struct pool *pool, const struct feed_options *options,
                         const struct feed_owner *owner)
{
	struct feed *f = calloc(1, sizeof *f);
	if (!f)
		return NULL;
	f->loop = loop;
	f->pool = pool;
	f->options = *options;
	if (!f->options.interval_us)
		f->options.interval_us = FEED_INTERVAL_US;
	if (!f->options.retention_us)
		f->options.retention_us = FEED_RETENTION_US;
	f->owner = *owner;
	f->timer.fire = on_timer;
	f->poll.feed = f->clean.feed = f;
	f->poll.arena = arena_create(ARENA_BYTES);
	f->clean.arena = arena_create(ARENA_BYTES);
	f->last_mark = &f->marks;
	f->chain = BUF(CHAIN_MAX);
	if (!f->poll.arena || !f->clean.arena) {
		feed_destroy(f);
		return NULL;
	}
	return f;
}

void feed_start(struct feed *f)
{
	if (f->running)
		return;
	f->running = true;
	f->pause_us = 0;
	f->anew = VIEW("the feed starts");
	loop_timer_set(f->loop, &f->timer, loop_now_us(f->loop));
}

/* "asked epoch snapshot"; an epoch has no blanks in it. */
struct view feed_chain(struct feed *f)
{
	if (!f->snapshot)
		return VIEW_NONE;
	buf_clear(&f->chain);
	buf_i64(&f->chain, f->polled_us);
	buf_putc(&f->chain, ' ');
	buf_view_put(&f->chain, view_of(f->epoch));
	buf_putc(&f->chain, ' ');
	buf_view_put(&f->chain, view_of(f->snapshot));
	return buf_failed(&f->chain) ? VIEW_NONE : buf_view(&f->chain);
}

/* What it says is looked at by the poll, like what a feed knows itself. */
void feed_resume(struct feed *f, struct view chain)
{
	struct view asked, epoch;
	bool was_running = f->running;
	feed_start(f);
	if (was_running || !chain.n || !view_split(&chain, ' ', &asked) || !view_split(&chain, ' ', &epoch) || !asked.n ||
	    !epoch.n || epoch.n >= EPOCH_MAX || !xmax_of(chain))
		return;
	int64_t polled_us = (int64_t)number_at(asked), now = loop_now_us(f->loop);
	if (polled_us > now || now - polled_us > f->options.retention_us / 2)
		return;
	f->snapshot = copy_of(chain);
	if (!f->snapshot)
		return;
	f->polled_us = polled_us;
	f->succeeded = true; /* another's poll did a moment ago: a first one without an answer says as much as a later one */
	(void)snprintf(f->epoch, sizeof f->epoch, "%.*s", VIEW_ARG(epoch));
}

int64_t feed_waits_us(const struct feed *f)
{
	return f->waits_since_us ? loop_now_us(f->loop) - f->waits_since_us : 0;
}

void feed_stop(struct feed *f)
{
	if (!f->running)
		return;
	f->running = false;
	f->waits_since_us = 0;
	f->succeeded = false;
	f->life++;
	loop_timer_stop(f->loop, &f->timer);
	ask_drop(&f->poll);
	ask_drop(&f->clean);
	marks_forget(f);
	forget(f, VIEW_NONE);
}

void feed_destroy(struct feed *f)
{
	if (!f)
		return;
	feed_stop(f);
	arena_destroy(f->poll.arena);
	arena_destroy(f->clean.arena);
	buf_free(&f->chain);
	free(f);
}
