"""What a list comes as, by Accept; HEAD and OPTIONS; the way to other pages; and what browsers are told."""

import csv
import io
import json

import pytest

from conftest import copy_of
from harness.site import site
from harness.straight import Straight

OBJECT = "application/vnd.pgrst.object+json"
VALUES = ["plain", "a,b", 'say "x"', "two\r\nlines", "", None, "ünï", " x ", "=1+1"]


@pytest.fixture(scope="module")
def made(home, demo_template):
    database = copy_of(demo_template)
    database.sql("""CREATE TABLE public.odd (id int PRIMARY KEY, "col, 1" text, n numeric, tags text[], at timestamptz, doc jsonb, flag boolean);
                    GRANT SELECT ON public.odd TO api_user; SELECT composure.expose('public.odd')""")
    for i, value in enumerate(VALUES):
        database.sql("INSERT INTO public.odd VALUES (%s, %s, 1.50, '{a,\"b c\"}', '2020-01-01Z', '{\"k\": 1}', NULL)", i, value)
    with site(home, "formats", database, cors_origins="https://app.example, http://localhost:3000") as made:
        made.settle()
        made.straight = Straight(made.workers, database.keys["demo"])
        yield made
        made.straight.close()


def test_csv_reads_back(made):
    answer = made.straight.get("/api/odd", Accept="text/csv")
    assert answer.headers["content-type"] == "text/csv"
    text = answer.body.decode()
    assert text.startswith('id,"col, 1",n,tags,at,doc,flag\r\n') and text.endswith("\r\n")
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert [r[1] for r in rows[1:]] == [v or "" for v in VALUES]
    assert rows[1][2:] == ["1.50", '["a","b c"]', "2020-01-01T00:00:00+00:00", '{"k": 1}', ""]
    lines = text.split("\r\n")
    assert '4,"",1.50' in text and "5,,1.50" in text and lines[-1] == ""


def test_lines_are_the_rows_of_the_page(made):
    page = made.straight.get("/api/odd?limit=4").json
    answer = made.straight.get("/api/odd?limit=4", Accept="application/x-ndjson")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in answer.body.splitlines()] == page["data"]
    assert made.straight.link(answer, "next").endswith("cursor=" + page["next_cursor"])


def test_one_object_is_exactly_one_row(made):
    answer = made.straight.get("/api/odd?id=eq.3&select=id", Accept=OBJECT)
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b'{"id":3}', OBJECT)
    for query in ("id=eq.99", "id=in.(1,2)", ""):
        answer = made.straight.get(f"/api/odd?{query}", Accept=OBJECT)
        assert (answer.status, answer.json["code"]) == (406, "not_one_row")
    assert made.straight.get("/api/odd/3?select=id", Accept=OBJECT).body == b'{"id":3}'


def test_other_types_are_not_acceptable(made):
    for path in ("/api/odd", "/api/odd/1"):
        assert made.straight.get(path, Accept="application/xml").json["code"] == "not_acceptable"
    assert made.straight.get("/api/odd/1", Accept="text/csv").status == 406
    assert made.straight.get("/api/odd", Accept="application/xml, text/csv;q=.5").headers["content-type"] == "text/csv"
    assert "Accept" in made.straight.get("/api/odd").headers["vary"]


def test_links_lead_through_the_pages_and_back(made):
    client = made.straight
    first = client.get("/api/odd?limit=4&select=id&order=id.desc")
    assert client.link(first, "prev") is None
    assert client.link(first, "first") == "/api/odd?limit=4&select=id&order=id.desc"
    second = client.get(client.link(first, "next"))
    third = client.get(client.link(second, "next"))
    assert [[r["id"] for r in p.json["data"]] for p in (first, second, third)] == [[8, 7, 6, 5], [4, 3, 2, 1], [0]]
    assert client.link(third, "next") is None and third.json["next_cursor"] is None
    back = client.get(client.link(third, "prev"))
    assert back.body == second.body
    start = client.get(client.link(back, "prev"))
    assert start.body == first.body and client.link(start, "prev") is None
    # What could break out of the header is escaped, and a cursor of the client's is not repeated.
    odd = client.get("/api/odd?col%2C%201=eq.>;rel=\"x\"&limit=1")
    assert odd.status in (200, 400) and '>;rel="x"' not in odd.headers.get("link", "")


def test_links_that_would_be_too_long_are_left_out(made):
    query = "id=in.(" + ",".join(str(i) for i in range(180)) + ")&or=(" + ",".join(f"id.eq.{i}" for i in range(20)) + ")" + "&select=" + ",".join(f"x{i:030d}:id" for i in range(40))
    answer = made.straight.get("/api/odd?limit=1&" + query)
    assert answer.status == 200 and answer.json["has_more"]
    assert len(answer.head) < 3600


def test_head_tells_what_get_would(made):
    get = made.straight.get("/api/odd?limit=2", Accept="text/csv")
    head = made.straight.get("/api/odd?limit=2", "HEAD", Accept="text/csv")
    assert head.body == b"" and head.status == 200
    skip = "x-request-id"
    assert {k: v for k, v in head.headers.items() if k != skip} == {k: v for k, v in get.headers.items() if k != skip}


# --- browsers ---

def test_a_preflight_is_answered_and_kept(made):
    client = Straight(made.workers, None)
    answer = client.get("/api/odd", "OPTIONS", Origin="https://app.example", Access_Control_Request_Method="PATCH")
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "GET" in answer.headers["access-control-allow-methods"] and "Authorization" in answer.headers["access-control-allow-headers"]
    assert int(answer.headers["access-control-max-age"]) > 0
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["vary"] == "Origin"
    client.close()


def test_answers_and_errors_may_be_read_by_allowed_origins_alone(made):
    for path, status in (("/api/odd?limit=1", 200), ("/api/nothing", 404), ("/api/odd?x=1", 400), ("/nowhere", 404)):
        answer = made.straight.get(path, Origin="http://localhost:3000")
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
        assert "Link" in answer.headers["access-control-expose-headers"] and "Origin" in answer.headers["vary"]
        other = made.straight.get(path, Origin="https://evil.example")
        assert "access-control-allow-origin" not in other.headers and "Origin" in other.headers["vary"]
    refused = made.straight.get("/api/odd", "OPTIONS", Origin="https://evil.example", Access_Control_Request_Method="GET")
    assert "access-control-allow-methods" not in refused.headers


def test_a_star_lets_every_origin(made, worker):
    workers = worker(made.database, cors_origins="*")
    client = Straight(workers, made.database.keys["demo"])
    answer = client.get("/api/odd?limit=1", Origin="https://anyone.example")
    assert answer.headers["access-control-allow-origin"] == "*" and "Origin" not in answer.headers["vary"]
    assert client.get("/api/odd?limit=1").headers["access-control-allow-origin"] == "*", "a cache keeps it for those who name one"
    client.close()


def test_without_the_setting_there_is_no_cors(made, worker):
    client = Straight(worker(made.database), made.database.keys["demo"])
    answer = client.get("/api/odd?limit=1", Origin="https://app.example")
    assert not [h for h in answer.headers if h.startswith("access-control")]
    client.close()
