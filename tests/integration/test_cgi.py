"""The same program as plain CGI: one request from the environment and standard input, the same answers."""

import json
import os
import subprocess

import pytest

from conftest import copy_of
from harness import servers
from harness.fastcgi import Answer, params_of
from harness.process import BINARY, SOURCE, Process, as_user, environment, free_port, wait_until
from harness.problems import is_problem
from harness.site import Answer as Head
from harness.site import site

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def api(home, demo_template):
    with site(home, "cgi", copy_of(demo_template)) as made:
        yield made


@pytest.fixture(scope="module")
def cgi(api, home):
    """cgi(method, uri, body=, headers=, settings=, **environment): runs the program once."""
    def run(method="GET", uri="/", body=b"", headers=None, settings=None, key=None, stdin=None, **more):
        given = {"Authorization": "Bearer " + (api.database.keys["demo"] if key is None else key)} if key != "" else {}
        params = params_of(method, uri, {**given, **(headers or {})}, body, **more)
        env = {**environment(home), "GATEWAY_INTERFACE": "CGI/1.1"}
        env.update({f"COMPOSURE_{k.upper()}": str(v) for k, v in {
            "dsn": api.database.worker_dsn, "log": "-", "runtime_dir": home.memory(), "cache_bytes": servers.CACHE_BYTES, **(settings or {})}.items()})
        env.update({k: v.decode("latin-1") if isinstance(v, bytes) else str(v) for k, v in params.items()})
        feed = {"stdin": stdin} if stdin is not None else {"input": body}
        done = subprocess.run(as_user([home.copy(BINARY)]), env=env, cwd=home.path, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=60, **feed)
        assert done.returncode == 0, done.stderr.decode()
        answer = Answer()
        answer.out = done.stdout
        assert done.stdout.startswith(b"Status: ")
        log = done.stderr.decode().splitlines()[-1]
        assert json.loads(log)["status"] == answer.status
        return Head(answer)
    return run


def plain(answer):
    """Without what differs from one request to the next."""
    own = ("x-request-id", "age", "cache-status")  # the store may have it by now
    headers = sorted((k.lower(), v) for k, v in answer.headers.items() if k.lower() not in own)
    body = answer.body
    if answer.headers["Content-Type"] == "application/problem+json":
        body = {k: v for k, v in answer.json.items() if k != "instance"}
    return answer.status, headers, body


@pytest.mark.parametrize("method,uri,headers", [
    ("GET", "/api/users?limit=50&cursor=eyJpZCI6MTI4fQ", {}), ("GET", "/api/users/128", {}), ("HEAD", "/api/users/128", {}),
    ("GET", "/api/users?limit=200", {}), ("OPTIONS", "/api/users", {}), ("GET", "/api/countries", {"Authorization": ""}),
    ("GET", "/api/nothing", {}), ("GET", "/api/users/x", {}), ("GET", "/api/users?limit=0", {}), ("GET", "/api/users?cursor=x", {}),
    ("GET", "/api/users", {"Accept": "image/png"}), ("POST", "/api/countries", {}), ("BREW", "/api/users", {}),
    ("GET", "/api/users", {"X-API-Key": "wrong"}), ("GET", "/healthz", {}), ("GET", "http://x/api/users/1", {}),
    ("GET", "/api/users?" + "a" * 8200, {}),
])
def test_answers_are_the_same_as_by_fastcgi(api, cgi, method, uri, headers):
    assert plain(cgi(method, uri, headers=headers)) == plain(api.direct.request(method, uri, headers=headers))


def test_a_row_is_created(api, cgi):
    body = json.dumps({"user_id": 7, "amount": 12.5, "currency": "EUR", "note": "by CGI"}).encode()
    answer = cgi("POST", "/api/payments", body, JSON)
    assert answer.status == 201 and answer.json["note"] == "by CGI"
    assert api.direct.get(answer.headers["Location"]).body == answer.body


def test_a_body_ends_where_it_says(cgi):
    body = b'{"user_id":7,"amount":1,"currency":"EUR"}'
    # A CGI program reads no further than CONTENT_LENGTH (RFC 3875, section 4.2).
    assert cgi("POST", "/api/payments", body + b"what follows on a kept connection", JSON, CONTENT_LENGTH=len(body)).status == 201
    is_problem(cgi("POST", "/api/payments", body, JSON, CONTENT_LENGTH=len(body) + 1), 400, "invalid_body")
    is_problem(cgi("POST", "/api/payments", body, JSON, CONTENT_LENGTH=len(body) - 1), 400, "invalid_body")
    is_problem(cgi("POST", "/api/payments", b"", JSON), 400, "invalid_body")
    is_problem(cgi("POST", "/api/payments", b"", JSON, CONTENT_LENGTH=1048577), 413, "body_too_large")
    is_problem(cgi("POST", "/api/payments", b"", JSON, CONTENT_LENGTH="x"), 400, "invalid_header")


def test_a_body_that_does_not_come_is_not_waited_for_past_the_deadline(cgi):
    reading, writing = os.pipe()
    try:
        answer = cgi("POST", "/api/payments", headers=JSON, CONTENT_LENGTH=10, stdin=reading, settings={"deadline_ms": 200})
        is_problem(answer, answer.status, ("request_timeout", "invalid_body"))
    finally:
        os.close(reading)
        os.close(writing)


def test_a_database_that_is_away_is_said(cgi, home):
    answer = cgi("GET", "/api/users", settings={"dsn": f"host={home.path}/nowhere dbname=x user=composure_worker", "deadline_ms": 2000})
    is_problem(answer, answer.status, ("database_unavailable", "deadline_exceeded"))
    assert answer.status in (503, 504)


def test_no_setting_comes_out_of_a_request(cgi):
    """Headers arrive in the environment, too: under HTTP_, whatever they are called."""
    for name in ("Composure-Dsn", "Composure_Dsn", "COMPOSURE-MOUNT", "Proxy", "PGHOST", "Composure-Config"):
        assert cgi("GET", "/api/users/1", headers={name: "/nowhere"}).status == 200


def test_connections_end_with_the_program(api, cgi):
    count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'composure_worker' AND datname = current_database()"
    before = api.value(count)
    for _ in range(3):
        assert cgi("GET", "/api/users/1").status == 200
    wait_until(lambda: api.value(count) <= before, "the program's connections to be gone")


def test_behind_a_web_server(api, home):
    """lighttpd's mod_cgi, and the script in www/ that is for this."""
    if not servers.available("lighttpd"):
        pytest.skip("apt-get install lighttpd")
    home.file("cgi.conf", f"dsn = {api.database.worker_dsn}\nruntime_dir = {home.memory()}\ncache_bytes = {servers.CACHE_BYTES}\nlog = none\n")
    script = (SOURCE / "www" / "api.fcgi").read_text()
    for old, new in (("$HOME/composure.conf", home.path / "cgi.conf"), ("$HOME/bin/composure", home.copy(BINARY))):
        assert old in script
        script = script.replace(old, str(new))
    home.folder("docroot")
    home.file("docroot/api.fcgi", script).chmod(0o755)
    port = free_port()
    conf = home.file("mod_cgi.conf", f"""
server.modules = ( "mod_alias", "mod_cgi" )
server.port = {port}
server.bind = "127.0.0.1"
server.document-root = "{home.path}/docroot"
server.upload-dirs = ( "{home.path}" )
alias.url = ( "/api" => "{home.path}/docroot/api.fcgi" )
cgi.assign = ( ".fcgi" => "" )
""")
    server = servers.Server(Process(home, "mod_cgi", ["/usr/sbin/lighttpd", "-D", "-f", conf]), port, home.path / "mod_cgi.none")
    try:
        client = server.client(api.database.keys["demo"])
        uri = "/api/users?limit=50&cursor=eyJpZCI6MTI4fQ"
        page = client.get(uri)
        assert page.status == 200 and page.body == api.client.get(uri).body
        assert client.request("HEAD", uri).headers["Content-Length"] == str(len(page.body))
        made = client.post("/api/payments", {"user_id": 7, "amount": 1, "currency": "EUR"})
        assert made.status == 201 and client.get(made.headers["Location"]).body == made.body
        is_problem(client.get("/api/nothing"), 404, "not_found")
        is_problem(client.get("/api/users/1", key="wrong"), 401, "invalid_key")
    finally:
        server.stop()


def test_postgresql_that_was_away_is_found_to_be_back_without_a_worker(own_cluster, own_database, new_home):
    """Nobody but these processes could find out, and each ends with its answer."""
    place = new_home.memory()

    def ask():
        env = {**environment(new_home), "GATEWAY_INTERFACE": "CGI/1.1", "COMPOSURE_DSN": own_database.worker_dsn,
               "COMPOSURE_LOG": "none", "COMPOSURE_RUNTIME_DIR": str(place), "COMPOSURE_DEADLINE_MS": "2000", "COMPOSURE_CACHE_BYTES": "0"}
        params = params_of("GET", "/api/users/1", {"Authorization": "Bearer " + own_database.keys["demo"]})
        env.update({k: v.decode("latin-1") if isinstance(v, bytes) else str(v) for k, v in params.items()})
        done = subprocess.run(as_user([new_home.copy(BINARY)]), env=env, cwd=new_home.path, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=60)
        return int(done.stdout.split(b" ", 2)[1]) if done.stdout.startswith(b"Status:") else 200
    assert ask() == 200
    own_cluster.stop()
    for _ in range(12):
        assert ask() == 503
    own_cluster.start()
    wait_until(lambda: ask() == 200, "it to be back", 10)
