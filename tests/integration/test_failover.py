"""The primary is lost and another server takes its place: the DSN names both, and nothing is restarted."""

import json
import threading
import time
import uuid

import pytest
from harness.process import wait_until


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
    assert answer.status in (503, 504) and answer.headers.get("retry-after", "1") == "1"
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
