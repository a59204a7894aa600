/* watcher: keeps what the host knows of the database current.
 *
 * Every worker has one; of all on a host, the one that holds the watch (shm/watch.h) follows the change feed: it adds
 * to generations, publishes the catalog in the region and frees what dead workers held. The others look, and take the
 * watch when its holder is gone. While PostgreSQL cannot be reached, what is known stays.
 */
#ifndef COMPOSURE_WATCHER_H
#define COMPOSURE_WATCHER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/view.h"

struct exchange;
struct service;
struct watcher;

/* Begins at once. NULL: out of memory. The service outlives it. */
struct watcher *watcher_create(struct service *);
void watcher_destroy(struct watcher *);

/* Makes service->catalog what was published last, if it is not already. One load when nothing is new. */
void watcher_catalog(struct watcher *);

/* Is what the host knows confirmed by the feed, BLIND_MS ago at the most? */
bool watcher_sees(const struct watcher *);

/* Puts the exchange into the service's waiting list: it is resumed when a catalog was published, or cannot be had. */
void watcher_wait(struct watcher *, struct exchange *);
void watcher_unwait(struct watcher *, struct exchange *);

/* Asks for the catalog now: this worker's knowledge proved old. It is read and published whoever has the watch. Returns which
 * question will tell: one that is out already may be older than what proved it. */
uint32_t watcher_reload(struct watcher *);

/* Is that one answered, or failed? */
bool watcher_reloaded(const struct watcher *, uint32_t question);

/* Why there is no catalog yet, in words for whoever runs the server; never empty. */
struct view watcher_why(const struct watcher *);

#endif
