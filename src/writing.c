/* Writes: from a request to a transaction, from what it wrote to the answer, and what becomes of it when something fails.
 *
 * Without an Idempotency-Key and without anything to check, a write is one trip: statement and commit. So is, with a key,
 * what most of them are, the insertion of one row, where no code of the user's runs: PostgreSQL makes the answer, too.
 *
 *     key looked up, settings, statement that makes the answer and gives the role back, answer recorded
 *
 * Else it is two:
 *
 *     BEGIN, key looked up, settings, statement | the answer is made here | role given back, answer recorded, COMMIT
 *
 * with a trip more for a row that is to be compared before it is changed (If-Match), or replaced or else inserted (PUT).
 * Until COMMIT is sent nothing has happened, and a lost connection is a reason to try again. After that only a key can
 * tell: the same request under the same key either finds its answer or has not been carried out. */
#include "config.h"

#include "exchange.h"
#include "recall.h"
#include "replicas.h"
#include "writing.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "http/media.h"
#include "http/params.h"
#include "http/problem.h"
#include "query/etag.h"

enum {
	PARAMS_MAX = 64,
	TRIES_MAX = 5,          /* of a transaction that PostgreSQL chose to fail */
	BACKOFF_US = 4000,      /* before the second try; doubled each time, with jitter */
	ASK_AGAIN_US = 20000,   /* for an outcome that is not known */
	ASK_AGAIN_MAX_US = 250000,
	HEAR_US = 250000,       /* patience with the change feed before a replay */
	HEAR_AGAIN_US = 10000,
};

/* The owner's numbers of the statements of a trip. */
enum { MARK_BEGIN, MARK_LOCK, MARK_WRITE, MARK_SAID, MARK_RECORD, MARK_NOTED };

static struct writing *writing(const struct exchange *ex)
{
	return ex->write;
}

/* --- what the client prefers --- */

static void take_preference(struct writing *w, struct view name, struct view value)
{
	if (view_ieq(name, VIEW("return"))) {
		if (view_ieq(value, VIEW("minimal")))
			w->prefer = RETURN_MINIMAL;
		else if (view_ieq(value, VIEW("headers-only")))
			w->prefer = RETURN_HEADERS;
		else if (view_ieq(value, VIEW("representation")))
			w->prefer = RETURN_ROWS;
		else
			return;
		w->applied_return = true;
	} else if (view_ieq(name, VIEW("resolution")) && w->kind == WRITE_INSERT) {
		if (view_ieq(value, VIEW("merge-duplicates")))
			w->rows.resolution = RESOLVE_MERGE;
		else if (view_ieq(value, VIEW("ignore-duplicates")))
			w->rows.resolution = RESOLVE_IGNORE;
	}
}

/* RFC 7240: names and values by comma; what is not known is left alone. */
static void take_preferences(struct exchange *ex)
{
	struct writing *w = writing(ex);
	struct view all = ex->request.header[HEADER_PREFER];
	w->prefer = w->kind == WRITE_DELETE ? RETURN_MINIMAL : RETURN_ROWS;
	for (struct view one; view_split(&all, ',', &one);) {
		struct view name, value = one;
		(void)view_split(&value, ';', &one); /* parameters behind it */
		value = one;
		(void)view_split(&value, '=', &name);
		value = view_trim(value);
		if (value.n >= 2 && value.p[0] == '"' && value.p[value.n - 1] == '"')
			value = view_make(value.p + 1, value.n - 2);
		take_preference(w, view_trim(name), value);
	}
}

static void preference_applied(struct exchange *ex)
{
	static const char *const returned[] = { "return=representation", "return=minimal", "return=headers-only" };
	static const char *const resolved[] = { NULL, "resolution=merge-duplicates", "resolution=ignore-duplicates" };
	const struct writing *w = writing(ex);
	const char *first = w->applied_return ? returned[w->prefer] : NULL, *second = resolved[w->rows.resolution];
	if (!first && !second)
		return;
	char text[96];
	(void)snprintf(text, sizeof text, "%s%s%s", first ? first : "", first && second ? ", " : "", second ? second : "");
	response_header(&ex->response, VIEW("Preference-Applied"), view_of(text));
}

/* --- parameters --- */

static enum status take_param(struct exchange *ex, const struct param *p, struct view *detail)
{
	struct writing *w = writing(ex);
	struct view *own = NULL;
	if (w->kind == WRITE_INSERT && view_eq(p->name, VIEW("columns")))
		own = &w->columns;
	else if (w->kind == WRITE_INSERT && view_eq(p->name, VIEW("on_conflict")))
		own = &w->on_conflict;
	if (own && own->p) {
		*detail = arena_printf(ex->arena, "The parameter \"%.*s\" comes twice.", VIEW_ARG(p->name));
		return ERR_INVALID_PARAMETER;
	}
	if (own) {
		*own = p->value;
		return OK;
	}
	if (w->filtered)
		return filters_take(&w->filters, p, detail);
	*detail = arena_printf(ex->arena, "There is no parameter \"%.*s\" here.", VIEW_ARG(p->name));
	return ERR_UNKNOWN_PARAMETER;
}

static enum status take_params(struct exchange *ex, struct view *detail)
{
	struct writing *w = writing(ex);
	enum status st = params_parse(ex->arena, ex->request.query, PARAMS_MAX, &w->params, detail);
	if (st != OK || w->kind == WRITE_CALL)
		return st;
	const struct settings *set = ex->service->settings;
	w->filtered = (w->kind == WRITE_UPDATE || w->kind == WRITE_DELETE) && !ex->key;
	w->bounds = exchange_bounds(ex);
	filters_init(&w->filters, ex->arena, ex->catalog, ex->resource, &w->bounds);
	for (size_t i = 0; st == OK && i < w->params.n; i++)
		st = take_param(ex, &w->params.item[i], detail);
	if (st != OK || !w->filtered)
		return st;
	if (!filters_any(&w->filters)) {
		*detail = VIEW("A list is written to only where a filter says which of its rows: ?id=eq.5, for example.");
		return ERR_INVALID_PARAMETER;
	}
	w->rows.filters = &w->filters;
	w->rows.rows_max = (size_t)set->affected_rows_max;
	return OK;
}

/* --- bodies --- */

static struct write_limits limits_of(const struct settings *set)
{
	return (struct write_limits){
		.depth = (unsigned)set->body_max_depth,
		.values = (size_t)set->body_max_values,
		.rows = (size_t)set->body_max_rows,
	};
}

static enum status take_body(struct exchange *ex, struct view *detail)
{
	struct writing *w = writing(ex);
	struct write_limits limits = limits_of(ex->service->settings);
	if (w->kind == WRITE_DELETE)
		return OK;
	w->call.function = ex->function;
	if (exchange_reads(ex))
		return call_take_params(&w->call, ex->arena, &w->params, detail);
	struct view text = buf_view(&ex->body);
	if (w->kind == WRITE_CALL && text.n == 0)
		text = VIEW("{}");
	const struct json *body = write_document(ex->arena, w->document, text, &limits, detail);
	if (!body)
		return arena_full(ex->arena) ? ERR_BODY_TOO_LARGE : ERR_INVALID_BODY;
	if (w->kind == WRITE_CALL)
		return call_take(&w->call, ex->arena, body, detail);
	if (w->kind != WRITE_INSERT && body->kind != JSON_OBJECT) {
		*detail = VIEW("The body has to be one object.");
		return ERR_INVALID_BODY;
	}
	enum status st = write_rows(&w->rows, ex->arena, body, w->columns, &limits, detail);
	if (st == OK && w->kind == WRITE_UPDATE && w->rows.n_columns == 0) {
		*detail = VIEW("The object has no member: there is nothing to change.");
		return ERR_INVALID_BODY;
	}
	if (st == OK && w->rows.resolution != RESOLVE_REFUSE)
		st = write_conflict(&w->rows, ex->arena, w->on_conflict, detail);
	if (st == OK && w->rows.resolution == RESOLVE_MERGE && w->rows.n_columns == 0)
		w->rows.resolution = RESOLVE_IGNORE;
	return st;
}

/* --- the key --- */

static enum idempotency policy(const struct exchange *ex)
{
	return ex->function ? ex->function->idempotency : ex->resource->idempotency;
}

static enum status take_key(struct exchange *ex, struct view *detail)
{
	struct writing *w = writing(ex);
	struct view header = ex->request.header[HEADER_IDEMPOTENCY_KEY];
	if (exchange_reads(ex))
		return OK; /* it changes nothing */
	if (!header.p) {
		/* PUT and DELETE do the same thing twice without any. */
		bool repeatable = w->kind == WRITE_REPLACE || w->kind == WRITE_DELETE;
		return policy(ex) == IDEMPOTENCY_REQUIRED && !repeatable ? ERR_IDEMPOTENCY_KEY_MISSING : OK;
	}
	if (!ex->principal.has_key) {
		*detail = VIEW("An Idempotency-Key belongs to an API key, and the request has none.");
		return ERR_IDEMPOTENCY_KEY_INVALID;
	}
	if (policy(ex) == IDEMPOTENCY_NONE) {
		*detail = VIEW("This resource keeps no answers: it takes no Idempotency-Key.");
		return ERR_IDEMPOTENCY_KEY_INVALID;
	}
	enum status st = idempotency_key(ex->arena, header, &w->once.key, detail);
	if (st != OK)
		return st;
	w->once.identity = ex->principal.key_id;
	w->once.role = ex->principal.role;
	w->once.tenant = ex->principal.tenant;
	w->once.fingerprint = idempotency_fingerprint(ex->arena, &ex->request, &w->params, buf_view(&ex->body));
	return w->once.fingerprint.p ? OK : ERR_OVERLOADED;
}

static bool has_key(const struct writing *w)
{
	return w->once.key.p;
}

/* --- what it takes --- */

static void take_preconditions(struct exchange *ex)
{
	struct writing *w = writing(ex);
	w->if_match = ex->key ? ex->request.header[HEADER_IF_MATCH] : VIEW_NONE;
	struct view none = ex->request.header[HEADER_IF_NONE_MATCH];
	w->must_be_new = w->kind == WRITE_REPLACE && none.p && view_eq(view_trim(none), VIEW("*"));
}

static bool code_may_run(const struct exchange *ex)
{
	return ex->function || ex->resource->writing_runs_code;
}

/* What it changed beside: cascades, triggers, functions. An insertion where no code of the user's runs changes what the catalog
 * says; else PostgreSQL tells what was noted, as part of the trip that commits. */
static bool inserts_only(const struct exchange *ex)
{
	const struct writing *w = writing(ex);
	return w->kind == WRITE_INSERT && !code_may_run(ex) && w->rows.resolution != RESOLVE_MERGE;
}

static bool asks_what_changed(const struct exchange *ex)
{
	return ex->catalog->keeps && !exchange_reads(ex) && !inserts_only(ex);
}

static bool one_trip(const struct exchange *ex)
{
	const struct writing *w = writing(ex);
	return w->answered || (!has_key(w) && !w->if_match.p && w->kind != WRITE_REPLACE && !w->filtered);
}

static enum status prepare(struct exchange *ex, struct view *detail)
{
	struct writing *w = writing(ex);
	w->rows.resource = ex->resource;
	w->rows.owner = ex->principal.tenant;
	w->rows.key = ex->key;
	take_preferences(ex);
	enum status st = take_params(ex, detail);
	if (st == OK)
		st = take_key(ex, detail);
	if (st == OK)
		st = take_body(ex, detail);
	if (st != OK)
		return st;
	take_preconditions(ex);
	if (w->kind == WRITE_CALL) {
		if (!exchange_reads(ex) && w->params.n) {
			*detail = VIEW("A call by POST takes its arguments in the body, and no parameters.");
			return ERR_UNKNOWN_PARAMETER;
		}
		return OK;
	}
	w->readable = resource_may(ex->catalog, ex->resource, PRIVILEGE_SELECT, ex->principal.role);
	w->rows.returning = w->readable && (w->prefer != RETURN_MINIMAL || w->if_match.p || w->kind == WRITE_INSERT);
	w->answered = has_key(w) && w->kind == WRITE_INSERT && w->rows.returning && w->prefer != RETURN_HEADERS && !code_may_run(ex)
	              && insert_can_answer(&w->rows);
	return shape_of(ex->arena, ex->resource, &ex->shape) ? OK : ERR_QUERY_TOO_COMPLEX;
}

/* --- attempts --- */

static void happened(struct exchange *ex, enum happening what)
{
	writing(ex)->happening = what;
	exchange_resume(ex);
}

static void on_ready(void *context, struct tx *tx)
{
	(void)tx;
	happened(context, HAPPENED_READY);
}

static void on_committed(void *context, struct tx *tx)
{
	struct exchange *ex = context;
	struct writing *w = writing(ex);
	rows_free(ex->rows);
	ex->rows = tx_take_rows(tx, MARK_WRITE);
	rows_free(w->said);
	w->said = tx_take_rows(tx, MARK_SAID);
	if (!exchange_reads(ex)) {
		replicas_wrote(ex, tx_position(tx));
		recall_written(ex, inserts_only(ex) ? NULL : tx_rows(tx, MARK_NOTED));
	}
	ex->tx = NULL;
	happened(ex, HAPPENED_COMMIT);
}

static void on_failed(void *context, struct tx *tx, enum status status, int mark, const struct db_error *error)
{
	struct exchange *ex = context;
	struct writing *w = writing(ex);
	(void)tx;
	ex->tx = NULL;
	/* A call by GET changes nothing that could be unknown. */
	ex->query_status = status == ERR_OUTCOME_UNKNOWN && exchange_reads(ex) ? ERR_UNAVAILABLE : status;
	ex->sqlstate[0] = '\0';
	ex->error_message = w->error_column = VIEW_NONE;
	if (error && !error->no_writes) {
		memcpy(ex->sqlstate, error->sqlstate, sizeof ex->sqlstate);
		ex->error_message = arena_copy(ex->arena, error->message);
		w->error_column = arena_copy(ex->arena, error->column);
	}
	w->failed_mark = mark;
	happened(ex, HAPPENED_FAILURE);
}

static void on_again(struct timer *t)
{
	happened(CONTAINER_OF(t, struct exchange, again), HAPPENED_PAUSE);
}

static enum next attempt(struct exchange *ex)
{
	ex->for_all = exchange_reads(ex) && ex->function && ex->function->policy.is_public &&
	              function_may(ex->catalog, ex->function, ex->catalog->anonymous_role);
	struct service *s = ex->service;
	struct writing *w = writing(ex);
	const struct tx_options options = {
		.session = exchange_session(ex),
		.deadline_us = ex->deadline_us,
		.group = ex->group,
		.read_only = exchange_reads(ex),
		.position = *s->settings->read_dsn && !exchange_reads(ex),
		.scrub = code_may_run(ex),
	};
	const struct tx_owner owner = { on_ready, on_committed, on_failed, ex };
	w->stage = w->if_match.p && w->kind != WRITE_DELETE ? STAGE_LOCK : w->must_be_new ? STAGE_INSERT : STAGE_WRITE;
	w->began = w->sent = false;
	response_restart(&ex->response, 0);
	ex->tx = tx_start(s->loop, s->pool, &options, &owner);
	return ex->tx ? WAIT : problem(ex, ERR_OVERLOADED, VIEW_NONE);
}

static enum next pause(struct exchange *ex, int64_t us)
{
	struct loop *loop = ex->service->loop;
	ex->again.fire = on_again;
	loop_timer_set(loop, &ex->again, loop_now_us(loop) + us / 2 + random() % (us + 1));
	return WAIT;
}

/* --- answers made by PostgreSQL --- */

static void put_etag(struct exchange *ex, struct view body)
{
	char tag[ETAG_CHARS];
	etag_of(ex->catalog->tag_key, body, tag);
	response_header(&ex->response, VIEW("ETag"), view_make(tag, sizeof tag));
}

/* What of the head is known before the row is: all but Location and ETag, which follow in this order. */
static void answered_head(struct exchange *ex)
{
	struct response *r = &ex->response;
	response_restart(r, 201);
	response_header(r, VIEW("Cache-Control"), VIEW("no-store"));
	preference_applied(ex);
	if (writing(ex)->prefer == RETURN_ROWS)
		response_header(r, VIEW("Content-Type"), VIEW("application/json"));
}

static int64_t kept_bytes_max(const struct exchange *ex)
{
	const struct settings *set = ex->service->settings;
	return set->idempotency_max_bytes < set->page_max_bytes ? set->idempotency_max_bytes : set->page_max_bytes;
}

static bool answered_statements(struct exchange *ex, struct statement *s)
{
	struct writing *w = writing(ex);
	struct response *r = &ex->response;
	struct buf path = BUF(RESPONSE_HEAD_MAX);
	buf_view_put(&path, view_of(ex->service->settings->mount));
	buf_putc(&path, '/');
	percent_encode(&path, ex->resource->name);
	answered_head(ex);
	bool body = w->prefer == RETURN_ROWS;
	bool good = !buf_failed(&path) && insert_answered(s, ex->arena, &w->rows, buf_view(&path), body)
	            && idempotency_record_made(&w->record, ex->arena, &w->once, r->http, buf_view(&r->head), body, kept_bytes_max(ex));
	buf_free(&path);
	return good;
}

static enum next answered(struct exchange *ex)
{
	struct response *r = &ex->response;
	if (!ex->rows || rows_count(ex->rows) != 1)
		return problem(ex, ERR_DATABASE, VIEW_NONE);
	struct view body = rows_value(ex->rows, 0, 0);
	answered_head(ex);
	response_header(r, VIEW("Location"), rows_value(ex->rows, 0, 1));
	if (writing(ex)->prefer == RETURN_ROWS)
		put_etag(ex, body);
	buf_view_put(&r->body, body);
	return DONE;
}

/* --- trips --- */

static bool write_statement(struct exchange *ex, struct statement *s)
{
	struct writing *w = writing(ex);
	if (w->answered)
		return answered_statements(ex, s);
	if (w->kind == WRITE_CALL)
		return call_statement(s, ex->arena, &w->call);
	if (w->kind == WRITE_INSERT || w->stage == STAGE_INSERT)
		return insert_statement(s, ex->arena, &w->rows);
	if (w->kind == WRITE_UPDATE)
		return update_statement(s, ex->arena, &w->rows);
	return w->kind == WRITE_DELETE ? delete_statement(s, ex->arena, &w->rows) : replace_statement(s, ex->arena, &w->rows);
}

static enum next abandon(struct exchange *ex, enum status status, struct view detail)
{
	if (ex->tx)
		tx_abandon(ex->tx);
	ex->tx = NULL;
	return writing(ex)->unknown ? problem(ex, ERR_OUTCOME_UNKNOWN, VIEW_NONE) : problem(ex, status, detail);
}

/* A statement that cannot be made: a key in the path that no row can have, or too much. */
static enum next not_made(struct exchange *ex, const struct statement *s)
{
	bool full = arena_full(ex->arena) || s->failed;
	return abandon(ex, full ? ERR_QUERY_TOO_COMPLEX : ERR_NOT_FOUND, VIEW_NONE);
}

/* What a function or a trigger says about the answer: see said(). */
static void ask_what_was_said(struct exchange *ex)
{
	tx_text(ex->tx, "SELECT pg_catalog.current_setting('response.status', true),"
	                " pg_catalog.current_setting('response.headers', true)", MARK_SAID);
}

/* As the worker itself: what is deferred has run before. */
static void give_role_back(struct exchange *ex)
{
	tx_text(ex->tx, "SELECT pg_catalog.set_config('role', 'none', true)", -1);
}

static void ask_what_changed(struct exchange *ex)
{
	tx_text(ex->tx, "SELECT resource, keys, hard FROM composure.noted()", MARK_NOTED);
}

static enum next send_work(struct exchange *ex)
{
	struct writing *w = writing(ex);
	bool lock = w->stage == STAGE_LOCK, whole = one_trip(ex), first = !w->began;
	/* Made once: a document that is asked for again and again does not fill the arena. */
	struct statement *s = &w->statement[w->stage], *key = &w->begin;
	if (!s->hash && !(lock ? lock_statement(s, ex->arena, &w->rows) : write_statement(ex, s)))
		return not_made(ex, s);
	if (has_key(w) && !key->hash && !idempotency_begin(key, ex->arena, &w->once))
		return abandon(ex, ERR_OVERLOADED, VIEW_NONE);
	tx_trip(ex->tx);
	if (first) {
		w->began = true;
		if (!whole)
			tx_begin(ex->tx);
		if (has_key(w))
			tx_statement(ex->tx, key, MARK_BEGIN);
		tx_settings(ex->tx);
		if (code_may_run(ex))
			tx_text(ex->tx, "SELECT pg_catalog.set_config('response.status', '', true),"
			                " pg_catalog.set_config('response.headers', '', true)", -1);
	}
	tx_statement(ex->tx, s, lock ? MARK_LOCK : MARK_WRITE);
	/* What is deferred runs as the caller, and before the answer is made. */
	if (!lock && !whole)
		tx_text(ex->tx, "SET CONSTRAINTS ALL IMMEDIATE", -1);
	if (!lock && code_may_run(ex))
		ask_what_was_said(ex);
	if (w->answered)
		tx_statement(ex->tx, &w->record, MARK_RECORD);
	if (whole && asks_what_changed(ex)) {
		if (code_may_run(ex))
			tx_text(ex->tx, "SET CONSTRAINTS ALL IMMEDIATE", -1);
		give_role_back(ex);
		ask_what_changed(ex);
	}
	if (whole)
		tx_commit(ex->tx);
	w->sent = true;
	tx_send(ex->tx);
	return WAIT;
}

static enum next kept_too_large(struct exchange *ex)
{
	return abandon(ex, ERR_ANSWER_TOO_LARGE,
	               VIEW("An answer of that size is not kept, so nothing was written: ask for Prefer: return=minimal."));
}

static enum next send_commit(struct exchange *ex)
{
	struct writing *w = writing(ex);
	struct response *r = &ex->response;
	struct statement record;
	if (has_key(w)) {
		if (r->body.n > (size_t)ex->service->settings->idempotency_max_bytes)
			return kept_too_large(ex);
		if (!idempotency_record(&record, ex->arena, &w->once, r->http, buf_view(&r->head), buf_view(&r->body)))
			return abandon(ex, ERR_OVERLOADED, VIEW_NONE);
	}
	w->stage = STAGE_COMMIT;
	tx_trip(ex->tx);
	if (has_key(w) || asks_what_changed(ex))
		give_role_back(ex);
	if (has_key(w))
		tx_statement(ex->tx, &record, MARK_RECORD);
	if (asks_what_changed(ex))
		ask_what_changed(ex);
	tx_commit(ex->tx);
	tx_send(ex->tx);
	return WAIT;
}

/* --- answers --- */

/* Where the one row is: below the mount, its key in the path. Hidden key columns do not exist, so none is hidden. */
static void location(struct exchange *ex)
{
	const struct resource *res = ex->resource;
	struct order order = { res->order, res->n_order };
	struct buf path = BUF(RESPONSE_HEAD_MAX), part = BUF(RESPONSE_HEAD_MAX);
	buf_view_put(&path, view_of(ex->service->settings->mount));
	buf_putc(&path, '/');
	percent_encode(&path, res->name);
	for (unsigned i = 0; i < res->n_key; i++) {
		unsigned term = 0;
		while (res->order[term].column != res->key[i])
			term++; /* an order is total: the key is in it */
		enum render_kind kind;
		int at = order_column(res, order, term, &kind);
		buf_clear(&part);
		render_text(&part, kind, rows_value(ex->rows, 0, at));
		buf_putc(&path, i ? ',' : '/');
		percent_encode(&path, buf_view(&part));
	}
	if (!buf_failed(&path) && !buf_failed(&part))
		response_header(&ex->response, VIEW("Location"), buf_view(&path));
	buf_free(&path);
	buf_free(&part);
}

/* The row that a write left, or took away. */
static void answer_one(struct exchange *ex, bool is_new)
{
	const struct writing *w = writing(ex);
	struct response *r = &ex->response;
	if (is_new)
		location(ex);
	if (w->prefer == RETURN_MINIMAL)
		return;
	row_write(&r->body, &ex->shape, ex->rows, 0);
	if (w->kind != WRITE_DELETE)
		put_etag(ex, buf_view(&r->body));
	if (w->prefer == RETURN_HEADERS)
		buf_clear(&r->body);
	else
		response_header(r, VIEW("Content-Type"), VIEW("application/json"));
}

static void answer_many(struct exchange *ex)
{
	struct response *r = &ex->response;
	if (writing(ex)->prefer != RETURN_ROWS)
		return;
	response_header(r, VIEW("Content-Type"), VIEW("application/json"));
	int n = rows_count(ex->rows);
	buf_putc(&r->body, '[');
	for (int i = 0; i < n; i++) {
		if (i)
			buf_putc(&r->body, ',');
		row_write(&r->body, &ex->shape, ex->rows, i);
	}
	buf_putc(&r->body, ']');
}

/* What a function or a trigger has set: a status, and headers out of those that it may. */
static void said(struct exchange *ex)
{
	struct writing *w = writing(ex);
	if (w->said && rows_count(w->said) == 1)
		said_take(&ex->response, ex->arena, rows_value(w->said, 0, 0), rows_value(w->said, 0, 1),
		          view_of(ex->service->settings->response_headers));
}

static int64_t n_affected(const struct exchange *ex)
{
	if (!ex->rows)
		return 0;
	return writing(ex)->rows.returning ? rows_count(ex->rows) : rows_affected(ex->rows);
}

static void content_range(struct exchange *ex, int64_t n)
{
	char text[32];
	int len = snprintf(text, sizeof text, "*/%lld", (long long)n);
	response_header(&ex->response, VIEW("Content-Range"), view_make(text, (size_t)len));
}

/* Columns may have changed their types since the catalog was read: nothing is said then of what was written. */
static bool rows_fit(const struct exchange *ex)
{
	const struct writing *w = writing(ex);
	return w->kind == WRITE_CALL || !w->rows.returning || !ex->rows || shape_fits(&ex->shape, ex->rows);
}

/* Fills the response with what the rows say. False: it is a problem instead, with *failed set. */
static bool answer(struct exchange *ex, enum status *failed)
{
	struct writing *w = writing(ex);
	struct response *r = &ex->response;
	int64_t n = n_affected(ex);
	bool is_new = w->kind == WRITE_INSERT || w->stage == STAGE_INSERT;
	if (w->kind == WRITE_CALL) {
		response_restart(r, w->call.function->returns == RETURNS_VOID ? 204 : 200);
		if (exchange_reads(ex))
			cache_headers(ex, &w->call.function->policy);
		else
			response_header(r, VIEW("Cache-Control"), VIEW("no-store"));
		if (r->http == 200)
			response_header(r, VIEW("Content-Type"), VIEW("application/json"));
		call_write(&r->body, &w->call, ex->rows);
		said(ex);
		if (exchange_reads(ex) && r->http == 200)
			entity_tag(ex);
		return true;
	}
	*failed = ERR_NOT_FOUND;
	if (ex->key && n == 0 && !is_new)
		return false;
	*failed = ERR_QUERY_TOO_COMPLEX;
	if (w->filtered && n > (int64_t)w->rows.rows_max)
		return false;
	bool rows = w->rows.returning && w->prefer == RETURN_ROWS;
	bool merged = w->rows.resolution != RESOLVE_REFUSE;
	response_restart(r, is_new && !merged ? 201 : rows ? 200 : 204);
	response_header(r, VIEW("Cache-Control"), VIEW("no-store"));
	preference_applied(ex);
	if (w->filtered || w->rows.many)
		content_range(ex, n);
	if (w->rows.returning && !w->rows.many && !w->filtered) {
		if (n)
			answer_one(ex, r->http == 201);
		else if (rows) /* the row was there already, or a trigger kept it out */
			response_header(r, VIEW("Content-Type"), VIEW("application/json")), buf_lit(&r->body, "null");
	} else if (w->rows.returning) {
		answer_many(ex);
	}
	said(ex);
	return true;
}

static enum next too_many(struct exchange *ex, enum status failed)
{
	const struct settings *set = ex->service->settings;
	struct view detail = failed != ERR_QUERY_TOO_COMPLEX ? VIEW_NONE
		: arena_printf(ex->arena, "The filter takes in more than %lld rows, so nothing was changed.",
		               (long long)set->affected_rows_max);
	return abandon(ex, failed, detail);
}

/* The row as it stands, against what the client believes of it. RFC 9110 section 13.1.1: a weak tag never matches. */
static bool row_matches(struct exchange *ex, const struct rows *rows)
{
	struct buf body = BUF((size_t)ex->service->settings->page_max_bytes);
	char tag[ETAG_CHARS];
	if (!rows || rows_count(rows) == 0)
		return false;
	row_write(&body, &ex->shape, rows, 0);
	etag_of(ex->catalog->tag_key, buf_view(&body), tag);
	bool matches = !buf_failed(&body) && etag_matches(writing(ex)->if_match, view_make(tag, sizeof tag), true);
	buf_free(&body);
	return matches;
}

/* A trip of a transaction that goes on came back. */
static enum next looked(struct exchange *ex)
{
	struct writing *w = writing(ex);
	enum status failed;
	if (w->stage == STAGE_LOCK) {
		if (!shape_fits(&ex->shape, tx_rows(ex->tx, MARK_LOCK)))
			return exchange_anew(ex);
		if (!row_matches(ex, tx_rows(ex->tx, MARK_LOCK)))
			return abandon(ex, ERR_PRECONDITION_FAILED, VIEW_NONE);
		w->stage = STAGE_WRITE;
		return send_work(ex);
	}
	rows_free(ex->rows);
	ex->rows = tx_take_rows(ex->tx, MARK_WRITE);
	rows_free(w->said);
	w->said = tx_take_rows(ex->tx, MARK_SAID);
	if (w->kind == WRITE_REPLACE && w->stage == STAGE_WRITE && n_affected(ex) == 0 && !w->if_match.p) {
		w->stage = STAGE_INSERT;
		return send_work(ex);
	}
	if (!rows_fit(ex))
		return exchange_anew(ex);
	if (w->kind == WRITE_DELETE && w->if_match.p && !row_matches(ex, ex->rows))
		return abandon(ex, ERR_PRECONDITION_FAILED, VIEW_NONE);
	if (!answer(ex, &failed))
		return too_many(ex, failed);
	return buf_failed(&ex->response.body) ? abandon(ex, ERR_ANSWER_TOO_LARGE, VIEW("Nothing was written.")) : send_commit(ex);
}

static enum next committed(struct exchange *ex)
{
	enum status failed;
	if (writing(ex)->answered)
		return answered(ex);
	if (!one_trip(ex))
		return DONE; /* made before */
	if (!rows_fit(ex))
		writing(ex)->prefer = RETURN_MINIMAL, writing(ex)->rows.returning = false;
	return answer(ex, &failed) ? DONE : problem(ex, failed, VIEW_NONE);
}

/* --- replays --- */

static enum next ask_replay(struct exchange *ex)
{
	struct writing *w = writing(ex);
	w->stage = STAGE_REPLAY;
	if (!idempotency_answer(&ex->statement, ex->arena, &w->once))
		return problem(ex, ERR_OVERLOADED, VIEW_NONE);
	exchange_query_own(ex);
	return WAIT;
}

static enum next replay(struct exchange *ex)
{
	struct writing *w = writing(ex);
	struct response *r = &ex->response;
	int64_t now = clock_us();
	if (ex->query_status != OK)
		return w->unknown ? pause(ex, w->ask_again_us) : query_problem(ex);
	if (!ex->rows || rows_count(ex->rows) != 1)
		return pause(ex, BACKOFF_US); /* it was let go this moment: the key is free again */
	/* What it changed went with whoever wrote it: the feed tells, and the client is to read nothing older afterwards. */
	if (!w->replayed_us)
		w->replayed_us = now;
	if (ex->catalog->keeps && !recall_heard(ex, w->replayed_us) && now - w->replayed_us < HEAR_US)
		return pause(ex, HEAR_AGAIN_US);
	replicas_wrote(ex, ex->query.lsn); /* it was committed before it was found */
	recall_written(ex, NULL);
	response_restart(r, (int)rows_int(rows_value(ex->rows, 0, 0)));
	bool with_tag;
	struct view body = rows_value(ex->rows, 0, 2);
	buf_view_put(&r->head, idempotency_headers(rows_value(ex->rows, 0, 1), &with_tag));
	if (with_tag)
		put_etag(ex, body);
	response_header(r, VIEW("Idempotency-Replayed"), VIEW("true"));
	buf_view_put(&r->body, body);
	return DONE;
}

/* --- failures --- */

/* Nobody knows whether it took effect. Only under a key is it safe to ask. */
static enum next ask_again(struct exchange *ex)
{
	struct writing *w = writing(ex);
	w->ask_again_us = w->ask_again_us ? w->ask_again_us * 2 : ASK_AGAIN_US;
	if (w->ask_again_us > ASK_AGAIN_MAX_US)
		w->ask_again_us = ASK_AGAIN_MAX_US;
	return pause(ex, w->ask_again_us);
}

static bool is(const struct exchange *ex, const char *sqlstate)
{
	return strcmp(ex->sqlstate, sqlstate) == 0;
}

/* Failed by PostgreSQL's own choice, or by something that may be otherwise next time; nothing took effect. */
static bool worth_a_try(const struct exchange *ex)
{
	const struct writing *w = writing(ex);
	if (w->tries >= TRIES_MAX)
		return false;
	if (strncmp(ex->sqlstate, "40", 2) == 0 || is(ex, "26000") || is(ex, "0A000"))
		return true;
	/* Replaced by nothing, and then there: somebody inserted it in between. Once. */
	if (w->kind == WRITE_REPLACE && !w->must_be_new && is(ex, "23505"))
		return w->tries == 0;
	return ex->query_status == ERR_UNAVAILABLE && w->sent && w->tries < 2;
}

static enum next key_problem(struct exchange *ex)
{
	if (is(ex, IDEMPOTENCY_RECORDED))
		return ask_replay(ex);
	if (is(ex, IDEMPOTENCY_IN_PROGRESS)) {
		/* Perhaps our own, on a connection that PostgreSQL has not yet found to be gone. */
		if (writing(ex)->unknown)
			return ask_again(ex);
		return problem(ex, ERR_IN_PROGRESS, VIEW_NONE);
	}
	if (is(ex, IDEMPOTENCY_MISMATCH))
		return problem(ex, ERR_IDEMPOTENCY_MISMATCH, VIEW_NONE);
	if (is(ex, IDEMPOTENCY_OTHER_PRINCIPAL))
		return problem(ex, ERR_FORBIDDEN, VIEW("The key was used when this API key had another role or tenant."));
	return query_problem(ex);
}

/* The column at fault, where PostgreSQL or the body tells; never more of its words than that. */
static struct view blame(struct exchange *ex)
{
	const struct writing *w = writing(ex);
	const struct column *c = NULL;
	if (w->kind == WRITE_CALL)
		return call_blame(&w->call, ex->arena, ex->error_message);
	if (is(ex, "23502")) {
		c = resource_column(ex->resource, w->error_column);
		return c ? arena_printf(ex->arena, "The column \"%.*s\" must not be null.", VIEW_ARG(c->name)) : VIEW_NONE;
	}
	if (strncmp(ex->sqlstate, "22", 2) == 0)
		c = write_blame(&w->rows, ex->error_message);
	return c ? arena_printf(ex->arena, "The value of the column \"%.*s\" does not fit its type.", VIEW_ARG(c->name)) : VIEW_NONE;
}

static enum next failed(struct exchange *ex)
{
	struct writing *w = writing(ex);
	bool knows = ex->query_status != ERR_OUTCOME_UNKNOWN;
	if (!knows && !has_key(w))
		return problem(ex, ERR_OUTCOME_UNKNOWN,
		               VIEW("The connection to the database was lost during the commit. It was not tried again: look first."));
	w->unknown |= !knows;
	if (w->failed_mark == MARK_BEGIN && strncmp(ex->sqlstate, "ZC", 2) == 0)
		return key_problem(ex);
	if (w->failed_mark == MARK_RECORD && is(ex, IDEMPOTENCY_TOO_LARGE))
		return kept_too_large(ex);
	/* Before the key is its own it has not been looked up: what goes wrong there says nothing of the commit. */
	if (w->unknown && (!knows || ex->query_status == ERR_UNAVAILABLE || w->failed_mark == MARK_BEGIN))
		return ask_again(ex);
	if (w->answered && is(ex, "0A000")) {
		/* A rule of the table's, which WITH does not take. */
		w->answered = false;
		w->statement[STAGE_WRITE].hash = 0;
		return attempt(ex);
	}
	if (worth_a_try(ex))
		return pause(ex, (int64_t)BACKOFF_US << w->tries++);
	if (w->must_be_new && is(ex, "23505"))
		return problem(ex, ERR_PRECONDITION_FAILED, VIEW_NONE);
	int http = said_status(ex->sqlstate);
	if (http)
		return problem_as(ex, ERR_RAISED, http, ex->error_message);
	struct view detail = blame(ex);
	if (detail.p)
		return problem(ex, ex->query_status, detail);
	return query_problem(ex);
}

/* --- steps --- */

bool writing_unknown(const struct exchange *ex)
{
	return !exchange_reads(ex) && ((ex->write && ex->write->unknown) || (ex->tx && tx_committing(ex->tx)));
}

void writing_end(struct exchange *ex)
{
	loop_timer_stop(ex->service->loop, &ex->again);
	if (ex->tx)
		tx_abandon(ex->tx);
	ex->tx = NULL;
	if (ex->write)
		rows_free(ex->write->said);
	ex->write = NULL;
}

/* Which media types a body may have. NEXT: it is one of them. */
enum next write_media(struct exchange *ex)
{
	struct view type = ex->request.content_type;
	bool takes_csv = ex->write_kind == WRITE_INSERT;
	if (!ex->write) {
		ex->write = ARENA_NEW(ex->arena, struct writing);
		if (!ex->write)
			return problem(ex, ERR_OVERLOADED, VIEW_NONE);
	}
	struct writing *w = ex->write;
	w->kind = ex->write_kind;
	w->document = DOCUMENT_JSON;
	if (!type.n || media_is(type, VIEW("application/json")))
		return NEXT;
	if (media_is(type, VIEW("application/x-www-form-urlencoded")))
		w->document = DOCUMENT_FORM;
	else if (takes_csv && media_is(type, VIEW("text/csv")))
		w->document = DOCUMENT_CSV;
	else
		return problem(ex, ERR_MEDIA_TYPE,
		               takes_csv ? VIEW("A body is application/json, application/x-www-form-urlencoded or text/csv.")
		                         : VIEW("A body is application/json or application/x-www-form-urlencoded."));
	return NEXT;
}

enum next write_ask(struct exchange *ex)
{
	struct view detail = VIEW_NONE;
	enum status st = prepare(ex, &detail);
	if (st != OK)
		return problem(ex, st, detail);
	enum next n = attempt(ex);
	return n == WAIT ? NEXT : n;
}

enum next write_answer(struct exchange *ex)
{
	struct writing *w = writing(ex);
	enum happening what = w->happening;
	w->happening = HAPPENED_NOTHING;
	if (w->stage == STAGE_REPLAY && ex->query_done) {
		ex->query_done = false;
		return replay(ex);
	}
	switch (what) {
	case HAPPENED_READY: return w->sent ? looked(ex) : send_work(ex);
	case HAPPENED_COMMIT: return committed(ex);
	case HAPPENED_FAILURE: return failed(ex);
	case HAPPENED_PAUSE: return attempt(ex);
	case HAPPENED_NOTHING: break;
	}
	return WAIT;
}
