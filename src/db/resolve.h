/* resolve: host names of a connection string to addresses, in a helper thread, because getaddrinfo() blocks for
 * seconds when a name server is away (2 s seen) and libpq would call it inside the loop.
 *
 * The result is libpq's own form: `host` and `hostaddr` lists of equal length; a name with several addresses comes
 * several times. Sockets (a host that begins with '/' or '@') and addresses need no look-up.
 */
#ifndef COMPOSURE_RESOLVE_H
#define COMPOSURE_RESOLVE_H

#include <stdbool.h>

#include "base/loop.h"

struct resolve;

/* True when one of the comma-separated hosts needs a look-up. NULL or "" (libpq's default socket) needs none. */
bool resolve_needed(const char *hosts);

/* Looks the hosts up and calls done(context, host, hostaddr, port) in the loop, with lists that are valid during the
 * call; all NULL when not one name has an address or no thread could be made. Never calls back from within. NULL when
 * nothing could be started. After resolve_cancel() there is no call, and the memory goes when the thread is through. */
struct resolve *resolve_start(struct loop *, const char *hosts, const char *ports,
                              void (*done)(void *context, const char *host, const char *hostaddr, const char *port),
                              void *context);
void resolve_cancel(struct resolve *);

#endif
