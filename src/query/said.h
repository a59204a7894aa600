/* said: what code of the user's says about the answer: SQLSTATE PTxyz, and the settings response.status and
 * response.headers. */
#ifndef COMPOSURE_SAID_H
#define COMPOSURE_SAID_H

#include "base/arena.h"
#include "base/view.h"
#include "http/response.h"

/* The status that SQLSTATE PT400 to PT599 means; 0 for all others. */
int said_status(const char *sqlstate);

/* Sets the status (200 to 599) and adds headers: a JSON array of objects, or one object, of names and texts. What is
 * malformed or not allowed is left out, with a line in the log. `allowed`: names by comma, beside the usual ones; never
 * those that the web server or the connection would act upon. */
void said_take(struct response *, struct arena *, struct view status, struct view headers, struct view allowed);

#endif
