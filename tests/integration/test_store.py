"""The store that workers share: hits, what ends them, whom they are for, and what happens when PostgreSQL fails."""

import json
import signal
import threading
import time
from pathlib import Path

import pytest

from harness.cluster import Cluster
from harness.process import wait_until
from harness.shared import auth
from harness.versions import holders


class Host:
    """One worker or more, asked directly: host.ask(uri) -> Answer. Counts statements of PostgreSQL by their text."""

    def __init__(self, database, workers):
        self.database, self.workers = database, workers

    def ask(self, uri, key=..., method="GET", body=b"", **headers):
        key = self.database.keys["demo"] if key is ... else key
        if not isinstance(body, bytes):
            body, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        with self.workers.fcgi() as c:
            return c.ask(method, uri, {**auth(key), **{n.replace("_", "-"): v for n, v in headers.items()}}, body)

    def status(self, uri, *args, **more):
        return self.ask(uri, *args, **more).headers.get("cache-status", "")

    def hit(self, uri, *args, **more):
        """Until it is one: the first answers fill the store, and what just changed is told once more by the feed."""
        return wait_until(lambda: (a := self.ask(uri, *args, **more)).headers.get("cache-status", "").startswith("Composure; hit") and a,
                          f"a hit of {uri}")

    def expose(self, *arguments, name=None, sql=""):
        self.database.sql(f"{sql}; SELECT composure.expose({', '.join(arguments)})")


@pytest.fixture
def host(fresh_database, workers):
    def start(n=1, sql="", **settings):
        if sql:
            fresh_database.sql(sql)
        return Host(fresh_database, workers(n, fresh_database, **settings))
    return start


USERS = "SELECT composure.expose('public.users', cache => 'ttl=60')"


def test_the_second_answer_comes_out_of_the_store_and_is_the_same(host):
    at = host(sql=USERS)
    first = wait_until(lambda: (a := at.ask("/api/users?limit=3")).headers["cache-status"].endswith("stored") and a, "a fill")
    assert first.headers["cache-status"] == "Composure; fwd=uri-miss; stored"
    second = at.hit("/api/users?limit=3")
    assert (second.status, second.body) == (200, first.body)
    for name in ("etag", "content-type", "link", "cache-control", "vary"):
        assert second.headers[name] == first.headers[name]
    assert second.headers["age"] == "0" and int(second.headers["cache-status"].split("ttl=")[1]) in range(0, 61)
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    head = at.hit("/api/users?limit=3", method="HEAD")
    assert (head.body, head.headers["content-length"]) == (b"", str(len(first.body)))
    known = at.hit("/api/users?limit=3", If_None_Match=first.headers["etag"])
    assert (known.status, known.body) == (304, b"")


def test_the_order_of_parameters_makes_no_difference(host):
    at = host(sql=USERS)
    at.hit("/api/users?limit=3&order=id.desc")
    at.hit("/api/users?order=id.desc&limit=3")
    assert at.status("/api/users?order=id.asc&limit=3").startswith("Composure; fwd=uri-miss")
    assert at.status("/api/users?limit=3&order=id.desc", Accept="text/csv").startswith("Composure; fwd=uri-miss")
    assert at.status("/api/users?limit=3&order=id.desc", Prefer="count=planned").startswith("Composure; fwd=uri-miss")


@pytest.mark.parametrize("name", ["%63ursor", "curs%6Fr"])
def test_links_of_a_page_lead_on_however_its_cursor_was_written(host, name):
    """They are kept with the page, for all who ask for it."""
    at = host(sql=USERS)
    cursor = json.loads(at.ask("/api/users?limit=2").body)["next_cursor"]
    wait_until(lambda: at.status(f"/api/users?limit=2&{name}={cursor}").startswith("Composure; hit"), "a hit")
    page = at.ask(f"/api/users?limit=2&cursor={cursor}")
    assert page.headers["cache-status"].startswith("Composure; hit")
    links = dict(reversed(link.lstrip("<").split(">; rel=")) for link in page.headers["link"].split(", <"))
    first, after = at.ask(links['"first"']), at.ask(links['"next"'])
    assert [row["id"] for row in json.loads(first.body)["data"]] == [1, 2]
    assert [row["id"] for row in json.loads(after.body)["data"]] == [5, 6]


def test_without_a_ttl_nothing_is_kept_or_said(host):
    at = host(sql="SELECT composure.expose('public.users', cache => 'max-age=60')")
    for _ in range(2):
        assert "cache-status" not in at.ask("/api/users?limit=3").headers


def test_without_room_nothing_is_kept(host):
    at = host(sql=USERS, cache_bytes=0)
    for _ in range(2):
        assert at.ask("/api/users?limit=3").status == 200
        assert not at.status("/api/users?limit=3").startswith("Composure; hit")


@pytest.mark.parametrize("change", [
    "UPDATE public.users SET name = 'another' WHERE id = 2",
    "DELETE FROM public.payments WHERE user_id = 2; DELETE FROM public.users WHERE id = 2",
    "TRUNCATE public.users CASCADE"])
def test_what_another_program_commits_ends_it(host, change):
    at = host(sql=USERS)
    old = at.hit("/api/users?limit=3").body
    at.database.sql(change)
    assert wait_until(lambda: (b := at.ask("/api/users?limit=3").body) != old and b, "another answer") != old


def test_a_row_lives_through_changes_of_others(host):
    at = host(sql=USERS)
    at.hit("/api/users/1")
    listed = at.hit("/api/users?limit=3").body
    at.database.sql("UPDATE public.users SET name = 'another' WHERE id = 2")
    wait_until(lambda: at.ask("/api/users?limit=3").body != listed, "the list to change")
    assert at.status("/api/users/1").startswith("Composure; hit")
    at.database.sql("UPDATE public.users SET name = 'another' WHERE id = 1")
    wait_until(lambda: b"another" in at.ask("/api/users/1").body, "the row to change")


@pytest.mark.parametrize("path", ["01", "%31", "+1"])
def test_a_key_that_is_written_otherwise_is_no_lie(host, path):
    at = host(sql=USERS)
    if at.ask(f"/api/users/{path}").status != 200:
        return
    at.hit(f"/api/users/{path}")
    at.database.sql("UPDATE public.users SET name = 'another' WHERE id = 1")
    wait_until(lambda: b"another" in at.ask(f"/api/users/{path}").body, "the row to change")


def test_purge_takes_it_out(host):
    at = host(sql=USERS)
    at.hit("/api/users/1")
    at.hit("/api/users/2")
    at.database.sql("SELECT composure.purge('users', '1')")
    wait_until(lambda: "fwd" in at.status("/api/users/1"), "a miss")
    assert at.status("/api/users/2").startswith("Composure; hit")
    at.database.sql("SELECT composure.purge('users')")
    wait_until(lambda: "fwd" in at.status("/api/users/2"), "a miss")


def test_one_reads_ones_own_write_at_once(host):
    """Of a list, the row, and what else hangs on the table."""
    at = host(n=2, sql=f"""{USERS}; SELECT composure.expose('public.payments', cache => 'ttl=60');
        CREATE VIEW public.totals AS SELECT user_id, sum(amount) AS total FROM public.payments GROUP BY user_id;
        GRANT SELECT ON public.totals TO api_user;
        SELECT composure.expose('public.totals', key => '{{user_id}}', cache => 'ttl=60')""")
    for n in range(30):
        for uri in ("/api/users?limit=2", "/api/users/1", "/api/payments?user_id=eq.1&order=id.desc", "/api/totals/1"):
            at.ask(uri)
        assert at.ask("/api/users/1", method="PATCH", body={"name": f"name {n}"}).status == 200
        assert f"name {n}".encode() in at.ask("/api/users/1").body
        assert f"name {n}".encode() in at.ask("/api/users?limit=2").body
        before = json.loads(at.ask("/api/totals/1").body)["total"]
        made = at.ask("/api/payments", method="POST", body={"user_id": 1, "amount": 1, "currency": "EUR"})
        assert made.status == 201
        assert json.loads(at.ask("/api/totals/1").body)["total"] == before + 1
        newest = json.loads(at.ask("/api/payments?user_id=eq.1&order=id.desc").body)["data"][0]["id"]
        assert made.headers["location"] == f"/api/payments/{newest}"


def test_what_is_embedded_ends_it_too(host):
    at = host(sql=f"{USERS}; SELECT composure.expose('public.payments', cache => 'ttl=60')")
    uri = "/api/users?limit=2&select=id,payments(id,amount)"
    old = at.hit(uri).body
    at.database.sql("UPDATE public.payments SET amount = amount + 1 WHERE user_id = 1")
    wait_until(lambda: at.ask(uri).body != old, "another answer")
    # Without a ttl of its own nobody tells of its changes.
    at.database.sql("SELECT composure.expose('public.payments')")
    wait_until(lambda: at.ask(uri).headers.get("cache-status") is None, "it is no longer kept")


@pytest.fixture
def counting_database(new_home):
    """The demo in a cluster that counts statements."""
    if not list(Path("/usr/share/postgresql").glob("*/extension/pg_stat_statements.control")):
        pytest.skip("apt-get install postgresql-contrib")
    cluster = Cluster(new_home, "counting", shared_preload_libraries="pg_stat_statements")
    database = cluster.create_database("counting")
    database.migrate()
    database.load_demo(rows=10)
    yield database
    cluster.stop()


def test_64_that_miss_at_the_same_moment_are_one_question(counting_database, workers):
    database = counting_database
    database.sql(f"""{USERS};
        CREATE EXTENSION pg_stat_statements;
        CREATE FUNCTION public.slow() RETURNS int LANGUAGE plpgsql STABLE AS $$BEGIN PERFORM pg_sleep(0.3); RETURN 1; END$$;
        CREATE VIEW public.slowly AS SELECT u.id, u.name, s FROM public.users u, (SELECT public.slow() AS s OFFSET 0) x;
        GRANT SELECT ON public.slowly TO api_user;
        SELECT composure.expose('public.slowly', key => '{{id}}', cache => 'ttl=60', trust_me => true)""")
    key = database.create_key("asks", role="api_user", plan=None)
    # While the feed is late nobody may wait for what was asked for before: here it is not, on whatever machine.
    at = Host(database, workers(8, database, log="none", feed_interval_ms=60000))
    wait_until(lambda: "hit" in at.ask("/api/users?limit=1", key).headers["cache-status"], "the feed to be followed")
    for uri in ("/api/slowly?limit=2", "/api/slowly?limit=3", "/api/slowly/1", "/api/slowly?id=eq.2"):
        barrier, answers = threading.Barrier(64), []

        def one(uri=uri, barrier=barrier, answers=answers):
            with at.workers.fcgi() as c:
                barrier.wait()
                answers.append(c.ask("GET", uri, auth(key)))
        threads = [threading.Thread(target=one) for _ in range(64)]
        database.sql("SELECT pg_stat_statements_reset()")
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        calls = database.sql("SELECT calls, query FROM pg_stat_statements WHERE toplevel AND query LIKE '%slowly%' AND query NOT LIKE '%pg_stat%'")
        said = [a.headers["cache-status"] for a in answers]
        assert {a.status for a in answers} == {200} and len({a.body for a in answers}) == 1
        assert sum(n for n, _ in calls) == 1, (uri, calls, sorted(said)[-4:])
        assert len([s for s in said if s.endswith("stored")]) == 1, sorted(said)
        assert {"; collapsed" in s or "; hit" in s for s in said if not s.endswith("stored")} == {True}


@pytest.mark.parametrize("n_workers", [1, 2])
def test_who_has_just_written_waits_for_no_question_older_than_that(host, n_workers):
    """A question stands still behind its snapshot; whoever writes meanwhile and asks the same has a question of his own."""
    at = host(n=n_workers, sql="""
        CREATE FUNCTION public.counted() RETURNS bigint LANGUAGE plpgsql STABLE AS $$
          DECLARE n bigint := (SELECT count(*) FROM public.payments);
          BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN n; END$$;
        SELECT composure.expose_function('public.counted', cache => 'ttl=60', depends => '{public.payments}')""")
    before = at.database.value("SELECT count(*) FROM public.payments")
    holder = at.database.connect()
    holder.cursor().execute("SELECT pg_advisory_lock(4711)")
    answers = {}

    def ask(name):
        answers[name] = at.ask("/api/rpc/counted").body

    def waiting(n):
        wait_until(lambda: at.database.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database ="
                                             " (SELECT oid FROM pg_database WHERE datname = current_database())") == n, f"{n} to wait")
    threads = [threading.Thread(target=ask, args=(name,)) for name in ("older", "own")]
    threads[0].start()
    waiting(1)
    made = at.ask("/api/payments", method="POST", body={"user_id": 1, "amount": 1, "currency": "EUR"})
    assert made.status == 201
    threads[1].start()
    waiting(2)
    holder.close()
    for t in threads:
        t.join()
    assert answers == {"older": b"%d" % before, "own": b"%d" % (before + 1)}


def test_stale_while_it_is_made_anew(host):
    at = host(sql="SELECT composure.expose('public.users', cache => 'ttl=60, stale-while-revalidate=60')")
    old = at.hit("/api/users/1").body
    at.database.sql("UPDATE public.users SET name = 'another' WHERE id = 1")
    stale = wait_until(lambda: (a := at.ask("/api/users/1")).headers["cache-status"] != "" and "stale" in a.headers["cache-status"] and a,
                       "a stale answer")
    assert stale.body == old and "; hit; ttl=-" in stale.headers["cache-status"]
    assert stale.headers["cache-status"].endswith("detail=stale-while-revalidate")
    wait_until(lambda: b"another" in at.ask("/api/users/1").body, "the new one")
    assert at.hit("/api/users/1").headers["age"] == "0"


def test_a_call_that_is_stale_is_made_anew_at_once(host):
    at = host(sql="""
        CREATE FUNCTION public.named() RETURNS text LANGUAGE sql STABLE BEGIN ATOMIC SELECT name FROM public.users WHERE id = 1; END;
        SELECT composure.expose_function('public.named', cache => 'ttl=60, stale-while-revalidate=600')""", deadline_ms=60000)
    at.hit("/api/rpc/named")
    at.database.sql("UPDATE public.users SET name = 'another' WHERE id = 1")
    wait_until(lambda: b"another" in at.ask("/api/rpc/named").body, "the new name, long before a deadline")


def test_who_wrote_it_is_given_nothing_stale(host):
    at = host(sql="SELECT composure.expose('public.users', cache => 'ttl=60, stale-while-revalidate=60, stale-if-error=60')")
    for n in range(10):
        at.hit("/api/users/1")
        at.ask("/api/users/1", method="PATCH", body={"name": f"name {n}"})
        assert f"name {n}".encode() in at.ask("/api/users/1").body


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_serves_in_place_of_an_answer_is_not_kept_as_one(own_cluster, own_database, workers, method):
    """It is asked for, PostgreSQL stops, what was kept serves: afterwards it is as old as before, and whole."""
    own_database.sql("SELECT composure.expose('public.users', cache => 'ttl=60, stale-if-error=600')")
    at = Host(own_database, workers(1, own_database))
    old = at.hit("/api/users/1")
    at.hit("/api/users?limit=1")
    own_database.sql("UPDATE public.users SET name = 'another' WHERE id = 1")
    wait_until(lambda: b"another" in at.ask("/api/users?limit=1").body, "the change to be told")
    own_cluster.freeze()
    served = at.ask("/api/users/1", method=method)
    own_cluster.thaw()
    assert served.status == 200 and served.headers["cache-status"].endswith("detail=stale-if-error")
    assert served.body == (old.body if method == "GET" else b"")
    seen = []
    wait_until(lambda: seen.append(at.ask("/api/users/1")) or b"another" in seen[-1].body, "PostgreSQL's answer")
    for answer in seen[:-1]:
        assert answer.body == old.body and "stale" in answer.headers["cache-status"]
    assert at.hit("/api/users/1").body == seen[-1].body


def test_hard_changes_are_never_served_again(host):
    at = host(sql="SELECT composure.expose('public.users', cache => 'ttl=60, stale-while-revalidate=60, stale-if-error=60')")
    at.database.sql("INSERT INTO public.users (id, name, email, country) VALUES (5000, 'gone', 'gone@example.org', 'DE')")
    at.hit("/api/users/5000")
    at.database.sql("DELETE FROM public.users WHERE id = 5000")
    wait_until(lambda: at.ask("/api/users/5000").status == 404, "a 404")
    assert at.ask("/api/users/5000").status == 404


def test_that_there_is_no_such_row_is_known_until_there_is_one(host):
    at = host(sql="SELECT composure.expose('public.users', cache => 'ttl=60, stale-while-revalidate=60, stale-if-error=60')")
    for uri, change in (("/api/users/5001", lambda n: at.database.sql(
            "INSERT INTO public.users (id, name, email, country) VALUES (%s, 'new', 'new@example.org', 'DE')", n)),
                        ("/api/users/5002", lambda n: at.ask("/api/users", method="POST", body={
                            "id": n, "name": "new", "email": "new2@example.org", "country": "DE"}))):
        kept = at.hit(uri)
        assert kept.status == 404 and json.loads(kept.body)["code"] == "not_found" and kept.headers["cache-control"] == "no-store"
        assert json.loads(kept.body)["instance"].endswith(kept.headers["x-request-id"])
        assert at.hit(uri).headers["x-request-id"] != kept.headers["x-request-id"]
        change(int(uri.split("/")[-1]))
        assert wait_until(lambda: (a := at.ask(uri)).status == 200 and a, "the row")
        assert at.hit(uri).status == 200
    # By a write of one's own it is there at once, also where a 404 is kept.
    assert at.hit("/api/users/5003").status == 404
    at.ask("/api/users", method="POST", body={"id": 5003, "name": "new", "email": "new3@example.org", "country": "DE"})
    assert at.ask("/api/users/5003").status == 200


@pytest.mark.parametrize("change, status", [
    ("UPDATE public.things SET active = false WHERE id = 1", 404),
    ("UPDATE public.things SET id = 0 WHERE id = 1", 404),
    ("UPDATE public.refusals SET code = 'PT403'", 403)])
def test_what_is_stale_gives_way_to_a_refusal(host, change, status):
    """Served once while it is asked for anew; and what comes is that it is not there."""
    at = host(sql="""
        CREATE TABLE public.things (id int PRIMARY KEY, active bool NOT NULL); INSERT INTO public.things VALUES (1, true);
        CREATE TABLE public.refusals (code text); INSERT INTO public.refusals VALUES (NULL);
        CREATE VIEW public.active AS SELECT id FROM public.things WHERE active;
        CREATE FUNCTION public.ask() RETURNS int LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
          DECLARE refused text := (SELECT code FROM public.refusals);
          BEGIN IF refused IS NOT NULL THEN RAISE 'no' USING ERRCODE = refused; END IF; RETURN 1; END$$;
        GRANT SELECT ON public.active TO api_user;
        SELECT composure.expose_function('public.ask', cache => 'ttl=60, stale-while-revalidate=600', depends => '{public.refusals}');
        SELECT composure.expose('public.active', key => '{id}', cache => 'ttl=60, stale-while-revalidate=600, stale-if-error=600')""")
    uri = "/api/rpc/ask" if status == 403 else "/api/active/1"
    assert at.hit(uri).status == 200
    at.database.sql(change)
    wait_until(lambda: at.ask(uri).status == status, f"a {status}")
    for _ in range(20):
        assert at.ask(uri).status == status


def test_who_waited_for_what_cannot_be_kept_does_not_wait_again(host):
    at = host(sql="""
        CREATE FUNCTION public.large(n int) RETURNS text LANGUAGE plpgsql STABLE AS $$
          DECLARE began timestamptz := clock_timestamp();
          BEGIN PERFORM pg_sleep(0.5); RETURN rpad(extract(epoch FROM began)::text, 2000000); END$$;
        SELECT composure.expose_function('public.large', cache => 'ttl=5')""", connections=8)
    for n in range(2):  # the second time with sessions that are there already
        began, barrier = [], threading.Barrier(8)

        def one(n=n, began=began, barrier=barrier):
            with at.workers.fcgi() as c:
                barrier.wait()
                began.append(float(json.loads(c.ask("GET", f"/api/rpc/large?n={n}", auth(at.database.keys["demo"])).body)))
        threads = [threading.Thread(target=one) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    began.sort()
    assert len(began) == 8 and began[1] - began[0] >= 0.5, "one is asked first"
    assert began[2] - began[1] < 0.5, "and then all, not one after another"


def test_what_is_bounded_grows_older_when_it_is_stale(host):
    """Nothing says that it was true when its time was over, so its age goes on from when it was asked for."""
    at = host(sql="""
        CREATE MATERIALIZED VIEW public.one AS SELECT 1 AS id; GRANT SELECT ON public.one TO api_user;
        SELECT composure.expose('public.one', key => '{id}', cache => 'ttl=3, stale-while-revalidate=60')""")
    at.hit("/api/one")
    stale = wait_until(lambda: (a := at.ask("/api/one")).headers["cache-status"].endswith("stale-while-revalidate") and a, "a stale answer")
    assert int(stale.headers["age"]) > 3


def test_a_gap_in_the_feed_makes_nothing_true_whose_changes_are_not_seen(host):
    """What is bounded was stale for long: a moment without a watcher says nothing of it."""
    at = host(n=2, log_level="debug", sql="""
        CREATE TABLE public.hidden (v int); INSERT INTO public.hidden VALUES (1); GRANT SELECT ON public.hidden TO api_user;
        CREATE FUNCTION public.peek() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN (SELECT v FROM public.hidden); END';
        SELECT composure.expose_function('public.peek', cache => 'ttl=1, stale-while-revalidate=1')""")
    assert at.hit("/api/rpc/peek").body == b"1"
    at.database.sql("UPDATE public.hidden SET v = 2")
    time.sleep(2.1)  # it is the time that is tested: it ends after one second, and may be served for one more
    watcher = wait_until(lambda: holders(at.workers.processes), "a watcher")[0]
    watcher.popen.send_signal(signal.SIGSTOP)
    try:
        other = next(p for p in at.workers.processes if p is not watcher)
        assert other.alive()
        for _ in range(20):
            assert at.ask("/api/rpc/peek").body == b"2"
    finally:
        watcher.popen.send_signal(signal.SIGCONT)


def test_only_if_cached(host):
    at = host(sql=USERS)
    refused = at.ask("/api/users?limit=3", Cache_Control="only-if-cached")
    assert refused.status == 504 and json.loads(refused.body)["code"] == "not_cached"
    assert "cache-status" not in refused.headers, "it was not asked for"
    assert at.ask("/api/countries/DE", Cache_Control="only-if-cached").status == 504
    at.hit("/api/users?limit=3")
    assert at.ask("/api/users?limit=3", Cache_Control="only-if-cached").status == 200


@pytest.mark.parametrize("obey", [0, 1])
def test_clients_can_force_a_miss_only_where_they_are_obeyed(host, obey):
    at = host(sql=USERS, cache_obey_clients=obey)
    at.hit("/api/users?limit=3")
    for said in ("no-cache", "no-store", "max-age=1, no-cache"):
        status = at.status("/api/users?limit=3", Cache_Control=said)
        assert status.startswith("Composure; fwd=request" if obey else "Composure; hit"), said
        at.hit("/api/users?limit=3")
    assert at.status("/api/users?limit=3", Cache_Control="max-age=0").startswith("Composure; hit"), "it is current"


def test_a_function_with_a_ttl_is_kept_for_as_long(host):
    at = host(sql="""
        CREATE FUNCTION public.twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * n';
        SELECT composure.expose_function('public.twice', cache => 'ttl=60')""")
    answer = at.hit("/api/rpc/twice?n=21")
    assert answer.body == b"42" and answer.headers["etag"]
    assert at.ask("/api/rpc/twice?n=2").body == b"4"
    assert at.ask("/api/rpc/twice?n=21", If_None_Match=answer.headers["etag"]).status == 304


def test_a_functions_answer_ends_with_what_it_reads(host):
    at = host(sql="""
        CREATE FUNCTION public.named(n bigint) RETURNS text LANGUAGE sql STABLE BEGIN ATOMIC SELECT name FROM public.users WHERE id = n; END;
        SELECT composure.expose_function('public.named', cache => 'ttl=60')""")
    old = at.hit("/api/rpc/named?n=1").body
    at.database.sql("UPDATE public.users SET name = 'another' WHERE id = 1")
    wait_until(lambda: (a := at.ask("/api/rpc/named?n=1").body) != old and b"another" in a, "the change")
    assert at.ask("/api/users/1", method="PATCH", body={"name": "mine"}).status == 200
    assert b"mine" in at.ask("/api/rpc/named?n=1").body


def test_counts_are_told_from_pages_however_they_are_written(host):
    at = host(sql=USERS)
    assert "content-range" in at.ask("/api/users?limit=2", Prefer="COUNT=planned").headers
    at.hit("/api/users?limit=2", Prefer="count=planned")
    assert "content-range" not in at.hit("/api/users?limit=2").headers
    assert "content-range" in at.ask("/api/users?limit=2", Prefer="Count=Planned").headers


def test_clients_that_refuse_what_is_kept_share_a_question(host):
    at = host(n=2, cache_obey_clients=1, sql="""
        CREATE FUNCTION public.slow() RETURNS int LANGUAGE plpgsql STABLE AS $$BEGIN PERFORM pg_sleep(0.3); RETURN 1; END$$;
        CREATE VIEW public.slowly AS SELECT u.id, s FROM public.users u, (SELECT public.slow() AS s OFFSET 0) x;
        GRANT SELECT ON public.slowly TO api_user;
        SELECT composure.expose('public.slowly', key => '{id}', cache => 'ttl=60', trust_me => true)""")
    at.hit("/api/slowly?limit=2")
    said = []
    threads = [threading.Thread(target=lambda: said.append(at.status("/api/slowly?limit=2", Cache_Control="no-cache"))) for _ in range(24)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len([s for s in said if s.endswith("stored")]) < 6, said


def test_a_silent_feed_does_not_make_old_answers_true(host):
    """Somebody locks what only the feed reads, and PostgreSQL answers everything else."""
    at = host(sql=USERS)
    old = at.hit("/api/users/1").body
    lock = at.database.connect()
    lock.cursor().execute("BEGIN; LOCK TABLE composure.feed_epoch IN ACCESS EXCLUSIVE MODE")
    at.database.sql("UPDATE public.users SET name = 'another' WHERE id = 1")
    wait_until(lambda: at.ask("/api/users/1").body != old, "the change")
    for _ in range(300):
        assert b"another" in at.ask("/api/users/1").body
    lock.close()
    at.hit("/api/users/1")


def test_a_public_answer_that_is_not_kept_is_public_all_the_same(host):
    at = host(sql="""
        CREATE TABLE public.a (id int PRIMARY KEY); CREATE TABLE public.b (id int PRIMARY KEY REFERENCES public.a);
        INSERT INTO public.a VALUES (1); INSERT INTO public.b VALUES (1);
        GRANT SELECT ON public.a, public.b TO api_user, composure_anonymous;
        SELECT composure.expose('public.a', cache => 'public, max-age=9');
        SELECT composure.expose('public.b', cache => 'public, max-age=9, ttl=60')""")
    for uri in ("/api/a?select=id,b(id)", "/api/b?select=id,a(id)"):
        answer = at.ask(uri)
        assert answer.headers["cache-control"] == "public, max-age=9" and "cache-status" not in answer.headers, uri


@pytest.mark.parametrize("gone", ["REVOKE SELECT (secret) ON public.base FROM api_user",
                                  "ALTER ROLE passes_by NOBYPASSRLS"])
def test_rights_that_no_resource_tells_of_are_in_force(host, gone):
    """A column behind a view that reads as its caller; a view whose owner was above policies."""
    at = host(sql="""
        DO $$BEGIN CREATE ROLE passes_by BYPASSRLS; EXCEPTION WHEN duplicate_object THEN ALTER ROLE passes_by BYPASSRLS; END$$;
        CREATE TABLE public.base (id int PRIMARY KEY, secret text); INSERT INTO public.base VALUES (1, 's');
        GRANT SELECT (id, secret) ON public.base TO api_user; GRANT SELECT ON public.base TO passes_by;
        CREATE VIEW public.invoker WITH (security_invoker) AS SELECT id, secret FROM public.base;
        CREATE TABLE public.kept (id int PRIMARY KEY); INSERT INTO public.kept VALUES (1); GRANT SELECT ON public.kept TO passes_by;
        ALTER TABLE public.kept ENABLE ROW LEVEL SECURITY; CREATE POLICY nobody ON public.kept USING (false);
        CREATE VIEW public.above AS SELECT id FROM public.kept; ALTER VIEW public.above OWNER TO passes_by;
        GRANT SELECT ON public.invoker, public.above TO api_user;
        SELECT composure.expose('public.invoker', key => '{id}', cache => 'ttl=60, stale-if-error=600');
        SELECT composure.expose('public.above', key => '{id}', cache => 'ttl=60, stale-if-error=600')""")
    at.hit("/api/invoker/1")
    at.hit("/api/above/1")
    at.database.sql(gone)
    uri, status = ("/api/invoker/1", 403) if gone.startswith("REVOKE") else ("/api/above/1", 404)
    wait_until(lambda: at.ask(uri).status == status, f"{status} from {uri}")


def test_what_is_kept_outlives_whoever_follows_the_feed(host):
    """The next one goes on where it left off: nothing is missed, and nothing has to be asked for again."""
    at = host(n=3, sql=USERS, log_level="debug")
    at.hit("/api/users/1")
    other = at.hit("/api/users/2")
    said = ""
    for n in range(3):
        watcher = wait_until(lambda: holders(at.workers.processes), "a watcher")[0]
        watcher.stop(signal.SIGKILL)
        said += watcher.output()
        at.workers.processes.remove(watcher)
        at.database.sql(f"UPDATE public.users SET name = 'name {n}' WHERE id = 1")
        wait_until(lambda: f"name {n}".encode() in at.ask("/api/users/1").body, "the change")
        kept = at.hit("/api/users/2")
        assert kept.headers["etag"] == other.headers["etag"]
        assert int(kept.headers["cache-status"].split("ttl=")[1].split(";")[0]) < 60
        at.workers.start_one()
    said += at.workers.output()
    assert said.count("everything remembered is out of date") == 1, said[-2000:]
