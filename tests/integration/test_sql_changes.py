"""The change feed of rows: what the triggers note, where they come from and go to, and how widely and long is cached."""

import subprocess
import time

import psycopg2
import pytest
from harness.process import SOURCE
from sqlcluster import Session

SETUP = """
CREATE TABLE public.users (id bigint PRIMARY KEY, name text, code text UNIQUE NOT NULL DEFAULT gen_random_uuid()::text);
CREATE TABLE public.orders (user_id bigint REFERENCES public.users ON UPDATE CASCADE ON DELETE CASCADE, num int, note text,
                            PRIMARY KEY (user_id, num));
CREATE VIEW public.named AS SELECT id, name FROM public.users WHERE name IS NOT NULL;
CREATE TABLE public.parts (id int, at timestamptz, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (id);
CREATE TABLE public.parts_1 PARTITION OF public.parts FOR VALUES FROM (0) TO (100);
CREATE TABLE public.base (id int PRIMARY KEY, note text);
CREATE TABLE public.child (PRIMARY KEY (id)) INHERITS (public.base);
"""


@pytest.fixture(scope="module")
def shared(migrated_template):
    database = migrated_template.cluster.create_database("sql_changes", migrated_template.name)
    database.sql(SETUP)
    return database


@pytest.fixture
def session(shared):
    session = Changes(shared, keep=False)
    session.run("CREATE ROLE sql_writer NOLOGIN; GRANT USAGE ON SCHEMA public TO sql_writer; "
                "GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public TO sql_writer")
    yield session
    session.close()


@pytest.fixture
def kept(bare_database):
    """For what has to commit."""
    bare_database.sql(SETUP)
    session = Changes(bare_database)
    yield session
    session.close()


class Changes(Session):
    """noted() gives what was noted since it was last asked: (resource, keys, hard), sorted. keys None: all."""

    def expose(self, relation, cache="ttl=30", **arguments):
        more = "".join(f", {name} => %s" for name in arguments)
        return self.one(f"SELECT composure.expose(%s, cache => %s{more})", f"public.{relation}", cache, *arguments.values())

    def noted(self):
        rows = self.run("WITH d AS (DELETE FROM composure.change RETURNING *) "
                        "SELECT resource, keys, hard FROM d WHERE resource NOT LIKE '@%'")
        return sorted(((r, k and sorted(k), h) for r, k, h in rows), key=repr)

    def wrote(self, text, *parameters):
        self.noted()
        # Each statement as a transaction of its own would have it: "all" is said once in one.
        self.run("SET LOCAL composure.noted = ''" if not self.keep else "SELECT 1")
        self.run(text, *parameters)
        return self.noted()

    def follow(self):
        return self.one("SELECT composure.follow_tables()")

    def settle(self):
        while self.follow():
            pass
        self.follow()
        self.noted()

    def triggers(self, relation):
        return sorted(name.rsplit("_", 1)[1] for name in self.column(
            "SELECT t.tgname FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid "
            "WHERE t.tgrelid = %s::regclass AND p.pronamespace = 'composure'::regnamespace", f"public.{relation}"))

    def scope(self, name):
        return self.run("SELECT scope, ttl_bound_ms, reason FROM composure.cache_scopes() WHERE name = %s", name)[0]


STATEMENT = ["delete", "insert", "truncate", "update"]
ROW = ["rows", "truncate"]


# What is noted

def test_each_kind_of_write_is_noted_by_its_keys(session):
    session.expose("users")
    for text, keys, hard in [
            ("INSERT INTO public.users (id) VALUES (1), (2)", ["1", "2"], False),
            ("INSERT INTO public.users (id) SELECT i FROM generate_series(3, 5) i", ["3", "4", "5"], False),
            ("UPDATE public.users SET name = 'a' WHERE id < 3", ["1", "2"], False),
            ("UPDATE public.users SET id = 20 WHERE id = 2", ["2", "20"], False),
            ("INSERT INTO public.users (id) VALUES (-7)", ["-7"], False),
            ("DELETE FROM public.users WHERE id IN (-7, 3)", ["-7", "3"], True),
            ("TRUNCATE public.users CASCADE", None, True)]:
        assert session.wrote(text) == [("users", keys, hard)], text


def test_what_writes_no_row_is_not_noted(session):
    session.expose("users")
    session.expose("named", key=["id"])
    for text in ("UPDATE public.users SET name = 'a' WHERE false", "DELETE FROM public.users WHERE id = 99",
                 "INSERT INTO public.users (id) SELECT 1 WHERE false"):
        assert session.wrote(text) == [], text


def test_on_conflict_notes_what_was_inserted_and_what_was_updated(session):
    session.expose("users")
    session.run("INSERT INTO public.users (id) VALUES (1)")
    assert session.wrote("INSERT INTO public.users (id) VALUES (1), (2) ON CONFLICT (id) DO UPDATE SET name = 'x'") == [
        ("users", ["1"], False), ("users", ["2"], False)]
    assert session.wrote("INSERT INTO public.users (id) VALUES (1) ON CONFLICT DO NOTHING") == []


def test_merge_notes_each_of_its_actions(session):
    if session.connection.server_version < 150000:
        pytest.skip("MERGE came with PostgreSQL 15")
    session.expose("users")
    session.run("INSERT INTO public.users (id) VALUES (1), (2)")
    assert session.wrote("MERGE INTO public.users u USING (VALUES (1), (2), (3)) v (id) ON u.id = v.id "
                         "WHEN MATCHED AND v.id = 1 THEN DELETE WHEN MATCHED THEN UPDATE SET name = 'm' "
                         "WHEN NOT MATCHED THEN INSERT (id) VALUES (v.id)") == [
        ("users", ["1"], True), ("users", ["2"], False), ("users", ["3"], False)]


def test_copy_is_noted(kept, bare_database):
    kept.expose("users")
    kept.noted()
    subprocess.run(["psql", "-X", "-q", "-d", bare_database.dsn, "-c", "COPY public.users (id, name) FROM STDIN"],
                   input=b"7\tseven\n8\teight\n", check=True, capture_output=True)
    assert kept.noted() == [("users", ["7", "8"], False)]


def test_a_cascade_is_noted_in_the_table_it_reaches(session):
    session.expose("orders")
    session.run("INSERT INTO public.users (id) VALUES (1), (2); INSERT INTO public.orders VALUES (1, 1), (1, 2), (2, 1)")
    assert session.wrote("UPDATE public.users SET id = 9 WHERE id = 1") == [("orders", ["1,1", "1,2", "9,1", "9,2"], False)]
    assert session.wrote("DELETE FROM public.users WHERE id = 2") == [("orders", ["2,1"], True)]
    assert session.wrote("TRUNCATE public.users CASCADE") == [("orders", None, True)]


def test_composite_keys_are_written_as_an_items_path_has_them(session):
    session.expose("orders")
    session.expose("orders", name="turned", key=["num", "user_id"])
    session.run("INSERT INTO public.users (id) VALUES (1)")
    assert session.wrote("INSERT INTO public.orders VALUES (1, 17)") == [
        ("orders", ["1,17"], False), ("turned", ["17,1"], False)]


def test_keys_are_written_as_workers_write_them_whatever_the_writers_settings(session):
    session.run("CREATE TABLE public.odd (at timestamptz, b bytea, f float8, c char(4), iv interval, e bool, PRIMARY KEY (at, b, f, c, iv, e))")
    session.expose("odd")
    session.run("SET LOCAL timezone = 'Asia/Tokyo'; SET LOCAL datestyle = 'German'; SET LOCAL bytea_output = 'escape'; "
                "SET LOCAL extra_float_digits = -5; SET LOCAL intervalstyle = 'iso_8601'")
    assert session.wrote("INSERT INTO public.odd VALUES ('2026-01-02 03:04:05.678+00', '\\xff00', 0.1::float8 + 0.2, 'a', '90 min', true)") == [
        ("odd", ["2026-01-02 03:04:05.678+00,\\xff00,0.30000000000000004,a   ,01:30:00,t"], False)]


def test_a_hundred_keys_are_keys_and_more_are_all(session):
    session.expose("users")
    insert = "INSERT INTO public.users (id) SELECT i FROM generate_series(%s, %s) i"
    assert len(session.wrote(insert, 1, 100)[0][1]) == 100
    assert session.wrote(insert, 101, 201) == [("users", None, False)]
    assert session.wrote("UPDATE public.users SET id = id + 1000 WHERE id <= 50")[0][1] is not None
    assert session.wrote("UPDATE public.users SET id = id + 5000 WHERE id <= 151 AND id > 100") == [("users", None, False)]
    assert session.wrote("DELETE FROM public.users") == [("users", None, True)]


def test_long_keys_and_many_statements_are_all(session):
    session.run("CREATE TABLE public.long (id text PRIMARY KEY)")
    session.expose("long")
    assert session.wrote("INSERT INTO public.long SELECT repeat(md5(i::text), 20) FROM generate_series(1, 7) i") == [("long", None, False)]
    session.noted()
    session.run("DO $$ BEGIN FOR i IN 1..1010 LOOP INSERT INTO public.long VALUES (i); END LOOP; END $$")
    noted = session.noted()
    assert len(noted) <= 1001 and noted.count(("long", None, False)) == 1


def test_all_that_was_noted_softly_is_noted_again_when_it_is_hard(session):
    session.expose("named", key=["id"])
    session.noted()
    session.run("INSERT INTO public.users (id) VALUES (1); UPDATE public.users SET name = 'x'; DELETE FROM public.users; "
                "DELETE FROM public.users; INSERT INTO public.users (id) VALUES (1)")
    assert session.noted() == [("named", None, False), ("named", None, True)]


def test_what_is_rolled_back_is_not_noted(session):
    session.expose("users")
    session.noted()
    session.run("SAVEPOINT a; INSERT INTO public.users (id) VALUES (1); ROLLBACK TO a")
    assert session.noted() == []


def test_a_writer_needs_no_right_on_ours(session):
    session.expose("users")
    session.expose("parts")
    session.expose("named", key=["id"])
    session.noted()
    session.run("SET LOCAL ROLE sql_writer; INSERT INTO public.users (id) VALUES (1); UPDATE public.users SET name = 'a'; "
                "INSERT INTO public.parts VALUES (1, '2026-01-01+00'); DELETE FROM public.users; TRUNCATE public.parts; RESET ROLE")
    assert len(session.noted()) == 7


def test_a_writers_own_search_path_and_temporary_tables_change_nothing(session):
    session.expose("users")
    session.run("CREATE TEMP TABLE new_rows (id text); CREATE TEMP TABLE change (resource text, keys text[], hard boolean); "
                "CREATE FUNCTION pg_temp.concat(VARIADIC \"any\") RETURNS text LANGUAGE internal IMMUTABLE AS 'text_concat'; "
                "SET LOCAL search_path = pg_temp, public")
    assert session.wrote("INSERT INTO public.users (id) VALUES (1)") == [("users", ["1"], False)]
    session.run("RESET search_path; DROP TABLE pg_temp.new_rows, pg_temp.change; DROP FUNCTION pg_temp.concat(\"any\")")


def test_serializable_writers_do_not_fail_because_of_us(kept, bare_database):
    kept.run("CREATE VIEW public.bases AS SELECT id FROM public.base")
    kept.expose("users")
    kept.expose("named", key=["id"])
    kept.expose("bases", key=["id"])
    one, other = Session(bare_database), Session(bare_database)
    kept.noted()
    for number, writer in enumerate((one, other)):
        writer.run("BEGIN ISOLATION LEVEL SERIALIZABLE")
        writer.run("INSERT INTO public.users (id) VALUES (%s)", number)
    for number, writer in enumerate((one, other)):
        writer.run("INSERT INTO public.base (id) VALUES (%s)", number)
    one.run("COMMIT")
    other.run("COMMIT")
    assert kept.noted() == [(name, keys, False) for name, keys in
                            [("bases", None)] * 2 + [("named", None)] * 2 + [("users", ["0"]), ("users", ["1"])]]
    one.close()
    other.close()


def test_writes_under_the_replica_role_are_noted(session):
    session.expose("users")
    session.expose("parts")
    session.run("SET LOCAL session_replication_role = replica")
    assert session.wrote("INSERT INTO public.users (id) VALUES (1)") == [("users", ["1"], False)]
    assert session.wrote("INSERT INTO public.parts_1 VALUES (1, '2026-01-01+00')") == [("parts", ["1,2026-01-01 00:00:00+00"], False)]
    session.run("SET LOCAL session_replication_role = origin")


def test_a_renamed_or_dropped_key_never_fails_a_write(session):
    session.expose("users")
    session.expose("users", name="by_code", key=["code"])
    session.run("ALTER TABLE public.users RENAME COLUMN id TO ident")
    assert session.wrote("INSERT INTO public.users (ident, code) VALUES (1, 'c')") == [("by_code", ["c"], False), ("users", None, False)]
    assert session.wrote("UPDATE public.users SET name = 'w'") == [("by_code", ["c"], False), ("users", None, False)]
    assert session.follow() == ["by_code", "users"]
    session.run("SELECT set_config('composure.noted', '', true)")
    assert session.wrote("UPDATE public.users SET name = 'x'")[1] == ("users", ["1"], False)
    session.run("ALTER TABLE public.users DROP COLUMN code")
    assert session.wrote("UPDATE public.users SET name = 'y'") == [("by_code", None, False), ("users", ["1"], False)]


def test_columns_may_have_the_names_of_what_a_trigger_uses_itself(session):
    names = ["own", "k1", "noted", "listed", "op", "hard", "tg_op", "found", "new_rows", "old_rows", "row_1", "loop", "r", "It's \"q\" %1$s"]
    quoted = ['"' + n.replace('"', '""').replace("%", "%%") + '"' for n in names]
    session.run("CREATE TABLE public.odd (" + ", ".join(f"{q} text" for q in quoted) + f", PRIMARY KEY ({', '.join(quoted)}))", ())
    session.expose("odd")
    for text, keys, hard in [("INSERT INTO public.odd SELECT " + ", ".join(f"'{i}'" for i in range(14)), ["0,1,2,3,4,5,6,7,8,9,10,11,12,13"], False),
                             ("UPDATE public.odd SET own = 'x'", ["0,1,2,3,4,5,6,7,8,9,10,11,12,13", "x,1,2,3,4,5,6,7,8,9,10,11,12,13"], False),
                             ("DELETE FROM public.odd", ["x,1,2,3,4,5,6,7,8,9,10,11,12,13"], True)]:
        assert session.wrote(text) == [("odd", keys, hard)]
    # Renamed, none is read from anything else.
    for n, q in enumerate(quoted):
        session.run(f"ALTER TABLE public.odd RENAME COLUMN {q} TO renamed_{n}", ())
        assert session.wrote("INSERT INTO public.odd SELECT " + ", ".join(f"'{i}'" for i in range(14))) == [("odd", None, False)], q
        assert session.wrote("DELETE FROM public.odd") == [("odd", None, True)], q
        session.run(f"ALTER TABLE public.odd RENAME COLUMN renamed_{n} TO {q}", ())


@pytest.mark.parametrize("wrong", ["x", "-1", "9999999999999999999", "1e3"])
def test_a_setting_that_is_no_number_fails_no_write(session, wrong):
    session.expose("users")
    session.expose("parts")
    session.run("SELECT set_config('composure.noted', %s, false)", wrong)
    session.noted()
    session.run("INSERT INTO public.users (id) VALUES (1); INSERT INTO public.parts VALUES (1, '2026-01-01+00'); "
                "INSERT INTO public.users (id) SELECT generate_series(2, 200)")
    noted = session.noted()
    assert {r for r, _, _ in noted} == {"users", "parts"} and ("users", None, False) in noted
    session.run("RESET composure.noted")


# Where the triggers are

def test_triggers_come_with_a_ttl_and_go_with_it(session):
    for cache, triggers in [(None, []), ("max-age=5", []), ("ttl=0", []), ("ttl=30", STATEMENT), ("ttl=5, stale-if-error=9", STATEMENT),
                            ("public, max-age=5", [])]:
        session.run("GRANT SELECT ON public.users TO composure_anonymous")
        session.expose("users", cache=cache)
        assert session.triggers("users") == triggers, cache
    session.expose("users")
    before = session.run("SELECT oid, xmin FROM pg_trigger ORDER BY oid")
    session.expose("users")
    assert session.run("SELECT oid, xmin FROM pg_trigger ORDER BY oid") == before
    session.run("SELECT composure.unexpose('users')")
    assert session.triggers("users") == []
    assert session.column("SELECT proname FROM pg_proc WHERE proname ~ '^note_rows_[0-9]'") == []


def test_a_table_with_two_names_has_one_set_of_triggers(session):
    session.expose("users")
    session.expose("users", name="people")
    session.expose("users", name="codes", key=["code"])
    session.expose("users", name="uncached", cache=None)
    assert session.triggers("users") == STATEMENT
    assert session.wrote("INSERT INTO public.users (id, code) VALUES (1, 'c,d')") == [
        ("codes", ["c,d"], False), ("people", ["1"], False), ("users", ["1"], False)]
    session.run("SELECT composure.unexpose('people')")
    session.expose("users", name="users", cache="max-age=1")
    assert session.wrote("DELETE FROM public.users") == [("codes", ["c,d"], True)]
    assert session.triggers("users") == STATEMENT


def test_names_are_quoted(session):
    session.run('CREATE SCHEMA "S ""x"; CREATE TABLE "S ""x"."T (r.%1$s" '
                '("Id ""q"" (r.a" int, "%s" text, PRIMARY KEY ("Id ""q"" (r.a", "%s"))')
    session.run("SELECT composure.expose(%s, name => %s, cache => 'ttl=1')", '"S ""x"."T (r.%1$s"', "it's \\ %1$s")
    assert session.wrote('INSERT INTO "S ""x"."T (r.%1$s" VALUES (1, $$a$$)') == [("it's \\ %1$s", ["1,a"], False)]


def test_whoever_writes_the_catalog_by_hand_is_followed(session):
    session.expose("users", cache=None)
    session.run("UPDATE composure.resource SET cache = 'ttl=3'")
    assert session.triggers("users") == STATEMENT
    session.run("DELETE FROM composure.resource")
    assert session.triggers("users") == []
    session.expose("users")
    session.run("TRUNCATE composure.resource")
    assert session.triggers("users") == []


def test_a_table_that_is_dropped_takes_its_triggers_and_leaves_no_function_for_long(session):
    session.run("CREATE TABLE public.gone (id int PRIMARY KEY)")
    session.expose("gone")
    session.run("DROP TABLE public.gone")
    session.follow()
    assert session.column("SELECT proname FROM pg_proc WHERE proname ~ '^note_rows_[0-9]'") == []
    assert session.scope("gone") == ("none", None, "its relation is gone")


def test_a_partitioned_table_is_followed_on_its_partitions(session):
    session.expose("parts")
    assert session.triggers("parts") == session.triggers("parts_1") == ROW
    at = "2026-01-01 00:00:00+00"
    assert session.wrote("INSERT INTO public.parts_1 VALUES (1, %s)", at) == [("parts", [f"1,{at}"], False)]
    assert session.wrote("INSERT INTO public.parts VALUES (2, %s)", at) == [("parts", [f"2,{at}"], False)]
    # A new one has them from the beginning; but for TRUNCATE.
    session.run("CREATE TABLE public.parts_2 PARTITION OF public.parts FOR VALUES FROM (100) TO (200)")
    assert session.wrote("INSERT INTO public.parts_2 VALUES (101, %s)", at) == [("parts", [f"101,{at}"], False)]
    assert session.follow() == ["parts"]
    assert session.triggers("parts_2") == ROW
    assert session.wrote("TRUNCATE public.parts_2") == [("parts", None, True)]
    # From one to another
    assert session.wrote("UPDATE public.parts SET id = 102 WHERE id = 2") == [
        ("parts", [f"102,{at}"], False), ("parts", [f"2,{at}"], True)]
    assert session.wrote("TRUNCATE public.parts") == [("parts", None, True)]


def test_a_partition_that_is_attached_or_detached_is_seen_by_follow_tables(session):
    session.expose("parts")
    session.run("CREATE TABLE public.later (LIKE public.parts INCLUDING ALL); INSERT INTO public.later VALUES (300, now())")
    session.settle()
    session.run("ALTER TABLE public.parts ATTACH PARTITION public.later FOR VALUES FROM (300) TO (400)")
    assert session.follow() == ["parts"] and session.noted() == [("parts", None, True)]
    assert session.triggers("later") == ROW
    assert len(session.wrote("DELETE FROM public.later")) == 1
    session.settle()
    session.run("ALTER TABLE public.parts DETACH PARTITION public.later")
    assert session.follow() == ["parts"] and session.noted() == [("parts", None, True)]
    assert session.triggers("later") == []
    session.follow()
    assert session.follow() == []


def test_a_foreign_partition_is_no_hindrance(session):
    session.run(FOREIGN + "CREATE TABLE public.p (id int NOT NULL) PARTITION BY RANGE (id); "
                "CREATE TABLE public.p_1 PARTITION OF public.p FOR VALUES FROM (0) TO (9); "
                "CREATE FOREIGN TABLE public.away PARTITION OF public.p FOR VALUES FROM (10) TO (20) "
                "SERVER sql_away OPTIONS (filename '/dev/null')")
    session.expose("p", key=["id"])
    assert "not followed" not in session.said
    assert session.triggers("p") == session.triggers("p_1") == ROW and session.triggers("away") == ["rows"]
    assert session.wrote("INSERT INTO public.p VALUES (1)") == [("p", ["1"], False)]
    session.settle()
    assert session.follow() == []


def test_a_partition_that_is_exposed_itself_hears_of_writes_through_its_parent(session):
    session.expose("parts_1")
    assert session.triggers("parts_1") == ROW and session.triggers("parts") == []
    at = "2026-01-01 00:00:00+00"
    assert session.wrote("INSERT INTO public.parts VALUES (1, %s)", at) == [("parts_1", [f"1,{at}"], False)]
    session.expose("parts")
    assert session.wrote("UPDATE public.parts SET note = 'x'") == [("parts", [f"1,{at}"], False), ("parts_1", [f"1,{at}"], False)]
    assert session.wrote("TRUNCATE public.parts") == [("parts", None, True), ("parts_1", None, True)]
    session.run("SELECT composure.unexpose('parts')")
    assert session.triggers("parts_1") == ROW and session.triggers("parts") == []


def test_inheritance_children_are_followed(session):
    session.expose("base")
    assert session.triggers("base") == STATEMENT and session.triggers("child") == ROW
    assert session.wrote("INSERT INTO public.child VALUES (1)") == [("base", ["1"], False)]
    assert ("base", ["1"], False) in session.wrote("UPDATE public.base SET note = 'x'")
    assert ("base", ["1"], True) in session.wrote("DELETE FROM public.base")
    session.settle()
    session.run("CREATE TABLE public.child_2 () INHERITS (public.base)")
    assert session.follow() == ["base"] and session.triggers("child_2") == ROW
    assert session.wrote("INSERT INTO public.child_2 VALUES (5)")[-1] == ("base", ["5"], False)
    assert session.wrote("TRUNCATE public.child_2") == [("base", None, True)]


def test_the_target_of_a_subscription_is_followed_by_row(session):
    """Its worker fires no statement triggers, but for TRUNCATE."""
    session.expose("users")
    session.run("SET LOCAL allow_system_table_mods = on; "
                "INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate) VALUES (1, 'public.users'::regclass, 'r')")
    assert session.follow() == ["users"]
    assert session.triggers("users") == ROW
    assert session.wrote("INSERT INTO public.users (id) VALUES (1)") == [("users", ["1"], False)]
    session.run("DELETE FROM pg_subscription_rel")
    session.follow()
    assert session.triggers("users") == STATEMENT


def test_a_view_changes_with_its_tables_however_deep(session):
    session.run("CREATE VIEW public.deeper AS SELECT n.id, count(o.*) AS orders FROM public.named n "
                "LEFT JOIN public.orders o ON o.user_id = n.id GROUP BY n.id")
    session.expose("deeper", key=["id"])
    assert session.triggers("users") == session.triggers("orders") == STATEMENT
    assert session.wrote("INSERT INTO public.users (id) VALUES (1)") == [("deeper", None, False)]
    assert session.wrote("INSERT INTO public.orders VALUES (1, 1)") == [("deeper", None, False)]
    assert session.wrote("DELETE FROM public.orders") == [("deeper", None, True)]
    # Another definition reads other tables.
    session.run("CREATE OR REPLACE VIEW public.deeper AS SELECT b.id::bigint AS id, 1::bigint AS orders FROM public.base b")
    assert session.follow() == ["deeper"]
    assert session.triggers("orders") == [] and session.triggers("base") == STATEMENT
    # A view that is written to
    session.expose("named", key=["id"])
    assert ("named", None, False) in session.wrote("INSERT INTO public.named VALUES (5, 'five')")


def test_what_a_policy_reads_is_about_rights_and_hard(session):
    session.run("CREATE TABLE public.members (who name PRIMARY KEY, active boolean); "
                "ALTER TABLE public.users ENABLE ROW LEVEL SECURITY; "
                "CREATE POLICY p ON public.users USING (EXISTS (SELECT FROM public.members m WHERE m.who = current_user AND m.active))")
    session.expose("users")
    assert session.triggers("members") == STATEMENT
    assert session.wrote("INSERT INTO public.members VALUES ('a', true)") == [("users", None, True)]
    assert session.wrote("UPDATE public.members SET active = false") == [("users", None, True)]
    assert session.wrote("INSERT INTO public.users (id) VALUES (1)") == [("users", ["1"], False)]
    session.settle()
    session.run("DROP POLICY p ON public.users")
    session.follow()
    assert session.triggers("members") == []


def test_tables_named_with_depends_are_followed(session):
    session.run("CREATE FUNCTION public.names() RETURNS SETOF text STABLE LANGUAGE sql AS 'SELECT name FROM public.users'; "
                "CREATE VIEW public.hidden AS SELECT n FROM public.names() n")
    session.expose("hidden", key=["n"], depends=["public.users"])
    assert session.wrote("INSERT INTO public.users (id) VALUES (1)") == [("hidden", None, False)]


def test_a_table_that_was_swapped_is_followed_again(session):
    session.run("CREATE TABLE public.current (id int PRIMARY KEY); CREATE VIEW public.front AS SELECT id FROM public.current; "
                "CREATE TABLE public.next (id int PRIMARY KEY)")
    session.expose("front", key=["id"])
    session.settle()
    session.run("ALTER TABLE public.current RENAME TO old; ALTER TABLE public.next RENAME TO current; "
                "CREATE OR REPLACE VIEW public.front AS SELECT id FROM public.current")
    assert session.follow() == ["front"] and session.noted() == [("front", None, True)]
    assert session.wrote("INSERT INTO public.current VALUES (1)") == [("front", None, False)]
    assert session.triggers("old") == []


def test_a_table_that_was_rewritten_is_noted(session):
    session.expose("base")
    session.settle()
    session.run("ALTER TABLE public.base ALTER COLUMN note TYPE int USING note::int + 1")
    assert session.follow() == ["base"] and session.noted() == [("base", None, True)]


def test_a_materialized_view_is_noted_when_it_was_refreshed(kept):
    kept.run("CREATE MATERIALIZED VIEW public.sums AS SELECT 1 AS id, count(*) AS n FROM public.users; CREATE UNIQUE INDEX ON public.sums (id)")
    kept.expose("sums", key=["id"])
    kept.settle()
    assert kept.triggers("users") == []
    for how in ("", "CONCURRENTLY "):
        kept.run(f"REFRESH MATERIALIZED VIEW {how}public.sums")
        assert kept.follow() == ["sums"] and kept.noted() == [("sums", None, False)]
        kept.settle()


def test_triggers_that_were_dropped_or_disabled_are_made_again(session):
    session.expose("users")
    session.settle()
    name = session.one("SELECT tgname FROM pg_trigger WHERE tgrelid = 'public.users'::regclass AND tgname LIKE 'composure_%%insert'", ())
    session.run(f"DROP TRIGGER {name} ON public.users")
    assert session.follow() == ["users"] and session.noted() == [("users", None, True)]
    assert session.triggers("users") == STATEMENT
    for how in ("DISABLE TRIGGER ALL", "ENABLE TRIGGER ALL"):
        session.settle()
        session.run(f"ALTER TABLE public.users {how}")
        assert session.follow() == ["users"]
        assert session.column("SELECT DISTINCT t.tgenabled FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid "
                              "WHERE tgrelid = 'public.users'::regclass AND proname LIKE 'note_rows%'") == ["A"]


def test_follow_tables_waits_for_nobody_and_tries_again(kept, bare_database):
    kept.run("CREATE TABLE public.late (LIKE public.parts INCLUDING ALL)")
    kept.expose("parts")
    kept.settle()
    kept.run("ALTER TABLE public.parts ATTACH PARTITION public.late FOR VALUES FROM (300) TO (400)")
    other = Session(bare_database)
    other.run("BEGIN; INSERT INTO public.late VALUES (300, now())")
    began = time.monotonic()
    kept.follow()
    assert time.monotonic() - began < 1
    assert kept.triggers("late") == ["rows"]
    # The pause doubles: nobody is held up each second by what cannot succeed.
    pauses = []
    for _ in range(8):
        kept.run("UPDATE composure.followed_state SET again_at = least(again_at, clock_timestamp())")
        kept.follow()
        pauses.append(kept.one("SELECT extract(epoch FROM pause)::int FROM composure.followed_state"))
    assert pauses[-3:] == [60, 60, 60] and pauses == sorted(pauses)
    other.run("COMMIT")
    assert kept.follow() == [] and kept.triggers("late") == ["rows"]
    kept.run("UPDATE composure.followed_state SET again_at = clock_timestamp()")
    assert kept.follow() == ["parts"]
    assert kept.triggers("late") == ROW
    kept.settle()
    assert kept.run("SELECT again_at, extract(epoch FROM pause)::int FROM composure.followed_state") == [(None, 0)]
    # And not beside another that is at it.
    other.run("BEGIN; SELECT FROM composure.installation FOR UPDATE; COMMENT ON TABLE public.users IS 'x'")
    kept.run("CREATE TABLE public.late_2 PARTITION OF public.parts FOR VALUES FROM (400) TO (500)")
    assert kept.follow() == []
    other.run("ROLLBACK")
    assert kept.follow() == ["parts"]
    other.close()


def test_a_worker_may_follow_and_nothing_else(kept, bare_database):
    kept.expose("users")
    worker = Session(bare_database, "composure_worker")
    assert worker.one("SELECT composure.follow_tables()") == []
    for text in ("SELECT composure.keep_triggers(NULL)", "SELECT composure.purge('users')", "TABLE composure.followed"):
        assert "permission denied" in worker.refused(text)[0]
    function = kept.one("SELECT oid::regprocedure::text FROM pg_proc WHERE proname LIKE 'note_rows%'")
    assert kept.one("SELECT has_function_privilege('composure_worker', %s, 'EXECUTE')", function) is False
    worker.close()


def test_following_five_hundred_tables_is_cheap_when_nothing_is_to_do(kept):
    kept.run("DO $$ BEGIN FOR i IN 1..500 LOOP EXECUTE format('CREATE TABLE public.t%s (id int PRIMARY KEY)', i); END LOOP; END $$")
    kept.run("ALTER TABLE composure.resource DISABLE TRIGGER USER; "
             "INSERT INTO composure.resource (name, relation, methods, cache) "
             "SELECT 't' || i, ('public.t' || i)::regclass, '{GET}', 'ttl=5' FROM generate_series(1, 500) i; "
             "ALTER TABLE composure.resource ENABLE TRIGGER USER; SELECT composure.keep_triggers(NULL)")
    kept.settle()
    best = 1
    for _ in range(20):
        began = time.monotonic()
        assert kept.follow() == []
        best = min(best, time.monotonic() - began)
    assert best < 0.02, best


def test_a_dump_restores_with_triggers_that_work(cluster, kept, bare_database):
    kept.expose("users")
    kept.expose("parts")
    dump = subprocess.run(["pg_dump", "-d", bare_database.dsn], check=True, capture_output=True)
    empty = cluster.create_database(f"{bare_database.name}_restored")
    subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", empty.dsn], input=dump.stdout, check=True, capture_output=True)
    restored = Changes(empty)
    restored.noted()
    restored.run("INSERT INTO public.users (id) VALUES (1)")
    assert restored.noted() == [("users", ["1"], False)]
    restored.settle()
    assert restored.triggers("users") == STATEMENT and restored.triggers("parts_1") == ROW
    restored.run("INSERT INTO public.users (id) VALUES (2)")
    assert restored.noted() == [("users", ["2"], False)]
    restored.close()


# By hand

def test_purge_is_a_hard_change_of_a_resource_or_a_row(session):
    session.expose("orders", cache=None)
    session.noted()
    assert session.one("SELECT composure.purge('orders', '1,2')") == "/orders/1,2 is no longer served from the cache"
    assert session.noted() == [("orders", ["1,2"], True)]
    assert session.one("SELECT composure.purge('orders')") == "/orders is no longer served from the cache"
    assert session.noted() == [("orders", None, True)]


def test_purge_refuses_what_is_not_there(session):
    for wrong in ("'users'", "NULL", "''", "'@all'"):
        message, hint = session.refused(f"SELECT composure.purge({wrong})")
        assert message.startswith("nothing is exposed as") and hint == "Nothing is exposed yet."
    session.expose("users")
    assert session.refused("SELECT composure.purge('user')") == ('nothing is exposed as "user"', "Exposed are: users.")
    message, hint = session.refused("SELECT composure.purge('users', '')")
    assert message == "key: it is empty" and "'128'" in hint


def test_the_feed_says_what_is_hard(kept, bare_database):
    kept.expose("users")
    worker = Session(bare_database, "composure_worker")
    snapshot = worker.one("SELECT snapshot FROM composure.feed_poll(NULL)")
    kept.run("INSERT INTO public.users (id) VALUES (1)")
    kept.run("DELETE FROM public.users")
    kept.run("SELECT composure.rights_changed()")
    changes = worker.run("SELECT * FROM composure.feed_poll(%s)", snapshot)
    assert [c[3:] for c in changes] == [(None, None, None), ("users", ["1"], False), ("users", ["1"], True), ("@all", None, True)]
    worker.close()
    for name in ("NULL", "''"):
        assert kept.refused(f"SELECT composure.note_change({name}, NULL, true)")[0] == "resource: a change needs one"


# Scopes and bounds

RLS = "ALTER TABLE public.users ENABLE ROW LEVEL SECURITY; "
STABLE = "CREATE FUNCTION public.mine() RETURNS text STABLE LANGUAGE sql AS $$ SELECT current_setting('composure.tenant', true) $$; "
VOLATILE = STABLE.replace("STABLE", "VOLATILE")
VIEW = "CREATE VIEW public.v {} AS SELECT id, name FROM public.users {}; "
FOREIGN = "CREATE EXTENSION file_fdw; CREATE SERVER sql_away FOREIGN DATA WRAPPER file_fdw; "

SHAPES = [
    # a name, SQL, what is exposed and how, scope, bound, a part of the reason
    ("a plain table", "", "users", {}, "role", None, "without row-level security"),
    ("column privileges", "GRANT SELECT (id) ON public.users TO sql_writer", "users", {}, "role", None, "without row-level security"),
    ("a partitioned table", "", "parts", {}, "role", None, "without row-level security"),
    ("a parent with children", "", "base", {}, "role", None, "without row-level security"),
    ("public", "GRANT SELECT ON public.users TO composure_anonymous", "users", {"cache": "public, ttl=9"}, "public", None, "by its cache policy"),
    ("public without a ttl", "GRANT SELECT ON public.users TO composure_anonymous", "users", {"cache": "public, max-age=9"}, "public", None, "by its"),
    ("private by word", "", "users", {"cache": "private, ttl=9"}, "identity", None, "by its cache policy"),
    ("no cache policy", "", "users", {"cache": None}, "role", None, "without row-level security"),
    ("policies that are not on", "CREATE POLICY p ON public.users USING (name = public.mine())", "users", {}, "role", None, "without"),
    ("a policy on settings", RLS + "CREATE POLICY p ON public.users USING (name = current_setting('composure.tenant', true))",
     "users", {}, "identity", None, "a table under row-level security"),
    ("a policy on a role that owns", RLS + "CREATE POLICY p ON public.users TO sql_writer USING (true); ALTER TABLE public.users OWNER TO sql_writer",
     "users", {}, "identity", None, "under row-level security"),
    ("forced", "ALTER TABLE public.users FORCE ROW LEVEL SECURITY; " + RLS, "users", {}, "identity", None, "under row-level security"),
    ("a policy on a membership table", RLS + "CREATE POLICY p ON public.users USING (id IN (SELECT user_id FROM public.orders))",
     "users", {}, "identity", None, "under row-level security"),
    ("a policy through a function", RLS + "CREATE POLICY p ON public.users USING (name = public.mine())",
     "users", {}, "identity", 5000, "mine() may read tables: name them with depends"),
    ("a policy for writers through a function", RLS + "CREATE POLICY p ON public.users FOR INSERT WITH CHECK (name = public.mine())",
     "users", {}, "identity", None, "under row-level security"),
    ("a policy through a function, its tables named", RLS + "CREATE POLICY p ON public.users USING (name = public.mine())",
     "users", {"depends": ["public.orders"]}, "identity", None, "under row-level security"),
    ("a policy through a function, trusted", RLS + "CREATE POLICY p ON public.users USING (name = public.mine())",
     "users", {"trust_me": True}, "identity", None, "under row-level security"),
    ("a policy with a volatile function", RLS + "CREATE POLICY p ON public.users USING (random() < 0.5)",
     "users", {}, "none", None, "reading it calls random(), which is volatile"),
    ("a policy on the time", RLS + "CREATE POLICY p ON public.users USING (now() < '2030-01-01')",
     "users", {}, "identity", 5000, "it depends on the time"),
    ("a view", VIEW.format("", ""), "v", {"key": ["id"]}, "identity", None, "a view"),
    ("a security-barrier view", VIEW.format("WITH (security_barrier)", "WHERE name = current_user"), "v", {"key": ["id"]}, "identity", None, "a view"),
    ("a view that is public", VIEW.format("", "") + "GRANT SELECT ON public.v TO composure_anonymous",
     "v", {"key": ["id"], "cache": "public, ttl=9"}, "public", None, "by its"),
    ("a view with a stable function", STABLE + VIEW.format("", "WHERE name = public.mine()"), "v", {"key": ["id"]}, "identity", 5000, "mine()"),
    ("a view with a volatile function", VOLATILE + VIEW.format("", "WHERE name = public.mine()"), "v", {"key": ["id"]}, "none", None, "calls mine()"),
    ("a view of a view with a volatile function", VIEW.format("", "WHERE random() < 1") + "CREATE VIEW public.w AS SELECT id FROM public.v",
     "w", {"key": ["id"], "trust_me": True}, "none", None, "random()"),
    ("a view over a table whose policy is volatile", RLS + "CREATE POLICY p ON public.users USING (clock_timestamp() > now()); " + VIEW.format("", ""),
     "v", {"key": ["id"]}, "none", None, "clock_timestamp()"),
    ("a view with an immutable function", STABLE.replace("STABLE", "IMMUTABLE") + VIEW.format("", "WHERE name = public.mine()"),
     "v", {"key": ["id"]}, "identity", None, "a view"),
    ("a view on the time", VIEW.format("", "WHERE name::date < CURRENT_DATE"), "v", {"key": ["id"]}, "identity", 5000, "the time"),
    ("a view on the role", VIEW.format("", "WHERE name = current_user"), "v", {"key": ["id"]}, "identity", None, "a view"),
    ("a view with an aggregate of code", VOLATILE.replace("mine()", "step(s text, v text)") +
     "CREATE AGGREGATE public.odd(text) (sfunc = public.step, stype = text); CREATE VIEW public.v AS SELECT 1 AS id, public.odd(name) AS o FROM public.users",
     "v", {"key": ["id"]}, "none", None, "volatile"),
    ("a view over PostgreSQL's own", "CREATE VIEW public.v AS SELECT oid AS id, relname FROM pg_class", "v", {"key": ["id"]}, "identity", 5000,
     "it reads table pg_catalog.pg_class"),
    ("a view over ours", "CREATE VIEW public.v AS SELECT xid AS id FROM composure.change", "v", {"key": ["id"]}, "identity", 5000, "no trigger of ours"),
    ("a materialized view", "CREATE MATERIALIZED VIEW public.m AS SELECT id FROM public.users WHERE random() < 1", "m", {"key": ["id"]}, "identity",
     5000, "materialized view public.m: it is refreshed"),
    ("a foreign table", FOREIGN + "CREATE FOREIGN TABLE public.f (id int) SERVER sql_away OPTIONS (filename '/dev/null')", "f", {"key": ["id"]}, "identity", 5000, "its rows are elsewhere"),
    ("a foreign table, trusted", FOREIGN + "CREATE FOREIGN TABLE public.f (id int) SERVER sql_away OPTIONS (filename '/dev/null')", "f", {"key": ["id"], "trust_me": True},
     "identity", None, "a foreign table"),
    ("a view over a foreign table", FOREIGN + "CREATE FOREIGN TABLE public.f (id int) SERVER sql_away OPTIONS (filename '/dev/null'); CREATE VIEW public.v AS SELECT * FROM public.f",
     "v", {"key": ["id"]}, "identity", 5000, "foreign table public.f"),
    ("a foreign partition", FOREIGN + "CREATE TABLE public.p (id int NOT NULL) PARTITION BY RANGE (id); "
     "CREATE TABLE public.p_1 PARTITION OF public.p FOR VALUES FROM (0) TO (9); "
     "CREATE FOREIGN TABLE public.f PARTITION OF public.p FOR VALUES FROM (10) TO (20) SERVER sql_away OPTIONS (filename '/dev/null')",
     "p", {"key": ["id"]}, "role", 5000, "foreign table public.f"),
]


@pytest.mark.parametrize("sql, relation, options, scope, bound, reason", [s[1:] for s in SHAPES], ids=[s[0] for s in SHAPES])
def test_the_scope_of(session, sql, relation, options, scope, bound, reason):
    if "public.mine()" in sql and "FUNCTION public.mine()" not in sql:
        session.run(STABLE)
    session.run(sql or "SELECT 1")
    said = session.expose(relation, **options)
    got = session.scope(relation)
    assert got[:2] == (scope, bound) and reason in got[2], got
    resource = session.resource(relation)
    assert (resource["scope"], resource["ttl_bound_ms"]) == (scope, bound)
    cached = [line for line in said.splitlines() if line.startswith("  cached ")]
    if "ttl=" not in (options.get("cache", "ttl=30") or ""):
        assert cached == []
    else:
        who = {"none": "not at all", "public": "for all", "role": "for each role", "identity": "for each identity"}[scope]
        assert cached == [f"  cached   {who}{', 5 s at most' if bound else ''} ({got[2]})"]


def test_a_security_invoker_view_is_of_an_identity(session):
    if session.connection.server_version < 150000:
        pytest.skip("security_invoker came with PostgreSQL 15")
    session.run(STABLE + RLS + "CREATE POLICY p ON public.users USING (name = public.mine()); " + VIEW.format("WITH (security_invoker)", ""))
    session.expose("v", key=["id"])
    assert session.scope("v")[:2] == ("identity", 5000)


def test_a_temporary_table_cannot_be_cached_either(session):
    session.run("CREATE TEMP TABLE t (id int PRIMARY KEY)")
    assert session.refused("SELECT composure.expose('pg_temp.t', cache => 'ttl=1')")[0].endswith("no other session can see it")


@pytest.mark.parametrize("before, change", [
    ("", "ALTER TABLE public.users ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON public.users USING (random() < 1)"),
    ("", "CREATE OR REPLACE VIEW public.v AS SELECT id, name FROM public.users WHERE random() < 1"),
    (STABLE + "CREATE OR REPLACE VIEW public.v AS SELECT id, name FROM public.users WHERE name = public.mine()",
     "ALTER FUNCTION public.mine() VOLATILE"),
    (STABLE + "CREATE OR REPLACE VIEW public.v AS SELECT id, name FROM public.users WHERE name = public.mine()",
     "ALTER FUNCTION public.mine() IMMUTABLE"),
    (RLS + "CREATE POLICY p ON public.users USING (random() < 1)", "ALTER TABLE public.users DISABLE ROW LEVEL SECURITY"),
])
def test_the_state_of_the_catalog_changes_with_the_decision(kept, before, change):
    kept.run(VIEW.format("", ""))
    kept.run(before or "SELECT 1")
    kept.expose("v", key=["id"])
    decision, state = kept.scope("v"), kept.one("SELECT composure.catalog_state()")
    kept.run(change)
    assert kept.scope("v") != decision
    assert kept.one("SELECT composure.catalog_state()") != state


def test_where_we_may_make_no_trigger_expose_says_so_and_the_ttl_is_bounded(cluster):
    cluster.psql("postgres", "-c", "CREATE ROLE changes_owner LOGIN")
    database = cluster.create_database("changes_owned")
    try:
        database.sql("ALTER DATABASE changes_owned OWNER TO changes_owner")
        subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", cluster.dsn(database.name, "changes_owner"),
                        "-f", "sql/migrate.sql"], check=True, capture_output=True, cwd=str(SOURCE))
        database.sql("CREATE TABLE public.theirs (id int PRIMARY KEY); GRANT SELECT, INSERT ON public.theirs TO changes_owner")
        owner = Changes(database, "changes_owner")
        said = owner.expose("theirs")
        assert "changes of table public.theirs are not followed: permission denied for table theirs" in owner.said
        assert "GRANT TRIGGER ON public.theirs TO changes_owner; until then answers are cached for 5 s at most." in owner.said
        assert 'for each role, 5 s at most' in said and 'role "changes_owner" may make no trigger on it' in said
        assert owner.scope("theirs")[:2] == ("role", 5000)
        owner.follow()
        owner.follow()
        assert owner.triggers("theirs") == []
        # Granted, the workers make them.
        database.sql("GRANT TRIGGER ON public.theirs TO changes_owner")
        assert owner.follow() == ["theirs"]
        assert owner.triggers("theirs") == STATEMENT and owner.scope("theirs")[:2] == ("role", None)
        owner.noted()
        owner.run("INSERT INTO public.theirs VALUES (1)")
        assert owner.noted() == [("theirs", ["1"], False)]
        # They go without the right to drop them.
        owner.run("SELECT composure.unexpose('theirs')")
        assert owner.triggers("theirs") == []
        # What is its own is followed always.
        owner.run("CREATE TABLE public.own (id int PRIMARY KEY)")
        owner.expose("own")
        assert set(owner.column("SELECT tgenabled FROM pg_trigger WHERE tgrelid = 'public.own'::regclass")) == {"A"}
        owner.close()
    finally:
        cluster.psql("postgres", "-c", "DROP DATABASE changes_owned WITH (FORCE)")
        cluster.psql("postgres", "-c", "DROP ROLE changes_owner")


def test_what_runs_under_a_superuser_is_not_made_to_by_one(cluster):
    """expose() by a superuser: the functions belong to the owner of the schema all the same."""
    cluster.psql("postgres", "-c", "CREATE ROLE changes_owner LOGIN")
    database = cluster.create_database("changes_owned")
    try:
        database.sql("ALTER DATABASE changes_owned OWNER TO changes_owner")
        subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", cluster.dsn(database.name, "changes_owner"),
                        "-f", "sql/migrate.sql"], check=True, capture_output=True, cwd=str(SOURCE))
        admin = Changes(database)
        admin.run("CREATE TABLE public.t (id int PRIMARY KEY); ALTER TABLE public.t OWNER TO changes_owner")
        admin.expose("t")
        assert admin.column("SELECT pg_get_userbyid(proowner)::text FROM pg_proc WHERE proname LIKE 'note_rows%'") == ["changes_owner"]
        admin.close()
    finally:
        cluster.psql("postgres", "-c", "DROP DATABASE changes_owned WITH (FORCE)")
        cluster.psql("postgres", "-c", "DROP ROLE changes_owner")


def test_nothing_of_a_writers_own_runs_as_us(session):
    """The triggers' functions are the owner's: types, functions and operators of the writer's that are called as PostgreSQL's are
    not taken, wherever they stand before those in search_path."""
    session.run("""CREATE TABLE public.written (id int PRIMARY KEY, name text); INSERT INTO public.written VALUES (1, 'a');
        CREATE ROLE writes_only; GRANT SELECT, INSERT, UPDATE, DELETE ON public.written TO writes_only;
        CREATE SCHEMA mine AUTHORIZATION writes_only""")
    session.run("SELECT composure.expose('public.written', cache => 'ttl=60')")
    session.run("SET SESSION AUTHORIZATION writes_only")
    try:
        session.run("""CREATE TEMP TABLE seen (who pg_catalog.text); GRANT ALL ON pg_temp.seen TO PUBLIC; GRANT USAGE ON SCHEMA mine TO PUBLIC;
            CREATE FUNCTION mine.look() RETURNS boolean LANGUAGE plpgsql AS
              $$BEGIN INSERT INTO pg_temp.seen VALUES (current_user); RETURN true; END$$""")
        for schema in ("pg_temp", "mine"):
            for name in ("text", "bool", "int4", "_text", "trigger", "int8"):
                of = {"trigger": "text", "_text": "text[]"}.get(name, name)
                session.run(f"CREATE DOMAIN {schema}.{name} AS pg_catalog.{of} CHECK (mine.look())")
        for name, takes, gives in [("cardinality", "anyarray", "int4"), ("concat", "VARIADIC pg_catalog.text[]", "text"),
                                   ("left", "pg_catalog.text, pg_catalog.int4", "text"), ("octet_length", "pg_catalog.text", "int4"),
                                   ("pg_column_size", "pg_catalog.text[]", "int4"), ("repeat", "pg_catalog.text, pg_catalog.int4", "text"),
                                   ("current_setting", "pg_catalog.text, pg_catalog.bool", "text"),
                                   ("set_config", "pg_catalog.text, pg_catalog.text, pg_catalog.bool", "text")]:
            session.run(f"CREATE FUNCTION mine.{name}({takes}) RETURNS pg_catalog.{gives} LANGUAGE plpgsql AS "
                        "$$BEGIN PERFORM mine.look(); RETURN NULL; END$$")
        for of, signs in [("text", ("=", "<>")), ("int4", ("<", ">", "<="))]:
            session.run(f"CREATE FUNCTION mine.op(pg_catalog.{of}, pg_catalog.{of}) RETURNS pg_catalog.bool LANGUAGE plpgsql AS "
                        "$$BEGIN RETURN mine.look(); END$$")
            for sign in signs:
                session.run(f"CREATE OPERATOR mine.{sign} (FUNCTION = mine.op, LEFTARG = pg_catalog.{of}, RIGHTARG = pg_catalog.{of})")
        for path in ("pg_temp, mine, pg_catalog, public", "mine, pg_temp, pg_catalog"):
            session.run(f"SET search_path = {path}")
            session.run("UPDATE public.written SET name = 'b' WHERE id OPERATOR(pg_catalog.=) 1")
            session.run("INSERT INTO public.written VALUES (2, 'c')")
            session.run("DELETE FROM public.written WHERE id OPERATOR(pg_catalog.=) 2")
            session.run("INSERT INTO public.written SELECT pg_catalog.generate_series(10, 300)")
            session.run("DELETE FROM public.written WHERE id OPERATOR(pg_catalog.>=) 10")
        session.run("RESET search_path")
        assert session.run("SELECT DISTINCT who FROM pg_temp.seen WHERE who <> 'writes_only'") == []
    finally:
        session.run("RESET SESSION AUTHORIZATION")
