"""Reads from replicas: which of them, how old they may be, what whoever has written reads, and what is kept of it."""

import itertools
import json
import re
import threading
import time
import uuid

import pytest
from harness import fastcgi
from harness.process import Home, wait_until
from test_breakers import SQL, Host, open_it


@pytest.fixture
def pair(own_cluster, own_database, replica_of):
    """A primary with the demo, and a replica that has all of it; both log what they are asked."""
    own_database.sql("ALTER SYSTEM SET log_statement = 'all'")
    own_database.sql("SELECT pg_reload_conf()")
    replica = replica_of(own_cluster)
    replica.catch_up(own_cluster)
    return own_cluster, replica, own_database


@pytest.fixture
def another_host(new_home):
    """Settings of a worker that shares no memory with the others."""
    home = Home()
    yield {"runtime_dir": home.memory()}
    home.remove()


def ask(workers, method, uri, key, body=None, **headers):
    with workers.fcgi() as c:
        more = {"Content-Type": "application/json"} if body is not None else {}
        for name, value in headers.items():
            more[name.replace("_", "-")] = value
        return c.ask(method, uri, {"Authorization": f"Bearer {key}", **more},
                     json.dumps(body).encode() if body is not None else b"")


def read_dsn(*replicas):
    return "|".join(replica.dsn("own", "composure_worker") for replica in replicas)


def rename(workers, key, number, name):
    answer = ask(workers, "PATCH", f"/api/users/{number}", key, {"name": name})
    assert answer.status == 200, answer.out
    return answer


def name_of(workers, key, number, **headers):
    answer = ask(workers, "GET", f"/api/users/{number}", key, **headers)
    assert answer.status == 200, answer.out
    return json.loads(answer.body)["name"]


def behind_our_back(database, number, name):
    database.sql("UPDATE public.users SET name = %s WHERE id = %s", name, number)


class Counter:
    """How many reads of users a server has been asked, as its log has them."""

    def __init__(self, server):
        self.server = server
        self.before = self.now()

    def now(self):
        return len(re.findall(r"execute [^:]*: SELECT .*(?:users|scored)", self.server.process.output()))

    def grown(self):
        return self.now() - self.before


def settled(workers, key, replica):
    """Until reads go to the replica."""
    seen, n = Counter(replica), itertools.count(1)

    def one_more():
        ask(workers, "GET", f"/api/users?limit=1&id=lt.{next(n)}", key)
        return seen.grown() > 0
    wait_until(one_more, "a read at the replica")


def test_reads_go_to_the_replica_and_writes_to_the_primary(pair, worker):
    primary, replica, database = pair
    key = database.keys["demo"]
    made = worker(database, read_dsn=read_dsn(replica))
    settled(made, key, replica)
    there, here = Counter(replica), Counter(primary)
    for n in range(1, 41):
        assert ask(made, "GET", f"/api/users/{n}", key).status == 200
        assert ask(made, "GET", f"/api/users?limit=3&id=gt.{n}", key).status == 200
    wait_until(lambda: there.grown() >= 75, "the replica's counts")
    assert here.grown() < 5
    assert rename(made, key, 5, "Written").headers["composure-lsn"]


def test_a_replica_that_lags_is_not_read_from(pair, worker):
    primary, replica, database = pair
    key = database.keys["demo"]
    made = worker(database, read_dsn=read_dsn(replica), replica_lag_ms=400)
    settled(made, key, replica)
    replica.pause()
    behind_our_back(database, 7, "Newer")
    wait_until(lambda: name_of(made, key, 7) == "Newer", "a read at the primary", 3)
    time.sleep(0.2)
    assert all(name_of(made, key, 7) == "Newer" for _ in range(20))
    replica.resume()
    replica.catch_up(primary)
    settled(made, key, replica)


def test_a_replica_that_lags_is_not_read_from_while_the_feed_hears_nothing(pair, worker):
    """The primary is well and goes on; only its feed cannot be asked, as while another version's functions are there."""
    primary, replica, database = pair
    key = database.keys["demo"]
    made = worker(database, read_dsn=read_dsn(replica), replica_lag_ms=600)
    settled(made, key, replica)
    replica.pause()
    database.sql("ALTER FUNCTION composure.feed_poll(pg_snapshot) RENAME TO feed_poll_of_before")
    behind_our_back(database, 7, "Newer")
    wait_until(lambda: name_of(made, key, 7) == "Newer", "a read at the primary", 3)
    end = time.monotonic() + 3
    while time.monotonic() < end:
        assert name_of(made, key, 7) == "Newer"
    database.sql("ALTER FUNCTION composure.feed_poll_of_before(pg_snapshot) RENAME TO feed_poll")
    replica.resume()
    replica.catch_up(primary)
    settled(made, key, replica)


def test_a_resource_says_how_far_behind_it_may_be_read(pair, worker):
    primary, replica, database = pair
    key = database.keys["demo"]
    database.sql("SELECT composure.expose('public.users', cache => 'max-lag=0');"
                 "SELECT composure.expose('public.payments', cache => 'max-lag=3600')")
    replica.catch_up(primary)
    made = worker(database, read_dsn=read_dsn(replica), replica_lag_ms=300)
    there = Counter(replica)
    for _ in range(30):
        assert ask(made, "GET", "/api/users/1", key).status == 200
    assert there.grown() == 0
    assert "max-lag" not in ask(made, "GET", "/api/users/1", key).headers["cache-control"]
    before = ask(made, "GET", "/api/payments?limit=1", key).body
    wait_until(lambda: ask(made, "GET", "/api/payments?limit=1", key).status == 200, "a page")
    replica.pause()
    database.sql("UPDATE public.payments SET amount = amount + 1")
    time.sleep(0.6)
    assert ask(made, "GET", "/api/payments?limit=1", key).body == before


def test_who_has_written_reads_it_though_the_replica_lags(pair, worker, another_host):
    primary, replica, database = pair
    key = database.keys["demo"]
    other_key = database.create_key("other", role="api_user")
    database.sql("SELECT composure.expose('public.users', cache => 'private, no-cache')")  # nothing is kept for the other one
    replica.catch_up(primary)
    here = worker(database, read_dsn=read_dsn(replica), replica_lag_ms=3600000)
    there = worker(database, read_dsn=read_dsn(replica), replica_lag_ms=3600000, **another_host)
    settled(here, key, replica)
    settled(there, key, replica)
    old = name_of(here, key, 9)
    replica.pause()
    lsn = rename(here, key, 9, "Read by its writer").headers["composure-lsn"]
    assert re.fullmatch(r"[0-9A-F]{1,8}/[0-9A-F]{1,8}", lsn)
    # On this host by who it is, elsewhere by what it says it has seen; nobody else is promised anything.
    for _ in range(10):
        assert name_of(here, key, 9) == "Read by its writer"
        assert name_of(there, key, 9, Composure_LSN=lsn) == "Read by its writer"
    assert name_of(here, other_key, 9) == old
    assert name_of(there, key, 9) == old
    replica.resume()
    wait_until(lambda: name_of(there, key, 9) == "Read by its writer", "the replica to follow")


def test_a_write_whose_client_is_gone_counts_as_written(pair, worker):
    """Its commit was sent: whether it took effect nobody will hear."""
    primary, replica, database = pair
    key = database.keys["demo"]
    database.sql("SELECT composure.expose('public.users', cache => 'ttl=60, max-lag=3600')")
    replica.catch_up(primary)
    made = worker(database, read_dsn=read_dsn(replica), feed_interval_ms=3000)
    settled(made, key, replica)
    wait_until(lambda: "hit" in ask(made, "GET", "/api/users/9", key).headers["cache-status"], "a hit")
    replica.pause()
    holder = database.connect()
    holder.autocommit = False
    holder.cursor().execute("SELECT 1 FROM public.users WHERE id = 9 FOR UPDATE")
    with made.fcgi() as c:
        c.send(fastcgi.request(1, "PATCH", "/api/users/9", {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
                               b'{"name": "Left behind"}'))
        wait_until(lambda: database.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"), "the write to wait")
    with made.fcgi() as c:
        c.ask("GET", "/healthz")
    assert "hit" not in ask(made, "GET", "/api/users/9", key).headers["cache-status"]
    holder.rollback()
    holder.close()
    wait_until(lambda: database.value("SELECT name FROM public.users WHERE id = 9") == "Left behind", "the write to take effect")
    page = ask(made, "GET", "/api/users?select=name&id=eq.9", key)
    assert json.loads(page.body)["data"] == [{"name": "Left behind"}]


def test_what_is_kept_is_not_given_to_who_has_seen_more(pair, worker, another_host):
    primary, replica, database = pair
    key = database.keys["demo"]
    database.sql("SELECT composure.expose('public.users', cache => 'ttl=60')")
    replica.catch_up(primary)
    here = worker(database, read_dsn=read_dsn(replica))
    there = worker(database, read_dsn=read_dsn(replica), feed_interval_ms=3000, **another_host)
    wait_until(lambda: ask(there, "GET", "/api/users/3", key).headers["cache-status"].startswith("Composure; hit"), "a hit")
    for n in range(5):
        lsn = rename(here, key, 3, f"Name {n}").headers["composure-lsn"]
        assert name_of(there, key, 3, Composure_LSN=lsn) == f"Name {n}"


@pytest.mark.parametrize("policy", ["min-fresh=30", "stale-while-revalidate=30", "stale-if-error=30"])
def test_what_is_out_of_date_is_not_given_to_who_has_seen_more(pair, worker, another_host, policy):
    """The feed has told of its write by then, so what is kept is known to be older, and would serve others."""
    primary, replica, database = pair
    key = database.keys["demo"]
    other_key = database.create_key("other", role="api_user")
    database.sql(f"SELECT composure.expose('public.users', cache => 'ttl=60, {policy}')")
    replica.catch_up(primary)
    here = worker(database, read_dsn=read_dsn(replica))
    there = worker(database, read_dsn=read_dsn(replica), **another_host)
    wait_until(lambda: ask(there, "GET", "/api/users/3", key).headers["cache-status"].startswith("Composure; hit"), "a hit")
    lsn = rename(here, key, 3, "Seen").headers["composure-lsn"]
    database.sql("CREATE TABLE public.noise (n int); DROP TABLE public.noise")  # a later position
    wait_until(lambda: ask(there, "GET", "/api/users/4", key, Composure_LSN=lsn).headers["cache-status"].startswith("Composure; hit"),
               "the feed to have told of it")
    if policy == "stale-if-error=30":
        assert ask(there, "GET", "/api/users/5", other_key).status == 200
        replica.kill()
        primary.kill()
        answer = ask(there, "GET", "/api/users/3", key, Composure_LSN=lsn)
        assert (answer.status, ask(there, "GET", "/api/users/3", other_key).status) == (503, 200), answer.out
    else:
        assert name_of(there, key, 3, Composure_LSN=lsn) == "Seen"


def test_a_malformed_position_is_refused_where_there_are_replicas(pair, worker):
    primary, replica, database = pair
    key = database.keys["demo"]
    made = worker(database, read_dsn=read_dsn(replica))
    for wrong in ("", "0", "/", "1/", "/1", "G/1", "1/2/3", "123456789/0", "-1/0", "0x1/0"):
        answer = ask(made, "GET", "/api/users/1", key, Composure_LSN=wrong)
        assert (answer.status, json.loads(answer.body)["code"]) == (400, "invalid_header"), wrong
    assert ask(made, "GET", "/api/users/1", key, Composure_LSN="0/aB").status == 200


def test_without_replicas_the_header_is_neither_made_nor_read(database, worker):
    key = database.keys["demo"]
    made = worker(database)
    assert "composure-lsn" not in rename(made, key, 5, "Plain").headers
    assert ask(made, "GET", "/api/users/1", key, Composure_LSN="nonsense").status == 200


@pytest.mark.parametrize("form", ["insert", "key", "put", "call", "replay"])
def test_each_kind_of_write_says_where_it_is(pair, worker, form):
    primary, replica, database = pair
    key = database.keys["demo"]
    made = worker(database, read_dsn=read_dsn(replica))
    user = {"name": "Nell", "email": f"{uuid.uuid4()}@example.org", "country": "NL"}
    if form == "put":
        answer = ask(made, "PUT", "/api/users/990001", key, {**user, "balance": 1, "created_at": "2024-01-01"})
    elif form == "call":
        answer = ask(made, "POST", "/api/rpc/transfer", key, {"sender": 1, "recipient": 2, "amount": 0})
    else:
        headers = {} if form == "insert" else {"Idempotency_Key": "one"}
        answer = ask(made, "POST", "/api/users", key, user, **headers)
        if form == "replay":
            answer = ask(made, "POST", "/api/users", key, user, **headers)
            assert answer.headers["idempotency-replayed"] == "true"
    if answer.status < 300:
        assert "composure-lsn" in answer.headers, answer.out
    else:
        assert form in ("put", "call"), answer.out


def test_what_a_replica_had_not_got_is_not_kept(pair, worker):
    """The feed has told of the change, so generations are as they will stay; the replica does not have it."""
    primary, replica, database = pair
    key = database.keys["demo"]
    database.sql("SELECT composure.expose('public.users', cache => 'ttl=60, max-lag=3600')")
    replica.catch_up(primary)
    made = worker(database, read_dsn=read_dsn(replica))
    settled(made, key, replica)
    wait_until(lambda: ask(made, "GET", "/api/users/11", key).headers["cache-status"].startswith("Composure; hit"), "a hit")
    old = name_of(made, key, 11)
    replica.pause()
    behind_our_back(database, 11, "Told")
    wait_until(lambda: "hit" not in ask(made, "GET", "/api/users/11", key).headers["cache-status"], "the feed to tell")
    for _ in range(10):
        answer = ask(made, "GET", "/api/users/11", key)
        assert json.loads(answer.body)["name"] == old and "stored" not in answer.headers["cache-status"]
    replica.resume()
    replica.catch_up(primary)
    wait_until(lambda: name_of(made, key, 11) == "Told", "the replica to follow", 3)
    wait_until(lambda: ask(made, "GET", "/api/users/11", key).headers["cache-status"].startswith("Composure; hit"), "a hit")
    assert name_of(made, key, 11) == "Told"


class Reader(threading.Thread):
    def __init__(self, workers, key):
        super().__init__()
        self.workers, self.key, self.got, self.over = workers, key, [], threading.Event()
        self.start()

    def run(self):
        while not self.over.is_set():
            begin = time.monotonic()
            answer = ask(self.workers, "GET", f"/api/users/{1 + len(self.got) % 900}", self.key)
            self.got.append((begin, time.monotonic() - begin, answer.status))

    def end(self):
        self.over.set()
        self.join()
        return self.got


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_a_replica_that_goes_costs_its_readers_no_error(pair, workers, replica_of, how):
    primary, replica, database = pair
    second = replica_of(primary)
    second.catch_up(primary)
    key = database.keys["demo"]
    made = workers(2, database, read_dsn=read_dsn(replica, second), deadline_ms=5000)
    settled(made, key, replica)
    settled(made, key, second)
    readers = [Reader(made, key) for _ in range(6)]
    wait_until(lambda: all(len(r.got) > 20 for r in readers), "answers before")
    getattr(replica, how)()
    gone = time.monotonic()
    wait_until(lambda: all(len([g for g in r.got if g[0] > gone + 1.5]) > 20 for r in readers), "answers after", 20)
    got = [one for r in readers for one in r.end()]
    assert {status for _, _, status in got} == {200}
    assert max(took for _, took, _ in got) < 4


def test_parts_of_an_answer_are_asked_of_the_replica_too(pair, worker):
    primary, replica, database = pair
    key = database.keys["demo"]
    database.sql("""CREATE FUNCTION public.dear(s float8) RETURNS int LANGUAGE plpgsql STABLE AS $$BEGIN PERFORM pg_sleep(s); RETURN 1; END$$;
                    CREATE VIEW public.scored AS SELECT id, name, public.dear(30) AS score, public.dear(0) AS rank FROM public.users;
                    GRANT SELECT ON public.scored TO api_user;
                    SELECT composure.expose('public.scored', key => '{id}', optional => '{score,rank}', deadline => '3s')""")
    replica.catch_up(primary)
    made = worker(database, read_dsn=read_dsn(replica), key_grace_ms=60000)
    settled(made, key, replica)

    def partly():
        answer = ask(made, "GET", "/api/scored/1", key, Prefer="partial")
        assert (answer.status, answer.headers["composure-partial"]) == (200, "score;code=deadline_exceeded"), answer.out
        assert json.loads(answer.body)["rank"] == 1
    there, here = Counter(replica), Counter(primary)
    partly()
    assert there.grown() >= 3 and here.grown() == 0  # the whole, and each part
    primary.kill()
    wait_until(lambda: ask(made, "PATCH", "/api/users/1", key, {"name": "x"}).status == 503, "the primary to be away")
    partly()


def test_the_breaker_of_a_resource_closes_while_only_a_replica_answers(pair, worker):
    primary, replica, database = pair
    database.sql(SQL)
    made = worker(database, read_dsn=read_dsn(replica), breaker_calls=6, breaker_open_ms=1000, breaker_open_max_ms=1000, key_grace_ms=60000)
    at = Host(database, made)
    replica.catch_up(primary)
    wait_until(lambda: at.ask("/api/moods").status == 200, "an answer")
    settled(made, at.keys[0], replica)
    at.hangs(True)
    replica.catch_up(primary)
    open_it(at)
    at.hangs(False)
    replica.catch_up(primary)
    primary.kill()
    wait_until(lambda: ask(made, "PATCH", "/api/users/1", at.keys[0], {"name": "x"}).status == 503, "the primary to be away")
    wait_until(lambda: at.ask("/api/moods").status == 200 and "closed" in at.breaker("moods reads"), "its breaker to close")
    assert "closed" not in at.breaker("postgresql")


def test_a_replica_that_is_ahead_of_the_new_primary_is_not_read_from(pair, worker, replica_of):
    """What it has beyond was lost with the old primary, and never was for those who ask the new one."""
    primary, ahead, database = pair
    key = database.keys["demo"]
    behind = replica_of(primary)
    behind.catch_up(primary)
    dsn = f"host={primary.sockets},{behind.sockets} dbname=own user=composure_worker target_session_attrs=read-write"
    made = worker(database, dsn=dsn, read_dsn=read_dsn(ahead), key_grace_ms=60000)
    settled(made, key, ahead)
    behind.psql("postgres", "-c", "ALTER SYSTEM SET primary_conninfo = ''", "-c", "SELECT pg_reload_conf()")
    wait_until(lambda: behind.value("SELECT count(*) FROM pg_stat_wal_receiver") == 0, "one of them to be cut off")
    for _ in range(5):
        database.sql("UPDATE public.payments SET amount = amount + 1")
    behind_our_back(database, 7, "Lost")
    ahead.catch_up(primary)
    primary.kill()
    behind.promote()
    wait_until(lambda: ask(made, "PATCH", "/api/users/7", key, {"name": "Kept"}).status == 200, "a write", 10)
    wait_until(lambda: name_of(made, key, 7) == "Kept", "what was written", 5)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        assert name_of(made, key, 7) == "Kept"
    assert "replica 1 has what the primary has not" in made.output()


def test_reads_go_on_while_the_primary_is_silent(pair, worker):
    primary, replica, database = pair
    key = database.keys["demo"]
    made = worker(database, read_dsn=read_dsn(replica), deadline_ms=3000, key_grace_ms=60000)
    settled(made, key, replica)
    replica.catch_up(primary)
    reader = Reader(made, key)
    wait_until(lambda: len(reader.got) > 20, "answers before")
    primary.freeze()
    gone = time.monotonic()
    wait_until(lambda: len([g for g in reader.got if g[0] > gone + 3]) > 20, "answers without a primary", 20)
    primary.thaw()
    assert {status for _, _, status in reader.end()} == {200}


def test_reads_go_on_while_the_primary_is_lost(pair, workers):
    primary, replica, database = pair
    # The first write may meet a server that dies behind the commit: for who does not know what he wrote no replica reads.
    key, writer = database.keys["demo"], database.create_key("writer", role="api_user", plan=None)
    dsn = f"host={primary.sockets},{replica.sockets} dbname=own user=composure_worker target_session_attrs=read-write"
    made = workers(2, database, dsn=dsn, read_dsn=read_dsn(replica))
    settled(made, key, replica)
    replica.catch_up(primary)
    time.sleep(0.3)
    readers = [Reader(made, key) for _ in range(4)]
    wait_until(lambda: all(len(r.got) > 20 for r in readers), "answers before")
    killed = time.monotonic()
    primary.kill()

    def refused():
        begin = time.monotonic()
        answer = ask(made, "PATCH", "/api/users/1", writer, {"name": "x"})
        return answer.status == 503 and answer.headers["retry-after"] and time.monotonic() - begin < 0.5
    wait_until(refused, "writes to be refused at once", 5)
    with made.fcgi() as c:
        ready = c.ask("GET", "/readyz")
        assert ready.status == 200 and b"writes fail" in ready.body
    gone = time.monotonic()
    wait_until(lambda: all(len([g for g in r.got if g[0] > gone + 3]) > 20 for r in readers), "answers without a primary", 20)
    replica.promote()
    wait_until(lambda: ask(made, "PATCH", "/api/users/1", writer, {"name": "x"}).status == 200, "a write", 10)
    got = [one for r in readers for one in r.end()]
    assert [(round(at - killed, 3), status) for at, _, status in got if status != 200] == []
