/* watch: which process of the host follows the change feed, when it last heard of it, and the generations.
 *
 * A file of its own, whose layout never changes. The watch is a lease word {epoch, expiry}, taken by compare-and-swap
 * when it has expired, or when the byte that its holder locks is free: a holder that was killed is replaced at the next
 * look, one that was stopped after LEASE_MS. Two watchers for a moment are harmless: both only add to counters.
 */
#ifndef COMPOSURE_WATCH_H
#define COMPOSURE_WATCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/attributes.h"
#include "base/view.h"

enum { WATCH_TAGS = 1 << 20, WATCH_LEASE_MS = 500 };

/* In a new file the counters for every tag begin at random: what is remembered under another file's numbers, or under
 * those of a file that was cut short since, does not fit by chance. */

/* A tag's counters, in one word so that both are read at once: hard in the high half, soft in the low one. */
struct watch_counter {
	_Atomic uint64_t both;
};

struct watch;

/* Attaches to the file in the folder (as region_open() takes it), or falls back to private memory. NULL: not even
 * that. */
struct watch *watch_open(const char *folder, const char *instance);
void watch_close(struct watch *);
bool watch_is_shared(const struct watch *);
struct view watch_note(const struct watch *); /* why it is not; empty when it is */
bool watch_intact(const struct watch *);

/* What is there, for watch_describe(); nothing is changed. NULL and a line in why. */
struct watch *watch_view(const char *folder, const char *instance, char *why, int why_size);

/* Milliseconds of CLOCK_BOOTTIME: what the lease and the heartbeat count in. */
int64_t watch_clock_ms(void);

/* Takes or keeps the watch. True: it is ours for WATCH_LEASE_MS from now on; call again well before. */
bool watch_hold(struct watch *, int64_t now_ms) MUST_CHECK;
void watch_give_up(struct watch *);

/* The heartbeat: the time before the poll that succeeded last, written after its bumps; 0: never. */
void watch_beat(struct watch *, int64_t polled_ms);
int64_t watch_heartbeat_ms(const struct watch *);

/* Is the feed followed, if nothing was heard for so long? A change is told within the interval between two polls and this, or
 * nobody relies on it. */
enum { WATCH_LATE_US = 20000 };

static inline bool watch_is_followed(int64_t unheard_us, int64_t interval_us)
{
	return unheard_us <= interval_us + WATCH_LATE_US;
}

/* Where the change feed has come to, as text: for whoever has the watch next. Too long is none; torn is none. */
void watch_keep_chain(struct watch *, struct view);
struct view watch_chain(struct watch *); /* valid until the next call; absent: none */

/* The counters of tag n (taken modulo WATCH_TAGS), and those that count for every tag. */
struct watch_counter *watch_counter(const struct watch *, uint32_t n);
struct watch_counter *watch_counter_all(const struct watch *);

void watch_describe(const struct watch *, FILE *);

#endif
