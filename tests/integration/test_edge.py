"""conf/nginx-cache.conf: nginx on the same machine keeps public answers, and nothing else."""

import signal

import pytest

from harness import servers
from harness.process import wait_until

COUNTRIES = "/api/countries?limit=3"
NEVER_OLD = "public, max-age=1000, s-maxage=2000"
SOON_OLD = "public, max-age=1, {}=1000"


class Edge:
    """Countries under a policy, a worker that logs what reaches it, and nginx."""

    def __init__(self, database, worker, nginx, policy, cors=None, **options):
        self.database = database
        database.sql("SELECT composure.expose('public.countries', cache => %s)", policy)
        self.workers = worker(database, peer="nginx", cors_origins=cors)
        self.server = nginx(self.workers, conf="nginx-cache.conf", **options)
        self.client = self.server.client()
        self.folder = self.server.log.parent / "cache"

    def get(self, uri=COUNTRIES, client=None, **more):
        answer = (client or self.client).get(uri, **more)
        assert answer.status == 200, answer
        return answer

    def holds(self, body):
        return any(body in path.read_bytes() for path in self.folder.rglob("*") if path.is_file())

    def logged(self, path):
        """How often the worker was asked for it."""
        return self.workers.output().count(f'"{path}"')

    def freeze(self):
        self.workers.processes[0].send_signal(signal.SIGSTOP)

    def thaw(self):
        self.workers.processes[0].send_signal(signal.SIGCONT)

    def rename(self):
        """Afghanistan comes first; the body with its new name is another one."""
        self.database.sql("UPDATE public.countries SET name = 'Renamed' WHERE code = (SELECT min(code) FROM public.countries)")

    def wait_old(self):
        """Until what is kept is past its max-age: while the worker stands still only that makes nginx say so."""
        return wait_until(lambda: "stale" in said(a := self.get()) and a, "the answer to be old")


def said(answer):
    """Of nginx, in Cache-Status; None where it had nothing to do with it."""
    return answer.headers["Cache-Status"]


@pytest.fixture
def edge(fresh_database, worker, nginx):
    def start(policy, **options):
        return Edge(fresh_database, worker, nginx, policy, **options)
    return start


def test_the_second_request_for_what_is_public_does_not_reach_the_worker(edge):
    edge = edge(NEVER_OLD)
    first = edge.get()
    assert said(first) == "nginx; fwd=uri-miss"
    edge.freeze()
    second = edge.get()
    head = {name: second.headers[name] for name in ("ETag", "Cache-Control", "Vary", "Content-Type", "Link", "Content-Length")}
    assert (said(second), second.body) == ("nginx; hit", first.body)
    assert head == {name: first.headers[name] for name in head}
    assert second.headers["X-Request-Id"] not in (None, first.headers["X-Request-Id"])
    known = edge.client.get(COUNTRIES, headers={"If-None-Match": first.headers["ETag"]})
    assert (known.status, known.body, known.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert edge.get(headers={"Range": "bytes=0-9"}).body == first.body
    edge.thaw()


def test_forms_methods_and_origins_are_kept_apart(edge):
    edge = edge(NEVER_OLD, cors="https://a.example, https://b.example")
    ways = [("HEAD", {}), ("GET", {}), ("GET", {"Accept": "text/csv"}), ("GET", {"Origin": "https://a.example"}),
            ("GET", {"Origin": "https://b.example"}), ("GET", {"Accept-Encoding": "gzip"})]

    def ask(method, headers):
        answer = edge.client.request(method, COUNTRIES, headers=headers)
        return answer.body, [answer.headers[name] for name in ("Content-Type", "Access-Control-Allow-Origin", "ETag")]
    first = [ask(*way) for way in ways]
    assert first[0][0] == b"" and b'"data"' in first[1][0] and b"code,alpha3" in first[2][0]
    assert [first[i][1][1] for i in (3, 4)] == ["https://a.example", "https://b.example"]
    edge.freeze()
    assert [ask(*way) for way in ways] == first
    edge.thaw()


def test_workers_that_are_gone_leave_the_old_answer_within_stale_if_error(edge):
    edge = edge(SOON_OLD.format("stale-if-error"))
    first = edge.get()
    edge.workers.processes[0].kill()
    edge.workers.listener.close()
    old = edge.wait_old()
    assert (old.body, said(old)) == (first.body, "nginx; hit; detail=stale")


def test_without_stale_if_error_an_old_answer_is_not_given(edge):
    edge = edge("public, max-age=1")
    edge.get()
    edge.workers.processes[0].kill()
    edge.workers.listener.close()
    wait_until(lambda: edge.client.get(COUNTRIES).status == 502, "the answer to be old")


@pytest.mark.parametrize("told", [False, True])
def test_a_503_goes_to_the_client_unless_told_otherwise(edge, told):
    line = "fastcgi_cache_use_stale http_503;"
    edge = edge(SOON_OLD.format("stale-if-error"), use_stale=("#" + line, line if told else ""))
    first = edge.get()
    edge.workers.processes[0].kill()
    edge.workers.settings["dsn"] = "host=/nowhere dbname=x"
    edge.workers.start_one()
    wait_until(lambda: edge.client.get("/api/countries?limit=4").status == 503, "a worker without PostgreSQL")
    if told:
        assert edge.wait_old().body == first.body
    else:
        wait_until(lambda: edge.client.get(COUNTRIES).status == 503, "the answer to be old")


def test_an_old_answer_comes_at_once_and_the_new_one_next(edge):
    edge = edge(SOON_OLD.format("stale-while-revalidate"))
    first = edge.get()
    edge.rename()
    edge.freeze()
    old = edge.wait_old()  # the worker cannot have been waited for
    assert (old.body, said(old)) == (first.body, "nginx; hit; detail=stale")
    edge.thaw()
    new = wait_until(lambda: (a := edge.get(client=edge.server.client())).body != first.body and a, "the new answer")
    assert b"Renamed" in new.body and "hit" in said(new)


def test_a_request_with_a_key_reaches_the_worker(edge):
    edge = edge(NEVER_OLD)
    key, path = edge.database.keys["demo"], COUNTRIES.partition("?")[0]
    tag = edge.get().headers["ETag"]
    asked = 1
    for headers in ({"Authorization": f"Bearer {key}"}, {"X-API-Key": key}):
        for known in ({}, {"If-None-Match": tag}):
            answer = edge.client.get(COUNTRIES, headers={**headers, **known})
            assert (answer.status, said(answer)) == (304 if known else 200, None)
            asked += 1
            wait_until(lambda: edge.logged(path) == asked, "the worker to have logged it")
    assert edge.client.get(COUNTRIES, key=key[:-1] + "_").status == 401


def test_what_is_private_is_never_stored(edge):
    edge = edge(NEVER_OLD)
    edge.database.sql("""
        CREATE TABLE public.secrets (id int PRIMARY KEY, text text);
        INSERT INTO public.secrets VALUES (1, 'the-private-bytes');
        GRANT SELECT ON public.secrets TO api_user, composure_anonymous;
        SELECT composure.expose('public.secrets', cache => 'max-age=1000')""")
    public = edge.get().body
    private = wait_until(lambda: (a := edge.client.get("/api/secrets")).status == 200 and a, "secrets")
    assert private.headers["Cache-Control"] == "private, max-age=1000" and b"the-private-bytes" in private.body
    with_key = edge.get("/api/users?limit=2", key=edge.database.keys["demo"]).body
    for _ in range(2):
        assert said(edge.get("/api/secrets")) == "nginx; fwd=uri-miss"
        assert edge.client.get("/api/nothing").status == 404
    assert edge.holds(public)
    assert not edge.holds(b"the-private-bytes") and not edge.holds(with_key) and not edge.holds(b"not_found")


def test_writes_keep_their_conditions(edge):
    edge = edge(NEVER_OLD)
    key = edge.database.keys["demo"]
    edge.database.sql("GRANT UPDATE ON public.users TO api_user; SELECT composure.expose('public.users', methods => '{GET,PATCH}')")
    body = {"name": "Another"}

    def patch(tag):
        return edge.client.request("PATCH", "/api/users/1", body, headers={"If-Match": tag}, key=key).status
    tag = edge.get("/api/users/1", key=key).headers["ETag"]
    wait_until(lambda: patch('"x"') == 412, "users to take PATCH")
    assert patch(tag) in (200, 204)


def test_what_is_kept_can_be_thrown_away(edge):
    edge = edge(NEVER_OLD)
    first = edge.get()
    edge.rename()
    assert edge.get().body == first.body
    for path in edge.folder.rglob("*"):
        if path.is_file():
            path.unlink()
    assert b"Renamed" in edge.get().body


def test_it_has_all_that_nginx_conf_has():
    """So that a change of one file is made in the other, too."""
    def lines(name):
        return [line.strip() for line in (servers.CONF / name).read_text().splitlines() if line and not line.startswith("#")]
    kept = iter(lines("nginx-cache.conf"))
    missing = [line for line in lines("nginx.conf") if line not in kept]
    assert not missing
