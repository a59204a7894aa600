"""The files of conf/ in front of real workers: what each web server passes on, keeps and leaves alone."""

import signal
import threading
import time

import pytest

from harness import fastcgi, servers
from harness.process import wait_until

PEOPLE = "/api/users?limit=50&cursor=eyJpZCI6MTI4fQ"


@pytest.fixture
def server(web, workers, database):
    """One worker behind each of the three, and the setting peer as conf/ says."""
    return web(workers(1, database, peer=web.peer))


@pytest.fixture
def client(server, database):
    client = server.client(database.keys["demo"])
    yield client
    client.close()


def test_a_page_comes_whole_and_plain(client):
    page = client.get(PEOPLE, headers={"Accept-Encoding": "gzip, br"})
    assert page.status == 200
    assert page.headers["Content-Type"] == "application/json"
    assert page.headers["Content-Encoding"] is None
    assert [row["id"] for row in page.json["data"]] == list(range(129, 179))
    assert page.json["next_cursor"] == "eyJpZCI6MTc4fQ" and page.json["has_more"] is True


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_the_paths_at_the_root_reach_the_worker(client, path):
    assert client.get(path, key="").status == 200


def test_both_headers_of_an_api_key_arrive(client, database):
    key = database.keys["demo"]
    assert client.get("/api/payments/1", key="").status in (401, 403, 404)
    assert client.get("/api/payments/1", key="", headers={"Authorization": f"Bearer {key}"}).status == 200
    assert client.get("/api/payments/1", key="", headers={"X-API-Key": key}).status == 200
    assert client.get("/api/payments/1", key="", headers={"X-API-Key": key[:-1] + "_"}).status == 401


def test_the_path_arrives_as_it_was_written(client):
    assert client.get("/api/users/%31").status == 200
    for path in ("/api//users", "/api/users/", "/api/./users", "/api/users%2F1", "/api/users/1/", "/api/users/1%00"):
        assert client.get(path).status in (400, 404), path


def test_a_body_arrives_and_a_row_comes_back(client):
    made = client.post("/api/payments", {"user_id": 7, "amount": 12.5, "currency": "EUR"},
                       headers={"Idempotency-Key": "web-1"})
    assert made.status == 201, made
    assert made.headers["Location"].startswith("/api/payments/")
    again = client.get(made.headers["Location"])
    assert again.status == 200 and again.json["user_id"] == 7 and again.json["amount"] == "12.50"


def test_a_body_without_a_length_arrives(server, database):
    body = b'{"user_id":8,"amount":1,"currency":"EUR"}'
    with server.raw() as raw:
        raw.send(f"POST /api/payments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {database.keys['demo']}\r\n"
                 "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        for at in range(0, len(body), 10):
            piece = body[at:at + 10]
            raw.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        raw.send("0\r\n\r\n")
        status, _, answer = raw.read_response()
    assert status == 201, answer


def test_errors_keep_their_form(client):
    for path, status, code in (("/api/nothing", 404, "not_found"), ("/api/users?limit=0", 400, "invalid_limit")):
        answer = client.get(path)
        assert (answer.status, answer.json["code"]) == (status, code)
        assert answer.headers["Content-Type"] == "application/problem+json"


def test_what_is_too_large_is_answered_by_us(client):
    url = client.get("/api/users?limit=1&x=" + "x" * 9000)
    assert url.status in (414, 431)
    body = client.post("/api/payments", '{"note":"' + "x" * 1_200_000 + '"}', headers={"Content-Type": "application/json"})
    assert body.status == 413 and body.json["code"] == "body_too_large"


def test_the_docroot_shows_its_page_and_nothing_else(client):
    page = client.get("/", key="")
    assert page.status == 200 and b"Composure" in page.body
    for path in ("/.htaccess", "/api.fcgi"):
        answer = client.get(path, key="")
        assert answer.status in (403, 404), path
        assert b"COMPOSURE_CONFIG" not in answer.body


def test_head_has_the_headers_of_get_and_no_body(client):
    head, get = client.request("HEAD", PEOPLE), client.get(PEOPLE)
    assert head.status == 200 and head.body == b""
    assert head.headers["Content-Type"] == get.headers["Content-Type"]


def test_an_account_on_a_shared_host_serves_by_plain_cgi(running, new_home, database):
    if not servers.available("apache2"):
        pytest.skip("apt-get install apache2")
    server = servers.shared_host(new_home, "host", database.worker_dsn)
    running.append(server)
    client = server.client(database.keys["demo"])
    page = client.get(PEOPLE)
    assert page.status == 200 and page.json["data"][0]["id"] == 129
    made = client.post("/api/payments", {"user_id": 9, "amount": 3, "currency": "EUR"}, headers={"Idempotency-Key": "cgi"})
    assert made.status == 201, made
    assert client.get("/api/nothing").json["code"] == "not_found"
    assert client.get("/healthz", key="").status == 200
    assert b"Composure" in client.get("/", key="").body


class Traffic:
    """Reads and writes from several clients on kept connections, until stop(); each that fails is remembered."""

    def __init__(self, server, key, clients=4):
        self.server, self.key = server, key
        self.stopping = threading.Event()
        self.asked, self.failures = [0] * clients, []
        self.threads = [threading.Thread(target=self.run, args=(n,)) for n in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self, n):
        client = self.server.client(self.key)
        while not self.stopping.is_set():
            at = self.asked[n]
            try:
                if at % 4:
                    answer = client.get(f"/api/users/{1 + at % 1000}")
                else:
                    answer = client.post("/api/payments", {"user_id": 1, "amount": 1, "currency": "EUR"},
                                         headers={"Idempotency-Key": f"{self.server.port}-{n}-{at}"})
                if answer.status not in (200, 201):
                    self.failures.append(answer)
            except Exception as error:  # noqa: BLE001 - each is a failure to be shown
                self.failures.append(error)
                client.close()
            self.asked[n] += 1
        client.close()

    def more(self, requests):
        """Waits until each client has asked that often again."""
        before = list(self.asked)
        wait_until(lambda: all(now >= then + requests for now, then in zip(self.asked, before)), "more requests", 60)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        assert not self.failures, (len(self.failures), sum(self.asked), self.failures[:5])


@pytest.mark.parametrize("kind", ["nginx", "apache"])
def test_no_request_fails_while_workers_come_and_go_behind_kept_connections(request, kind, workers, database):
    start = request.getfixturevalue(kind)
    made = workers(2, database, peer=kind)
    traffic = Traffic(start(made), database.keys["demo"])
    left = []
    try:
        traffic.more(50)
        for old in list(made.processes):
            made.start_one()
            traffic.more(50)
            old.popen.terminate()
            left.append(old)
            traffic.more(50)
    finally:
        traffic.stop()
    # A connection that nobody uses any more is closed after a while, and with the last one goes the worker.
    for old in left:
        wait_until(lambda old=old: not old.alive(), "the old worker to leave", timeout=30)
        assert old.popen.returncode == 0, old.output()


def test_connections_opened_for_each_request_are_not_left_to_another_worker(workers, database):
    """Kept ones are, for up to 2 ms each: here they show what that would cost. The other worker stands still."""
    made = workers(2, database)
    made.processes[0].send_signal(signal.SIGSTOP)

    def seconds(flags):
        began = time.monotonic()
        for _ in range(100):
            with made.fcgi() as connection:
                assert connection.ask("GET", "/healthz", flags=flags).status == 200
        return time.monotonic() - began

    with made.fcgi() as held:
        assert held.ask("GET", "/healthz").status == 200
        rounds = [(seconds(fastcgi.KEEP_CONN), seconds(0)) for _ in range(5)]
    kept, opened = (min(times) for times in zip(*rounds))
    assert kept - opened > 0.05, rounds
