"""The records of idempotent writes and the exposing of functions, in SQL: what each function promises, and refuses."""

import hashlib
import json

import psycopg2
import pytest
from harness.process import wait_until
from sqlcluster import Session

PRINT = hashlib.sha256(b"request").digest()
BEGIN = "SELECT composure.idem_begin(%s, %s, %s, %s, %s)"
RECORD = "SELECT composure.idem_record(%s, %s, %s, %s, %s, 201, 'A: b', 'body')"


@pytest.fixture(scope="module")
def shared(migrated_template):
    return migrated_template.cluster.create_database("sql_writing", migrated_template.name)


@pytest.fixture
def session(shared):
    session = Session(shared, keep=False)
    yield session
    session.close()


@pytest.fixture
def two(bare_database):
    """Two sessions of a worker, each in a transaction of its own."""
    sessions = [Session(bare_database, user="composure_worker") for _ in range(2)]
    for s in sessions:
        s.run("BEGIN ISOLATION LEVEL READ COMMITTED")
    yield sessions
    for s in sessions:
        s.close()


def sqlstate(session, text, *parameters):
    session.run("SAVEPOINT before")
    try:
        session.run(text, *parameters)
    except psycopg2.Error as error:
        session.run("ROLLBACK TO before")
        return error.pgcode
    return "00000"


def who(key="k", identity="me", fingerprint=PRINT, role="api", tenant=None):
    return identity, key, fingerprint, role, tenant


# --- records ---


def test_a_record_is_found_by_its_key_and_identity(session):
    session.run(BEGIN, *who())
    session.run(RECORD, *who())
    assert session.run("SELECT * FROM composure.idem_answer('me', 'k')") == [(201, "A: b", "body")]
    assert session.run("SELECT * FROM composure.idem_answer('you', 'k')") == []
    assert sqlstate(session, BEGIN, *who()) == "ZC001"
    assert sqlstate(session, BEGIN, *who(identity="you")) == "00000"
    assert sqlstate(session, BEGIN, *who(key="K")) == "00000"


def test_another_request_role_or_tenant_is_told_apart(session):
    session.run(BEGIN, *who(tenant="t"))
    session.run(RECORD, *who(tenant="t"))
    assert sqlstate(session, BEGIN, *who(tenant="t", fingerprint=hashlib.sha256(b"other").digest())) == "ZC003"
    for other in (who(tenant=None), who(tenant="u"), who(tenant="t", role="b"), who(tenant="t", role=None)):
        assert sqlstate(session, BEGIN, *other) == "ZC004"
    assert sqlstate(session, BEGIN, *who(tenant="u", fingerprint=hashlib.sha256(b"x").digest())) == "ZC004"


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_only_read_committed_will_do(bare_database, level):
    s = Session(bare_database)
    s.run(f"BEGIN ISOLATION LEVEL {level}")
    assert sqlstate(s, BEGIN, *who()) == "ZC005"
    s.close()


def test_one_transaction_at_a_time_has_a_key(two):
    a, b = two
    a.run(BEGIN, *who())
    assert sqlstate(b, BEGIN, *who()) == "ZC002"
    assert sqlstate(b, RECORD, *who()) == "ZC002"
    assert sqlstate(b, BEGIN, *who(key="other")) == "00000"
    a.run(RECORD, *who())
    assert sqlstate(b, BEGIN, *who()) == "ZC002"
    a.run("COMMIT")
    assert sqlstate(b, BEGIN, *who()) == "ZC001"


def test_a_rolled_back_write_leaves_the_key_free(two):
    a, b = two
    a.run(BEGIN, *who())
    a.run(RECORD, *who())
    a.run("ROLLBACK")
    assert sqlstate(b, BEGIN, *who()) == "00000"


def test_a_replay_waits_for_nobody(two):
    a, b = two
    a.run(BEGIN, *who())
    a.run(RECORD, *who())
    a.run("COMMIT")
    a.run("BEGIN")
    assert sqlstate(a, BEGIN, *who()) == "ZC001"  # it holds the lock now
    assert sqlstate(b, BEGIN, *who()) == "ZC001"


def test_look_ups_cover_all_partitions_by_an_index(session):
    session.run("""INSERT INTO composure.idempotency (slot, id, identity, key, fingerprint, role, status, headers, body)
                   SELECT s, composure.idem_id('me', 'k' || s), 'me', 'k' || s, %s, 'api', 200, '', '' FROM generate_series(0, 2) s""", PRINT)
    for slot in range(3):
        assert sqlstate(session, BEGIN, *who(key=f"k{slot}")) == "ZC001"
    session.run("SET LOCAL enable_seqscan = off")
    session.run("SET LOCAL enable_bitmapscan = off")
    plan = session.column("EXPLAIN SELECT * FROM composure.idempotency WHERE id = composure.idem_id('me', 'k')")
    assert sum("Index Scan" in line for line in plan) == 3 and not any("Seq Scan" in line for line in plan)


def test_wrong_arguments_are_refused(session):
    for bad in (who(key=None), who(identity=None), who(fingerprint=None)):
        assert sqlstate(session, BEGIN, *bad) == "22023"
    for bad in (who(key=""), who(key="x" * 256), who(identity=""), who(fingerprint=b"short")):
        assert sqlstate(session, RECORD, *bad) == "22023"
    assert sqlstate(session, RECORD.replace("201", "42"), *who()) == "22023"


def test_a_body_over_the_bound_is_not_recorded(session):
    session.run(BEGIN, *who())
    bounded = RECORD.replace("'body')", "'body', %s)")
    assert sqlstate(session, bounded, *who(), 3) == "ZC006"
    assert session.run("SELECT * FROM composure.idem_answer('me', 'k')") == []
    assert sqlstate(session, bounded, *who(), 4) == "00000"


def test_the_sweep_empties_tomorrows_partition_alone(bare_database):
    s = Session(bare_database)
    s.run("""INSERT INTO composure.idempotency (slot, id, identity, key, fingerprint, status, headers, body)
             SELECT s, composure.idem_id('me', 'k' || s), 'me', 'k' || s, %s, 200, '', '' FROM generate_series(0, 2) s""", PRINT)
    today = s.one("SELECT composure.idem_slot()")
    assert s.one("SELECT composure.idem_sweep()") is True
    assert set(s.column("SELECT slot FROM composure.idempotency")) == {0, 1, 2} - {(today + 1) % 3}
    assert s.one("SELECT composure.idem_sweep()") is True
    s.close()


def test_the_sweep_does_not_wait_for_a_reader(bare_database):
    s, reader = Session(bare_database), Session(bare_database)
    tomorrow = (s.one("SELECT composure.idem_slot()") + 1) % 3
    s.run("INSERT INTO composure.idempotency (slot, id, identity, key, fingerprint, status, headers, body)"
          " VALUES (%s, composure.idem_id('me', 'k'), 'me', 'k', %s, 200, '', '')", tomorrow, PRINT)
    reader.run("BEGIN")
    reader.run("SELECT * FROM composure.idem_answer('me', 'k')")
    assert s.one("SELECT composure.idem_sweep()") is False
    assert s.one("SELECT count(*) FROM composure.idempotency") == 1
    reader.run("COMMIT")
    assert wait_until(lambda: s.one("SELECT composure.idem_sweep()"), "the sweep")
    assert s.one("SELECT count(*) FROM composure.idempotency") == 0
    s.close()
    reader.close()


def test_the_slot_is_the_day_modulo_three(session):
    assert session.one("SELECT composure.idem_slot() = floor(extract(epoch FROM clock_timestamp()) / 86400)::bigint % 3")


# --- rights ---


def test_only_workers_may_call_what_is_theirs(bare_database):
    rows = Session(bare_database)
    functions = rows.run("""SELECT p.oid::regprocedure::text, obj_description(p.oid, 'pg_proc') LIKE 'For the workers:%%',
                                   has_function_privilege('composure_worker', p.oid, 'EXECUTE'),
                                   has_function_privilege('composure_anonymous', p.oid, 'EXECUTE'), p.proconfig, p.prosecdef
                              FROM pg_proc p WHERE p.pronamespace = 'composure'::regnamespace""")
    for name, for_workers, worker, anonymous, settings, definer in functions:
        assert not anonymous, name
        assert worker or not for_workers, name
        if definer:
            assert "search_path=pg_catalog, pg_temp" in settings, name
    assert {"composure.idem_begin(text,text,bytea,text,text)", "composure.idem_sweep()"} <= {n for n, w, *_ in functions if w}
    assert not rows.one("SELECT has_table_privilege('composure_worker', 'composure.idempotency', 'SELECT, INSERT, TRUNCATE')")
    rows.close()


# --- functions ---


FUNCTIONS = """
    CREATE SCHEMA f;
    CREATE FUNCTION f.plain(a int, b text DEFAULT 'x') RETURNS int LANGUAGE sql AS 'SELECT a';
    CREATE FUNCTION f.stable_one(a int) RETURNS int STABLE LANGUAGE sql AS 'SELECT a';
    CREATE FUNCTION f.unnamed(int) RETURNS int LANGUAGE sql AS 'SELECT $1';
    CREATE FUNCTION f.many(VARIADIC a int[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION f.poly(a anyelement) RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION f.what(a int) RETURNS record LANGUAGE sql AS 'SELECT 1, 2';
    CREATE FUNCTION f.sets(OUT i int, OUT t text, n int) RETURNS SETOF record STABLE LANGUAGE sql AS 'SELECT 1, ''x''';
    CREATE FUNCTION f.fires() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE PROCEDURE f.steps() LANGUAGE sql AS '';
    CREATE AGGREGATE f.total(int) (sfunc = int4pl, stype = int, initcond = '0');
    CREATE DOMAIN f.small AS int CHECK (VALUE < 10);
    CREATE FUNCTION f.twice(a f.small) RETURNS int LANGUAGE sql AS 'SELECT a::int * 2';
    CREATE FUNCTION f.over(a int) RETURNS int LANGUAGE sql AS 'SELECT a';
    CREATE FUNCTION f.over(a text) RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION f.owner() RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 1';
"""


@pytest.fixture
def functions(session):
    session.run(FUNCTIONS)
    return session


def exposed(session, name):
    return {f["name"]: f for f in session.catalog()["functions"]}[name]


def test_a_function_is_found_by_signature_or_by_its_only_name(functions):
    functions.run("SELECT composure.expose_function('f.plain(int, text)')")
    functions.run("SELECT composure.expose_function('f.plain', name => 'second')")
    functions.run("SET LOCAL search_path = f")
    functions.run("SELECT composure.expose_function('plain', name => 'third')")
    assert {f["function"] for f in functions.catalog()["functions"]} == {"plain"}


def test_what_the_catalog_says_of_a_function(functions):
    functions.run("SELECT composure.expose_function('f.plain', deadline => '2 seconds', cost => 3, idempotency => 'required')")
    f = exposed(functions, "plain")
    assert (f["schema"], f["function"], f["returns"], f["volatility"]) == ("f", "plain", "value", "v")
    assert (f["methods"], f["deadline_ms"], f["cost"], f["idempotency"], f["rows_max"]) == (["POST"], 2000, 3, "required", 200)
    assert [(a["name"], a["type"], a["has_default"]) for a in f["arguments"]] == [
        ("a", "pg_catalog.int4", False), ("b", "pg_catalog.text", True)]
    functions.run("SELECT composure.expose_function('f.sets', rows_max => 5, cache => 'max-age=5')")
    f = exposed(functions, "sets")
    assert (f["returns"], f["methods"], f["rows_max"], f["cache"]) == ("set", ["GET", "POST"], 5, "max-age=5")
    assert [a["name"] for a in f["arguments"]] == ["n"]
    functions.run("SELECT composure.expose_function('f.twice')")
    a = exposed(functions, "twice")["arguments"][0]
    assert (a["type"], a["base_oid"]) == ("f.small", 23)


def test_exposing_again_replaces_and_unexposing_ends_it(functions):
    functions.run("SELECT composure.expose_function('f.plain', name => 'p', cost => 9)")
    said = functions.one("SELECT composure.expose_function('f.plain')")
    assert "/rpc/p" in said
    assert exposed(functions, "p")["cost"] == 1
    assert functions.one("SELECT composure.unexpose_function('p')") == "/rpc/p is no longer served"
    assert functions.catalog()["functions"] == []
    assert functions.refused("SELECT composure.unexpose_function('p')")[0] == 'no function is exposed as "p"'


def test_the_state_of_the_catalog_changes_with_its_functions(bare_database):
    s = Session(bare_database)
    s.run(FUNCTIONS)
    seen = {s.one("SELECT composure.catalog_state()")}
    changes = ("SELECT composure.expose_function('f.plain')", "REVOKE EXECUTE ON FUNCTION f.plain FROM PUBLIC",
               "ALTER FUNCTION f.plain STABLE", "CREATE FUNCTION f.plain(a text) RETURNS int LANGUAGE sql AS 'SELECT 1'",
               "SELECT composure.unexpose_function('plain')")
    for change in changes:
        s.run(change)
        seen.add(s.one("SELECT composure.catalog_state()"))
    assert len(seen) == 1 + len(changes)
    s.close()


def test_a_call_never_reaches_a_function_that_is_not_exposed(functions):
    functions.run("SELECT composure.expose_function('f.plain')")
    functions.run("CREATE FUNCTION f.plain(a bigint) RETURNS int LANGUAGE sql AS 'SELECT 1'")
    assert functions.catalog()["functions"] == []
    assert "cannot be told from function f.plain(a bigint)" in functions.refused(
        "SELECT composure.expose_function('f.plain(int, text)')")[0]
    functions.run("DROP FUNCTION f.plain(bigint); CREATE FUNCTION f.plain(a int, c int) RETURNS int LANGUAGE sql AS 'SELECT 1'")
    assert [f["name"] for f in functions.catalog()["functions"]] == ["plain"]


def test_a_function_that_is_dropped_is_no_longer_served(functions):
    functions.run("SELECT composure.expose_function('f.plain')")
    functions.run("DROP FUNCTION f.plain")
    assert functions.catalog()["functions"] == []


@pytest.mark.parametrize("arguments, message", [
    ("'f.nope'", 'function "f.nope" does not exist'),
    ("'f.plain(bigint)'", 'function "f.plain(bigint)" does not exist'),
    ("'f.over'", 'function "f.over" does not exist'),
    ("'12345'", 'function "12345" does not exist'),
    ("''", 'function "" does not exist'),
    ("'f.plain('", 'function "f.plain(" does not exist'),
    ("'f.steps'", "procedure f.steps() cannot be exposed"),
    ("'f.total(int)'", "aggregate f.total(integer) cannot be exposed"),
    ("'f.fires'", "function f.fires() is a trigger function"),
    ("'f.unnamed'", "function f.unnamed(integer): argument 1 has no name"),
    ("'f.many'", 'function f.many(VARIADIC a integer[]): argument "a" is VARIADIC'),
    ("'f.poly'", 'function f.poly(a anyelement): argument "a" is of the type anyelement, which a request cannot give'),
    ("'f.what'", "function f.what(a integer) returns a record of unknown columns"),
    ("'composure.catalog()'", "function composure.catalog() belongs to Composure itself and cannot be exposed"),
    ("'pg_catalog.pg_sleep(float8)'", "function pg_catalog.pg_sleep(double precision) belongs to PostgreSQL and cannot be exposed"),
    ("'f.plain', name => 'a/b'", 'name: "a/b" cannot be part of a URL'),
    ("'f.plain', name => ''", 'name: "" cannot be part of a URL'),
    ("'f.plain', methods => '{GET}'", "methods: function f.plain(a integer, b text) cannot take GET"),
    ("'f.plain', methods => '{PATCH}'", "methods: function f.plain(a integer, b text) cannot take PATCH"),
    ("'f.plain', methods => '{BREW}'", 'methods: "BREW" is not a method'),
    ("'f.plain', cost => -1", "cost must not be negative"),
    ("'f.plain', idempotency => 'x'", 'idempotency: "x" is not known'),
    ("'f.plain', deadline => '0'", "deadline must be between 1 ms and 10 minutes, not 00:00:00"),
    ("'f.plain', rows_max => 0", "rows_max must be between 1 and 1000, not 0"),
    ("'f.plain', cache => 'ttl=3'", "cache: only GET is cached, and function f.plain(a integer, b text) takes POST alone"),
    ("'f.stable_one', cache => 'nonsense'", 'cache: "nonsense" is not a directive'),
])
def test_what_cannot_be_exposed_is_refused_in_plain_words(functions, arguments, message):
    said, hint = functions.refused(f"SELECT composure.expose_function({arguments})")
    assert said == message
    assert hint


def test_a_name_is_for_one_function(functions):
    functions.run("SELECT composure.expose_function('f.plain', name => 'x')")
    assert functions.refused("SELECT composure.expose_function('f.stable_one', name => 'x')")[0] == (
        'name: "x" is taken by function f.plain(a integer, b text)')


def test_what_is_likely_not_meant_is_said(functions):
    functions.run("SELECT composure.expose_function('f.owner')")
    assert "runs with its owner's rights and has no search_path" in functions.said
    assert "everyone may call" in functions.said


def test_public_needs_a_function_that_everybody_may_call(functions):
    functions.run("GRANT USAGE ON SCHEMA f TO composure_anonymous; REVOKE EXECUTE ON FUNCTION f.stable_one FROM PUBLIC")
    said, hint = functions.refused("SELECT composure.expose_function('f.stable_one', cache => 'public, max-age=5')")
    assert "may not call" in said and "GRANT EXECUTE" in hint


def test_callers_are_those_who_may(functions):
    functions.run("REVOKE EXECUTE ON FUNCTION f.plain FROM PUBLIC")
    said = functions.one("SELECT composure.expose_function('f.plain')")
    assert "none yet: GRANT EXECUTE" in said
    assert exposed(functions, "plain")["roles"] == []
    functions.run("GRANT EXECUTE ON FUNCTION f.plain TO composure_anonymous; GRANT USAGE ON SCHEMA f TO composure_anonymous")
    assert exposed(functions, "plain")["roles"] == ["composure_anonymous"]
    assert json.loads(functions.one("SELECT composure.catalog()"))
