"""composure.expose() and composure.unexpose(): what they take, what they refuse and in which words."""

import threading

import pytest
from sqlcluster import Session

SETUP = """
CREATE TABLE public.users (id bigint PRIMARY KEY, name text NOT NULL, email text UNIQUE, password text,
                           age int, extra json, created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE public.no_key (a int, b text NOT NULL);
CREATE UNIQUE INDEX ON public.no_key (a);
CREATE TABLE public.unique_key (a int NOT NULL, b int NOT NULL, c int NOT NULL, d text);
CREATE UNIQUE INDEX ON public.unique_key (a, b);
CREATE UNIQUE INDEX ON public.unique_key (c) WHERE c > 0;
CREATE UNIQUE INDEX ON public.unique_key (d);
CREATE TABLE public.json_key (id int PRIMARY KEY, doc json NOT NULL);
CREATE VIEW public.plain_view AS SELECT id, name FROM public.users;
CREATE VIEW public.sum_view AS SELECT name, count(*) AS n FROM public.users GROUP BY name;
CREATE MATERIALIZED VIEW public.mat AS SELECT name, count(*) AS n FROM public.users GROUP BY name;
CREATE SEQUENCE public.seq;
CREATE SCHEMA "Other Schema";
CREATE TABLE "Other Schema"."My, Table" ("The Id" int PRIMARY KEY);
CREATE TABLE "Other Schema".users (id int PRIMARY KEY);
"""


@pytest.fixture(scope="module")
def shared(migrated_template):
    database = migrated_template.cluster.create_database("sql_expose", migrated_template.name)
    database.sql(SETUP)
    return database


@pytest.fixture
def session(shared):
    session = Session(shared, keep=False)
    session.run("CREATE ROLE sql_api NOLOGIN")
    yield session
    session.close()


@pytest.fixture
def database(bare_database):
    """For tests with more than one session."""
    bare_database.sql(SETUP)
    return bare_database


def expose(arguments):
    return f"SELECT composure.expose({arguments})"


REFUSED = [
    # arguments, the message, a part of the hint
    ("'public.userz'", 'relation "public.userz" does not exist', "Write it as schema.table"),
    ("'PUBLIC.\"USERS\"'", 'relation "PUBLIC."USERS"" does not exist', "Did you mean 'public.users'?"),
    ("'12345'", 'relation "12345" does not exist', "Write it as"),
    ("''", 'relation "" does not exist', "Write it as"),
    ("'a.b.c.d'", 'relation "a.b.c.d" does not exist', "Write it as"),
    ("'\"'", 'relation """ does not exist', "Write it as"),
    ("NULL", 'relation "" does not exist', "Write it as"),
    ("'public.seq'", "sequence public.seq cannot be exposed", "takes a table"),
    ("'public.users_pkey'", "index public.users_pkey cannot be exposed", "takes a table"),
    ("'composure.api_key'", "table composure.api_key belongs to Composure itself and cannot be exposed", "your own"),
    ("'pg_catalog.pg_class'", "table pg_catalog.pg_class belongs to PostgreSQL and cannot be exposed", "a view of your own"),
    ("'information_schema.tables'", "view information_schema.tables belongs to PostgreSQL and cannot be exposed", "a view"),
    ("'public.no_key'", "table public.no_key has no key: neither a primary key nor a unique index of NOT NULL columns",
     "ALTER TABLE public.no_key ADD PRIMARY KEY"),
    ("'public.plain_view'", "view public.plain_view needs a key", "key => '{...}'"),
    ("'public.mat'", "materialized view public.mat needs a key", "key => '{...}'"),
    ("'public.users', key => '{nope}'", 'key: table public.users has no column "nope"', "Its columns are: id, name, email"),
    ("'public.users', hidden => '{nope}'", 'hidden: table public.users has no column "nope"', "Its columns are:"),
    ("'public.users', read_only => '{nope}'", 'read_only: table public.users has no column "nope"', "Its columns are:"),
    ("'public.users', default_order => 'nope'", 'default_order: table public.users has no column "nope"', "Its columns"),
    ("'public.users', owner => 'nope'", 'owner: table public.users has no column "nope"', "Its columns are:"),
    ("'public.users', hidden => '{NULL}'", 'hidden: table public.users has no column ""', "Its columns are:"),
    ("'public.users', hidden => '{ctid}'", 'hidden: table public.users has no column "ctid"', "Its columns are:"),
    ("'public.users', hidden => '{id}'", 'hidden: column "id" is part of the key, which every item\'s URL shows', "visible"),
    ("'public.no_key', key => '{b}', hidden => '{a,b}'", "hidden: no column of table public.no_key is left", "fewer"),
    ("'public.users', key => '{}'", "key: it is empty", "leave it out"),
    ("'public.users', key => '{id,id}'", "key: a column is there twice", "once"),
    ("'public.no_key', key => '{a}'", 'key: column "a" of table public.no_key may be null',
     "ALTER TABLE public.no_key ALTER COLUMN a SET NOT NULL;"),
    ("'public.json_key', key => '{doc}'", 'key: column "doc" has type json, which has no order', "btree"),
    ("'public.users', default_order => 'extra'", 'default_order: column "extra" has type json, which has no order', "btree"),
    ("'public.users', default_order => 'password', hidden => '{password}'", 'default_order: column "password" is hidden',
     "visible columns"),
    ("'public.users', default_order => 'name sideways'", 'default_order: "name sideways" is not understood', "like SQL"),
    ("'public.users', default_order => ', name'", 'default_order: ", name" is not understood', "like SQL"),
    ("'public.users', default_order => 'name,'", "default_order: a column is missing after the last comma", "like SQL"),
    ("'public.users', default_order => 'name, name desc'", 'default_order: column "name" is there twice', "once"),
    ("'public.users', optional => '{nope}'", 'optional: table public.users has no column "nope"', "Its columns are: id, name, email"),
    ("'public.users', optional => '{NULL}'", 'optional: table public.users has no column ""', "Its columns are:"),
    ("'public.users', optional => '{age,id}'", 'optional: column "id" is part of the key', "no page a cursor"),
    ("'public.plain_view', key => '{name}', optional => '{name}'", 'optional: column "name" is part of the key', "no page a cursor"),
    ("'public.users', optional => '{age}', default_order => 'name, age desc'", 'optional: the default order uses column "age"', "default_order"),
    ("'public.users', optional => '{email}', owner => 'email'", 'optional: column "email" says whose row it is', "Every query"),
    ("'public.users', optional => '{password}', hidden => '{password}'", 'optional: column "password" is hidden', "in no answer"),
    ("'public.users', name => ''", 'name: "" cannot be part of a URL', "Choose another"),
    ("'public.users', name => '.'", 'name: "." cannot be part of a URL', "Choose another"),
    ("'public.users', name => '..'", 'name: ".." cannot be part of a URL', "Choose another"),
    ("'public.users', name => 'rpc'", 'name: "rpc" cannot be part of a URL', "Choose another"),
    ("'public.users', name => 'a/b'", 'name: "a/b" cannot be part of a URL', "Choose another"),
    ("'public.users', name => E'a\\nb'", 'name: "a?b" cannot be part of a URL', "Choose another"),
    ("'\"Other Schema\".\"My, Table\"'", 'name: "My, Table" cannot be part of a URL', "Choose another"),
    ("'public.users', methods => '{GET,TRACE}'", 'methods: "TRACE" is not a method', "GET, POST, PATCH, PUT and DELETE"),
    ("'public.users', methods => '{}'", "methods: none is left", "at least one"),
    ("'public.users', methods => '{HEAD}'", "methods: none is left", "at least one"),
    ("'public.sum_view', key => '{name}', methods => '{GET,POST}'", "methods: view public.sum_view cannot take POST", "GET"),
    ("'public.mat', key => '{name}', methods => '{DELETE}'", "methods: materialized view public.mat cannot take DELETE", "GET"),
    ("'public.users', page_max => 1001", "page_max must be between 1 and 1000, not 1001", "next_cursor"),
    ("'public.users', page_max => 0", "page_max must be between 1 and 1000, not 0", "next_cursor"),
    ("'public.users', page_default => 5000", "page_default must be between 1 and 1000, not 5000", "next_cursor"),
    ("'public.users', page_default => 0", "page_default must be between 1 and page_max (200), not 0", "no limit"),
    ("'public.users', page_default => 60, page_max => 50", "page_default must be between 1 and page_max (50), not 60", "no limit"),
    ("'public.users', cost_read => -1", "cost_read must not be negative", "tokens"),
    ("'public.users', cost_write => -1", "cost_write must not be negative", "tokens"),
    ("'public.users', idempotency => 'always'", 'idempotency: "always" is not known', "required, optional and none"),
    ("'public.users', deadline => '0'", "deadline must be between 1 ms and 10 minutes, not 00:00:00", "2 seconds"),
    ("'public.users', deadline => '1 hour'", "deadline must be between 1 ms and 10 minutes, not 01:00:00", "2 seconds"),
    ("'public.users', depends => '{public.nope}'", 'relation "public.nope" does not exist', "Write it as"),
    ("'public.users', cache => ''", "cache: it is empty", "private, no-cache"),
    ("'public.users', cache => 'ttl'", "cache: ttl needs a number of seconds", "ttl=30"),
    ("'public.users', cache => 'ttl=-1'", "cache: ttl needs a number of seconds", "ttl=30"),
    ("'public.users', cache => 'max-age=1.5'", "cache: max-age needs a number of seconds", "max-age=30"),
    ("'public.users', cache => 'forever'", 'cache: "forever" is not a directive', "public, private"),
    ("'public.users', cache => 'ttl=1,,no-cache'", 'cache: "" is not a directive', "public, private"),
    ("'public.users', cache => 'immutable=1'", "cache: immutable takes no value", "only immutable"),
    ("'public.users', cache => 'ttl=1, ttl=2'", "cache: ttl is there twice", "once"),
    ("'public.users', cache => 'public, private'", "cache: public and private exclude each other", "one of them"),
    ("'public.users', cache => 'public, no-store'", "cache: public and no-store exclude each other", "one of them"),
    ("'public.users', cache => 'must-revalidate, stale-if-error=9'", "cache: must-revalidate forbids what stale-while-revalidate and stale-if-error allow",
     "one or the other"),
    ("'public.users', cache => 'public, max-age=1'",
     'cache: public, but role "composure_anonymous" may not select from table public.users',
     "GRANT SELECT ON public.users TO composure_anonymous;"),
]


@pytest.mark.parametrize("arguments, message, hint", REFUSED, ids=[r[0] for r in REFUSED])
def test_a_wrong_argument_is_refused_in_plain_words(session, arguments, message, hint):
    version = session.one("SELECT catalog_version FROM composure.installation")
    said, hinted = session.refused(expose(arguments))
    assert said == message
    assert hint in hinted
    assert session.one("SELECT count(*) FROM composure.resource") == 0
    assert session.one("SELECT catalog_version FROM composure.installation") == version


def test_a_temporary_table_is_refused(session):
    session.run("CREATE TEMP TABLE short (id int PRIMARY KEY)")
    message, hint = session.refused(expose("'short'"))
    assert message.endswith("is temporary: no other session can see it")


def test_a_name_taken_by_another_relation_is_refused(session):
    session.run(expose("'public.users'"))
    message, hint = session.refused(expose("'\"Other Schema\".users'"))
    assert message == 'name: "users" is taken by table public.users'
    assert "SELECT composure.unexpose('users');" in hint
    session.run(expose("'\"Other Schema\".users', name => 'others'"))


def test_a_name_whose_relation_is_gone_is_free(session):
    session.run(expose("'public.users'"))
    session.run("DROP TABLE public.users CASCADE; CREATE TABLE public.users (id int PRIMARY KEY)")
    assert session.catalog()["resources"] == []
    assert session.one("SELECT state FROM composure.resources") == "its relation is gone: unexpose it"
    session.run(expose("'public.users'"))
    assert session.resource("users")["columns"][0]["type"] == "pg_catalog.int4"


def test_expose_tells_the_path_and_what_it_decided(session):
    session.run("GRANT SELECT ON public.users TO composure_anonymous")
    assert session.one(expose("'public.users', hidden => '{password}', cache => 'TTL=030 ,Stale-If-Error=600', "
                              "deadline => '1.5 s', default_order => 'created_at desc'")).splitlines() == [
        "/users  table public.users",
        "  methods  GET, POST, PATCH, PUT, DELETE",
        "  key      id",
        "  order    created_at desc, id desc",
        "  page     50, at most 200",
        "  cache    ttl=30, stale-if-error=600",
        "  hidden   password",
        "  deadline 1500 ms",
        "  cached   for each role (a table without row-level security)"]
    assert session.said == ""


def test_partial_answers_are_allowed_by_expose_and_no_longer_without(session):
    said = session.one(expose("'public.users', partial => true, optional => '{age,extra}'"))
    assert "  partial  also where nobody asks for it" in said and "  optional age, extra" in said
    users = session.resource("users")
    assert (users["partial"], users["optional"]) == (True, ["age", "extra"])
    version = session.one("SELECT catalog_version FROM composure.installation")
    said = session.one(expose("'public.users'"))
    assert "partial" not in said and "optional" not in said
    users = session.resource("users")
    assert (users["partial"], users["optional"]) == (False, [])
    assert session.one("SELECT catalog_version FROM composure.installation") > version


def test_an_optional_column_that_is_gone_is_a_problem_of_the_resource(session):
    session.run(expose("'public.users', optional => '{age}'"))
    session.run("ALTER TABLE public.users DROP COLUMN age")
    assert session.one("SELECT state FROM composure.resources") == 'column "age" is gone: expose it again'


def test_optional_columns_beside_volatile_functions_are_a_warning(session):
    session.run("CREATE FUNCTION public.costly() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1'")
    session.run("CREATE VIEW public.costs AS SELECT id, public.costly() AS c FROM public.users")
    session.run(expose("'public.costs', key => '{id}', optional => '{c}'"))
    assert "view public.costs calls the volatile function costly()" in session.said and "STABLE" in session.said
    session.run("ALTER FUNCTION public.costly() STABLE")
    session.run(expose("'public.costs', key => '{id}', optional => '{c}'"))
    assert "volatile" not in session.said


def test_a_relation_is_found_in_the_callers_search_path(session):
    session.run('SET search_path = "Other Schema"')
    session.run(expose("'users'"))
    assert session.resource("users")["schema"] == "Other Schema"


def test_a_name_may_be_anything_that_a_url_can_carry(session):
    for name in ["Ünïcode", "with space", "a.b", "_", "100%", "q?x#y", "x" * 200, "Rpc"]:
        session.run("SELECT composure.expose('public.users', name => %s)", name)
        assert session.resource(name)["relation"] == "users"
    message, hint = session.refused("SELECT composure.expose('public.users', name => %s)", "x" * 201)
    assert message.endswith("cannot be part of a URL")


def test_exposing_again_replaces_all_that_was_said(session):
    session.run(expose("'public.users', cache => 'ttl=1', page_max => 10, methods => '{GET}'"))
    session.run(expose("'public.users'"))
    users = session.resource("users")
    assert (users["cache"], users["page_max"], users["page_default"]) == (None, 200, 50)
    assert users["methods"] == ["GET", "POST", "PATCH", "PUT", "DELETE"]


def test_a_hidden_column_that_becomes_visible_is_a_warning(session):
    session.run(expose("'public.users', hidden => '{password,email}'"))
    session.run(expose("'public.users', hidden => '{email}'"))
    assert 'column "password" of /users was hidden and is visible now' in session.said
    assert '"email"' not in session.said


def test_without_a_name_an_exposed_relation_keeps_its_name(session):
    session.run(expose("'public.users', name => 'people', hidden => '{password}'"))
    session.run(expose("'public.users', cache => 'ttl=1', hidden => '{password}'"))
    assert [r["name"] for r in session.catalog()["resources"]] == ["people"]


def test_a_relation_may_have_several_names_and_then_must_be_named(session):
    session.run(expose("'public.users', name => 'people', hidden => '{password}'"))
    session.run(expose("'public.users', name => 'staff'"))
    message, hint = session.refused(expose("'public.users'"))
    assert message == "table public.users is exposed under several names: people, staff"
    assert "name => 'people'" in hint


def test_the_key_of_a_table_is_its_primary_key_or_a_unique_index_of_not_null_columns(session):
    session.run(expose("'public.unique_key'"))
    assert session.resource("unique_key")["key"] == ["a", "b"]
    session.run("ALTER TABLE public.unique_key ADD PRIMARY KEY (c, a)")
    assert session.resource("unique_key")["key"] == ["c", "a"]


def test_a_key_that_nothing_makes_unique_is_a_warning(session):
    session.run(expose("'public.unique_key', key => '{c}'"))
    assert "nothing makes the key (c) of table public.unique_key unique" in session.said
    assert "CREATE UNIQUE INDEX ON public.unique_key (c);" in session.said
    session.run(expose("'public.unique_key', key => '{b,a,c}'"))
    assert "nothing makes" not in session.said
    assert session.resource("unique_key")["key"] == ["b", "a", "c"]


def test_a_table_that_loses_its_key_leaves_the_api_until_it_has_one_again(session):
    session.run(expose("'public.users'"))
    session.run("ALTER TABLE public.users DROP CONSTRAINT users_pkey CASCADE")
    assert session.catalog()["resources"] == []
    assert session.one("SELECT state FROM composure.resources") == "its key is gone: give the table a primary key"
    session.run("ALTER TABLE public.users ADD PRIMARY KEY (id)")
    assert session.resource("users")["key"] == ["id"]


@pytest.mark.parametrize("argument", ["hidden => '{password}'", "read_only => '{password}'", "owner => 'password'",
                                      "default_order => 'password'"])
def test_a_resource_whose_column_was_renamed_leaves_the_api(session, argument):
    session.run(expose(f"'public.users', {argument}"))
    session.run("ALTER TABLE public.users RENAME password TO passwd")
    assert session.catalog()["resources"] == []
    assert session.one("SELECT state FROM composure.resources") == 'column "password" is gone: expose it again'


def test_renaming_the_key_or_the_table_changes_nothing_for_the_api(session):
    session.run(expose("'public.users'"))
    session.run("ALTER TABLE public.users RENAME id TO user_id; ALTER TABLE public.users RENAME TO people")
    users = session.resource("users")
    assert (users["key"], users["relation"]) == (["user_id"], "people")


def test_views_take_the_methods_that_postgresql_can_do(session):
    session.run(expose("'public.plain_view', key => '{id}'"))
    assert session.resource("plain_view")["methods"] == ["GET", "POST", "PATCH", "PUT", "DELETE"]
    session.run(expose("'public.sum_view', key => '{name}'"))
    assert session.resource("sum_view")["methods"] == ["GET"]
    session.run(expose("'public.mat', key => '{name}'"))
    assert session.resource("mat")["methods"] == ["GET"]


def test_an_instead_of_trigger_makes_a_view_writable(session):
    session.run("CREATE FUNCTION public.nop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; "
                "CREATE TRIGGER ins INSTEAD OF INSERT ON public.sum_view FOR EACH ROW EXECUTE FUNCTION public.nop()")
    session.run(expose("'public.sum_view', key => '{name}'"))
    assert session.resource("sum_view")["methods"] == ["GET", "POST"]


def test_methods_are_put_in_capitals_and_order(session):
    session.run(expose("'public.users', methods => '{delete,head,options,GET,get}'"))
    assert session.resource("users")["methods"] == ["GET", "DELETE"]


ORDERS = [
    (None, [("id", False, False)]),
    ("name", [("name", False, False), ("id", False, False)]),
    ("name asc", [("name", False, False), ("id", False, False)]),
    ("created_at DESC", [("created_at", True, True), ("id", True, True)]),
    ("age desc nulls last, name", [("age", True, False), ("name", False, False), ("id", False, False)]),
    ("age nullsfirst", [("age", False, True), ("id", False, False)]),
    ("  age   asc   NULLS  FIRST ,  id desc ", [("age", False, True), ("id", True, True)]),
    ('"name" desc', [("name", True, True), ("id", True, True)]),
]


@pytest.mark.parametrize("text, order", ORDERS, ids=[str(o[0]) for o in ORDERS])
def test_a_default_order_is_made_total_by_the_key(session, text, order):
    session.run("SELECT composure.expose('public.users', default_order => %s)", text)
    assert [(o["column"], o["desc"], o["nulls_first"]) for o in session.resource("users")["order"]] == order


def test_an_order_takes_quoted_names(session):
    session.run("CREATE TABLE public.odd (id int PRIMARY KEY, \"a, \"\"b\"\" desc\" int, \"Cap\" int)")
    session.run("SELECT composure.expose('public.odd', default_order => %s)", '"a, ""b"" desc" desc, Cap')
    assert [(o["column"], o["desc"]) for o in session.resource("odd")["order"]] == [
        ('a, "b" desc', True), ("Cap", False), ("id", False)]


def test_a_page_default_and_maximum_follow_each_other(session):
    for arguments, pages in [("page_max => 20", (20, 20)), ("page_default => 500", (500, 500)),
                             ("page_default => 1, page_max => 1000", (1, 1000))]:
        session.run(expose(f"'public.users', {arguments}"))
        users = session.resource("users")
        assert (users["page_default"], users["page_max"]) == pages


def test_a_relation_no_role_may_select_is_a_warning_with_the_grants_to_run(session):
    session.run(expose("'public.users'"))
    assert "no API role may select from table public.users yet" in session.said
    assert "GRANT USAGE ON SCHEMA public TO " in session.said
    assert "GRANT SELECT ON public.users TO " in session.said
    session.run("SELECT composure.create_key('k', role => 'sql_api')")
    session.run(expose("'\"Other Schema\".\"My, Table\"', name => 'mine'"))
    assert 'GRANT USAGE ON SCHEMA "Other Schema" TO ' in session.said
    assert 'GRANT SELECT ON "Other Schema"."My, Table" TO ' in session.said
    session.run("GRANT SELECT ON \"Other Schema\".\"My, Table\" TO sql_api")
    session.run(expose("'\"Other Schema\".\"My, Table\"', name => 'mine'"))
    assert "no API role may select" in session.said
    session.run("GRANT USAGE ON SCHEMA \"Other Schema\" TO sql_api")
    session.run(expose("'\"Other Schema\".\"My, Table\"', name => 'mine'"))
    assert session.said == ""


def test_a_right_on_one_column_is_enough(session):
    session.run("GRANT SELECT (id) ON public.users TO composure_anonymous")
    session.run(expose("'public.users', cache => 'public'"))
    assert session.said == ""
    assert session.resource("users")["select_roles"] == ["composure_anonymous"]


def test_everything_else_reaches_the_catalog(session):
    session.run(expose("'public.users', read_only => '{created_at}', owner => 'age', cost_read => 0, cost_write => 5, "
                       "idempotency => 'required', deadline => '250 ms', depends => '{public.no_key}', trust_me => true"))
    users = session.resource("users")
    assert [c["name"] for c in users["columns"] if c["read_only"]] == ["created_at"]
    assert (users["owner"], users["cost_read"], users["cost_write"], users["idempotency"], users["deadline_ms"]) == (
        "age", 0, 5, "required", 250)
    assert session.run("SELECT depends::text, trust_me FROM composure.resource") == [("{no_key}", True)]


def test_unexpose_takes_a_resource_away(session):
    session.run(expose("'public.users'"))
    assert session.one("SELECT composure.unexpose('users')") == "/users is no longer served"
    assert session.catalog()["resources"] == []


def test_unexposing_what_is_not_there_tells_what_is(session):
    assert session.refused("SELECT composure.unexpose('x')") == ('nothing is exposed as "x"', "Nothing is exposed yet.")
    session.run(expose("'public.users'"))
    assert session.refused("SELECT composure.unexpose('x')") == ('nothing is exposed as "x"', "Exposed are: users.")


def test_each_change_of_the_catalog_counts_in_its_own_transaction(database):
    def version(s):
        return s.one("SELECT catalog_version FROM composure.installation")

    session, other = Session(database), Session(database)
    start = version(session)
    session.run(expose("'public.users'"))
    assert version(session) == session.catalog()["version"] == start + 1
    session.run("BEGIN")
    session.run(expose("'public.users', cache => 'ttl=1'"))
    assert version(other) == start + 1
    session.run("COMMIT")
    assert version(other) == start + 2
    session.run("SELECT composure.unexpose('users')")
    assert version(other) == start + 3
    session.close()
    other.close()


def test_exposers_wait_for_each_other(database):
    session, other, watcher = Session(database), Session(database), Session(database)
    pid = other.one("SELECT pg_backend_pid()")
    session.run("BEGIN")
    session.run(expose("'public.users'"))
    refusal = []
    thread = threading.Thread(target=lambda: refusal.append(other.refused(expose("'\"Other Schema\".users'"))))
    thread.start()
    while not watcher.one("SELECT cardinality(pg_blocking_pids(%s))", pid):
        assert thread.is_alive()
    session.run("COMMIT")
    thread.join()
    assert refusal[0][0] == 'name: "users" is taken by table public.users'
    for each in (session, other, watcher):
        each.close()
