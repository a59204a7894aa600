/* breaker: circuit breakers and bulkheads, shared by all workers of a host.
 *
 * A cell is something that may fail or be slow by itself: PostgreSQL's primary, a replica, the reads of a resource, its
 * writes. It counts calls, failures and slow calls in a window of ten turns (Hystrix), and opens when there were enough
 * calls and too large a share of them failed or was slow (resilience4j), if too large a share of those who called was hit,
 * too: one client with an expensive question does not open it for all. Where so many fail in a row that nothing else need be
 * known, it opens at once (Envoy's consecutive errors). Open it lets nobody through for a time that doubles with each
 * opening in a row, half of it by chance ("equal jitter": Brooker, "Exponential Backoff And Jitter", 2015). Then it is half
 * open: a few probes are let through; when all succeed it closes, when one fails, or they do not end in time, it opens again
 * (Nygard, "Release It!", 2007). So what a dead worker took along holds nobody up.
 *
 * A bulkhead's places are counted in the slot of the worker that has them, and are void when it is dead.
 *
 * All of it is single atomic words: nothing here waits or locks. Times are microseconds of CLOCK_MONOTONIC.
 */
#ifndef COMPOSURE_BREAKER_H
#define COMPOSURE_BREAKER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/attributes.h"
#include "base/view.h"

struct region;
struct breakers;
struct breaker;

struct breaker_terms {
	int64_t window_us;
	unsigned calls_min;       /* in the window, before a share says anything */
	unsigned failure_percent; /* of calls that open it */
	unsigned slow_percent;
	unsigned in_row;          /* failures without a success in between that open it; 0: any number */
	int64_t open_us, open_max_us; /* how long it stays open: the first time, and at most */
	unsigned probes;          /* at a time, and that have to succeed; at most 15 */
};

/* NULL: out of memory. The region outlives it. Frees what a dead worker left in our slot. */
struct breakers *breakers_open(struct region *);
void breakers_close(struct breakers *);

/* The cell called so, made where there is none. NULL when there is no room, which is logged once: all is let through then, and
 * nothing counted. It stays valid as long as the region. */
struct breaker *breaker_find(struct breakers *, struct view name);

/* A call that was let through; ended exactly once. */
struct breaker_call {
	struct breaker *breaker;
	int64_t since_us;
	uint8_t serial; /* of the half-open time that it is a probe of */
	bool probe;
};

/* May it be called now? probe_us: after so long a probe counts as failed. False: not for *wait_us. A NULL breaker may always. */
bool breaker_pass(struct breaker *, const struct breaker_terms *, int64_t now_us, int64_t probe_us, struct breaker_call *,
                  int64_t *wait_us) MUST_CHECK;

enum outcome {
	OUTCOME_NONE, /* it says nothing of what was called */
	OUTCOME_GOOD,
	OUTCOME_SLOW, /* an answer, and late */
	OUTCOME_BAD,
};

enum breaker_turn {
	BREAKER_STAYS,
	BREAKER_OPENS,
	BREAKER_CLOSES,
};

/* `who` called: any hash. What became of the breaker by that, told to one caller alone. */
enum breaker_turn breaker_ended(const struct breaker_call *, const struct breaker_terms *, enum outcome, uint64_t who, int64_t now_us);

/* Opens it whatever was counted; false when it is open already. And closes it: it is known to be well. */
bool breaker_trip(struct breaker *, const struct breaker_terms *, int64_t now_us);
void breaker_heal(struct breaker *);

/* How often it has opened, ever. */
uint64_t breaker_openings(const struct breaker *);

/* Failures are no longer in a row: something else of it succeeded. */
void breaker_well(struct breaker *);

/* It does not answer at this moment, which is too short to open it: told until until_us, unless it is told again. */
void breaker_doubt(struct breaker *, int64_t until_us);
bool breaker_doubted(const struct breaker *, int64_t now_us);

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };

/* wait_us (may be NULL): until it lets somebody through, when it is open. */
enum breaker_state breaker_state(const struct breaker *, int64_t now_us, int64_t *wait_us);

/* --- bulkheads --- */

/* Takes one of `most` places. False: all of them are taken by the living; *held has how many. */
bool bulkhead_enter(struct breakers *, struct breaker *, unsigned most, unsigned *held) MUST_CHECK;
void bulkhead_leave(struct breakers *, struct breaker *);

/* How long a call takes, of late; 0: not known. */
void bulkhead_took(struct breaker *, int64_t us);
int64_t bulkhead_usual_us(const struct breaker *);

/* --- after deaths, and for people --- */

/* With what each has counted in the window. */
void breakers_describe(struct breakers *, const struct breaker_terms *, int64_t now_us, FILE *);

#endif
