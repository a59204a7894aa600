/* order: every lock of the region, in taking order. Who holds one may try those below it and none above or beside it;
 * none is held across a call to PostgreSQL, to the network or to the file system. Each is tried, never waited for.
 *
 *   byte 0 of a file   attaching (mapping.c); waited for, at start-up only, for a second at most
 *   catalog.lock       the copy of the catalog that is not current (published.c)
 *   store.shard[n]     a shard of the store: entries, queues, free blocks (cache/store.c)
 *   keys.set[n].lock   a set of the key cache and its version (gate/keycache.c)
 *   limits.set[n]      making a bucket in a set (gate/limits.c)
 *   bucket.lock        a bucket's terms and their version (gate/limits.c)
 *
 * Words without a lock: slot counters, generations, the watch lease and the heartbeat are single atomics;
 * so are a bucket's tokens and counts, and the words that say who is asking for it or for an answer (cache/flight.c).
 * Positions in the log (progress.c) are, too.
 */
#ifndef COMPOSURE_ORDER_H
#define COMPOSURE_ORDER_H
#endif
