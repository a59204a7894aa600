/* problem: errors as application/problem+json (RFC 9457), the one way to make them.
 *
 * {"type":"about:blank","title":...,"status":404,"detail":...,"instance":"urn:...request id","code":"not_found"}
 * Never an SQL text, a password or a path of this machine: `detail` is written by us, or is a message that the
 * user's own code raised for the client.
 */
#ifndef COMPOSURE_PROBLEM_H
#define COMPOSURE_PROBLEM_H

#include "base/status.h"
#include "base/view.h"
#include "http/response.h"

/* Restarts the response as this problem: status, Content-Type, Cache-Control: no-store, body. An absent detail is
 * left out. request_id becomes the instance ("urn:uuid:..." or "urn:request:<id>"). Headers that go with a status
 * (Allow, Retry-After, WWW-Authenticate) are the caller's to add, after this. */
void problem_write(struct response *, enum status, struct view detail, struct view request_id);

/* 429, of the type quota-exceeded (draft-ietf-httpapi-ratelimit-headers); violated: the names of policies, each a JSON
 * string, by comma. */
void problem_quota(struct response *, struct view detail, struct view request_id, struct view violated);

/* The same under another HTTP status than the code's own. */
void problem_write_as(struct response *, enum status, int http, struct view detail, struct view request_id);

#endif
