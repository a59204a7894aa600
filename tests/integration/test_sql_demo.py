"""sql/demo/demo.sql: the same rows everywhere, harmless to run again, and what it refuses."""

import json

import psycopg2
import pytest
from harness.process import SOURCE
from sqlcluster import Session

ISO = "/usr/share/iso-codes/json"


@pytest.fixture
def session(fresh_database):
    session = Session(fresh_database)
    yield session
    session.close()


def demo(database, *arguments, rows=1000, iso_codes=ISO):
    """Runs the demo; (status, what it wrote to standard error)."""
    done = database.cluster.psql(database.name, "-v", f"rows={rows}", "-v", f"iso_codes={iso_codes}", *arguments, "-f",
                                 SOURCE / "sql/demo/demo.sql", check=False)
    return done.returncode, done.stderr


def test_the_demo_has_as_many_rows_as_were_asked_for(session):
    assert session.run("SELECT count(*), min(id), max(id) FROM public.users") == [(1000, 1, 1000)]
    assert session.run("SELECT count(*), min(id), max(id), count(DISTINCT user_id) FROM public.payments") == [
        (3000, 1, 3000, 1000)]
    for table, file, key in [("countries", "iso_3166-1.json", "3166-1"), ("currencies", "iso_4217.json", "4217")]:
        with open(f"{ISO}/{file}", encoding="utf-8") as f:
            assert session.one(f"SELECT count(*) FROM public.{table}") == len(json.load(f)[key])


def test_the_demo_is_the_same_every_time(session, bare_database):
    assert demo(bare_database) == (0, "")
    other = Session(bare_database)
    for table in ("users", "payments", "countries", "currencies"):
        digest = f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM public.{table} t"
        assert session.one(digest) == other.one(digest)
    other.close()


def test_new_rows_need_no_id(session):
    assert session.one("INSERT INTO public.users (name, email, country) VALUES ('a', 'b', 'DE') RETURNING id") == 1001
    assert session.one("INSERT INTO public.payments (user_id, amount, currency) VALUES (1, 2, 'EUR') RETURNING id") == 3001


def test_the_demo_again_leaves_everything_as_it_is(session, fresh_database):
    session.run("SELECT composure.expose('public.users', hidden => '{email}'); UPDATE public.users SET name = 'me' WHERE id = 1; "
                "SELECT composure.create_plan('standard', 1)")
    before = session.run("SELECT * FROM composure.resource ORDER BY name"), session.run("SELECT * FROM composure.plan ORDER BY 1")
    assert demo(fresh_database) == (0, "")
    assert (session.run("SELECT * FROM composure.resource ORDER BY name"),
            session.run("SELECT * FROM composure.plan ORDER BY 1")) == before
    assert session.one("SELECT name FROM public.users WHERE id = 1") == "me"


def test_the_demo_is_exposed_as_documented(session):
    resources = {r["name"]: r for r in session.catalog()["resources"]}
    assert set(resources) == {"users", "payments", "countries", "currencies"}
    public = "ttl=300, public, max-age=30, s-maxage=60, stale-while-revalidate=60, stale-if-error=3600"
    for name in ("countries", "currencies"):
        assert (resources[name]["cache"], resources[name]["methods"]) == (public, ["GET"])
        assert resources[name]["select_roles"] == ["api_user", "composure_anonymous"]
    for name in ("users", "payments"):
        assert resources[name]["cache"] == "ttl=30, stale-if-error=600"
        assert resources[name]["select_roles"] == resources[name]["insert_roles"] == ["api_user"]


@pytest.mark.parametrize("order", ["users ORDER BY id", "users ORDER BY created_at DESC, id DESC",
                                   "payments ORDER BY created_at DESC, id DESC", "payments WHERE user_id = 5 ORDER BY id"])
def test_pages_of_the_demo_come_from_an_index(session, order):
    # What is cheapest for a thousand rows is not for a million: only whether an index gives the order.
    session.run("SET enable_sort = off; SET enable_bitmapscan = off")
    plan = "\n".join(session.column(f"EXPLAIN SELECT * FROM public.{order} LIMIT 51"))
    assert "Index Scan" in plan and "Sort" not in plan


def transfer(session, *arguments):
    return session.one("SELECT public.transfer(%s, %s, %s)", *arguments)


def test_a_transfer_moves_an_amount(session):
    session.run("SET ROLE api_user")
    before = dict(session.run("SELECT id, balance FROM public.users WHERE id IN (1, 2)"))
    assert transfer(session, 1, 2, "12.34") == before[1] - 12 - session.one("SELECT 0.34")
    after = dict(session.run("SELECT id, balance FROM public.users WHERE id IN (1, 2)"))
    assert sum(before.values()) == sum(after.values())
    assert after[1] < before[1]


@pytest.mark.parametrize("arguments, message, code", [
    ((1, 1, 5), "a transfer needs two different users", "PT400"),
    ((1, 2, 0), "the amount must be positive, in whole cents", "PT400"),
    ((1, 2, -5), "the amount must be positive, in whole cents", "PT400"),
    ((1, 2, None), "the amount must be positive, in whole cents", "PT400"),
    ((1, 2, "NaN"), "the amount must be positive, in whole cents", "PT400"),
    ((1, 2, "0.001"), "the amount must be positive, in whole cents", "PT400"),
    ((5000, 2, 1), "there is no user 5000", "PT404"),
    ((1, 5000, 1), "there is no user 5000", "PT404"),
    ((1, 2, 99999999), "the balance is 482.71 and the transfer 99999999", "PT409"),
])
def test_a_transfer_that_cannot_be_is_refused_in_plain_words(session, arguments, message, code):
    with pytest.raises(psycopg2.Error) as caught:
        transfer(session, *arguments)
    assert (caught.value.diag.message_primary, caught.value.pgcode) == (message, code)


def test_the_demo_needs_the_migrations(cluster):
    database = cluster.create_database("demo_unmigrated")
    status, said = demo(database)
    assert status == 3
    assert "this database has no schema composure yet" in said and "sql/migrate.sql" in said


def test_the_demo_says_what_is_missing_without_iso_codes(bare_database):
    status, said = demo(bare_database, iso_codes="/nowhere")
    assert status == 3
    assert "the list of countries and currencies is missing" in said and "iso-codes" in said
    assert bare_database.value("SELECT to_regclass('public.countries')") is None


@pytest.mark.parametrize("rows", ["0", "-1", "many", "1.5"])
def test_the_demo_refuses_a_senseless_number_of_rows(bare_database, rows):
    status, said = demo(bare_database, rows=rows)
    assert status == 3
    assert f'rows must be a number from 1 to 999999999, not "{rows}"' in said
    assert bare_database.value("SELECT to_regclass('public.countries')") is None


def test_the_demo_does_not_touch_a_users_table_of_somebody_else(bare_database):
    bare_database.sql("CREATE TABLE public.users (id int)")
    status, said = demo(bare_database)
    assert status == 3
    assert "this database has a table public.users of its own" in said
    assert bare_database.value("SELECT to_regclass('public.payments')") is None


def test_the_demo_works_for_an_owner_that_may_not_create_roles(cluster):
    cluster.psql("postgres", "-c", "CREATE ROLE sql_demo_owner LOGIN", "-c", "CREATE DATABASE demo_owned OWNER sql_demo_owner")
    dsn = cluster.dsn("demo_owned", "sql_demo_owner")
    for _ in range(2):
        cluster.psql("demo_owned", "-d", dsn, "-f", SOURCE / "sql/migrate.sql")
        cluster.psql("demo_owned", "-d", dsn, "-v", "rows=10", "-f", SOURCE / "sql/demo/demo.sql")
    assert cluster.psql("demo_owned", "-d", dsn, "-c", "SELECT count(*) FROM public.payments") == "30\n"
    assert cluster.psql("demo_owned", "-d", dsn, "-c", "SELECT composure.create_key('demo', plan => 'demo')").startswith("cmps_")
