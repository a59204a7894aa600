#include "config.h"

#include "unit.h"

#include <stdio.h>

#include "base/log.h"
#include "catalog/catalog.h"

#define SECRET "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

/* What composure.catalog() returns, with places to break it. */
#define INSTALLATION "{\"id\":\"i\",\"secret\":\"" SECRET "\",\"anonymous_role\":\"anon\",\"worker_role\":\"w\"}"
#define COLUMN(name, more)                                                                                             \
	"{\"name\":" name                                                                                              \
	",\"type_oid\":20,\"base_oid\":20,\"array_oid\":1016,\"type_kind\":\"b\",\"type\":\"pg_catalog.int8\"," more   \
	"\"category\":\"N\",\"elem_oid\":0,\"not_null\":true,\"read_only\":false,\"has_default\":false,"               \
	"\"generated\":false,\"sortable\":true,\"nondeterministic\":false}"
#define RESOURCE(name, columns, key, order, more)                                                                      \
	"{\"name\":\"" name "\",\"oid\":16384,\"schema\":\"public\",\"relation\":\"users\",\"kind\":\"r\"," more       \
	"\"methods\":[\"GET\",\"POST\",\"DELETE\",\"BREW\"],\"columns\":[" columns "],\"key\":[" key                   \
	"],\"order\":[" order "],\"page_default\":50,\"page_max\":200,\"cost_read\":1,\"cost_write\":2,"               \
	"\"idempotency\":\"required\",\"deadline_ms\":1500,\"rls\":true,\"exact_count\":true," \
	"\"reading_runs_code\":false,\"writing_runs_code\":true,"                                                      \
	"\"regular_expressions\":false,"                                                                               \
	"\"select_roles\":[\"anon\",\"user\"],\"insert_roles\":[\"user\",\"stranger\"],\"update_roles\":[],"           \
	"\"delete_roles\":[]}"
#define ID COLUMN("\"id\"", "\"hidden\":false,")
#define SECRET_COLUMN COLUMN("\"secret\"", "\"hidden\":true,")
#define ODD COLUMN("\"a \\\"b\\\"\"", "\"hidden\":false,")
#define BY_ID "{\"column\":\"id\",\"desc\":false,\"nulls_first\":false}"
#define CATALOG(resources)                                                                                             \
	"{\"version\":7,\"installation\":" INSTALLATION ",\"roles\":[\"anon\",\"user\"],\"resources\":[" resources     \
	"],\"functions\":[" FUNCTION "],\"relationships\":[" RELATIONSHIP                                              \
	"],\"text_search\":{\"english\":\"'pg_catalog.english'::pg_catalog.regconfig\"}}"
#define FUNCTION                                                                                                       \
	"{\"name\":\"pay\",\"oid\":1,\"schema\":\"s\",\"function\":\"p q\",\"volatility\":\"v\",\"returns\":\"set\","  \
	"\"arguments\":[{\"name\":\"a\",\"type\":\"pg_catalog.int8\",\"type_oid\":20,\"base_oid\":20,\"has_default\":" \
	"true}],"                                                                                                      \
	"\"methods\":[\"POST\"],\"cost\":1,\"idempotency\":\"required\",\"deadline_ms\":null,\"rows_max\":9,"          \
	"\"cache\":null,"                                                                                              \
	"\"roles\":[\"user\"]}"
#define NOTHING_MORE "\"functions\":[],\"relationships\":[],\"text_search\":{}"
#define RELATIONSHIP                                                                                                   \
	"{\"constraint\":\"fk\",\"from\":1,\"from_columns\":[\"a \\\"b\\\"\"],\"to\":16384,\"to_columns\":[\"id\"],"   \
	"\"unique\":true}"
#define USERS                                                                                                          \
	RESOURCE("users", ID "," SECRET_COLUMN "," ODD, "\"id\"", BY_ID,                                              \
		"\"cache\":\"ttl=30\",\"owner\":\"secret\",\"partial\":true,\"optional\":[\"a \\\"b\\\"\"],")

static struct catalog *parse(const char *json)
{
	const char *why = NULL;
	struct catalog *c = catalog_parse(view_of(json), &why);
	if (!c)
		print_error("%s\n", why);
	assert_non_null(c);
	return c;
}

static void a_catalog_is_read_whole(void **state)
{
	(void)state;
	struct catalog *c = parse(CATALOG(USERS));
	assert_int_equal(c->version, 7);
	assert_view(c->installation_id, "i");
	assert_view(c->anonymous_role, "anon");
	assert_int_equal(c->secret[0], 0x00);
	assert_int_equal(c->secret[31], 0xff);
	assert_int_equal(c->n_relationships, 1);
	assert_view(c->relationships[0].constraint, "fk");
	assert_int_equal(c->relationships[0].to, 16384);
	assert_view(c->relationships[0].from_quoted[0], "\"a \"\"b\"\"\"");
	assert_view(c->relationships[0].to_name[0], "id");
	assert_true(c->relationships[0].unique);
	assert_view(catalog_text_search(c, VIEW("english")), "'pg_catalog.english'::pg_catalog.regconfig");
	assert_absent(catalog_text_search(c, VIEW("klingon")));
	const struct function *f = catalog_function(c, VIEW("pay"));
	assert_non_null(f);
	assert_null(catalog_function(c, VIEW("p q")));
	assert_view(f->call, "\"s\".\"p q\"");
	assert_int_equal(f->methods, CATALOG_POST);
	assert_true(f->is_volatile);
	assert_int_equal(f->returns, RETURNS_SET);
	assert_int_equal(f->rows_max, 9);
	assert_int_equal(f->idempotency, IDEMPOTENCY_REQUIRED);
	assert_int_equal(f->n_arguments, 1);
	assert_view(f->arguments[0].quoted, "\"a\"");
	assert_true(f->arguments[0].has_default);
	assert_true(function_may(c, f, VIEW("user")));
	assert_false(function_may(c, f, VIEW("anon")));
	assert_true(function_may(c, f, VIEW_NONE));
	const struct resource *r = catalog_resource(c, VIEW("users"));
	assert_non_null(r);
	assert_true(r->exact_count);
	assert_true(r->partial);
	assert_true(r->columns[2].optional);
	assert_false(r->columns[0].optional);
	assert_int_equal(r->columns[0].array_oid, 1016);
	assert_int_equal(r->oid, 16384);
	assert_view(r->relation, "\"public\".\"users\"");
	assert_int_equal(r->kind, 'r');
	assert_int_equal(r->methods, CATALOG_GET | CATALOG_POST | CATALOG_DELETE);
	assert_int_equal(r->n_columns, 3);
	assert_view(r->columns[2].name, "a \"b\"");
	assert_view(r->columns[2].quoted, "\"a \"\"b\"\"\"");
	assert_view(r->columns[0].type, "pg_catalog.int8");
	assert_int_equal(r->columns[0].base_oid, 20);
	assert_int_equal(r->columns[0].category, 'N');
	assert_int_equal(r->n_key, 1);
	assert_int_equal(r->key[0], 0);
	assert_int_equal(r->n_order, 1);
	assert_int_equal(r->page_default, 50);
	assert_int_equal(r->page_max, 200);
	assert_view(r->policy.control, "private, no-cache");
	assert_false(r->policy.is_public);
	assert_int_equal(r->cost_write, 2);
	assert_int_equal(r->idempotency, IDEMPOTENCY_REQUIRED);
	assert_int_equal(r->owner, 1);
	assert_int_equal(r->deadline_us, 1500000);
	assert_true(r->rls);
	catalog_unref(c);
}

static void an_empty_catalog_is_one_too(void **state)
{
	(void)state;
	struct catalog *c = parse(CATALOG(""));
	assert_int_equal(c->n_resources, 0);
	assert_null(catalog_resource(c, VIEW("users")));
	catalog_unref(c);
}

static void what_is_null_is_absent(void **state)
{
	(void)state;
	struct catalog *c = parse("{\"version\":1,\"installation\":{\"id\":\"i\",\"secret\":\"" SECRET
				  "\",\"anonymous_role\":null},\"roles\":[],\"resources\":[" RESOURCE("users", ID,
					  "\"id\"", BY_ID, "\"cache\":null,\"owner\":null,") "]," NOTHING_MORE "}");
	assert_absent(c->anonymous_role);
	const struct resource *r = catalog_resource(c, VIEW("users"));
	assert_view(r->policy.control, "private, no-cache");
	assert_int_equal(r->owner, -1);
	catalog_unref(c);
}

static void the_policy_says_what_is_public(void **state)
{
	(void)state;
	struct catalog *c =
		parse(CATALOG(RESOURCE("a", ID, "\"id\"", BY_ID, "\"cache\":\"public, max-age=30\",") "," RESOURCE(
			"b", ID, "\"id\"", BY_ID, "\"cache\":\"max-age=30 , public\",") "," RESOURCE("c", ID, "\"id\"",
			BY_ID, "\"cache\":\"private, x-public=1\",")));
	assert_true(catalog_resource(c, VIEW("a"))->policy.is_public);
	assert_true(catalog_resource(c, VIEW("b"))->policy.is_public);
	assert_false(catalog_resource(c, VIEW("c"))->policy.is_public);
	catalog_unref(c);
}

static void resources_are_found_by_their_exact_name(void **state)
{
	(void)state;
	struct catalog *c = parse(CATALOG(RESOURCE("users", ID, "\"id\"", BY_ID, "") "," RESOURCE("Users", ID, "\"id\"",
		BY_ID, "") "," RESOURCE("user", ID, "\"id\"", BY_ID, "") "," RESOURCE("gr\xc3\xb6\xc3\x9f"
										      "e",
		ID, "\"id\"", BY_ID, "")));
	static const char *const there[] = { "users", "Users", "user",
		("gr\xc3\xb6\xc3\x9f"
		 "e") };
	for (size_t i = 0; i < sizeof there / sizeof *there; i++) {
		const struct resource *r = catalog_resource(c, view_of(there[i]));
		assert_non_null(r);
		assert_same_view(r->name, view_of(there[i]));
	}
	assert_null(catalog_resource(c, VIEW("USERS")));
	assert_null(catalog_resource(c, VIEW("use")));
	assert_null(catalog_resource(c, VIEW("userss")));
	assert_null(catalog_resource(c, VIEW("")));
	catalog_unref(c);
}

static void a_hidden_column_does_not_exist(void **state)
{
	(void)state;
	struct catalog *c = parse(CATALOG(USERS));
	const struct resource *r = catalog_resource(c, VIEW("users"));
	assert_ptr_equal(resource_column(r, VIEW("id")), &r->columns[0]);
	assert_ptr_equal(resource_column(r, VIEW("a \"b\"")), &r->columns[2]);
	assert_null(resource_column(r, VIEW("secret")));
	assert_null(resource_column(r, VIEW("ID")));
	catalog_unref(c);
}

static void a_role_may_what_it_was_granted(void **state)
{
	(void)state;
	struct catalog *c = parse(CATALOG(USERS));
	const struct resource *r = catalog_resource(c, VIEW("users"));
	assert_true(resource_may(c, r, PRIVILEGE_SELECT, VIEW("anon")));
	assert_true(resource_may(c, r, PRIVILEGE_INSERT, VIEW("user")));
	assert_false(resource_may(c, r, PRIVILEGE_INSERT, VIEW("anon")));
	assert_false(resource_may(c, r, PRIVILEGE_DELETE, VIEW("user")));
	/* PostgreSQL decides about the worker's own role, and about one that the catalog has not heard of. */
	assert_true(resource_may(c, r, PRIVILEGE_DELETE, VIEW_NONE));
	assert_true(resource_may(c, r, PRIVILEGE_DELETE, VIEW("new")));
	catalog_unref(c);
}

static void privileges_of_many_roles_are_kept_apart(void **state)
{
	(void)state;
	struct buf json = BUF(65536);
	buf_lit(&json, "{\"version\":1,\"installation\":" INSTALLATION ",\"roles\":[");
	for (int i = 0; i < 200; i++)
		buf_printf(&json, "%s\"r%d\"", i ? "," : "", i);
	buf_lit(&json, "],\"resources\":[" RESOURCE("users", ID, "\"id\"", BY_ID, "") "]," NOTHING_MORE "}");
	/* "anon" and "user" are no roles here; r63, r64 and r199 are put in their place. */
	buf_putc(&json, '\0');
	char *at = strstr(json.p, "[\"anon\",\"user\"]");
	assert_non_null(at);
	memcpy(at, "[\"r64\",\"r199\"] ", strlen("[\"anon\",\"user\"]"));
	struct catalog *c = parse(json.p);
	const struct resource *r = catalog_resource(c, VIEW("users"));
	for (int i = 0; i < 200; i++) {
		char name[16];
		(void)snprintf(name, sizeof name, "r%d", i);
		assert_int_equal(resource_may(c, r, PRIVILEGE_SELECT, view_of(name)), i == 64 || i == 199);
	}
	catalog_unref(c);
	buf_free(&json);
}

static void types_that_bring_operators_have_their_schemas_searched(void **state)
{
	(void)state;
#define TYPED(oid, base, kind, type, category)                                                                         \
	"{\"name\":\"id\",\"type_oid\":" oid ",\"base_oid\":" base ",\"type_kind\":\"" kind "\",\"type\":\"" type      \
	"\",\"category\":\"" category "\",\"elem_oid\":0,\"array_oid\":0,\"not_null\":true,\"hidden\":false,"          \
	"\"read_only\":false,\"has_default\":false,\"generated\":false,\"sortable\":true,\"nondeterministic\":false}"
#define ONE(name, column) RESOURCE(name, column, "\"id\"", BY_ID, "")
	struct catalog *c = parse(CATALOG(ONE("a", TYPED("20001", "20001", "b", "extensions.citext", "S")) "," ONE(
		"b", TYPED("20002", "20002", "b", "\\\"My.\\\"\\\"Types\\\".citext", "S")) "," ONE("c",
		TYPED("20003", "20003", "b", "extensions.other", "U"))));
	assert_view(c->type_schemas, ", extensions, \"My.\"\"Types\"");
	catalog_unref(c);
	c = parse(CATALOG(ONE("d", TYPED("20004", "20004", "e", "public.mood", "E")) "," ONE(
		"e", TYPED("20005", "20", "b", "public.positive", "N")) "," ONE("f",
		TYPED("20006", "20006", "b", "public._citext", "A"))));
	assert_view(c->type_schemas, "");
	catalog_unref(c);
}

/* Cursors and paths would show it. */
static void a_key_that_became_a_hidden_column_takes_its_resource_out(void **state)
{
	(void)state;
	log_init(LOG_LEVEL_ERROR);
	struct catalog *c = parse(CATALOG(RESOURCE("a", ID, "\"id\"", BY_ID, "") "," RESOURCE("b", SECRET_COLUMN,
		"\"secret\"", "{\"column\":\"secret\",\"desc\":false,\"nulls_first\":false}",
		"") "," RESOURCE("c", ID, "\"id\"", BY_ID, "")));
	assert_non_null(catalog_resource(c, VIEW("a")));
	assert_null(catalog_resource(c, VIEW("b")));
	assert_non_null(catalog_resource(c, VIEW("c")));
	catalog_unref(c);
}

static void a_reference_keeps_it(void **state)
{
	(void)state;
	struct catalog *c = parse(CATALOG(USERS));
	assert_ptr_equal(catalog_ref(c), c);
	catalog_unref(c);
	assert_view(c->resources[0].name, "users");
	catalog_unref(c);
	catalog_unref(NULL);
}

static void what_is_no_catalog_is_refused(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"",
		"null",
		"[]",
		"{}",
		"not json",
		CATALOG(USERS) "",
		/* each lacks one thing, or has it of another type */
		"{\"version\":\"7\",\"installation\":" INSTALLATION ",\"roles\":[],\"resources\":[]}",
		"{\"version\":7,\"roles\":[],\"resources\":[]}",
		"{\"version\":7,\"installation\":{\"id\":\"i\"},\"roles\":[],\"resources\":[]}",
		"{\"version\":7,\"installation\":{\"id\":\"i\",\"secret\":\"00\"},\"roles\":[],\"resources\":[]}",
		"{\"version\":7,\"installation\":{\"id\":\"i\",\"secret\":"
		"\"zz112233445566778899aabbccddeeff00112233445566778899"
		"aabbccddeeff\"},\"roles\":[],\"resources\":[]}",
		"{\"version\":7,\"installation\":" INSTALLATION ",\"resources\":[]}",
		"{\"version\":7,\"installation\":" INSTALLATION ",\"roles\":[]}",
		"{\"version\":7,\"installation\":" INSTALLATION ",\"roles\":[],\"resources\":{}}",
		"{\"version\":7,\"installation\":" INSTALLATION ",\"roles\":[],\"resources\":[5]}",
		CATALOG("{\"name\":\"users\"}"),
		CATALOG(RESOURCE("users", "{}", "\"id\"", BY_ID, "")),
		CATALOG(RESOURCE("users", ID, "", BY_ID, "")),
		CATALOG(RESOURCE("users", ID, "\"gone\"", BY_ID, "")),
		CATALOG(RESOURCE("users", ID, "5", BY_ID, "")),
		CATALOG(RESOURCE("users", ID, "\"id\"", "", "")),
		CATALOG(RESOURCE(
			"users", ID, "\"id\"", "{\"column\":\"gone\",\"desc\":false,\"nulls_first\":false}", "")),
		CATALOG(RESOURCE("users", ID "," ODD, "\"id\"",
			"{\"column\":\"a \\\"b\\\"\",\"desc\":false,\"nulls_first\":false}", "")),
		CATALOG(RESOURCE("users", ID, "\"id\"", "{\"column\":\"id\"}", "")),
		CATALOG(RESOURCE("users", ID, "\"id\"", BY_ID, "\"owner\":\"gone\",")),
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		const char *why = NULL;
		bool is_good = i == 5; /* the one that shows that the others are bad for their own reason */
		struct catalog *c = catalog_parse(view_of(bad[i]), &why);
		if (!c == is_good)
			print_error("%zu: %s\n", i, bad[i]);
		assert_int_equal(c != NULL, is_good);
		if (!c)
			assert_string_equal(why,
				"composure.catalog() returned a form that this build does not know: run "
				"sql/migrate.sql");
		catalog_unref(c);
	}
	const char *why = NULL;
	assert_null(catalog_parse(VIEW_NONE, &why));
	assert_non_null(why);
}

/* Every prefix of a good one: a connection that ends half-way must not make half a catalog. */
static void half_a_catalog_is_none(void **state)
{
	(void)state;
	static const char good[] = CATALOG(USERS);
	for (size_t n = 0; n + 1 < sizeof good; n++) {
		const char *why = NULL;
		assert_null(catalog_parse(view_make(good, n), &why));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_catalog_is_read_whole),
		cmocka_unit_test(an_empty_catalog_is_one_too),
		cmocka_unit_test(what_is_null_is_absent),
		cmocka_unit_test(the_policy_says_what_is_public),
		cmocka_unit_test(resources_are_found_by_their_exact_name),
		cmocka_unit_test(a_hidden_column_does_not_exist),
		cmocka_unit_test(a_role_may_what_it_was_granted),
		cmocka_unit_test(privileges_of_many_roles_are_kept_apart),
		cmocka_unit_test(types_that_bring_operators_have_their_schemas_searched),
		cmocka_unit_test(a_key_that_became_a_hidden_column_takes_its_resource_out),
		cmocka_unit_test(a_reference_keeps_it),
		cmocka_unit_test(what_is_no_catalog_is_refused),
		cmocka_unit_test(half_a_catalog_is_none),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
