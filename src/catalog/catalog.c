#include "config.h"

#include "catalog/catalog.h"

#include <json-c/json.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/sha256.h"
#include "db/statement.h"

enum { CATALOG_BYTES_MAX = 64 << 20 };

/* The JSON is our own function's: what is missing or of another type reads as empty, and `broken` is set. */
struct reader {
	struct catalog *catalog;
	bool broken;
};

static json_object *get(struct reader *r, json_object *of, const char *name, json_type type)
{
	json_object *o = NULL;
	if (!json_object_object_get_ex(of, name, &o) || json_object_get_type(o) != type)
		r->broken = true;
	return json_object_get_type(o) == type ? o : NULL;
}

static struct view text_of(struct reader *r, json_object *o)
{
	if (json_object_get_type(o) != json_type_string)
		return VIEW_NONE;
	struct view v = view_make(json_object_get_string(o), (size_t)json_object_get_string_len(o));
	return arena_copy(r->catalog->arena, v);
}

static struct view get_text(struct reader *r, json_object *of, const char *name)
{
	return text_of(r, get(r, of, name, json_type_string));
}

/* null is absent */
static struct view get_optional(struct reader *r, json_object *of, const char *name)
{
	json_object *o = NULL;
	json_object_object_get_ex(of, name, &o);
	return text_of(r, o);
}

static int64_t get_int(struct reader *r, json_object *of, const char *name)
{
	return json_object_get_int64(get(r, of, name, json_type_int));
}

static int64_t get_int_or(json_object *of, const char *name, int64_t otherwise)
{
	json_object *o = NULL;
	json_object_object_get_ex(of, name, &o);
	return json_object_get_type(o) == json_type_int ? json_object_get_int64(o) : otherwise;
}

static bool get_bool(struct reader *r, json_object *of, const char *name)
{
	return json_object_get_boolean(get(r, of, name, json_type_boolean));
}

static char get_char(struct reader *r, json_object *of, const char *name)
{
	struct view v = get_text(r, of, name);
	return v.n ? v.p[0] : '\0';
}

/* Absent: no. */
static bool get_flag(json_object *of, const char *name)
{
	json_object *o = NULL;
	json_object_object_get_ex(of, name, &o);
	return json_object_get_type(o) == json_type_boolean && json_object_get_boolean(o);
}

static json_object *get_array(struct reader *r, json_object *of, const char *name, unsigned *n)
{
	json_object *o = get(r, of, name, json_type_array);
	*n = o ? (unsigned)json_object_array_length(o) : 0;
	return o;
}

static void read_columns(struct reader *r, struct resource *res, json_object *of)
{
	json_object *all = get_array(r, of, "columns", &res->n_columns);
	res->columns = ARENA_ARRAY(r->catalog->arena, struct column, res->n_columns);
	for (unsigned i = 0; res->columns && i < res->n_columns; i++) {
		json_object *o = json_object_array_get_idx(all, i);
		struct view name = get_text(r, o, "name");
		res->columns[i] = (struct column){
			.name = name,
			.quoted = quote_identifier(r->catalog->arena, name),
			.type = get_text(r, o, "type"),
			.type_oid = (uint32_t)get_int(r, o, "type_oid"),
			.base_oid = (uint32_t)get_int(r, o, "base_oid"),
			.array_oid = (uint32_t)get_int(r, o, "array_oid"),
			.type_kind = get_char(r, o, "type_kind"),
			.category = get_char(r, o, "category"),
			.not_null = get_bool(r, o, "not_null"),
			.hidden = get_bool(r, o, "hidden"),
			.read_only = get_bool(r, o, "read_only"),
			.has_default = get_bool(r, o, "has_default"),
			.generated = get_bool(r, o, "generated"),
			.sortable = get_bool(r, o, "sortable"),
			.nondeterministic = get_bool(r, o, "nondeterministic"),
		};
	}
}

static unsigned column_index(struct reader *r, const struct resource *res, struct view name)
{
	for (unsigned i = 0; res->columns && i < res->n_columns; i++)
		if (view_eq(res->columns[i].name, name))
			return i;
	r->broken = true;
	return 0;
}

static void read_key(struct reader *r, struct resource *res, json_object *of)
{
	json_object *all = get_array(r, of, "key", &res->n_key);
	res->key = ARENA_ARRAY(r->catalog->arena, unsigned, res->n_key);
	for (unsigned i = 0; res->key && i < res->n_key; i++)
		res->key[i] = column_index(r, res, text_of(r, json_object_array_get_idx(all, i)));
	if (res->n_key == 0)
		r->broken = true;
}

static void read_order(struct reader *r, struct resource *res, json_object *of)
{
	json_object *all = get_array(r, of, "order", &res->n_order);
	res->order = ARENA_ARRAY(r->catalog->arena, struct order_term, res->n_order);
	for (unsigned i = 0; res->order && i < res->n_order; i++) {
		json_object *o = json_object_array_get_idx(all, i);
		res->order[i] = (struct order_term){
			.column = column_index(r, res, get_text(r, o, "column")),
			.desc = get_bool(r, o, "desc"),
			.nulls_first = get_bool(r, o, "nulls_first"),
		};
	}
}

static unsigned read_methods(struct reader *r, json_object *of)
{
	static const struct {
		const char *name;
		unsigned bit;
	} known[] = { { "GET", CATALOG_GET }, { "POST", CATALOG_POST }, { "PUT", CATALOG_PUT },
		      { "PATCH", CATALOG_PATCH }, { "DELETE", CATALOG_DELETE } };
	unsigned n, methods = 0;
	json_object *all = get_array(r, of, "methods", &n);
	for (unsigned i = 0; i < n; i++) {
		const char *name = json_object_get_string(json_object_array_get_idx(all, i));
		for (size_t k = 0; k < ARRAY_LEN(known); k++)
			if (name && strcmp(name, known[k].name) == 0)
				methods |= known[k].bit;
	}
	return methods;
}

static int role_index(const struct catalog *c, struct view role)
{
	for (unsigned i = 0; i < c->n_roles; i++)
		if (view_eq(c->roles[i], role))
			return (int)i;
	return -1;
}

static uint64_t *read_roles(struct reader *r, json_object *of, const char *name)
{
	unsigned n;
	json_object *all = get_array(r, of, name, &n);
	uint64_t *set = ARENA_ARRAY(r->catalog->arena, uint64_t, r->catalog->n_roles / 64 + 1);
	for (unsigned i = 0; set && i < n; i++) {
		int role = role_index(r->catalog, text_of(r, json_object_array_get_idx(all, i)));
		if (role >= 0)
			set[role / 64] |= (uint64_t)1 << (role % 64);
	}
	return set;
}

static void read_privileges(struct reader *r, struct resource *res, json_object *of)
{
	static const char *const member[PRIVILEGE_COUNT] = { "select_roles", "insert_roles", "update_roles",
							     "delete_roles" };
	for (unsigned p = 0; p < PRIVILEGE_COUNT; p++)
		res->may[p] = read_roles(r, of, member[p]);
}

static enum idempotency read_idempotency(struct view v)
{
	if (view_eq(v, VIEW("required")))
		return IDEMPOTENCY_REQUIRED;
	return view_eq(v, VIEW("none")) ? IDEMPOTENCY_NONE : IDEMPOTENCY_OPTIONAL;
}

static enum cache_scope read_scope(struct view v)
{
	if (view_eq(v, VIEW("public")))
		return SCOPE_PUBLIC;
	if (view_eq(v, VIEW("role")))
		return SCOPE_ROLE;
	return view_eq(v, VIEW("identity")) ? SCOPE_IDENTITY : SCOPE_NONE;
}

/* Absent: none. */
static json_object *get_list(json_object *of, const char *name, unsigned *n)
{
	json_object *all = NULL;
	bool there = json_object_object_get_ex(of, name, &all) && json_object_get_type(all) == json_type_array;
	*n = there ? (unsigned)json_object_array_length(all) : 0;
	return all;
}

static void read_touches(struct reader *r, struct resource *res, json_object *of)
{
	unsigned n;
	json_object *all = get_list(of, "touches", &n);
	res->touches = ARENA_ARRAY(r->catalog->arena, struct view, n);
	for (unsigned i = 0; res->touches && i < n; i++)
		res->touches[res->n_touches++] = text_of(r, json_object_array_get_idx(all, i));
}

static void read_optional(struct reader *r, struct resource *res, json_object *of)
{
	unsigned n;
	json_object *all = get_list(of, "optional", &n);
	for (unsigned i = 0; res->columns && i < n; i++)
		res->columns[column_index(r, res, text_of(r, json_object_array_get_idx(all, i)))].optional = true;
}

static void read_resource(struct reader *r, struct resource *res, json_object *o)
{
	struct view schema = quote_identifier(r->catalog->arena, get_text(r, o, "schema"));
	struct view relation = quote_identifier(r->catalog->arena, get_text(r, o, "relation"));
	*res = (struct resource){
		.name = get_text(r, o, "name"),
		.oid = (uint32_t)get_int(r, o, "oid"),
		.relation = arena_printf(r->catalog->arena, "%.*s.%.*s", VIEW_ARG(schema), VIEW_ARG(relation)),
		.kind = get_char(r, o, "kind"),
		.methods = read_methods(r, o),
		.page_default = (int)get_int(r, o, "page_default"),
		.page_max = (int)get_int(r, o, "page_max"),
		.cost_read = (int)get_int(r, o, "cost_read"),
		.cost_write = (int)get_int(r, o, "cost_write"),
		.idempotency = read_idempotency(get_text(r, o, "idempotency")),
		.owner = -1,
		.deadline_us = get_int_or(o, "deadline_ms", 0) * 1000,
		.rls = get_bool(r, o, "rls"),
		.reading_runs_code = get_bool(r, o, "reading_runs_code"),
		.writing_runs_code = get_bool(r, o, "writing_runs_code"),
		.exact_count = get_bool(r, o, "exact_count"),
		.regular_expressions = get_bool(r, o, "regular_expressions"),
		.partial = get_flag(o, "partial"),
	};
	r->broken |= !cache_policy(&res->policy, r->catalog->arena, get_optional(r, o, "cache"));
	res->scope = read_scope(get_optional(r, o, "scope"));
	res->ttl_bound_us = get_int_or(o, "ttl_bound_ms", 0) * 1000;
	r->catalog->keeps |= res->policy.ttl_us > 0;
	read_touches(r, res, o);
	read_columns(r, res, o);
	read_optional(r, res, o);
	read_key(r, res, o);
	read_order(r, res, o);
	read_privileges(r, res, o);
	struct view owner = get_optional(r, o, "owner");
	if (owner.p)
		res->owner = (int)column_index(r, res, owner);
}

static bool in_order(const struct resource *res, unsigned column)
{
	for (unsigned i = 0; i < res->n_order; i++)
		if (res->order[i].column == column)
			return true;
	return false;
}

/* The key of a table is what PostgreSQL has now: it may have become a column that was hidden while another was the key.
 * Cursors and paths would show it. */
static bool shows_hidden(const struct resource *res)
{
	for (unsigned i = 0; i < res->n_order; i++)
		if (res->columns[res->order[i].column].hidden)
			return true;
	return false;
}

/* False: it is not to be served. Whoever uses a resource relies on its order having the whole key in it. */
static bool judge_resource(struct reader *r, const struct resource *res)
{
	if (!res->columns || !res->key || !res->order)
		return false;
	for (unsigned i = 0; i < res->n_key; i++)
		if (!in_order(res, res->key[i]))
			r->broken = true;
	if (r->broken || !shows_hidden(res))
		return true;
	log_warn("\"%.*s\" is not served: a hidden column has become part of its key; expose it again", VIEW_ARG(res->name));
	return false;
}

static void read_resources(struct reader *r, json_object *of)
{
	unsigned n;
	struct catalog *c = r->catalog;
	json_object *all = get_array(r, of, "resources", &n);
	c->resources = ARENA_ARRAY(c->arena, struct resource, n);
	for (unsigned i = 0; c->resources && i < n; i++) {
		struct resource *res = &c->resources[c->n_resources];
		read_resource(r, res, json_object_array_get_idx(all, i));
		c->n_resources += judge_resource(r, res);
	}
}

static struct view *read_names(struct reader *r, json_object *of, const char *member, unsigned *n)
{
	json_object *all = get_array(r, of, member, n);
	struct view *names = ARENA_ARRAY(r->catalog->arena, struct view, *n);
	for (unsigned i = 0; names && i < *n; i++)
		names[i] = text_of(r, json_object_array_get_idx(all, i));
	return names;
}

static struct view *quote_names(struct reader *r, const struct view *name, unsigned n)
{
	struct view *quoted = ARENA_ARRAY(r->catalog->arena, struct view, n);
	for (unsigned i = 0; name && quoted && i < n; i++)
		quoted[i] = quote_identifier(r->catalog->arena, name[i]);
	return quoted;
}

static void read_relationship(struct reader *r, struct relationship *rel, json_object *o)
{
	unsigned n_to = 0;
	*rel = (struct relationship){
		.constraint = get_text(r, o, "constraint"),
		.from = (uint32_t)get_int(r, o, "from"),
		.to = (uint32_t)get_int(r, o, "to"),
		.unique = get_bool(r, o, "unique"),
	};
	rel->from_name = read_names(r, o, "from_columns", &rel->n);
	rel->to_name = read_names(r, o, "to_columns", &n_to);
	rel->from_quoted = quote_names(r, rel->from_name, rel->n);
	rel->to_quoted = quote_names(r, rel->to_name, n_to);
	if (rel->n != n_to || rel->n == 0)
		r->broken = true;
}

static void read_relationships(struct reader *r, json_object *of)
{
	unsigned n;
	struct catalog *c = r->catalog;
	json_object *all = get_array(r, of, "relationships", &n);
	c->relationships = ARENA_ARRAY(c->arena, struct relationship, n);
	for (unsigned i = 0; c->relationships && i < n; i++)
		read_relationship(r, &c->relationships[c->n_relationships++], json_object_array_get_idx(all, i));
}

static void read_text_searches(struct reader *r, json_object *of)
{
	struct catalog *c = r->catalog;
	json_object *all = get(r, of, "text_search", json_type_object);
	if (!all)
		return;
	c->text_searches = ARENA_ARRAY(c->arena, struct text_search, (size_t)json_object_object_length(all));
	if (!c->text_searches)
		return;
	/* json_object_object_foreach() is a statement expression, which -Wpedantic does not like. */
	struct json_object_iterator at = json_object_iter_begin(all), end = json_object_iter_end(all);
	for (; !json_object_iter_equal(&at, &end); json_object_iter_next(&at)) {
		c->text_searches[c->n_text_searches++] = (struct text_search){
			.name = arena_copy(c->arena, view_of(json_object_iter_peek_name(&at))),
			.sql = text_of(r, json_object_iter_peek_value(&at)),
		};
	}
}

enum { FIRST_USER_OID = 16384, TYPE_SCHEMAS_MAX = 8 };

/* Of a type as the catalog has it: "my types".word. */
static struct view schema_of(struct view type)
{
	bool quoted = false;
	for (size_t i = 0; i < type.n; i++) {
		if (type.p[i] == '"')
			quoted = !quoted;
		else if (type.p[i] == '.' && !quoted)
			return view_make(type.p, i);
	}
	return VIEW_NONE;
}

/* Enums, arrays, ranges and domains over PostgreSQL's own types live by its operators. */
static bool brings_operators(const struct column *c)
{
	return c->base_oid >= FIRST_USER_OID && c->base_oid == c->type_oid && c->type_kind == 'b' && c->category != 'A';
}

static void collect_type_schemas(struct catalog *c)
{
	struct view found[TYPE_SCHEMAS_MAX];
	unsigned n = 0;
	struct buf text = BUF(4096);
	for (unsigned i = 0; c->resources && i < c->n_resources; i++) {
		for (unsigned k = 0; k < c->resources[i].n_columns; k++) {
			const struct column *col = &c->resources[i].columns[k];
			struct view schema = brings_operators(col) ? schema_of(col->type) : VIEW_NONE;
			bool known = !schema.n || n == TYPE_SCHEMAS_MAX;
			for (unsigned f = 0; f < n && !known; f++)
				known = view_eq(found[f], schema);
			if (known)
				continue;
			found[n++] = schema;
			buf_lit(&text, ", ");
			buf_view_put(&text, schema);
		}
	}
	c->type_schemas = arena_copy(c->arena, buf_view(&text));
	buf_free(&text);
}

static int by_name(const void *a, const void *b)
{
	return view_cmp(((const struct resource *)a)->name, ((const struct resource *)b)->name);
}

/* --- functions --- */

static void read_arguments(struct reader *r, struct function *f, json_object *of)
{
	json_object *all = get_array(r, of, "arguments", &f->n_arguments);
	f->arguments = ARENA_ARRAY(r->catalog->arena, struct argument, f->n_arguments);
	for (unsigned i = 0; f->arguments && i < f->n_arguments; i++) {
		json_object *o = json_object_array_get_idx(all, i);
		struct view name = get_text(r, o, "name");
		f->arguments[i] = (struct argument){
			.name = name,
			.quoted = quote_identifier(r->catalog->arena, name),
			.type = get_text(r, o, "type"),
			.base_oid = (uint32_t)get_int(r, o, "base_oid"),
			.has_default = get_bool(r, o, "has_default"),
		};
	}
}

static enum returns read_returns(struct view v)
{
	if (view_eq(v, VIEW("void")))
		return RETURNS_VOID;
	return view_eq(v, VIEW("set")) ? RETURNS_SET : RETURNS_VALUE;
}

static void read_function(struct reader *r, struct function *f, json_object *o)
{
	struct catalog *c = r->catalog;
	struct view schema = quote_identifier(c->arena, get_text(r, o, "schema"));
	struct view function = quote_identifier(c->arena, get_text(r, o, "function"));
	*f = (struct function){
		.name = get_text(r, o, "name"),
		.call = arena_printf(c->arena, "%.*s.%.*s", VIEW_ARG(schema), VIEW_ARG(function)),
		.methods = read_methods(r, o),
		.is_volatile = get_char(r, o, "volatility") == 'v',
		.returns = read_returns(get_text(r, o, "returns")),
		.rows_max = (int)get_int(r, o, "rows_max"),
		.cost = (int)get_int(r, o, "cost"),
		.idempotency = read_idempotency(get_text(r, o, "idempotency")),
		.deadline_us = get_int_or(o, "deadline_ms", 0) * 1000,
		.may = read_roles(r, o, "roles"),
	};
	r->broken |= !cache_policy(&f->policy, c->arena, get_optional(r, o, "cache"));
	f->scope = read_scope(get_optional(r, o, "scope"));
	f->ttl_bound_us = get_int_or(o, "ttl_bound_ms", 0) * 1000;
	c->keeps |= f->policy.ttl_us > 0;
	read_arguments(r, f, o);
}

static int functions_by_name(const void *a, const void *b)
{
	return view_cmp(((const struct function *)a)->name, ((const struct function *)b)->name);
}

static void read_functions(struct reader *r, json_object *of)
{
	struct catalog *c = r->catalog;
	json_object *all = get_array(r, of, "functions", &c->n_functions);
	c->functions = ARENA_ARRAY(c->arena, struct function, c->n_functions);
	for (unsigned i = 0; c->functions && i < c->n_functions; i++)
		read_function(r, &c->functions[i], json_object_array_get_idx(all, i));
	if (c->functions && c->n_functions)
		qsort(c->functions, c->n_functions, sizeof *c->functions, functions_by_name);
}

static bool read_secret(struct view hex, unsigned char out[32])
{
	if (hex.n != 64)
		return false;
	for (size_t i = 0; i < 32; i++) {
		char digits[3] = { hex.p[2 * i], hex.p[2 * i + 1], '\0' };
		char *end;
		out[i] = (unsigned char)strtoul(digits, &end, 16);
		if (end != digits + 2)
			return false;
	}
	return true;
}

static void read_catalog(struct reader *r, json_object *o)
{
	struct catalog *c = r->catalog;
	c->version = get_int(r, o, "version");
	json_object *installation = get(r, o, "installation", json_type_object);
	c->installation_id = get_text(r, installation, "id");
	c->anonymous_role = get_optional(r, installation, "anonymous_role");
	if (!read_secret(get_text(r, installation, "secret"), c->secret))
		r->broken = true;
	uint8_t derived[SHA256_BYTES];
	hmac_sha256(view_make((const char *)c->secret, sizeof c->secret), VIEW("entity tags"), derived);
	memcpy(c->tag_key, derived, sizeof c->tag_key);
	json_object *roles = get_array(r, o, "roles", &c->n_roles);
	c->roles = ARENA_ARRAY(c->arena, struct view, c->n_roles);
	for (unsigned i = 0; c->roles && i < c->n_roles; i++)
		c->roles[i] = text_of(r, json_object_array_get_idx(roles, i));
	read_resources(r, o);
	collect_type_schemas(c);
	read_relationships(r, o);
	read_text_searches(r, o);
	read_functions(r, o);
	if (c->resources && c->n_resources)
		qsort(c->resources, c->n_resources, sizeof *c->resources, by_name);
}

struct catalog *catalog_parse(struct view json, const char **why)
{
	struct catalog *c = calloc(1, sizeof *c);
	if (c)
		c->arena = arena_create(CATALOG_BYTES_MAX);
	if (!c || !c->arena) {
		free(c);
		*why = "out of memory";
		return NULL;
	}
	c->references = 1;
	struct json_tokener *tok = json_tokener_new();
	json_object *o = tok && json.n < CATALOG_BYTES_MAX ? json_tokener_parse_ex(tok, json.p, (int)json.n) : NULL;
	struct reader r = { .catalog = c };
	if (o)
		read_catalog(&r, o);
	siphash_of(c->tag_key, json, c->digest);
	bool good = o && !r.broken && !arena_full(c->arena);
	json_object_put(o);
	if (tok)
		json_tokener_free(tok);
	if (!good) {
		*why = r.broken || !o ? "composure.catalog() returned a form that this build does not know: run sql/migrate.sql"
				      : "the catalog is too large";
		catalog_unref(c);
		return NULL;
	}
	return c;
}

struct catalog *catalog_ref(struct catalog *c)
{
	c->references++;
	return c;
}

void catalog_unref(struct catalog *c)
{
	if (!c || --c->references)
		return;
	arena_destroy(c->arena);
	free(c);
}

const struct resource *catalog_resource(const struct catalog *c, struct view name)
{
	size_t low = 0, high = c->n_resources;
	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int order = view_cmp(c->resources[mid].name, name);
		if (order == 0)
			return &c->resources[mid];
		if (order < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

struct view catalog_text_search(const struct catalog *c, struct view name)
{
	for (unsigned i = 0; c && i < c->n_text_searches; i++)
		if (view_eq(c->text_searches[i].name, name))
			return c->text_searches[i].sql;
	return VIEW_NONE;
}

const struct function *catalog_function(const struct catalog *c, struct view name)
{
	struct function wanted = { .name = name };
	if (!c->n_functions)
		return NULL;
	return bsearch(&wanted, c->functions, c->n_functions, sizeof wanted, functions_by_name);
}

const struct column *resource_column(const struct resource *res, struct view name)
{
	for (unsigned i = 0; i < res->n_columns; i++)
		if (!res->columns[i].hidden && view_eq(res->columns[i].name, name))
			return &res->columns[i];
	return NULL;
}

static bool is_in(const struct catalog *c, const uint64_t *set, struct view role)
{
	if (!role.p)
		return true;
	int i = role_index(c, role);
	return i < 0 || ((set[i / 64] >> (i % 64)) & 1);
}

bool resource_may(const struct catalog *c, const struct resource *res, enum privilege p, struct view role)
{
	return is_in(c, res->may[p], role);
}

bool function_may(const struct catalog *c, const struct function *f, struct view role)
{
	return is_in(c, f->may, role);
}
