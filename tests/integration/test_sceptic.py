"""An idea of the sceptic: whatever stands in whatever place of a request, the answer is an answer, it says nothing that
it should not, the database is what it was, and the log is made of JSON."""

import json
import re
from urllib.parse import quote

import pytest

from conftest import copy_of
from harness.fastcgi import PARAMS, STDIN, begin, pairs, params_of, stream
from harness.problems import LEAKS
from harness.site import Answer, site

HOSTILE = [
    # SQL
    "'", "''", "\"", "\\", "'; DROP TABLE users; --", "\"; DROP TABLE users; --", "1; SELECT pg_sleep(60)", "1 OR 1=1", "' OR ''='",
    "1) UNION SELECT secret::text FROM composure.installation --", "$1", "$$x$$", "\\x27", "E'\\''", "%27", "%2527", "/**/", "--", ";",
    "pg_catalog.pg_sleep(60)", "(SELECT 1)", "NULL", "DEFAULT", "CURRENT_USER", "U&\"\\0027\"", "';COPY users TO PROGRAM 'id';--",
    # formats, shells, templates
    "%s%n%p%x", "%1$s", "{{7*7}}", "${7*7}", "`id`", "$(id)", "|id", "&&id", "<script>alert(1)</script>", "../../../../etc/passwd",
    "..%2f..%2f", "....//", "file:///etc/passwd", "/etc/passwd\x00.json", "C:\\boot.ini",
    # bytes
    "\x00", "a\x00b", "\r\nSet-Cookie: x=y", "\r\n\r\n{}", "\n", "\t", "\x7f", "\x1b[2J", "\xff\xfe", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
    "\xe2\x80\xae", "\xef\xbb\xbf", "\xf0\x9f\x90\x98", "a" * 3000, "%" * 300, "," * 300, "/" * 300, "." * 300, "(" * 300, "&" * 300, "=" * 300,
    "\xe2\x80\xa8", "e\xcc\x81",
    # numbers
    "0", "-0", "-1", "1e400", "NaN", "Infinity", "9223372036854775807", "9223372036854775808", "18446744073709551616", "1" * 400, "0x1F", "1_000",
    # words of our own grammar
    "*", "eq.", "in.(", "not.and", "or(", "id", "ctid", "tableoid", "composure", "rpc", "limit", "cursor", "select", "null", "true", "[]", "{}",
    "is.null", "a.b.c", "->", "->>", "::", "!inner", "...", ":", "count(*)", "current_user",
]
ESCAPED = [quote(text.encode("latin-1"), safe="") for text in HOSTILE]


def bytes_of(text):
    return text.encode("latin-1")


# Where a hostile text can stand: a URI, or headers, parameters and a body.
PLACES = {
    "a path, raw": lambda t, e: {"uri": "/api/" + t},
    "a path": lambda t, e: {"uri": "/api/" + e},
    "a path, twice": lambda t, e: {"uri": "/api/" + quote(e, safe="")},
    "a key, raw": lambda t, e: {"uri": "/api/users/" + t},
    "a key": lambda t, e: {"uri": "/api/users/" + e},
    "a text key": lambda t, e: {"uri": "/api/countries/" + e},
    "half of a key": lambda t, e: {"uri": f"/api/pairs/1,{e}"},
    "behind an item": lambda t, e: {"uri": "/api/users/1/" + e},
    "a function": lambda t, e: {"uri": "/api/rpc/" + e},
    "a query, raw": lambda t, e: {"uri": "/api/users?" + t},
    "a query": lambda t, e: {"uri": "/api/users?" + e},
    "a parameter": lambda t, e: {"uri": f"/api/users?{e}=1"},
    "a limit": lambda t, e: {"uri": "/api/users?limit=" + e},
    "a cursor": lambda t, e: {"uri": "/api/users?cursor=" + e},
    "a select": lambda t, e: {"uri": "/api/users?select=" + e},
    "an order": lambda t, e: {"uri": "/api/users?order=" + e},
    "a filter": lambda t, e: {"uri": "/api/users?id=" + e},
    "a value": lambda t, e: {"uri": "/api/users?name=eq." + e},
    "a list": lambda t, e: {"uri": f"/api/users?name=in.({e})"},
    "a disjunction": lambda t, e: {"uri": f"/api/users?or=({e},id.eq.1)"},
    "an embed": lambda t, e: {"uri": f"/api/users?limit=1&select=id,{e}(id)"},
    "a method": lambda t, e: {"uri": "/api/users/1", "method": bytes_of(t)},
    "a bearer": lambda t, e: {"uri": "/api/users/1", "headers": {"Authorization": "Bearer " + t}},
    "an authorization": lambda t, e: {"uri": "/api/users/1", "headers": {"Authorization": t}},
    "an API key": lambda t, e: {"uri": "/api/users/1", "headers": {"X-API-Key": t}},
    "an accept": lambda t, e: {"uri": "/api/users/1", "headers": {"Accept": t}},
    "a prefer": lambda t, e: {"uri": "/api/users/1", "headers": {"Prefer": t}},
    "a match": lambda t, e: {"uri": "/api/users/1", "headers": {"If-None-Match": t}},
    "a trace": lambda t, e: {"uri": "/api/users/1", "headers": {"Traceparent": t}},
    "a request id": lambda t, e: {"uri": "/api/users/1", "headers": {"X-Request-Id": t}},
    "an origin": lambda t, e: {"uri": "/api/users/1", "headers": {"Origin": t}},
    "a forwarder": lambda t, e: {"uri": "/api/users/1", "headers": {"X-Forwarded-For": t, "X-Forwarded-Host": t, "Host": t}},
    "a client": lambda t, e: {"uri": "/api/users/1", "REMOTE_ADDR": bytes_of(t)},
    "a server": lambda t, e: {"uri": "/api/users/1", "SERVER_NAME": bytes_of(t), "SCRIPT_NAME": bytes_of(t), "PATH_INFO": bytes_of(t)},
    "a media type": lambda t, e: {"uri": "/api/pairs", "method": "POST", "headers": {"Content-Type": t}, "body": b"{}"},
    "a length": lambda t, e: {"uri": "/api/pairs", "method": "POST", "headers": {"Content-Type": "application/json"}, "body": b"{}", "CONTENT_LENGTH": bytes_of(t)},
    "an idempotency key": lambda t, e: {"uri": "/api/pairs", "method": "POST", "body": b"[]",
                                        "headers": {"Idempotency-Key": t, "Content-Type": "application/json"}},
    "a body": lambda t, e: {"uri": "/api/pairs", "method": "POST", "headers": {"Content-Type": "application/json"}, "body": bytes_of(t)},
    "a member": lambda t, e: {"uri": "/api/pairs", "method": "POST", "headers": {"Content-Type": "application/json"},
                              "body": b'{' + json.dumps(t).encode() + b':1}'},
    "a number's text": lambda t, e: {"uri": "/api/pairs", "method": "POST", "headers": {"Content-Type": "application/json"},
                                     "body": b'{"a":' + json.dumps(t + "x").encode() + b'}'},
    "columns": lambda t, e: {"uri": "/api/pairs?columns=" + e, "method": "POST", "headers": {"Content-Type": "application/json"}, "body": b'{"x":1}'},
}


@pytest.fixture(scope="module")
def api(home, demo_template):
    with site(home, "sceptic", copy_of(demo_template), log_level="debug") as made:
        made.sql("CREATE SCHEMA s; CREATE TABLE s.pairs (a int, b text, PRIMARY KEY (a, b)); INSERT INTO s.pairs VALUES (1, 'one')")
        made.expose("s.pairs")
        yield made


def fingerprint(api):
    """Of all that anybody could have changed."""
    tables = [t for t, in api.sql("""
        SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'r' AND n.nspname IN ('public', 's', 'composure') AND c.relname !~ '^(change|feed|follow|answer|idempotency|bucket|limit_)'""")]
    content = [(t, api.value(f"SELECT count(*) || ' ' || coalesce(sum(hashtext(t::text)), 0) FROM {t} t")) for t in sorted(tables)]
    rights = api.value("SELECT string_agg(rolname || rolsuper || rolcreaterole, ',' ORDER BY rolname) FROM pg_roles")
    objects = api.value("SELECT count(*) || ' ' || sum(oid::bigint) FROM pg_class WHERE relnamespace::regnamespace::text <> 'pg_toast'")
    return content, rights, objects


def judge(answer, what):
    """An answer that a web server can pass on and a client can read, whatever it was made of."""
    raw = answer.raw
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert re.fullmatch(rb"Status: [1-5][0-9][0-9] [A-Za-z ]+", lines[0]), what
    assert len(head) < 4000, what
    for line in lines:
        assert re.fullmatch(rb"[A-Za-z-]+: [\t\x20-\x7e]*", line), (what, line)
    names = [line.partition(b":")[0].lower() for line in lines]
    assert len(names) == len(set(names)), (what, names)
    assert b"set-cookie" not in names
    assert answer.status < 500 or answer.status == 501, (what, answer)
    if answer.status not in (204, 304):
        assert int(answer.headers["Content-Length"]) == len(body), what
    if answer.headers["Content-Type"] == "application/problem+json":
        problem = json.loads(body)
        assert problem["status"] == answer.status >= 400
        # What was sent may come back in `detail`; what PostgreSQL says may not.
        del problem["detail" if "detail" in problem else "type"]
        assert not LEAKS.search(json.dumps(problem)), (what, problem)
    elif body and "json" in answer.headers["Content-Type"]:
        json.loads(body)


def ask(connection, api, method="GET", uri="/", headers=None, body=b"", **more):
    given = {"Authorization": "Bearer " + api.database.keys["demo"], **(headers or {})}
    params = params_of("GET", "", {k: bytes_of(v) for k, v in given.items()}, body,
                       **{"REQUEST_METHOD": method, "REQUEST_URI": bytes_of(uri), **more})
    if method == "POST" and "CONTENT_LENGTH" not in params:
        params["CONTENT_LENGTH"] = len(body)
    connection.send(begin(1) + stream(PARAMS, 1, pairs(params)) + stream(STDIN, 1, body))
    got = connection.receive()
    answer = Answer(got)
    answer.raw = got.out
    return answer


@pytest.mark.parametrize("place", PLACES)
def test_a_hostile_text_in_a_place_does_no_harm(api, place):
    before = fingerprint(api)
    with api.workers.fcgi() as connection:
        for text, escaped in zip(HOSTILE, ESCAPED):
            request = PLACES[place](text, escaped)
            answer = ask(connection, api, **request)
            judge(answer, (place, text[:60]))
        # On the same connection, with the same worker, all is well.
        assert ask(connection, api, uri="/api/users/1").json["id"] == 1
    assert fingerprint(api) == before


def test_each_row_comes_to_who_asks_for_it_by_its_own_text(api):
    """What is hostile as SQL is an ordinary text as a value: it is found again, and nothing else is."""
    api.sql("CREATE TABLE s.texts (t text PRIMARY KEY)")
    path = api.expose("s.texts")
    texts = []
    for raw in HOSTILE:
        try:
            text = bytes_of(raw).decode()
        except UnicodeDecodeError:
            continue
        if "\x00" not in text and len(text) < 500:
            texts.append(text)
    texts = sorted(set(texts))
    made = api.client.post(path, [{"t": t} for t in texts])
    assert made.status == 201 and [row["t"] for row in made.json] == texts
    assert sorted(row["t"] for row in api.client.walk(path + "?limit=7")) == texts
    for t in texts:
        if not any(c < " " or c == "\x7f" for c in t) and t not in (".", ".."):
            answer = api.direct.get(path + "/" + quote(t, safe=""))  # lighttpd takes dots out
            assert answer.status == 200 and answer.json == {"t": t}, (t, answer)


def test_the_log_is_one_line_of_json_a_request(api):
    """After all of the above: no line forged, no key's secret, no query string."""
    secret = api.database.keys["demo"].split("_")[2]
    with api.workers.fcgi() as connection:
        marker = ask(connection, api, uri="/api/users?name=eq.very_private&limit=1")
        assert marker.status == 200
        ask(connection, api, uri="/api/users?name=eq.very_private", headers={"X-Api-Key": "a\nb"})
    lines = api.workers.output().rstrip("\n").split("\n")
    requests = [json.loads(line) for line in lines if line.startswith("{")]
    assert len(requests) > 100
    for line in lines:
        assert line.startswith("{") or re.match(r"composure\[[0-9]+\]: (debug|info|warning|error): ", line), line[:200]
        assert secret not in line and "very_private" not in line
    assert all(set(r) <= {"time_ms", "request_id", "trace_id", "method", "path", "resource", "key_id", "remote_addr", "status", "code",
                          "bytes", "took_us", "operation", "cache"} for r in requests)


def test_repeated_parameters_of_identity_are_refused(api):
    """A client can send X-Api-Key and X_Api_Key: both arrive as HTTP_X_API_KEY."""
    key = api.database.keys["demo"]
    for name in ("HTTP_AUTHORIZATION", "HTTP_X_API_KEY", "HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_IDEMPOTENCY_KEY", "HTTP_IF_MATCH",
                 "CONTENT_LENGTH", "CONTENT_TYPE", "REQUEST_METHOD", "REQUEST_URI", "REMOTE_ADDR"):
        value = {"HTTP_AUTHORIZATION": "Bearer " + key, "HTTP_X_API_KEY": key}.get(name, "1")
        twice = pairs({**params_of("GET", "/api/countries"), name: value}) + pairs({name: value})
        with api.workers.fcgi() as c:
            c.send(begin(1) + stream(PARAMS, 1, twice) + stream(STDIN, 1, b""))
            answer = c.receive()
        assert answer.status == 400 and json.loads(answer.body)["code"] == "invalid_header", (name, answer.out)


def test_many_of_everything(api):
    """What is cheap to send is cheap to refuse."""
    with api.workers.fcgi() as c:
        for uri in ("/api/users?" + "&".join(f"a{i}=1" for i in range(1000)), "/api/users?" + "&" * 8000,
                    "/api/users/" + ",".join("1" * 1 for _ in range(4000)), "/api" + "/a" * 4000,
                    "/api/users?select=" + ",".join(["id"] * 2000), "/api/users?order=" + ",".join(["id"] * 2000),
                    "/api/users?and=" + "(and" * 2000, "/api/users?or=(" + ",".join(["id.eq.1"] * 900) + ")",
                    "/api/users?id=in.(" + ",".join(["1"] * 3900) + ")", "/api/users?select=" + "payments(" * 800 + ")" * 800):
            judge(ask(c, api, uri=uri), uri[:80])
        wide = b'[' + b",".join(b'{"a":%d,"b":"x"}' % i for i in range(20000)) + b']'
        for body in (wide[:-1] + b',{"a":1}]', b'{' + b",".join(b'"m%d":1' % i for i in range(90000)) + b'}',
                     b'[{' + b",".join(b'"m%d":1' % i for i in range(40000)) + b'},{' + b",".join(b'"m%d":1' % i for i in range(40000)) + b'}]',
                     b'{"b":"' + b"\\u0001" * 170000 + b'"}', b'[' * 500000):
            judge(ask(c, api, method="POST", uri="/api/pairs", headers={"Content-Type": "application/json"}, body=body), body[:60])
        assert ask(c, api, uri="/api/users/1").json["id"] == 1
