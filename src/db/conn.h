/* conn: one PGconn in pipeline mode, driven by the loop; never blocks.
 *
 * What is sent goes in segments: settings of role and request, statements, one Sync. A segment is a transaction of its
 * own, and its settings end with it, so any connection may serve anyone. Results are found by walking to each Sync,
 * never by counting: an error at commit comes as an extra result in front of it.
 *
 * The owner gets, for each segment in the order of sending: rows() for each statement that returned, then done()
 * exactly once. When the connection is lost every segment still out gets done(SEGMENT_LOST), then closed() is called.
 */
#ifndef COMPOSURE_CONN_H
#define COMPOSURE_CONN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "base/view.h"
#include "db/rows.h"
#include "db/statement.h"

struct conn;

struct conn_options {
	const char *dsn;           /* libpq's keyword string or URI; outlives the conn */
	bool positions;            /* each segment says how far its server's log has come: segment.lsn */
	bool pooled;               /* a transaction pooler stands between: no named statements, no start-up options */
	int64_t connect_timeout_us; /* of one attempt, name look-up included; where there are several servers, for all of them */
	unsigned *first;           /* of several, the one to begin with, as what worked last left it; may be NULL */
};

/* Who a segment runs as. Absent views become ''; an absent role is the connection's own. */
struct session {
	struct view role;
	struct view key_id, tenant, request_id;
	struct view search_path;
};

enum segment_end {
	SEGMENT_DONE,   /* its Sync came without an error: committed */
	SEGMENT_FAILED, /* PostgreSQL refused a statement or the commit: nothing of it took effect */
	SEGMENT_LOST,   /* the connection went before its Sync came: not known */
};

enum { SEGMENT_STATEMENTS_MAX = 8, SESSION_VALUE_MAX = 511 /* bytes of each of a session's values */ };

/* Lives from conn_begin() until done(); the memory is the owner's. */
struct segment {
	/* Returns true when it keeps the rows: rows_free() is then its own to call. */
	bool (*rows)(struct segment *, unsigned statement, struct rows *);
	/* `failed` is the statement at fault: 0.., or -1 for settings and commit. error is NULL for SEGMENT_DONE. */
	void (*done)(struct segment *, enum segment_end, int failed, const struct db_error *error);

	unsigned n_statements;
	uint64_t lsn; /* what was replayed, or on a primary written, before its first statement; 0: not asked for, or not known */
	/* conn's own */
	struct segment *next;
	int8_t command[2 + 2 * SEGMENT_STATEMENTS_MAX]; /* what each libpq command is: statement number or a mark */
	uint8_t n_commands, at, failed_command;
	bool failed, writes;
	int failed_at;
	struct db_error error;
	void *error_result; /* holds what error points into */
	int64_t head_since_us; /* when it became the oldest one out, or was sent as such */
};

struct conn_owner {
	void (*ready)(void *context, struct conn *);    /* may be sent to from now on */
	void (*progress)(void *context, struct conn *); /* results came: there may be room */
	void (*closed)(void *context, struct conn *, struct view why); /* not opened, or lost; why is for the log */
	void *context;
};

/* NULL when malloc fails. conn_destroy() closes without callbacks; segments still out are forgotten. */
struct conn *conn_create(struct loop *, const struct conn_options *, const struct conn_owner *);
void conn_destroy(struct conn *);

/* Begins to connect; ready() or closed() will follow, never from within. */
void conn_open(struct conn *);

/* Closes: segments get SEGMENT_LOST, then closed(). No effect on a closed one. */
void conn_close(struct conn *, struct view why);

bool conn_is_ready(const struct conn *);
bool conn_is_closed(const struct conn *);

/* A segment, built call by call and on its way with conn_sync(). A call that libpq refuses marks the connection, and
 * it is closed from the loop soon after: the segment then ends as SEGMENT_LOST. Not from within rows() or done(). */
void conn_begin(struct conn *, struct segment *);
void conn_settings(struct conn *, struct segment *, const struct session *, int64_t timeout_ms, bool read_only);
void conn_statement(struct conn *, struct segment *, const struct statement *, bool named);
/* A fixed text without parameters, never under a name. */
void conn_text(struct conn *, struct segment *, const char *sql);
/* Whatever code of the user's may have left in the session goes: settings, role, locks, LISTENs, cursors, temporary
 * tables, prepared statements. In a segment of its own, outside of a transaction. */
void conn_scrub(struct conn *, struct segment *);
void conn_sync(struct conn *, struct segment *);

/* Segments that are out, oldest first; NULL when none is. */
const struct segment *conn_head(const struct conn *);
unsigned conn_segments(const struct conn *);

/* It was, or is about to be, closed because its server refused to write. Until conn_open(). */
bool conn_took_no_writes(const struct conn *);

/* The server that it leads to, or led to, is silent. Where the string says what kind of server is wanted, and others are turned away,
 * whoever connects next begins with the one behind it. */
void conn_mistrust(struct conn *);

/* What the server says it is: 150018; 0 while not connected. */
int conn_server_version(const struct conn *);

#endif
