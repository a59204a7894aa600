/* settings: what an installation may say, from the process environment (COMPOSURE_<KEY>) and a file of `key = value`
 * lines; the environment wins. Never from request parameters, which a client can forge.
 */
#ifndef COMPOSURE_SETTINGS_H
#define COMPOSURE_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attributes.h"

/*   kind   name                default     least  most        what it is, for --help */
#define SETTINGS_LIST(TEXT, NUMBER)                                                                                 \
	TEXT(dsn, "", "libpq connection string of the database, as the worker's role")                              \
	TEXT(read_dsn, "", "the same of its replicas, up to 4, with | between them; empty: none")                   \
	TEXT(listen, "", "socket to make: a path, or host:port; empty: fd 0 (spawn-fcgi), or plain CGI")            \
	TEXT(mount, "/api", "path below which resources are served")                                               \
	TEXT(search_path, "public", "search_path that functions and triggers see")                                  \
	TEXT(pooler, "none", "none, or transaction: a transaction pooler (PgBouncer) stands before PostgreSQL")     \
	TEXT(peer, "", "the web server: nginx, lighttpd, apache, or empty")                                         \
	TEXT(runtime_dir, "", "folder for what the workers of this host share; empty: /dev/shm, or a folder of the user's") \
	TEXT(log, "-", "access log, one JSON line a request: a file, - for stderr, none")                           \
	TEXT(log_level, "info", "of our own messages on stderr: error, warn, info, debug")                          \
	NUMBER(connections, 4, 1, 64, "connections to PostgreSQL, for each worker")                                 \
	NUMBER(replica_lag_ms, 1000, 0, 3600000, "a replica that is further behind is not read from, milliseconds")  \
	NUMBER(deadline_ms, 10000, 10, 600000, "time a request may take, milliseconds")                             \
	NUMBER(request_start, 0, 0, 1, "1: the web server sets X-Request-Start, and a deadline counts from there")  \
	NUMBER(connect_timeout_ms, 2000, 10, 60000, "time to open a connection, milliseconds")                      \
	NUMBER(idle_ms, 15000, 100, 3600000, "time after which an idle connection of the web server is closed")     \
	NUMBER(url_max_bytes, 8192, 256, 65536, "longest URL")                                                      \
	NUMBER(headers_max_bytes, 65536, 4096, 1048576, "most CGI parameters of a request, in bytes")               \
	NUMBER(body_max_bytes, 1048576, 0, 1073741824, "largest request body")                                      \
	TEXT(cors_origins, "", "origins that a browser may call from, by comma, or *; empty: none")                 \
	NUMBER(filters_max, 32, 1, 1000, "conditions of a query")                                                   \
	NUMBER(list_items_max, 200, 1, 10000, "items in the list of a filter")                                      \
	NUMBER(embed_levels_max, 3, 0, 8, "levels of embedded resources")                                           \
	NUMBER(embeds_max, 8, 0, 64, "embedded resources of a query")                                               \
	NUMBER(pattern_max_bytes, 256, 1, 8192, "pattern of a filter")                                              \
	NUMBER(cursor_max_bytes, 1024, 64, 8192, "cursor")                                                          \
	NUMBER(body_max_depth, 64, 1, 1000, "nested arrays and objects in a request body")                          \
	NUMBER(body_max_values, 200000, 1, 100000000, "values in a request body")                                   \
	NUMBER(body_max_rows, 10000, 1, 1000000, "rows that a request may insert")                                  \
	NUMBER(affected_rows_max, 1000, 1, 1000000, "rows that a filter may change or delete at a time")            \
	NUMBER(idempotency_max_bytes, 1048576, 1024, 67108864, "largest answer that is kept for a retry")           \
	TEXT(response_headers, "", "headers that functions may set beside the usual ones, by comma")                \
	NUMBER(page_max_bytes, 16777216, 1024, 1073741824, "a page ends early at this size")                        \
	NUMBER(requests_max, 1000, 1, 100000, "requests that a worker takes at a time")                             \
	NUMBER(feed_interval_ms, 25, 1, 60000, "time between two looks at the change feed, milliseconds")           \
	NUMBER(cache_bytes, 67108864, 0, 68719476736, "memory for answers, shared by the workers of this host; 0: none are kept") \
	NUMBER(cache_obey_clients, 0, 0, 1, "1: no-cache, no-store and max-age of a request make it a miss")               \
	NUMBER(surrogate_rows, 0, 0, 64, "rows of a public list that are named to CDNs, to be purged by; 0: it is purged as a whole") \
	NUMBER(key_ttl_ms, 60000, 0, 3600000, "time after which a known API key is asked for again, milliseconds")   \
	NUMBER(key_grace_ms, 3600000, 0, 86400000, "time that a known key serves while PostgreSQL is away")         \
	NUMBER(auth_failures, 60, 0, 1000000, "API keys that do not verify, from one address in a minute; 0: no limit")  \
	TEXT(trusted_proxies, "", "addresses and networks, by comma, whose word on the client's address is taken; unix")  \
	TEXT(forwarded_header, "X-Forwarded-For", "header in which they tell it: X-Forwarded-For or Forwarded")            \
	NUMBER(breaker_window_ms, 10000, 100, 3600000, "time over which a circuit breaker counts, milliseconds")           \
	NUMBER(breaker_calls, 20, 1, 10000, "calls in it before a share of them opens a breaker")                          \
	NUMBER(breaker_failures, 50, 1, 100, "share of calls that fail, in percent, that opens it")                        \
	NUMBER(breaker_slow, 80, 1, 100, "share of calls that fail or are slow, in percent, that opens it")                \
	NUMBER(breaker_slow_ms, 0, 0, 600000, "time from which a call is slow, milliseconds; 0: half of its deadline")     \
	NUMBER(breaker_in_row, 5, 1, 1000, "attempts to connect that fail in a row and open PostgreSQL's breaker")         \
	NUMBER(breaker_silence_ms, 1000, 100, 60000, "silence of PostgreSQL that opens it, milliseconds")                  \
	NUMBER(breaker_open_ms, 250, 10, 600000, "time a breaker is open at first, milliseconds; doubled each time in a row") \
	NUMBER(breaker_open_max_ms, 1500, 10, 3600000, "and at most")                                                      \
	NUMBER(breaker_probes, 3, 1, 15, "requests that try out whether a resource is well again")                         \
	NUMBER(bulkhead_share, 50, 1, 100, "share of all requests that those of one resource may be, in percent")          \
	NUMBER(share_segments, 1, 0, 1, "1: reads of one key that are ready together share a transaction")

struct settings {
#define TEXT(name, otherwise, help) const char *name;
#define NUMBER(name, otherwise, least, most, help) int64_t name;
	SETTINGS_LIST(TEXT, NUMBER)
#undef TEXT
#undef NUMBER
};

/* Fills in defaults, then the file (NULL: COMPOSURE_CONFIG's, or none), then the environment. Texts live as long as
 * the process. False and a line that says what is wrong and where: unknown key, bad number, unreadable file. */
bool settings_load(struct settings *, const char *file, char *why, int why_size) MUST_CHECK;

/* Prints each key with its default and meaning, for --help. */
void settings_help(void);

#endif
