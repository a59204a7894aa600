/* The feed against a pool and a clock that the test plays: pool_submit(), loop_now_us() and their like are ours here, so
 * that pool.o and loop.o are not linked. */
#include "config.h"

#include "results.h"

#include <stdio.h>

#include "base/loop.h"
#include "db/feed.h"

/* --- the pool --- */

struct asked {
	struct query *query;
	char text[200];
	char value[2][400]; /* of $1 and $2; "" for NULL */
};

static struct bench {
	struct feed *feed;
	int64_t now_us;
	struct timer *timer;             /* the one that is set */
	struct asked poll, clean;        /* the last asked for; query is NULL when none is out */
	unsigned polls, begins, cleans, abandoned;

	char told[8192];                 /* what the owner was told, a line each */
	int64_t asked_us;                /* with the last polled() */
	uint64_t told_lsn, heard_lsn;
	void (*on_told)(struct bench *); /* called from within callbacks */
} b;

void pool_submit(struct pool *p, struct query *q)
{
	(void)p;
	bool clean = strstr(q->statement->text, "feed_clean") != NULL;
	struct asked *a = clean ? &b.clean : &b.poll;
	assert_null(a->query);
	a->query = q;
	(void)snprintf(a->text, sizeof a->text, "%s", q->statement->text);
	for (int i = 0; i < 2; i++) {
		const char *v = i < q->statement->n_params ? q->statement->values[i] : NULL;
		(void)snprintf(a->value[i], sizeof a->value[i], "%s", v ? v : "");
	}
	if (clean)
		b.cleans++;
	else if (strstr(a->text, "feed_begin"))
		b.begins++;
	else
		b.polls++;
}

void pool_abandon(struct pool *p, struct query *q)
{
	(void)p;
	b.abandoned++;
	if (b.poll.query == q)
		b.poll.query = NULL;
	if (b.clean.query == q)
		b.clean.query = NULL;
}

bool pool_reachable(const struct pool *p, struct view *why)
{
	(void)p;
	*why = VIEW("no route to PostgreSQL");
	return false;
}

/* --- the loop --- */

int64_t loop_now_us(const struct loop *l)
{
	(void)l;
	return b.now_us;
}

void loop_timer_set(struct loop *l, struct timer *t, int64_t due_us)
{
	(void)l;
	assert_true(!b.timer || b.timer == t);
	b.timer = t;
	t->due_us = due_us;
}

void loop_timer_stop(struct loop *l, struct timer *t)
{
	(void)l;
	if (b.timer == t)
		b.timer = NULL;
}

/* Goes on to the next timer that is due until then; false when there is none. */
static bool go_on(int64_t until_us)
{
	struct timer *t = b.timer;
	if (!t || t->due_us > until_us)
		return false;
	if (t->due_us > b.now_us)
		b.now_us = t->due_us;
	b.timer = NULL;
	t->fire(t);
	return true;
}

static void run_for(int64_t us)
{
	int64_t until = b.now_us + us;
	while (go_on(until))
		;
	b.now_us = until;
}

/* Until the feed has asked for a poll (or feed_begin()) again. */
static void until_asked(void)
{
	while (!b.poll.query)
		assert_true(go_on(INT64_MAX));
}

/* --- the owner --- */

static void tell(const char *fmt, ...) PRINTF_LIKE(1, 2);

static void tell(const char *fmt, ...)
{
	size_t n = strlen(b.told);
	va_list args;
	va_start(args, fmt);
	(void)vsnprintf(b.told + n, sizeof b.told - n, fmt, args);
	va_end(args);
	if (b.on_told)
		b.on_told(&b);
}

static void changed(void *context, struct view resource, const struct view *keys, unsigned n_keys, bool hard)
{
	char line[4096];
	int n = snprintf(line, sizeof line, "%.*s", VIEW_ARG(resource));
	assert_ptr_equal(context, &b);
	assert_true(keys || n_keys == 0);
	for (unsigned i = 0; i < n_keys; i++)
		n += snprintf(line + n, sizeof line - (size_t)n, " %.*s", VIEW_ARG(keys[i]));
	tell("%s%s%s\n", line, keys ? "" : " *", hard ? " hard" : "");
}

static void everything(void *context, struct view why, bool hard)
{
	assert_ptr_equal(context, &b);
	tell("everything: %.*s%s\n", VIEW_ARG(why), hard ? "" : " (soft)");
}

static void telling(void *context, uint64_t lsn, int64_t asked_us)
{
	assert_ptr_equal(context, &b);
	assert_true(asked_us > 0);
	b.told_lsn = lsn;
}

static void polled(void *context, int64_t asked_us, uint64_t lsn)
{
	assert_ptr_equal(context, &b);
	b.asked_us = asked_us;
	b.heard_lsn = lsn;
	tell("polled\n");
}

static void failed(void *context, enum status status, struct view why)
{
	assert_ptr_equal(context, &b);
	tell("failed: %s: %.*s\n", status_code(status), VIEW_ARG(why));
}

#define assert_told(text)                          \
	do {                                       \
		assert_string_equal(b.told, text); \
		b.told[0] = '\0';                  \
	} while (0)

/* --- answers --- */

enum { COLUMNS = 7, ROWS_MAX = 12 };

struct answer {
	struct view cells[ROWS_MAX * COLUMNS];
	int rows;
	char room[2048];
	size_t used;
};

static void header(struct answer *a, const char *snapshot, const char *epoch, const char *gone)
{
	*a = (struct answer){ .cells = { view_of(snapshot), view_of(epoch), view_of(gone) }, .rows = 1 };
}

static void put32(struct answer *a, uint32_t n)
{
	for (int shift = 24; shift >= 0; shift -= 8)
		a->room[a->used++] = (char)(n >> shift);
}

/* keys are separated by blanks; NULL is SQL's. */
static void change(struct answer *a, const char *resource, const char *keys)
{
	struct view *row = &a->cells[a->rows++ * COLUMNS];
	row[3] = view_of(resource);
	if (!keys)
		return;
	size_t from = a->used;
	struct view rest = view_of(keys), key;
	uint32_t n = 0;
	for (struct view r = rest; keys[0] && view_split(&r, ' ', &key);)
		n++;
	put32(a, n ? 1 : 0);
	put32(a, 0);
	put32(a, 25);
	if (n) {
		put32(a, n);
		put32(a, 1);
	}
	while (n && view_split(&rest, ' ', &key)) {
		put32(a, (uint32_t)key.n);
		memcpy(a->room + a->used, key.p, key.n);
		a->used += key.n;
	}
	row[4] = view_make(a->room + from, a->used - from);
}

static void hard_change(struct answer *a, const char *resource, const char *keys)
{
	change(a, resource, keys);
	a->cells[(a->rows - 1) * COLUMNS + 5] = view_make("\1", 1);
}

static struct query *take(struct asked *a)
{
	struct query *q = a->query;
	assert_non_null(q);
	a->query = NULL;
	return q;
}

static void answer(struct answer *a)
{
	struct query *q = take(&b.poll);
	q->rows(q, result_of(a->rows, COLUMNS, a->cells));
	q->done(q, OK, NULL);
}

static void answer_header(const char *snapshot, const char *epoch, const char *gone)
{
	struct answer a;
	header(&a, snapshot, epoch, gone);
	answer(&a);
}

static void refuse(struct asked *a, enum status status, const char *sqlstate, const char *message)
{
	struct db_error error = { .message = view_of(message) };
	(void)snprintf(error.sqlstate, sizeof error.sqlstate, "%s", sqlstate ? sqlstate : "");
	struct query *q = take(a);
	q->done(q, status, sqlstate ? &error : NULL);
}

enum { INTERVAL_US = 20000, RETENTION_US = 4000000 };

static int set_up(void **state)
{
	(void)state;
	memset(&b, 0, sizeof b);
	b.now_us = 1000000;
	struct feed_options options = { .interval_us = INTERVAL_US, .retention_us = RETENTION_US };
	struct feed_owner owner = { changed, everything, telling, polled, failed, &b };
	b.feed = feed_create(NULL, NULL, &options, &owner);
	return b.feed ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	feed_destroy(b.feed);
	assert_null(b.poll.query);
	assert_null(b.clean.query);
	assert_null(b.timer);
	return 0;
}

#define feed_test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

/* Started, with the first poll answered: snapshot 100:100:, epoch E, nothing gone. */
static void follow(void)
{
	feed_start(b.feed);
	until_asked();
	answer_header("100:100:", "E", "0");
	assert_told("everything: the feed starts\npolled\n");
}

/* --- the tests --- */

static void nothing_is_asked_before_the_start(void **state)
{
	(void)state;
	run_for(5 * INTERVAL_US);
	assert_int_equal(b.polls, 0);
}

static void a_feed_begins_without_a_snapshot_and_with_everything(void **state)
{
	(void)state;
	feed_start(b.feed);
	assert_int_equal(b.polls, 0); /* from the loop only */
	until_asked();
	assert_string_equal(b.poll.text, "SELECT snapshot, epoch, gone, resource, keys, hard, pg_catalog.pg_current_wal_insert_lsn() FROM composure.feed_poll($1)");
	assert_string_equal(b.poll.value[0], "");
	assert_false(b.poll.query->write);
	assert_told("");
	answer_header("100:103:101", "E", "0");
	assert_told("everything: the feed starts\npolled\n");
	until_asked();
	assert_string_equal(b.poll.value[0], "100:103:101");
}

static void changes_are_told_in_order_and_before_polled(void **state)
{
	(void)state;
	follow();
	until_asked();
	struct answer a;
	header(&a, "100:105:102", "E", "0");
	change(&a, "users", "1 2 30");
	change(&a, "@catalog", NULL);
	change(&a, "@key", "abc");
	change(&a, "users", "");
	answer(&a);
	assert_told("users 1 2 30\n@catalog *\n@key abc\npolled\n");
	until_asked();
	assert_string_equal(b.poll.value[0], "100:105:102");
}

static void polled_tells_the_time_of_asking(void **state)
{
	(void)state;
	follow();
	until_asked();
	int64_t then = b.now_us;
	run_for(7000);
	answer_header("100:100:", "E", "0");
	assert_int_equal(b.asked_us, then);
}

static void polls_come_each_interval_and_late_ones_leave_a_pause(void **state)
{
	(void)state;
	follow();
	until_asked();
	int64_t then = b.now_us;
	run_for(7000);
	answer_header("100:100:", "E", "0");
	until_asked();
	assert_int_equal(b.now_us, then + INTERVAL_US);
	run_for(3 * INTERVAL_US);
	then = b.now_us;
	answer_header("100:100:", "E", "0");
	until_asked();
	assert_int_equal(b.now_us, then + INTERVAL_US / 4);
}

static void at_all_is_everything(void **state)
{
	(void)state;
	follow();
	until_asked();
	struct answer a;
	header(&a, "100:105:102", "E", "0");
	change(&a, "users", "1");
	change(&a, "@all", NULL);
	answer(&a);
	assert_told("users 1\neverything: rights changed\npolled\n");
}

static void keys_that_cannot_be_read_are_all_of_the_resource(void **state)
{
	(void)state;
	static const struct view wrong[] = {
		VIEW_INIT(""),
		VIEW_INIT("\0\0\0\1\0\0\0\0\0\0\0\31"),
		VIEW_INIT("\0\0\0\1\0\0\0\1\0\0\0\31\0\0\0\1\0\0\0\1\377\377\377\377"),            /* a NULL */
		VIEW_INIT("\0\0\0\1\0\0\0\0\0\0\0\31\0\0\0\1\0\0\0\1\0\0\0\5abcd"),                /* longer than it is */
		VIEW_INIT("\0\0\0\1\0\0\0\0\0\0\0\31\177\377\377\377\0\0\0\1\0\0\0\1a"),          /* more than there are */
		VIEW_INIT("\0\0\0\2\0\0\0\0\0\0\0\31\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\1a"), /* two dimensions */
	};
	follow();
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		until_asked();
		struct answer a;
		header(&a, "100:105:102", "E", "0");
		change(&a, "users", NULL);
		a.cells[COLUMNS + 4] = wrong[i];
		answer(&a);
		assert_told("users *\npolled\n");
	}
}

static void another_epoch_is_everything(void **state)
{
	(void)state;
	follow();
	until_asked();
	struct answer a;
	header(&a, "100:105:", "F", "0");
	change(&a, "users", "1"); /* contained in everything */
	answer(&a);
	assert_told("everything: PostgreSQL crashed or was replaced\npolled\n");
	until_asked();
	assert_string_equal(b.poll.value[0], "100:105:");
	answer_header("100:105:", "F", "0");
	assert_told("polled\n");
}

static void what_a_restart_did_not_lose_is_told_after_everything(void **state)
{
	(void)state;
	follow();
	until_asked();
	answer_header("100:105:", "id.1.2.1700000000.5", "0");
	assert_told("everything: PostgreSQL crashed or was replaced\npolled\n");
	until_asked();
	struct answer a;
	header(&a, "106:106:", "id.1.2.1700000009.25", "0");
	change(&a, "users", "1");
	answer(&a);
	assert_told("everything: PostgreSQL was restarted (soft)\nusers 1\npolled\n");
	/* Another table of that name, or another database, is another feed. */
	until_asked();
	answer_header("106:106:", "id.7.2.1700000009.25", "0");
	assert_told("everything: PostgreSQL crashed or was replaced\npolled\n");
}

static void a_snapshot_that_went_back_is_everything(void **state)
{
	(void)state;
	follow();
	until_asked();
	answer_header("99:99:", "E", "0");
	assert_told("everything: PostgreSQL crashed or was replaced\npolled\n");
}

static void a_missing_epoch_is_made_and_is_everything_once(void **state)
{
	(void)state;
	follow();
	until_asked();
	answer_header("200:200:", NULL, NULL);
	assert_told("");
	assert_int_equal(b.begins, 1);
	assert_string_equal(b.poll.text, "SELECT composure.feed_begin()");
	assert_true(b.poll.query->write);
	struct query *q = take(&b.poll);
	q->done(q, OK, NULL);
	assert_string_equal(b.poll.value[0], "");
	answer_header("201:201:", "F", "0");
	assert_told("everything: PostgreSQL crashed or was replaced\npolled\n");
	until_asked();
	answer_header("201:201:", "F", "0");
	assert_told("polled\n");
}

static void an_epoch_that_cannot_be_made_is_a_failure_and_tried_again(void **state)
{
	(void)state;
	follow();
	until_asked();
	answer_header("200:200:", NULL, NULL);
	refuse(&b.poll, ERR_DATABASE, "25006", "cannot execute INSERT in a read-only transaction");
	assert_told("failed: database_error: cannot execute INSERT in a read-only transaction\n");
	until_asked();
	answer_header("201:201:", "F", "0");
	assert_told("everything: PostgreSQL crashed or was replaced\npolled\n");
}

static void rows_that_are_gone_are_everything(void **state)
{
	(void)state;
	follow();
	until_asked();
	answer_header("100:120:", "E", "99");
	assert_told("polled\n");
	until_asked();
	answer_header("130:130:", "E", "120"); /* the last xmax is not above it */
	assert_told("everything: changes were deleted before they were read\npolled\n");
	until_asked();
	answer_header("130:130:", "E", "129");
	assert_told("polled\n");
}

static void more_than_ten_thousand_changes_are_everything(void **state)
{
	(void)state;
	enum { MANY = FEED_CHANGES_MAX + 2 };
	follow();
	for (int rows = MANY - 1; rows <= MANY; rows++) {
		struct view *cells = calloc((size_t)MANY * COLUMNS, sizeof *cells);
		cells[0] = VIEW("100:105:102");
		cells[1] = VIEW("E");
		cells[2] = VIEW("0");
		for (int i = 1; i < rows; i++)
			cells[i * COLUMNS + 3] = VIEW("");
		until_asked();
		struct query *q = take(&b.poll);
		b.told[0] = '\0';
		q->rows(q, result_of(rows, COLUMNS, cells));
		q->done(q, OK, NULL);
		if (rows == MANY)
			assert_told("everything: more changed at once than is read one by one\npolled\n");
		else
			assert_null(strstr(b.told, "everything"));
		free(cells);
	}
}

static void a_poll_after_half_the_retention_is_everything(void **state)
{
	(void)state;
	follow();
	until_asked();
	b.now_us += RETENTION_US / 2; /* stopped, or the answer was long on its way */
	struct answer a;
	header(&a, "100:105:", "E", "0");
	change(&a, "users", "1");
	answer(&a);
	assert_told("everything: the last poll was long ago\npolled\n");
}

static void a_failed_poll_is_tried_again_ever_later_and_keeps_its_snapshot(void **state)
{
	(void)state;
	follow();
	until_asked();
	static const int64_t pauses[] = { 20000, 40000, 80000, 160000, 320000, 500000, 500000 };
	for (size_t i = 0; i < ARRAY_LEN(pauses); i++) {
		int64_t then = b.now_us;
		refuse(&b.poll, ERR_UNAVAILABLE, NULL, NULL);
		assert_told("failed: database_unavailable: no route to PostgreSQL\n");
		until_asked();
		assert_int_equal(b.now_us, then + pauses[i]);
		assert_string_equal(b.poll.value[0], "100:100:");
	}
	struct answer a;
	header(&a, "100:105:", "E", "0");
	change(&a, "users", "1");
	hard_change(&a, "users", "2");
	answer(&a);
	assert_told("users 1\nusers 2 hard\npolled\n");
}

static void a_database_without_the_functions_says_what_to_do(void **state)
{
	(void)state;
	feed_start(b.feed);
	until_asked();
	refuse(&b.poll, ERR_DATABASE, "3F000", "schema \"composure\" does not exist");
	assert_told("failed: database_error: The database lacks Composure's functions: run psql -f sql/migrate.sql.\n");
}

static void an_answer_in_another_form_is_a_failure(void **state)
{
	(void)state;
	feed_start(b.feed);
	until_asked();
	answer_header("nonsense", "E", "0");
	assert_told("failed: database_error: composure.feed_poll() answered in another form\n");
	until_asked();
	struct query *q = take(&b.poll);
	q->done(q, OK, NULL);
	assert_told("failed: database_error: composure.feed_poll() answered in another form\n");
	until_asked();
	q = take(&b.poll);
	q->rows(q, result_of(0, COLUMNS, NULL));
	q->done(q, OK, NULL);
	assert_told("failed: database_error: composure.feed_poll() answered in another form\n");
}

static void a_poll_without_an_answer_is_abandoned_and_asked_again(void **state)
{
	(void)state;
	follow();
	until_asked();
	run_for(2000000);
	assert_int_equal(b.abandoned, 1);
	assert_told("failed: deadline_exceeded: PostgreSQL did not answer in time\n");
	until_asked();
	assert_string_equal(b.poll.value[0], "100:100:");
}

static void stopped_it_asks_and_tells_nothing_and_starts_anew(void **state)
{
	(void)state;
	follow();
	until_asked();
	feed_stop(b.feed);
	feed_stop(b.feed);
	assert_null(b.poll.query);
	assert_int_equal(b.abandoned, 1);
	unsigned polls = b.polls;
	run_for(5 * INTERVAL_US);
	assert_int_equal(b.polls, polls);
	feed_start(b.feed);
	feed_start(b.feed);
	until_asked();
	assert_string_equal(b.poll.value[0], "");
	answer_header("100:100:", "E", "0");
	assert_told("everything: the feed starts\npolled\n");
}

static void another_goes_on_where_one_left_off(void **state)
{
	(void)state;
	char chain[200];
	assert_absent(feed_chain(b.feed));
	follow();
	struct view left = feed_chain(b.feed);
	(void)snprintf(chain, sizeof chain, "%.*s", VIEW_ARG(left));
	feed_stop(b.feed);
	assert_absent(feed_chain(b.feed));
	feed_resume(b.feed, view_of(chain));
	until_asked();
	assert_string_equal(b.poll.value[0], "100:100:");
	struct answer a;
	header(&a, "100:105:", "E", "0");
	change(&a, "users", "1");
	answer(&a);
	assert_told("users 1\npolled\n");
	feed_stop(b.feed);
	/* PostgreSQL was replaced meanwhile. */
	feed_resume(b.feed, view_of(chain));
	until_asked();
	answer_header("100:105:", "F", "0");
	assert_told("everything: PostgreSQL crashed or was replaced\npolled\n");
	feed_stop(b.feed);
	/* Changes were deleted meanwhile. */
	feed_resume(b.feed, view_of(chain));
	until_asked();
	answer_header("100:105:", "E", "100");
	assert_told("everything: changes were deleted before they were read\npolled\n");
	feed_stop(b.feed);
	/* It was long ago. */
	run_for(6000000);
	feed_resume(b.feed, view_of(chain));
	until_asked();
	assert_string_equal(b.poll.value[0], "");
	answer_header("100:105:", "E", "0");
	assert_told("everything: the feed starts\npolled\n");
}

static void what_is_no_chain_is_begun_anew(void **state)
{
	(void)state;
	static const char *const wrong[] = { "", "x", "1 E", "1 E x", " E 100:100:", "1  100:100:", "99999999999999999 E 100:100:", "1 E 100" };
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		feed_resume(b.feed, view_of(wrong[i]));
		until_asked();
		assert_string_equal(b.poll.value[0], "");
		answer_header("100:100:", "E", "0");
		assert_told("everything: the feed starts\npolled\n");
		feed_stop(b.feed);
	}
}

static void stop(struct bench *bench)
{
	feed_stop(bench->feed);
}

static void an_owner_may_stop_it_from_a_callback(void **state)
{
	(void)state;
	follow();
	until_asked();
	struct answer a;
	header(&a, "100:105:", "E", "0");
	change(&a, "users", "1");
	change(&a, "users", "2");
	b.on_told = stop;
	answer(&a);
	assert_told("users 1\n");
	b.on_told = NULL;
	follow();
	until_asked();
	b.on_told = stop;
	refuse(&b.poll, ERR_UNAVAILABLE, NULL, NULL);
	assert_told("failed: database_unavailable: no route to PostgreSQL\n");
	b.on_told = NULL;
	unsigned polls = b.polls;
	run_for(5 * INTERVAL_US);
	assert_int_equal(b.polls, polls);
}

static void stop_and_start(struct bench *bench)
{
	bench->on_told = NULL;
	feed_stop(bench->feed);
	feed_start(bench->feed);
}

static void an_owner_may_start_it_anew_from_a_callback(void **state)
{
	(void)state;
	follow();
	until_asked();
	struct answer a;
	header(&a, "100:105:", "E", "0");
	change(&a, "users", "1");
	change(&a, "users", "2");
	b.on_told = stop_and_start;
	answer(&a);
	assert_told("users 1\n");
	until_asked();
	assert_string_equal(b.poll.value[0], "");
}

/* Answers polls, with a snapshot of its own for each, until so many deletions were asked for. */
static void poll_until_cleans(unsigned cleans, unsigned *xid)
{
	while (b.cleans < cleans) {
		char snapshot[64];
		until_asked();
		(void)snprintf(snapshot, sizeof snapshot, "%u:%u:", *xid, *xid);
		++*xid;
		answer_header(snapshot, "E", "0");
	}
	b.told[0] = '\0';
}

static void answer_clean(uint32_t deleted)
{
	char room[4] = { (char)(deleted >> 24), (char)(deleted >> 16), (char)(deleted >> 8), (char)deleted };
	struct view cell = view_make(room, 4);
	struct query *q = take(&b.clean);
	q->rows(q, result_of(1, 1, &cell));
	q->done(q, OK, NULL);
}

static void rows_are_deleted_by_a_snapshot_as_old_as_the_retention(void **state)
{
	(void)state;
	unsigned xid = 101;
	follow();
	int64_t began = b.asked_us;
	poll_until_cleans(1, &xid);
	assert_true(b.now_us - began >= RETENTION_US && b.now_us - began <= RETENTION_US + 1100000);
	assert_string_equal(b.clean.text, "SELECT composure.feed_clean($1, $2)");
	assert_string_equal(b.clean.value[0], "100:100:");
	assert_string_equal(b.clean.value[1], "");
	assert_true(b.clean.query->write);

	/* More than one call deletes: the same again, at once. */
	answer_clean(20000);
	assert_int_equal(b.cleans, 2);
	assert_string_equal(b.clean.value[0], "100:100:");
	assert_string_equal(b.clean.value[1], "");
	answer_clean(17);
	assert_int_equal(b.cleans, 2);

	/* A second later from there on; one that fails changes nothing of that. */
	began = b.now_us;
	poll_until_cleans(3, &xid);
	assert_true(b.now_us - began >= 1000000 && b.now_us - began <= 1100000);
	assert_string_equal(b.clean.value[1], "100:100:");
	assert_string_not_equal(b.clean.value[0], "100:100:");
	refuse(&b.clean, ERR_UNAVAILABLE, NULL, NULL);
	poll_until_cleans(4, &xid);
	assert_string_equal(b.clean.value[1], "100:100:");

	/* NULL: another host is at it. */
	struct view none = VIEW_NONE;
	struct query *q = take(&b.clean);
	q->rows(q, result_of(1, 1, &none));
	q->done(q, OK, NULL);
	poll_until_cleans(5, &xid);
	assert_string_equal(b.clean.value[1], "100:100:");
	feed_stop(b.feed);
	assert_null(b.clean.query);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		feed_test(nothing_is_asked_before_the_start),
		feed_test(a_feed_begins_without_a_snapshot_and_with_everything),
		feed_test(changes_are_told_in_order_and_before_polled),
		feed_test(polled_tells_the_time_of_asking),
		feed_test(polls_come_each_interval_and_late_ones_leave_a_pause),
		feed_test(at_all_is_everything),
		feed_test(keys_that_cannot_be_read_are_all_of_the_resource),
		feed_test(another_epoch_is_everything),
		feed_test(what_a_restart_did_not_lose_is_told_after_everything),
		feed_test(a_snapshot_that_went_back_is_everything),
		feed_test(a_missing_epoch_is_made_and_is_everything_once),
		feed_test(an_epoch_that_cannot_be_made_is_a_failure_and_tried_again),
		feed_test(rows_that_are_gone_are_everything),
		feed_test(more_than_ten_thousand_changes_are_everything),
		feed_test(a_poll_after_half_the_retention_is_everything),
		feed_test(a_failed_poll_is_tried_again_ever_later_and_keeps_its_snapshot),
		feed_test(a_database_without_the_functions_says_what_to_do),
		feed_test(an_answer_in_another_form_is_a_failure),
		feed_test(a_poll_without_an_answer_is_abandoned_and_asked_again),
		feed_test(stopped_it_asks_and_tells_nothing_and_starts_anew),
		feed_test(another_goes_on_where_one_left_off),
		feed_test(what_is_no_chain_is_begun_anew),
		feed_test(an_owner_may_stop_it_from_a_callback),
		feed_test(an_owner_may_start_it_anew_from_a_callback),
		feed_test(rows_are_deleted_by_a_snapshot_as_old_as_the_retention),
	};
	return cmocka_run_group_tests_name("feed", tests, NULL, NULL);
}
