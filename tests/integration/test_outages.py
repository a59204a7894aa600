"""PostgreSQL goes, comes back, and stands still under a worker that has requests; a worker is told to leave with requests
in it."""

import json
import os
import signal
import threading
import time

from harness.process import wait_until
from harness.tunnel import Tunnel


def ask(workers, uri, key):
    with workers.fcgi() as c:
        return c.ask("GET", uri, {"Authorization": f"Bearer {key}"})


def slow(database, seconds):
    database.sql(f"""CREATE VIEW public.slow AS SELECT 1 AS id, pg_sleep({seconds})::text AS slept;
                     GRANT SELECT ON public.slow TO api_user; SELECT composure.expose('public.slow', key => '{{id}}')""")


class Asker(threading.Thread):
    """Asks without a pause: (when, how long, status) of each request."""

    def __init__(self, workers, uri, key):
        super().__init__()
        self.workers, self.uri, self.key, self.got, self.over = workers, uri, key, [], threading.Event()
        self.start()

    def run(self):
        while not self.over.is_set():
            begin = time.monotonic()
            status = ask(self.workers, self.uri, self.key).status
            self.got.append((begin, time.monotonic() - begin, status))

    def end(self):
        self.over.set()
        self.join()
        return self.got


def test_postgresql_may_be_restarted_under_a_worker(own_cluster, own_database, worker):
    made = worker(own_database, deadline_ms=2000)
    pid, key = made.processes[0].pid, own_database.keys["demo"]
    askers = [Asker(made, "/api/users?limit=5", key) for _ in range(4)]
    for how in (own_cluster.restart, lambda: (own_cluster.kill(), own_cluster.start())):
        wait_until(lambda: all(a.got and a.got[-1][2] == 200 for a in askers), "answers before")
        how()
        back = time.monotonic()
        wait_until(lambda: all(a.got[-1][0] > back and a.got[-1][2] == 200 for a in askers), "answers after", 5)
    got = [one for asker in askers for one in asker.end()]
    assert {status for _, _, status in got} <= {200, 503}
    assert max(took for _, took, _ in got) < 2.5
    assert made.processes[0].pid == pid and made.processes[0].alive()


def test_what_was_read_before_a_restart_serves_the_next_outage(own_cluster, own_database, worker):
    """Nobody knows what was committed around a restart, so all is asked for anew; who cannot ask has what is kept."""
    made, key = worker(own_database, deadline_ms=3000), own_database.keys["demo"]
    wait_until(lambda: "hit" in ask(made, "/api/users/7", key).headers["cache-status"], "a hit")
    own_cluster.restart()
    wait_until(lambda: "out of date: PostgreSQL was restarted" in made.output(), "the feed to tell of the restart")
    wait_until(lambda: ask(made, "/api/users/8", key).status == 200, "the key to be known again")
    own_cluster.stop()
    answer = ask(made, "/api/users/7", key)
    assert answer.status == 200 and "stale-if-error" in answer.headers["cache-status"], answer.head


def test_a_call_by_get_whose_connection_is_lost_is_no_unknown_outcome(own_cluster, own_database, worker):
    """It changes nothing: it is made again, or refused."""
    own_database.sql("""CREATE FUNCTION public.later() RETURNS int LANGUAGE plpgsql STABLE AS $$BEGIN PERFORM pg_sleep(1); RETURN 7; END$$;
                        GRANT EXECUTE ON FUNCTION public.later() TO api_user; SELECT composure.expose_function('public.later()')""")
    made = worker(own_database)
    asker = Asker(made, "/api/rpc/later", own_database.keys["demo"])
    sleeping = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
    os.kill(wait_until(lambda: own_database.sql(sleeping), "the call")[0][0], signal.SIGKILL)
    wait_until(lambda: asker.got, "its answer")
    assert asker.end()[0][2] in (200, 503)


def test_a_worker_is_ready_as_long_as_what_it_keeps_may_serve(own_cluster, own_database, worker):
    """A load balancer that takes all hosts out would take what is kept with them."""
    made, key = worker(own_database), own_database.keys["demo"]

    def ready():
        with made.fcgi() as c:
            return c.ask("GET", "/readyz")

    def expose(policy):
        own_database.sql("SELECT composure.expose('public.users', cache => %s)", policy)
        wait_until(lambda: policy.partition(",")[0] in ask(made, "/api/users/7", key).headers["cache-control"], "the policy to be known")
        wait_until(lambda: "hit" in ask(made, "/api/users/7", key).headers["cache-status"], "a hit")
    for other in ("payments", "countries", "currencies"):
        own_database.sql("SELECT composure.unexpose(%s)", other)
    for policy, status in (("max-age=7, ttl=60, stale-if-error=600", 200), ("max-age=8, ttl=60", 503), ("max-age=9, ttl=60, stale-if-error=3", 503)):
        expose(policy)
        assert b"note" not in ready().body
        own_cluster.stop()
        wait_until(lambda: (r := ready()).status == status and (b"what is kept" in r.body) == (status == 200), f"{policy}: {status}")
        if status == 200:
            assert ask(made, "/api/users/7", key).status == 200
        own_cluster.start()
        wait_until(lambda: ready().status == 200 and b"note" not in ready().body, "it to be ready again")


def test_postgresql_that_stands_still_costs_no_more_than_the_deadline(own_cluster, own_database, worker):
    made = worker(own_database, deadline_ms=500)
    pid, key = made.processes[0].pid, own_database.keys["demo"]
    assert ask(made, "/api/users/1", key).status == 200
    own_cluster.freeze()
    try:
        askers = [Asker(made, "/api/users?limit=5", key) for _ in range(8)]
        wait_until(lambda: all(len(a.got) >= 3 for a in askers), "answers while it stands still")
        assert ask(made, "/healthz", key).status == 200
        assert ask(made, "/api/nothing", key).status == 404
        got = [one for asker in askers for one in asker.end()]
    finally:
        own_cluster.thaw()
    assert {status for _, _, status in got} <= {503, 504}
    assert max(took for _, took, _ in got) < 1
    wait_until(lambda: ask(made, "/api/users/1", key).status == 200, "an answer after")
    assert made.processes[0].pid == pid and made.processes[0].alive()


def test_sigterm_lets_what_is_in_flight_finish(fresh_database, worker):
    slow(fresh_database, 0.5)
    made = worker(fresh_database)
    process, key = made.processes[0], fresh_database.keys["demo"]
    assert ask(made, "/api/slow", key).status == 200  # it knows the key and the statement
    with made.fcgi() as c:
        got = []
        asking = threading.Thread(target=lambda: got.append(c.ask("GET", "/api/slow", {"Authorization": f"Bearer {key}"})))
        asking.start()
        wait_until(lambda: fresh_database.value("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event = "
                                                "'PgSleep'") == 1, "the statement to be running")
        process.send_signal(signal.SIGTERM)
        asking.join(10)
    assert [(answer.status, json.loads(answer.body)["data"][0]["id"]) for answer in got] == [(200, 1)]
    assert process.popen.wait(10) == 0, process.output()


def test_a_connection_that_hangs_while_it_forgets_statements_is_closed(own_cluster, own_database, worker):
    """A result's type changed, so all that was prepared is deallocated: nobody's query, and nothing else is sent there meanwhile."""
    key, tunnel = own_database.keys["demo"], Tunnel(own_cluster)
    own_database.sql("CREATE TABLE public.thing (id int PRIMARY KEY, n int); INSERT INTO public.thing VALUES (1, 2);"
                     "GRANT SELECT ON public.thing TO api_user; SELECT composure.expose('public.thing')")
    try:
        made = worker(own_database, dsn=f"host=127.0.0.1 port={tunnel.port} dbname=own user=composure_worker", connections=1,
                      connect_timeout_ms=500, deadline_ms=5000, cache_bytes=0)
        for _ in range(20):
            assert ask(made, "/api/thing", key).status == 200
        tunnel.hold_at = b"DEALLOCATE ALL"
        own_database.sql("ALTER TABLE public.thing ALTER COLUMN n TYPE bigint")
        wait_until(lambda: ask(made, "/api/thing", key).status and tunnel.held, "the connection to hang", 10)
        tunnel.hold_at = None
        wait_until(lambda: ask(made, "/api/thing", key).status == 200, "another connection", 4)
        assert "forgetting prepared statements took too long" in made.output()
    finally:
        tunnel.stop()
