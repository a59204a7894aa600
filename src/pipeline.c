/* THE WAY of a request: a table of steps. A step returns NEXT, WAIT, YIELD or DONE and is called again with the same
 * exchange when what it waited for is there; nothing in it blocks. Read it from the table at the end. */
#include "config.h"

#include "exchange.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "cache/store.h"
#include "cors.h"
#include "guard.h"
#include "http/media.h"
#include "http/problem.h"
#include "http/timing.h"
#include "limiter.h"
#include "replicas.h"
#include "partial.h"
#include "recall.h"
#include "watcher.h"

enum {
	ARENA_BYTES_MAX = 16 << 20, /* of one request: mostly its body's JSON tree */
	KEEP_BYTES = 256 << 10,     /* of buffers, for the next request */
	TELL_CLOCK_US = 60000000,   /* between two lines in the log of the web server's clock */
};

static void run(struct exchange *);

/* --- problems --- */

enum next problem(struct exchange *ex, enum status status, struct view detail)
{
	return problem_as(ex, status, status_http(status), detail);
}

/* In whole seconds, and never sooner than it may work. */
static void retry_after(struct exchange *ex, enum status status)
{
	char text[24];
	int64_t seconds = status == ERR_UNAVAILABLE ? guard_retry_after(ex->service) : ex->retry_after;
	int n = snprintf(text, sizeof text, "%lld", (long long)(seconds > 0 ? seconds : 1));
	response_header(&ex->response, VIEW("Retry-After"), view_make(text, (size_t)n));
}

enum next problem_as(struct exchange *ex, enum status status, int http, struct view detail)
{
	ex->failed = status;
	problem_write_as(&ex->response, status, http, detail, view_make(ex->request_id, sizeof ex->request_id));
	if (status == ERR_UNAUTHENTICATED || status == ERR_INVALID_KEY)
		response_header(&ex->response, VIEW("WWW-Authenticate"), VIEW("Bearer realm=\"api\""));
	if (http == 503 || status == ERR_OUTCOME_UNKNOWN || status == ERR_IN_PROGRESS)
		retry_after(ex, status);
	return DONE;
}

static void allow_header(struct exchange *ex)
{
	static const struct {
		unsigned bit;
		struct view names;
	} table[] = {
		{ CATALOG_GET, { "GET, HEAD, ", 11 } }, { CATALOG_POST, { "POST, ", 6 } }, { CATALOG_PUT, { "PUT, ", 5 } },
		{ CATALOG_PATCH, { "PATCH, ", 7 } },    { CATALOG_DELETE, { "DELETE, ", 8 } },
	};
	struct buf text = BUF(256);
	/* A list takes no PUT and an item no POST; each takes only what was exposed. */
	unsigned fits = ex->key ? (unsigned)~CATALOG_POST : (unsigned)~CATALOG_PUT;
	unsigned methods = ex->function ? ex->function->methods : ex->resource->methods & fits;
	for (size_t i = 0; i < ARRAY_LEN(table); i++)
		if (methods & table[i].bit)
			buf_view_put(&text, table[i].names);
	buf_lit(&text, "OPTIONS");
	response_header(&ex->response, VIEW("Allow"), buf_view(&text));
	if (ex->operation == OP_OPTIONS)
		cors_preflight(ex, buf_view(&text));
	buf_free(&text);
}

/* --- parse --- */

/* Since it came to the web server, at most as long as it may take: what the resource allows, or less where the client does not
 * wait for so long. */
static bool set_deadline(struct exchange *ex, int64_t allowed_us)
{
	ex->hurried = ex->timeout_us && ex->timeout_us < allowed_us;
	ex->deadline_us = ex->started_us + (ex->hurried ? ex->timeout_us : allowed_us);
	loop_timer_set(ex->service->loop, &ex->deadline, ex->deadline_us);
	return ex->deadline_us > loop_now_us(ex->service->loop);
}

static enum next too_late(struct exchange *ex)
{
	return problem(ex, ERR_OVERLOADED, VIEW("Its time was over before its turn came."));
}

static bool is_probe(const struct exchange *ex)
{
	return ex->operation == OP_HEALTH || ex->operation == OP_READY;
}

/* A web server whose clock is behind makes every request a late one, and nobody else would say so. */
static void tell_clock(struct exchange *ex, int64_t came_us, bool believed)
{
	struct service *s = ex->service;
	int64_t now = loop_now_us(s->loop);
	if (s->told_clock_us && now - s->told_clock_us < TELL_CLOCK_US)
		return;
	s->told_clock_us = now;
	log_warn("X-Request-Start is %lld s ago%s", (long long)(epoch_us() - came_us) / 1000000,
	         believed ? ", so the request is refused: its queue is long, or the web server's clock is off"
	                  : ": the web server's clock is off, and the header is ignored");
}

/* What the web server says of when it came is believed where it is said that it does. A probe is of now. */
static enum next take_times(struct exchange *ex)
{
	const struct settings *set = ex->service->settings;
	struct view timeout = ex->request.header[HEADER_REQUEST_TIMEOUT], start = ex->request.header[HEADER_REQUEST_START];
	int64_t came_us, waited_us;
	if (timeout.p && !timing_timeout(timeout, &ex->timeout_us))
		return problem(ex, ERR_INVALID_HEADER, VIEW("X-Request-Timeout is a number of seconds, such as 2.5, or 300ms."));
	bool told = set->request_start && start.p && !is_probe(ex) && timing_instant(start, &came_us);
	bool believed = told && timing_waited(came_us, epoch_us(), &waited_us);
	if (believed)
		ex->started_us -= waited_us;
	bool in_time = set_deadline(ex, set->deadline_ms * 1000);
	if (told && !(believed && in_time))
		tell_clock(ex, came_us, believed);
	return in_time ? NEXT : too_late(ex);
}

static enum next step_parse(struct exchange *ex)
{
	const struct settings *set = ex->service->settings;
	struct request *req = &ex->request;
	struct request_limits limits = { (size_t)set->url_max_bytes, (size_t)set->body_max_bytes };
	struct view detail = VIEW_NONE;
	enum status st = request_finish(req, &limits, &detail);
	ex->response.head_only = req->method == METHOD_HEAD;
	if (st != OK)
		return problem(ex, st, detail);
	if (view_eq(req->path, VIEW("/healthz")))
		ex->operation = OP_HEALTH;
	else if (view_eq(req->path, VIEW("/readyz")))
		ex->operation = OP_READY;
	if (take_times(ex) == DONE)
		return DONE;
	if (!replicas_take_header(ex))
		return problem(ex, ERR_INVALID_HEADER, VIEW("Composure-LSN is what an answer to a write had in it, such as 16/B374D848."));
	return NEXT;
}

/* Alive says that the loop turns; ready, that a request could be served, and else why not. A host that gives what it keeps, and
 * refuses the rest at once, is worth more than none: PostgreSQL is away for all of them at the same time. Whoever restarts what is
 * not alive would make nothing better where there is too much to do: the others are refused then. */
static enum next step_probe(struct exchange *ex)
{
	struct service *s = ex->service;
	struct view why = VIEW_NONE;
	if (!is_probe(ex))
		return !ex->renews && s->n_exchanges > (unsigned)s->settings->requests_max ? problem(ex, ERR_OVERLOADED, VIEW_NONE) : NEXT;
	if (ex->request.method != METHOD_GET && ex->request.method != METHOD_HEAD) {
		enum next n = problem(ex, ERR_METHOD_NOT_ALLOWED, VIEW_NONE);
		response_header(&ex->response, VIEW("Allow"), VIEW("GET, HEAD"));
		return n;
	}
	bool good = true, writes = true, reads = true;
	if (ex->operation == OP_READY) {
		writes = pool_reachable(s->pool, NULL);
		reads = writes || replicas_serve(s);
		good = s->catalog && (reads || recall_may_serve(s));
		why = s->catalog ? VIEW("PostgreSQL cannot be reached.") : watcher_why(s->watcher);
	}
	if (!good)
		return problem(ex, ERR_UNAVAILABLE, why);
	ex->response.http = 200;
	response_header(&ex->response, VIEW("Content-Type"), VIEW("application/json"));
	response_header(&ex->response, VIEW("Cache-Control"), VIEW("no-store"));
	/* Why not is in the log: it names paths. */
	bool shared = region_is_shared(s->region) && watch_is_shared(s->watch);
	buf_view_put(&ex->response.body,
	             ex->operation == OP_HEALTH ? VIEW("{\"status\":\"alive\"}\n")
	             : !reads  ? VIEW("{\"status\":\"ready\",\"note\":\"PostgreSQL cannot be reached: what is kept is served, all else fails.\"}\n")
	             : !writes ? VIEW("{\"status\":\"ready\",\"note\":\"The primary cannot be reached: replicas are read, and writes fail.\"}\n")
	             : shared                   ? VIEW("{\"status\":\"ready\"}\n")
	                      : VIEW("{\"status\":\"ready\",\"note\":\"Memory is not shared with other workers: see the log.\"}\n"));
	return DONE;
}

/* --- the catalog: a reference for the life of the request --- */

static enum next step_catalog(struct exchange *ex)
{
	struct service *s = ex->service;
	if (ex->catalog)
		return NEXT;
	if (ex->reloaded && !watcher_reloaded(s->watcher, ex->reload)) {
		watcher_wait(s->watcher, ex);
		return WAIT;
	}
	watcher_catalog(s->watcher);
	/* Nobody will tell a plain CGI process of changes: what the host has not confirmed lately, it asks for itself. */
	bool sure = !s->brief || watcher_sees(s->watcher) || ex->waited;
	if (s->catalog && sure) {
		ex->catalog = catalog_ref(s->catalog);
		return NEXT;
	}
	if (!pool_reachable(s->pool, NULL) && !guard_may_try(s))
		return problem(ex, ERR_UNAVAILABLE, VIEW_NONE);
	if (!sure)
		watcher_reload(s->watcher);
	ex->waited = true;
	watcher_wait(s->watcher, ex);
	return WAIT;
}

/* --- route --- */

static enum next not_allowed(struct exchange *ex)
{
	enum next n = problem(ex, ERR_METHOD_NOT_ALLOWED, VIEW_NONE);
	allow_header(ex);
	return n;
}

static bool method_exposed(const struct exchange *ex)
{
	static const unsigned bit[] = {
		[WRITE_INSERT] = CATALOG_POST,
		[WRITE_UPDATE] = CATALOG_PATCH,
		[WRITE_REPLACE] = CATALOG_PUT,
		[WRITE_DELETE] = CATALOG_DELETE,
		[WRITE_CALL] = CATALOG_POST,
	};
	unsigned methods = ex->function ? ex->function->methods : ex->resource->methods;
	switch (ex->operation) {
	case OP_PAGE:
	case OP_ITEM: return methods & CATALOG_GET;
	case OP_WRITE: return methods & (ex->request.method == METHOD_POST ? CATALOG_POST : exchange_reads(ex) ? CATALOG_GET : bit[ex->write_kind]);
	case OP_OPTIONS: return true;
	case OP_NONE:
	case OP_HEALTH:
	case OP_READY: break;
	}
	return false;
}

static enum operation write_as(struct exchange *ex, enum write_kind kind)
{
	ex->write_kind = kind;
	return OP_WRITE;
}

static enum operation operation_of(struct exchange *ex)
{
	switch (ex->request.method) {
	case METHOD_GET:
	case METHOD_HEAD: return ex->key ? OP_ITEM : OP_PAGE;
	case METHOD_POST: return ex->key ? OP_NONE : write_as(ex, WRITE_INSERT);
	case METHOD_OPTIONS: return OP_OPTIONS;
	case METHOD_PUT: return ex->key ? write_as(ex, WRITE_REPLACE) : OP_NONE;
	case METHOD_PATCH: return write_as(ex, WRITE_UPDATE);
	case METHOD_DELETE: return write_as(ex, WRITE_DELETE);
	case METHOD_OTHER: break;
	}
	return OP_NONE;
}

static enum operation operation_of_call(struct exchange *ex)
{
	if (ex->request.method == METHOD_OPTIONS)
		return OP_OPTIONS;
	return exchange_reads(ex) || ex->request.method == METHOD_POST ? write_as(ex, WRITE_CALL) : OP_NONE;
}

/* What the role may not do is refused here, out of the catalog; what the catalog does not know, PostgreSQL refuses. */
static enum next permitted(struct exchange *ex)
{
	static const enum privilege needed[] = {
		[WRITE_INSERT] = PRIVILEGE_INSERT,
		[WRITE_UPDATE] = PRIVILEGE_UPDATE,
		[WRITE_REPLACE] = PRIVILEGE_UPDATE,
		[WRITE_DELETE] = PRIVILEGE_DELETE,
	};
	const struct principal *who = &ex->principal;
	if (ex->function) {
		bool may_call = function_may(ex->catalog, ex->function, who->role) && (who->has_key || ex->catalog->anonymous_role.p);
		return may_call ? NEXT : problem(ex, who->has_key ? ERR_FORBIDDEN : ERR_UNAUTHENTICATED, VIEW_NONE);
	}
	enum privilege needs = ex->operation == OP_WRITE ? needed[ex->write_kind] : PRIVILEGE_SELECT;
	bool may = resource_may(ex->catalog, ex->resource, needs, who->role);
	/* Without roles of their own, only what is public is everybody's. */
	if (!who->has_key && !ex->catalog->anonymous_role.p)
		may = ex->resource->policy.is_public && needs == PRIVILEGE_SELECT;
	if (!may)
		return problem(ex, who->has_key ? ERR_FORBIDDEN : ERR_UNAUTHENTICATED, VIEW_NONE);
	if (ex->resource->owner >= 0 && !who->tenant.p)
		return problem(ex, who->has_key ? ERR_FORBIDDEN : ERR_UNAUTHENTICATED,
		               VIEW("The rows belong to tenants, and this key has none."));
	return NEXT;
}

/* Lists come in every format, an item is an object by either name, and what is written comes back as JSON. */
static bool choose_format(struct exchange *ex)
{
	static const struct view item[] = { VIEW_INIT("application/json"), VIEW_INIT("application/vnd.pgrst.object+json") };
	struct view accept = ex->request.header[HEADER_ACCEPT];
	int chosen = ex->operation == OP_PAGE ? media_choose(accept, format_type, FORMAT_COUNT)
		   : media_choose(accept, item, ex->operation == OP_ITEM ? 2 : 1);
	if (chosen < 0) {
		problem(ex, ERR_NOT_ACCEPTABLE,
		        ex->operation == OP_PAGE ? VIEW("This list is made as application/json, text/csv, application/x-ndjson and "
		                                        "application/vnd.pgrst.object+json.")
		                                 : VIEW("This resource is made as application/json."));
		return false;
	}
	ex->format = ex->operation == OP_PAGE ? (enum format)chosen : chosen ? FORMAT_OBJECT : FORMAT_JSON;
	return true;
}

struct found {
	struct route_path path;
	const struct resource *resource; /* or a function */
	const struct function *function;
};

/* What the path names. */
static enum status find(const struct exchange *ex, struct found *out)
{
	struct route_path *path = &out->path;
	*out = (struct found){ .resource = NULL };
	enum status st = request_route(&ex->request, ex->arena, view_of(ex->service->settings->mount), path);
	if (st != OK)
		return st;
	if (path->n == 0 || path->n > 2 || path->segment[0].n_parts != 1)
		return ERR_NOT_FOUND;
	struct view name = path->segment[0].part[0];
	if (!view_eq(name, VIEW("rpc")))
		out->resource = catalog_resource(ex->catalog, name);
	else if (path->n == 2 && path->segment[1].n_parts == 1)
		out->function = catalog_function(ex->catalog, path->segment[1].part[0]);
	return out->resource || out->function ? OK : ERR_NOT_FOUND;
}

/* 0: it has what is allowed as a rule. */
static int64_t own_deadline_us(const struct found *f)
{
	return f->function ? f->function->deadline_us : f->resource->deadline_us;
}

void exchange_hurry(struct exchange *ex)
{
	struct found f;
	if (find(ex, &f) == OK && own_deadline_us(&f))
		(void)set_deadline(ex, own_deadline_us(&f)); /* where it is over already its timer says so */
}

static enum next route(struct exchange *ex)
{
	struct found f;
	enum status st = find(ex, &f);
	if (st != OK)
		return problem(ex, st, VIEW_NONE);
	ex->resource = f.resource;
	ex->function = f.function;
	if (f.path.n == 2 && ex->resource) {
		if (f.path.segment[1].n_parts != ex->resource->n_key)
			return problem(ex, ERR_NOT_FOUND, VIEW_NONE);
		ex->key = f.path.segment[1].part;
	}
	ex->operation = ex->function ? operation_of_call(ex) : operation_of(ex);
	if (!method_exposed(ex))
		return not_allowed(ex);
	if (ex->operation == OP_OPTIONS) {
		ex->response.http = 204;
		allow_header(ex);
		return DONE;
	}
	if (!choose_format(ex))
		return DONE;
	if (own_deadline_us(&f) && !set_deadline(ex, own_deadline_us(&f)))
		return too_late(ex);
	return permitted(ex);
}

/* A refusal costs a token, too, so it is held until there is one. */
static enum next step_route(struct exchange *ex)
{
	enum next n = route(ex);
	ex->held = n == DONE && ex->operation != OP_OPTIONS;
	return ex->held ? NEXT : n;
}

/* --- receive --- */

static enum next step_receive(struct exchange *ex)
{
	if (ex->operation != OP_WRITE)
		return NEXT;
	enum next judged = write_media(ex);
	if (judged != NEXT)
		return judged;
	if (!exchange_reads(ex) && ex->write_kind == WRITE_DELETE && !ex->request.content_length)
		return NEXT;
	if (buf_failed(&ex->body))
		return problem(ex, ERR_BODY_TOO_LARGE, VIEW_NONE);
	if (!ex->body_done)
		return WAIT;
	if (ex->request.has_length && ex->body.n != ex->request.content_length)
		return problem(ex, ERR_INVALID_BODY, VIEW("The body is not as long as its Content-Length says."));
	return NEXT;
}

/* --- ask, answer --- */

static enum next step_ask(struct exchange *ex)
{
	ex->query_done = false;
	rows_free(ex->rows);
	ex->rows = NULL;
	switch (ex->operation) {
	case OP_PAGE: return page_ask(ex);
	case OP_ITEM: return item_ask(ex);
	case OP_WRITE: return write_ask(ex);
	case OP_NONE:
	case OP_HEALTH:
	case OP_READY:
	case OP_OPTIONS: break;
	}
	return problem(ex, ERR_INTERNAL, VIEW_NONE);
}

static enum next step_answer(struct exchange *ex)
{
	if (ex->operation == OP_WRITE)
		return write_answer(ex);
	if (!ex->query_done)
		return WAIT;
	if (ex->query_status != OK)
		return query_problem(ex);
	switch (ex->operation) {
	case OP_PAGE: return page_answer(ex);
	case OP_ITEM: return item_answer(ex);
	case OP_NONE:
	case OP_WRITE:
	case OP_HEALTH:
	case OP_READY:
	case OP_OPTIONS: break;
	}
	return problem(ex, ERR_INTERNAL, VIEW_NONE);
}

static const struct step {
	const char *name;
	enum next (*run)(struct exchange *);
} steps[] = {
	{ "parse", step_parse },       /* parameters -> request, or 400, 413, 414, 501 */
	{ "probe", step_probe },       /* /healthz, /readyz end here; of all others there are only so many at a time, or 503 */
	{ "catalog", step_catalog },   /* what is exposed; waits for it once, at the worker's start */
	{ "identify", identify }, /* API key -> principal, or 401 */
	{ "route", step_route },       /* path and method -> resource and operation, or 404, 405, 406, 401, 403 */
	{ "admit", admit },            /* a token of the rate limit, or 429 */
	{ "recall", recall },          /* an answer that is kept; or waits for another request that asks the same */
	{ "receive", step_receive },   /* the body, or 413, 415, 400 */
	{ "guard", guard },            /* past its circuit breaker, into its bulkhead, or 503 */
	{ "ask", step_ask },           /* operation -> statement, on its way */
	{ "answer", step_answer },     /* rows -> response */
};

enum { STEP_CATALOG = 2 }; /* where a request begins anew with a new catalog */

/* --- the end of the way --- */

static void let_go(struct exchange *ex)
{
	struct service *s = ex->service;
	loop_timer_stop(s->loop, &ex->deadline);
	loop_undefer(s->loop, &ex->resume);
	guard_end(ex, false);
	watcher_unwait(s->watcher, ex);
	limiter_unwait(s->limiter, ex);
	recall_end(ex);
	partial_end(ex);
	if (ex->query_out)
		pool_abandon(ex->pool, &ex->query);
	ex->query_out = false;
	writing_end(ex);
	rows_free(ex->rows);
	ex->rows = NULL;
	ex->ended = true;
	s->n_exchanges--;
}

/* Headers that every answer carries. */
static void common_headers(struct exchange *ex)
{
	struct response *r = &ex->response;
	response_header(r, VIEW("X-Request-Id"), view_make(ex->request_id, sizeof ex->request_id));
	response_header(r, VIEW("X-Content-Type-Options"), VIEW("nosniff"));
	response_header(r, VIEW("Content-Security-Policy"), VIEW("default-src 'none'"));
	limiter_headers(ex);
	replicas_headers(ex);
	cors_headers(ex);
}

/* Of a request that was refused before its URI was taken apart, too: the query is nobody's business. */
static struct view path_of(const struct request *req)
{
	struct view rest = req->uri, path = req->path;
	if (!path.p)
		(void)view_split(&rest, '?', &path);
	return path;
}

static void record(struct exchange *ex)
{
	const struct request *req = &ex->request;
	struct access a = {
		.request_id = view_make(ex->request_id, sizeof ex->request_id),
		.trace_id = trace_id(req->header[HEADER_TRACEPARENT]),
		.method = req->method_text,
		.path = path_of(req),
		.resource = ex->resource ? ex->resource->name : VIEW_NONE,
		.key_id = ex->principal.key_id,
		.remote_addr = req->remote_addr,
		.code = ex->failed != OK ? view_of(status_code(ex->failed)) : VIEW_NONE,
		.status = ex->response.http,
		.body_bytes = ex->response.body.n,
		.took_us = clock_us() - ex->started_us,
	};
	accesslog_write(ex->service->log, &a);
}

/* An answer that did not fit is no answer. To ask again would not help, and a write is done. */
static void too_large(struct exchange *ex)
{
	if (ex->operation == OP_WRITE)
		problem(ex, ERR_INTERNAL, VIEW("It is done, but what was written is too large to be sent."));
	else
		problem(ex, ERR_QUERY_TOO_COMPLEX, VIEW("One row is larger than an answer may be: select fewer columns."));
}

/* Nobody will hear what it changed, if it did: all that it could have. */
static void may_have_written(struct exchange *ex)
{
	replicas_wrote(ex, 0);
	recall_written(ex, NULL);
}

static void finish(struct exchange *ex)
{
	if (buf_failed(&ex->response.body))
		too_large(ex);
	if (ex->failed == ERR_OUTCOME_UNKNOWN)
		may_have_written(ex);
	guard_end(ex, true);
	partial_answered(ex);
	recall_finish(ex);
	common_headers(ex);
	if (!ex->renews)
		record(ex);
	let_go(ex);
	catalog_unref(ex->catalog);
	ex->catalog = NULL;
	ex->resource = NULL;
	ex->function = NULL;
	ex->finished(ex);
}

static void run(struct exchange *ex)
{
	while (!ex->ended) {
		assert(ex->step < ARRAY_LEN(steps));
		switch (steps[ex->step].run(ex)) {
		case NEXT:
			ex->step++;
			break;
		case WAIT:
			return;
		case YIELD:
			loop_defer(ex->service->loop, &ex->resume);
			return;
		case DONE:
			finish(ex);
			return;
		}
	}
}

void exchange_resume(struct exchange *ex)
{
	run(ex);
}

static void on_resume(struct task *t)
{
	run(CONTAINER_OF(t, struct exchange, resume));
}

/* Over its time: while its body is still to come it is the client's doing, later it is ours. */
static void on_deadline(struct timer *t)
{
	struct exchange *ex = CONTAINER_OF(t, struct exchange, deadline);
	int64_t later_us;
	if (steps[ex->step].run == identify && identify_late(ex)) {
		run(ex);
		return;
	}
	if (recall_deadline(ex, &later_us)) {
		finish(ex);
		return;
	}
	if (later_us) {
		loop_timer_set(ex->service->loop, t, later_us);
		return;
	}
	bool receiving = steps[ex->step].run == step_receive;
	/* A write whose commit is out may still take effect. */
	bool unknown = writing_unknown(ex);
	problem(ex, receiving ? ERR_REQUEST_TIMEOUT : unknown ? ERR_OUTCOME_UNKNOWN : ERR_DEADLINE, VIEW_NONE);
	finish(ex);
}

/* --- queries --- */

static void on_rows(struct query *q, struct rows *rows)
{
	struct exchange *ex = CONTAINER_OF(q, struct exchange, query);
	rows_free(ex->rows);
	ex->rows = rows;
}

/* The parameter that PostgreSQL could not read: "unnamed portal parameter $2 = '...'". */
static struct view value_at_fault(const struct statement *s, struct view context)
{
	static const char words[] = "parameter $";
	const char *at = context.n ? memmem(context.p, context.n, words, sizeof words - 1) : NULL;
	if (!at)
		return VIEW_NONE;
	int n = 0;
	for (at += sizeof words - 1; at < context.p + context.n && *at >= '0' && *at <= '9' && n < STATEMENT_PARAMS_MAX; at++)
		n = n * 10 + (*at - '0');
	return n > 0 && n <= s->n_params ? view_of(s->values[n - 1]) : VIEW_NONE;
}

/* The same, of another server. */
static void ask_again(struct exchange *ex)
{
	rows_free(ex->rows);
	ex->rows = NULL;
	ex->query_done = false;
	ex->query_out = true;
	ex->pool = replicas_pool(ex);
	pool_submit(ex->pool, &ex->query);
}

static void take_status(struct exchange *ex, const struct query *q, enum status status, const struct db_error *error)
{
	ex->query_status = status;
	ex->sqlstate[0] = '\0';
	ex->error_value = VIEW_NONE;
	if (error) {
		memcpy(ex->sqlstate, error->sqlstate, sizeof ex->sqlstate);
		ex->error_message = arena_copy(ex->arena, error->message);
		ex->error_value = value_at_fault(q->statement, error->context);
	}
}

static void on_query_done(struct query *q, enum status status, const struct db_error *error)
{
	struct exchange *ex = CONTAINER_OF(q, struct exchange, query);
	ex->query_out = false;
	ex->query_done = true;
	take_status(ex, q, status, error);
	if (replicas_again(ex, q, status != OK))
		ask_again(ex);
	else
		run(ex);
}

static struct view search_path(const struct exchange *ex)
{
	struct view path = view_of(ex->service->settings->search_path);
	struct view more = ex->catalog ? ex->catalog->type_schemas : VIEW_NONE;
	if (!more.n || path.n + more.n > SESSION_VALUE_MAX)
		return path;
	if (!path.n)
		return view_skip(more, 2);
	struct view all = arena_printf(ex->arena, "%.*s%.*s", VIEW_ARG(path), VIEW_ARG(more));
	return all.p ? all : path;
}

/* What is the same for everybody is read as nobody in particular. */
struct session exchange_session(const struct exchange *ex)
{
	if (ex->for_all)
		return (struct session){
			.role = ex->catalog->anonymous_role,
			.request_id = view_make(ex->request_id, sizeof ex->request_id),
			.search_path = search_path(ex),
		};
	return (struct session){
		.role = ex->principal.role,
		.key_id = ex->principal.key_id,
		.tenant = ex->principal.tenant,
		.request_id = view_make(ex->request_id, sizeof ex->request_id),
		.search_path = search_path(ex),
	};
}

static void submit(struct exchange *ex, const struct session *session, bool write)
{
	struct service *s = ex->service;
	ex->query_done = false;
	if (!statement_finish(&ex->statement)) {
		ex->query_done = true;
		ex->query_status = ERR_QUERY_TOO_COMPLEX;
		loop_defer(s->loop, &ex->resume);
		return;
	}
	ex->query = (struct query){
		.statement = &ex->statement,
		.session = *session,
		.deadline_us = ex->query_until_us ? ex->query_until_us : ex->deadline_us,
		.write = write,
		.scrub = ex->runs_code,
		.group = ex->group,
		.vital = s->brief,
		.rows = on_rows,
		.done = on_query_done,
	};
	ex->query_out = true;
	ex->pool = write ? s->pool : replicas_pool(ex);
	pool_submit(ex->pool, &ex->query);
}

void exchange_query(struct exchange *ex, bool write)
{
	struct session session = exchange_session(ex);
	if (steps[ex->step].run == identify)
		session.role = VIEW_NONE;
	submit(ex, &session, write);
}

void exchange_query_beside(struct exchange *ex, struct query *q, struct pool *pool)
{
	q->session = exchange_session(ex);
	q->deadline_us = ex->query_until_us ? ex->query_until_us : ex->deadline_us;
	q->scrub = ex->runs_code;
	q->group = ex->group;
	pool_submit(pool, q);
}

void exchange_give_up(struct exchange *ex)
{
	if (!ex->query_out)
		return;
	pool_abandon(ex->pool, &ex->query);
	on_query_done(&ex->query, ERR_DEADLINE, NULL);
}

void exchange_query_own(struct exchange *ex)
{
	struct session session = exchange_session(ex);
	session.role = VIEW_NONE;
	submit(ex, &session, false);
}

/* Names that are gone: the catalog is older than the database. Once, the request begins anew with a new one. */
static bool catalog_is_stale(const struct exchange *ex)
{
	static const char *const states[] = { "42703", "42P01", "3F000", "42883", "42704" };
	if (ex->error_value.p)
		return false; /* the name was a parameter's: a regclass, a regtype */
	for (size_t i = 0; i < ARRAY_LEN(states); i++)
		if (strcmp(ex->sqlstate, states[i]) == 0)
			return !ex->reloaded;
	return false;
}

bool exchange_failed_of(const struct exchange *ex, const char *class)
{
	return strncmp(ex->sqlstate, class, 2) == 0;
}

static enum next begin_anew(struct exchange *ex)
{
	/* What ends now looks at the resource, which is the catalog's. */
	guard_end(ex, false);
	recall_end(ex);
	partial_end(ex);
	writing_end(ex);
	catalog_unref(ex->catalog);
	ex->catalog = NULL;
	ex->resource = NULL;
	ex->function = NULL;
	ex->key = NULL;
	ex->group = 0;
	ex->reloaded = true;
	loop_timer_set(ex->service->loop, &ex->deadline, ex->deadline_us); /* which recall may have drawn nearer */
	ex->held = ex->for_all = ex->prepared = false;
	ex->query_done = ex->runs_code = false;
	ex->principal = (struct principal){ .has_key = false };
	ex->step = STEP_CATALOG;
	ex->reload = watcher_reload(ex->service->watcher);
	watcher_wait(ex->service->watcher, ex);
	return WAIT;
}

enum next exchange_anew(struct exchange *ex)
{
	/* A replica may not have got that far yet. */
	if (replicas_not_yet(ex)) {
		exchange_query(ex, false);
		return WAIT;
	}
	return ex->reloaded ? problem(ex, ERR_OVERLOADED, VIEW_NONE) : begin_anew(ex);
}

enum status read_fault(enum status st)
{
	return st == ERR_INVALID_VALUE || st == ERR_METHOD_NOT_ALLOWED ? ERR_DATABASE : st;
}

/* What a read failed of. The values it was sent come out of filters, the cursor or the path; anything else that goes
 * wrong in it, such as a division in a view of the user's, is not the client's doing. */
static enum status read_status(const struct exchange *ex, struct view *detail)
{
	/* Unreadable values; a regular expression, a text search, a pattern, a json path's number. */
	static const char *const unreadable[] = { "22P02", "22P03", "22003", "22007", "22008", "22021", "22026", "2201B",
		                                  "42601", "22025", "22019" };
	/* Or whatever PostgreSQL has against one of our parameters: data, or the name of something that is not there. */
	bool value = ex->error_value.p &&
	             (exchange_failed_of(ex, "22") || exchange_failed_of(ex, "42") || exchange_failed_of(ex, "3F") ||
	              exchange_failed_of(ex, "0A"));
	for (size_t i = 0; i < ARRAY_LEN(unreadable); i++)
		value |= strcmp(ex->sqlstate, unreadable[i]) == 0;
	if (value && ex->operation == OP_ITEM)
		return ERR_NOT_FOUND; /* no row has such a key */
	if (value && ex->operation == OP_PAGE) {
		enum status st = page_blame(&ex->page, ex->error_value, detail);
		if (st != OK)
			return st;
	}
	return read_fault(ex->query_status);
}

enum status exchange_failed_beside(struct exchange *ex, const struct query *q, enum status status, const struct db_error *error)
{
	struct view detail;
	take_status(ex, q, status, error);
	return read_status(ex, &detail);
}

enum next query_problem(struct exchange *ex)
{
	if (catalog_is_stale(ex))
		return begin_anew(ex);
	struct view detail = VIEW_NONE;
	enum status st = ex->operation == OP_WRITE ? ex->query_status : read_status(ex, &detail);
	if (st == ERR_DATABASE || st == ERR_FORBIDDEN)
		log_warn("%.*s: SQLSTATE %s: %.*s", VIEW_ARG(ex->resource ? ex->resource->name : VIEW("key")), ex->sqlstate,
		         VIEW_ARG(ex->error_message));
	if (partial_goes_on(ex, st))
		return WAIT;
	if (st == ERR_FORBIDDEN && !ex->principal.has_key)
		st = ERR_UNAUTHENTICATED;
	/* What the user's own code says to the client, and nothing else of PostgreSQL's words. */
	if (st == ERR_RAISED)
		detail = ex->error_message;
	return problem(ex, st, detail);
}

/* --- the life of an exchange --- */

struct exchange *exchange_create(struct service *s)
{
	struct exchange *ex = s->spare;
	if (ex) {
		s->spare = ex->link;
	} else {
		ex = calloc(1, sizeof *ex);
		struct arena *a = arena_create(ARENA_BYTES_MAX);
		if (!ex || !a) {
			free(ex);
			arena_destroy(a);
			return NULL;
		}
		ex->arena = a;
		ex->body = BUF((size_t)s->settings->body_max_bytes);
		response_init(&ex->response, (size_t)s->settings->page_max_bytes * 2 + 65536);
	}
	/* All but the memory that it keeps. */
	*ex = (struct exchange){ .service = s, .arena = ex->arena, .response = ex->response, .body = ex->body };
	ex->deadline.fire = on_deadline;
	ex->resume.run = on_resume;
	ex->ended = true; /* until it starts */
	return ex;
}

static void begin(struct exchange *ex)
{
	struct service *s = ex->service;
	ex->ended = false;
	s->n_exchanges++;
	request_id_make(ex->request_id);
	ex->started_us = loop_now_us(s->loop);
	ex->deadline_us = ex->started_us + s->settings->deadline_ms * 1000;
	loop_timer_set(s->loop, &ex->deadline, ex->deadline_us);
}

void exchange_start_later(struct exchange *ex)
{
	begin(ex);
	loop_defer(ex->service->loop, &ex->resume);
}

void exchange_start(struct exchange *ex)
{
	begin(ex);
	run(ex);
}

void exchange_body(struct exchange *ex, struct view piece)
{
	if (ex->ended)
		return;
	buf_view_put(&ex->body, piece);
	if (buf_failed(&ex->body) && steps[ex->step].run == step_receive)
		run(ex);
}

void exchange_body_end(struct exchange *ex)
{
	if (ex->ended)
		return;
	ex->body_done = true;
	if (steps[ex->step].run == step_receive)
		run(ex);
}

void exchange_cancel(struct exchange *ex)
{
	if (ex->ended)
		return;
	if (writing_unknown(ex))
		may_have_written(ex);
	let_go(ex);
}

void exchange_release(struct exchange *ex)
{
	struct service *s = ex->service;
	assert(ex->ended);
	catalog_unref(ex->catalog);
	ex->catalog = NULL;
	arena_reset(ex->arena);
	response_reset(&ex->response, KEEP_BYTES);
	if (ex->body.cap > KEEP_BYTES)
		buf_free(&ex->body);
	buf_clear(&ex->body);
	ex->link = s->spare;
	s->spare = ex;
}

void exchange_free_spare(struct service *s)
{
	while (s->spare) {
		struct exchange *ex = s->spare;
		s->spare = ex->link;
		arena_destroy(ex->arena);
		response_free(&ex->response);
		buf_free(&ex->body);
		free(ex);
	}
}
