"""How long a request may take: what the resource allows, what the client waits for, and the time it queued before us."""

import json
import os
import random
import subprocess
import time

import pytest

from harness.cluster import Cluster
from harness.process import as_user, wait_until
from harness.shared import ask as ask_once
from harness.shared import auth
from harness.tunnel import Tunnel

SLOW = """
CREATE FUNCTION public.slow(s float8) RETURNS int LANGUAGE plpgsql STABLE AS $$BEGIN PERFORM pg_sleep(s); RETURN 1; END$$;
CREATE VIEW public.slowly AS SELECT u.id, u.name, x.s FROM public.users u, (SELECT public.slow(0.7) AS s OFFSET 0) x WHERE u.id < 4;
GRANT SELECT ON public.slowly TO api_user;
SELECT composure.expose('public.slowly', key => '{id}', cache => 'ttl=60', trust_me => true);
CREATE VIEW public.slower AS SELECT u.id, x.s FROM public.users u, (SELECT public.slow(3) AS s OFFSET 0) x WHERE u.id < 4;
GRANT SELECT ON public.slower TO api_user;
SELECT composure.expose('public.slower', key => '{id}', deadline => '200ms')"""


@pytest.fixture
def ask(fresh_database, workers):
    started = []

    def start(**settings):
        if not started:
            fresh_database.sql(SLOW)
        started.append(True)
        made = workers(1, fresh_database, **settings)

        def one(uri, **headers):
            begin = time.monotonic()
            with made.fcgi() as c:
                answer = c.ask("GET", uri, {**auth(fresh_database.keys["demo"]), **{n.replace("_", "-"): v for n, v in headers.items()}})
            answer.took = time.monotonic() - begin
            return answer
        return one
    return start


def code(answer):
    return json.loads(answer.body)["code"]


@pytest.mark.parametrize("wanted", ["0.1", "100ms", "0.1s"])
def test_a_client_need_not_wait_longer_than_it_wants(ask, wanted):
    answer = ask()("/api/slowly?limit=1", X_Request_Timeout=wanted)
    assert (answer.status, code(answer)) == (504, "deadline_exceeded")
    assert 0.1 <= answer.took < 0.6


def test_it_cannot_have_more_than_the_resource_allows(ask):
    answer = ask()("/api/slower", X_Request_Timeout="60")
    assert (answer.status, code(answer)) == (504, "deadline_exceeded")
    assert answer.took < 2


def test_a_call_by_get_writes_nothing_that_nobody_knows_of(fresh_database, worker):
    fresh_database.sql("""CREATE FUNCTION public.later() RETURNS int LANGUAGE plpgsql STABLE AS $$BEGIN PERFORM pg_sleep(5); RETURN 1; END$$;
                          GRANT EXECUTE ON FUNCTION public.later() TO api_user;
                          SELECT composure.expose_function('public.later()', deadline => '200ms')""")
    with worker(fresh_database).fcgi() as c:
        answer = c.ask("GET", "/api/rpc/later", auth(fresh_database.keys["demo"]))
    assert (answer.status, code(answer)) == (504, "deadline_exceeded"), answer.out


@pytest.mark.parametrize("wrong", ["0", "soon", "-1", "1 h", "1,5"])
def test_what_is_no_time_is_refused(ask, wrong):
    answer = ask()("/api/users/1", X_Request_Timeout=wrong)
    assert (answer.status, code(answer)) == (400, "invalid_header") and b"X-Request-Timeout" in answer.body


def test_what_one_in_a_hurry_asked_for_is_there_for_the_next(ask):
    """The question runs under the resource's deadline: those who can wait get its answer."""
    one = ask()
    assert one("/api/slowly?limit=2", X_Request_Timeout="0.1").status == 504
    answer = one("/api/slowly?limit=2")
    assert answer.status == 200
    assert "collapsed" in answer.headers["cache-status"] or "hit" in answer.headers["cache-status"], "it was asked for anew"


@pytest.mark.parametrize("form", [lambda t: f"t={t:.3f}", lambda t: f"t={t * 1e6:.0f}", lambda t: f"{t * 1e3:.0f}"])
def test_time_in_the_web_servers_queue_counts(ask, form):
    one = ask(request_start=1, deadline_ms=2000)
    late = one("/api/users/1", X_Request_Start=form(time.time() - 30))
    assert (late.status, code(late)) == (503, "overloaded") and late.headers["retry-after"]
    assert one("/api/users/1", X_Request_Start=form(time.time())).status == 200
    cut = one("/api/slowly?limit=3", X_Request_Start=form(time.time() - 1.8))
    assert (cut.status, code(cut)) == (504, "deadline_exceeded") and cut.took < 0.6


def test_a_web_server_whose_clock_is_wrong_refuses_nobody(fresh_database, worker):
    made = worker(fresh_database, request_start=1, deadline_ms=2000)

    def ask(uri, start):
        with made.fcgi() as c:
            return c.ask("GET", uri, {**auth(fresh_database.keys["demo"]), "X-Request-Start": f"t={start:.3f}"})
    for off in (-3600, -86400 * 365, 3600):
        assert ask("/api/users/1", time.time() + off).status == 200
    assert made.output().count("clock is off") == 1  # not a line for each


def test_probes_are_never_late(fresh_database, worker):
    made = worker(fresh_database, request_start=1, deadline_ms=2000)
    with made.fcgi() as c:
        for uri in ("/healthz", "/readyz"):
            assert c.ask("GET", uri, {"X-Request-Start": f"t={time.time() - 30:.3f}"}).status == 200
        late = c.ask("GET", "/api/users/1", {"X-Request-Start": f"t={time.time() - 30:.3f}"})
    assert late.status == 503 and "clock is off" in made.output()


def test_it_counts_only_where_it_is_said_that_it_does(ask):
    one = ask()
    for start in (f"t={time.time() - 30:.3f}", "nonsense"):
        assert one("/api/users/1", X_Request_Start=start).status == 200
    trusting = ask(request_start=1)
    for start in ("nonsense", "t=12", f"t={time.time() + 30:.3f}"):
        wait_until(lambda: trusting("/api/users/1", X_Request_Start=start).status == 200, "an answer")


def timed(workers, uri, key):
    begin = time.monotonic()
    answer = ask_once(workers, uri, key)
    answer.took = time.monotonic() - begin
    return answer


def test_the_question_for_the_key_is_part_of_it(own_cluster, own_database, worker):
    own_database.sql("SELECT composure.expose('public.countries', deadline => '200ms')")
    made, key = worker(own_database, breaker_silence_ms=5000), own_database.keys["demo"]
    fresh = own_database.create_key("never seen", role="api_user", plan=None)
    wait_until(lambda: ask_once(made, "/api/countries?limit=1", key).status == 200, "the resource to be known")
    own_cluster.freeze()
    try:
        answer = timed(made, "/api/countries?limit=2", fresh)
    finally:
        own_cluster.thaw()
    assert (answer.status, code(answer)) == (504, "deadline_exceeded")
    assert 0.2 <= answer.took < 1.5


@pytest.fixture
def encrypted(new_home):
    """(cluster, address): over TCP it can be had encrypted; its certificate is its own word."""
    cluster, address = Cluster(new_home, "tls"), f"127.{os.getpid() % 250 + 1}.{random.randrange(250)}.1"
    key, certificate = cluster.data / "server.key", cluster.data / "server.crt"
    subprocess.run(as_user(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
                            "-keyout", key, "-out", certificate]), check=True, stderr=subprocess.DEVNULL, cwd=new_home.path)
    key.chmod(0o600)
    cluster.settings = {"ssl": "on", "listen_addresses": address}
    cluster.restart()
    yield cluster, address
    cluster.stop()


def test_it_holds_while_a_tls_handshake_hangs(encrypted, worker):
    cluster, address = encrypted
    database = cluster.create_database("own")
    database.migrate()
    database.load_demo(rows=10)
    tunnel, key = Tunnel(cluster, address), database.keys["demo"]
    try:
        made = worker(database, dsn=f"host=127.0.0.1 port={tunnel.port} dbname=own user=composure_worker sslmode=require",
                      deadline_ms=700, cache_bytes=0)
        wait_until(lambda: ask_once(made, "/api/users/1", key).status == 200, "an answer")
        assert database.value("SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
                              " WHERE usename = 'composure_worker'")
        tunnel.answers = 1  # that it does speak TLS
        tunnel.cut()
        for _ in range(4):
            answer = timed(made, "/api/users/2", key)
            assert answer.status in (503, 504) and answer.took < 1.5
            assert timed(made, "/healthz", None).took < 0.5
        assert tunnel.held
        tunnel.answers = None
        wait_until(lambda: ask_once(made, "/api/users/2", key).status == 200, "an answer again", 10)
    finally:
        tunnel.stop()
