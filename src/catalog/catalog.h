/* catalog: what is exposed, as an immutable snapshot.
 *
 * Loaded as one JSON text from composure.catalog() and made into structs once; a snapshot never changes. Requests hold
 * a reference while they use it, so that a reload does not pull names from under them.
 */
#ifndef COMPOSURE_CATALOG_H
#define COMPOSURE_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/siphash.h"
#include "base/view.h"
#include "cache/policy.h"

/* Bits by method, as enum method of http/request.h counts them; the catalog knows four. */
enum {
	CATALOG_GET = 1 << 0,
	CATALOG_POST = 1 << 1,
	CATALOG_PUT = 1 << 2,
	CATALOG_PATCH = 1 << 3,
	CATALOG_DELETE = 1 << 4,
};

struct column {
	struct view name;
	struct view quoted;   /* as an SQL identifier */
	struct view type;     /* schema-qualified and quoted, for casts; without typmod */
	uint32_t type_oid;    /* as declared (a domain's own) */
	uint32_t base_oid;    /* a domain's base type: what parameters are sent as */
	uint32_t array_oid;   /* of the base type; 0: there are no arrays of it */
	char type_kind;       /* pg_type.typtype of the base type: b, e, c, r, m */
	char category;        /* pg_type.typcategory of the base type */
	bool not_null, hidden, read_only, has_default, generated, sortable, nondeterministic;
	bool optional;        /* a partial answer may come without it */
};

struct order_term {
	unsigned column; /* index into the resource's columns */
	bool desc, nulls_first;
};

enum idempotency { IDEMPOTENCY_NONE, IDEMPOTENCY_OPTIONAL, IDEMPOTENCY_REQUIRED };

enum privilege { PRIVILEGE_SELECT, PRIVILEGE_INSERT, PRIVILEGE_UPDATE, PRIVILEGE_DELETE, PRIVILEGE_COUNT };

/* Who may share an answer in our store. */
enum cache_scope {
	SCOPE_NONE,     /* it is not kept */
	SCOPE_IDENTITY, /* nobody */
	SCOPE_ROLE,     /* those of one role */
	SCOPE_PUBLIC,   /* all */
};

struct resource {
	struct view name;
	uint32_t oid;
	struct view relation;   /* schema-qualified and quoted */
	char kind;              /* pg_class.relkind */
	unsigned methods;       /* CATALOG_* bits */
	struct column *columns;
	unsigned n_columns;
	unsigned *key;          /* indexes into columns */
	unsigned n_key;
	struct order_term *order; /* the default; total: the key is in it */
	unsigned n_order;
	int page_default, page_max;
	struct cache_policy policy;
	enum cache_scope scope;
	int64_t ttl_bound_us;   /* 0: every change is seen; else the longest that an answer may live */
	struct view *touches;   /* resources that read what an insertion into this one writes, and have a ttl */
	unsigned n_touches;
	int cost_read, cost_write;
	enum idempotency idempotency;
	int owner;              /* column that holds the tenant, or -1 */
	int64_t deadline_us;    /* 0: the worker's */
	bool rls;
	bool reading_runs_code, writing_runs_code; /* of the user's, that may leave something in the session */
	bool exact_count, regular_expressions; /* may be asked for */
	bool partial;           /* an answer may be partial where the client does not say so, too */
	uint64_t *may[PRIVILEGE_COUNT]; /* bit sets over the catalog's roles */
};

/* A foreign key between two relations that are served. */
struct relationship {
	struct view constraint;
	uint32_t from, to;               /* oids of the relations */
	unsigned n;                      /* columns on each side */
	struct view *from_name, *to_name, *from_quoted, *to_quoted;
	bool unique;                     /* at most one row of `from` belongs to one of `to` */
};

/* A text search configuration: its name, and the SQL that stands for it. */
struct text_search {
	struct view name, sql;
};

enum returns { RETURNS_VALUE, RETURNS_SET, RETURNS_VOID };

struct argument {
	struct view name, quoted, type; /* as those of a column */
	uint32_t base_oid;
	bool has_default;
};

struct function {
	struct view name;
	struct view call;       /* schema-qualified and quoted */
	unsigned methods;       /* CATALOG_GET, CATALOG_POST */
	bool is_volatile;
	enum returns returns;
	struct argument *arguments;
	unsigned n_arguments;
	int rows_max;           /* of a set, in one answer */
	int cost;
	enum idempotency idempotency;
	int64_t deadline_us;    /* 0: the worker's */
	struct cache_policy policy;
	enum cache_scope scope;
	int64_t ttl_bound_us;   /* as a resource's */
	uint64_t *may;          /* bit set over the catalog's roles: who may call it */
};

struct catalog {
	struct arena *arena;
	unsigned references;
	int64_t version;
	struct view installation_id;
	unsigned char secret[32]; /* of the installation: signs key ids */
	uint8_t digest[SIPHASH_BYTES];      /* of its text: what was made under another one is not this one's */
	bool keeps;                         /* something in it has a ttl */
	uint8_t tag_key[SIPHASH_KEY_BYTES]; /* made of it: for entity tags */
	struct view anonymous_role; /* absent: anonymous requests run as the worker itself */
	/* ", a, b": schemas of types that bring operators of their own (citext in a schema for extensions), to stand at the end
	 * of a search_path. Without it `citext > citext` would be found as `text > text`, which is another order. */
	struct view type_schemas;
	struct view *roles;
	unsigned n_roles;
	struct resource *resources; /* sorted by name */
	unsigned n_resources;
	struct relationship *relationships;
	unsigned n_relationships;
	struct text_search *text_searches;
	unsigned n_text_searches;
	struct function *functions; /* sorted by name */
	unsigned n_functions;
};

/* NULL and *why (static text) when the JSON is not what composure.catalog() returns. One reference is the caller's. */
struct catalog *catalog_parse(struct view json, const char **why) MUST_CHECK;

struct catalog *catalog_ref(struct catalog *);
void catalog_unref(struct catalog *); /* NULL is fine */

const struct resource *catalog_resource(const struct catalog *, struct view name);

/* The SQL of the text search configuration called so; absent when there is none. */
struct view catalog_text_search(const struct catalog *, struct view name);
const struct function *catalog_function(const struct catalog *, struct view name);

/* May this role call it? As resource_may(). */
bool function_may(const struct catalog *, const struct function *, struct view role);

/* The column called so that a client may know of, or NULL: a hidden one does not exist. */
const struct column *resource_column(const struct resource *, struct view name);

/* May this role do that? An absent role is the worker's own. A role that the catalog does not know may try: then
 * PostgreSQL decides. */
bool resource_may(const struct catalog *, const struct resource *, enum privilege, struct view role);

#endif
