/* The one hard fact: generations are read before PostgreSQL is asked. So what a change overtakes is out of date when it is
 * kept, and an answer that was asked for after a request came is true enough for it, whatever happened since. */
#include "config.h"

#include "recall.h"

#include <stdlib.h>

#include "cache/flight.h"
#include "cache/generation.h"
#include "cache/store.h"
#include "db/feed.h"
#include "http/params.h"
#include "partial.h"
#include "query/etag.h"
#include "reach.h"
#include "replicas.h"
#include "shm/progress.h"

enum {
	LOOK_US = 1000,          /* between two looks at what other workers ask */
	BLIND_TTL_US = 5000000,  /* what is kept counts as true for so long where PostgreSQL does not answer either */
	UNSURE_US = 10000,       /* between two looks whether it does, */
	SILENT_US = 1000000,     /* nothing heard for so long, by anybody, and */
	PATIENCE_US = 500000,    /* nothing here for so long: then it does not, whoever would have to tell */
	JOINS_MAX = 2,           /* then it asks for itself */
};

enum verdict {
	GONE,    /* nothing, or never to be served again */
	FRESH,
	UNSURE,  /* nothing says that it changed, but nobody would have heard: to be asked for, and served if that fails */
	RENEW,   /* stale, and may be served while it is made anew */
	SPARE,   /* stale, and may be served when PostgreSQL fails */
};

struct recall {
	struct view key;
	uint64_t hash;
	int64_t came_us;             /* an answer that was asked for from then on is true enough */
	struct store_entry entry;    /* of what is being asked for */
	struct flight_ref flight;
	unsigned joins;
	bool filling, leading, asked, waiting, told;
	bool unsure;                 /* something is kept that may have to do */
	uint64_t progress;           /* what a replica has to have replayed for its answer to be kept */
	const char *forward;         /* why it was asked for (RFC 9211 section 2.2) */
	struct exchange *next, **link; /* among those who wait */
};

struct recaller {
	struct service *service;
	struct timer look;
	struct exchange *waiting;
	struct exchange *renewing;   /* exchanges of our own, by next_renewing */
};

/* --- who waits --- */

static void wait_end(struct exchange *ex)
{
	struct recall *rc = ex->recall;
	if (!rc->waiting)
		return;
	*rc->link = rc->next;
	if (rc->next)
		rc->next->recall->link = rc->link;
	rc->waiting = false;
}

static void wait_at(struct exchange *ex, struct exchange **head)
{
	struct recall *rc = ex->recall;
	rc->waiting = true;
	rc->next = *head;
	rc->link = head;
	if (rc->next)
		rc->next->recall->link = &rc->next;
	*head = ex;
}

static void look_soon(struct recaller *all, int64_t at_us)
{
	if (!all->look.place)
		loop_timer_set(all->service->loop, &all->look, at_us);
}

static void wait_begin(struct exchange *ex)
{
	struct recaller *all = ex->service->recaller;
	wait_at(ex, &all->waiting);
	look_soon(all, loop_now_us(ex->service->loop) + LOOK_US);
}

/* Whoever is resumed may end others, and begin to wait anew: each is looked at once, from a list of its own. */
static void on_look(struct timer *t)
{
	struct recaller *all = CONTAINER_OF(t, struct recaller, look);
	struct service *s = all->service;
	struct exchange *now_waiting = all->waiting;
	int64_t now = clock_us();
	all->waiting = NULL;
	if (now_waiting)
		now_waiting->recall->link = &now_waiting;
	while (now_waiting) {
		struct exchange *ex = now_waiting;
		bool goes_on = ex->recall->flight.word && flight_goes_on(s->flights, &ex->recall->flight, now);
		wait_end(ex);
		if (goes_on)
			wait_at(ex, &all->waiting);
		else
			exchange_resume(ex);
	}
	if (all->waiting)
		look_soon(all, now + LOOK_US);
}

/* `each`: what came of it is for nobody else, so each of those who waited asks for itself. */
static void flight_over(struct exchange *ex, bool each)
{
	struct recall *rc = ex->recall;
	struct service *s = ex->service;
	if (rc->leading) {
		flight_end(s->flights, &rc->flight, each);
		if (s->recaller->waiting)
			loop_timer_set(s->loop, &s->recaller->look, loop_now_us(s->loop));
	}
	rc->leading = rc->filling = false;
}

bool recall_leave(struct exchange *ex)
{
	bool waiting = ex->recall && ex->recall->waiting;
	if (waiting)
		wait_end(ex);
	return waiting;
}

void recall_end(struct exchange *ex)
{
	if (!ex->recall)
		return;
	wait_end(ex);
	flight_over(ex, false);
	ex->recall = NULL;
}

/* --- may it be kept? --- */

/* NEXT with ex->recall set: it may be kept. */
static enum next begin(struct exchange *ex)
{
	struct service *s = ex->service;
	bool call = ex->operation == OP_WRITE && ex->function && exchange_reads(ex) && !ex->function->is_volatile;
	if (ex->operation != OP_PAGE && ex->operation != OP_ITEM && !call)
		return NEXT;
	const struct cache_policy *policy = call ? &ex->function->policy : &ex->resource->policy;
	if (policy->ttl_us <= 0 || store_bytes_max(s->store) == 0)
		return NEXT;
	struct recall *rc = ARENA_NEW(ex->arena, struct recall);
	if (!rc)
		return NEXT;
	struct reach reach;
	enum next n = reach_find(ex, &rc->entry, &reach);
	if (n != NEXT)
		return n;
	ex->for_all = reach.all_public;
	rc->came_us = clock_us(); /* not when this wake-up began: the client may have written since, elsewhere */
	if (reach.scope == SCOPE_NONE || rc->entry.ttl_us <= 0 || !reach.all_tags || !reach_key(ex, &reach, &rc->key)) {
		ex->for_all = false;
		if (ex->prepared)
			exchange_read_for_all(ex);
		return NEXT;
	}
	rc->hash = store_hash(s->store, rc->key);
	rc->entry.for_all = ex->for_all;
	ex->recall = rc;
	return NEXT;
}

/* --- is it true? --- */

static uint64_t read_generations(const struct exchange *ex, struct store_entry *e)
{
	uint64_t digest = 0x9e3779b97f4a7c15u;
	for (unsigned i = 0; i < e->n_tags; i++) {
		struct generation g = generation_read(ex->service->watch, e->tags[i].tag);
		e->tags[i].hard = g.hard;
		e->tags[i].soft = g.soft;
		digest = (digest ^ ((uint64_t)g.hard << 32 | g.soft)) * 0x100000001b3u;
		digest ^= digest >> 31;
	}
	return digest ? digest : 1;
}

static uint64_t of_identity(const struct exchange *ex, uint64_t tag)
{
	return generation_tag(view_make((const char *)&tag, sizeof tag), ex->principal.key_id);
}

static bool wrote_since(const struct exchange *ex, const struct store_entry *e)
{
	for (unsigned i = 0; i < e->n_tags; i++)
		if (flights_wrote_us(ex->service->flights, of_identity(ex, e->tags[i].tag)) >= e->asked_us)
			return true;
	return false;
}

/* What the feed is known to have told of until now, in microseconds ago. */
static int64_t unheard_us(const struct service *s)
{
	int64_t beat = watch_heartbeat_ms(s->watch);
	int64_t ago = watch_clock_ms() - beat;
	return beat && ago >= 0 ? ago * 1000 : INT64_MAX / 2;
}

static bool followed(const struct service *s, int64_t unheard)
{
	return watch_is_followed(unheard, s->settings->feed_interval_ms * 1000);
}

static bool feed_is_followed(const struct service *s)
{
	return followed(s, unheard_us(s));
}

struct judgement {
	enum verdict verdict;
	int64_t ttl_us;      /* what is left of it; below 0: how long it is stale */
	int64_t age_us;      /* since it was last known to be true */
	const char *detail;
};

/* How long it has been stale at most: since it was last known to be true. That there is no such row is never said of what may
 * have come meanwhile. */
static struct judgement judge_stale(const struct exchange *ex, const struct store_entry *e, int64_t since_us, int64_t now)
{
	int64_t stale_us = now - since_us;
	/* Of what is bounded nothing is known since it was asked for. */
	struct judgement j = { .verdict = GONE, .age_us = e->bounded ? now - e->asked_us : stale_us, .ttl_us = -stale_us };
	if (e->missing || wrote_since(ex, e))
		return j;
	if (stale_us < e->revalidate_us && !ex->service->brief) {
		j.verdict = RENEW;
		j.detail = "stale-while-revalidate";
	} else if (stale_us < e->if_error_us || stale_us < e->revalidate_us) {
		j.verdict = SPARE;
		j.detail = "stale-if-error";
	}
	return j;
}

/* As far as this worker knows. (A plain CGI program is none: nobody need be listening where it runs.) */
static bool answers(const struct service *s)
{
	return pool_stands(s->pool) && pool_reachable(s->pool, NULL) && !breaker_doubted(s->primary, clock_us());
}

/* When it was last known to be true. That nothing was told says nothing where not every change is. */
static int64_t true_until(const struct store_entry *e, const struct store_ref *ref, bool same, bool follows, int64_t heard)
{
	if (same && (follows || e->bounded))
		return e->asked_us + e->ttl_us;
	return same && heard > ref->confirmed_us ? heard : ref->confirmed_us;
}

static struct judgement judge(const struct exchange *ex, const struct store_entry *e, const struct store_ref *ref)
{
	const struct service *s = ex->service;
	int64_t now = clock_us(), unheard = unheard_us(s); /* before the generations: what is told after it is not known here */
	bool follows = followed(s, unheard), hard_same = true, soft_same = true;
	for (unsigned i = 0; i < e->n_tags; i++) {
		struct generation g = generation_read(s->watch, e->tags[i].tag);
		hard_same &= g.hard == e->tags[i].hard;
		soft_same &= g.soft == e->tags[i].soft;
	}
	struct judgement j = { .verdict = GONE, .ttl_us = e->asked_us + e->ttl_us - now };
	if (!hard_same || e->asked_us > now)
		return j;
	if (e->asked_us >= ex->recall->came_us) {
		j.verdict = FRESH;
		return j;
	}
	/* What was changed since may be just what the client has seen elsewhere. */
	if (!soft_same && ex->seen_lsn)
		return j;
	int64_t heard = now - unheard > e->asked_us ? now - unheard : e->asked_us;
	if (soft_same && j.ttl_us > 0) {
		j.age_us = e->bounded ? now - e->asked_us : follows ? 0 : now - heard;
		if (follows)
			j.verdict = FRESH;
		else if (now - heard <= BLIND_TTL_US)
			j.verdict = !s->brief && !answers(s) ? FRESH : UNSURE;
		if (!follows)
			j.detail = "blind";
		if (j.verdict != GONE)
			return j;
	}
	if (!soft_same && follows && now - e->asked_us < e->min_fresh_us && !wrote_since(ex, e)) {
		j.verdict = FRESH;
		j.ttl_us = e->asked_us + e->min_fresh_us - now;
		j.age_us = now - e->asked_us;
		j.detail = "min-fresh";
		return j;
	}
	return judge_stale(ex, e, true_until(e, ref, soft_same, follows, heard), now);
}

/* --- answers --- */

static void put_seconds(struct buf *b, int64_t us)
{
	buf_i64(b, us >= 0 ? us / 1000000 : -((-us + 999999) / 1000000));
}

static void say_hit(struct exchange *ex, const struct judgement *j)
{
	struct buf age = BUF(64), status = BUF(128);
	buf_i64(&age, j->age_us > 0 ? (j->age_us + 999999) / 1000000 : 0);
	buf_lit(&status, "Composure; ");
	if (ex->recall->joins || ex->recall->asked) {
		buf_lit(&status, "fwd=");
		buf_view_put(&status, view_of(ex->recall->forward));
		if (ex->recall->joins)
			buf_lit(&status, "; collapsed");
	} else {
		buf_lit(&status, "hit; ttl=");
		put_seconds(&status, j->ttl_us);
	}
	if (j->detail) {
		buf_lit(&status, "; detail=");
		buf_view_put(&status, view_of(j->detail));
	}
	response_header(&ex->response, VIEW("Age"), buf_view(&age));
	response_header(&ex->response, VIEW("Cache-Status"), buf_view(&status));
	buf_free(&age);
	buf_free(&status);
	ex->recall->told = true;
}

/* There is no such row: what is kept is just that. */
static bool answer_missing(struct exchange *ex, const struct judgement *j)
{
	ex->recall->filling = false;
	problem(ex, ERR_NOT_FOUND, VIEW_NONE);
	say_hit(ex, j);
	return true;
}

/* Fills the response with what is kept. False: it was given up this moment, and the response is empty. */
static bool answer(struct exchange *ex, const struct store_entry *e, const struct store_ref *ref, const struct judgement *j)
{
	if (e->missing)
		return answer_missing(ex, j);
	struct response *r = &ex->response;
	struct view etag = view_make(e->etag, e->n_etag), known = ex->request.header[HEADER_IF_NONE_MATCH];
	bool unchanged = known.p && e->n_etag && etag_matches(known, etag, false);
	bool with_body = !unchanged && !r->head_only;
	response_restart(r, unchanged ? 304 : 200);
	char *head = buf_reserve(&r->head, e->n_head + 8), *body = buf_reserve(&r->body, e->n_body + 8);
	if (!head || !body || !store_copy(ex->service->store, ref, e, head, with_body ? body : NULL)) {
		response_restart(r, 0);
		return false;
	}
	buf_advance(&r->head, e->n_head);
	buf_advance(&r->body, e->n_body);
	ex->failed = OK;
	ex->for_all = e->for_all;
	ex->recall->filling = false; /* what was asked for meanwhile is not this */
	say_hit(ex, j);
	return true;
}

/* --- making it anew --- */

static void on_renewed(struct exchange *ex)
{
	struct recaller *all = ex->service->recaller;
	for (struct exchange **at = &all->renewing; *at; at = &(*at)->next_renewing) {
		if (*at == ex) {
			*at = ex->next_renewing;
			break;
		}
	}
	exchange_release(ex);
}

static void copy_request(struct exchange *to, const struct exchange *from)
{
	static const enum header sent[] = { HEADER_ACCEPT, HEADER_PREFER, HEADER_AUTHORIZATION, HEADER_API_KEY };
	struct request *r = &to->request;
	r->method_text = VIEW("GET");
	r->uri = arena_copy(to->arena, from->request.uri);
	r->remote_addr = arena_copy(to->arena, from->request.remote_addr);
	for (size_t i = 0; i < ARRAY_LEN(sent); i++)
		r->header[sent[i]] = arena_copy(to->arena, from->request.header[sent[i]]);
}

/* A request of our own, which nobody hears the answer of. */
static void renew(struct exchange *ex)
{
	struct service *s = ex->service;
	if (flight_is_taken(s->flights, ex->recall->hash, clock_us()))
		return;
	for (const struct exchange *other = s->recaller->renewing; other; other = other->next_renewing)
		if (other->renews_hash == ex->recall->hash)
			return;
	struct exchange *own = exchange_create(s);
	if (!own)
		return;
	own->renews = true;
	own->renews_hash = ex->recall->hash;
	own->finished = on_renewed;
	own->body_done = true; /* there is none, which calls wait for */
	own->next_renewing = s->recaller->renewing;
	s->recaller->renewing = own;
	copy_request(own, ex);
	exchange_start_later(own);
}

void recall_give_way(struct exchange *ex, bool anew)
{
	if (!ex->recall || !ex->recall->filling)
		return;
	flight_over(ex, false);
	if (anew)
		renew(ex);
}

/* --- the step --- */

/* RFC 9111 section 5.2.1. value (may be NULL): what stands behind the "=". */
static bool client_says(const struct exchange *ex, struct view name, struct view *value)
{
	struct view all = ex->request.header[HEADER_CACHE_CONTROL];
	for (struct view one; all.n && view_split(&all, ',', &one);) {
		struct view key, rest = view_trim(one);
		(void)view_split(&rest, '=', &key);
		if (!view_ieq(view_trim(key), name))
			continue;
		if (value)
			*value = rest.p ? view_trim(rest) : VIEW_NONE;
		return true;
	}
	return false;
}

static int64_t seconds(struct view v)
{
	int64_t n = 0;
	for (size_t i = 0; i < v.n && v.p[i] >= '0' && v.p[i] <= '9' && n < 1000000000; i++)
		n = n * 10 + (v.p[i] - '0');
	return n;
}

/* Where clients are obeyed. */
static bool client_refuses(const struct exchange *ex, const struct judgement *j)
{
	struct view value;
	if (!ex->service->settings->cache_obey_clients)
		return false;
	return client_says(ex, VIEW("no-cache"), NULL) || client_says(ex, VIEW("no-store"), NULL) ||
	       (client_says(ex, VIEW("max-age"), &value) && j->age_us > seconds(value) * 1000000);
}

static bool only_if_cached(const struct exchange *ex)
{
	return exchange_reads(ex) && client_says(ex, VIEW("only-if-cached"), NULL);
}

static enum next miss(struct exchange *ex)
{
	struct recall *rc = ex->recall;
	struct service *s = ex->service;
	if (only_if_cached(ex))
		return problem(ex, ERR_NOT_CACHED, VIEW_NONE);
	if (s->settings->cache_obey_clients && client_says(ex, VIEW("no-store"), NULL)) {
		rc->forward = "request";
		return NEXT;
	}
	if (partial_prepare(ex) == DONE)
		return DONE;
	if (partial_is_late(ex))
		return NEXT;
	/* Others wait for an answer under the resource's deadline, not under a client's that is in a hurry: it waits with them. */
	if (ex->hurried && !ex->renews && rc->joins == 0 && replicas_heard(ex)) {
		renew(ex);
		rc->joins++;
		rc->flight.word = 0;
		wait_begin(ex);
		return WAIT;
	}
	/* The generations first; the clock, and whether the feed is heard, before them. */
	int64_t now = clock_us(), sure = now - s->settings->feed_interval_ms * 1000 - WATCH_LATE_US;
	bool follows = feed_is_followed(s);
	uint64_t digest = read_generations(ex, &rc->entry);
	rc->progress = progress_told(s->progress, now);
	rc->entry.asked_us = now;
	/* Nothing changed since it was asked for that was told: so it is as true as anything kept is. */
	int64_t join_from = follows ? 0 : sure;
	bool alone = rc->joins > JOINS_MAX || !replicas_heard(ex) || flight_was_for_one(s->flights, &rc->flight);
	enum flight_role role = alone ? FLIGHT_ALONE
				: flight_take(s->flights, rc->hash, digest, now, join_from, &rc->flight);
	if (ex->renews && (role == FLIGHT_JOIN || role == FLIGHT_LATER))
		return problem(ex, ERR_OVERLOADED, VIEW_NONE); /* somebody makes it anew already */
	switch (role) {
	case FLIGHT_LEAD:
	case FLIGHT_ALONE:
		rc->leading = role == FLIGHT_LEAD;
		rc->filling = rc->asked = true;
		store_count(s->store, STORE_MISS);
		return NEXT;
	case FLIGHT_JOIN:
		if (rc->flight.asked_us < rc->came_us)
			rc->came_us = rc->flight.asked_us;
		rc->joins++;
		break;
	case FLIGHT_LATER:
		rc->flight.word = 0;
		break;
	}
	wait_begin(ex);
	return WAIT;
}

static enum next look(struct exchange *ex)
{
	struct recall *rc = ex->recall;
	struct service *s = ex->service;
	struct store_entry e;
	struct store_ref ref;
	struct judgement j = { .verdict = GONE };
	/* It has seen what this host has not heard of yet: nothing that is kept will do, and nobody else's question. */
	if (!replicas_heard(ex)) {
		rc->forward = "request";
		return miss(ex);
	}
	bool found = store_find(s->store, rc->hash, rc->key, &e, &ref);
	if (found)
		j = judge(ex, &e, &ref);
	if (ex->renews && !rc->joins && j.verdict != FRESH)
		j.verdict = GONE;
	if (!rc->forward)
		rc->forward = found ? "stale" : "uri-miss";
	if (j.verdict != GONE && rc->joins == 0 && client_refuses(ex, &j)) {
		rc->forward = "request";
		return miss(ex);
	}
	if (j.verdict == FRESH && answer(ex, &e, &ref, &j)) {
		store_count(s->store, rc->joins ? STORE_COALESCED : STORE_HIT);
		store_used(s->store, &ref, j.detail ? 0 : clock_us());
		return DONE;
	}
	if (j.verdict == RENEW && answer(ex, &e, &ref, &j)) {
		store_count(s->store, STORE_STALE);
		store_used(s->store, &ref, 0);
		renew(ex);
		return DONE;
	}
	/* That it would be asked for in vain is known: here, and nobody of this host hears anything. */
	bool in_vain = j.verdict == SPARE && !s->brief && !answers(s) && !feed_is_followed(s) && !replicas_may_serve(ex);
	if (in_vain && answer(ex, &e, &ref, &j)) {
		store_count(s->store, STORE_STALE);
		return DONE;
	}
	if (j.verdict == UNSURE && only_if_cached(ex) && answer(ex, &e, &ref, &j)) {
		store_count(s->store, STORE_HIT);
		return DONE;
	}
	if ((j.verdict == UNSURE || j.verdict == SPARE) && !rc->unsure) {
		rc->unsure = true;
		int64_t patience = clock_us() + UNSURE_US;
		if (patience < ex->deadline_us)
			loop_timer_set(s->loop, &ex->deadline, patience);
	}
	return miss(ex);
}

enum next recall(struct exchange *ex)
{
	if (!ex->recall) {
		enum next n = begin(ex);
		if (n != NEXT || ex->recall)
			return n == NEXT ? look(ex) : n;
		return only_if_cached(ex) ? problem(ex, ERR_NOT_CACHED, VIEW_NONE) : NEXT;
	}
	return look(ex);
}

/* --- the end --- */

/* PostgreSQL failed, or takes long: what is kept may do. */
static bool rescue(struct exchange *ex, bool failed)
{
	struct recall *rc = ex->recall;
	struct service *s = ex->service;
	struct store_entry e;
	struct store_ref ref;
	if (!replicas_heard(ex) || !store_find(s->store, rc->hash, rc->key, &e, &ref))
		return false;
	struct judgement j = judge(ex, &e, &ref);
	if (j.verdict == GONE || (j.verdict == SPARE && !failed))
		return false;
	if (j.verdict == RENEW)
		j.detail = "stale-if-error";
	if (!answer(ex, &e, &ref, &j))
		return false;
	store_count(s->store, j.verdict == FRESH ? STORE_HIT : STORE_STALE);
	return true;
}

/* What is kept is not told from what was changed meanwhile: only PostgreSQL can say, as long as it says anything. */
bool recall_deadline(struct exchange *ex, int64_t *later_us)
{
	int64_t now = clock_us();
	*later_us = 0;
	if (!ex->recall || !ex->recall->unsure || now >= ex->deadline_us)
		return false;
	struct service *s = ex->service;
	if (unheard_us(s) > SILENT_US && pool_silent_us(s->pool) > PATIENCE_US)
		(void)breaker_trip(s->primary, &s->server_terms, now);
	bool elsewhere = ex->query_out && ex->pool != s->pool; /* a replica answers all the same, and newer */
	if (!elsewhere && !answers(s) && rescue(ex, !feed_is_followed(s)))
		return true;
	*later_us = now + UNSURE_US < ex->deadline_us ? now + UNSURE_US : ex->deadline_us;
	return false;
}

/* A function may set headers: a cookie is for one client. */
static bool sets_cookie(const struct exchange *ex)
{
	struct view rest = buf_view(&ex->response.head), line;
	bool found = false;
	while (ex->function && view_split(&rest, '\n', &line)) {
		struct view name;
		found |= view_split(&line, ':', &name) && view_ieq(name, VIEW("Set-Cookie"));
	}
	return found;
}

/* What became of what was asked for. */
enum fate {
	FATE_NONE,  /* nothing that says anything to others */
	FATE_KEPT,
	FATE_OTHER, /* an answer, which cannot be kept: whoever waits asks for itself, and what was kept before is over */
};

static enum fate keep_missing(struct exchange *ex)
{
	struct recall *rc = ex->recall;
	rc->entry.missing = true;
	bool kept = store_put(ex->service->store, rc->hash, rc->key, &rc->entry, VIEW(""), VIEW(""));
	return kept ? FATE_KEPT : FATE_NONE;
}

static enum fate keep_whole(struct exchange *ex)
{
	struct recall *rc = ex->recall;
	struct store *store = ex->service->store;
	const struct response *r = &ex->response;
	if (sets_cookie(ex) || r->head.n + r->body.n + rc->key.n > store_bytes_max(store))
		return FATE_OTHER;
	rc->entry.n_etag = (uint8_t)ex->n_etag;
	memcpy(rc->entry.etag, ex->etag, ex->n_etag);
	return store_put(store, rc->hash, rc->key, &rc->entry, buf_view(&r->head), buf_view(&r->body)) ? FATE_KEPT : FATE_NONE;
}

static enum fate keep(struct exchange *ex)
{
	struct recall *rc = ex->recall;
	const struct response *r = &ex->response;
	if (!rc->filling || partial_lacks(ex) || buf_failed(&r->body) || buf_failed(&r->head) || !replicas_may_keep(ex, rc->progress))
		return FATE_NONE;
	if (ex->failed == OK && (r->http == 200 || (r->http == 304 && ex->n_etag)))
		return keep_whole(ex);
	if (ex->failed == ERR_NOT_FOUND && ex->operation == OP_ITEM && ex->query_done)
		return keep_missing(ex);
	return r->http >= 400 && r->http < 500 ? FATE_OTHER : FATE_NONE;
}

/* Was it asked for at all? What was refused before that was not (RFC 9211 section 2.2). */
static bool was_forwarded(const struct exchange *ex)
{
	switch (ex->failed) {
	case ERR_NOT_CACHED:
	case ERR_CIRCUIT_OPEN:
	case ERR_UNAVAILABLE:
	case ERR_OVERLOADED: return false;
	default: return ex->recall->forward;
	}
}

void recall_finish(struct exchange *ex)
{
	struct recall *rc = ex->recall;
	if (!rc)
		return;
	enum fate fate = keep(ex);
	if (fate == FATE_OTHER)
		store_drop(ex->service->store, rc->hash, rc->key, rc->entry.asked_us);
	flight_over(ex, fate == FATE_OTHER);
	if (ex->response.http >= 500 && !ex->renews && ex->failed != ERR_NOT_CACHED)
		(void)rescue(ex, true);
	if (!rc->told && was_forwarded(ex)) {
		struct view text = arena_printf(ex->arena, "Composure; fwd=%s%s", rc->forward, fate == FATE_KEPT ? "; stored" : "");
		response_header(&ex->response, VIEW("Cache-Status"), text);
	}
}

/* --- without PostgreSQL --- */

static int64_t outlives_us(const struct cache_policy *p)
{
	return p->ttl_us <= 0 ? 0 : p->if_error_us > p->revalidate_us ? p->if_error_us : p->revalidate_us;
}

bool recall_may_serve(const struct service *s)
{
	const struct catalog *c = s->catalog;
	int64_t beat = watch_heartbeat_ms(s->watch), most_us = 0;
	for (unsigned i = 0; i < c->n_resources; i++)
		most_us = outlives_us(&c->resources[i].policy) > most_us ? outlives_us(&c->resources[i].policy) : most_us;
	for (unsigned i = 0; i < c->n_functions; i++)
		most_us = outlives_us(&c->functions[i].policy) > most_us ? outlives_us(&c->functions[i].policy) : most_us;
	return beat && store_bytes_max(s->store) > 0 && watch_clock_ms() - beat < most_us / 1000;
}

/* --- writes --- */

bool recall_heard(const struct exchange *ex, int64_t until_us)
{
	return clock_us() - unheard_us(ex->service) > until_us;
}

static void changed(struct exchange *ex, struct view resource, const struct view *keys, unsigned n, bool hard)
{
	struct service *s = ex->service;
	int64_t now = clock_us();
	if (resource.n && resource.p[0] == '@')
		return; /* the watcher's business */
	for (unsigned i = 0; i < n; i++)
		flights_wrote(s->flights, of_identity(ex, generation_of_row(resource, keys[i])), now);
	if (n == 0)
		flights_wrote(s->flights, of_identity(ex, generation_of_rows(resource)), now);
	flights_wrote(s->flights, of_identity(ex, generation_of_resource(resource)), now);
	generation_changed(s->watch, resource, keys, n, hard);
	store_count(s->store, STORE_INVALIDATED);
}

enum { NOTED_RESOURCE, NOTED_KEYS, NOTED_HARD };

static void changed_as_noted(struct exchange *ex, const struct rows *noted)
{
	for (int row = 0; row < rows_count(noted); row++) {
		struct view keys[FEED_KEYS_MAX], hard = rows_value(noted, row, NOTED_HARD);
		unsigned n = rows_texts(rows_value(noted, row, NOTED_KEYS), keys, FEED_KEYS_MAX);
		if (n > 0)
			changed(ex, rows_value(noted, row, NOTED_RESOURCE), keys, n == ROWS_ANY ? 0 : n, hard.n == 1 && hard.p[0]);
	}
}

void recall_written(struct exchange *ex, const struct rows *noted)
{
	if (noted)
		changed_as_noted(ex, noted);
	for (unsigned i = 0; !noted && ex->resource && i < ex->resource->n_touches; i++)
		changed(ex, ex->resource->touches[i], NULL, 0, false);
}

/* --- the recaller --- */

struct recaller *recaller_create(struct service *s)
{
	struct recaller *all = calloc(1, sizeof *all);
	if (!all)
		return NULL;
	all->service = s;
	all->look.fire = on_look;
	return all;
}

void recaller_destroy(struct recaller *all)
{
	if (!all)
		return;
	loop_timer_stop(all->service->loop, &all->look);
	while (all->renewing) {
		struct exchange *ex = all->renewing;
		all->renewing = ex->next_renewing;
		exchange_cancel(ex);
		exchange_release(ex);
	}
	free(all);
}
