"""composure.catalog(): the JSON that the workers read, on relations of every kind and names of every shape."""

import time

import pytest
from sqlcluster import Session

COLUMN = {"name", "type_oid", "base_oid", "type_kind", "type", "category", "elem_oid", "array_oid", "not_null", "hidden",
          "read_only", "has_default", "generated", "sortable", "nondeterministic"}
RESOURCE = {"name", "oid", "schema", "relation", "kind", "methods", "columns", "key", "order", "page_default",
            "page_max", "cache", "scope", "ttl_bound_ms", "touches", "cost_read", "cost_write", "idempotency", "owner", "deadline_ms", "rls", "force_rls",
            "reading_runs_code", "writing_runs_code", "exact_count", "regular_expressions", "partial", "optional", "select_roles", "insert_roles", "update_roles", "delete_roles"}


@pytest.fixture(scope="module")
def shared(migrated_template):
    return migrated_template.cluster.create_database("sql_catalog", migrated_template.name)


@pytest.fixture
def session(shared):
    session = Session(shared, keep=False)
    yield session
    session.close()


def expose(session, arguments):
    session.run(f"SELECT composure.expose({arguments})")


def columns(session, name):
    return {c["name"]: c for c in session.resource(name)["columns"]}


def test_an_empty_catalog_has_an_installation_and_no_resources(session):
    catalog = session.catalog()
    assert set(catalog) == {"version", "installation", "roles", "text_search", "resources", "relationships", "functions"}
    assert set(catalog["installation"]) == {"id", "secret", "anonymous_role", "worker_role"}
    assert catalog["installation"]["anonymous_role"] == "composure_anonymous"
    assert catalog["installation"]["worker_role"] == "composure_worker"
    assert catalog["roles"] == ["composure_anonymous"]
    assert catalog["resources"] == catalog["relationships"] == catalog["functions"] == []
    assert catalog["text_search"]["english"] == "'pg_catalog.english'::pg_catalog.regconfig"


def test_a_resource_has_exactly_the_documented_members(session):
    session.run("CREATE TABLE public.t (id bigint PRIMARY KEY, name text)")
    expose(session, "'public.t'")
    t = session.resource("t")
    assert set(t) == RESOURCE
    assert all(set(c) == COLUMN for c in t["columns"])
    oid = session.one("SELECT 'public.t'::regclass::oid::bigint")
    assert {k: t[k] for k in RESOURCE - {"columns"}} == {
        "name": "t", "oid": oid, "schema": "public", "relation": "t", "kind": "r",
        "methods": ["GET", "POST", "PATCH", "PUT", "DELETE"], "key": ["id"],
        "order": [{"column": "id", "desc": False, "nulls_first": False}], "page_default": 50, "page_max": 200,
        "cache": None, "scope": "role", "ttl_bound_ms": None, "touches": [], "cost_read": 1, "cost_write": 1, "idempotency": "optional", "owner": None, "deadline_ms": None,
        "rls": False, "force_rls": False, "reading_runs_code": False, "writing_runs_code": False, "exact_count": False, "regular_expressions": False, "partial": False, "optional": [],
        "select_roles": [], "insert_roles": [],
        "update_roles": [], "delete_roles": []}
    assert t["columns"][0] == {
        "name": "id", "type_oid": 20, "base_oid": 20, "type_kind": "b", "type": "pg_catalog.int8", "category": "N",
        "elem_oid": 0, "array_oid": 1016, "not_null": True, "hidden": False, "read_only": False, "has_default": False,
        "generated": False, "sortable": True, "nondeterministic": False}


def test_mixed_case_and_quoted_names_come_as_they_are(session):
    session.run('CREATE SCHEMA "My ""Schema"""; CREATE TABLE "My ""Schema"""."T, x" ("Id ""q""" int PRIMARY KEY, "select" text, "ünï" text)')
    session.run("SELECT composure.expose(%s, name => 'Odd Name')", '"My ""Schema"""."T, x"')
    odd = session.resource("Odd Name")
    assert (odd["schema"], odd["relation"], odd["key"]) == ('My "Schema"', "T, x", ['Id "q"'])
    assert [c["name"] for c in odd["columns"]] == ['Id "q"', "select", "ünï"]


def test_composite_keys_keep_their_order(session):
    session.run("CREATE TABLE public.t (a int, b text, c uuid, PRIMARY KEY (c, a))")
    expose(session, "'public.t'")
    t = session.resource("t")
    assert t["key"] == ["c", "a"]
    assert [o["column"] for o in t["order"]] == ["c", "a"]


def test_dropped_columns_are_left_out(session):
    session.run("CREATE TABLE public.t (gone int, id int PRIMARY KEY); ALTER TABLE public.t DROP gone")
    expose(session, "'public.t'")
    assert list(columns(session, "t")) == ["id"]


def test_dropped_relations_are_left_out(session):
    session.run("CREATE TABLE public.a (id int PRIMARY KEY); CREATE TABLE public.b (id int PRIMARY KEY)")
    expose(session, "'public.a'")
    expose(session, "'public.b'")
    session.run("DROP TABLE public.a")
    assert [r["name"] for r in session.catalog()["resources"]] == ["b"]


def test_partitioned_tables_and_partitions_are_tables(session):
    session.run("CREATE TABLE public.p (id int, day date, PRIMARY KEY (day, id)) PARTITION BY RANGE (day); "
                "CREATE TABLE public.p1 PARTITION OF public.p FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')")
    expose(session, "'public.p'")
    expose(session, "'public.p1'")
    assert [(r["name"], r["kind"], r["key"]) for r in session.catalog()["resources"]] == [
        ("p", "p", ["day", "id"]), ("p1", "r", ["day", "id"])]


def test_views_and_materialized_views_take_their_users_word_for_the_key(session):
    session.run("CREATE TABLE public.t (id int PRIMARY KEY, name text NOT NULL); "
                "CREATE VIEW public.v AS SELECT id, name FROM public.t; "
                "CREATE MATERIALIZED VIEW public.m AS SELECT name, count(*) AS n FROM public.t GROUP BY 1")
    expose(session, "'public.v', key => '{id}'")
    expose(session, "'public.m', key => '{name}'")
    assert [(r["kind"], r["key"]) for r in session.catalog()["resources"]] == [("m", ["name"]), ("v", ["id"])]
    v = columns(session, "v")
    assert (v["id"]["not_null"], v["name"]["not_null"]) == (True, False)


def test_foreign_tables_are_served_with_a_key_of_the_users(session):
    if not session.run("SELECT FROM pg_available_extensions WHERE name = 'file_fdw'"):
        pytest.skip("file_fdw is not installed")
    session.run("CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw; "
                "CREATE FOREIGN TABLE public.f (id int) SERVER files OPTIONS (filename '/dev/null')")
    expose(session, "'public.f', key => '{id}'")
    f = session.resource("f")
    assert (f["kind"], f["methods"]) == ("f", ["GET"])


TYPES = [
    # type, type_kind, qualified, category, sortable, base type
    ("int4", "b", "pg_catalog.int4", "N", True, None),
    ("numeric(12,2)", "b", 'pg_catalog."numeric"', "N", True, "numeric"),
    ("varchar(5)", "b", 'pg_catalog."varchar"', "S", True, "varchar"),
    ("char(5)", "b", "pg_catalog.bpchar", "S", True, "bpchar"),
    ('"char"', "b", 'pg_catalog."char"', "Z", True, '"char"'),
    ("timestamptz(3)", "b", "pg_catalog.timestamptz", "D", True, "timestamptz"),
    ("interval", "b", 'pg_catalog."interval"', "T", True, None),
    ("bit(3)", "b", 'pg_catalog."bit"', "V", True, 'pg_catalog."bit"'),
    ("bool", "b", "pg_catalog.bool", "B", True, None),
    ("bytea", "b", "pg_catalog.bytea", "U", True, None),
    ("uuid", "b", "pg_catalog.uuid", "U", True, None),
    ("cidr", "b", "pg_catalog.cidr", "I", True, None),
    ("regclass", "b", "pg_catalog.regclass", "N", True, None),
    ("jsonb", "b", "pg_catalog.jsonb", "U", True, None),
    ("json", "b", "pg_catalog.json", "U", False, None),
    ("xml", "b", "pg_catalog.xml", "U", False, None),
    ("point", "b", "pg_catalog.point", "G", False, None),
    ("int2vector", "b", "pg_catalog.int2vector", "A", False, None),
    ("oidvector", "b", "pg_catalog.oidvector", "A", True, None),
    ("int4range", "r", "pg_catalog.int4range", "R", True, None),
    ("public.mood", "e", "public.mood", "E", True, None),
    ("public.pair", "c", "public.pair", "C", False, None),
    ("public.small", "b", "public.small", "N", True, "int4"),
    ("public.smaller", "b", "public.smaller", "N", True, "int4"),
    ("public.ints", "b", "public.ints", "A", True, "int4[]"),
    ('public."Odd Type"', "e", 'public."Odd Type"', "E", True, None),
]


@pytest.fixture
def types(session):
    session.run("CREATE TYPE public.mood AS ENUM ('sad', 'ok'); CREATE TYPE public.pair AS (a int, b text); "
                "CREATE TYPE public.\"Odd Type\" AS ENUM ('x'); "
                "CREATE DOMAIN public.small AS int CHECK (VALUE < 100); "
                "CREATE DOMAIN public.smaller AS public.small NOT NULL DEFAULT 7 CHECK (VALUE < 10); "
                "CREATE DOMAIN public.ints AS int[]")
    return session


@pytest.mark.parametrize("type_name, kind, qualified, category, sortable, base", TYPES, ids=[t[0] for t in TYPES])
def test_a_columns_type_is_resolved(types, type_name, kind, qualified, category, sortable, base):
    types.run(f"CREATE TABLE public.t (id int PRIMARY KEY, c {type_name})")
    expose(types, "'public.t'")
    c = columns(types, "t")["c"]
    assert (c["type_kind"], c["type"], c["category"], c["sortable"]) == (kind, qualified, category, sortable)
    assert c["type_oid"] == types.one("SELECT atttypid::bigint FROM pg_attribute "
                                      "WHERE attrelid = 'public.t'::regclass AND attname = 'c'")
    assert c["base_oid"] == types.one(f"SELECT '{base or type_name}'::regtype::oid::bigint")
    assert types.one("SELECT %s::regtype::oid::bigint", c["type"]) == c["type_oid"]


def test_the_qualified_type_does_not_cut_values(session):
    session.run("CREATE TABLE public.t (id int PRIMARY KEY, a char(5), b bit(3), c varchar(2))")
    expose(session, "'public.t'")
    c = columns(session, "t")
    assert session.run(f"SELECT 'abc'::{c['a']['type']}, '101'::{c['b']['type']}::text, 'abc'::{c['c']['type']}") == [
        ("abc", "101", "abc")]


@pytest.mark.parametrize("type_name, element, sortable", [
    ("int4[]", "int4", True), ("text[][]", "text", True), ("json[]", "json", False), ("public.mood[]", "public.mood", True),
    ("public.small[]", "public.small", True), ("public.ints", "int4", True), ("public.pair[]", "public.pair", False),
    ("int4", None, True), ("point", None, False), ("name", None, True)])
def test_arrays_name_their_elements(types, type_name, element, sortable):
    types.run(f"CREATE TABLE public.t (id int PRIMARY KEY, c {type_name})")
    expose(types, "'public.t'")
    c = columns(types, "t")["c"]
    assert c["elem_oid"] == (types.one(f"SELECT '{element}'::regtype::oid::bigint") if element else 0)
    assert c["sortable"] == sortable


def test_defaults_and_generated_columns_are_told_apart(types):
    types.run("CREATE TABLE public.t (a int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, b int GENERATED BY DEFAULT AS IDENTITY, "
              "c int GENERATED ALWAYS AS (1 + 1) STORED, d int DEFAULT 3, e public.smaller, f int, g serial)")
    expose(types, "'public.t'")
    assert {n: (c["has_default"], c["generated"], c["not_null"]) for n, c in columns(types, "t").items()} == {
        "a": (True, True, True), "b": (True, False, True), "c": (False, True, False), "d": (True, False, False),
        "e": (True, False, True), "f": (False, False, False), "g": (True, False, True)}


def test_a_domain_does_not_make_a_views_column_not_null(types):
    types.run("CREATE TABLE public.t (id int PRIMARY KEY, e public.smaller); "
              "CREATE VIEW public.v AS SELECT a.id, b.e FROM public.t a LEFT JOIN public.t b ON b.id = a.id + 1")
    expose(types, "'public.v', key => '{id}'")
    assert columns(types, "v")["e"]["not_null"] is False


def test_a_nondeterministic_collation_is_told(session):
    if not session.run("SELECT FROM pg_collation WHERE collprovider = 'i' LIMIT 1"):
        pytest.skip("PostgreSQL without ICU")
    session.run("CREATE COLLATION public.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false); "
                "CREATE TABLE public.t (id int PRIMARY KEY, a text COLLATE public.ci, b text)")
    expose(session, "'public.t'")
    c = columns(session, "t")
    assert (c["a"]["nondeterministic"], c["b"]["nondeterministic"]) == (True, False)


def test_row_level_security_and_triggers_are_told(session):
    session.run("CREATE FUNCTION public.nop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; "
                "CREATE TABLE public.t (id int PRIMARY KEY); CREATE TABLE public.child (id int PRIMARY KEY REFERENCES public.t)")
    expose(session, "'public.t'")
    expose(session, "'public.child'")
    # The triggers of a foreign key are PostgreSQL's own.
    assert [(r["rls"], r["force_rls"], r["writing_runs_code"]) for r in session.catalog()["resources"]] == [(False,) * 3] * 2
    session.run("ALTER TABLE public.t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; "
                "CREATE TRIGGER x BEFORE INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.nop()")
    t = session.resource("t")
    assert (t["rls"], t["force_rls"], t["reading_runs_code"], t["writing_runs_code"]) == (True, True, False, True)


# What runs in reading the relation and in writing to it: the statements that make it so, of a table t (id, v) with a
# function f() in plpgsql, and what is to be found.
CODE = {
    "nothing": ("SELECT", False, False),
    "a function in a view": ("CREATE VIEW w AS SELECT id, f() AS v FROM t", True, True),
    "a stable one is code, too": ("ALTER FUNCTION f() IMMUTABLE; CREATE VIEW w AS SELECT id, f() AS v FROM t", True, True),
    "a view of a view": ("CREATE VIEW u AS SELECT id, f() AS v FROM t; CREATE VIEW w AS SELECT * FROM u", True, True),
    "in a view's condition": ("CREATE VIEW w AS SELECT id FROM t WHERE EXISTS (SELECT FROM generate_series(1, f()))", True, True),
    "set_config": ("CREATE VIEW w AS SELECT id, set_config('a.b', 'c', false) FROM t", True, True),
    "a session's lock": ("CREATE VIEW w AS SELECT id, pg_advisory_lock(1)::text FROM t", True, True),
    "built-in and harmless": ("CREATE VIEW w AS SELECT id, random(), clock_timestamp(), lower('A'), gen_random_uuid(),"
                              " pg_sleep(0)::text, count(*) OVER () FROM t", False, False),
    "an operator": ("CREATE FUNCTION g(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT true'; CREATE OPERATOR ~~~ "
                    "(FUNCTION = g, LEFTARG = int, RIGHTARG = int); CREATE VIEW w AS SELECT id FROM t WHERE id ~~~ 1", True, True),
    "an aggregate": ("CREATE FUNCTION g(int, int) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE AGGREGATE a (int) "
                     "(SFUNC = g, STYPE = int); CREATE VIEW w AS SELECT a(id) AS id FROM t", True, True),
    "an aggregate of built-in functions": ("CREATE AGGREGATE a (int) (SFUNC = int4larger, STYPE = int); "
                                           "CREATE VIEW w AS SELECT a(id) AS id FROM t", False, False),
    "a policy": ("CREATE POLICY p ON t USING (f() = 1)", True, True),
    "a policy for new rows": ("CREATE POLICY p ON t FOR INSERT WITH CHECK (f() = 1)", True, True),
    "a policy that reads a view": ("CREATE VIEW u AS SELECT f() AS v; CREATE POLICY p ON t USING (id IN (SELECT v FROM u))", True, True),
    "a default": ("ALTER TABLE t ALTER v SET DEFAULT f()", False, True),
    "a check": ("ALTER TABLE t ADD CHECK (v > f())", False, True),
    "an index": ("ALTER FUNCTION f() IMMUTABLE; CREATE INDEX ON t ((f() + id))", False, True),
    "a domain": ("CREATE DOMAIN d AS int CHECK (VALUE > f()); ALTER TABLE t ALTER v TYPE d", True, True),
    "a domain of a domain, in an array": ("CREATE DOMAIN c AS int CHECK (VALUE > f()); CREATE DOMAIN d AS c; "
                                          "ALTER TABLE t ADD x d[]", True, True),
    "a domain with a plain check": ("CREATE DOMAIN d AS int CHECK (VALUE > 0); ALTER TABLE t ALTER v TYPE d", False, False),
    "a trigger": ("CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION nop()", False, True),
    "a trigger behind a view": ("CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION nop(); "
                                "CREATE VIEW w AS SELECT * FROM t", False, True),
    "a trigger of what goes with it": ("CREATE TABLE c (id int REFERENCES t ON DELETE CASCADE); CREATE TRIGGER x BEFORE DELETE "
                                       "ON c FOR EACH ROW EXECUTE FUNCTION nop()", False, True),
    "a trigger of what does not": ("CREATE TABLE c (id int REFERENCES t); CREATE TRIGGER x BEFORE DELETE "
                                   "ON c FOR EACH ROW EXECUTE FUNCTION nop()", False, False),
    "a trigger of a partition": ("CREATE TABLE w (id int PRIMARY KEY) PARTITION BY LIST (id); CREATE TABLE w1 PARTITION OF w "
                                 "DEFAULT; CREATE TRIGGER x BEFORE INSERT ON w1 FOR EACH ROW EXECUTE FUNCTION nop()", False, True),
}


@pytest.mark.parametrize("what", CODE)
def test_whether_code_may_run_is_told_and_followed(session, what):
    text, reading, writing = CODE[what]
    session.run("SET search_path = public; CREATE TABLE t (id int PRIMARY KEY, v int);"
                "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';"
                "CREATE FUNCTION nop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
    expose(session, "'public.t'")
    state, code = session.one("SELECT composure.catalog_state()"), runs_code(session, "t")
    session.run(text)
    assert session.one("SELECT composure.catalog_state()") != state or runs_code(session, "t") == code
    name = "w" if session.one("SELECT to_regclass('public.w') IS NOT NULL") else "t"
    expose(session, f"'public.{name}', key => '{{id}}'")
    assert runs_code(session, name) == (reading, writing)


def runs_code(session, name):
    found = session.resource(name)
    return found["reading_runs_code"], found["writing_runs_code"]


def test_rights_need_the_schema_too(session):
    session.run("CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY); GRANT ALL ON s.t TO composure_anonymous")
    expose(session, "'s.t'")
    roles = ("select_roles", "insert_roles", "update_roles", "delete_roles")
    assert [session.resource("t")[r] for r in roles] == [[]] * 4
    session.run("GRANT USAGE ON SCHEMA s TO composure_anonymous")
    assert [session.resource("t")[r] for r in roles] == [["composure_anonymous"]] * 4


def test_the_worker_reads_the_catalog_whatever_it_may_select(bare_database):
    session = Session(bare_database)
    session.run("CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY)")
    expose(session, "'s.t'")
    worker = Session(bare_database, "composure_worker")
    worker.run("SET default_transaction_read_only = on")
    assert worker.catalog() == session.catalog()
    worker.close()
    session.close()


def test_five_hundred_resources_are_read_in_a_blink(session):
    session.run("DO $$ BEGIN FOR i IN 1..500 LOOP EXECUTE format('CREATE TABLE public.t%s (id bigint PRIMARY KEY, a text, "
                "b text, c int, d numeric, e timestamptz DEFAULT now(), f uuid, g jsonb, h int[], k text NOT NULL)', i); "
                "PERFORM composure.expose('public.t' || i); END LOOP; END $$")
    assert len(session.catalog()["resources"]) == 500
    best = min(_timed(session) for _ in range(5))
    # About 120 ms where it was written; the bound allows for slower machines, not for a quadratic plan.
    assert best < 2.0


def _timed(session):
    start = time.monotonic()
    session.one("SELECT length(composure.catalog())")
    return time.monotonic() - start


# --- relationships ---

def relationships(session):
    names = dict(session.run("SELECT oid::bigint, relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"))
    return [(r["constraint"], names[r["from"]], r["from_columns"], names[r["to"]], r["to_columns"], r["unique"])
            for r in session.catalog()["relationships"]]


def test_foreign_keys_between_what_is_served_are_relationships(session):
    session.run("""
        CREATE TABLE public.a (x int, y int, PRIMARY KEY (y, x));
        CREATE TABLE public.b (id int PRIMARY KEY, ax int, ay int, parent int REFERENCES public.b,
          CONSTRAINT b_a FOREIGN KEY (ax, ay) REFERENCES public.a (x, y));
        CREATE TABLE public.c (id int PRIMARY KEY REFERENCES public.b)""")
    expose(session, "'public.b'")
    assert relationships(session) == [("b_parent_fkey", "b", ["parent"], "b", ["id"], False)]
    expose(session, "'public.a'")
    expose(session, "'public.c'")
    assert relationships(session) == [
        ("b_a", "b", ["ax", "ay"], "a", ["x", "y"], False),
        ("b_parent_fkey", "b", ["parent"], "b", ["id"], False),
        ("c_id_fkey", "c", ["id"], "b", ["id"], True)]


def test_a_foreign_key_is_unique_where_an_index_says_so(session):
    session.run("""
        CREATE TABLE public.a (id int PRIMARY KEY);
        CREATE TABLE public.b (id int PRIMARY KEY, p int UNIQUE REFERENCES public.a, q int REFERENCES public.a,
          r int REFERENCES public.a, s int REFERENCES public.a);
        CREATE UNIQUE INDEX ON public.b (q) WHERE q > 0;
        CREATE UNIQUE INDEX ON public.b (r, id);
        CREATE UNIQUE INDEX ON public.b (s) INCLUDE (id)""")
    expose(session, "'public.a'")
    expose(session, "'public.b'")
    assert [(r[2], r[5]) for r in relationships(session)] == [
        (["p"], True), (["q"], False), (["r"], False), (["s"], True)]


def test_partitions_are_no_relationships_of_their_own(session):
    session.run("""
        CREATE TABLE public.a (id int PRIMARY KEY) PARTITION BY LIST (id);
        CREATE TABLE public.a1 PARTITION OF public.a FOR VALUES IN (1);
        CREATE TABLE public.b (id int PRIMARY KEY, a int REFERENCES public.a) PARTITION BY LIST (id);
        CREATE TABLE public.b1 PARTITION OF public.b FOR VALUES IN (1)""")
    for name in ("a", "a1", "b"):
        expose(session, f"'public.{name}'")
    assert [r[1:4:2] for r in relationships(session)] == [("b", "a")]
    expose(session, "'public.b1'")
    assert sorted(r[1:4:2] for r in relationships(session)) == [("b", "a"), ("b1", "a")]


def test_what_foreign_keys_change_is_a_new_state(session):
    session.run("CREATE TABLE public.a (id int PRIMARY KEY); CREATE TABLE public.b (id int PRIMARY KEY, a int)")
    expose(session, "'public.a'")
    expose(session, "'public.b'")
    before = session.one("SELECT composure.catalog_state()")
    session.run("ALTER TABLE public.b ADD FOREIGN KEY (a) REFERENCES public.a")
    added = session.one("SELECT composure.catalog_state()")
    session.run("CREATE UNIQUE INDEX ON public.b (a)")
    assert len({before, added, session.one("SELECT composure.catalog_state()")}) == 3


def test_counts_and_regular_expressions_are_allowed_by_expose(session):
    session.run("CREATE TABLE public.t (id int PRIMARY KEY)")
    said = session.one("SELECT composure.expose('public.t', exact_count => true, regular_expressions => true)")
    assert "count    exact" in said and "match, imatch" in said
    t = session.resource("t")
    assert t["exact_count"] and t["regular_expressions"]
    expose(session, "'public.t'")
    t = session.resource("t")
    assert not t["exact_count"] and not t["regular_expressions"]
