/* limits: the tokens that this host has leased, in the shared region, and who may spend one.
 *
 * The buckets themselves are PostgreSQL's (composure.lease()); here lies what was leased of each and is not yet spent, and
 * what is known of the rest. An owner is an API key's id, or "address/<address>" of a client without one. To spend is a
 * compare-and-swap; nothing here waits, and nothing asks PostgreSQL: limits_take() says when somebody should.
 *
 * While PostgreSQL cannot be asked, a host goes on by itself: with what it has, then at its share (one host's of so many)
 * of what was left in the bucket and of the rate, by GCRA (ITU-T I.371) for each window. It tells what it spent so when
 * it can ask again. Failed authentication is counted by address, on this host alone, in a table of its own.
 *
 * Times are microseconds of CLOCK_MONOTONIC, the same for all processes of a host.
 */
#ifndef COMPOSURE_LIMITS_H
#define COMPOSURE_LIMITS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/view.h"
#include "shm/region.h"

enum {
	LIMIT_WINDOWS_MAX = 4,
	LIMIT_OWNER_MAX = 64,   /* bytes, with a NUL */
	LIMIT_POLICY_MAX = 320, /* bytes, with a NUL */
	LIMIT_EPOCH_MAX = 40,
	LIMIT_HOST_CHARS = 16,
};

/* What lease() says of a bucket. */
struct limit_terms {
	uint64_t n;                    /* windows; 0: no limit */
	char policy[LIMIT_POLICY_MAX]; /* RateLimit-Policy, NUL-terminated */
	double rate_us[LIMIT_WINDOWS_MAX], burst[LIMIT_WINDOWS_MAX], left[LIMIT_WINDOWS_MAX]; /* tokens, a microsecond */
	int64_t at_us;                 /* when `left` was left, for everybody */
};

struct limits;
struct bucket;

/* Where a bucket is, for a while: it may be another's by the time it is used, which is noticed. */
struct bucket_ref {
	struct bucket *bucket;
	uint64_t hash;
};

/* NULL: out of memory. The region outlives it. */
struct limits *limits_open(struct region *);
void limits_close(struct limits *);

/* The host's name for lease(): made once for each region. */
struct view limits_host(const struct limits *);

/* Finds or makes the owner's bucket. False: somebody else is making one there at this moment. */
bool limits_find(struct limits *, struct view owner, int64_t now_us, struct bucket_ref *) MUST_CHECK;

enum take {
	TAKE_ADMITTED, /* the tokens are spent */
	TAKE_REFUSED,  /* there is none, for wait_us */
	TAKE_ASK,      /* PostgreSQL may have more */
};

struct taken {
	int64_t wait_us;   /* of TAKE_REFUSED */
	unsigned violated; /* the windows that stand in the way, a bit each; 0: of an owner of whom nothing is known */
	bool low;          /* of TAKE_ADMITTED: time to lease more */
};

/* generation: of all that the terms depend on; terms of another one count no more. */
enum take limits_take(struct limits *, const struct bucket_ref *, unsigned cost, uint32_t generation, int64_t now_us,
                      struct taken *) MUST_CHECK;

/* The same without PostgreSQL: ADMITTED or REFUSED. */
enum take limits_take_alone(struct limits *, const struct bucket_ref *, unsigned cost, int64_t now_us, struct taken *) MUST_CHECK;

/* --- asking --- */

/* What to tell lease(), taken out of the bucket. */
struct limit_ask {
	struct bucket_ref ref;
	char owner[LIMIT_OWNER_MAX];
	uint32_t generation;
	uint32_t wanted, least;
	uint32_t returned, debt, admitted, refused;
};

/* Whether it is this process that is asking. */
bool limits_asking(const struct limits *, const struct bucket_ref *);

/* True: this process is to ask, and says what came of it with limits_leased() or limits_not_leased(). False: another
 * one is asking. cost 0: not for a request that waits. */
bool limits_ask(struct limits *, const struct bucket_ref *, unsigned cost, uint32_t generation, int64_t now_us,
                struct limit_ask *) MUST_CHECK;

/* At the moment when the question goes out: what was counted until now. */
void limits_count(struct limits *, struct limit_ask *);

/* granted may be 0. More is not to be asked for before wait_us, because of the windows in `violated`; if nothing was
 * granted, that is true of as many tokens as were the least. wait_us -1: so many there will never be. */
void limits_leased(struct limits *, const struct limit_ask *, uint32_t granted, int64_t wait_us, unsigned violated,
                   const struct limit_terms *, int64_t now_us);

/* unknown: it may have been heard nevertheless, so that what was given back is lost rather than there twice. */
void limits_not_leased(struct limits *, const struct limit_ask *, bool unknown);

/* Buckets that have something to tell: unused tokens to give back, counts. To be called until false, with *at at 0
 * first. One process of a host does this, now and then. */
bool limits_idle(struct limits *, unsigned *at, int64_t now_us, struct limit_ask *) MUST_CHECK;

/* --- the way to PostgreSQL, of all workers of the host --- */

/* May be asked now. After a failure one of them may, each time that the pause is over. */
bool limits_may_ask(struct limits *, int64_t now_us) MUST_CHECK;
void limits_reached(struct limits *, struct view epoch, unsigned hosts);
void limits_failed(struct limits *, int64_t now_us);

/* The feed's epoch that lease() said last; empty: none. out has LIMIT_EPOCH_MAX bytes. */
void limits_epoch(const struct limits *, char *out);

/* --- for headers --- */

/* False: nothing is known of it, or it has no limit. */
bool limits_terms(const struct limits *, const struct bucket_ref *, struct limit_terms *) MUST_CHECK;
/* Tokens that this host may count on in a window of the terms. */
double limits_left(const struct bucket_ref *, const struct limit_terms *, unsigned window, int64_t now_us);

/* --- failed authentication --- */

/* Counts one of the address (its bytes): 0, or for how long there were too many of `per_minute`. */
int64_t limits_failure(struct limits *, struct view address, int64_t per_minute, int64_t now_us);

/* --- after deaths --- */

/* Frees what dead workers held. Returns how much. */
unsigned limits_repair(struct limits *);
void limits_describe(const struct limits *, FILE *);

#endif
