/* The one hard fact: the state of the catalog is asked for before the catalog itself. So what is published under a state
 * is at least as new as that, and a change in between shows as another state at the next look. */
#include "config.h"

#include "watcher.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "cache/generation.h"
#include "cache/store.h"
#include "db/feed.h"
#include "exchange.h"
#include "guard.h"
#include "limiter.h"
#include "replicas.h"
#include "shm/progress.h"

enum {
	TICK_US = 20000,
	DOUBT_US = 75000,   /* a look at the feed that has no answer for so long, of a connection on which others had */
	DOUBTED_US = 60000, /* told for so long, each tick anew */
	NOT_RUN_US = 50000, /* a tick that is later than this says that the worker was stopped, or the machine busy */
	STATE_US = 1000000, /* between looks at what changes without a row of ours: grants, columns, policies */
	QUERY_US = 5000000,
	RETRY_US = 200000,
	SWEEP_US = 60000000,    /* between two sweeps of the records that retries are answered from */
	SWEEP_AGAIN_US = 1000000,
	BLIND_MS = 5000,
	PATIENCE_US = 60000,      /* of those who have not the watch, with a catalog that is out of date */
	CATALOG_BYTES = 64 << 20,
};

struct watcher {
	struct service *service;
	struct timer tick;
	struct arena *arena;
	struct statement state_sql, catalog_sql;
	struct feed *feed;
	bool holding;            /* the watch is ours */
	int64_t polled_us;       /* when the feed was heard last, with the watch; 0: not yet */

	struct query query;      /* of state or catalog */
	struct rows *rows;
	bool out;                /* it is on its way */
	bool reading;            /* it is the catalog's */
	bool wanted;             /* read the catalog whatever its state says */
	uint32_t question, answered, needed; /* state and, if it is another, catalog: the last one sent, answered, asked for */
	int64_t next_state_us;   /* when to look at the state again */
	struct statement sweep_sql;
	struct query sweep;
	bool sweeping, swept;    /* it is out; it had nothing left to do */
	int64_t next_sweep_us;
	struct statement follow_sql; /* makes triggers that are missing, once a second */
	struct query follow;
	bool following, follow_failed;
	int64_t next_round_us;   /* when to look after files, slots and locks again */
	int64_t retry_us;        /* no question before then: the last one failed */
	uint32_t asked;          /* the catalog's generation when the question went out */
	struct buf state;        /* what came of the question for it */

	/* Of service->catalog: the state and the generation that it was found true of, and whether it is this worker's alone
	 * because it could not be published. */
	struct buf have;
	uint32_t generation;
	bool own;
	int64_t stale_since_us;  /* 0: it is not */

	struct buf text, tag;    /* of the publication being read */
	char why[256];
};

static void ask(struct watcher *, bool catalog);

struct view watcher_why(const struct watcher *w)
{
	return view_of(w->why[0] ? w->why : "The catalog has not been read yet.");
}

bool watcher_sees(const struct watcher *w)
{
	int64_t beat = watch_heartbeat_ms(w->service->watch);
	return beat && watch_clock_ms() - beat < BLIND_MS;
}

/* --- those who wait --- */

void watcher_wait(struct watcher *w, struct exchange *ex)
{
	(void)w;
	if (ex->in_waiting)
		return;
	ex->in_waiting = true;
	ex->link = ex->service->waiting;
	ex->service->waiting = ex;
}

void watcher_unwait(struct watcher *w, struct exchange *ex)
{
	(void)w;
	if (!ex->in_waiting)
		return;
	for (struct exchange **at = &ex->service->waiting; *at; at = &(*at)->link) {
		if (*at == ex) {
			*at = ex->link;
			break;
		}
	}
	ex->in_waiting = false;
}

/* Those who go on waiting put themselves into the list anew; each may end another one. */
static void resume_all(struct watcher *w)
{
	struct service *s = w->service;
	unsigned n = 0;
	for (const struct exchange *ex = s->waiting; ex; ex = ex->link)
		n++;
	for (; n && s->waiting; n--) {
		struct exchange *last = s->waiting;
		while (last->link)
			last = last->link;
		watcher_unwait(w, last);
		exchange_resume(last);
	}
}

/* --- the catalog that is published --- */

/* Who learns that the catalog has changed adds one to its generation, in the watch's file: so all workers know that
 * theirs is out of date, also those whose region is another one (private, or of another layout). */
static uint64_t catalog_tag(void)
{
	return generation_tag(VIEW("catalog"), VIEW(""));
}

static uint32_t generation_now(const struct watcher *w)
{
	return generation_read(w->service->watch, catalog_tag()).hard;
}

static void adopt(struct watcher *w, struct catalog *fresh, struct view state, uint32_t generation, bool own)
{
	catalog_unref(w->service->catalog);
	w->service->catalog = fresh;
	buf_clear(&w->have);
	buf_view_put(&w->have, state);
	w->generation = generation;
	w->own = own;
	w->why[0] = '\0';
}

/* Is what this worker has what PostgreSQL has? Others may have confirmed that for the publication it came from. */
static bool up_to_date(struct watcher *w)
{
	struct service *s = w->service;
	uint32_t now = generation_now(w);
	uint64_t stamp;
	if (w->generation != now && !w->own && published_stamp(s->published, s->catalog_serial, &stamp))
		w->generation = (uint32_t)stamp;
	return s->catalog && w->generation == now;
}

void watcher_catalog(struct watcher *w)
{
	struct service *s = w->service;
	if (published_serial(s->published) == s->catalog_serial)
		return;
	const char *why = "";
	struct publication pub;
	buf_clear(&w->text);
	buf_clear(&w->tag);
	if (!published_read(s->published, &w->text, &w->tag, &pub))
		return; /* it is being written: the next look will find it */
	s->catalog_serial = pub.serial;
	/* By one that was stopped for long while it published, and is behind what this worker has asked for itself. */
	uint32_t now = generation_now(w);
	if (s->catalog && w->generation == now && pub.stamp != now)
		return;
	struct catalog *fresh = catalog_parse(buf_view(&w->text), &why);
	if (fresh) {
		adopt(w, fresh, buf_view(&w->tag), (uint32_t)pub.stamp, false);
	} else {
		(void)snprintf(w->why, sizeof w->why, "%s", why);
		log_error("%s", w->why);
	}
}

/* --- reading state and catalog --- */

static void failed(struct watcher *w, enum status status, const struct db_error *error)
{
	struct view why = VIEW_NONE;
	(void)pool_reachable(w->service->pool, &why);
	if (error && (strcmp(error->sqlstate, "3F000") == 0 || strcmp(error->sqlstate, "42883") == 0))
		why = VIEW("The schema \"composure\" is missing or too old: run psql -f sql/migrate.sql.");
	else if (error && error->sqlstate[0])
		why = error->message;
	char before[sizeof w->why];
	memcpy(before, w->why, sizeof before);
	(void)snprintf(w->why, sizeof w->why, "%.*s", VIEW_ARG(why.n ? why : view_of(status_title(status))));
	if (strcmp(before, w->why) != 0)
		log_warn("the catalog cannot be read: %s", w->why);
}

static struct view only_value(const struct watcher *w)
{
	return w->rows && rows_count(w->rows) == 1 ? rows_value(w->rows, 0, 0) : VIEW_NONE;
}

static void publish(struct watcher *w)
{
	struct service *s = w->service;
	struct view json = only_value(w);
	const char *why;
	/* What this build cannot read is not published: the others would fail on it one by one. */
	struct catalog *fresh = catalog_parse(json, &why);
	if (!fresh) {
		(void)snprintf(w->why, sizeof w->why, "%s", why);
		log_error("%s", w->why);
		w->retry_us = loop_now_us(s->loop) + STATE_US;
		return;
	}
	(void)published_repair(s->published, s->region);
	enum published_result result =
		published_write(s->published, s->region, json, buf_view(&w->state), w->asked);
	if (result == PUBLISHED)
		s->catalog_serial = published_serial(s->published);
	else if (!w->own)
		log_warn("the catalog cannot be published, each worker reads it for itself: %s",
		         result == PUBLISH_BUSY ? "somebody is publishing it" : "it is larger than there is room for");
	w->wanted = result == PUBLISH_BUSY || w->needed != w->question;
	adopt(w, fresh, buf_view(&w->state), w->asked, result != PUBLISHED);
}

static void take_state(struct watcher *w)
{
	struct service *s = w->service;
	struct view now = only_value(w);
	bool same = s->catalog && view_eq(buf_view(&w->have), now);
	buf_clear(&w->state);
	buf_view_put(&w->state, now);
	if (same && !w->own)
		published_restamp(s->published, s->region, s->catalog_serial, w->asked);
	if (same)
		w->generation = w->asked;
	else
		generation_bump_all(s->watch, GENERATION_HARD); /* whoever may see what may have changed with it */
	if (!same || w->wanted)
		ask(w, true);
}

static void on_rows(struct query *q, struct rows *rows)
{
	struct watcher *w = CONTAINER_OF(q, struct watcher, query);
	rows_free(w->rows);
	w->rows = rows;
}

static void on_done(struct query *q, enum status status, const struct db_error *error)
{
	struct watcher *w = CONTAINER_OF(q, struct watcher, query);
	bool was_reading = w->reading;
	int64_t now = loop_now_us(w->service->loop);
	w->out = w->reading = false;
	w->next_state_us = now + STATE_US;
	if (status != OK) {
		failed(w, status, error);
		w->retry_us = now + RETRY_US;
	} else if (was_reading) {
		publish(w);
	} else {
		take_state(w);
	}
	if (w->out)
		return;
	rows_free(w->rows);
	w->rows = NULL;
	w->answered = w->question;
	if (w->needed != w->question)
		ask(w, false);
	resume_all(w);
}

static void ask(struct watcher *w, bool catalog)
{
	struct service *s = w->service;
	if (w->out)
		return;
	w->query = (struct query){
		.statement = catalog ? &w->catalog_sql : &w->state_sql,
		.session = { .search_path = view_of(s->settings->search_path) },
		.deadline_us = loop_now_us(s->loop) + QUERY_US,
		.vital = true,
		.rows = on_rows,
		.done = on_done,
	};
	/* Before the question: a change that overtakes the answer leaves it out of date. */
	w->asked = generation_now(w);
	w->out = true;
	if (!catalog)
		w->needed = ++w->question;
	w->reading = catalog;
	pool_submit(s->pool, &w->query);
}

uint32_t watcher_reload(struct watcher *w)
{
	w->wanted = true;
	if (w->out)
		w->needed = w->question + 1;
	else
		ask(w, false);
	return w->needed;
}

bool watcher_reloaded(const struct watcher *w, uint32_t question)
{
	return (int32_t)(w->answered - question) >= 0;
}

/* --- the feed --- */

static void on_changed(void *context, struct view resource, const struct view *keys, unsigned n_keys, bool hard)
{
	struct watcher *w = context;
	struct service *s = w->service;
	if (view_eq(resource, VIEW("@catalog"))) {
		generation_bump(s->watch, catalog_tag(), GENERATION_HARD);
		ask(w, false);
	} else if (view_eq(resource, VIEW("@key"))) {
		for (unsigned i = 0; i < n_keys; i++)
			keycache_invalidate(s->keys, keys[i]);
		if (n_keys == 0)
			keycache_invalidate(s->keys, VIEW_NONE);
	} else if (view_eq(resource, VIEW("@limits"))) {
		generation_bump(s->watch, generation_tag(VIEW("limits"), VIEW("")), GENERATION_HARD);
	} else if (view_eq(resource, VIEW("@all"))) {
		generation_bump_all(s->watch, GENERATION_HARD);
		ask(w, false);
	} else {
		generation_changed(s->watch, resource, keys, n_keys, hard);
		store_count(s->store, STORE_INVALIDATED);
	}
}

/* What was read before a restart, rows and keys, may still serve where PostgreSQL fails again before it was read anew; catalog
 * and plans are asked for anew in any case. */
static void on_everything(void *context, struct view why, bool hard)
{
	struct watcher *w = context;
	struct service *s = w->service;
	log_info("everything remembered is out of date: %.*s", VIEW_ARG(why));
	generation_bump_all(s->watch, hard ? GENERATION_HARD : GENERATION_SOFT);
	generation_bump(s->watch, catalog_tag(), GENERATION_HARD);
	generation_bump(s->watch, generation_tag(VIEW("limits"), VIEW("")), GENERATION_HARD);
	ask(w, false);
}

/* Before anything is added to a generation: see progress_told(). */
static void on_telling(void *context, uint64_t lsn, int64_t asked_us)
{
	struct watcher *w = context;
	progress_tell(w->service->progress, lsn, asked_us);
}

static void on_polled(void *context, int64_t asked_us, uint64_t lsn)
{
	struct watcher *w = context;
	if (lsn)
		progress_hear(w->service->progress, lsn, asked_us);
	w->polled_us = loop_now_us(w->service->loop);
	/* What was told so far has been added: whoever has the watch next goes on from here. */
	watch_keep_chain(w->service->watch, feed_chain(w->feed));
	/* This clock first: who is stopped between the two has asked longer ago, never later. */
	int64_t now_ms = watch_clock_ms();
	watch_beat(w->service->watch, now_ms - (clock_us() - asked_us + 999) / 1000);
}

static void on_feed_failed(void *context, enum status status, struct view why)
{
	(void)context, (void)status, (void)why; /* the heartbeat grows old, which is what everyone looks at */
}

/* --- rounds --- */

/* What dead workers left: their slots are cleared and the locks they held are made good. */
static void clear_the_dead(struct service *s)
{
	for (unsigned n = 0; n < REGION_SLOTS; n++) {
		struct slot *slot = region_slot_at(s->region, n);
		uint32_t pid = atomic_load(&slot->pid);
		if (!pid || region_slot_alive(s->region, n))
			continue;
		atomic_store(&slot->connections, 0);
		(void)atomic_compare_exchange_strong(&slot->pid, &pid, 0); /* not of one who has just come */
	}
	(void)published_repair(s->published, s->region);
	if (store_repair(s->store))
		log_info("a worker died while it wrote: a part of the cache was emptied");
	unsigned sets = keycache_repair(s->keys);
	if (sets)
		log_info("a worker died while it wrote: %u sets of the key cache were emptied", sets);
}

/* A day's worth of records, emptied once a day: a lock that is not to be had at once is tried again in a second. */
static void on_swept_rows(struct query *q, struct rows *rows)
{
	struct watcher *w = CONTAINER_OF(q, struct watcher, sweep);
	struct view done = rows_count(rows) == 1 ? rows_value(rows, 0, 0) : VIEW_NONE;
	w->swept = done.n == 1 && done.p[0];
	rows_free(rows);
}

static void on_swept(struct query *q, enum status status, const struct db_error *error)
{
	struct watcher *w = CONTAINER_OF(q, struct watcher, sweep);
	(void)error;
	w->sweeping = false;
	w->next_sweep_us = loop_now_us(w->service->loop) + (status == OK && w->swept ? SWEEP_US : SWEEP_AGAIN_US);
}

static void sweep(struct watcher *w)
{
	struct service *s = w->service;
	int64_t now = loop_now_us(s->loop);
	if (w->sweeping || now < w->next_sweep_us)
		return;
	w->sweeping = true;
	w->swept = false;
	w->sweep = (struct query){
		.statement = &w->sweep_sql,
		.session = { .search_path = view_of(s->settings->search_path) },
		.deadline_us = now + QUERY_US,
		.write = true,
		.rows = on_swept_rows,
		.done = on_swept,
	};
	pool_submit(s->pool, &w->sweep);
}

static void on_followed(struct query *q, enum status status, const struct db_error *error)
{
	struct watcher *w = CONTAINER_OF(q, struct watcher, follow);
	w->following = false;
	bool told = w->follow_failed;
	w->follow_failed = status != OK && status != ERR_UNAVAILABLE;
	if (w->follow_failed && !told)
		log_warn("what triggers do not tell of is not looked for: %.*s",
		         VIEW_ARG(error && error->message.p ? error->message : view_of(status_title(status))));
}

static void on_followed_rows(struct query *q, struct rows *rows)
{
	(void)q;
	rows_free(rows);
}

/* Partitions that were attached, tables that were swapped: as long as something may be kept. */
static void follow(struct watcher *w)
{
	struct service *s = w->service;
	if (w->following || !s->catalog || !s->catalog->keeps)
		return;
	w->following = true;
	w->follow = (struct query){
		.statement = &w->follow_sql,
		.session = { .search_path = view_of(s->settings->search_path) },
		.deadline_us = loop_now_us(s->loop) + QUERY_US,
		.write = true,
		.rows = on_followed_rows,
		.done = on_followed,
	};
	pool_submit(s->pool, &w->follow);
}

/* Nobody can tell a server that is frozen from a question that takes long, but for the poll of the feed: it takes a millisecond.
 * Where all connections were lost since the feed was heard, it does not answer either, until there is a session that does. */
static void look_for_silence(struct watcher *w)
{
	struct service *s = w->service;
	int64_t most = s->settings->breaker_silence_ms * 1000, now = loop_now_us(s->loop);
	int64_t waits = feed_waits_us(w->feed), silent = pool_silent_us(s->pool), silent_us = waits < silent ? waits : silent;
	bool lost = w->polled_us && pool_lost_us(s->pool) > w->polled_us;
	if (lost || silent_us > DOUBT_US)
		breaker_doubt(s->primary, now + DOUBTED_US);
	if (silent_us > most && breaker_trip(s->primary, &s->server_terms, now))
		log_warn("postgresql: silent for %lld ms: the circuit breaker opens", (long long)(most / 1000));
}

static void every_second(struct watcher *w)
{
	struct service *s = w->service;
	guard_round(s);
	if ((!region_intact(s->region) || !watch_intact(s->watch)) && s->orphaned)
		s->orphaned(s);
	if (w->holding) {
		clear_the_dead(s);
		sweep(w);
		follow(w);
		limiter_round(s->limiter);
	}
}

static void look_at_watch(struct watcher *w)
{
	bool held = w->holding;
	w->holding = watch_hold(w->service->watch, watch_clock_ms());
	if (w->holding && !held) {
		log_debug("this worker has the watch");
		w->polled_us = 0;
		feed_resume(w->feed, watch_chain(w->service->watch));
		w->next_state_us = 0;
	} else if (!w->holding && held) {
		log_debug("this worker has lost the watch");
		feed_stop(w->feed);
	}
}

/* The holder of the watch asks at once, and each second for what changes without a row of ours; the others when it does
 * not publish for a while, one after another: it may be stopped, or of another layout. */
static bool time_to_ask(struct watcher *w, int64_t now)
{
	if (up_to_date(w))
		w->stale_since_us = 0;
	else if (!w->stale_since_us)
		w->stale_since_us = now;
	int64_t patience = w->holding ? 0 : PATIENCE_US + TICK_US * (int64_t)(region_me(w->service->region) % 8);
	bool late = w->stale_since_us && now - w->stale_since_us >= patience;
	/* Whoever is told by /readyz that PostgreSQL cannot be reached may send nothing that would find out. */
	bool due = w->holding || w->wanted || !pool_reachable(w->service->pool, NULL);
	return now >= w->retry_us && (late || (due && now >= w->next_state_us));
}

static void on_tick(struct timer *t)
{
	struct watcher *w = CONTAINER_OF(t, struct watcher, tick);
	struct service *s = w->service;
	int64_t now = loop_now_us(s->loop);
	atomic_store_explicit(&region_slot(s->region)->beat_us, now, memory_order_relaxed);
	if (now - t->due_us > NOT_RUN_US)
		pool_not_run(s->pool);
	look_at_watch(w);
	replicas_round(s->replicas, w->holding);
	pool_round(s->pool);
	if (w->holding)
		look_for_silence(w);
	if (now >= w->next_round_us) {
		w->next_round_us = now + STATE_US;
		every_second(w);
	}
	const struct catalog *had = s->catalog;
	watcher_catalog(w);
	if (time_to_ask(w, now))
		ask(w, false);
	if (s->catalog != had)
		resume_all(w);
	loop_timer_set(s->loop, t, now + TICK_US);
}

/* --- the watcher --- */

static bool statements(struct watcher *w)
{
	statement_init(&w->state_sql, w->arena);
	statement_lit(&w->state_sql, "SELECT composure.catalog_state()");
	statement_init(&w->sweep_sql, w->arena);
	statement_lit(&w->sweep_sql, "SELECT composure.idem_sweep()");
	statement_init(&w->follow_sql, w->arena);
	statement_lit(&w->follow_sql, "SELECT composure.follow_tables()");
	if (!statement_finish(&w->sweep_sql) || !statement_finish(&w->follow_sql))
		return false;
	statement_init(&w->catalog_sql, w->arena);
	statement_lit(&w->catalog_sql, "SELECT composure.catalog()");
	return statement_finish(&w->state_sql) && statement_finish(&w->catalog_sql);
}

struct watcher *watcher_create(struct service *s)
{
	struct watcher *w = calloc(1, sizeof *w);
	if (!w)
		return NULL;
	const struct feed_owner owner = { on_changed, on_everything, on_telling, on_polled, on_feed_failed, w };
	const struct feed_options options = { .interval_us = s->settings->feed_interval_ms * 1000 };
	w->service = s;
	w->tick.fire = on_tick;
	w->state = w->tag = w->have = BUF(4096);
	w->text = BUF(CATALOG_BYTES);
	w->arena = arena_create(65536);
	w->feed = feed_create(s->loop, s->pool, &options, &owner);
	if (!w->arena || !w->feed || !statements(w)) {
		watcher_destroy(w);
		return NULL;
	}
	loop_timer_set(s->loop, &w->tick, loop_now_us(s->loop));
	watcher_catalog(w);
	return w;
}

void watcher_destroy(struct watcher *w)
{
	if (!w)
		return;
	loop_timer_stop(w->service->loop, &w->tick);
	feed_destroy(w->feed);
	if (w->out)
		pool_abandon(w->service->pool, &w->query);
	if (w->sweeping)
		pool_abandon(w->service->pool, &w->sweep);
	if (w->following)
		pool_abandon(w->service->pool, &w->follow);
	rows_free(w->rows);
	arena_destroy(w->arena);
	buf_free(&w->state);
	buf_free(&w->have);
	buf_free(&w->text);
	buf_free(&w->tag);
	free(w);
}
