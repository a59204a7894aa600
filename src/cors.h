/* cors: what browsers are told about calls from other origins (Fetch Standard, "CORS protocol"). Never with
 * credentials: an API key is sent by the page's own code. */
#ifndef COMPOSURE_CORS_H
#define COMPOSURE_CORS_H

#include "exchange.h"

/* For every answer, problems too. */
void cors_headers(struct exchange *);

/* For the answer to OPTIONS: which of `methods` ("GET, HEAD, OPTIONS") and which headers may be sent. */
void cors_preflight(struct exchange *, struct view methods);

#endif
