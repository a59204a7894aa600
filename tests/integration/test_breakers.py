"""What fails, or hangs, is not asked again by everybody; and what hangs leaves a way to the others."""

import json
import os
import socket
import threading
import time

import pytest

from harness import fastcgi
from harness.process import wait_until
from harness.shared import auth, describe, kill_all

pytestmark = pytest.mark.alone  # deadlines of 150 ms, which have to be enough for all but what hangs

SQL = """
CREATE TABLE public.mood (hangs boolean NOT NULL);
INSERT INTO public.mood VALUES (false);
CREATE FUNCTION public.moody(whom int) RETURNS int LANGUAGE plpgsql STABLE SECURITY DEFINER AS
  $$BEGIN IF (SELECT hangs FROM public.mood) AND whom IN (0, 2) THEN PERFORM pg_sleep(20); END IF; RETURN whom; END$$;
CREATE VIEW public.moods AS SELECT u.id, u.name, public.moody(0) AS mood FROM public.users u WHERE u.id < 4;
CREATE VIEW public.picky AS SELECT u.id, u.name, public.moody(u.id::int) AS mood FROM public.users u WHERE u.id < 4;
GRANT SELECT ON public.moods, public.picky TO api_user;
SELECT composure.expose('public.moods', key => '{id}', deadline => '150ms');
SELECT composure.expose('public.picky', key => '{id}', deadline => '150ms');
"""


class Host:
    def __init__(self, database, workers):
        self.database, self.workers = database, workers
        self.keys = [database.create_key(f"key {n}", role="api_user", plan=None) for n in range(4)]

    def ask(self, uri, key=0, method="GET", headers=None, body=b""):
        with self.workers.fcgi() as c:
            return c.ask(method, uri, {**auth(self.keys[key]), **(headers or {})}, body)

    def hangs(self, yes):
        self.database.sql(f"UPDATE public.mood SET hangs = {yes}")

    def breaker(self, name):
        """Its line of composure --region."""
        lines = [line for line in describe(self.workers)[1].splitlines() if f" {name}: " in line]
        return lines[0] if lines else ""


@pytest.fixture
def host(fresh_database, workers):
    def start(n=1, sql="", **settings):
        fresh_database.sql(SQL + sql)
        made = workers(n, fresh_database, **{"log": "none", "connections": 4, "breaker_calls": 6, **settings})
        at = Host(fresh_database, made)
        wait_until(lambda: at.ask("/api/moods").status == 200, "an answer")
        return at
    return start


def code(answer):
    return json.loads(answer.body)["code"]


def open_it(at, uri="/api/moods"):
    """Asks until it is refused without being asked for."""
    got = []

    def refused():
        got.append(at.ask(uri, key=len(got) % 4))
        return got[-1].status == 503 and code(got[-1]) == "circuit_open"
    wait_until(refused, "its breaker to be open", 20)
    assert {a.status for a in got[:-1]} <= {200, 503, 504}
    return got[-1]


@pytest.mark.parametrize("n", [1, 3])
def test_what_hangs_is_refused_at_once_by_every_worker_until_it_is_well(host, n):
    at = host(n, breaker_open_ms=4000, breaker_open_max_ms=4000)
    at.hangs(True)
    answer = open_it(at)
    assert code(answer) == "circuit_open" and int(answer.headers["retry-after"]) in (1, 2, 3, 4)
    for i in range(8):
        assert code(at.ask("/api/moods/1", key=i % 4)) == "circuit_open"
    # Neither other resources nor what cannot be asked for are concerned.
    assert at.ask("/api/users/1").status == 200 and at.ask("/api/nothing").status == 404
    assert at.ask("/api/picky/1").status == 200
    assert "moods reads: open" in at.breaker("moods reads")
    at.hangs(False)
    wait_until(lambda: at.ask("/api/moods").status == 200, "it to be tried again", 10)
    wait_until(lambda: "closed" in (at.ask("/api/moods").status == 200 and at.breaker("moods reads")), "it to be closed")
    for what in ("opens", "closes"):
        assert f"the circuit breaker of moods (reads) {what}" in at.workers.output()


def test_a_probe_that_fails_leaves_it_open(host):
    at = host(breaker_open_ms=100, breaker_open_max_ms=100)
    at.hangs(True)
    open_it(at)

    def opened():
        return int(at.breaker("moods reads").split("opened ")[1].split()[0])
    wait_until(lambda: at.ask("/api/moods").status in (503, 504) and opened() >= 3, "two probes in vain", 20)
    at.hangs(False)
    wait_until(lambda: at.ask("/api/moods").status == 200, "it to be well")


def test_one_client_with_an_expensive_question_does_not_open_it_for_the_others(host):
    at = host()
    at.hangs(True)
    for _ in range(4):
        for key in (1, 2, 3):
            assert at.ask("/api/picky/1", key=key).status == 200
        for _ in range(3):
            assert at.ask("/api/picky/2", key=0).status == 504
    assert at.ask("/api/picky/1", key=1).status == 200
    assert "closed" in at.breaker("picky reads")
    # Where it hits most of them it does open.
    wait_until(lambda: [at.ask("/api/picky/2", key=key).status for key in (0, 1, 2, 3)].count(503) > 0, "its breaker to be open", 20)


def test_clients_without_a_key_are_told_apart_as_the_rate_limit_does(host):
    """By what a trusted proxy says, and by the network of an IPv6 address."""
    at = host(sql="""GRANT SELECT ON public.picky TO composure_anonymous;
                     SELECT composure.expose('public.picky', key => '{id}', deadline => '150ms', cache => 'public');""",
              trusted_proxies="192.0.2.1", cache_bytes=0)
    at.hangs(True)

    def one(row, client, peer="192.0.2.1"):
        with at.workers.fcgi() as c:
            return c.ask("GET", f"/api/picky/{row}", {"X-Forwarded-For": client} if client else {}, REMOTE_ADDR=peer).status
    for n in range(12):
        assert one(1, "198.51.100.7") == 200
        # The same proxy, and a client that takes another address of its network each time.
        assert one(2, f"2001:db8:5:6::{n + 1:x}") == 504
    assert "closed" in at.breaker("picky reads")
    wait_until(lambda: [one(2, f"2001:db8:5:{n}::1") for n in range(4)].count(503) > 0, "its breaker to be open", 20)


def test_clients_in_a_hurry_count_for_nothing(host):
    at = host()
    at.hangs(True)
    for i in range(20):
        assert at.ask("/api/moods", key=i % 4, headers={"X-Request-Timeout": "50ms"}).status in (503, 504)
    assert "closed" in at.breaker("moods reads")


def test_nonsense_counts_for_nothing(host):
    at = host(sql="""CREATE VIEW public.broken AS SELECT id, 1 / (id - id) AS never FROM public.users;
                     GRANT SELECT ON public.broken TO api_user; SELECT composure.expose('public.broken', key => '{id}');""")
    for i in range(20):
        assert at.ask("/api/broken", key=i % 4).status == 500
        assert at.ask("/api/users?age=gte.x", key=i % 4).status == 400
    assert at.ask("/api/broken").status == 500 and "closed" in at.breaker("broken reads") and "closed" in at.breaker("users reads")


def test_what_is_kept_serves_while_it_is_open(host):
    at = host(sql="SELECT composure.expose('public.moods', key => '{id}', deadline => '150ms', trust_me => true,"
                  " depends => '{public.users}', cache => 'ttl=60, stale-if-error=600')")
    wait_until(lambda: "hit" in at.ask("/api/moods/1").headers["cache-status"], "a hit")
    kept = at.ask("/api/moods/1").body
    at.database.sql("UPDATE public.mood SET hangs = true; UPDATE public.users SET name = 'another' WHERE id = 1")
    wait_until(lambda: "stale-if-error" in at.ask("/api/moods/1").headers["cache-status"], "what is kept to be stale")
    assert open_it(at, "/api/moods/2").status == 503
    answer = at.ask("/api/moods/1")
    assert (answer.status, answer.body) == (200, kept)
    assert "detail=stale-if-error" in answer.headers["cache-status"] and "warning" not in answer.headers
    assert int(answer.headers["age"]) >= 0


def test_a_part_that_hangs_is_left_out_at_once(host):
    """Its breaker is its own: that of what it is embedded in stays closed."""
    at = host(sql="""CREATE TABLE public.note (id int PRIMARY KEY, user_id bigint REFERENCES public.users, body text);
                     INSERT INTO public.note SELECT g, g, 'n' || g FROM generate_series(1, 5) g;
                     ALTER TABLE public.note ENABLE ROW LEVEL SECURITY;
                     CREATE POLICY moody ON public.note USING (public.moody(0) = 0);
                     GRANT SELECT ON public.note TO api_user;
                     SELECT composure.expose('public.note'), composure.expose('public.users', partial => true, deadline => '400ms');""")
    uri = "/api/users/1?select=id,note(body)"
    assert json.loads(at.ask(uri).body) == {"id": 1, "note": [{"body": "n1"}]}
    at.hangs(True)
    got = []

    def left_out():
        got.append(at.ask(uri, key=len(got) % 4))
        return "circuit_open" in got[-1].headers["composure-partial"]
    wait_until(left_out, "the breaker of the part to be open", 30)
    assert {a.status for a in got} == {200} and {a.body for a in got} == {b'{"id":1,"note":null}'}
    assert "deadline_exceeded" in got[0].headers["composure-partial"]
    assert "closed" in at.breaker("users reads") and "open" in at.breaker("note reads")
    at.hangs(False)
    wait_until(lambda: "composure-partial" not in at.ask(uri).headers, "it to be whole again", 10)


def test_it_closes_though_a_part_fails_for_ever(host):
    """Nobody gets more than a partial answer of it, but the list itself is well again."""
    at = host(cache_bytes=0, breaker_open_max_ms=300, sql="""
        CREATE FUNCTION public.broken() RETURNS int LANGUAGE plpgsql STABLE AS $$BEGIN RAISE 'broken'; END$$;
        CREATE VIEW public.mixed AS SELECT id, public.moody(0) AS mood, public.broken() AS broken FROM public.users WHERE id < 4;
        GRANT SELECT ON public.mixed TO api_user;
        SELECT composure.expose('public.mixed', key => '{id}', optional => '{broken}', partial => true, deadline => '300ms');""")
    wait_until(lambda: at.ask("/api/mixed").status == 200, "an answer")
    at.hangs(True)
    open_it(at, "/api/mixed")
    at.hangs(False)

    def closed():
        answer = at.ask("/api/mixed")
        assert answer.status == 503 or "composure-partial" in answer.headers, answer.out
        return ": closed" in at.breaker("mixed reads")
    wait_until(closed, "its breaker to close", 10)


def test_writes_have_a_breaker_of_their_own(host):
    at = host(sql="""CREATE TABLE public.notes (id int PRIMARY KEY, text text);
                     CREATE FUNCTION public.hang() RETURNS trigger LANGUAGE plpgsql AS
                       $$BEGIN PERFORM pg_sleep(20); RETURN NEW; END$$;
                     CREATE TRIGGER hang BEFORE INSERT ON public.notes FOR EACH ROW EXECUTE FUNCTION public.hang();
                     GRANT SELECT, INSERT ON public.notes TO api_user;
                     SELECT composure.expose('public.notes', methods => '{GET,POST}', deadline => '150ms');""")
    got = []

    def refused():
        body = json.dumps({"id": len(got), "text": "x"}).encode()
        got.append(at.ask("/api/notes", len(got) % 4, "POST", {"Content-Type": "application/json"}, body))
        return got[-1].status == 503 and code(got[-1]) == "circuit_open"
    wait_until(refused, "the breaker of its writes to be open", 20)
    assert at.ask("/api/notes").status == 200
    assert at.database.value("SELECT count(*) FROM public.notes") == 0


def test_silence_of_postgresql_is_an_answer(own_cluster, own_database, workers):
    at = Host(own_database, workers(2, own_database, log="none", deadline_ms=20000, cache_bytes=0))
    assert at.ask("/api/users/1").status == 200
    own_cluster.freeze()
    try:
        # Whoever asks now waits, until nothing was heard for a second; not for twenty.
        wait_until(lambda: at.ask("/api/users/2", headers={"X-Request-Timeout": "50ms"}).status == 503, "the breaker to be open")
        for i in range(10):
            answer = at.ask("/api/users/3", headers={"X-Request-Timeout": "300ms"})
            assert answer.status == 503 and code(answer) == "database_unavailable" and int(answer.headers["retry-after"]) in (1, 2)
            write = at.ask("/api/payments", 0, "POST", {"Content-Type": "application/json", "Idempotency-Key": f"k{i}"}, b"{}")
            assert write.status in (400, 503)
        assert at.ask("/healthz").status == 200 and at.ask("/readyz").status == 503
    finally:
        own_cluster.thaw()
    wait_until(lambda: at.ask("/api/users/2").status == 200 and at.ask("/readyz").status == 200, "it to answer again", 5)


def test_silence_is_noticed_though_whoever_would_have_told_is_gone(own_cluster, own_database, workers):
    """The worker that followed the feed dies; the next one has connections that stand, and never had an answer to a poll."""
    at = Host(own_database, workers(2, own_database, deadline_ms=20000, cache_bytes=0))
    for n in range(1, 40):
        assert at.ask(f"/api/users/{n}").status == 200
    holder, = [p for p in at.workers.processes if "the feed starts" in p.output()]
    own_cluster.freeze()
    try:
        holder.kill()
        wait_until(lambda: "opened 0 times" not in at.breaker("postgresql"), "the breaker to open", 4)
        answer = at.ask("/api/users/50")
        assert answer.status == 503 and code(answer) == "database_unavailable", answer.out
    finally:
        own_cluster.thaw()
    wait_until(lambda: at.ask("/api/users/51").status == 200, "it to answer again", 5)


def test_all_workers_together_make_few_attempts_to_connect(own_cluster, own_database, workers):
    at = Host(own_database, workers(6, own_database, log="none", deadline_ms=500, cache_bytes=0))
    wait_until(lambda: at.ask("/api/users/1").status == 200, "an answer")
    own_cluster.stop()
    # Whoever tries to connect is counted, and sent away.
    path = f"{own_cluster.sockets}/.s.PGSQL.5432"
    counted, over = [], threading.Event()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, 0o777)
    listener.listen(100)
    listener.settimeout(0.05)

    def count():
        while not over.is_set():
            try:
                listener.accept()[0].close()
                counted.append(time.monotonic())
            except TimeoutError:
                pass
    counting = threading.Thread(target=count)
    counting.start()
    try:
        wait_until(lambda: at.ask("/api/users/1").status == 503 and "open" in at.breaker("postgresql"), "the breaker to be open")
        begin = time.monotonic()
        while time.monotonic() < begin + 4:
            assert at.ask("/api/users/2").status == 503
        during = [t for t in counted if t > begin]
    finally:
        over.set()
        counting.join()
        listener.close()
        os.unlink(path)
    # One at a time, at least half of 250, 500, 1000, 1500 ms apart.
    assert 1 <= len(during) <= 12, len(during)
    own_cluster.start()
    wait_until(lambda: at.ask("/api/users/1").status == 200, "it to be back", 5)


def test_a_resource_has_no_more_places_than_can_be_answered_in_time(host):
    at = host(2, sql="""CREATE VIEW public.slowly AS SELECT 1 AS id, (SELECT pg_sleep(0.2))::text AS slept;
                        GRANT SELECT ON public.slowly TO api_user;
                        SELECT composure.expose('public.slowly', key => '{id}', deadline => '1s');""", breaker_slow=100)
    for _ in range(4):
        assert at.ask("/api/slowly").status == 200  # it is known how long it takes
    got, lock = [], threading.Lock()

    def one():
        begin = time.monotonic()
        answer = at.ask("/api/slowly")
        with lock:
            got.append((answer.status, time.monotonic() - begin, answer))
    threads = [threading.Thread(target=one) for _ in range(120)]
    for t in threads:
        t.start()
    assert at.ask("/api/users/1").status == 200
    for t in threads:
        t.join()
    refused = [a for status, _, a in got if status == 503]
    # Two workers, two connections each, five in a second: twenty; the others hear it at once and are told when to come again.
    assert len(refused) >= 60 and {code(a) for a in refused} <= {"overloaded", "circuit_open"}
    assert all(1 <= int(a.headers["retry-after"]) <= 10 for a in refused)
    assert sum(status == 200 for status, _, _ in got) >= 5


def test_probes_are_answered_by_a_worker_that_has_too_much_to_do(host):
    at = host(requests_max=3, bulkhead_share=100, cache_bytes=0, sql="SELECT composure.expose('public.moods', key => '{id}', deadline => '3s')")
    at.hangs(True)
    waiting = [threading.Thread(target=at.ask, args=("/api/moods",)) for _ in range(3)]
    for t in waiting:
        t.start()
    wait_until(lambda: code(at.ask("/api/nothing")) == "overloaded", "the worker to have enough")
    for probe in ("/healthz", "/readyz"):
        assert at.ask(probe).status == 200
    for t in waiting:
        t.join()
    at.hangs(False)
    wait_until(lambda: at.ask("/api/moods").status == 200, "it to be back", 5)


def test_the_places_of_a_worker_that_dies_are_free(host):
    at = host(sql="SELECT composure.expose('public.picky', key => '{id}', deadline => '20s');")
    at.hangs(True)
    clients = [at.workers.fcgi() for _ in range(3)]
    for c in clients:
        c.send(fastcgi.request(1, "GET", "/api/picky/2", auth(at.keys[0])))
    wait_until(lambda: " 3 out" in at.breaker("picky reads"), "three places to be taken")
    kill_all(at.workers.processes)
    for process in at.workers.processes:
        process.popen.wait()
    at.workers.processes.clear()
    for c in clients:
        c.close()
    at.workers.start_one()
    wait_until(lambda: at.ask("/api/picky/1").status == 200, "an answer")
    assert " 0 out" in at.breaker("picky reads")


def test_a_locked_table_leaves_the_others_a_way(host):
    at = host(deadline_ms=4000, cache_bytes=0)
    for _ in range(20):
        assert at.ask("/api/payments?limit=5").status == 200 and at.ask("/api/users?limit=5").status == 200
    lock = at.database.connect()
    with lock.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE public.payments IN ACCESS EXCLUSIVE MODE")
        got = []
        threads = [threading.Thread(target=lambda: got.append(at.ask("/api/payments?limit=5", key=len(got) % 4))) for _ in range(40)]
        for t in threads:
            t.start()
        took = []
        while any(t.is_alive() for t in threads):
            begin = time.monotonic()
            assert at.ask("/api/users?limit=5").status == 200
            took.append(time.monotonic() - begin)
        for t in threads:
            t.join()
        assert {a.status for a in got} <= {503, 504}, at.workers.output()[-1500:]
        # None of them waited for the lock.
        assert max(took) < 2, max(took)
        cursor.execute("COMMIT")
    wait_until(lambda: at.ask("/api/payments?limit=5").status == 200, "it to be read again", 5)


def test_reads_behind_a_lock_find_another_way_however_often(host):
    """Behind one that hangs they are sent once more elsewhere. A machine that is slow as a whole is not to do all its work
    twice, so that is for so many only; but behind a lock that lasts it is for all."""
    at = host(deadline_ms=4000, cache_bytes=0, breaker_calls=1000)
    for _ in range(20):
        assert at.ask("/api/payments?limit=5").status == 200 and at.ask("/api/users?limit=5").status == 200
    lock = at.database.connect()
    lock.autocommit = False

    def together(uri, n):
        got = []
        threads = [threading.Thread(target=lambda: got.append(at.ask(uri, key=len(got) % 4))) for _ in range(n)]
        for t in threads:
            t.start()
        return threads, got
    for _ in range(30):
        with lock.cursor() as cursor:
            cursor.execute("LOCK TABLE public.payments IN ACCESS EXCLUSIVE MODE")
        behind, _ = together("/api/payments?limit=5", 6)
        others, got = together("/api/users?limit=5", 12)
        for t in others:
            t.join()
        lock.rollback()
        for t in behind:
            t.join()
        assert [a.status for a in got] == 12 * [200]


def test_a_column_that_is_gone_ends_nobody(host):
    """The request begins anew with a new catalog: what it held of the old one is given back before."""
    at = host(cache_bytes=0)
    at.database.sql("CREATE TABLE public.brief (id int PRIMARY KEY, old text); GRANT SELECT ON public.brief TO api_user;"
                    " SELECT composure.expose('public.brief')")
    wait_until(lambda: at.ask("/api/brief").status == 200, "it to be known")
    pid = at.workers.processes[0].pid
    for n in range(3):
        at.database.sql(f"ALTER TABLE public.brief RENAME COLUMN {'new' if n % 2 else 'old'} TO {'old' if n % 2 else 'new'}")
        assert at.ask("/api/brief").status in (200, 503)
    wait_until(lambda: at.ask("/api/brief").status == 200, "an answer")
    assert at.workers.processes[0].alive() and at.workers.processes[0].pid == pid
    assert " 0 out" in at.breaker("brief reads")


def test_what_hangs_in_one_lock_is_not_taken_for_postgresqls_silence(host):
    """A table, one that embeds it and a view of it are three groups: together they may have all connections, but not the feed's."""
    at = host(deadline_ms=4000, cache_bytes=0, sql="""
        CREATE TABLE public.one (id int PRIMARY KEY); INSERT INTO public.one VALUES (1);
        CREATE TABLE public.two (id int PRIMARY KEY REFERENCES public.one); INSERT INTO public.two VALUES (1);
        CREATE VIEW public.three AS SELECT * FROM public.one;
        GRANT SELECT ON public.one, public.two, public.three TO api_user;
        SELECT composure.expose('public.one'), composure.expose('public.two'), composure.expose('public.three', key => '{id}');""")
    uris = ["/api/one?id=lt.9", "/api/two?select=id,one(id)", "/api/three?id=lt.9"]
    for _ in range(12):
        for uri in uris:
            assert at.ask(uri).status == 200
    lock = at.database.connect()
    with lock.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE public.one IN ACCESS EXCLUSIVE MODE")
        got = []
        threads = [threading.Thread(target=lambda uri=uri: got.append(at.ask(uri))) for uri in uris for _ in range(8)]
        for t in threads:
            t.start()
        while any(t.is_alive() for t in threads):
            assert "closed" in at.breaker("postgresql")
        for t in threads:
            t.join()
        assert {a.status for a in got} <= {503, 504} and all(code(a) != "database_unavailable" for a in got)
        cursor.execute("COMMIT")
    wait_until(lambda: all(at.ask(uri).status == 200 for uri in uris), "them to be read again", 5)


def test_a_feed_that_is_late_by_itself_makes_nobody_blind(host):
    at = host(sql="SELECT composure.expose('public.users', cache => 'ttl=60')")
    wait_until(lambda: "hit" in at.ask("/api/users/1").headers["cache-status"], "a hit")
    lock = at.database.connect()
    with lock.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE composure.feed_epoch IN ACCESS EXCLUSIVE MODE")
        until = time.monotonic() + 1.2
        at.database.sql("UPDATE public.users SET name = 'changed unheard' WHERE id = 1")
        wait_until(lambda: b"changed unheard" in at.ask("/api/users/1").body, "it to be asked for")
        while time.monotonic() < until:
            answer = at.ask("/api/users/1")
            assert b"changed unheard" in answer.body and "blind" not in answer.headers["cache-status"], answer.out
            assert at.ask(f"/api/moods?limit=1&id=gt.{int(time.monotonic() * 100) % 3}").status == 200
        cursor.execute("COMMIT")
