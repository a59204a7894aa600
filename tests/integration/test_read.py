"""Reading, as the contract has it: pages and items to the byte, every refusal, every kind of table, and rights that
take effect while the workers run."""

import base64
import json
import re
import threading
from urllib.parse import quote

import pytest

from conftest import copy_of
from harness import fastcgi
from harness.problems import is_problem
from harness.process import wait_until
from harness.site import Answer, site


@pytest.fixture(scope="module")
def api(home, demo_template):
    """The demo with 1,000 users and 3,000 payments; tests add schemas of their own."""
    with site(home, "read", copy_of(demo_template), cursor_max_bytes=6144) as made:
        yield made


@pytest.fixture(scope="module")
def get(api):
    return api.client.get


def cursor_of(value):
    text = value if isinstance(value, (bytes, str)) else json.dumps(value)
    raw = text if isinstance(text, bytes) else text.encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def rows_in_sql(api, query):
    """Rows of SQL as the API has them, from row_to_json()."""
    return [row for row, in api.sql(f"SET timezone = 'UTC'; SELECT row_to_json(q)::text FROM ({query}) q")]


# --- the contract, to the byte ---

def test_a_page_is_to_the_byte_what_the_contract_says(api, get):
    answer = get("/api/users?limit=50&cursor=eyJpZCI6MTI4fQ")
    rows = ",".join(rows_in_sql(api, "SELECT * FROM users WHERE id > 128 ORDER BY id LIMIT 50"))
    assert answer.status == 200
    assert answer.body.decode() == f'{{"data":[{rows}],"next_cursor":"eyJpZCI6MTc4fQ","has_more":true}}'
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'"
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", answer.headers["X-Request-Id"])
    assert "private" in answer.headers["Cache-Control"]
    assert {h.strip().lower() for h in answer.headers["Vary"].split(",")} >= {"authorization", "x-api-key"}


def test_an_item_is_a_bare_object(api, get):
    answer = get("/api/users/128")
    assert answer.status == 200
    assert answer.body.decode() == rows_in_sql(api, "SELECT * FROM users WHERE id = 128")[0]


def test_the_last_page_says_so(api, get):
    answer = get(f"/api/users?cursor={cursor_of({'id': 998})}")
    assert answer.body.decode().endswith('],"next_cursor":null,"has_more":false}')
    assert [row["id"] for row in answer.json["data"]] == [999, 1000]
    assert get(f"/api/users?cursor={cursor_of({'id': 1000})}").body == b'{"data":[],"next_cursor":null,"has_more":false}'
    # Exactly a page: nothing behind it.
    answer = get(f"/api/users?limit=2&cursor={cursor_of({'id': 998})}")
    assert answer.json["next_cursor"] is None and answer.json["has_more"] is False


@pytest.mark.parametrize("path", ["/api/users?limit=3", "/api/users/5", "/api/nothing", "/api/users?limit=0"])
def test_head_is_get_without_the_body(api, get, path):
    def plain(answer):
        return sorted((k, v) for k, v in answer.headers.items() if k not in ("Date", "X-Request-Id", "Age", "Cache-Status"))
    full, head = get(path), api.client.request("HEAD", path)
    assert head.status == full.status and head.body == b""
    assert plain(head) == plain(full)
    assert int(head.headers["Content-Length"]) == len(full.body) > 0


def test_options_says_what_is_allowed(api):
    def allowed(path):
        answer = api.client.request("OPTIONS", path)
        assert answer.status in (200, 204) and answer.body == b""
        return {m.strip() for m in answer.headers["Allow"].split(",")}
    assert {"GET", "HEAD", "POST", "OPTIONS"} <= allowed("/api/users")
    assert {"GET", "HEAD", "OPTIONS"} <= allowed("/api/users/1") and "POST" not in allowed("/api/users/1")
    assert allowed("/api/countries") == {"GET", "HEAD", "OPTIONS"}
    is_problem(api.client.request("OPTIONS", "/api/nothing"), 404, "not_found")


def test_the_walk_gives_every_id_once(api):
    for limit in (1000, 97, 200):
        assert [row["id"] for row in api.client.walk(f"/api/users?limit={limit}")] == list(range(1, 1001))
    assert len(list(api.client.walk("/api/countries"))) == api.value("SELECT count(*) FROM countries")


def test_a_limit_over_the_maximum_is_the_maximum(get):
    for limit, rows in (("1", 1), ("200", 200), ("201", 200), ("99999999999999999999999", 200), ("007", 7)):
        assert len(get(f"/api/users?limit={limit}").json["data"]) == rows
    assert len(get("/api/users").json["data"]) == 50


# --- refusals ---

@pytest.mark.parametrize("limit", ["", "0", "-1", "+1", "1.5", "1e3", "x", "1x", "%201", "0x10", "00", "٣", "1%00"])
def test_a_limit_that_is_no_positive_integer_is_refused(api, limit):
    is_problem(api.direct.get(f"/api/users?limit={quote(limit, safe='%+')}"), 400, ("invalid_limit", "bad_request"))


BAD_CURSORS = {
    "empty": "", "no base64": "!!!", "padding": "eyJpZCI6MTI4fQ==", "a length that cannot be": "eyJpZCI6MTI4f",
    "bits over": "eyJpZCI6MTI4fR", "base64 but not url": cursor_of('{"id":"???>>>"}').replace("_", "/").replace("-", "+"),
    "no JSON": cursor_of("id=128"), "no object": cursor_of("128"), "an array": cursor_of([128]), "null": cursor_of("null"),
    "no column": cursor_of({}), "another column": cursor_of({"name": "x"}), "a column too many": cursor_of({"id": 1, "name": "x"}),
    "twice": cursor_of('{"id":1,"id":2}'), "trailing data": cursor_of('{"id":1}{}'), "a number's text": cursor_of({"id": "128"}),
    "null for a key": cursor_of({"id": None}), "true": cursor_of({"id": True}), "a fraction": cursor_of('{"id":1.5}'),
    "an exponent": cursor_of('{"id":1e2}'), "over a bigint": cursor_of('{"id":9223372036854775808}'),
    "far over": cursor_of('{"id":99999999999999999999}'), "SQL": cursor_of({"id": "1; DROP TABLE users"}),
    "an object": cursor_of({"id": {"a": 1}}), "no UTF-8": cursor_of(b'{"id":"\xff"}'), "a NUL": cursor_of('{"id":"\\u0000"}'),
    "half a surrogate": cursor_of('{"id":"\\ud800"}'), "NaN": cursor_of('{"id":NaN}'), "very long": cursor_of('{"id":1' + " " * 5900 + "}"),
    "deep": cursor_of('{"id":' + "[" * 500 + "]" * 500 + "}"),
}


@pytest.mark.parametrize("cursor", BAD_CURSORS.values(), ids=BAD_CURSORS)
def test_a_bad_cursor_is_refused(get, cursor):
    answer = get(f"/api/users?cursor={quote(cursor, safe='')}")
    if answer.status == 200:  # a blank in a cursor is no harm where cursors may be that long
        assert len(cursor) > 1024 and answer.json["data"][0]["id"] == 2
    else:
        is_problem(answer, 400, "invalid_cursor")


def test_a_cursor_of_a_type_that_does_not_fit_is_refused(api, get):
    api.sql("CREATE SCHEMA fit; CREATE TYPE fit.colour AS ENUM ('red', 'green');"
            "CREATE TABLE fit.things (c fit.colour, u uuid, d date, n numeric, PRIMARY KEY (c, u, d, n));"
            "INSERT INTO fit.things VALUES ('red', gen_random_uuid(), now(), 1), ('green', gen_random_uuid(), now(), 1)")
    path = api.expose("fit.things", name="fitting")
    good = {"c": "red", "u": "00000000-0000-0000-0000-000000000000", "d": "2020-01-01", "n": 1}
    assert len(get(f"{path}?cursor={cursor_of(good)}").json["data"]) == 2
    for column, bad in (("c", "blue"), ("c", ""), ("u", "x"), ("u", ""), ("d", "2020-02-30"), ("d", "yesterdayish"),
                        ("d", "99999999-01-01"), ("n", "x"), ("n", True)):
        is_problem(get(f"{path}?cursor={cursor_of({**good, column: bad})}"), 400, "invalid_cursor")
    for key in ("blue,x,x,x", "red,x,2020-01-01,1", "red,00000000-0000-0000-0000-000000000000,2020-02-30,1"):
        is_problem(get(f"{path}/{key}"), 404, "not_found")


@pytest.mark.parametrize("query,code", [
    ("offset=5", ("unknown_parameter", "invalid_parameter")),
    ("limit=5&offset=0", ("unknown_parameter", "invalid_parameter")),
    ("no_such_column=eq.1", ("unknown_parameter", "unknown_column")),
    ("Limit=5", ("unknown_parameter", "unknown_column")),
    ("limit=5&limit=5", "invalid_parameter"),
    ("limit=5&limit=6", "invalid_parameter"),
    ("limit=5&%6cimit=5", "invalid_parameter"),
    ("cursor=eyJpZCI6MTI4fQ&cursor=eyJpZCI6MTI4fQ", "invalid_parameter"),
    ("limit=%zz", "bad_request"), ("limit=%", "bad_request"), ("%ff=1", "bad_request"), ("limit=%c0%b1", "bad_request"),
])
def test_a_parameter_that_is_not_known_or_comes_twice_is_refused(api, query, code):
    is_problem(api.direct.get(f"/api/users?{query}"), 400, code)


def test_an_item_refuses_what_a_list_takes(get):
    is_problem(get("/api/users/1?limit=5"), 400)
    is_problem(get("/api/users/1?cursor=eyJpZCI6MTI4fQ"), 400)
    assert get("/api/users/1?").status == 200


@pytest.mark.parametrize("path", [
    "/api", "/api/", "/api/nothing", "/api/users/", "/api/users//", "/api//users", "/api/users/1/", "/api/users/1/2",
    "/api/users/1,2", "/api/users/,", "/api/users/1,", "/api/users/x", "/api/users/1x", "/api/users/%00", "/api/users/1%00",
    "/api/users/%", "/api/users/%zz", "/api/users/%ff", "/api/users/..", "/api/users/%2e%2e", "/api/./users", "/api/users/.",
    "/api/%2e/users", "/api/users%2F1", "/api/users%2f1", "/api/Users", "/api/USERS", "/api/users%20", "/api/%20users",
    "/api/users;x=1", "/api/users/1;x", "/api/users.json", "/api/users/1.0", "/api/users/1e2",
    "/api/users/9223372036854775808", "/api/users/99999999999999999999999", "/api/users/0", "/api/users/-1",
    "/api/public.users", "/api/composure", "/api/pg_class", "/api/users/1%2C2", "/api/%75sers/2000", "/api/users/1%252",
    "/apiusers", "/", "/api/users\\", "/api/users%5c1", "/api/rpc/nothing", "/api/users/1\xff", "/api/\xc3\x28", "/api/users/1 ",
])
def test_what_is_not_there_is_a_404(api, path):
    answer = api.direct.get(path)
    if path in ("/api", "/api/") and answer.status == 200:
        pass  # the description of the API may live there
    else:
        is_problem(answer, 404, "not_found")


def test_unknown_and_not_exposed_are_the_same(api):
    api.sql("CREATE TABLE public.not_exposed (id int PRIMARY KEY); GRANT ALL ON not_exposed TO api_user")
    for client in (api.client, api.server.client()):
        one, other = client.get("/api/not_exposed").json, client.get("/api/never_heard_of").json
        del one["instance"], other["instance"]
        assert one == other


@pytest.mark.parametrize("method,path,allow", [
    ("POST", "/api/users/1", {"GET", "HEAD", "OPTIONS"}), ("POST", "/api/countries", {"GET", "HEAD", "OPTIONS"}),
    ("PUT", "/api/users", {"GET", "HEAD", "POST", "OPTIONS"}),
    ("DELETE", "/api/countries/DE", {"GET", "HEAD", "OPTIONS"}), ("PATCH", "/api/countries", {"GET", "HEAD", "OPTIONS"}),
    ("POST", "/healthz", {"GET", "HEAD"}), ("DELETE", "/readyz", {"GET", "HEAD"}),
])
def test_a_method_that_is_not_taken_is_told_what_is(api, method, path, allow):
    answer = api.client.request(method, path, {} if method in ("POST", "PUT", "PATCH") else None)
    is_problem(answer, 405, "method_not_allowed")
    assert {m.strip() for m in answer.headers["Allow"].split(",")} >= allow


def test_methods_nobody_knows(api):
    for method in ("BREW", "get", "", "GET ", "GÉT", "TRACE", "CONNECT", "X" * 5000):
        is_problem(api.direct.request(method, "/api/users"), 501 if method else 400, ("not_implemented", "bad_request"))
    # No override.
    answer = api.client.request("POST", "/api/countries", {}, headers={"X-HTTP-Method-Override": "GET"})
    is_problem(answer, 405)


@pytest.mark.parametrize("accept,status", [
    ("application/json", 200), ("*/*", 200), ("application/*", 200), ("text/html,application/xhtml+xml,*/*;q=0.8", 200),
    ("application/json;q=0.1", 200), ("APPLICATION/JSON", 200), ("", 200), ("nonsense", 200), ("image/png", 406),
    ("application/json;q=0", 406), ("text/*", 406), ("application/problem+json", 406),
])
def test_accept(get, accept, status):
    answer = get("/api/users?limit=1", headers={"Accept": accept})
    if accept == "text/*" and answer.status == 200:
        assert answer.headers["Content-Type"].startswith("text/")  # where a list can be text
    elif status == 200:
        assert answer.status == 200 and answer.headers["Content-Type"].startswith("application/json")
    else:
        is_problem(answer, 406, "not_acceptable")


def test_what_is_too_large_is_said_before_it_is_looked_at(api):
    """Of the worker itself: web servers have limits of their own."""
    get = api.direct.get
    is_problem(get("/api/users?" + "a" * 8200), 414, "uri_too_long")
    is_problem(get("/api/" + "a" * 8200), 414, "uri_too_long")
    is_problem(get("/api/users", headers={f"x-{i}": "v" * 1000 for i in range(70)}), 431, "headers_too_large")
    is_problem(get("/api/users", headers={"accept": "a" * 70000}), 431, "headers_too_large")
    is_problem(api.direct.request("POST", "/api/payments", CONTENT_LENGTH="1048577"), 413, "body_too_large")
    # All of a URL of the longest kind is taken.
    is_problem(get("/api/users?limit=" + "0" * (8192 - len("/api/users?limit="))), 400, "invalid_limit")


@pytest.mark.parametrize("uri,status", [
    ("http://example.org/api/users/1", 200), ("https://example.org:8443/api/users/1?", 200), ("HTTP://x/api/users/1", 200),
    ("http://example.org", 404), ("//example.org/api/users/1", 404), ("api/users/1", 400), ("*", 400), ("", 400),
    ("/api/users/1#x", 400), ("ftp://x/api/users/1", 400), ("/api/users/1\x00", 400), ("/api/users/1\r\nX: y", 400),
    ("/api/users/\x01", 400), ("/api/users/1\xff", 404), ("/api/users/1 ", 404), ("?limit=1", 400),
])
def test_request_uris_in_all_their_forms(api, uri, status):
    answer = api.direct.get(uri)
    if status == 200:
        assert answer.status == 200 and answer.json["id"] == 1
    else:
        is_problem(answer, status)
    assert answer.headers["X"] is None


def test_the_path_is_request_uri_whatever_else_the_server_says(api):
    """PATH_INFO and SCRIPT_NAME differ between servers, and merge slashes and dots."""
    get = api.direct.get
    is_problem(get("/api/nothing", PATH_INFO="/api/countries", SCRIPT_NAME="/api/countries", SCRIPT_FILENAME="/x"), 404)
    assert get("/api/countries", PATH_INFO="/../../etc/passwd", DOCUMENT_URI="/api/nothing").status == 200


def test_health_and_readiness_need_no_key(api):
    plain = api.server.client()
    for path in ("/healthz", "/readyz"):
        answer = plain.get(path)
        assert answer.status == 200 and answer.json["status"] in ("alive", "ready")
        assert answer.headers["Cache-Control"] == "no-store"


# --- every kind of table ---

LONG = ["", "a", "A", "ä", "b c", "x/y,z", "%2F", "50%", "\"q\"", "\\", "\t tab", "\U0001F418", "z" * 2000, "z" * 2000 + "y", "é" * 600]

KINDS = {
    "composite": ("(a int, b text, c int, PRIMARY KEY (b, a)) ", "SELECT i % 7, 'b' || i % 5, i FROM generate_series(0, 34) i", {}),
    "uuids": ("(id uuid PRIMARY KEY, n int)", "SELECT md5(i::text)::uuid, i FROM generate_series(1, 40) i", {}),
    "texts": ("(k text PRIMARY KEY, n int)", None, {}),
    "bpchars": ("(k char(5) PRIMARY KEY, n int)", "SELECT chr(97 + i), i FROM generate_series(0, 20) i", {}),
    "numerics": ("(k numeric PRIMARY KEY)", "SELECT (i - 10) / 7.0 FROM generate_series(0, 20) i UNION ALL SELECT 'NaN' UNION ALL SELECT 'Infinity' UNION ALL SELECT 1e300", {}),
    "floats": ("(k float8 PRIMARY KEY)", "SELECT (i - 10) / 7.0::float8 FROM generate_series(0, 20) i UNION ALL SELECT 'NaN' UNION ALL SELECT '-Infinity' UNION ALL SELECT 0.1::float8 + 0.2", {}),
    "moments": ("(k timestamptz PRIMARY KEY)", "SELECT timestamptz '2020-01-01 00:00:00.999990+00' + i * interval '1 microsecond' FROM generate_series(0, 30) i UNION ALL SELECT 'infinity' UNION ALL SELECT '0044-03-15 BC'", {}),
    "bools": ("(b bool, id int, PRIMARY KEY (b, id))", "SELECT i % 2 = 0, i / 2 FROM generate_series(0, 20) i", {}),
    "enums": ("(m odd.mood, id int, PRIMARY KEY (m, id))", "SELECT (enum_range(NULL::odd.mood))[1 + i % 3], i FROM generate_series(0, 20) i", {}),
    "domains": ("(k odd.short_name PRIMARY KEY, n odd.positive NOT NULL DEFAULT 5)", "SELECT 'n' || i, 1 + i FROM generate_series(0, 20) i", {}),
    "arrays": ("(k int[] PRIMARY KEY, t text[])", "SELECT ARRAY[i % 3, i], ARRAY['a,b', NULL, '\"'] FROM generate_series(0, 20) i UNION ALL SELECT '{}', NULL UNION ALL SELECT '{NULL,1}', NULL", {}),
    "documents": ("(k jsonb PRIMARY KEY)", "SELECT k::jsonb FROM unnest('{\"null\",true,1,\"\\\"s\\\"\",\"[1]\",\"{\\\"a\\\": null}\",\"{}\",\"[]\"}'::text[]) k", {}),
    "wide_keys": ("(" + ", ".join(f"k{i} int" for i in range(32)) + ", PRIMARY KEY (" + ", ".join(f"k{i}" for i in range(32)) + "))",
                  "SELECT " + ", ".join(f"i % {2 + i % 3}" if i < 31 else "i" for i in range(32)) + " FROM generate_series(0, 20) i", {}),
    "wide": ("(id int PRIMARY KEY, " + ", ".join(f"c{i} text" for i in range(300)) + ")",
             "SELECT i, " + ", ".join(f"'v{i}'" for i in range(300)) + " FROM generate_series(0, 4) i", {}),
    "unique_only": ("(x int, k int NOT NULL UNIQUE)", "SELECT i % 3, 100 - i FROM generate_series(0, 20) i", {}),
    "ordered": ("(id int PRIMARY KEY, n int, t text, d date)",
                "SELECT i, nullif(i % 4, 0), nullif('t' || i % 3, 't0'), CASE WHEN i % 5 > 0 THEN date '2020-01-01' + i % 2 END FROM generate_series(0, 60) i",
                {"default_order": "n desc nulls last, t nulls first, d desc"}),
    "ordered_the_other_way": ("(id int PRIMARY KEY, n int, t text)",
                              "SELECT i, nullif(i % 4, 0), nullif('t' || i % 3, 't0') FROM generate_series(0, 60) i",
                              {"default_order": "n nulls first, t desc nulls last, id desc"}),
    "ordered_by_one": ("(id int PRIMARY KEY, n numeric)", "SELECT i, nullif(i % 4, 0) / 3.0 FROM generate_series(0, 60) i", {"default_order": "n"}),
    "ordered_backwards": ("(id int PRIMARY KEY, n numeric)", "SELECT i, nullif(i % 4, 0) / 3.0 FROM generate_series(0, 60) i", {"default_order": "n desc"}),
    "ordered_by_arrays": ("(id int PRIMARY KEY, n text[])", "SELECT i, CASE WHEN i % 3 > 0 THEN ARRAY['x' || i % 4, NULL] END FROM generate_series(0, 30) i", {"default_order": "n desc"}),
    "ordered_by_documents": ("(id int PRIMARY KEY, n jsonb)", "SELECT i, CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN 'null' WHEN 2 THEN '\"x\"' ELSE '{\"a\": 1}' END::jsonb FROM generate_series(0, 30) i", {"default_order": "n"}),
    "ordered_by_long_texts": ("(id int PRIMARY KEY, n text)", "SELECT i, repeat('x', 3000) || i % 3 FROM generate_series(0, 6) i", {"default_order": "n"}),
    "collated": ('(k text COLLATE "en-x-icu" PRIMARY KEY)', "SELECT k FROM unnest('{a,A,b,B,ä,Ä,z,Z,1,10,2,-,_,é,e,E,ß,ss}'::text[]) k", {}),
    "blind": ("(k text COLLATE odd.blind PRIMARY KEY)", "SELECT k FROM unnest('{a,B,c,Ä,z,10,2}'::text[]) k", {}),
    "citexts": ("(k odd_types.citext PRIMARY KEY)", "SELECT k FROM unnest('{a,B,c,Ab,aC,Z}'::text[]) k", {}),
}


@pytest.fixture(scope="module")
def kinds(api):
    """A table of each kind, in one schema; the names that could be made on this server."""
    api.sql("""
        CREATE SCHEMA odd; CREATE SCHEMA odd_types;
        GRANT USAGE ON SCHEMA odd, odd_types TO api_user;
        CREATE TYPE odd.mood AS ENUM ('sad', 'ok', 'glad');
        CREATE DOMAIN odd.short_name AS varchar(10);
        CREATE DOMAIN odd.positive AS int NOT NULL CHECK (VALUE > 0);
    """)
    kinds = dict(KINDS)
    if api.value("SELECT count(*) FROM pg_collation WHERE collname = 'en-x-icu'"):
        api.sql("CREATE COLLATION odd.blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    else:
        del kinds["collated"], kinds["blind"]
    if api.value("SELECT count(*) FROM pg_available_extensions WHERE name = 'citext'"):
        api.sql("CREATE EXTENSION citext SCHEMA odd_types")
    else:
        del kinds["citexts"]
    for name, (columns, rows, options) in kinds.items():
        api.sql(f"CREATE TABLE odd.{name} {columns}; GRANT ALL ON odd.{name} TO api_user")
        if rows:
            api.sql(f"INSERT INTO odd.{name} {rows}")
        more = "".join(f", {option} => %s" for option in options)
        api.sql(f"SELECT composure.expose('odd.{name}'{more})", *options.values())
    for n, k in enumerate(LONG):
        api.sql("INSERT INTO odd.texts VALUES (%s, %s)", k, n)
    api.settle()
    return kinds


def order_of(api, name):
    """The order of a resource, from what the catalog says of it."""
    resources = json.loads(api.value("SELECT composure.catalog()"))["resources"]
    order = next(r for r in resources if r["name"] == name)["order"]
    return ", ".join('t."{}" {} NULLS {}'.format(o["column"].replace('"', '""'), "DESC" if o["desc"] else "ASC",
                                                 "FIRST" if o["nulls_first"] else "LAST") for o in order)


def equals_sql(api, path, name, relation, limits):
    query = f"SELECT * FROM {relation} t ORDER BY {order_of(api, name)}"
    expected = [json.loads(row, parse_float=str) for row in rows_in_sql(api, query)]
    for limit in limits:
        assert list(api.client.walk(f"{path}?limit={limit}")) == expected, f"{name} by {limit}"
    return expected


@pytest.mark.parametrize("name", KINDS)
def test_a_walk_is_order_by_in_sql(api, kinds, name):
    if name not in kinds:
        pytest.skip("this PostgreSQL has no ICU or no citext")
    equals_sql(api, f"/api/{name}", name, f"odd.{name}", (1, 4, 200))


def test_items_of_every_kind_are_found_by_their_key(api, kinds):
    resources = {r["name"]: r for r in json.loads(api.value("SELECT composure.catalog()"))["resources"]}
    for name in kinds:
        key = resources[name]["key"]
        texts = ", ".join(f"\"{k}\"::text" for k in key)
        for *parts, row in api.sql(f"SET timezone = 'UTC'; SELECT {texts}, row_to_json(r)::text FROM odd.{name} r"):
            if any(p in ("", ".", "..") or any(c < " " for c in p) for p in parts):
                continue
            answer = api.client.get(f"/api/{name}/" + ",".join(quote(p, safe="") for p in parts))
            assert answer.status == 200, (name, parts, answer)
            assert answer.body.decode() == row


def test_names_that_need_quotes(api):
    names = ["id", "Select", "a.b", 'q"uote', "größe \U0001F418", "; DROP TABLE x; --", "%s %n", "$1", "t", "u", "j", "back\\slash", "tab\there", "x" * 63]
    quoted = ['"' + n.replace('"', '""') + '"' for n in names]
    api.sql('CREATE SCHEMA "Odd.Schema"; GRANT USAGE ON SCHEMA "Odd.Schema" TO api_user')
    api.sql('CREATE TABLE "Odd.Schema"."The ""Table"", really" ('.replace("%", "%%") + ", ".join(
        f"{q} int{' PRIMARY KEY' if n == 'id' else ''}" for n, q in zip(names, quoted)) + ")")
    for i in range(5):
        api.sql('INSERT INTO "Odd.Schema"."The ""Table"", really" VALUES (' + ", ".join(str(i * 100 + k) for k in range(len(names))) + ")")
    api.sql("""GRANT ALL ON "Odd.Schema"."The ""Table"", really" TO api_user""")
    api.sql("SELECT composure.expose(%s, name => %s, default_order => %s)", '"Odd.Schema"."The ""Table"", really"',
            'The "Table" \U0001F418', '"q""uote" desc, "größe \U0001F418", t desc, u')
    api.settle()
    path = "/api/" + quote('The "Table" \U0001F418', safe="")
    rows = list(api.client.walk(path + "?limit=2"))
    assert rows == [{n: i * 100 + k for k, n in enumerate(names)} for i in range(4, -1, -1)]
    assert api.client.get(path + "/300").json == rows[1]
    made = api.client.post(path, {n: k for k, n in enumerate(names, 1000)})
    assert made.status == 201 and made.json == {n: k for k, n in enumerate(names, 1000)}
    assert made.headers["Location"] == path + "/1000"


def test_partitions_views_and_what_else_can_be_read(api):
    api.sql("""
        CREATE SCHEMA rel; GRANT USAGE ON SCHEMA rel TO api_user;
        CREATE TABLE rel.parts (day date, id int, v text, PRIMARY KEY (day, id)) PARTITION BY RANGE (day);
        CREATE TABLE rel.parts_2020 PARTITION OF rel.parts FOR VALUES FROM ('2020-01-01') TO ('2021-01-01') PARTITION BY LIST (id);
        CREATE TABLE rel.parts_2020_even PARTITION OF rel.parts_2020 FOR VALUES IN (0, 2, 4, 6, 8);
        CREATE TABLE rel.parts_2020_rest PARTITION OF rel.parts_2020 DEFAULT;
        CREATE TABLE rel.parts_rest PARTITION OF rel.parts DEFAULT;
        INSERT INTO rel.parts SELECT date '2020-12-20' + i, i % 10, 'v' || i FROM generate_series(0, 40) i;
        CREATE VIEW rel.rich AS SELECT u.id, u.name, c.name AS country, sum(p.amount) AS paid
          FROM users u JOIN countries c ON c.code = u.country LEFT JOIN payments p ON p.user_id = u.id
         WHERE u.id < 60 GROUP BY u.id, c.name;
        CREATE VIEW rel.plain AS SELECT id, name FROM users WHERE id < 30;
        CREATE MATERIALIZED VIEW rel.mat AS SELECT id % 7 AS a, id AS b FROM users WHERE id < 50;
        CREATE UNLOGGED TABLE rel.unlogged (id int PRIMARY KEY);
        INSERT INTO rel.unlogged SELECT generate_series(1, 5);
        GRANT SELECT ON rel.rich, rel.plain, rel.mat, rel.unlogged, rel.parts TO api_user;
    """)
    for name, options in (("parts", {}), ("rich", {"key": ["id"], "default_order": "paid desc nulls last, country"}),
                          ("plain", {"key": ["id"]}), ("mat", {"key": ["a", "b"], "default_order": "a desc"}), ("unlogged", {})):
        more = "".join(f", {option} => %s" for option in options)
        api.sql(f"SELECT composure.expose('rel.{name}'{more})", *options.values())
    api.settle()
    for name in ("parts", "rich", "plain", "mat", "unlogged"):
        rows = equals_sql(api, f"/api/{name}", name, f"rel.{name}", (3, 50))
        assert len(rows) >= 5
    assert api.client.get("/api/parts/2020-12-25,5").json["v"] == "v5"
    assert api.client.get("/api/mat/6,6").json == {"a": 6, "b": 6}


def test_a_column_that_changes_its_type_is_read_anew(api, get):
    api.sql("CREATE SCHEMA alt; CREATE TABLE alt.things (id int PRIMARY KEY, v int); INSERT INTO alt.things VALUES (1, 10)")
    path = api.expose("alt.things", name="altered")
    for _ in range(20):  # until its statement is a prepared one
        assert get(path).json["data"] == [{"id": 1, "v": 10}]
    # No wait: a request that meets a change half-way starts again with the new catalog.
    api.sql("ALTER TABLE alt.things ADD COLUMN w text DEFAULT 'w'")
    api.sql("ALTER TABLE alt.things DROP COLUMN v")
    assert get(path).status == 200
    wait_until(lambda: get(path).json["data"] == [{"id": 1, "w": "w"}], "the new column")
    for _ in range(20):
        assert get(path).status == 200
    api.sql("ALTER TABLE alt.things ALTER COLUMN w DROP DEFAULT, ALTER COLUMN w TYPE int USING 7")
    answer = get(path)
    assert answer.status == 200 and answer.json["data"] == [{"id": 1, "w": 7}]
    wait_until(lambda: get(path).json["data"] == [{"id": 1, "w": 7}], "the new type")
    api.sql("ALTER TABLE alt.things RENAME COLUMN w TO z; ALTER TABLE alt.things RENAME TO others; ALTER SCHEMA alt RENAME TO alt2")
    wait_until(lambda: get(path).json.get("data") == [{"id": 1, "z": 7}], "the new names")
    api.sql("DROP TABLE alt2.others")
    api.wait_status(path, 404)


def test_a_catalog_that_was_on_its_way_already_is_not_the_new_one(fresh_database, worker):
    """One that is being read when a name goes may still have it: the request waits for the next."""
    fresh_database.sql("""
        CREATE TABLE public.things (id int PRIMARY KEY, v int); INSERT INTO public.things VALUES (1, 10);
        GRANT SELECT ON public.things TO api_user; SELECT composure.expose('public.things');
        ALTER FUNCTION composure.catalog() RENAME TO catalog_read;
        CREATE FUNCTION composure.catalog() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$
          DECLARE read text := composure.catalog_read();
          BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN read; END$$""")
    w = worker(fresh_database)

    def ask():
        with w.fcgi() as c:
            return c.ask("GET", "/api/things", {"Authorization": f"Bearer {fresh_database.keys['demo']}"}).status
    assert ask() == 200
    holder = fresh_database.connect()
    holder.cursor().execute("SELECT pg_advisory_lock(4711)")
    fresh_database.sql("ALTER TABLE public.things ADD COLUMN w int")
    wait_until(lambda: fresh_database.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                                            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"),
               "the catalog to be read")
    fresh_database.sql("ALTER TABLE public.things DROP COLUMN v")
    said = len(fresh_database.cluster.process.output())
    statuses = []
    asking = threading.Thread(target=lambda: statuses.append(ask()))
    asking.start()
    wait_until(lambda: "v does not exist" in fresh_database.cluster.process.output()[said:], "the statement to fail")
    holder.close()
    asking.join()
    assert statuses == [200]


def test_a_primary_key_that_goes_takes_its_resource_along(api, get):
    api.sql("CREATE SCHEMA nokey; CREATE TABLE nokey.things (id int PRIMARY KEY, secret int NOT NULL);"
            "CREATE TABLE nokey.others (id int PRIMARY KEY);")
    path = api.expose("nokey.things", name="nokey", hidden=["secret"])
    others = api.expose("nokey.others", name="others")
    assert get(path).status == 200
    # The only key that is left is a column that nobody may see.
    api.sql("CREATE UNIQUE INDEX ON nokey.things (secret); ALTER TABLE nokey.things DROP CONSTRAINT things_pkey")
    api.wait_status(path, 404, api.client)
    assert get(others).status == 200


# --- hidden columns, owners ---

def test_a_hidden_column_appears_nowhere(api, get):
    api.sql("CREATE SCHEMA hid; CREATE TABLE hid.people (id int PRIMARY KEY, a int, hush text DEFAULT 'psst', b int);"
            "INSERT INTO hid.people SELECT i, i, 'psst', i FROM generate_series(1, 9) i")
    path = api.expose("hid.people", hidden=["hush"], default_order="b desc")
    for answer in (get(path), get(path + "?limit=2"), get(path + "/3"), api.client.request("OPTIONS", path),
                   get(path + "?limit=2&cursor=" + get(path + "?limit=2").json["next_cursor"]),
                   api.client.post(path, {"id": 100})):
        assert b"hush" not in answer.body and b"psst" not in answer.body and "hush" not in str(answer.headers)
    assert list(get(path + "/3").json) == ["id", "a", "b"]
    # It is as unknown as a column that is not there.
    for bad in (api.client.post(path, {"id": 101, "hush": "x"}), get(path + "?hush=eq.psst")):
        assert bad.status == 400
        assert bad.json["code"] in ("unknown_column", "unknown_parameter")
    same = [api.client.post(path, {"id": 101, name: "x"}).json for name in ("hush", "hash")]
    assert [p.pop("instance") is not None for p in same] and same[0] == json.loads(json.dumps(same[1]).replace("hash", "hush"))
    is_problem(get(path + "?cursor=" + cursor_of({"hush": "a", "id": 1})), 400, "invalid_cursor")
    # A role that may not even read it can read the rest.
    api.sql("REVOKE ALL ON hid.people FROM api_user; GRANT SELECT (id, a, b) ON hid.people TO api_user")
    api.settle()
    assert get(path + "/3").status == 200
    assert len(list(api.client.walk(path + "?limit=2"))) == 10


def test_a_hidden_column_is_as_unknown_as_one_that_is_not_there(api):
    """Whatever is asked with its name is answered as with a name that nothing has."""
    api.sql("CREATE TABLE hid.boss (id int PRIMARY KEY, hush int REFERENCES hid.people, shown int, UNIQUE (hush));"
            "INSERT INTO hid.boss SELECT i, i, i FROM generate_series(1, 3) i")
    path = api.expose("hid.boss", hidden=["hush"])

    def ask(name):
        """Each answer, without what always differs and with the name blotted out."""
        answers = [api.client.get(f"{path}?{query.replace('NAME', name)}") for query in (
            "NAME=eq.1", "select=NAME", "select=id,NAME", "select=x:NAME", "select=NAME::text", "select=id,people!NAME(id)", "select=people!NAME(*)",
            "order=NAME", "order=NAME.desc,id", "and=(NAME.eq.1)", "or=(id.eq.1,NAME.is.null)", "not.and=(NAME.gt.0)", "select=NAME->a",
            "NAME=not.is.null", "NAME.x=eq.1", "select=*,NAME", "select=id,...people!NAME(id)", "order=people(NAME)", "people.NAME=eq.1",
            "select=id,boss_NAME_fkey(id)")]
        one = {"id": 50, "shown": 1}
        answers += [api.client.post(path + query.replace("NAME", name), {**one, **more}, headers=headers) for query, more, headers in (
            ("?columns=id,NAME", {}, {}), ("?on_conflict=NAME", {}, {"Prefer": "resolution=merge-duplicates"}), ("", {name: 5}, {}),
            ("?NAME=eq.1", {}, {}))]
        answers += [api.client.request(method, f"{path}?NAME=eq.1".replace("NAME", name), body)
                    for method, body in (("PATCH", {"shown": 9}), ("DELETE", None), ("PATCH", {name: 9}))]
        answers.append(api.client.request("PATCH", path + "/1", {name: 9}))
        return [(a.status, re.sub(r'"instance":"[^"]*"', "", a.body.decode()).replace(name, "NAME")) for a in answers]
    for one, other in zip(ask("hush"), ask("hash")):
        assert one == other
    assert api.sql("SELECT id, hush, shown FROM hid.boss ORDER BY id") == [(i, i, i) for i in (1, 2, 3)]


def test_an_owner_sees_only_its_own(api):
    api.sql("CREATE SCHEMA own; CREATE TABLE own.notes (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant bigint NOT NULL, t text);"
            "INSERT INTO own.notes (tenant, t) SELECT i % 3, 'note ' || i FROM generate_series(1, 30) i")
    path = api.expose("own.notes", owner="tenant")
    clients = {t: api.server.client(api.database.create_key(f"tenant {t}", role="api_user", tenant=t)) for t in ("1", "2", "none", "")}
    for t in ("1", "2"):
        rows = list(clients[t].walk(path + "?limit=3"))
        assert [r["id"] for r in rows] == [i for i, in api.sql("SELECT id FROM own.notes WHERE tenant = %s ORDER BY id", t)]
        assert clients[t].get(f"{path}/{rows[0]['id']}").status == 200
    is_problem(clients["2"].get(f"{path}/1"), 404, "not_found")
    # A cursor is only a place: it opens nothing.
    assert {r["tenant"] for r in clients["2"].get(path + "?cursor=" + cursor_of({"id": 0})).json["data"]} == {2}
    is_problem(api.client.get(path), 403, "forbidden")
    is_problem(api.server.client().get(path), 401, "unauthenticated")
    for t in ("none", ""):  # tenants that cannot be
        assert clients[t].get(path).status in (403, 500)
        assert clients[t].get(path + "/1").status in (403, 404)
    made = clients["2"].post(path, {"t": "mine"})
    assert made.status == 201 and made.json["tenant"] == 2
    is_problem(clients["2"].post(path, {"t": "not mine", "tenant": 1}), 400, "read_only_column")


def test_row_level_security_sees_the_tenant_and_the_key(api):
    api.sql("""
        CREATE SCHEMA rls; CREATE TABLE rls.docs (id int PRIMARY KEY, tenant text, by_key text);
        INSERT INTO rls.docs SELECT i, 'T' || i % 3 FROM generate_series(1, 30) i;
        ALTER TABLE rls.docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY p ON rls.docs TO api_user USING (tenant = nullif(current_setting('composure.tenant', true), ''))
          WITH CHECK (tenant = nullif(current_setting('composure.tenant', true), '') AND by_key = current_setting('composure.key_id'));
    """)
    path = api.expose("rls.docs")
    keys = {t: api.database.create_key(t, role="api_user", tenant=t) for t in ("T1", "T2")}
    clients = {t: api.server.client(key) for t, key in keys.items()}
    for _ in range(15):  # on every connection, one after the other, and when they are merged
        for t, client in clients.items():
            assert {r["tenant"] for r in client.get(path).json["data"]} == {t}
        assert api.client.get(path).json["data"] == []
        assert clients["T1"].get(path + "/2").status == 404
    ids = {t: key.split("_")[1] for t, key in keys.items()}
    assert clients["T1"].post(path, {"id": 101, "tenant": "T1", "by_key": ids["T1"]}).status == 201
    is_problem(clients["T1"].post(path, {"id": 102, "tenant": "T2", "by_key": ids["T1"]}), 403, "forbidden")
    is_problem(clients["T1"].post(path, {"id": 102, "tenant": "T1", "by_key": ids["T2"]}), 403, "forbidden")


# --- who may, and when that changes ---

def test_rights_take_effect_while_the_worker_runs(api):
    api.sql("CREATE SCHEMA rights; CREATE TABLE rights.things (id int PRIMARY KEY); INSERT INTO rights.things VALUES (1);"
            "GRANT USAGE ON SCHEMA rights TO api_user, composure_anonymous; GRANT SELECT ON rights.things TO api_user;"
            "SELECT composure.expose('rights.things')")
    client, nobody, path = api.client, api.server.client(), "/api/things"
    api.wait_status(path, 200, client)
    is_problem(nobody.get(path), 401, "unauthenticated")
    is_problem(client.post(path, {"id": 2}), 403, "forbidden")
    api.sql("GRANT SELECT ON rights.things TO composure_anonymous; GRANT INSERT ON rights.things TO api_user")
    api.wait_status(path, 200, nobody)
    wait_until(lambda: client.post(path, {"id": 2}).status in (201, 409), "the right to insert")
    api.sql("REVOKE SELECT ON rights.things FROM composure_anonymous, api_user")
    api.wait_status(path, 401, nobody)
    api.wait_status(path, 403, client)
    # Who may write and not read is told no more than that it worked.
    answer = wait_until(lambda: (r := client.post(path, {"id": 3})).status != 403 and r, "the worker to know")
    assert answer.status == 201 and answer.body == b"" and api.value("SELECT count(*) FROM rights.things") == 3
    api.sql("GRANT SELECT ON rights.things TO api_user")
    api.wait_status(path, 200, client)
    api.sql("REVOKE USAGE ON SCHEMA rights FROM api_user")
    api.wait_status(path, 403, client)
    api.sql("GRANT USAGE ON SCHEMA rights TO api_user; SELECT composure.expose('rights.things', methods => '{GET}', page_default => 1)")
    wait_until(lambda: client.post(path, {"id": 4}).status == 405, "POST to go")
    assert len(client.get(path).json["data"]) == 1
    api.sql("SELECT composure.unexpose('things')")
    api.wait_status(path, 404, client)
    api.sql("SELECT composure.expose('rights.things', name => 'things again')")
    api.wait_status("/api/things%20again", 200, client)


def test_anonymous_reads_what_is_granted_to_it_and_nothing_else(api):
    nobody = api.server.client()
    assert nobody.get("/api/countries/DE").json["alpha3"] == "DEU"
    assert nobody.get("/api/currencies").status == 200
    for path in ("/api/users", "/api/users/1", "/api/payments?limit=1"):
        is_problem(nobody.get(path), 401, "unauthenticated")
    is_problem(nobody.post("/api/payments", {"user_id": 1, "amount": 1, "currency": "EUR"}), 401, "unauthenticated")


def test_a_key_is_taken_from_either_header(api):
    key, nobody = api.database.keys["demo"], api.server.client()
    for headers in ({"Authorization": f"Bearer {key}"}, {"authorization": f"bearer {key}"}, {"Authorization": f"BEARER   {key} "},
                    {"X-API-Key": key}, {"x-api-key": f" {key} "}, {"X-API-Key": key, "Authorization": f"Bearer {key}"}):
        assert nobody.get("/api/users/1", headers=headers).status == 200, headers


def test_two_different_keys_are_refused(api):
    key, nobody = api.database.keys["demo"], api.server.client()
    other = api.database.create_key("other", role="api_user")
    is_problem(nobody.get("/api/users/1", headers={"X-API-Key": key, "Authorization": f"Bearer {other}"}), 400, "invalid_header")
    is_problem(api.direct.get("/api/users/1", headers={"X-API-Key": ""}), 400, "invalid_header")
    with api.workers.fcgi() as c:  # a header that comes twice: a client can forge one by spelling it X_Api_Key
        once = fastcgi.pairs({"HTTP_X_API_KEY": key})
        twice = fastcgi.pairs(fastcgi.params_of("GET", "/api/users/1")) + once + once
        c.send(fastcgi.begin(1) + fastcgi.stream(fastcgi.PARAMS, 1, twice) + fastcgi.stream(fastcgi.STDIN, 1, b""))
        is_problem(Answer(c.receive()), 400, "invalid_header")


def test_a_bad_key_is_never_anonymous(api):
    key = api.database.keys["demo"]
    _, id_, secret = key.split("_")
    bad = ["", "x", "cmps_", key[:-1], key + "0", key[:-1] + ("0" if key[-1] != "0" else "1"), key.lower(), key.upper(), key.replace("_", "-"),
           f"cmps_{id_[:-1]}{'0' if id_[-1] != '0' else '1'}_{secret}", f"cmps_{id_}_{secret[::-1]}", key + "," + key, f"\"{key}\"",
           "' OR 1=1 --", "%" * 53, "0" * 53, f"{key} {key}", "x" * 5000]
    for text in bad:
        for headers in ({"X-API-Key": text}, {"Authorization": f"Bearer {text}"}):
            is_problem(api.direct.get("/api/countries", key="", headers=headers), 401, "invalid_key")
    for text in ("", "Basic dXNlcjpwYXNz", "Bearer", f"Token {key}", key, f"Digest {key}"):
        is_problem(api.direct.get("/api/countries", key="", headers={"Authorization": text}), 401, "invalid_key")


def forged_key(secret_of_ours, text="AAAAAAAA"):
    """A key with everything right but what only the installation can make."""
    import hashlib
    import hmac
    import zlib
    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

    def base62(n, width):
        digits = ""
        for _ in range(width):
            n, d = divmod(n, 62)
            digits = alphabet[d] + digits
        return digits
    mac = base62(int.from_bytes(hmac.digest(secret_of_ours, text.encode(), hashlib.sha256)[:5], "big"), 6)
    head = f"cmps_{text}{mac}_" + "s" * 27
    return head + base62(zlib.crc32(head.encode()), 6)


def test_a_forged_id_is_refused_without_asking(api):
    """An id whose HMAC is not ours never reaches PostgreSQL; one that is ours and unknown does, and is no more."""
    nobody = api.server.client()
    is_problem(nobody.get("/api/countries", headers={"X-API-Key": forged_key(b"x" * 32)}), 401, "invalid_key")
    ours = bytes(api.value("SELECT secret FROM composure.installation"))
    for _ in range(3):
        is_problem(nobody.get("/api/countries", headers={"X-API-Key": forged_key(ours)}), 401, "invalid_key")


def test_keys_end(api):
    database = api.database
    soon = database.create_key("expires", role="api_user", expires_at="infinity")
    gone = database.create_key("revoked", role="api_user")
    for key in (soon, gone):
        assert api.server.client(key).get("/api/users/1").status == 200
    database.sql("UPDATE composure.api_key SET expires_at = now() - interval '1 second' WHERE id = %s", soon.split("_")[1])
    database.sql("SELECT composure.revoke_key(%s)", gone.split("_")[1])
    for key in (soon, gone):
        answer = api.wait_status("/api/users/1", 401, api.server.client(key))
        is_problem(answer, 401, "invalid_key")
    # One that ends by itself, while the worker remembers it.
    brief = database.create_key("brief", role="api_user", expires_at=database.value("SELECT clock_timestamp() + interval '1.5 seconds'"))
    client = api.server.client(brief)
    assert client.get("/api/users/1").status == 200
    api.wait_status("/api/users/1", 401, client)


def test_a_rotated_key_works_until_the_overlap_is_over(api):
    old = api.database.create_key("rotated", role="api_user")
    client = api.server.client(old)
    assert client.get("/api/users/1").status == 200
    new = api.value("SELECT composure.rotate_key(%s, '1 hour')", old.split("_")[1])
    api.wait_status("/api/users/1", 200, api.server.client(new))
    assert client.get("/api/users/1").status == 200
    newest = api.value("SELECT composure.rotate_key(%s, '0')", old.split("_")[1])
    api.wait_status("/api/users/1", 200, api.server.client(newest))
    for key in (old, new):
        api.wait_status("/api/users/1", 401, api.server.client(key))


def test_a_role_that_is_dropped_takes_its_keys_along(api):
    api.sql("CREATE ROLE short_lived NOLOGIN; GRANT USAGE ON SCHEMA public TO short_lived; GRANT SELECT ON users TO short_lived")
    client = api.server.client(api.database.create_key("short", role="short_lived"))
    api.wait_status("/api/users/1", 200, client)
    api.sql("REVOKE short_lived FROM composure_worker")
    wait_until(lambda: client.get("/api/users/1").status in (401, 403), "the role to be refused")
    api.sql("DROP OWNED BY short_lived; DROP ROLE short_lived")
    wait_until(lambda: client.get("/api/users/1").status in (401, 403), "the key to be refused")


def test_what_a_view_of_the_users_does_wrong_is_not_the_clients_fault(api, get):
    api.sql("CREATE SCHEMA bad; CREATE VIEW bad.divides AS SELECT id, 1 / (id - id) AS x FROM users;"
            "CREATE FUNCTION bad.f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'only % today', 'three'; END $$;"
            "CREATE VIEW bad.raises AS SELECT id, bad.f() AS x FROM users;"
            "CREATE TABLE bad.log (id int); CREATE FUNCTION bad.w() RETURNS int LANGUAGE sql AS 'INSERT INTO bad.log VALUES (1) RETURNING 1';"
            "CREATE VIEW bad.writes AS SELECT id, bad.w() AS x FROM users; GRANT USAGE ON SCHEMA bad TO api_user; GRANT ALL ON ALL TABLES IN SCHEMA bad TO api_user;"
            "SELECT composure.expose('bad.' || v, key => '{id}') FROM unnest('{divides,raises,writes}'::text[]) v")
    api.settle()
    for _ in range(3):
        is_problem(get("/api/divides"), 500, "database_error")
        is_problem(get("/api/divides?cursor=" + cursor_of({"id": 1})), 500, "database_error")
        is_problem(get("/api/writes"), 500, "database_error")
        assert is_problem(get("/api/raises"), 400, "raised")["detail"] == "only three today"
    assert api.value("SELECT count(*) FROM bad.log") == 0


def test_big_rows_make_small_pages_and_one_too_big_is_said(home, demo_template):
    with site(home, "big", copy_of(demo_template), page_max_bytes=100000) as api:
        api.sql("CREATE SCHEMA big; CREATE TABLE big.texts (id int PRIMARY KEY, t text);"
                "INSERT INTO big.texts SELECT i, repeat('\"', 20000) FROM generate_series(1, 20) i")
        path = api.expose("big.texts")
        first = api.client.get(path)
        assert first.status == 200 and first.json["has_more"] and 100000 < len(first.body) < 200000
        assert [row["id"] for row in api.client.walk(path)] == list(range(1, 21))
        api.sql("INSERT INTO big.texts VALUES (21, repeat('x', 1000000))")
        for bad in (api.client.get(f"{path}/21"), api.client.get(f"{path}?limit=1&id=eq.21")):
            is_problem(bad, 400, "query_too_complex")
        assert api.client.get(f"{path}/21?select=id").json == {"id": 21}


def test_deadlines_of_a_resource(api, get):
    api.sql("CREATE SCHEMA slow; CREATE VIEW slow.naps AS SELECT 1 AS id FROM pg_sleep(3)")
    path = api.expose("slow.naps", key=["id"], deadline="150 ms")
    is_problem(get(path), 504, "deadline_exceeded")
    assert get("/api/users/1").status == 200
