"""The primary is lost and another server takes its place: the DSN names both, and nothing is restarted."""

import json
import threading
import time
import uuid

import pytest
from harness import wire
from harness.cluster import PORT, Cluster
from harness.process import wait_until
from harness.shared import describe


def ask(workers, method, uri, key, body=None, **headers):
    with workers.fcgi() as c:
        more = {"Content-Type": "application/json"} if body is not None else {}
        for name, value in headers.items():
            more[name.replace("_", "-")] = value
        return c.ask(method, uri, {"Authorization": f"Bearer {key}", **more},
                     json.dumps(body).encode() if body is not None else b"")


def new_user():
    return {"name": "Nell", "email": f"{uuid.uuid4()}@example.org", "country": "NL"}


def both(first, second, more="target_session_attrs=read-write"):
    return (f"host={first.sockets},{second.sockets} port=5432 dbname=own user=composure_worker {more}")


@pytest.fixture
def pair(own_cluster, own_database, replica_of):
    """A primary with the demo, and a replica that has all of it."""
    replica = replica_of(own_cluster)
    replica.catch_up(own_cluster)
    return own_cluster, replica, own_database


def written(workers, key, path="/api/users"):
    answer = ask(workers, "POST", path, key, new_user())
    assert answer.status in (201, 503, 504), answer.out
    return answer if answer.status == 201 else None


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_the_first_write_after_a_promotion_works(pair, worker, how):
    primary, replica, database = pair
    key = database.keys["demo"]
    made = worker(database, dsn=both(primary, replica))
    pid = made.processes[0].pid
    retried = {"Idempotency_Key": "before-the-failover"}
    first = ask(made, "POST", "/api/users", key, body := new_user(), **retried)
    assert first.status == 201
    replica.catch_up(primary)
    getattr(primary, how)()
    answer = ask(made, "POST", "/api/users", key, new_user())
    assert answer.status in (503, 504) and answer.headers.get("retry-after", "1") in ("1", "2")
    replica.promote()
    begin = time.monotonic()
    wait_until(lambda: written(made, key), "a write on the promoted server", 5)
    assert time.monotonic() - begin < 2
    assert made.processes[0].pid == pid and made.processes[0].alive()
    # What was recorded before is known to the new primary, too.
    again = ask(made, "POST", "/api/users", key, body, **retried)
    assert (again.status, again.body, again.headers["idempotency-replayed"]) == (201, first.body, "true")


def test_the_feed_begins_anew_on_the_promoted_server(pair, worker):
    primary, replica, database = pair
    key = database.keys["demo"]
    database.sql("SELECT composure.expose('public.users', cache => 'ttl=60')")
    replica.catch_up(primary)
    made = worker(database, dsn=both(primary, replica))
    wait_until(lambda: ask(made, "GET", "/api/users/7", key).headers["cache-status"].startswith("Composure; hit"), "a hit")
    replica.catch_up(primary)
    primary.stop()
    replica.promote()
    wait_until(lambda: written(made, key), "a write on the promoted server", 5)
    # UNLOGGED tables are empty there: what was kept counts no more, and what others write is told again.
    wait_until(lambda: made.output().count("everything remembered is out of date: ") >= 2, "a new feed")
    wait_until(lambda: ask(made, "GET", "/api/users/7", key).headers["cache-status"].startswith("Composure; hit"), "a hit")
    with replica.connect("own") as other, other.cursor() as cursor:
        cursor.execute("UPDATE public.users SET name = 'Olga' WHERE id = 7")
    wait_until(lambda: b"Olga" in ask(made, "GET", "/api/users/7", key).body, "the change to be told", 2)


def test_a_silent_first_host_costs_its_share_of_the_time(pair, worker):
    """Frozen, it accepts connections and says nothing: libpq alone would wait for it for ever."""
    primary, replica, database = pair
    key = database.keys["demo"]
    made = worker(database, dsn=both(primary, replica), connect_timeout_ms=600, deadline_ms=3000)
    assert ask(made, "GET", "/api/users/1", key).status == 200
    replica.catch_up(primary)
    primary.freeze()
    replica.promote()
    made.start_one()
    wait_until(lambda: written(made, key), "a write on the promoted server", 12)
    # Who connects anew begins with the one that worked.
    for _ in range(8):
        begin = time.monotonic()
        assert ask(made, "GET", "/api/users/1", key).status == 200
        assert time.monotonic() - begin < 3


def test_without_session_attributes_a_replica_in_the_dsn_is_found_out(pair, worker):
    """Whose turn it was could only read: the write says so, and the next connection is the other one's."""
    primary, replica, database = pair
    key = database.keys["demo"]
    made = worker(database, dsn=both(replica, primary, ""))
    statuses = []

    def write():
        answer = ask(made, "POST", "/api/users", key, new_user())
        statuses.append(answer.status)
        return answer.status == 201
    wait_until(write, "a write", 5)
    assert set(statuses) <= {201, 503}
    assert all(ask(made, "POST", "/api/users", key, new_user()).status == 201 for _ in range(4))


def test_a_server_that_only_reads_answers_writes_with_503(pair, worker):
    primary, replica, database = pair
    key = database.keys["demo"]
    made = worker(database, dsn=replica.dsn("own", "composure_worker"))
    for headers in ({}, {"Idempotency_Key": "k1"}):
        answer = ask(made, "POST", "/api/users", key, new_user(), **headers)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1"), answer.out
    answer = ask(made, "PATCH", "/api/users/1", key, {"name": "x"})
    assert answer.status == 503 and json.loads(answer.body)["code"] == "database_unavailable"
    assert ask(made, "GET", "/api/users/1", key).status == 200


def test_requests_go_on_while_the_promotion_is_under_way(pair, workers):
    primary, replica, database = pair
    key = database.keys["demo"]
    made = workers(2, database, dsn=both(primary, replica), deadline_ms=2000)
    seen, over = [], threading.Event()

    def run():
        while not over.is_set():
            begin = time.monotonic()
            answer = ask(made, "POST", "/api/users", key, new_user())
            seen.append((answer.status, time.monotonic() - begin))
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: sum(status == 201 for status, _ in seen) > 20, "writes before")
    replica.catch_up(primary)
    primary.kill()
    replica.promote()
    n = len(seen)
    wait_until(lambda: sum(status == 201 for status, _ in seen[n:]) > 20, "writes after", 10)
    over.set()
    for thread in threads:
        thread.join()
    assert {status for status, _ in seen} <= {201, 503, 504}, seen
    assert max(took for _, took in seen) < 2.05 + 0.2


# --- a primary that is gone without a word ---


class Client(threading.Thread):
    """Sends to one worker without a pause: (begun, ended, status, code) of each request."""

    def __init__(self, workers, key, method="POST"):
        super().__init__()
        self.workers, self.key, self.method, self.got, self.over = workers, key, method, [], threading.Event()
        self.start()

    def run(self):
        while not self.over.is_set():
            begin = time.monotonic()
            if self.method == "POST":
                answer = ask(self.workers, "POST", "/api/users", self.key, new_user())
            else:
                answer = ask(self.workers, "GET", "/api/users/7", self.key)
            self.got.append((begin, time.monotonic(), answer.status, json.loads(answer.body).get("code")))

    def well_since(self, instant):
        return next((end for begin, end, status, _ in self.got if begin >= instant and status in (200, 201)), None)


def end_all(clients):
    for client in clients:
        client.over.set()
    for client in clients:
        client.join()


def openings(workers):
    line = next(x for x in describe(workers)[1].splitlines() if " postgresql: " in x)
    return int(line.split("opened ")[1].split()[0])


def sessions(cluster):
    with cluster.connect("own") as c, c.cursor() as cursor:
        cursor.execute("SELECT pid FROM pg_stat_activity WHERE usename = 'composure_worker'")
        return {pid for pid, in cursor.fetchall()}


@pytest.fixture
def far_pair(new_home, replica_of):
    """(wire, primary behind it, replica on this side, database): what goes over the wire can be lost, both ways."""
    if not wire.usable():
        pytest.skip("needs root, /dev/net/tun and iproute2, for a network of its own")
    made = wire.Wire()
    primary = Cluster(new_home, "far", network=made.network, listen_addresses=made.far)
    try:
        with open(primary.data / "pg_hba.conf", "a") as f:
            f.write(f"host all all {made.near}/32 trust\n")
        database = primary.create_database("own")
        database.migrate()
        database.load_demo(rows=100)
        database.sql("SELECT pg_reload_conf()")
        replica = replica_of(primary)
        replica.catch_up(primary)
        yield made, primary, replica, database
    finally:
        primary.stop()
        made.close()


def test_a_primary_that_vanishes_holds_no_worker_up(far_pair, worker):
    """No connection is reset and nothing is refused: what stood goes on standing, and nobody answers on it. One worker finds that
    out by the change feed; the others have the same four dead connections."""
    it, primary, replica, database = far_pair
    key = database.keys["demo"]
    dsn = f"host={it.far},{replica.sockets} port={PORT} dbname=own user=composure_worker target_session_attrs=read-write"
    three = [worker(database, dsn=dsn, cache_bytes=0, log="none") for _ in range(3)]
    clients = [Client(w, key, method) for w in three for method in ("POST",) * 5 + ("GET",)]
    try:
        wait_until(lambda: len(sessions(primary)) >= 12 and all(c.well_since(0) for c in clients), "all connections to stand")
        replica.catch_up(primary)
        it.be(loss=1)
        cut = time.monotonic()
        replica.promote()
        wait_until(lambda: openings(three[0]), "the breaker to open", 5)
        known = time.monotonic()
        wait_until(lambda: all(c.well_since(cut + 0.1) for c in clients), "everybody to be answered again", 15)
    finally:
        end_all(clients)
    assert max(c.well_since(cut + 0.1) for c in clients) - known < 2
    got = [one for c in clients for one in c.got]
    assert {status for _, _, status, _ in got} <= {200, 201, 503, 504}
    # What was out may have been written there; nobody waited for his deadline.
    assert {code for _, _, status, code in got if status == 504} <= {"outcome_unknown"}
    assert max(end - begin for begin, end, _, _ in got) < 5


def test_a_server_that_was_only_silent_keeps_its_sessions(own_cluster, own_database, worker):
    """Idle ones and those that are at work: they answer when it goes on."""
    key = own_database.keys["demo"]
    # Shorter than the patience with the feed, which closes what it waits for in vain.
    two = [worker(own_database, deadline_ms=20000, connect_timeout_ms=400, cache_bytes=0, log="none") for _ in range(2)]
    clients = [Client(w, key) for w in two for _ in range(6)]
    wait_until(lambda: len(sessions(own_cluster)) >= 8 and all(c.well_since(0) for c in clients), "all connections to stand")
    end_all(clients[1:6] + clients[7:])
    before = sessions(own_cluster)
    n = openings(two[0])
    own_cluster.freeze()
    try:
        wait_until(lambda: openings(two[0]) > n, "the breaker to open")
        wait_until(lambda: openings(two[0]) > n + 1, "an attempt to connect in vain")
    finally:
        thawed = time.monotonic()
        own_cluster.thaw()
    wait_until(lambda: clients[0].well_since(thawed) and clients[6].well_since(thawed), "writes to work again", 5)
    end_all(clients)
    assert {status for c in clients for _, _, status, _ in c.got} <= {201, 503}
    # But for each worker's spare one, if it had one: that is used to find out who is there.
    assert len(before - sessions(own_cluster)) <= len(two), [w.output() for w in two]


def test_what_the_users_own_code_says_is_not_the_servers_word(own_cluster, own_database, worker):
    """SQLSTATE 25006 is a replica's answer to a write. Anybody can raise it."""
    own_database.sql("""CREATE FUNCTION public.refuse() RETURNS int LANGUAGE plpgsql AS
                        $$BEGIN RAISE 'not me' USING ERRCODE = '25006'; END$$;
                        GRANT EXECUTE ON FUNCTION public.refuse() TO api_user; SELECT composure.expose_function('public.refuse')""")
    made, key = worker(own_database, cache_bytes=0), own_database.keys["demo"]
    clients = [Client(made, key) for _ in range(6)]
    wait_until(lambda: len(sessions(own_cluster)) >= 4, "all connections to stand")
    end_all(clients)
    before = sessions(own_cluster)
    for _ in range(5):
        assert ask(made, "POST", "/api/rpc/refuse", key, {}).status == 405
    assert before <= sessions(own_cluster)
    assert "takes no writes" not in made.output()
