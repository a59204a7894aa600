#include "config.h"

#include "limiter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "cache/generation.h"
#include "gate/limits.h"
#include "http/address.h"
#include "http/problem.h"

enum {
	ASKS_MAX = 500,           /* in one call of lease(), which takes 1000 */
	PATIENCE_US = 2000000,    /* with PostgreSQL, of a request and of a question: on a busy machine a new session takes
	                           * half a second for its first one */
	LOOK_AGAIN_US = 1000,     /* while another worker asks for the same bucket; doubled each time */
	LOOK_AGAIN_MAX_US = 16000,
	LOCKED_TRIES = 3,
	LOCKED_US = 3000,         /* before the next try when a bucket was locked: as much again, with jitter */
	SWEEP_US = 10000000,
	SWEPT_AT_ONCE = 1000,
	TEXT_OID = 25, TEXT_ARRAY_OID = 1009, INT4_ARRAY_OID = 1007,
};

struct limiter {
	struct service *service;
	struct limits *limits;
	struct trusted trusted;

	struct limit_ask ask[ASKS_MAX]; /* [0, n_out) are out, the rest waits for its turn */
	unsigned n, n_out, locked; /* locked: how often a bucket of those that are out was */
	bool out, singly;         /* singly: one of a batch was, so they are asked for one by one */
	struct arena *arena;      /* of the question that is out */
	struct statement statement;
	struct query query;
	struct rows *rows;
	struct timer patience;    /* of that question; between two of them: until the next try */
	struct task go;

	struct exchange *waiting, **waiting_end;
	struct timer look;        /* for those who wait for another worker's question, or have waited long enough */
	int64_t look_us;

	struct statement sweep_sql;
	struct arena *sweep_arena;
	struct query sweep;
	bool sweeping;
	int64_t next_sweep_us;
};

static uint32_t generation_of(const struct service *s, struct view key_id)
{
	uint32_t g = generation_read(s->watch, generation_tag(VIEW("limits"), VIEW(""))).hard;
	return key_id.p ? g + (uint32_t)keycache_generation(s->keys, key_id) : g;
}

/* --- those who wait --- */

static void wait(struct limiter *l, struct exchange *ex)
{
	if (ex->in_limiter)
		return;
	ex->in_limiter = true;
	ex->limiter_link = NULL;
	ex->limiter_at = l->waiting_end;
	*l->waiting_end = ex;
	l->waiting_end = &ex->limiter_link;
}

void limiter_unwait(struct limiter *l, struct exchange *ex)
{
	if (!ex->in_limiter)
		return;
	*ex->limiter_at = ex->limiter_link;
	if (ex->limiter_link)
		ex->limiter_link->limiter_at = ex->limiter_at;
	else
		l->waiting_end = ex->limiter_at;
	ex->in_limiter = false;
}

/* First come, first served. Those who go on waiting put themselves into the list anew; each may end another one. */
static void resume_all(struct limiter *l)
{
	unsigned n = 0;
	for (const struct exchange *ex = l->waiting; ex; ex = ex->limiter_link)
		n++;
	for (; n && l->waiting; n--) {
		struct exchange *first = l->waiting;
		limiter_unwait(l, first);
		exchange_resume(first);
	}
	if (!l->waiting)
		l->look_us = LOOK_AGAIN_US;
}

static void on_look(struct timer *t)
{
	struct limiter *l = CONTAINER_OF(t, struct limiter, look);
	l->look_us = l->look_us < LOOK_AGAIN_MAX_US ? 2 * l->look_us : LOOK_AGAIN_MAX_US;
	resume_all(l);
}

static void look_at(struct limiter *l, int64_t us)
{
	if (!l->look.place || us < l->look.due_us)
		loop_timer_set(l->service->loop, &l->look, us);
}

/* --- asking --- */

static void array_begin(struct buf *b)
{
	buf_clear(b);
	buf_putc(b, '{');
}

static void array_param(struct limiter *l, struct buf *b, uint32_t oid)
{
	buf_putc(b, '}');
	statement_lit(&l->statement, ", ");
	statement_param(&l->statement, buf_view(b), oid);
}

static void numbers_param(struct limiter *l, struct buf *b, size_t offset)
{
	array_begin(b);
	for (unsigned i = 0; i < l->n_out; i++) {
		if (i)
			buf_putc(b, ',');
		uint32_t v;
		memcpy(&v, (const char *)&l->ask[i] + offset, sizeof v);
		buf_u64(b, v > INT32_MAX ? INT32_MAX : v);
	}
	array_param(l, b, INT4_ARRAY_OID);
}

static bool question(struct limiter *l)
{
	char epoch[LIMIT_EPOCH_MAX];
	struct buf b = BUF(1 << 20);
	arena_reset(l->arena);
	limits_epoch(l->limits, epoch);
	statement_init(&l->statement, l->arena);
	statement_lit(&l->statement, "SELECT granted, wait_us, violated, hosts, epoch, policy, rate, burst, remaining FROM composure.lease(");
	statement_param(&l->statement, limits_host(l->limits), TEXT_OID);
	statement_lit(&l->statement, ", ");
	statement_param(&l->statement, view_of(epoch), TEXT_OID);
	array_begin(&b);
	for (unsigned i = 0; i < l->n_out; i++) {
		if (i)
			buf_putc(&b, ',');
		buf_view_put(&b, view_of(l->ask[i].owner)); /* letters, digits and "/.:" */
	}
	array_param(l, &b, TEXT_ARRAY_OID);
	numbers_param(l, &b, offsetof(struct limit_ask, wanted));
	numbers_param(l, &b, offsetof(struct limit_ask, least));
	numbers_param(l, &b, offsetof(struct limit_ask, returned));
	numbers_param(l, &b, offsetof(struct limit_ask, debt));
	numbers_param(l, &b, offsetof(struct limit_ask, admitted));
	numbers_param(l, &b, offsetof(struct limit_ask, refused));
	statement_lit(&l->statement, ") ORDER BY num");
	bool good = !buf_failed(&b) && statement_finish(&l->statement);
	buf_free(&b);
	return good;
}

static double number(struct view v)
{
	double d = 0;
	uint64_t bits = (uint64_t)rows_int(v);
	if (v.n == sizeof d)
		memcpy(&d, &bits, sizeof d);
	return isfinite(d) ? d : 0;
}

static unsigned numbers(struct view v, double out[LIMIT_WINDOWS_MAX])
{
	struct view one;
	unsigned n = 0;
	if (rows_array(&v) < 0)
		return 0;
	for (; n < LIMIT_WINDOWS_MAX && rows_array_next(&v, &one); n++)
		out[n] = number(one);
	return n;
}

/* False: this build does not know what it says. */
static bool read_terms(const struct rows *rows, int row, int64_t now, struct limit_terms *t)
{
	*t = (struct limit_terms){ .at_us = now };
	struct view policy = rows_value(rows, row, 5);
	if (!policy.p)
		return true; /* no limit */
	if (policy.n >= sizeof t->policy)
		return false;
	memcpy(t->policy, policy.p, policy.n);
	unsigned n = numbers(rows_value(rows, row, 6), t->rate_us);
	if (n == 0 || numbers(rows_value(rows, row, 7), t->burst) != n || numbers(rows_value(rows, row, 8), t->left) != n)
		return false;
	t->n = n;
	for (unsigned i = 0; i < n; i++) {
		t->rate_us[i] /= 1e6;
		if (!(t->rate_us[i] > 0))
			return false;
	}
	return true;
}

static void take_answer(struct limiter *l)
{
	int64_t now = loop_now_us(l->service->loop);
	struct limit_terms terms;
	limits_reached(l->limits, rows_value(l->rows, 0, 4), (unsigned)rows_int(rows_value(l->rows, 0, 3)));
	for (unsigned i = 0; i < l->n_out; i++) {
		int row = (int)i;
		struct view wait_us = rows_value(l->rows, row, 1);
		if (!read_terms(l->rows, row, now, &terms)) {
			log_warn("composure.lease() says something that this build does not know");
			limits_not_leased(l->limits, &l->ask[i], true);
			continue;
		}
		limits_leased(l->limits, &l->ask[i], (uint32_t)rows_int(rows_value(l->rows, row, 0)),
		              wait_us.p ? rows_int(wait_us) : -1, (unsigned)rows_int(rows_value(l->rows, row, 2)), &terms,
		              now);
	}
}

/* What was out is over: the rest moves up. */
static void answered(struct limiter *l)
{
	loop_timer_stop(l->service->loop, &l->patience);
	rows_free(l->rows);
	l->rows = NULL;
	l->out = false;
	memmove(l->ask, l->ask + l->n_out, (l->n - l->n_out) * sizeof l->ask[0]);
	l->n -= l->n_out;
	l->n_out = l->locked = 0;
	l->singly &= l->n > 0;
}

static void not_answered(struct limiter *l, bool unknown)
{
	for (unsigned i = 0; i < l->n_out; i++)
		limits_not_leased(l->limits, &l->ask[i], unknown);
	answered(l);
}

static void go_on(struct limiter *l)
{
	if (l->n && !l->out)
		loop_defer(l->service->loop, &l->go);
	resume_all(l);
}

static void on_rows(struct query *q, struct rows *rows)
{
	struct limiter *l = CONTAINER_OF(q, struct limiter, query);
	rows_free(l->rows);
	l->rows = rows;
}

static bool transient(const struct db_error *e)
{
	return e && (strcmp(e->sqlstate, "55P03") == 0 || strncmp(e->sqlstate, "40", 2) == 0);
}

static void on_done(struct query *q, enum status status, const struct db_error *error)
{
	struct limiter *l = CONTAINER_OF(q, struct limiter, query);
	struct loop *loop = l->service->loop;
	if (status == OK && l->rows && rows_count(l->rows) == (int)l->n_out && rows_columns(l->rows) == 9) {
		take_answer(l);
		answered(l);
		go_on(l);
		return;
	}
	if (transient(error)) {
		/* Somebody held a bucket for 20 ms, and nothing was done: once more. When it goes on, the others do not wait for
		 * the one, and whoever waits for that goes on alone in the end. */
		l->out = false;
		if (++l->locked < LOCKED_TRIES) {
			loop_timer_set(loop, &l->patience, loop_now_us(loop) + LOCKED_US + random() % LOCKED_US);
			return;
		}
		l->locked = 0;
		l->singly = true;
		if (l->n_out > 1)
			l->n_out = 0; /* counted, and to be sent one by one */
		else
			not_answered(l, false);
		go_on(l);
		return;
	}
	if (error && error->sqlstate[0])
		log_warn("tokens cannot be leased: %s %.*s", error->sqlstate, VIEW_ARG(error->message));
	limits_failed(l->limits, loop_now_us(loop));
	not_answered(l, status == OK || status == ERR_OUTCOME_UNKNOWN || status == ERR_DEADLINE);
	go_on(l);
}

static void send_all(struct limiter *l)
{
	struct service *s = l->service;
	int64_t now = loop_now_us(s->loop);
	if (l->out || !l->n)
		return;
	if (!l->n_out) {
		l->n_out = l->singly ? 1 : l->n;
		for (unsigned i = 0; i < l->n_out; i++)
			limits_count(l->limits, &l->ask[i]);
	}
	if (!question(l)) {
		not_answered(l, false);
		go_on(l);
		return;
	}
	l->query = (struct query){
		.statement = &l->statement,
		.session = { .search_path = view_of(s->settings->search_path) },
		.deadline_us = now + PATIENCE_US,
		.write = true,
		.rows = on_rows,
		.done = on_done,
	};
	l->out = true;
	loop_timer_set(s->loop, &l->patience, now + PATIENCE_US);
	pool_submit(s->pool, &l->query);
}

static void on_go(struct task *t)
{
	send_all(CONTAINER_OF(t, struct limiter, go));
}

static void on_patience(struct timer *t)
{
	struct limiter *l = CONTAINER_OF(t, struct limiter, patience);
	if (!l->out) {
		send_all(l);
		return;
	}
	pool_abandon(l->service->pool, &l->query);
	limits_failed(l->limits, loop_now_us(l->service->loop));
	not_answered(l, true);
	go_on(l);
}

/* False: it cannot be asked now, by anybody. */
static bool ask(struct limiter *l, const struct bucket_ref *ref, unsigned cost, uint32_t generation)
{
	struct service *s = l->service;
	int64_t now = loop_now_us(s->loop);
	if (l->n == ASKS_MAX || !pool_reachable(s->pool, NULL) || !limits_may_ask(l->limits, now))
		return false;
	if (limits_ask(l->limits, ref, cost, generation, now, &l->ask[l->n])) {
		/* A process that ends with its answer, in memory that nobody else has, would take a lease along. */
		if (s->brief && !region_is_shared(s->region))
			l->ask[l->n].wanted = cost;
		l->n++;
		if (!l->out && !l->n_out)
			loop_defer(s->loop, &l->go);
	} else if (cost && !limits_asking(l->limits, ref)) {
		look_at(l, now + l->look_us);
	}
	return true;
}

/* --- requests --- */

static unsigned cost_of(const struct exchange *ex)
{
	int cost = ex->function                  ? ex->function->cost
		   : !ex->resource               ? 1
		   : ex->operation == OP_WRITE   ? ex->resource->cost_write
		                                 : ex->resource->cost_read;
	return cost > 0 ? (unsigned)cost : 0;
}

struct view limiter_owner(const struct exchange *ex)
{
	struct limiter *l = ex->service->limiter;
	if (ex->principal.has_key)
		return ex->principal.key_id;
	char text[ADDRESS_TEXT_MAX];
	struct address a = address_of(&ex->request, &l->trusted);
	(void)address_text(&a, text);
	return arena_printf(ex->arena, "address/%s", text);
}

static enum next through(struct exchange *ex)
{
	ex->admitted = true;
	return ex->held ? DONE : NEXT;
}

static int64_t seconds_up(int64_t us)
{
	return us <= 0 ? 1 : (us + 999999) / 1000000;
}

/* The name of a window, quotes and all: the n-th in the policy's text. */
static struct view window_name(const struct limit_terms *t, unsigned n)
{
	struct view rest = view_of(t->policy), one, name;
	for (unsigned i = 0; view_split(&rest, ',', &one); i++) {
		if (i != n)
			continue;
		(void)view_split(&one, ';', &name);
		return view_trim(name);
	}
	return VIEW("\"default\"");
}

static enum next refuse(struct exchange *ex, const struct taken *taken)
{
	struct limit_terms t;
	struct buf names = BUF(512);
	ex->retry_after = seconds_up(taken->wait_us);
	ex->violated = taken->violated;
	if (!limits_terms(ex->service->limits, &ex->bucket, &t))
		t = (struct limit_terms){ .policy = "\"default\"", .n = 1 };
	for (unsigned i = 0; i < t.n && i < LIMIT_WINDOWS_MAX; i++) {
		if (!(taken->violated & 1u << i))
			continue;
		if (names.n)
			buf_putc(&names, ',');
		buf_view_put(&names, window_name(&t, i));
	}
	ex->failed = ERR_RATE_LIMITED;
	problem_quota(&ex->response, VIEW_NONE, view_make(ex->request_id, sizeof ex->request_id), buf_view(&names));
	buf_free(&names);
	char seconds[24];
	int n = snprintf(seconds, sizeof seconds, "%lld", (long long)ex->retry_after);
	response_header(&ex->response, VIEW("Retry-After"), view_make(seconds, (size_t)n));
	return DONE;
}

/* Whoever has waited in vain, or cannot wait, is judged by what this host knows. */
static enum next alone(struct exchange *ex, unsigned cost)
{
	struct service *s = ex->service;
	struct taken taken;
	if (limits_take_alone(s->limits, &ex->bucket, cost, loop_now_us(s->loop), &taken) == TAKE_ADMITTED)
		return through(ex);
	/* Of an owner of whom nothing is known it cannot be said that his quota is used up. */
	return taken.violated ? refuse(ex, &taken) : problem(ex, ERR_UNAVAILABLE, VIEW_NONE);
}

static bool never_enough(const struct exchange *ex, unsigned cost)
{
	struct limit_terms t;
	if (!limits_terms(ex->service->limits, &ex->bucket, &t))
		return false;
	for (unsigned i = 0; i < t.n; i++)
		if (t.burst[i] < cost)
			return true;
	return false;
}

enum next admit(struct exchange *ex)
{
	struct service *s = ex->service;
	struct limiter *l = s->limiter;
	int64_t now = loop_now_us(s->loop);
	unsigned cost = cost_of(ex);
	if (ex->renews)
		return ex->held ? DONE : NEXT;
	if (ex->admitted)
		return ex->held ? DONE : NEXT;
	struct view owner = limiter_owner(ex);
	if (!owner.p)
		return problem(ex, ERR_OVERLOADED, VIEW_NONE);
	if (!ex->limited_since_us)
		ex->limited_since_us = now;
	/* Who has little time goes on alone while there is some left. */
	int64_t most = (ex->deadline_us - ex->limited_since_us) / 2, until = ex->limited_since_us + (most < PATIENCE_US ? most : PATIENCE_US);
	bool late = now >= until;
	ex->limited = limits_find(s->limits, owner, now, &ex->bucket);
	if (!ex->limited) {
		if (late)
			return problem(ex, ERR_OVERLOADED, VIEW_NONE);
		wait(l, ex);
		look_at(l, now + l->look_us);
		return WAIT;
	}
	if (cost == 0)
		return through(ex);
	uint32_t generation = generation_of(s, ex->principal.key_id);
	struct taken taken;
	switch (limits_take(s->limits, &ex->bucket, cost, generation, now, &taken)) {
	case TAKE_ADMITTED:
		if (taken.low && !s->brief)
			(void)ask(l, &ex->bucket, 0, generation);
		return through(ex);
	case TAKE_REFUSED: return refuse(ex, &taken);
	case TAKE_ASK: break;
	}
	if (never_enough(ex, cost))
		return problem(ex, ERR_FORBIDDEN, VIEW("The request costs more than the plan of this API key ever holds."));
	if (late || !ask(l, &ex->bucket, cost, generation))
		return alone(ex, cost);
	wait(l, ex);
	look_at(l, until);
	return WAIT;
}

/* --- headers --- */

/* draft-ietf-httpapi-ratelimit-headers: what is left, and when all of it is there again; in a 429, when to come again. Not in
 * what a shared cache may keep and give to others. */
void limiter_headers(struct exchange *ex)
{
	struct limit_terms t;
	if (!ex->limited || (ex->for_all && ex->failed == OK) || !limits_terms(ex->service->limits, &ex->bucket, &t))
		return;
	int64_t now = loop_now_us(ex->service->loop);
	struct buf text = BUF(512);
	for (unsigned i = 0; i < t.n; i++) {
		int64_t left = (int64_t)limits_left(&ex->bucket, &t, i, now);
		int64_t seconds = ((int64_t)((t.burst[i] - (double)left) / t.rate_us[i]) + 999999) / 1000000;
		if (ex->failed == ERR_RATE_LIMITED && (ex->violated & 1u << i)) {
			left = 0;
			seconds = ex->retry_after;
		}
		if (i)
			buf_lit(&text, ", ");
		buf_view_put(&text, window_name(&t, i));
		buf_lit(&text, ";r=");
		buf_i64(&text, left);
		buf_lit(&text, ";t=");
		buf_i64(&text, seconds);
	}
	response_header(&ex->response, VIEW("RateLimit-Policy"), view_of(t.policy));
	response_header(&ex->response, VIEW("RateLimit"), buf_view(&text));
	buf_free(&text);
}

/* --- failed authentication --- */

enum next limiter_failed_key(struct exchange *ex)
{
	struct service *s = ex->service;
	int64_t most = s->settings->auth_failures, now = loop_now_us(s->loop);
	if (!most)
		return problem(ex, ERR_INVALID_KEY, VIEW_NONE);
	struct address a = address_of(&ex->request, &s->limiter->trusted), near = address_prefix(a, 64), far = address_prefix(a, 48);
	int64_t wait_us = limits_failure(s->limits, view_make((const char *)near.byte, sizeof near.byte), most, now);
	if (memcmp(&near, &far, sizeof near) != 0) {
		/* A /48 is a site's: some of its /64 at a time. */
		int64_t site = limits_failure(s->limits, view_make((const char *)far.byte, 6), 4 * most, now);
		wait_us = wait_us > site ? wait_us : site;
	}
	if (!wait_us)
		return problem(ex, ERR_INVALID_KEY, VIEW_NONE);
	char seconds[24];
	int n = snprintf(seconds, sizeof seconds, "%lld", (long long)seconds_up(wait_us));
	ex->failed = ERR_RATE_LIMITED;
	problem_quota(&ex->response, VIEW("Too many keys that are not valid came from this address."),
	              view_make(ex->request_id, sizeof ex->request_id), VIEW("\"authentication\""));
	response_header(&ex->response, VIEW("Retry-After"), view_make(seconds, (size_t)n));
	return DONE;
}

/* --- rounds --- */

/* A thousand is what it takes at a time: there are more. */
static void on_swept_rows(struct query *q, struct rows *rows)
{
	struct limiter *l = CONTAINER_OF(q, struct limiter, sweep);
	if (rows_count(rows) == 1 && rows_int(rows_value(rows, 0, 0)) >= SWEPT_AT_ONCE)
		l->next_sweep_us = 0;
	rows_free(rows);
}

static void on_swept(struct query *q, enum status status, const struct db_error *error)
{
	struct limiter *l = CONTAINER_OF(q, struct limiter, sweep);
	(void)status, (void)error;
	l->sweeping = false;
}

static void sweep(struct limiter *l)
{
	struct service *s = l->service;
	int64_t now = loop_now_us(s->loop);
	if (l->sweeping || now < l->next_sweep_us || !pool_reachable(s->pool, NULL))
		return;
	l->next_sweep_us = now + SWEEP_US;
	l->sweeping = true;
	l->sweep = (struct query){
		.statement = &l->sweep_sql,
		.session = { .search_path = view_of(s->settings->search_path) },
		.deadline_us = now + SWEEP_US / 2,
		.write = true,
		.rows = on_swept_rows,
		.done = on_swept,
	};
	pool_submit(s->pool, &l->sweep);
}

void limiter_round(struct limiter *l)
{
	struct service *s = l->service;
	int64_t now = loop_now_us(s->loop);
	unsigned freed = limits_repair(l->limits);
	if (freed)
		log_info("a worker died while it wrote: %u buckets were freed", freed);
	sweep(l);
	/* A process that ends with its answer would not hear what came of it. */
	if (s->brief || !pool_reachable(s->pool, NULL) || !limits_may_ask(l->limits, now))
		return;
	/* Half of the room is left for those who want tokens. */
	for (unsigned at = 0; l->n < ASKS_MAX / 2 && limits_idle(l->limits, &at, now, &l->ask[l->n]);)
		l->n++;
	if (l->n && !l->out && !l->n_out)
		loop_defer(s->loop, &l->go);
}

/* --- the limiter --- */

static bool read_trusted(const struct settings *set, struct trusted *t, char *why, int size)
{
	return trusted_parse(t, view_of(set->trusted_proxies), strcmp(set->forwarded_header, "Forwarded") == 0, why, size);
}

bool limiter_settings(const struct settings *set)
{
	struct trusted t;
	char why[256];
	bool good = read_trusted(set, &t, why, sizeof why);
	if (!good)
		log_error("%s", why);
	return good;
}

struct limiter *limiter_create(struct service *s)
{
	struct limiter *l = calloc(1, sizeof *l);
	char why[256] = "";
	if (!l)
		return NULL;
	l->service = s;
	l->limits = s->limits;
	l->waiting_end = &l->waiting;
	l->look_us = LOOK_AGAIN_US;
	l->patience.fire = on_patience;
	l->look.fire = on_look;
	l->go.run = on_go;
	l->arena = arena_create(1 << 20);
	l->sweep_arena = arena_create(4096);
	bool good = l->arena && l->sweep_arena;
	if (good) {
		statement_init(&l->sweep_sql, l->sweep_arena);
		statement_lit(&l->sweep_sql, "SELECT composure.limit_sweep()");
		good = statement_finish(&l->sweep_sql);
	}
	if (!good || !read_trusted(s->settings, &l->trusted, why, sizeof why)) {
		limiter_destroy(l);
		return NULL;
	}
	return l;
}

void limiter_destroy(struct limiter *l)
{
	if (!l)
		return;
	struct loop *loop = l->service->loop;
	if (l->out)
		pool_abandon(l->service->pool, &l->query);
	if (l->sweeping)
		pool_abandon(l->service->pool, &l->sweep);
	for (unsigned i = 0; i < l->n; i++)
		limits_not_leased(l->limits, &l->ask[i], i < l->n_out && l->out);
	loop_timer_stop(loop, &l->patience);
	loop_timer_stop(loop, &l->look);
	loop_undefer(loop, &l->go);
	rows_free(l->rows);
	arena_destroy(l->arena);
	arena_destroy(l->sweep_arena);
	free(l);
}
