"""Clients that send a body, or read an answer of 4 MB, a byte now and then: through each web server as it may be set up
to buffer, and straight on the worker's socket. They cost the worker bounded memory for a bounded time, and nobody else
anything."""

import os

import pytest

from harness.load import SOAK, Load, Stream, load
from harness.process import wait_until
from harness.slow import Dawdlers

BODIES, READERS = 12, 8
ANSWER_MB = 4
CONNECTIONS = 4  # of a worker, if nothing else is said
SETTINGS = {"log": "none", "deadline_ms": 800, "idle_ms": 600}

BIG = """
CREATE VIEW big AS SELECT g::bigint AS id, repeat('x', 80000) AS text FROM generate_series(1, 50) g;
GRANT SELECT ON big TO api_user;
SELECT composure.expose('big', key => '{id}', deadline => '20 s');
"""

# How the server may be set up, and whether the worker then sees bodies and readers as slow as they are.
SHORT = {
    "straight": (None, {}, True),
    "lighttpd, all buffered": ("lighttpd", {"server_stream_request_body": 0, "server_stream_response_body": 0}, False),
    "lighttpd, streaming": ("lighttpd", {"server_stream_request_body": 1, "server_stream_response_body": 1}, True),
    "lighttpd, streaming little": ("lighttpd", {"server_stream_request_body": 2, "server_stream_response_body": 2}, True),
    "nginx, all buffered": ("nginx", {"location": "fastcgi_request_buffering on; fastcgi_buffering on;"}, False),
    "nginx, streaming": ("nginx", {"location": "fastcgi_request_buffering off; fastcgi_buffering off;"}, True),
    "apache": ("apache", {}, True),
}
LONG = {
    f"lighttpd, request {q} response {a}":
        ("lighttpd", {"server_stream_request_body": q, "server_stream_response_body": a}, q > 0)
    for q in (0, 1, 2) for a in (0, 1, 2) if q != a
} | {
    f"nginx, request buffering {q}, buffering {a}":
        ("nginx", {"location": f"fastcgi_request_buffering {q}; fastcgi_buffering {a};"}, q == "off")
    for q, a in (("on", "off"), ("off", "on"))
}
WAYS = SHORT | LONG if SOAK else SHORT


@pytest.fixture(scope="module")
def big_database(demo_template):
    database = demo_template.cluster.create_database("slow_clients", demo_template.name)
    database.keys = dict(demo_template.keys)
    database.sql(BIG)
    return database


@pytest.fixture
def site(request, big_database, worker):
    def start(way):
        server, options, _ = WAYS[way]
        workers = worker(big_database, **SETTINGS)
        return workers, request.getfixturevalue(server)(workers, **options) if server else workers
    return start


def open_files(workers):
    return len(os.listdir(f"/proc/{workers.processes[0].pid}/fd"))


def memory_mb(workers):
    with open(f"/proc/{workers.processes[0].pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def sanitized(workers):
    with open(f"/proc/{workers.processes[0].pid}/maps") as maps:
        return "libasan" in maps.read()


def others(key):
    return [Stream("row", "/api/users/{}", key, connections=2), Stream("404", "/nothing", connections=1)]


@pytest.mark.parametrize("way", WAYS)
def test_slow_clients_delay_nobody_and_leave_nothing(site, big_database, way):
    workers, target = site(way)
    key = big_database.keys["demo"]
    quiet = load(workers, *others(key), Stream("big", "/api/big", key, connections=4, count=8), seconds=1)
    files, memory = open_files(workers), memory_mb(workers)

    most = memory
    with Dawdlers(target, key) as slow:
        bodies = [slow.send_slowly("/api/payments", b'{"user_id":1,' + b" " * 2000) for _ in range(BODIES)]
        readers = [slow.read_slowly("/api/big") for _ in range(READERS)]
        beside = Load(workers, *others(key), seconds=1.5)
        while beside.running():
            most = max(most, memory_mb(workers))
        seen = beside.result()
        if WAYS[way][2]:
            # The bodies come as they are: their requests end at the deadline, as 408.
            wait_until(lambda: all(one.status() or one.ended for one in bodies), "the slow bodies to be refused")
            assert {one.status() for one in bodies} == {408}
        wait_until(lambda: all(one.got for one in readers), "the first byte of each answer", 60)
        # The readers are still there, and the worker has got rid of each of them; it may have more connections to PostgreSQL than
        # before, all of its own and the spare one.
        wait_until(lambda: open_files(workers) <= files + CONNECTIONS + 1, "the worker to let go of the slow ones", 60)
        assert all(1 <= len(one.got) < 65536 for one in readers)

    for name in ("row", "404"):
        assert seen[name].failed == 0 and list(seen[name].status) == [404 if name == "404" else 200]
        # One that is held up for as long as a slow client stays is among ten at most; a slow machine is slow without them, too.
        assert seen[name].rate >= min(13, quiet[name].rate / 5), "the others were held up"
        assert seen[name].p50 < max(SETTINGS["deadline_ms"] / 5, 10 * quiet[name].p50), "the others were held up"
        if SOAK:
            assert seen[name].p99 < max(10, 2 * quiet[name].p99)
    if not sanitized(workers):
        print(f"memory: {memory:.0f} MB, {most:.0f} with {READERS} slow readers, {memory_mb(workers):.0f} afterwards")
        assert most < memory + READERS * (ANSWER_MB * 2 + 1) + 16
        # libpq keeps for each connection what its largest answer needed, at most twice as much as that.
        assert memory_mb(workers) < memory + CONNECTIONS * ANSWER_MB * 2 + 4
    # A slow client may come back: nothing is held against it, or left over.
    again = load(workers, *others(key), seconds=0.3)
    assert again["row"].failed == 0 and again["row"].answered > 0


@pytest.mark.parametrize("way", ["straight", "lighttpd, streaming", "nginx, streaming", "apache"])
def test_a_slow_body_that_is_whole_in_time_is_taken(request, worker, big_database, way):
    workers = worker(big_database, log="none")
    server, options, _ = WAYS[way]
    target = request.getfixturevalue(server)(workers, **options) if server else workers
    with Dawdlers(target, big_database.keys["demo"]) as slow:
        one = slow.send_slowly("/api/payments", b'{"user_id":1}')
        wait_until(one.status, "the answer")
    assert one.status() == 422, one.got  # whole, but without an amount
