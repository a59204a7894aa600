#include "config.h"

#include "watcher.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "exchange.h"

enum { POLL_US = 200000, QUERY_US = 5000000, STATE_MAX = 512 };

struct watcher {
	struct service *service;
	struct timer poll;
	struct arena *arena;
	struct statement state_sql, catalog_sql;
	struct query query;
	struct rows *rows;
	bool out;          /* a query is on its way */
	bool reading;      /* it is the catalog's */
	bool reload;       /* read it whatever the state says */
	char state[STATE_MAX], next_state[STATE_MAX];
	char why[256];
};

static void ask(struct watcher *);

struct view watcher_why(const struct watcher *w)
{
	return view_of(w->why[0] ? w->why : "The catalog has not been read yet.");
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

static void resume_all(struct watcher *w)
{
	struct service *s = w->service;
	/* Those who go on waiting put themselves into the list anew. */
	struct exchange *all = s->waiting;
	s->waiting = NULL;
	for (struct exchange *ex = all; ex; ex = ex->link)
		ex->in_waiting = false;
	while (all) {
		struct exchange *ex = all;
		all = ex->link;
		exchange_resume(ex);
	}
}

/* --- polling --- */

static void again_in(struct watcher *w, int64_t us)
{
	loop_timer_set(w->service->loop, &w->poll, loop_now_us(w->service->loop) + us);
}

static void on_poll(struct timer *t)
{
	struct watcher *w = CONTAINER_OF(t, struct watcher, poll);
	if (!w->out)
		ask(w);
}

static void failed(struct watcher *w, enum status status, const struct db_error *error)
{
	struct view why = VIEW_NONE;
	(void)pool_reachable(w->service->pool, &why);
	if (error && strcmp(error->sqlstate, "3F000") == 0)
		why = VIEW("The database has no schema \"composure\": run psql -f sql/migrate.sql.");
	else if (error && error->sqlstate[0])
		why = error->message;
	char before[sizeof w->why];
	memcpy(before, w->why, sizeof before);
	(void)snprintf(w->why, sizeof w->why, "%.*s", VIEW_ARG(why.n ? why : view_of(status_title(status))));
	if (strcmp(before, w->why) != 0)
		log_warn("the catalog cannot be read: %s", w->why);
}

static void take_catalog(struct watcher *w)
{
	const char *why = "";
	struct view json = rows_count(w->rows) == 1 ? rows_value(w->rows, 0, 0) : VIEW_NONE;
	struct catalog *fresh = catalog_parse(json, &why);
	if (!fresh) {
		(void)snprintf(w->why, sizeof w->why, "%s", why);
		log_error("%s", w->why);
		return;
	}
	catalog_unref(w->service->catalog);
	w->service->catalog = fresh;
	memcpy(w->state, w->next_state, sizeof w->state);
	w->why[0] = '\0';
	keycache_invalidate(w->service->keys, VIEW_NONE);
	log_debug("catalog %lld: %u resources", (long long)fresh->version, fresh->n_resources);
}

static void take_state(struct watcher *w)
{
	struct view v = rows_count(w->rows) == 1 ? rows_value(w->rows, 0, 0) : VIEW_NONE;
	(void)snprintf(w->next_state, sizeof w->next_state, "%.*s", VIEW_ARG(v));
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
	w->out = w->reading = false;
	if (status != OK) {
		failed(w, status, error);
	} else if (was_reading) {
		take_catalog(w);
	} else {
		take_state(w);
		if (w->reload || !w->service->catalog || strcmp(w->state, w->next_state) != 0) {
			w->reload = false;
			w->reading = true;
			ask(w);
			return;
		}
	}
	rows_free(w->rows);
	w->rows = NULL;
	again_in(w, POLL_US);
	if (was_reading || status != OK)
		resume_all(w);
}

static void ask(struct watcher *w)
{
	struct service *s = w->service;
	w->query = (struct query){
		.statement = w->reading ? &w->catalog_sql : &w->state_sql,
		.session = { .search_path = view_of(s->settings->search_path) },
		.deadline_us = loop_now_us(s->loop) + QUERY_US,
		.rows = on_rows,
		.done = on_done,
	};
	w->out = true;
	pool_submit(s->pool, &w->query);
}

void watcher_reload(struct watcher *w)
{
	w->reload = true;
	if (!w->out)
		ask(w);
}

struct watcher *watcher_create(struct service *s)
{
	struct watcher *w = calloc(1, sizeof *w);
	struct arena *a = arena_create(65536);
	if (!w || !a) {
		free(w);
		arena_destroy(a);
		return NULL;
	}
	w->service = s;
	w->arena = a;
	w->poll.fire = on_poll;
	statement_init(&w->state_sql, a);
	statement_lit(&w->state_sql, "SELECT composure.catalog_state()");
	statement_init(&w->catalog_sql, a);
	statement_lit(&w->catalog_sql, "SELECT composure.catalog()");
	if (!statement_finish(&w->state_sql) || !statement_finish(&w->catalog_sql)) {
		watcher_destroy(w);
		return NULL;
	}
	ask(w);
	return w;
}

void watcher_destroy(struct watcher *w)
{
	if (!w)
		return;
	loop_timer_stop(w->service->loop, &w->poll);
	if (w->out)
		pool_abandon(w->service->pool, &w->query);
	rows_free(w->rows);
	arena_destroy(w->arena);
	free(w);
}
