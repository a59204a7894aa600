/* exchange: one request's life in a worker, and what all of a worker's requests share.
 *
 * An exchange is made when a request arrives and goes its way step by step (pipeline.c); its memory is its arena's and
 * its few buffers', which the next exchange uses again. Whoever carries the bytes (worker.c for FastCGI, main.c for
 * plain CGI) feeds it and is told by finished() when the response is whole.
 */
#ifndef COMPOSURE_EXCHANGE_H
#define COMPOSURE_EXCHANGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/loop.h"
#include "base/settings.h"
#include "base/status.h"
#include "catalog/catalog.h"
#include "db/pool.h"
#include "db/tx.h"
#include "gate/keycache.h"
#include "gate/keymemo.h"
#include "gate/limits.h"
#include "http/request.h"
#include "http/response.h"
#include "query/body.h"
#include "query/etag.h"
#include "query/page.h"
#include "query/read.h"
#include "shm/breaker.h"
#include "shm/published.h"
#include "shm/region.h"
#include "shm/watch.h"
#include "telemetry/accesslog.h"
#include "telemetry/trace.h"

struct watcher;
struct limiter;
struct recaller;
struct replicas;
struct replica;
struct progress;
struct recall;
struct store;
struct flights;
struct exchange;

struct service {
	struct loop *loop;
	const struct settings *settings;
	struct pool *pool;
	struct watcher *watcher;     /* keeps `catalog` current */
	struct catalog *catalog;     /* NULL until it was read once */
	struct region *region;       /* what the workers of this host share */
	struct watch *watch;
	struct published *published; /* the catalog's text, in the region */
	struct keycache *keys;       /* in the region, too */
	struct keymemo *memo;
	struct limits *limits;       /* in the region */
	struct limiter *limiter;
	struct store *store;         /* in the region: answers, */
	struct flights *flights;     /* and who asks for one */
	struct recaller *recaller;
	struct progress *progress;   /* in the region */
	struct replicas *replicas;
	struct breakers *breakers;   /* in the region */
	struct breaker *primary;     /* of PostgreSQL itself */
	struct breaker_terms server_terms, resource_terms;
	unsigned n_workers;          /* of this host, a second ago */
	int64_t told_clock_us;       /* when the log was last told that the web server's clock may be wrong; 0: never */
	struct accesslog *log;
	struct exchange *spare;      /* ended ones, kept for the next */
	struct exchange *waiting;    /* for the catalog */
	unsigned n_exchanges;        /* running */
	uint64_t catalog_serial;     /* which publication `catalog` is */
	bool brief;                  /* plain CGI: nobody will tell us of changes, so what is known is checked first */
	void (*orphaned)(struct service *); /* the shared files are gone from their place; may be NULL */
};

/* Who asks. Views lie in the exchange's arena. */
struct principal {
	bool has_key;
	struct view key_id; /* absent without a key */
	struct view role;   /* absent: the worker's own */
	struct view tenant; /* absent: none */
};

/* How many rows a list has in all: as Prefer says, if the resource allows it. Counted before the page is read. */
struct total {
	enum { COUNT_NONE, COUNT_EXACT, COUNT_PLANNED, COUNT_ESTIMATED } how;
	bool known, planning; /* planning: EXPLAIN is out */
	int64_t n;
};

enum operation { OP_NONE, OP_HEALTH, OP_READY, OP_OPTIONS, OP_PAGE, OP_ITEM, OP_WRITE };

enum write_kind { WRITE_INSERT, WRITE_UPDATE, WRITE_REPLACE, WRITE_DELETE, WRITE_CALL };

/* What a step says: go on, call me again when something has happened, call me again after the others had their turn,
 * or the response is whole. */
enum next { NEXT, WAIT, YIELD, DONE };

struct exchange {
	struct service *service;
	struct exchange *link;       /* in spare or waiting */
	bool in_waiting;
	struct arena *arena;
	struct request request;      /* fed by the carrier before exchange_start() */
	struct response response;
	struct buf body;
	bool body_done;

	unsigned step;
	bool ended;
	int64_t started_us, deadline_us; /* started_us: when it came to the web server, as far as that is known */
	int64_t timeout_us;          /* what the client waits for; 0: it did not say */
	bool hurried;                /* that is less than the resource allows */
	struct timer deadline;
	struct task resume;

	char request_id[REQUEST_ID_CHARS];
	enum status failed;          /* OK, or why the answer is a problem: for the log */
	struct principal principal;
	uint64_t key_generation;     /* of the key that PostgreSQL is being asked for */
	struct catalog *catalog;     /* a reference */
	const struct resource *resource; /* or a function */
	const struct function *function;
	enum operation operation;
	enum write_kind write_kind;  /* of OP_WRITE */
	struct view *key;            /* of an item: a value for each key column */
	/* The rate limit it is under: whose bucket, and what came of it. */
	struct exchange *limiter_link, **limiter_at;
	struct bucket_ref bucket;    /* of a `limited` one */
	int64_t limited_since_us, retry_after; /* retry_after: seconds, of a refusal; 0: not known */
	unsigned violated;
	bool in_limiter, limited, admitted;
	bool held;                   /* the answer is there, and is sent if it is let through */

	/* Past its breaker and in its bulkhead. */
	struct breaker_call guard;
	bool guarded;
	uint64_t group;              /* a hash of what it asks for; 0: nothing in particular */

	bool waited;                 /* for the catalog, once */
	bool reloaded;               /* the catalog was read anew for this request once, */
	uint32_t reload;             /* by this question of the watcher's */

	/* The one query that is out, and what came of it. Its error is copied: a result's own is gone by then. */
	struct query query;
	struct statement statement;
	struct rows *rows;
	bool query_out, query_done;
	enum status query_status;
	char sqlstate[6];
	struct view error_message;
	struct view error_value;     /* of the parameter that could not be read; absent: not known */

	/* Which server is asked, and what the client is to read at least (replicas.h). */
	struct pool *pool;           /* of the query that is out */
	struct replica *replica;     /* whose it is; NULL: the primary's */
	unsigned replicas_tried;     /* a bit for each that failed */
	bool of_primary;             /* no replica will do */
	bool from_replica;           /* some of the answer is one's, which had replayed ... */
	uint64_t replica_lsn;        /* ... so much at least */
	uint64_t seen_lsn, least_lsn; /* what the client has seen, as it says itself; what it is to read */
	uint64_t written_lsn;        /* before which its own write was committed; 0: none, or not known */

	enum format format;          /* of the answer, by Accept */
	struct shape shape;
	struct page page;
	struct page_writer writer;
	bool writing;
	struct recall *recall;       /* what it has to do with the store (recall.c), in the arena; NULL: nothing */
	struct exchange *next_renewing;
	bool renews;                 /* a request of our own, to make an answer anew that was served stale: */
	uint64_t renews_hash;        /* this one */
	bool prepared;               /* page and shape are there */
	unsigned n_etag;             /* 0: none was made */
	char etag[ETAG_CHARS];
	bool for_all;                /* the answer is the same for everybody, and shared caches may keep it */
	bool runs_code;              /* its statements may run code of the user's */
	struct total total;          /* of a list, where it is asked for */

	struct partial *partial;     /* of a read whose answer may be partial (partial.h), in the arena; NULL: it may not */
	int64_t query_until_us;      /* when its next statement is to be done; 0: at the deadline */
	struct writing *write;       /* what a write has on its way (writing.h), in the arena */
	struct tx *tx;               /* its transaction, while there is one */
	struct timer again;          /* when it is tried again */

	void (*finished)(struct exchange *); /* the carrier's */
	void *carrier;
};

static inline bool exchange_reads(const struct exchange *ex)
{
	return ex->request.method == METHOD_GET || ex->request.method == METHOD_HEAD;
}

/* A fresh exchange, or NULL when memory is short. The carrier owns it until exchange_release(). */
struct exchange *exchange_create(struct service *);

/* Goes its way as far as it gets. finished() may be called from within. */
void exchange_start(struct exchange *);

/* The same at the end of this wake-up. */
void exchange_start_later(struct exchange *);

/* More of the body; its end. A piece over the limit is dropped and ends in a 413. */
void exchange_body(struct exchange *, struct view piece);
void exchange_body_end(struct exchange *);

/* Ends it without an answer (the client is gone): finished() will not be called. Then release it. */
void exchange_cancel(struct exchange *);

/* Gives it back; for ended ones. */
void exchange_release(struct exchange *);

/* Frees the spare ones. */
void exchange_free_spare(struct service *);

/* Ends it with a problem; for steps: return problem(ex, ...). */
enum next problem(struct exchange *, enum status, struct view detail);

/* The same under another HTTP status than the code's own. */
enum next problem_as(struct exchange *, enum status, int http, struct view detail);

/* Calls the current step again. */
void exchange_resume(struct exchange *);

/* Submits ex->statement as ex->query, as the principal; the step is called again when query_done is set. */
void exchange_query(struct exchange *, bool write);

/* Submits a read of the caller's beside ex->query, as the same principal and under the same deadline. */
void exchange_query_beside(struct exchange *, struct query *, struct pool *);

/* It failed, which is from now on what query_problem() tells: what that says to the client. */
enum status exchange_failed_beside(struct exchange *, const struct query *, enum status, const struct db_error *);

/* Ends ex->query, if it is out, as one whose deadline is over, and calls the step. */
void exchange_give_up(struct exchange *);

/* Before it is routed: the deadline of what its path names, where that has one of its own. */
void exchange_hurry(struct exchange *);

/* Its last question failed with an SQLSTATE of that class ("53"). */
bool exchange_failed_of(const struct exchange *, const char *class);

/* The same as exchange_query() as the worker itself, which reads. */
void exchange_query_own(struct exchange *);

/* What bounds its query string. */
struct bounds exchange_bounds(const struct exchange *);

/* Who its statements run as. */
struct session exchange_session(const struct exchange *);

/* What came is not what the catalog promised: begins anew with a new one. Once; then it is a problem. */
enum next exchange_anew(struct exchange *);

/* The problem that fits a query that did not end well, in the words that a client may see. */
enum next query_problem(struct exchange *);

/* What it means for a read that one of its statements ended so, where no value of the client's is to blame. */
enum status read_fault(enum status);

/* The statement of a list or an item, without what is skipped. False: it is too large, or no row has such a key. */
bool read_statement(const struct exchange *, struct statement *) MUST_CHECK;

/* Reads what is asked of a list or an item; once. DONE: it is a problem. */
enum next read_prepare(struct exchange *);

/* How the client wants a list to be counted, into ex->total. */
void read_count(struct exchange *);

/* Whether a list's or item's answer is for all, which ex->for_all says from then on. */
void exchange_read_for_all(struct exchange *);

/* Cache-Control, Vary and what CDNs are told. */
void cache_headers(struct exchange *, const struct cache_policy *);

/* ETag, and 304 where the client has that body already (RFC 9110 section 13.1.2). */
void entity_tag(struct exchange *);

/* The step that tells who asks (identify.c). */
enum next identify(struct exchange *);

/* The time has come at which an older answer about its key will do. False: it was something else's. */
bool identify_late(struct exchange *);

/* Steps of the operations (reading.c, writing.c): what to ask, and what to make of the answer. */
enum next page_ask(struct exchange *);
enum next page_answer(struct exchange *);
enum next item_ask(struct exchange *);
enum next item_answer(struct exchange *);
enum next write_media(struct exchange *);
enum next write_ask(struct exchange *);
enum next write_answer(struct exchange *);

/* Lets go of what a write holds; its transaction, if one is open, is rolled back. */
void writing_end(struct exchange *);

/* Whether a write has been committed, perhaps, without our knowing. */
bool writing_unknown(const struct exchange *);

#endif
