/* feed: what others committed, as it becomes visible (composure.feed_poll(), sql/migrations/0005_feed.sql).
 *
 * One poll each interval asks PostgreSQL for the changes that its snapshot of now sees and the one of the last poll did
 * not. Each committed change is told exactly once, never before other sessions can see it; what rolls back is never
 * told. Where that cannot be kept (PostgreSQL crashed, was replaced or restored, too much changed at once, polls came
 * too late) everything() stands for all that was changed until then.
 *
 * A host needs one: whoever holds the watch starts its feed, and stops it on losing the watch.
 */
#ifndef COMPOSURE_FEED_H
#define COMPOSURE_FEED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "base/status.h"
#include "base/view.h"
#include "db/pool.h"

struct feed;

enum {
	FEED_INTERVAL_US = 25000,     /* a change is told at most this long, and a poll's time, after its commit */
	FEED_RETENTION_US = 10000000, /* changes older than this are deleted, by whichever host comes first */
	FEED_CHANGES_MAX = 10000,     /* in one poll; more are everything() */
	FEED_KEYS_MAX = 128,          /* of one change; more are all of its resource */
};

struct feed_options {
	int64_t interval_us;  /* 0: FEED_INTERVAL_US */
	int64_t retention_us; /* 0: FEED_RETENTION_US. At least 2 s: it is told in seconds. The same on every host */
};

/* Views are valid during the call. A callback may call feed_stop(), and feed_start() after it, but not
 * feed_destroy(); none comes from within a function of feed's. */
struct feed_owner {
	/* Rows of a resource changed; keys is NULL when it may be any of them; `hard`: what was kept of them must not be used
	 * again. "@catalog": what expose() says; "@limits": what plans say; "@key": API keys, by their ids. */
	void (*changed)(void *context, struct view resource, const struct view *keys, unsigned n_keys, bool hard);

	/* Anything may have changed: catalog, keys, every row. `why` is for the log. Always the first that a started feed
	 * tells: what changed before its first poll is in nothing that is told later. Not `hard` where PostgreSQL was
	 * restarted in good order and the chain of changes goes on: those that are hard are told after it. */
	void (*everything)(void *context, struct view why, bool hard);

	/* A poll brought something, which is told next: all of it was in the primary's log before `lsn`. asked_us as in polled(). */
	void (*telling)(void *context, uint64_t lsn, int64_t asked_us);

	/* A poll succeeded that was asked for at asked_us (CLOCK_MONOTONIC): all that was committed before then has been
	 * told. `lsn`: so far the log had come before the poll looked; 0: the pool does not ask for that. Comes about each interval. */
	void (*polled)(void *context, int64_t asked_us, uint64_t lsn);

	/* A poll did not succeed; it is tried again, after twice the time each time, up to half a second. Nothing is lost:
	 * what changes meanwhile is told by the next poll that succeeds. `why` is for people. */
	void (*failed)(void *context, enum status, struct view why);

	void *context;
};

/* Stopped at first. NULL when malloc fails. Loop and pool outlive the feed; options and owner are copied. */
struct feed *feed_create(struct loop *, struct pool *, const struct feed_options *, const struct feed_owner *);

/* Stops it. NULL is fine. */
void feed_destroy(struct feed *);

/* Begins to poll, from nothing: the first that is told is everything(). No effect on one that is started. */
void feed_start(struct feed *);

/* Begins where another feed left off, by what its feed_chain() said: nothing is told twice or missed. Like feed_start() where that is
 * absent, is none, or is too old. */
void feed_resume(struct feed *, struct view chain);

/* Of what was told until now, once polled() has been called: where another feed may go on. Text, to be kept by whoever may follow;
 * valid until the next call. Absent while nothing was told, or when memory is short. */
struct view feed_chain(struct feed *);

/* For how long it has waited for an answer, since the last poll that succeeded; 0: it does not, or none did since it was started (the
 * first one in a new session takes its time). Microseconds. */
int64_t feed_waits_us(const struct feed *);

/* No call comes from now on; what is out at the pool is abandoned, and the snapshot forgotten. No effect on one that is
 * stopped. */
void feed_stop(struct feed *);

#endif
