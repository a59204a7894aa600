/* flight: of all requests on a host that miss one answer, one asks PostgreSQL and the others wait for what it keeps.
 *
 * A flight is a word in the shared region that names the asking worker and what it asks for; besides it stand the
 * generations of what the answer depends on, and when it was asked for. Who finds other generations takes the word over: a
 * client that has just written never waits for a question older than its write. A flight is void when its worker is dead
 * or stopped. Nothing is waited for here: the caller looks again.
 *
 * Beside them is when each identity wrote what: it is never given an answer that is known to be older.
 */
#ifndef COMPOSURE_FLIGHT_H
#define COMPOSURE_FLIGHT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attributes.h"
#include "shm/region.h"

struct flights;

struct flight_ref {
	uint32_t place;
	uint64_t word;
	int64_t asked_us; /* when whoever leads it asked, CLOCK_MONOTONIC */
};

enum flight_role {
	FLIGHT_LEAD,  /* ours, until flight_end(): ask */
	FLIGHT_JOIN,  /* somebody else's: wait while flight_goes_on() */
	FLIGHT_LATER, /* it begins at this moment: try again in a millisecond */
	FLIGHT_ALONE, /* its place is another answer's: ask, and wait for nobody */
};

/* NULL: out of memory. The region outlives it. */
struct flights *flights_open(struct region *);
void flights_close(struct flights *);

/* Leads or joins the question for what `hash` names. `generations`: a digest of those it depends on, as of now; a flight that
 * was asked before join_from_us is not joined. */
enum flight_role flight_take(struct flights *, uint64_t hash, uint64_t generations, int64_t now_us, int64_t join_from_us,
                             struct flight_ref *) MUST_CHECK;

bool flight_goes_on(struct flights *, const struct flight_ref *, int64_t now_us);

/* Does anybody ask for it? */
bool flight_is_taken(struct flights *, uint64_t hash, int64_t now_us);

/* Ours is over. `for_one`: what came of it cannot be kept, so it is no use to wait for another. */
void flight_end(struct flights *, const struct flight_ref *, bool for_one);

/* Did one that is over say that? A guess: the place may be another's since. */
bool flight_was_for_one(struct flights *, const struct flight_ref *);

/* What an identity wrote last, and when (0: not lately): `which` is a hash of both. 57,344 of them are known; it may seem later where
 * there were more since, never earlier. */
void flights_wrote(struct flights *, uint64_t which, int64_t now_us);
int64_t flights_wrote_us(const struct flights *, uint64_t which);

#endif
