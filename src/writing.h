/* writing: what a request that writes has on its way (writing.c); exchange.h has a pointer to it. */
#ifndef COMPOSURE_WRITING_H
#define COMPOSURE_WRITING_H

#include "exchange.h"
#include "query/call.h"
#include "query/filter.h"
#include "query/idempotency.h"
#include "query/said.h"
#include "query/write.h"

enum preferred { RETURN_ROWS, RETURN_MINIMAL, RETURN_HEADERS };

/* What the step is called again for. */
enum happening { HAPPENED_NOTHING, HAPPENED_READY, HAPPENED_COMMIT, HAPPENED_FAILURE, HAPPENED_PAUSE };

/* Of a transaction; each with a statement of its own. */
enum stage {
	STAGE_WRITE,
	STAGE_LOCK,   /* the row is being read, to be compared */
	STAGE_INSERT, /* nothing was there to replace */
	STAGES,
	STAGE_COMMIT,
	STAGE_REPLAY, /* the recorded answer is being read */
};

/* In the exchange's arena. */
struct writing {
	enum write_kind kind;
	enum document document;
	struct params params;
	struct view columns, on_conflict; /* parameters; absent: not given */
	struct bounds bounds;
	struct filters filters;
	bool filtered;            /* a list is written to, in the rows that its filters take in */
	struct write rows;
	struct call call;
	struct once once;
	enum preferred prefer;
	bool applied_return;      /* the client said which */
	bool readable;            /* the role may read what it writes */
	struct view if_match;     /* absent: none */
	bool must_be_new;         /* If-None-Match: * */
	bool answered;            /* PostgreSQL makes the answer: with a key, and yet one trip */

	enum stage stage;
	struct statement begin, record, statement[STAGES];
	enum happening happening;
	bool began, sent;         /* of this attempt: its first trip is out; there was one */
	bool unknown;             /* a commit was sent whose answer never came */
	unsigned tries;
	int64_t ask_again_us;
	int64_t replayed_us;      /* when the recorded answer was first read */
	int failed_mark;
	struct view error_column;
	struct rows *said;
};

#endif
