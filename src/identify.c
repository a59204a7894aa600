/* Who asks: an API key out of the headers, judged in memory, looked up where the host does not know it yet. */
#include "config.h"

#include "exchange.h"
#include "gate/apikey.h"
#include "limiter.h"

enum { TEXT_OID = 25, OLD_PATIENCE_US = 500000 /* with PostgreSQL, where what is known of a key would do */ };

/* The key as sent, absent without one. ERR_INVALID_HEADER when two headers disagree, ERR_INVALID_KEY for a scheme that
 * is not ours. */
static enum status key_text(const struct request *req, struct view *text)
{
	struct view bearer = req->header[HEADER_AUTHORIZATION], plain = req->header[HEADER_API_KEY];
	*text = VIEW_NONE;
	if (bearer.p) {
		if (bearer.n < 7 || !view_ieq(view_make(bearer.p, 7), VIEW("Bearer ")))
			return ERR_INVALID_KEY;
		*text = view_trim(view_skip(bearer, 7));
	}
	if (plain.p) {
		if (text->p && !view_eq(*text, view_trim(plain)))
			return ERR_INVALID_HEADER;
		*text = view_trim(plain);
	}
	return OK;
}

static enum next refuse(struct exchange *ex)
{
	return limiter_failed_key(ex);
}

static enum next admit_key(struct exchange *ex, const struct key_record *r, const struct apikey *key)
{
	int64_t now = epoch_us();
	if (!apikey_verify(key, r->hash, r->secret_until_us, r->n_secrets, now) || (r->expires_us && r->expires_us <= now))
		return refuse(ex);
	ex->principal = (struct principal){
		.has_key = true,
		.key_id = arena_copy(ex->arena, key->id),
		.role = arena_copy(ex->arena, r->has_role ? view_of(r->role) : VIEW_NONE),
		.tenant = arena_copy(ex->arena, r->has_tenant ? view_of(r->tenant) : VIEW_NONE),
	};
	return arena_full(ex->arena) ? problem(ex, ERR_OVERLOADED, VIEW_NONE) : NEXT;
}

/* --- asking PostgreSQL --- */

static enum next ask(struct exchange *ex, struct view id)
{
	/* Before the question: an answer that a change overtakes is then out of date as soon as it is kept. */
	ex->key_generation = keycache_generation(ex->service->keys, id);
	statement_init(&ex->statement, ex->arena);
	statement_lit(&ex->statement, "SELECT k.role, k.tenant, k.expires_at, k.secret_expires_at, k.secret_hashes"
	                              " FROM composure.key_lookup(");
	statement_param(&ex->statement, id, TEXT_OID);
	statement_lit(&ex->statement, ") k");
	exchange_query(ex, false);
	return WAIT;
}

/* False: it does not fit, and half a role or tenant would be another one. */
static bool copy_text(struct view v, char *out, size_t size)
{
	if (v.n >= size)
		return false;
	if (v.n)
		memcpy(out, v.p, v.n);
	out[v.n] = '\0';
	return true;
}

static void read_secrets(struct key_record *r, struct view hashes, struct view expiries)
{
	struct view hash, until, h = hashes, e = expiries;
	if (rows_array(&h) < 0 || rows_array(&e) < 0)
		return;
	while (r->n_secrets < KEY_SECRETS_MAX && rows_array_next(&h, &hash) && rows_array_next(&e, &until)) {
		if (hash.n != SHA256_BYTES)
			continue;
		memcpy(r->hash[r->n_secrets], hash.p, SHA256_BYTES);
		r->secret_until_us[r->n_secrets++] = rows_int(until);
	}
}

/* False: there is no such key. */
static bool read_record(const struct rows *rows, struct view id, struct key_record *r)
{
	*r = (struct key_record){ .n_secrets = 0 };
	memcpy(r->id, id.p, sizeof r->id);
	if (!rows || rows_count(rows) != 1 || rows_columns(rows) != 5)
		return false;
	struct view role = rows_value(rows, 0, 0), tenant = rows_value(rows, 0, 1);
	r->has_role = role.p != NULL;
	r->has_tenant = tenant.p != NULL;
	r->expires_us = rows_int(rows_value(rows, 0, 2));
	read_secrets(r, rows_value(rows, 0, 4), rows_value(rows, 0, 3));
	return copy_text(role, r->role, sizeof r->role) && copy_text(tenant, r->tenant, sizeof r->tenant);
}

static enum next answered(struct exchange *ex, const struct apikey *key)
{
	struct keycache *keys = ex->service->keys;
	int64_t now = loop_now_us(ex->service->loop);
	struct key_record r;
	loop_timer_set(ex->service->loop, &ex->deadline, ex->deadline_us);
	if (ex->query_status != OK) {
		/* PostgreSQL cannot say: what the host knew of the key lately still holds. */
		enum key_state st = keycache_get(keys, key->id, now, &r);
		return st == KEY_OLD || st == KEY_KNOWN ? admit_key(ex, &r, key) : query_problem(ex);
	}
	if (!read_record(ex->rows, key->id, &r)) {
		keycache_put_unknown(keys, key->id, ex->key_generation, now);
		return refuse(ex);
	}
	keycache_put(keys, &r, ex->key_generation, now);
	return admit_key(ex, &r, key);
}

/* Its own deadline is set again by what comes of it. */
bool identify_late(struct exchange *ex)
{
	if (!ex->query_out || loop_now_us(ex->service->loop) >= ex->deadline_us)
		return false;
	pool_abandon(ex->service->pool, &ex->query);
	ex->query_out = false;
	ex->query_done = true;
	ex->query_status = ERR_UNAVAILABLE;
	return true;
}

enum next identify(struct exchange *ex)
{
	struct view text;
	struct apikey key;
	enum status st = key_text(&ex->request, &text);
	if (st == ERR_INVALID_HEADER)
		return problem(ex, st, VIEW("Two different API keys were sent."));
	if (st != OK)
		return refuse(ex);
	if (!text.p) {
		ex->principal.role = ex->catalog->anonymous_role;
		return NEXT;
	}
	if (!keymemo_parse(ex->service->memo, text, ex->catalog->secret, &key))
		return refuse(ex);
	if (ex->query_done)
		return answered(ex, &key);
	struct key_record r;
	enum key_state known = keycache_get(ex->service->keys, key.id, loop_now_us(ex->service->loop), &r);
	if (known == KEY_OLD || known == KEY_MISSING)
		exchange_hurry(ex);
	switch (known) {
	case KEY_KNOWN: return admit_key(ex, &r, &key);
	case KEY_UNKNOWN: return refuse(ex);
	case KEY_OLD: {
		struct service *s = ex->service;
		int64_t now = loop_now_us(s->loop), half = (ex->deadline_us - now) / 2;
		if (!pool_reachable(s->pool, NULL) || breaker_doubted(s->primary, now))
			return admit_key(ex, &r, &key);
		loop_timer_set(s->loop, &ex->deadline, now + (half < OLD_PATIENCE_US ? half : OLD_PATIENCE_US));
		break;
	}
	case KEY_MISSING: break;
	}
	return ask(ex, key.id);
}
