/* idempotency: the key of a write, what it stands for, and the statements that look it up and record its answer.
 *
 * The statements run in one transaction with the write (doc/idempotency.md says why each is as it is): begin, the write,
 * the caller's role given back, record, COMMIT. begin raises the SQLSTATEs below, and then the rest does not run. Where PostgreSQL makes the answer
 * (insert_answered()) all of it is one trip, else two.
 */
#ifndef COMPOSURE_IDEMPOTENCY_H
#define COMPOSURE_IDEMPOTENCY_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/sha256.h"
#include "base/status.h"
#include "db/statement.h"
#include "http/params.h"
#include "http/request.h"

/* sql/migrations/0007_writing.sql, idem_begin() */
#define IDEMPOTENCY_RECORDED "ZC001"
#define IDEMPOTENCY_IN_PROGRESS "ZC002"
#define IDEMPOTENCY_MISMATCH "ZC003"
#define IDEMPOTENCY_OTHER_PRINCIPAL "ZC004"
#define IDEMPOTENCY_TOO_LARGE "ZC006"

/* What a write is to be done once for. */
struct once {
	struct view identity, key; /* key: absent when the request has none */
	struct view role, tenant;  /* that the identity has now */
	struct view fingerprint;   /* of the request: PostgreSQL's text of a bytea */
};

/* The key in the header: `"..."` (RFC 8941, a string) or bare, 1 to 255 printable characters; both forms of one key are
 * the same. ERR_IDEMPOTENCY_KEY_INVALID and *detail otherwise. */
enum status idempotency_key(struct arena *, struct view header, struct view *key, struct view *detail) MUST_CHECK;

/* What makes two requests the same: method, path, parameters as they were decoded, the headers that change what a write
 * does, and the bytes of the body; each part with its length, so that nothing can move from one to the next. Absent:
 * the arena is full. */
struct view idempotency_fingerprint(struct arena *, const struct request *, const struct params *, struct view body) MUST_CHECK;

/* False: the arena is full. */
bool idempotency_begin(struct statement *, struct arena *, const struct once *) MUST_CHECK;
bool idempotency_record(struct statement *, struct arena *, const struct once *, int http, struct view headers,
                        struct view body) MUST_CHECK;
/* Records what insert_answered() made in this transaction: `headers` and the Location behind them, with_tag: and an ETag,
 * which the replay makes. ZC006 when its body has more than bytes_max. */
bool idempotency_record_made(struct statement *, struct arena *, const struct once *, int http, struct view headers,
                             bool with_tag, int64_t bytes_max) MUST_CHECK;
/* The recorded lines without the ETag that the replay is to make; *with_tag: whether there is one. */
struct view idempotency_headers(struct view recorded, bool *with_tag);
/* One row of status, headers and body, or none. */
bool idempotency_answer(struct statement *, struct arena *, const struct once *) MUST_CHECK;

#endif
