#include "config.h"

#include "guard.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/siphash.h"
#include "limiter.h"
#include "partial.h"
#include "replicas.h"

enum { NAME_MAX_BYTES = 160, PLACES_LEAST = 2, PROBE_MORE_US = 500000 };

void guard_terms(const struct settings *set, struct breaker_terms *server, struct breaker_terms *resource)
{
	*resource = (struct breaker_terms){
		.window_us = set->breaker_window_ms * 1000,
		.calls_min = (unsigned)set->breaker_calls,
		.failure_percent = (unsigned)set->breaker_failures,
		.slow_percent = (unsigned)set->breaker_slow,
		.open_us = set->breaker_open_ms * 1000,
		.open_max_us = set->breaker_open_max_ms * 1000,
		.probes = (unsigned)set->breaker_probes,
	};
	*server = *resource;
	server->in_row = (unsigned)set->breaker_in_row;
	server->probes = 1; /* a connection that was made says all */
}

int64_t guard_retry_after(const struct service *s)
{
	int64_t wait_us;
	(void)breaker_state(s->primary, clock_us(), &wait_us);
	return wait_us > 1000000 ? (wait_us + 999999) / 1000000 : 1;
}

bool guard_may_try(const struct service *s)
{
	int64_t wait_us;
	return s->brief && (breaker_state(s->primary, clock_us(), &wait_us) == BREAKER_CLOSED || wait_us == 0);
}

/* What hangs together: a resource or a function, read or written. */
static struct view cell_name(struct view name, bool rpc, bool reads, char *room, size_t size)
{
	int n = snprintf(room, size, "%s%.*s %s", rpc ? "rpc/" : "", VIEW_ARG(name), reads ? "reads" : "writes");
	return view_make(room, n > 0 && (size_t)n < size ? (size_t)n : 0);
}

static struct view name_of(const struct exchange *ex, char *room, size_t size)
{
	return cell_name(ex->function ? ex->function->name : ex->resource->name, ex->function, exchange_reads(ex), room, size);
}

static uint64_t hash_of(struct view v)
{
	static const uint8_t key[SIPHASH_KEY_BYTES];
	uint8_t out[SIPHASH_BYTES];
	uint64_t hash;
	siphash_of(key, v, out);
	memcpy(&hash, out, sizeof hash);
	return hash ? hash : 1;
}

/* As the rate limit has it: clients behind one proxy are many, and those of one IPv6 network are one. */
static uint64_t who(const struct exchange *ex)
{
	return hash_of(limiter_owner(ex));
}

/* What the resource allows, whatever its client wants. */
static int64_t allowed_us(const struct exchange *ex)
{
	int64_t own = ex->function ? ex->function->deadline_us : ex->resource->deadline_us;
	return own ? own : ex->service->settings->deadline_ms * 1000;
}

/* Little's law: so many are answered within a deadline where a slow one has half of the connections. And never more than a
 * share of all that the workers take. */
static unsigned places(const struct exchange *ex)
{
	const struct service *s = ex->service;
	const struct settings *set = s->settings;
	int64_t workers = s->n_workers ? s->n_workers : 1;
	int64_t at_a_time = workers * (set->connections > 1 ? set->connections / 2 : 1);
	int64_t most = set->requests_max * workers * set->bulkhead_share / 100;
	int64_t usual = bulkhead_usual_us(ex->guard.breaker);
	int64_t in_time = usual ? at_a_time * allowed_us(ex) / usual : most;
	int64_t least = at_a_time * PLACES_LEAST;
	in_time = in_time > least ? in_time : least;
	int64_t n = in_time < most ? in_time : most;
	return n > 1 ? (unsigned)n : 1;
}

static enum next refuse(struct exchange *ex, enum status status, struct view detail, int64_t wait_us)
{
	ex->retry_after = wait_us > 1000000 ? (wait_us + 999999) / 1000000 : 1;
	return problem(ex, status, detail);
}

enum next guard(struct exchange *ex)
{
	struct service *s = ex->service;
	char room[NAME_MAX_BYTES];
	unsigned held;
	int64_t wait_us;
	if (ex->guarded)
		return NEXT;
	if (breaker_state(s->primary, 0, NULL) != BREAKER_CLOSED && !replicas_may_serve(ex) && !guard_may_try(s))
		return problem(ex, ERR_UNAVAILABLE, VIEW_NONE);
	struct view name = name_of(ex, room, sizeof room);
	struct breaker *b = breaker_find(s->breakers, name);
	ex->group = hash_of(name);
	ex->guard = (struct breaker_call){ .breaker = b };
	if (!breaker_pass(b, &s->resource_terms, clock_us(), allowed_us(ex) + PROBE_MORE_US, &ex->guard, &wait_us))
		return refuse(ex, ERR_CIRCUIT_OPEN, VIEW_NONE, wait_us);
	if (!bulkhead_enter(s->breakers, b, places(ex), &held)) {
		int64_t usual = bulkhead_usual_us(b), workers = s->n_workers ? s->n_workers : 1;
		(void)breaker_ended(&ex->guard, &s->resource_terms, OUTCOME_NONE, 0, clock_us());
		return refuse(ex, ERR_OVERLOADED, VIEW("As many requests to this resource are waiting as can be answered in time."),
		              usual * held / (workers * s->settings->connections));
	}
	ex->guarded = true;
	return NEXT;
}

static enum outcome outcome_of(const struct exchange *ex, int64_t took_us)
{
	const struct settings *set = ex->service->settings;
	int64_t slow_us = set->breaker_slow_ms ? set->breaker_slow_ms * 1000 : allowed_us(ex) / 2;
	bool answered = true;
	switch (ex->failed) {
	case ERR_DEADLINE:
	case ERR_OUTCOME_UNKNOWN:
		/* Not by the client's clock, nor where it had waited for long before it came here. */
		if (!ex->hurried && 2 * took_us >= allowed_us(ex))
			return OUTCOME_BAD;
		answered = false;
		break;
	case ERR_OVERLOADED:
		if (exchange_failed_of(ex, "53"))
			return OUTCOME_BAD;
		answered = ex->sqlstate[0];
		break;
	case ERR_DATABASE:
		if (exchange_failed_of(ex, "53") || exchange_failed_of(ex, "58") || exchange_failed_of(ex, "XX"))
			return OUTCOME_BAD;
		break;
	case ERR_UNAVAILABLE: return OUTCOME_NONE;
	case OK: answered = !ex->query_out; break;
	default: break;
	}
	return took_us >= slow_us ? OUTCOME_SLOW : answered ? OUTCOME_GOOD : OUTCOME_NONE;
}

static void end_call(const struct exchange *ex, const struct breaker_call *call, enum outcome outcome, struct view name)
{
	const char *what = exchange_reads(ex) ? "(reads)" : "(writes)";
	switch (breaker_ended(call, &ex->service->resource_terms, outcome, who(ex), clock_us())) {
	case BREAKER_OPENS: log_warn("the circuit breaker of %.*s %s opens", VIEW_ARG(name), what); break;
	case BREAKER_CLOSES: log_info("the circuit breaker of %.*s %s closes", VIEW_ARG(name), what); break;
	case BREAKER_STAYS: break;
	}
}

/* While the server as a whole is silent nothing is learnt of what is asked of it. */
static enum outcome learnt(const struct exchange *ex, enum outcome outcome)
{
	return replicas_server_answers(ex) ? outcome : OUTCOME_NONE;
}

void guard_end(struct exchange *ex, bool answered)
{
	if (!ex->guarded)
		return;
	ex->guarded = false;
	/* How long a partial answer took is its parts' doing; that it came is its own. */
	bool partial = ex->failed == OK && partial_lacks(ex);
	int64_t took = clock_us() - ex->guard.since_us;
	enum outcome of = !partial ? outcome_of(ex, took) : ex->query_done ? OUTCOME_GOOD : OUTCOME_NONE;
	enum outcome outcome = learnt(ex, answered ? of : OUTCOME_NONE);
	if (outcome != OUTCOME_NONE && !partial)
		bulkhead_took(ex->guard.breaker, took);
	end_call(ex, &ex->guard, outcome, ex->function ? ex->function->name : ex->resource->name);
	bulkhead_leave(ex->service->breakers, ex->guard.breaker);
}

bool guard_part(struct exchange *ex, const struct resource *r, struct breaker_call *call)
{
	struct service *s = ex->service;
	char room[NAME_MAX_BYTES];
	int64_t wait_us;
	struct breaker *b = breaker_find(s->breakers, cell_name(r->name, false, true, room, sizeof room));
	return breaker_pass(b, &s->resource_terms, clock_us(), allowed_us(ex) + PROBE_MORE_US, call, &wait_us);
}

/* Its share of the time is less than the deadline that the resource itself has: over it, it is slow. */
void guard_part_end(const struct exchange *ex, const struct resource *r, const struct breaker_call *call, enum status status)
{
	enum outcome outcome = status == OK ? OUTCOME_GOOD : status == ERR_DEADLINE && !ex->hurried ? OUTCOME_SLOW : OUTCOME_NONE;
	end_call(ex, call, learnt(ex, outcome), r->name);
}

void guard_round(struct service *s)
{
	unsigned n = 0;
	for (unsigned i = 0; i < REGION_SLOTS; i++)
		n += atomic_load_explicit(&region_slot_at(s->region, i)->pid, memory_order_relaxed) != 0;
	s->n_workers = n;
}
