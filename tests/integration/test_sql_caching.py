"""What our own cache asks of PostgreSQL beside the change feed: what a transaction noted itself, what a write may touch,
and functions with a ttl."""

import time

import pytest
from sqlcluster import Session
from test_sql_changes import SETUP, STATEMENT, Changes


@pytest.fixture(scope="module")
def shared(migrated_template):
    database = migrated_template.cluster.create_database("sql_caching", migrated_template.name)
    database.sql(SETUP)
    return database


@pytest.fixture
def session(shared):
    session = Changes(shared, keep=False)
    yield session
    session.close()


@pytest.fixture
def kept(bare_database):
    bare_database.sql(SETUP)
    session = Changes(bare_database)
    yield session
    session.close()


# What a transaction noted itself

NOTED, STATE = "SELECT * FROM composure.noted()", "SELECT composure.catalog_state()"


def test_a_transaction_hears_what_it_has_noted_and_nothing_of_others(kept, bare_database):
    kept.run("GRANT SELECT, INSERT, DELETE ON public.users, public.orders TO composure_worker")
    kept.expose("users")
    kept.expose("named", key=["id"])
    worker, other = (Session(bare_database, "composure_worker") for _ in range(2))
    assert worker.run(NOTED) == []
    other.run("BEGIN; INSERT INTO public.users (id) VALUES (1)")
    worker.run("BEGIN")
    assert worker.run(NOTED) == []
    worker.run("INSERT INTO public.users (id) VALUES (2), (3)")
    assert sorted(worker.run(NOTED)) == [("named", None, False), ("users", ["2", "3"], False)]
    worker.run("SAVEPOINT a; DELETE FROM public.users")
    assert ("named", None, True) in worker.run(NOTED) and ("users", ["2", "3"], True) in worker.run(NOTED)
    worker.run("ROLLBACK TO a")
    assert sorted(worker.run(NOTED)) == [("named", None, False), ("users", ["2", "3"], False)]
    worker.run("COMMIT")
    assert worker.run(NOTED) == []
    worker.run("BEGIN; SELECT pg_current_xact_id()")
    assert worker.run(NOTED) == []
    other.close()
    worker.close()


def test_asking_what_was_noted_is_cheap_however_full_the_feed_is(kept):
    kept.expose("users")
    kept.run("BEGIN; INSERT INTO public.users (id) VALUES (1); PREPARE noted AS " + NOTED)
    kept.run("EXECUTE noted")
    kept.run("INSERT INTO composure.change (xid, resource, keys) SELECT '3', 'users', ARRAY[i::text] FROM generate_series(1, 50000) i")
    best = 1
    for _ in range(50):
        began = time.monotonic()
        assert kept.run("EXECUTE noted") == [("users", ["1"], False)]
        best = min(best, time.monotonic() - began)
    kept.run("ROLLBACK")
    assert best < 0.002, best  # a look through all rows takes 4 ms


# What a write may touch

def touches(session, name):
    return session.resource(name)["touches"]


def test_an_insert_touches_what_reads_the_table(session):
    session.run("CREATE TABLE public.members (who name PRIMARY KEY); ALTER TABLE public.orders ENABLE ROW LEVEL SECURITY; "
                "CREATE POLICY p ON public.orders USING (EXISTS (SELECT FROM public.members m WHERE m.who = current_user))")
    session.expose("users")
    session.expose("users", name="people", cache="max-age=9")
    session.expose("named", key=["id"])
    session.expose("orders")
    session.expose("members", cache=None)
    session.expose("base", cache=None)
    assert touches(session, "users") == touches(session, "people") == ["named", "users"]
    assert touches(session, "named") == ["named", "users"]  # a row goes into the table behind the view
    assert touches(session, "orders") == touches(session, "members") == ["orders"]
    assert touches(session, "base") == []
    session.run("SELECT composure.unexpose('named')")
    session.expose("users", name="users", cache=None)
    assert touches(session, "people") == []


def test_an_insert_touches_partitions_and_parents(session):
    session.run("CREATE TABLE public.parts_2 PARTITION OF public.parts FOR VALUES FROM (100) TO (200)")
    for name in ("parts", "parts_1", "base", "child"):
        session.expose(name, cache=None)
    for cached, touched in (("parts", {"parts", "parts_1", "parts_2"}), ("parts_1", {"parts", "parts_1"}), ("parts_2", {"parts", "parts_2"}),
                            ("base", {"base", "child"})):
        session.expose(cached, name="cached")
        session.expose("parts_2", name="parts_2", cache=None)
        assert {r["name"] for r in session.catalog()["resources"] if r["touches"] == ["cached"]} - {"cached"} == touched
        session.run("SELECT composure.unexpose('cached')")
    # One that was made a moment ago
    session.expose("parts", name="cached")
    session.run("CREATE TABLE public.parts_3 PARTITION OF public.parts FOR VALUES FROM (200) TO (300)")
    session.expose("parts_3", cache=None)
    assert touches(session, "parts_3") == ["cached"]


def test_the_catalog_of_five_hundred_resources_is_read_and_looked_at_quickly(kept):
    kept.run("DO $$ BEGIN FOR i IN 1..500 LOOP EXECUTE format('CREATE TABLE public.t%s (id int PRIMARY KEY)', i); END LOOP; END $$")
    kept.run("ALTER TABLE composure.resource DISABLE TRIGGER USER; "
             "INSERT INTO composure.resource (name, relation, methods, cache) "
             "SELECT 't' || i, ('public.t' || i)::regclass, '{GET}', 'ttl=5' FROM generate_series(1, 500) i; "
             "ALTER TABLE composure.resource ENABLE TRIGGER USER; SELECT composure.keep_triggers(NULL)")
    roots = "ARRAY(SELECT relation::oid FROM composure.resource)"
    best = whole = state = 10
    for _ in range(5):
        began = time.monotonic()
        assert kept.one(f"SELECT count(*) FROM composure.written_with({roots})") == 500
        best = min(best, time.monotonic() - began)
        began = time.monotonic()
        catalog = kept.catalog()
        whole = min(whole, time.monotonic() - began)
    # Each second, on every host: 11 ms where it was written.
    for _ in range(20):
        began = time.monotonic()
        kept.one(STATE)
        state = min(state, time.monotonic() - began)
    assert all(r["touches"] == [r["name"]] for r in catalog["resources"])
    assert best < 0.05 and whole < 2 and state < 0.1, (best, whole, state)


# The policy

def test_min_fresh_is_kept_with_the_policy(session):
    session.expose("users", cache="ttl=30, Min-Fresh = 05, stale-if-error=9")
    assert session.resource("users")["cache"] == "ttl=30, min-fresh=5, stale-if-error=9"
    assert session.triggers("users") == STATEMENT
    message, hint = session.refused("SELECT composure.expose('public.users', cache => 'ttl=1, min-fresh')")
    assert message == "cache: min-fresh needs a number of seconds" and "min-fresh=30" in hint
    session.expose("users", cache="min-fresh=5")
    assert session.triggers("users") == []


# Functions with a ttl

PLAIN = "CREATE FUNCTION public.totals() RETURNS bigint {} LANGUAGE sql AS 'SELECT count(*) FROM public.users'; "
ATOMIC = "CREATE FUNCTION public.totals() RETURNS bigint {} LANGUAGE sql BEGIN ATOMIC {}; END; "
COUNT = "SELECT count(*) FROM public.users"


@pytest.fixture
def atomic(session):
    if session.connection.server_version < 140000:
        pytest.skip("BEGIN ATOMIC came with PostgreSQL 14")
    return session


def expose_function(session, cache="ttl=30", signature="public.totals", **arguments):
    more = "".join(f", {name} => %s" for name in arguments)
    return session.one(f"SELECT composure.expose_function(%s, cache => %s{more})", signature, cache, *arguments.values())


def function(session, name="totals"):
    f = {f["name"]: f for f in session.catalog()["functions"]}[name]
    return f["scope"], f["ttl_bound_ms"]


def cached(said):
    return [line for line in said.splitlines() if line.startswith("  cached ")]


SHAPES = [
    # a name, SQL, options, scope, bound, a part of the reason
    ("sql, its tables not known", PLAIN.format("STABLE"), {}, "identity", 5000, "totals() may read tables: name them with depends"),
    ("sql, its tables named", PLAIN.format("STABLE"), {"depends": ["public.users"]}, "identity", None, "a function"),
    ("sql, trusted", PLAIN.format("STABLE"), {"trust_me": True}, "identity", None, "a function"),
    ("immutable", PLAIN.format("IMMUTABLE"), {}, "identity", None, "a function"),
    ("public", PLAIN.format("STABLE"), {"cache": "public, ttl=9"}, "public", 5000, "by its cache policy; totals() may read"),
    ("plpgsql", "CREATE FUNCTION public.totals() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM public.users); END'",
     {}, "identity", 5000, "totals() may read tables"),
    ("plpgsql, a view named", "CREATE FUNCTION public.totals() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM public.named); END'",
     {"depends": ["public.named"]}, "identity", None, "a function"),
    ("depends on what has no triggers", "CREATE MATERIALIZED VIEW public.m AS SELECT 1 AS id; " + PLAIN.format("STABLE"), {"depends": ["public.m"]},
     "identity", 5000, "materialized view public.m: it is refreshed"),
]
ATOMIC_SHAPES = [
    ("BEGIN ATOMIC", ATOMIC.format("STABLE", COUNT), {}, "identity", None, "a function"),
    ("BEGIN ATOMIC with a volatile function", ATOMIC.format("STABLE", COUNT + " WHERE random() < 1"), {}, "none", None, "random(), which is volatile"),
    ("BEGIN ATOMIC on the time", ATOMIC.format("STABLE", COUNT + " WHERE now() < '2030-01-01'"), {}, "identity", 5000, "it depends on the time"),
    ("BEGIN ATOMIC over PostgreSQL's own", ATOMIC.format("STABLE", "SELECT count(*) FROM pg_class"), {}, "identity", 5000, "it reads table pg_catalog.pg_class"),
    ("BEGIN ATOMIC that calls another", ATOMIC.format("STABLE", COUNT).replace("totals", "inner_") + ATOMIC.format("STABLE", "SELECT public.inner_()"),
     {}, "identity", None, "a function"),
    ("BEGIN ATOMIC that calls one that hides its tables", PLAIN.format("STABLE").replace("totals", "inner_") + ATOMIC.format("STABLE", "SELECT public.inner_()"),
     {}, "identity", 5000, "inner_() may read tables"),
    ("BEGIN ATOMIC over a table under policies on the time", "ALTER TABLE public.users ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON public.users USING (now() < '2030-01-01'); " +
     ATOMIC.format("STABLE", COUNT), {}, "identity", 5000, "it depends on the time"),
]


@pytest.mark.parametrize("sql, options, scope, bound, reason", [s[1:] for s in SHAPES + ATOMIC_SHAPES], ids=[s[0] for s in SHAPES + ATOMIC_SHAPES])
def test_the_scope_of_a_function(session, sql, options, scope, bound, reason):
    if "ATOMIC" in sql and session.connection.server_version < 140000:
        pytest.skip("BEGIN ATOMIC came with PostgreSQL 14")
    session.run(sql.replace("%", "%%"))
    said = expose_function(session, **options)
    got = session.scope("rpc/totals")
    assert got[:2] == (scope, bound) and reason in got[2], got
    assert function(session) == (scope, bound)
    who = {"none": "not at all", "public": "for all", "identity": "for each identity"}[scope]
    assert cached(said) == [f"  cached   {who}{', 5 s at most' if bound else ''} ({got[2]})"]


def test_a_volatile_function_is_not_cached(session):
    session.run(PLAIN.format(""))
    message, hint = session.refused("SELECT composure.expose_function('public.totals', cache => 'ttl=5')")
    assert message == "cache: only GET is cached, and function public.totals() takes POST alone"
    assert cached(expose_function(session, cache=None)) == [] and function(session) == ("none", None)
    # It became so afterwards.
    session.run("ALTER FUNCTION public.totals() STABLE")
    expose_function(session, depends=["public.users"])
    session.run("ALTER FUNCTION public.totals() VOLATILE")
    assert function(session) == ("none", None)


def test_a_function_without_a_ttl_has_no_triggers_and_no_line(session):
    session.run(PLAIN.format("STABLE"))
    assert cached(expose_function(session, cache="max-age=5", depends=["public.users"])) == []
    assert session.triggers("users") == [] and session.noted() == []


def test_what_a_function_depends_on_is_noted_as_the_function(session):
    session.run(PLAIN.format("STABLE"))
    session.expose("users", cache=None)
    for depends in (["public.users"], ["public.named"]):
        expose_function(session, depends=depends)
        assert session.triggers("users") == STATEMENT
        assert session.wrote("INSERT INTO public.users (id) VALUES (1)") == [("rpc/totals", None, False)]
        assert session.wrote("DELETE FROM public.users") == [("rpc/totals", None, True)]
        assert session.wrote("UPDATE public.users SET name = 'x'") == []
    assert touches(session, "users") == ["rpc/totals"]
    expose_function(session, depends=["public.orders"])
    assert session.triggers("users") == [] and session.triggers("orders") == STATEMENT
    # All that was said before is replaced.
    expose_function(session)
    assert session.triggers("orders") == [] and function(session) == ("identity", 5000)
    expose_function(session, depends=["public.orders"])
    session.run("SELECT composure.unexpose_function('totals')")
    assert session.triggers("orders") == []
    assert session.run("SELECT * FROM composure.followed") == []


def test_an_atomic_function_is_followed_to_what_its_body_reads(kept):
    atomic = kept
    if atomic.connection.server_version < 140000:
        pytest.skip("BEGIN ATOMIC came with PostgreSQL 14")
    atomic.run(ATOMIC.format("STABLE", "SELECT count(*) FROM public.named"))
    expose_function(atomic, name="sums")
    assert atomic.triggers("users") == STATEMENT
    assert atomic.wrote("INSERT INTO public.users (id) VALUES (1)") == [("rpc/sums", None, False)]
    atomic.settle()
    atomic.run(ATOMIC.format("STABLE", "SELECT count(*) FROM public.orders").replace("CREATE", "CREATE OR REPLACE"))
    assert atomic.follow() == ["rpc/sums"] and atomic.noted() == [("rpc/sums", None, True)]
    assert atomic.triggers("users") == [] and atomic.triggers("orders") == STATEMENT


def test_atomic_functions_in_views_and_policies_hide_no_tables(atomic):
    atomic.run("CREATE TABLE public.members (who name PRIMARY KEY); "
               "CREATE FUNCTION public.member() RETURNS boolean STABLE LANGUAGE sql BEGIN ATOMIC "
               "SELECT EXISTS (SELECT FROM public.members m WHERE m.who = current_user); END; "
               "CREATE VIEW public.v AS SELECT id FROM public.base WHERE public.member(); "
               "ALTER TABLE public.orders ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON public.orders USING (public.member())")
    atomic.expose("v", key=["id"])
    atomic.expose("orders")
    assert atomic.scope("v")[:2] == atomic.scope("orders")[:2] == ("identity", None)
    assert atomic.wrote("INSERT INTO public.members VALUES ('a')") == [("orders", None, True), ("v", None, False)]


def test_atomic_functions_behind_operators_and_aggregates_hide_no_tables(atomic):
    atomic.run("CREATE FUNCTION public.step(s bigint, v bigint) RETURNS bigint STABLE LANGUAGE sql BEGIN ATOMIC "
               "SELECT s + v + (SELECT count(*) FROM public.orders); END; "
               "CREATE AGGREGATE public.total(bigint) (sfunc = public.step, stype = bigint); "
               "CREATE OPERATOR public.## (leftarg = bigint, rightarg = bigint, function = public.step); "
               "CREATE VIEW public.a AS SELECT 1 AS id, public.total(id) AS t FROM public.users; "
               "CREATE VIEW public.o AS SELECT id, id OPERATOR(public.##) id AS t FROM public.users")
    for view in ("a", "o"):
        atomic.expose(view, key=["id"])
        assert atomic.scope(view)[:2] == ("identity", None), view
    assert atomic.wrote("INSERT INTO public.orders SELECT NULL, 1 WHERE false") == []
    atomic.run("INSERT INTO public.users (id) VALUES (1)")
    assert atomic.wrote("INSERT INTO public.orders VALUES (1, 1)") == [("a", None, False), ("o", None, False)]


def test_a_function_can_be_purged(session):
    session.run(PLAIN.format("STABLE"))
    expose_function(session, cache=None)
    session.noted()
    assert session.one("SELECT composure.purge('rpc/totals')") == "/rpc/totals is no longer served from the cache"
    assert session.noted() == [("rpc/totals", None, True)]
    assert session.refused("SELECT composure.purge('rpc/totals', '1')")[0] == "key: answers of a function have none"
    assert session.refused("SELECT composure.purge('rpc/x')") == ('nothing is exposed as "rpc/x"', "Exposed are: rpc/totals.")


def test_a_table_that_a_function_depends_on_has_to_exist(session):
    session.run(PLAIN.format("STABLE"))
    message, _ = session.refused("SELECT composure.expose_function('public.totals', cache => 'ttl=1', depends => '{public.nothing}')")
    assert message == 'relation "public.nothing" does not exist'


def test_a_function_that_is_gone_is_not_cached_and_breaks_nothing(session):
    session.run(PLAIN.format("STABLE"))
    expose_function(session, depends=["public.users"])
    session.run("DROP FUNCTION public.totals()")
    assert session.scope("rpc/totals") == ("none", None, "its function is gone")
    session.follow()
    assert session.triggers("users") == []


# What no trigger tells of

def test_a_truncate_of_a_partition_made_a_moment_ago_is_told_by_follow_tables(kept):
    kept.expose("parts")
    kept.settle()
    kept.run("CREATE TABLE public.parts_2 PARTITION OF public.parts FOR VALUES FROM (100) TO (200); INSERT INTO public.parts_2 VALUES (100, now())")
    kept.noted()
    kept.run("TRUNCATE public.parts_2")
    assert kept.noted() == []
    assert kept.follow() == ["parts"] and kept.noted() == [("parts", None, True)]


# What ends all that is kept: a change of composure.catalog_state()

SERVED = """
CREATE ROLE {role} NOLOGIN; CREATE ROLE {role}_2 NOLOGIN;
CREATE SCHEMA s; CREATE TABLE s.behind (id int PRIMARY KEY, word text);
CREATE FUNCTION public.may_see(who text) RETURNS boolean STABLE LANGUAGE sql AS $$ SELECT $1 = 'a' $$;
CREATE FUNCTION public.nop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TABLE public.members (who text PRIMARY KEY);
ALTER TABLE public.users ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON public.users USING (public.may_see(name) AND EXISTS (SELECT FROM public.members m WHERE m.who = name));
CREATE VIEW public.v AS SELECT id, word FROM s.behind;
CREATE TABLE public.plain (id int PRIMARY KEY, word text);
CREATE TABLE public.goes_along (id int PRIMARY KEY REFERENCES public.plain ON DELETE CASCADE, word text);
CREATE TABLE public.two_keys (a int NOT NULL, b int NOT NULL, v int); CREATE UNIQUE INDEX two_a ON public.two_keys (a); CREATE UNIQUE INDEX two_b ON public.two_keys (b);
CREATE MATERIALIZED VIEW public.m AS SELECT 1 AS id; CREATE UNIQUE INDEX ON public.m (id);
CREATE DOMAIN public.d AS int CHECK (VALUE > 0);
CREATE TYPE public.mood AS ENUM ('sad', 'ok'); CREATE TYPE public.pair AS (a int, b int);
CREATE TABLE public.named_only (id int PRIMARY KEY);
CREATE SCHEMA fs; CREATE FUNCTION fs.f() RETURNS int STABLE LANGUAGE sql AS $$ SELECT 1 $$;
CREATE TABLE public.elsewhere (id int PRIMARY KEY, word text); CREATE VIEW public.elsewhere_v AS SELECT * FROM public.elsewhere;
INSERT INTO public.plain VALUES (1, 'a'), (2, 'b');
GRANT SELECT ON public.plain TO {role};
"""


@pytest.fixture
def served(kept):
    """Tables, views, partitions and a function that are kept, what they hang on, and what they do not."""
    role = "sql_caching_reader"
    kept.role = role
    kept.run(SERVED.replace("{role}", role))
    for name in ("users", "orders", "parts", "base", "two_keys"):
        kept.expose(name)
    kept.expose("v", key=["id"])
    kept.expose("m", key=["id"])
    kept.expose("plain", cache=None)
    kept.run("SELECT composure.expose_function('fs.f', cache => 'ttl=30', depends => '{public.named_only}')")
    kept.settle()
    yield kept
    kept.run(f"DROP OWNED BY {role}, {role}_2 CASCADE; DROP ROLE {role}, {role}_2")


# By name, the statements one by one: some of them take no transaction.
TRAFFIC = {
    "a temporary table with all that a table can have": [
        "CREATE TEMP TABLE t (id serial PRIMARY KEY, n int DEFAULT 7 CHECK (n > 0), parent int REFERENCES t ON DELETE CASCADE)",
        "CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION public.nop()", "CREATE POLICY p ON t USING (n > 1)",
        "CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING", "CREATE INDEX ON t ((n + 1))", "GRANT SELECT ON t TO PUBLIC"],
    "a temporary view": ["CREATE TEMP VIEW tv AS SELECT * FROM public.users"],
    "a temporary function": ["CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'"],
    "a temporary domain": ["CREATE DOMAIN pg_temp.d AS int CHECK (VALUE > 1)"],
    "temporary types": ["CREATE TYPE pg_temp.e AS ENUM ('a', 'b')", "ALTER TYPE pg_temp.e RENAME VALUE 'a' TO 'c'", "CREATE TYPE pg_temp.pair AS (a int)"],
    "temporary children": ["CREATE TEMP TABLE tc () INHERITS (public.base)"],
    "a table of an import": ["CREATE TABLE public.staging (id serial PRIMARY KEY, n int DEFAULT 7 CHECK (n > 0), u bigint REFERENCES public.users)",
                             "CREATE TRIGGER x BEFORE INSERT ON public.staging FOR EACH ROW EXECUTE FUNCTION public.nop()", "DROP TABLE public.staging"],
    "partitions and children of others": ["CREATE TABLE public.q (id int) PARTITION BY LIST (id)", "CREATE TABLE public.q1 PARTITION OF public.q DEFAULT"],
    "rights on others": ["GRANT SELECT ON public.elsewhere TO PUBLIC", "ALTER TABLE public.elsewhere ADD more int DEFAULT 1"],
    "writes": ["INSERT INTO public.users (id, name) SELECT i, 'a' FROM generate_series(1, 500) i", "UPDATE public.plain SET word = 'c'"],
    "TRUNCATE": ["TRUNCATE public.users, public.orders", "TRUNCATE s.behind, public.members, public.parts", "TRUNCATE public.plain CASCADE"],
    "VACUUM and ANALYZE": ["VACUUM", "ANALYZE", "VACUUM (FREEZE, ANALYZE) public.users", "VACUUM (FREEZE) pg_class", "VACUUM FULL pg_class"],
    "VACUUM FULL": [f"VACUUM FULL {name}" for name in ("public.users", "public.plain", "public.parts_1", "s.behind", "public.m", "public.members")],
    "CLUSTER": ["CLUSTER public.users USING users_pkey", "CLUSTER public.plain USING plain_pkey"],
    "REINDEX": ["REINDEX TABLE public.users", "REINDEX TABLE CONCURRENTLY public.users", "REINDEX TABLE CONCURRENTLY public.plain"],
    "an index that is no key": ["CREATE INDEX ON public.users (name)", "CREATE INDEX CONCURRENTLY ON public.plain (word)"],
    "REFRESH": ["REFRESH MATERIALIZED VIEW public.m", "REFRESH MATERIALIZED VIEW CONCURRENTLY public.m", "REFRESH MATERIALIZED VIEW public.m WITH NO DATA"],
    "a table made anew on disk": ["ALTER TABLE public.two_keys SET UNLOGGED", "ALTER TABLE public.two_keys SET LOGGED"],
    "a look at everything": ["BEGIN ISOLATION LEVEL REPEATABLE READ", "LOCK TABLE public.users, public.plain IN ACCESS SHARE MODE",
                             "SELECT pg_get_viewdef('public.v'::regclass)", "COMMIT"],
    "a password": ["ALTER ROLE {role} PASSWORD 'x' VALID UNTIL '2090-01-01'", "ALTER ROLE {role} SET work_mem = '8MB'"],
    "comments and statistics": ["COMMENT ON TABLE public.users IS 'x'", "COMMENT ON FUNCTION public.may_see IS 'x'", "CREATE STATISTICS st ON id, name FROM public.users"],
}


def test_traffic_leaves_the_state_of_the_catalog_as_it_is(served):
    state, moved = served.one(STATE), []
    for what, statements in TRAFFIC.items():
        for statement in statements:
            served.run(statement.replace("{role}", served.role))
            now = served.one(STATE)
            moved += [(what, statement)] if now != state else []
            state = now
        # What was rewritten is told by name, and that changes no more.
        served.follow()
        moved += [(what, "follow_tables()")] if served.one(STATE) != state else []
        state = served.one(STATE)
    assert moved == []


MATTERS = [
    "REVOKE SELECT ON public.plain FROM {role}", "GRANT SELECT (id) ON public.plain TO {role}", "REVOKE SELECT (id) ON public.plain FROM {role}",
    "GRANT INSERT ON public.users TO {role}", "GRANT SELECT ON public.v TO {role}",
    # Behind a view, a policy, a function
    "GRANT SELECT (word) ON s.behind TO {role}", "GRANT SELECT ON s.behind TO {role}", "ALTER TABLE s.behind OWNER TO {role}", "ALTER TABLE public.orders OWNER TO {role}", "GRANT SELECT ON public.members TO {role}",
    "ALTER TABLE public.members ENABLE ROW LEVEL SECURITY", "CREATE POLICY m ON public.members USING (true)", "ALTER POLICY m ON public.members USING (false)",
    "ALTER POLICY p ON public.users USING (public.may_see(name))", "ALTER POLICY p ON public.users TO {role}", "ALTER POLICY p ON public.users RENAME TO q",
    "CREATE POLICY r ON public.users USING (true)", "DROP POLICY r ON public.users", "CREATE POLICY e ON public.elsewhere USING (true)",
    "ALTER TABLE public.users FORCE ROW LEVEL SECURITY", "ALTER TABLE public.users DISABLE ROW LEVEL SECURITY",
    "CREATE OR REPLACE FUNCTION public.may_see(who text) RETURNS boolean STABLE LANGUAGE sql AS $$ SELECT $1 = 'b' $$",
    "REVOKE EXECUTE ON FUNCTION public.may_see FROM PUBLIC", "ALTER FUNCTION public.may_see SECURITY DEFINER", "ALTER FUNCTION public.may_see OWNER TO {role}",
    "CREATE FUNCTION public.other() RETURNS int LANGUAGE sql AS 'SELECT 1'", "REVOKE EXECUTE ON FUNCTION fs.f FROM PUBLIC", "GRANT USAGE ON SCHEMA fs TO {role}", "CREATE PROCEDURE fs.f(a int) LANGUAGE sql AS 'SELECT 1'",
    "GRANT SELECT ON public.named_only TO {role}",
    "CREATE OR REPLACE VIEW public.v AS SELECT id, word FROM s.behind WHERE id > 1", "ALTER VIEW public.v SET (security_barrier)", "ALTER VIEW public.v OWNER TO {role}",
    "ALTER VIEW public.v OWNER TO CURRENT_USER", "CREATE OR REPLACE VIEW public.elsewhere_v AS SELECT id, word FROM public.elsewhere WHERE id > 1",
    "ALTER ROLE {role} BYPASSRLS", "ALTER ROLE {role} NOINHERIT", "ALTER ROLE {role} SUPERUSER", "GRANT {role}_2 TO {role}", "REVOKE {role}_2 FROM {role}",
    "GRANT USAGE ON SCHEMA s TO {role}", "REVOKE USAGE ON SCHEMA public FROM PUBLIC",
    # What the resources are
    "ALTER TABLE public.plain ADD more int DEFAULT 1", "ALTER TABLE public.plain ALTER more TYPE bigint", "ALTER TABLE public.plain ALTER more SET NOT NULL",
    "ALTER TABLE public.plain RENAME more TO less", "ALTER TABLE public.plain ALTER less SET DEFAULT 7", "ALTER TABLE public.plain ALTER less SET DEFAULT 8",
    "ALTER TABLE public.plain DROP less", "ALTER TABLE public.plain RENAME TO plainer", "ALTER TABLE public.plainer SET SCHEMA s", "ALTER TABLE s.plainer SET SCHEMA public",
    "ALTER TABLE public.plainer ADD CONSTRAINT c CHECK (id > 0)", "ALTER TABLE public.plainer DROP CONSTRAINT c",
    "CREATE INDEX i ON public.plainer ((id + 1))", "DROP INDEX public.i", "CREATE UNIQUE INDEX i ON public.plainer (word)", "DROP INDEX public.i",
    "CREATE TRIGGER x BEFORE INSERT ON public.plainer FOR EACH ROW EXECUTE FUNCTION public.nop()", "ALTER TABLE public.plainer DISABLE TRIGGER x", "DROP TRIGGER x ON public.plainer",
    "ALTER TABLE public.goes_along ADD CHECK (id > 0)", "CREATE TRIGGER x BEFORE DELETE ON public.goes_along FOR EACH ROW EXECUTE FUNCTION public.nop()",
    "ALTER TABLE public.goes_along DROP CONSTRAINT goes_along_id_fkey", "ALTER TABLE public.goes_along ADD FOREIGN KEY (id) REFERENCES public.plainer ON DELETE CASCADE",
    "ALTER TABLE public.plainer ADD FOREIGN KEY (id) REFERENCES public.two_keys (a) NOT VALID", "ALTER TABLE public.plainer DROP CONSTRAINT plainer_id_fkey",
    "ALTER TABLE public.two_keys ALTER a DROP NOT NULL", "ALTER TABLE public.two_keys ALTER a SET NOT NULL", "REINDEX INDEX CONCURRENTLY public.two_a", "DROP INDEX public.two_a",
    "CREATE TABLE public.parts_2 PARTITION OF public.parts FOR VALUES FROM (100) TO (200)", "CREATE TRIGGER x BEFORE INSERT ON public.parts_2 FOR EACH ROW EXECUTE FUNCTION public.nop()",
    "ALTER TABLE public.parts DETACH PARTITION public.parts_2", "ALTER TABLE public.parts ATTACH PARTITION public.parts_2 FOR VALUES FROM (100) TO (200)", "DROP TABLE public.parts_2",
    "ALTER TABLE public.child NO INHERIT public.base", "ALTER TABLE public.child INHERIT public.base",
    "ALTER DOMAIN public.d ADD CHECK (VALUE > 1)",
    "ALTER TYPE public.mood RENAME VALUE 'sad' TO 'blue'", "ALTER TYPE public.mood ADD VALUE 'happy'", "ALTER TYPE public.pair RENAME ATTRIBUTE a TO c",
    "SELECT composure.expose('public.plainer', hidden => '{word}')", "SELECT composure.unexpose('two_keys')", "DROP MATERIALIZED VIEW public.m",
]


def test_what_matters_changes_the_state_of_the_catalog(served):
    unseen, state = [], served.one(STATE)
    for statement in MATTERS:
        served.run(statement.replace("{role}", served.role))
        before, state = state, served.one(STATE)
        unseen += [statement] if state == before else []
    assert unseen == []


def test_the_key_that_a_reindex_makes_another_is_a_new_state(kept):
    kept.run("CREATE TABLE public.k (a int NOT NULL, b int NOT NULL); CREATE UNIQUE INDEX k_a ON public.k (a); CREATE UNIQUE INDEX k_b ON public.k (b)")
    kept.expose("k", cache=None)
    key, state = kept.resource("k")["key"], kept.one(STATE)
    kept.run("REINDEX INDEX CONCURRENTLY public.k_a")
    assert (key, kept.resource("k")["key"]) == (["a"], ["b"])
    assert kept.one(STATE) != state


@pytest.mark.parametrize("given, taken", [
    ("GRANT SELECT ON public.users TO PUBLIC", "REVOKE SELECT ON public.users FROM PUBLIC"),
    ("ALTER TABLE public.users DISABLE ROW LEVEL SECURITY", "ALTER TABLE public.users ENABLE ROW LEVEL SECURITY"),
    ("ALTER VIEW public.named SET (security_barrier)", "ALTER VIEW public.named RESET (security_barrier)"),
])
def test_what_was_allowed_between_two_looks_is_told_of_all_who_read_it(kept, given, taken):
    kept.run("GRANT SELECT ON public.users TO composure_anonymous; REVOKE SELECT ON public.users FROM composure_anonymous; ALTER TABLE public.users ENABLE ROW LEVEL SECURITY")
    kept.expose("named", key=["id"])
    kept.expose("orders")
    kept.settle()
    kept.run(given)
    kept.run(taken)
    assert kept.follow() == ["named"] and kept.noted() == [("named", None, True)]
    assert kept.follow() == []


def test_triggers_that_could_not_be_made_are_a_new_state(kept, bare_database):
    kept.expose("users")
    kept.settle()
    kept.run("DROP TRIGGER {} ON public.users".format(kept.one("SELECT min(tgname) FROM pg_trigger WHERE tgrelid = 'public.users'::regclass AND NOT tgisinternal")))
    state = kept.one(STATE)
    other = Session(bare_database)
    other.run("BEGIN; LOCK TABLE public.users IN ROW EXCLUSIVE MODE")
    kept.follow()
    other.run("ROLLBACK")
    other.close()
    assert kept.scope("users")[:2] == ("role", 5000)
    assert kept.one(STATE) != state


def test_temporary_children_are_not_followed(kept, bare_database):
    kept.expose("base")
    kept.settle()
    before = kept.triggers("base")
    other = Session(bare_database)
    other.run("CREATE TEMP TABLE t () INHERITS (public.base)")
    assert kept.follow() == [] and kept.triggers("base") == before and kept.scope("base")[:2] == ("role", None)
    assert kept.column("SELECT tgname FROM pg_trigger WHERE tgrelid = (SELECT oid FROM pg_class WHERE relname = 't' AND relpersistence = 't')") == []
    other.close()


def test_a_table_that_gets_another_parent_is_followed_by_row(kept):
    kept.run("CREATE TABLE public.plain_child (id int PRIMARY KEY); CREATE TABLE public.parent (id int)")
    kept.expose("plain_child")
    kept.settle()
    assert kept.triggers("plain_child") == STATEMENT
    kept.run("ALTER TABLE public.plain_child INHERIT public.parent")
    assert kept.follow() == ["plain_child"] and kept.triggers("plain_child") == ["rows", "truncate"]
    kept.noted()
    kept.run("INSERT INTO public.plain_child VALUES (1)")
    assert kept.wrote("UPDATE public.parent SET id = 2") == [("plain_child", ["1", "2"], False)]
