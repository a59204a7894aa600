/* worker: a process that answers, in its two forms. */
#ifndef COMPOSURE_WORKER_H
#define COMPOSURE_WORKER_H

#include "base/settings.h"

/* Serves FastCGI connections of a listening socket until SIGTERM or SIGINT, then finishes what is in flight. The
 * process's exit status. */
int worker_run(const struct settings *, int listening_fd);

/* Answers one request of plain CGI (environ, fd 0, fd 1). The process's exit status. */
int worker_cgi(const struct settings *);

/* Connects, reads the catalog, prints one line that says how it went. The process's exit status. */
int worker_check(const struct settings *);

/* Prints what is in the memory that the workers of this host share, and changes nothing in it. The process's exit
 * status. */
int worker_region(const struct settings *);

#endif
