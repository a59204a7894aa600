/* The one hard fact: a replica's position is read before the rows, in the same trip. So an answer has all that was replayed
 * by then, and whether that is enough is known when it has come, whatever was believed when it was asked for. */
#include "config.h"

#include "replicas.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "cache/generation.h"
#include "shm/progress.h"

enum {
	ASK_US = 100000,      /* between two questions to a replica how far it is */
	ASK_OUT_US = 1000000, /* patience with one */
	DOUBT_US = 300000,    /* nothing heard of it for so long: what it does not answer may be its own doing */
	SILENT_US = 1000000,  /* nothing heard of it for so long: it is not read from, and what is out is asked elsewhere */
	TRIES_MAX = 2,        /* of a read: replicas that may fail it before the primary is asked */
};

struct replica {
	struct replicas *all;
	unsigned n;
	char *dsn;
	struct pool *pool;
	struct query ask;
	bool asking, silent, foreign;
	int64_t asked_us;
};

struct replicas {
	struct service *service;
	struct arena *arena;
	struct statement ask_sql;
	unsigned n, turn;
	struct replica replica[PROGRESS_REPLICAS];
};

/* --- read_dsn --- */

/* The string up to the next | that stands alone, with || as |. NULL: out of memory. */
static char *next_dsn(const char **rest)
{
	char *dsn = strdup(*rest), *to = dsn;
	const char *from = *rest;
	if (!dsn)
		return NULL;
	while (*from && (*from != '|' || from[1] == '|')) {
		from += *from == '|';
		*to++ = *from++;
	}
	*to = '\0';
	*rest = *from ? from + 1 : from;
	return dsn;
}

static bool is_blank(const char *text)
{
	return view_trim(view_of(text)).n == 0;
}

static bool read_dsns(struct replicas *all, const char *rest)
{
	while (*rest) {
		char *dsn = next_dsn(&rest);
		if (!dsn || is_blank(dsn)) {
			log_error(dsn ? "read_dsn has an empty string in it" : "out of memory");
			free(dsn);
			return false;
		}
		if (all->n == PROGRESS_REPLICAS) {
			log_error("read_dsn names more than %d replicas", PROGRESS_REPLICAS);
			free(dsn);
			return false;
		}
		all->replica[all->n].dsn = dsn;
		all->n++;
	}
	return true;
}

static bool make_pool(struct replica *r)
{
	const struct settings *set = r->all->service->settings;
	char breaker[32];
	(void)snprintf(breaker, sizeof breaker, "replica %u", r->n + 1);
	const struct pool_options options = {
		.conn = {
			.dsn = r->dsn,
			.positions = true,
			.pooled = strcmp(set->pooler, "transaction") == 0,
			.connect_timeout_us = set->connect_timeout_ms * 1000,
		},
		.connections = (unsigned)set->connections,
		.breaker = breaker_find(r->all->service->breakers, view_of(breaker)),
		.breaker_terms = &r->all->service->server_terms,
		.share_segments = set->share_segments,
	};
	r->pool = pool_create(r->all->service->loop, &options);
	return r->pool;
}

struct replicas *replicas_create(struct service *s)
{
	struct replicas *all = calloc(1, sizeof *all);
	struct arena *arena = arena_create(4096);
	if (!all || !arena) {
		free(all);
		arena_destroy(arena);
		return NULL;
	}
	all->service = s;
	all->arena = arena;
	statement_init(&all->ask_sql, arena);
	statement_lit(&all->ask_sql, "SELECT 1");
	bool good = read_dsns(all, s->settings->read_dsn) && statement_finish(&all->ask_sql);
	for (unsigned i = 0; good && i < all->n; i++) {
		all->replica[i].all = all;
		all->replica[i].n = i;
		good = make_pool(&all->replica[i]);
	}
	if (!good) {
		replicas_destroy(all);
		return NULL;
	}
	return all;
}

void replicas_destroy(struct replicas *all)
{
	if (!all)
		return;
	for (unsigned i = 0; i < all->n; i++) {
		struct replica *r = &all->replica[i];
		if (r->asking)
			pool_abandon(r->pool, &r->ask);
		pool_destroy(r->pool);
		free(r->dsn);
	}
	arena_destroy(all->arena);
	free(all);
}

/* --- how far they are --- */

static void on_rows(struct query *q, struct rows *rows)
{
	(void)q;
	rows_free(rows);
}

static void on_asked(struct query *q, enum status status, const struct db_error *error)
{
	struct replica *r = CONTAINER_OF(q, struct replica, ask);
	(void)error;
	r->asking = false;
	if (status == OK && q->lsn)
		progress_replayed(r->all->service->progress, r->n, q->lsn, r->asked_us, clock_us());
}

static void ask(struct replica *r, int64_t now)
{
	if (r->asking && now - r->asked_us < ASK_OUT_US)
		return;
	if (r->asking)
		pool_abandon(r->pool, &r->ask);
	r->ask = (struct query){
		.statement = &r->all->ask_sql,
		.deadline_us = now + ASK_OUT_US,
		.vital = true,
		.rows = on_rows,
		.done = on_asked,
	};
	r->asking = true;
	r->asked_us = now;
	pool_submit(r->pool, &r->ask);
}

static int64_t silent_us(const struct replica *r, int64_t now)
{
	return now - progress_replica(r->all->service->progress, r->n).asked_us;
}

static bool is_silent(const struct replica *r, int64_t now)
{
	return silent_us(r, now) > SILENT_US;
}

static bool primary_answers(const struct service *s, int64_t now)
{
	return pool_reachable(s->pool, NULL) && !breaker_doubted(s->primary, now);
}

static void tell_foreign(struct replica *r)
{
	bool was = r->foreign;
	r->foreign = progress_replica(r->all->service->progress, r->n).foreign;
	if (r->foreign && !was)
		log_warn("replica %u has what the primary has not: it followed another one, and is not read from (pg_rewind)", r->n + 1);
}

void replicas_round(struct replicas *all, bool holding)
{
	struct service *s = all->service;
	int64_t now = loop_now_us(s->loop);
	/* Of all workers the one that asks it all the time: the others need not have noticed that it is away. */
	if (holding && primary_answers(s, now))
		progress_saw(s->progress, now);
	for (unsigned i = 0; i < all->n; i++) {
		struct replica *r = &all->replica[i];
		bool was_silent = r->silent;
		r->silent = is_silent(r, now);
		/* Who asks it still may wait until its deadline. */
		if (r->silent && !was_silent)
			pool_give_up(r->pool, VIEW("a replica is silent"));
		if (holding)
			tell_foreign(r);
		if ((holding || !pool_reachable(r->pool, NULL)) && (r->asking || now - r->asked_us >= ASK_US))
			ask(r, now);
	}
}

/* --- which one --- */

/* How far behind is told from when the primary was last seen to be well: from now, mostly. While it is away nobody falls further
 * behind; where only its feed fails (its table is locked, its function is another version's), it goes on and leaves them behind. */
static bool may_serve(const struct replica *r, uint64_t least, int64_t most_us, int64_t now)
{
	const struct service *s = r->all->service;
	struct progress_replica p = progress_replica(s->progress, r->n);
	return !is_silent(r, now) && pool_reachable(r->pool, NULL) && p.lsn && p.lsn >= least && p.as_of_us &&
	       progress_seen_us(s->progress) - p.as_of_us <= most_us;
}

bool replicas_serve(const struct service *s)
{
	int64_t now = loop_now_us(s->loop);
	for (unsigned i = 0; i < s->replicas->n; i++)
		if (may_serve(&s->replicas->replica[i], 0, s->settings->replica_lag_ms * 1000, now))
			return true;
	return false;
}

static void bound(const struct cache_policy *p, int64_t *most_us)
{
	if (p->max_lag_us >= 0 && p->max_lag_us < *most_us)
		*most_us = p->max_lag_us;
}

static void bound_embedded(const struct node *n, int64_t *most_us)
{
	for (const struct node *c = n->child; c; c = c->next) {
		bound(&c->resource->policy, most_us);
		if (c->link.junction)
			bound(&c->link.junction->policy, most_us);
		bound_embedded(c, most_us);
	}
}

/* What the resource says, more or less than the setting; what is embedded can only say less. */
static int64_t most_lag_us(const struct exchange *ex)
{
	const struct cache_policy *p = &ex->resource->policy;
	int64_t most_us = p->max_lag_us >= 0 ? p->max_lag_us : ex->service->settings->replica_lag_ms * 1000;
	if (ex->prepared)
		bound_embedded(&ex->page.tree.root, &most_us);
	return most_us;
}

static uint64_t identity_of(const struct exchange *ex)
{
	return generation_tag(VIEW("identity"), ex->principal.key_id);
}

static uint64_t least_lsn(const struct exchange *ex)
{
	uint64_t own = progress_written(ex->service->progress, identity_of(ex), loop_now_us(ex->service->loop));
	return own > ex->seen_lsn ? own : ex->seen_lsn;
}

/* The one with the least to do; of equals the next one. */
static struct replica *choose(const struct exchange *ex, uint64_t least)
{
	struct replicas *all = ex->service->replicas;
	int64_t now = loop_now_us(ex->service->loop), most_us = most_lag_us(ex);
	struct replica *best = NULL;
	for (unsigned i = 0; most_us > 0 && i < all->n; i++) {
		struct replica *r = &all->replica[(all->turn + i) % all->n];
		if ((ex->replicas_tried & 1u << r->n) || !may_serve(r, least, most_us, now))
			continue;
		if (!best || pool_in_use(r->pool) < pool_in_use(best->pool))
			best = r;
	}
	return best;
}

static bool is_read(const struct exchange *ex)
{
	return ex->resource && (ex->operation == OP_PAGE || ex->operation == OP_ITEM);
}

bool replicas_may_serve(const struct exchange *ex)
{
	return ex->service->replicas->n && is_read(ex) && choose(ex, least_lsn(ex));
}

static unsigned count_tried(const struct exchange *ex)
{
	return (unsigned)__builtin_popcount(ex->replicas_tried);
}

struct pool *replicas_pool(struct exchange *ex)
{
	struct service *s = ex->service;
	ex->replica = NULL;
	if (s->replicas->n && is_read(ex) && !ex->of_primary && count_tried(ex) < TRIES_MAX) {
		ex->least_lsn = least_lsn(ex);
		ex->replica = choose(ex, ex->least_lsn);
	}
	if (!ex->replica)
		return s->pool;
	s->replicas->turn = ex->replica->n + 1;
	return ex->replica->pool;
}

/* --- what came of it --- */

bool replicas_not_yet(struct exchange *ex)
{
	if (!ex->replica || loop_now_us(ex->service->loop) >= ex->deadline_us)
		return false;
	ex->of_primary = true;
	return true;
}

/* PostgreSQL has something against a value of the client's, or the user's code has: the primary would say the same. */
static bool is_the_clients(const struct exchange *ex)
{
	return strncmp(ex->sqlstate, "22", 2) == 0 || strncmp(ex->sqlstate, "P0", 2) == 0;
}

bool replicas_again(struct exchange *ex, const struct query *q, bool failed)
{
	if (!ex->replica)
		return false;
	if (!failed && q->lsn >= ex->least_lsn) {
		ex->replica_lsn = ex->replica_lsn && ex->replica_lsn < q->lsn ? ex->replica_lsn : q->lsn;
		ex->from_replica = true;
		return false;
	}
	bool in_time = loop_now_us(ex->service->loop) < ex->deadline_us;
	if (failed && (is_the_clients(ex) || ex->query_status == ERR_DEADLINE || !in_time))
		return false;
	if (failed)
		ex->replicas_tried |= 1u << ex->replica->n;
	/* It has not got so far; or a statement that was cancelled because of what is being replayed, a table that is not there
	 * yet, a lock. */
	ex->of_primary |= !failed || ex->query_status != ERR_UNAVAILABLE;
	return true;
}

bool replicas_server_answers(const struct exchange *ex)
{
	const struct replica *r = ex->replica;
	int64_t now = clock_us();
	return r ? silent_us(r, now) <= DOUBT_US && pool_reachable(r->pool, NULL) : primary_answers(ex->service, now);
}

bool replicas_heard(const struct exchange *ex)
{
	return !ex->seen_lsn || progress_heard(ex->service->progress, ex->seen_lsn);
}

bool replicas_may_keep(const struct exchange *ex, uint64_t told)
{
	const struct service *s = ex->service;
	if (!ex->from_replica)
		return true;
	int64_t unheard_us = clock_us() - progress_heard_us(s->progress);
	return ex->replica_lsn >= told && watch_is_followed(unheard_us, s->settings->feed_interval_ms * 1000);
}

/* --- writes --- */

void replicas_wrote(struct exchange *ex, uint64_t lsn)
{
	struct service *s = ex->service;
	int64_t now = clock_us();
	if (!s->replicas->n)
		return;
	/* What is still under way has until its deadline to be committed. */
	progress_wrote(s->progress, identity_of(ex), lsn, lsn || now > ex->deadline_us ? now : ex->deadline_us);
	ex->written_lsn = lsn;
}

/* As PostgreSQL writes it: two numbers of up to eight hex digits. */
static bool parse_part(struct view v, uint64_t *out)
{
	uint64_t n = 0;
	for (size_t i = 0; i < v.n; i++) {
		const char *digits = "0123456789abcdefABCDEF", *at = v.p[i] ? strchr(digits, v.p[i]) : NULL;
		if (!at)
			return false;
		int64_t digit = at - digits;
		n = n << 4 | (uint64_t)(digit < 16 ? digit : digit - 6);
	}
	*out = n;
	return v.n > 0 && v.n <= 8;
}

bool replicas_take_header(struct exchange *ex)
{
	struct view low = view_trim(ex->request.header[HEADER_COMPOSURE_LSN]), high;
	uint64_t h, l;
	if (!ex->service->replicas->n || !ex->request.header[HEADER_COMPOSURE_LSN].p)
		return true;
	if (!view_split(&low, '/', &high) || !low.p || !parse_part(high, &h) || !parse_part(low, &l))
		return false;
	ex->seen_lsn = h << 32 | l;
	return true;
}

void replicas_headers(struct exchange *ex)
{
	char text[32];
	if (!ex->written_lsn)
		return;
	int n = snprintf(text, sizeof text, "%X/%X", (unsigned)(ex->written_lsn >> 32), (unsigned)ex->written_lsn);
	response_header(&ex->response, VIEW("Composure-LSN"), view_make(text, (size_t)n));
}
