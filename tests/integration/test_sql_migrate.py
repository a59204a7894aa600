"""sql/migrate.sql: once, again, at once, changed, and by whom."""

import shutil
import subprocess

import pytest
from harness.process import SOURCE
from sqlcluster import Session

MIGRATE = SOURCE / "sql" / "migrate.sql"
MIGRATIONS = sorted(p.stem for p in (SOURCE / "sql" / "migrations").glob("*.sql"))


@pytest.fixture
def empty(cluster, request):
    name = "e_" + request.node.name[:50]
    yield cluster.create_database(name)
    cluster.psql("postgres", "-c", f'DROP DATABASE "{name}" WITH (FORCE)')


def start_psql(cluster, database, user="postgres", file=MIGRATE, cwd="/"):
    return subprocess.Popen(["psql", "-X", "-d", cluster.dsn(database.name, user), "-f", str(file)], cwd=cwd,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def psql(*arguments, **options):
    process = start_psql(*arguments, **options)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_migrating_is_quiet_and_records_each_migration(cluster, empty):
    assert psql(cluster, empty) == (0, "", "")
    rows = empty.sql("SELECT name, checksum ~ '^[0-9a-f]{64}$' FROM composure.migration ORDER BY name")
    assert rows == [(name, True) for name in MIGRATIONS]


def test_migrating_again_changes_nothing(cluster, empty):
    psql(cluster, empty)
    before = empty.sql("SELECT m, i FROM composure.migration m, composure.installation i ORDER BY m.name")
    assert psql(cluster, empty) == (0, "", "")
    assert empty.sql("SELECT m, i FROM composure.migration m, composure.installation i ORDER BY m.name") == before


def test_migrating_works_from_any_directory(cluster, empty):
    assert psql(cluster, empty, file="sql/migrate.sql", cwd=SOURCE) == (0, "", "")
    assert psql(cluster, empty, file="migrate.sql", cwd=SOURCE / "sql") == (0, "", "")


def test_four_migrations_at_once_apply_each_file_once(cluster, empty):
    at_once = [start_psql(cluster, empty) for _ in range(4)]
    assert [(p.communicate(timeout=60)[1], p.returncode) for p in at_once] == [("", 0)] * 4
    assert empty.value("SELECT count(*) FROM composure.migration") == len(MIGRATIONS)
    assert empty.value("SELECT count(*) FROM composure.installation") == 1


def test_four_databases_of_a_new_cluster_migrate_at_once(own_cluster):
    databases = [own_cluster.create_database(f"d{n}") for n in range(4)]
    at_once = [start_psql(own_cluster, d) for d in databases]
    assert [(p.communicate(timeout=60)[1], p.returncode) for p in at_once] == [("", 0)] * 4
    for database in databases:
        assert database.sql("SELECT worker_role, anonymous_role FROM composure.installation") == [
            ("composure_worker", "composure_anonymous")]


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_migrating_does_not_depend_on_the_default_isolation(cluster, empty, isolation):
    empty.sql(f"ALTER DATABASE \"{empty.name}\" SET default_transaction_isolation = '{isolation}'")
    at_once = [start_psql(cluster, empty) for _ in range(2)]
    assert [(p.communicate(timeout=60)[1], p.returncode) for p in at_once] == [("", 0)] * 2


def test_a_changed_migration_is_refused(cluster, empty, tmp_path):
    psql(cluster, empty)
    copy = tmp_path / "sql"
    shutil.copytree(SOURCE / "sql", copy)
    last = copy / "migrations" / f"{MIGRATIONS[-1]}.sql"
    last.write_text(last.read_text().replace("$migration$);", "SELECT 1;\n$migration$);"))
    status, out, err = psql(cluster, empty, file=copy / "migrate.sql")
    assert status == 3
    assert f"migration {MIGRATIONS[-1]} was changed after it was applied" in err
    assert "Restore the file as it was" in err
    assert len(err.splitlines()) == 2


def test_a_checkout_with_crlf_is_the_same_migration(cluster, empty, tmp_path):
    psql(cluster, empty)
    copy = tmp_path / "sql"
    shutil.copytree(SOURCE / "sql", copy)
    for file in (copy / "migrations").glob("*.sql"):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert psql(cluster, empty, file=copy / "migrate.sql") == (0, "", "")


def test_a_migration_that_fails_leaves_nothing_of_itself(cluster, empty, tmp_path):
    copy = tmp_path / "sql"
    shutil.copytree(SOURCE / "sql", copy)
    last = copy / "migrations" / f"{MIGRATIONS[-1]}.sql"
    last.write_text(last.read_text().replace("$migration$);", "CREATE TABLE composure.half (); SELECT 1 / 0;\n$migration$);"))
    status, out, err = psql(cluster, empty, file=copy / "migrate.sql")
    assert status == 3
    assert empty.sql("SELECT name FROM composure.migration ORDER BY 1") == [(m,) for m in MIGRATIONS[:-1]]
    assert empty.value("SELECT to_regclass('composure.half')") is None
    assert psql(cluster, empty) == (0, "", "")


def test_a_role_that_may_not_create_a_schema_is_told_so(cluster, empty):
    cluster.psql("postgres", "-c", "CREATE ROLE sql_nobody LOGIN")
    status, out, err = psql(cluster, empty, user="sql_nobody")
    assert status == 3
    assert f'role "sql_nobody" may not create the schema "composure" in database "{empty.name}"' in err
    assert "GRANT CREATE ON DATABASE" in err


def test_another_role_than_the_first_is_told_whose_schema_it_is(cluster, empty):
    cluster.psql("postgres", "-c", "CREATE ROLE sql_stranger LOGIN")
    empty.sql(f'GRANT CREATE ON DATABASE "{empty.name}" TO sql_stranger')
    psql(cluster, empty)
    empty.sql("GRANT USAGE ON SCHEMA composure TO sql_stranger")
    status, out, err = psql(cluster, empty, user="sql_stranger")
    assert status == 3
    assert 'belongs to role "postgres", not to "sql_stranger"' in err
    assert 'Run migrate.sql as "postgres".' in err


@pytest.fixture
def owned(cluster, empty):
    """A database that a role without any right of its own owns, as a shared host gives it."""
    cluster.psql("postgres", "-c", "DROP ROLE IF EXISTS sql_owner", check=False)
    cluster.psql("postgres", "-c", "CREATE ROLE sql_owner LOGIN", check=False)
    empty.sql(f'ALTER DATABASE "{empty.name}" OWNER TO sql_owner')
    return empty


def test_a_database_owner_without_rights_migrates_and_everything_runs_as_the_owner(cluster, owned):
    assert psql(cluster, owned, user="sql_owner") == (0, "", "")
    session = Session(owned, "sql_owner")
    session.run("CREATE TABLE public.things (id int PRIMARY KEY)")
    session.run("SELECT composure.expose('public.things')")
    assert 'requests run as "sql_owner", with or without a key' in session.said
    assert "FORCE ROW LEVEL SECURITY" in session.said
    installation = session.catalog()["installation"]
    assert (installation["worker_role"], installation["anonymous_role"]) == ("sql_owner", None)
    things = session.resource("things")
    assert things["select_roles"] == things["delete_roles"] == ["sql_owner"]
    key = session.one("SELECT composure.create_key('app')")
    lookup = session.run("SELECT id, role FROM composure.key_lookup(%s)", key.split("_")[1])
    assert lookup == [(key.split("_")[1], None)]
    assert session.one("SELECT role FROM composure.keys") == "sql_owner"
    session.close()


def test_on_a_shared_host_the_hint_names_the_table_whose_policies_would_not_apply(cluster, owned):
    psql(cluster, owned, user="sql_owner")
    session = Session(owned, "sql_owner")
    session.run("CREATE TABLE public.t (id int PRIMARY KEY); ALTER TABLE public.t ENABLE ROW LEVEL SECURITY")
    session.run("SELECT composure.expose('public.t')")
    assert "ALTER TABLE public.t FORCE ROW LEVEL SECURITY;" in session.said
    session.close()


def test_an_administrator_who_migrates_later_leaves_the_owner_what_it_owns(cluster, owned, tmp_path):
    psql(cluster, owned, user="sql_owner")
    copy = tmp_path / "sql"
    shutil.copytree(SOURCE / "sql", copy)
    (copy / "migrations" / "9999_next.sql").write_text(
        "CALL pg_temp.composure_apply('9999_next', 'CREATE TABLE composure.next ()');")
    (copy / "migrate.sql").write_text((copy / "migrate.sql").read_text() + "\n\\ir migrations/9999_next.sql\n")
    assert psql(cluster, owned, file=copy / "migrate.sql") == (0, "", "")
    assert owned.value("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'composure'") == "sql_owner"


def test_roles_can_be_made_later(cluster, owned):
    psql(cluster, owned, user="sql_owner")
    session = Session(owned)
    before = session.one("SELECT catalog_version FROM composure.installation")
    assert "composure_worker" in session.one("SELECT composure.install_roles()")
    assert session.run("SELECT worker_role, anonymous_role, catalog_version FROM composure.installation") == [
        ("composure_worker", "composure_anonymous", before + 1)]
    session.close()
    worker = Session(owned, "composure_worker")
    assert worker.catalog()["resources"] == []
    worker.close()


def test_the_worker_role_has_the_settings_of_a_worker_and_no_rights(bare_database):
    worker = Session(bare_database, "composure_worker")
    wanted = {"default_transaction_isolation": "read committed", "synchronous_commit": "on", "TimeZone": "UTC",
              "client_connection_check_interval": "100ms", "extra_float_digits": "1", "bytea_output": "hex",
              "DateStyle": "ISO, MDY", "idle_in_transaction_session_timeout": "30s"}
    for name, value in wanted.items():
        assert worker.one(f"SHOW {name}") == value
    assert worker.run("SELECT rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, "
                      "rolbypassrls FROM pg_roles WHERE rolname = current_user") == [
        (False, False, False, False, True, False, False)]
    assert worker.column("SELECT p.oid::regprocedure::text FROM pg_proc p WHERE pronamespace = 'composure'::regnamespace "
                         "AND has_function_privilege(p.oid, 'EXECUTE') ORDER BY 1") == [
        "composure.catalog()", "composure.catalog_state()", "composure.feed_begin()",
        "composure.feed_clean(pg_snapshot,pg_snapshot)", "composure.feed_poll(pg_snapshot)", "composure.follow_tables()",
        "composure.idem_answer(text,text)", "composure.idem_begin(text,text,bytea,text,text)",
        "composure.idem_record(text,text,bytea,text,text,integer,text,text,integer)", "composure.idem_sweep()",
        "composure.key_lookup(text)",
        "composure.lease(text,text,text[],integer[],integer[],integer[],integer[],integer[],integer[])",
        "composure.limit_sweep()", "composure.noted()"]
    assert worker.column("SELECT relname FROM pg_class WHERE relnamespace = 'composure'::regnamespace "
                         "AND has_table_privilege(oid, 'SELECT, INSERT, UPDATE, DELETE')") == []
    worker.run("SET ROLE composure_anonymous")
    worker.close()


def test_the_anonymous_role_cannot_log_in_and_reaches_nothing_of_ours(bare_database):
    session = Session(bare_database)
    assert session.run("SELECT rolcanlogin, rolsuper FROM pg_roles WHERE rolname = 'composure_anonymous'") == [
        (False, False)]
    assert session.one("SELECT has_schema_privilege('composure_anonymous', 'composure', 'USAGE')") is False
    session.close()


def test_a_worker_role_that_is_a_superuser_is_refused(own_cluster):
    database = own_cluster.create_database("d")
    own_cluster.psql("postgres", "-c", "CREATE ROLE composure_worker SUPERUSER LOGIN")
    status, out, err = psql(own_cluster, database)
    assert status == 3
    assert 'role "composure_worker" exists and is a superuser or has BYPASSRLS' in err
    assert database.value("SELECT to_regclass('composure.resource')") is None


def test_worker_roles_made_by_others_are_put_right(own_cluster):
    database = own_cluster.create_database("d")
    own_cluster.psql("postgres", "-c", "CREATE ROLE composure_worker")
    assert psql(own_cluster, database) == (0, "", "")
    assert database.sql("SELECT rolinherit, rolcanlogin FROM pg_roles WHERE rolname = 'composure_worker'") == [
        (False, True)]


def test_a_creator_of_roles_that_is_no_superuser_installs_them(own_cluster):
    own_cluster.psql("postgres", "-c", "CREATE ROLE maker LOGIN CREATEROLE", "-c", "CREATE DATABASE m OWNER maker")
    database = type("D", (), {"name": "m"})
    assert psql(own_cluster, database, user="maker") == (0, "", "")
    assert own_cluster.psql("m", "-c", "SELECT worker_role FROM composure.installation").strip() == "composure_worker"


def test_each_function_has_a_safe_search_path_and_none_is_for_public(bare_database):
    session = Session(bare_database)
    functions = session.run(
        "SELECT p.oid::regprocedure::text, prosecdef, proconfig, proacl::text FROM pg_proc p "
        "WHERE pronamespace = 'composure'::regnamespace")
    assert len(functions) > 20
    # These look names up in the caller's search_path; they run with the caller's rights.
    callers = [f for f in functions if f[0].startswith(("composure.expose(", "composure.find_relation(",
                                                        "composure.expose_function(", "composure.find_function("))]
    assert len(callers) == 4 and not any(definer for _, definer, _, _ in callers)
    # These are inlined, and so can have none: they run with the caller's rights, and each name in them has its schema.
    inlined = [f for f in functions if f[0].startswith(("composure.limit_clock(", "composure.bucket_tokens(",
                                                        "composure.bucket_begin(", "composure.idem_id(", "composure.idem_lock(",
                                                        "composure.idem_slot("))]
    assert len(inlined) == 6 and not any(definer for _, definer, _, _ in inlined)
    for name, definer, config, acl in functions:
        if (name, definer, config, acl) not in callers + inlined:
            assert config and "search_path=pg_catalog, pg_temp" in config, name
        assert acl is not None and "=X/" not in acl.replace("postgres=X/", "").replace("composure_worker=X/", ""), name
    session.close()


def test_everything_in_the_schema_has_a_comment(bare_database):
    session = Session(bare_database)
    assert session.column(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'composure'::regnamespace "
        "AND relkind IN ('r', 'v') AND obj_description(oid, 'pg_class') IS NULL "
        "UNION ALL SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'composure'::regnamespace "
        "AND obj_description(oid, 'pg_proc') IS NULL") == []
    session.close()


def test_a_dump_restores_with_everything_exposed(cluster, bare_database, empty):
    session = Session(bare_database)
    session.run("CREATE TABLE public.\"Odd\" (gone int, id int PRIMARY KEY, secret text); "
                "ALTER TABLE public.\"Odd\" DROP COLUMN gone")
    session.run("SELECT composure.expose('public.\"Odd\"', hidden => '{secret}')")
    before = session.resource("Odd")
    session.close()
    dump = subprocess.run(["pg_dump", "-d", bare_database.dsn], check=True, capture_output=True)
    subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", empty.dsn], input=dump.stdout, check=True,
                   capture_output=True)
    restored = Session(empty)
    after = restored.resource("Odd")
    assert [c for c in after["columns"] if c["hidden"]][0]["name"] == "secret"
    before["oid"] = after["oid"]
    assert after == before
    assert psql(cluster, empty) == (0, "", "")
    restored.close()
