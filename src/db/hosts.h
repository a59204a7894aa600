/* hosts: the servers that a connection string names, one after another.
 *
 * libpq goes through such a list by itself, but from one that is silent (frozen, or its packets are dropped) nobody calls
 * it away: its connect_timeout counts only where connecting blocks. So each server is asked by a PGconn of its own, for its
 * share of the time.
 */
#ifndef COMPOSURE_HOSTS_H
#define COMPOSURE_HOSTS_H

#include <libpq-fe.h>
#include <stdbool.h>

#include "base/attributes.h"

/* Lists by comma, as libpq takes them. Zeros are valid: no list, and nothing to free. */
struct hosts {
	char *host, *hostaddr, *port; /* owned; NULL: not given */
	unsigned n;                   /* servers; 0: the string is libpq's alone to read */
};

enum { HOST_MAX = 1024 };

struct host {
	char host[HOST_MAX], hostaddr[HOST_MAX], port[16];
};

/* The option of that name in what libpq made of a string; NULL: not given, or empty. */
const char *hosts_option(const PQconninfoOption *, const char *name);

/* What the string says, or libpq's own variables where it is silent. Lists that do not fit together are left to libpq, which
 * says what is wrong with them. False: out of memory. */
bool hosts_read(struct hosts *, const char *dsn) MUST_CHECK;

/* Takes lists of equal length, in copies. False: out of memory. */
bool hosts_set(struct hosts *, const char *host, const char *hostaddr, const char *port) MUST_CHECK;

void hosts_free(struct hosts *);

/* The server of that number, below n. False: one of its names is too long. */
bool hosts_at(const struct hosts *, unsigned, struct host *) MUST_CHECK;

#endif
