/* watcher: keeps the worker's catalog current.
 *
 * Asks several times a second for composure.catalog_state(), a short text, and reads the catalog anew when it changed.
 * While PostgreSQL cannot be reached the catalog in hand stays.
 */
#ifndef COMPOSURE_WATCHER_H
#define COMPOSURE_WATCHER_H

#include "base/view.h"

struct exchange;
struct service;
struct watcher;

/* Begins at once. NULL: out of memory. The service outlives it. */
struct watcher *watcher_create(struct service *);
void watcher_destroy(struct watcher *);

/* Puts the exchange into the service's waiting list: it is resumed when the catalog was read, or could not be. */
void watcher_wait(struct watcher *, struct exchange *);
void watcher_unwait(struct watcher *, struct exchange *);

/* Reads the catalog now, whatever its state says. */
void watcher_reload(struct watcher *);

/* Why there is no catalog yet, in words for whoever runs the server; never empty. */
struct view watcher_why(const struct watcher *);

#endif
