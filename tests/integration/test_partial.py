"""Answers that come without a part that failed or took too long, where that is asked for; and never otherwise."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import quote

import pytest

from conftest import copy_of
from harness.process import wait_until
from harness.shared import auth
from harness.site import site
from harness.straight import Straight

# public.turn() does what its row of `knob` says: it sleeps, or divides by zero; policies and computed columns call it. It is
# STABLE: what is volatile PostgreSQL computes whether it is selected or not.
SCHEMA = """
CREATE TABLE public.knob (name text PRIMARY KEY, seconds float8 NOT NULL DEFAULT 0, zero int NOT NULL DEFAULT 1);
INSERT INTO public.knob VALUES ('note'), ('score'), ('forecast'), ('person');
CREATE FUNCTION public.turn(what text) RETURNS int LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
DECLARE k public.knob;
BEGIN
  SELECT * INTO k FROM public.knob WHERE name = what;
  PERFORM pg_sleep(k.seconds);
  RETURN 1 / k.zero;
END$$;
CREATE DOMAIN public.surely AS int NOT NULL;
CREATE TABLE public.team (id int PRIMARY KEY, name text);
CREATE TABLE public.person (id int PRIMARY KEY, name text NOT NULL, team_id int REFERENCES public.team);
CREATE TABLE public.pay (id int PRIMARY KEY, person_id int NOT NULL REFERENCES public.person, amount int, secret text);
CREATE TABLE public.note (id int PRIMARY KEY, person_id int NOT NULL REFERENCES public.person, body text);
CREATE TABLE public.kept (id int PRIMARY KEY, name text);
CREATE TABLE public.kept_pay (id int PRIMARY KEY, kept_id int REFERENCES public.kept);
INSERT INTO public.team VALUES (1, 'red');
INSERT INTO public.person SELECT g, 'p' || g, 1 FROM generate_series(1, 8) g;
INSERT INTO public.pay SELECT g, 1 + g % 8, g * 10, 's' FROM generate_series(1, 16) g;
INSERT INTO public.note SELECT g, 1 + g % 8, 'n' || g FROM generate_series(1, 16) g;
INSERT INTO public.kept VALUES (1, 'old'), (2, 'two');
INSERT INTO public.kept_pay VALUES (1, 1), (2, 2);
ALTER TABLE public.note ENABLE ROW LEVEL SECURITY;
CREATE POLICY turned ON public.note USING (public.turn('note') = 1);
CREATE VIEW public.scored AS
  SELECT id, name, public.turn('score') AS score, public.turn('forecast')::public.surely AS forecast, ARRAY[public.turn('score'), id] AS both
    FROM public.person WHERE public.turn('person') = 1;
GRANT SELECT ON public.team, public.person, public.note, public.scored, public.kept, public.kept_pay TO api_user;
GRANT SELECT (id, person_id, amount) ON public.pay TO api_user;
SELECT composure.expose('public.team'), composure.expose('public.person', exact_count => true), composure.expose('public.pay'),
  composure.expose('public.note'), composure.expose('public.person', name => 'people', partial => true, methods => '{GET}'),
  composure.expose('public.scored', key => '{id}', optional => '{score,forecast,both}'),
  composure.expose('public.kept', cache => 'ttl=60, stale-if-error=600', deadline => '1500ms'),
  composure.expose('public.kept', name => 'patient', cache => 'ttl=60, stale-if-error=600', deadline => '6s'),
  composure.expose('public.kept_pay', cache => 'ttl=60, stale-if-error=600');
"""

PATIENCE = "1600ms"  # what is slow is never done by then


@pytest.fixture(scope="module")
def people(home, demo_template):
    """Neither a breaker nor a bulkhead has a say in it."""
    database = copy_of(demo_template)
    database.sql(SCHEMA)
    with site(home, "partial", database, connections=16, breaker_calls=1000) as made:
        made.settle()
        made.straight = Straight(made.workers, database.keys["demo"])
        yield made
        made.straight.close()


def turn(people, name, seconds=0.0, zero=1):
    people.sql("UPDATE public.knob SET seconds = %s, zero = %s WHERE name = %s", seconds, zero, name)


@contextmanager
def turned(people, *names, **how):
    for name in names:
        turn(people, name, **how)
    try:
        yield
    finally:
        for name in names:
            turn(people, name)


def failing(people, *names):
    return turned(people, *names, zero=0)


def slow(people, *names):
    return turned(people, *names, seconds=30)


@contextmanager
def locked(people, table):
    """Whoever reads the table waits: an answer without it has not touched it."""
    session = people.database.connect()
    session.autocommit = False
    with session.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
    try:
        yield
    finally:
        session.rollback()
        session.close()


def ask(people, path, prefer="partial", method="GET", wait=PATIENCE, **headers):
    if prefer:
        headers["Prefer"] = prefer
    if wait:
        headers["X_Request_Timeout"] = wait
    begin = time.monotonic()
    answer = people.straight.get(quote(path, safe="/?=&()*,.:!\"%"), method=method, **headers)
    answer.took = time.monotonic() - begin
    return answer


def lacks(answer, *members):
    """It is partial, without these: (name, code)."""
    assert answer.status == 200, answer.out
    assert answer.headers["composure-partial"] == ", ".join(f"{name};code={code}" for name, code in members)
    assert answer.headers["cache-control"] == "no-store"
    assert not {"etag", "cdn-cache-control", "surrogate-key", "cache-tag"} & set(answer.headers)
    if isinstance(answer.json, dict) and "data" in answer.json:
        assert list(answer.json) == ["data", "next_cursor", "has_more", "partial", "missing"]
        assert answer.json["partial"] is True
        assert answer.json["missing"] == [{"member": name, "code": code} for name, code in members]
        assert all(row[name] is None for row in answer.json["data"] for name, _ in members)
    return answer


def fails(answer, status, code):
    assert (answer.status, answer.json["code"]) == (status, code), answer.out
    assert "composure-partial" not in answer.headers


LATE = "deadline_exceeded"


def test_a_slow_embed_is_left_out(people):
    with locked(people, "public.pay"):
        answer = lacks(ask(people, "/api/person?select=id,name,pay(amount)&limit=3"), ("pay", LATE))
        assert answer.json["data"] == [{"id": g, "name": f"p{g}", "pay": None} for g in (1, 2, 3)]
        assert answer.json["has_more"] is True and answer.took < 1.6
        assert answer.headers["preference-applied"] == "partial"
        fails(ask(people, "/api/person?select=id,pay(amount)", prefer=None), 504, LATE)


def test_a_failing_embed_is_left_out(people):
    with failing(people, "note"):
        answer = lacks(ask(people, "/api/person?select=id,note(body)&limit=2"), ("note", "database_error"))
        assert answer.json["data"] == [{"id": 1, "note": None}, {"id": 2, "note": None}]
        fails(ask(people, "/api/person?select=id,note(body)", prefer=None), 500, "database_error")


def test_an_embed_that_may_not_be_read_is_left_out(people):
    lacks(ask(people, "/api/person?select=id,pay(secret)&limit=2"), ("pay", "forbidden"))
    fails(ask(people, "/api/person?select=id,pay(secret)", prefer=None), 403, "forbidden")


def test_of_two_embeds_the_one_that_works_is_there(people):
    with slow(people, "note"):
        answer = lacks(ask(people, "/api/person?select=id,note(body),pay(amount)&limit=2"), ("note", LATE))
        assert [row["pay"] for row in answer.json["data"]] == [[{"amount": 80}, {"amount": 160}], [{"amount": 10}, {"amount": 90}]]
    with failing(people, "note"), locked(people, "public.pay"):
        lacks(ask(people, "/api/person?select=id,note(body),pay(amount)&limit=2"), ("note", "database_error"), ("pay", LATE))


def test_of_three_embeds_the_two_that_work_are_there(people):
    with failing(people, "note"):
        answer = lacks(ask(people, "/api/person?select=id,team(name),note(body),pay(amount)&limit=1"), ("note", "database_error"))
        assert answer.json["data"] == [{"id": 1, "team": {"name": "red"}, "note": None, "pay": [{"amount": 80}, {"amount": 160}]}]


@pytest.mark.alone
def test_parts_that_are_too_slow_together_alone_are_left_out(people):
    """Each of the three comes in a quarter of the time, the whole not in half of it, and not in the eighth that is left."""
    turn(people, "score", seconds=0.1)
    turn(people, "forecast", seconds=0.1)
    answer = ask(people, "/api/scored?select=id,score,s:both,forecast&limit=4", wait="2400ms")
    turn(people, "score")
    turn(people, "forecast")
    lacks(answer, ("score", LATE), ("s", LATE), ("forecast", LATE))


def test_an_optional_column_is_left_out(people):
    with failing(people, "score"):
        answer = lacks(ask(people, "/api/scored?select=id,score,forecast&limit=2"), ("score", "database_error"))
        assert answer.json["data"] == [{"id": g, "score": None, "forecast": 1} for g in (1, 2)]
        lacks(ask(people, "/api/scored?limit=1"), ("score", "database_error"), ("both", "database_error"))
        one = lacks(ask(people, "/api/scored/3"), ("score", "database_error"), ("both", "database_error"))
        assert one.json == {"id": 3, "name": "p3", "score": None, "forecast": 1, "both": None}
        lacks(ask(people, "/api/scored?select=id,a:score,b:score::text&limit=1"), ("a", "database_error"), ("b", "database_error"))
        fails(ask(people, "/api/scored?limit=1", prefer=None), 500, "database_error")
    with slow(people, "forecast"):
        answer = lacks(ask(people, "/api/scored/3?select=*"), ("forecast", LATE))
        assert answer.json == {"id": 3, "name": "p3", "score": 1, "forecast": None, "both": [1, 3]}


@pytest.mark.parametrize("query", ["select=id,score&score=eq.1", "select=id,score&order=score.desc", "select=id,score&or=(id.eq.1,not.and(score.gt.0,id.gt.0))"])
def test_a_column_that_chooses_or_sorts_is_not_optional(people, query):
    with failing(people, "score"):
        fails(ask(people, f"/api/scored?{query}"), 500, "database_error")


@pytest.mark.parametrize("query", [
    "select=id,note!inner(body)", "select=id,note(body),pay!inner(id)", "select=id,pay(person!inner(note(body)))", "select=id,note(body)&note=is.null",
    "select=id,note(body),pay()&or=(id.gt.0,pay.not.is.null)", "select=id,note(body),team()&order=team(name)"])
def test_where_an_embed_chooses_or_sorts_nothing_is_left_out(people, query):
    with failing(people, "note"):
        fails(ask(people, f"/api/person?{query}"), 500, "database_error")


def test_filters_order_and_limit_of_what_is_embedded_go_with_it(people):
    with failing(people, "note"):
        lacks(ask(people, "/api/person?select=id,note(body)&note.body=eq.n1&note.order=body.desc&note.limit=1&id=lt.4"), ("note", "database_error"))


def test_what_is_spread_is_left_out_by_its_members(people):
    with locked(people, "public.team"):
        answer = lacks(ask(people, "/api/person?select=id,...team(team:name,n:id)&limit=1"), ("team", LATE), ("n", LATE))
        assert answer.json["data"] == [{"id": 1, "team": None, "n": None}]


def test_an_item(people):
    with failing(people, "note"):
        answer = lacks(ask(people, "/api/person/2?select=id,note(body),pay(amount)"), ("note", "database_error"))
        assert answer.json == {"id": 2, "note": None, "pay": [{"amount": 10}, {"amount": 90}]}
        assert answer.headers["preference-applied"] == "partial"
        fails(ask(people, "/api/person/99?select=id,note(body)"), 404, "not_found")


def test_every_format(people):
    query = "/api/person?select=id,note(body),name&limit=2"
    with failing(people, "note"):
        csv = lacks(ask(people, query, Accept="text/csv"), ("note", "database_error"))
        assert csv.body == b"id,note,name\r\n1,,p1\r\n2,,p2\r\n"
        lines = lacks(ask(people, query, Accept="application/x-ndjson"), ("note", "database_error"))
        assert lines.body == b'{"id":1,"note":null,"name":"p1"}\n{"id":2,"note":null,"name":"p2"}\n'
        one = lacks(ask(people, query + "&id=eq.2", Accept="application/vnd.pgrst.object+json"), ("note", "database_error"))
        assert one.json == {"id": 2, "note": None, "name": "p2"}
        head = lacks(ask(people, query, method="HEAD"), ("note", "database_error"))
        assert head.body == b"" and int(head.headers["content-length"]) == len(ask(people, query).body)


def test_it_is_never_unchanged(people):
    whole = ask(people, "/api/person?select=id,note(body)&limit=2")
    assert whole.headers["etag"] and "composure-partial" not in whole.headers
    with failing(people, "note"):
        for known in (whole.headers["etag"], "*"):
            lacks(ask(people, "/api/person?select=id,note(body)&limit=2", If_None_Match=known), ("note", "database_error"))


def test_pages_go_on(people):
    seen, uri = [], "/api/person?select=name,note(body)&order=name.desc&limit=3"
    with failing(people, "note"):
        while uri:
            answer = lacks(people.straight.get(uri, Prefer="partial"), ("note", "database_error"))
            seen += [row["name"] for row in answer.json["data"]]
            uri = people.straight.link(answer, "next")
        assert seen == [f"p{g}" for g in range(8, 0, -1)]
        back = people.straight.link(answer, "prev")
        assert [row["name"] for row in people.straight.get(back, Prefer="partial").json["data"]] == ["p5", "p4", "p3"]


def test_it_is_counted(people):
    with failing(people, "note"):
        answer = lacks(ask(people, "/api/person?select=id,note(body)&limit=2", prefer="count=exact, partial"), ("note", "database_error"))
        assert answer.headers["content-range"] == "*/8" and answer.headers["preference-applied"] == "count=exact, partial"


@pytest.mark.parametrize("prefer, honoured", [
    ("partial", True), ("Partial", True), ("return=minimal, partial", True), ("partial; wait=1, x", True), ('partial=""', True), ("partial = ", True),
    ("partial=no", False), ("partially", False), ("x; partial", False), ("", False)])
def test_who_prefers_it(people, prefer, honoured):
    with failing(people, "note"):
        answer = ask(people, "/api/person?select=id,note(body)&limit=1", prefer=prefer)
        assert answer.status == (200 if honoured else 500) and ("composure-partial" in answer.headers) is honoured


def test_a_resource_may_say_so_for_all(people):
    with failing(people, "note"):
        answer = lacks(ask(people, "/api/people?select=id,note(body)&limit=1", prefer=None), ("note", "database_error"))
        assert "preference-applied" not in answer.headers
        fails(ask(people, "/api/people?select=id,note!inner(body)", prefer=None), 500, "database_error")


def test_what_works_is_the_same_as_without(people):
    for uri in ("/api/person?select=id,note(body),pay(id)", "/api/person/1?select=id,team(name)", "/api/scored"):
        asked, not_asked = ask(people, uri), ask(people, uri, prefer=None)
        assert asked.status == 200 and asked.body == not_asked.body
        assert {k: v for k, v in asked.headers.items() if k != "x-request-id" and "ratelimit" not in k} == \
            {k: v for k, v in not_asked.headers.items() if k != "x-request-id" and "ratelimit" not in k}


def test_a_page_that_fails_itself_is_its_own_error(people):
    with failing(people, "person", "score"):
        fails(ask(people, "/api/scored?select=id,score"), 500, "database_error")
    with locked(people, "public.person"):
        answer = ask(people, "/api/person?select=id,note(body),pay(id)")
        fails(answer, 504, LATE)
        assert answer.took < 2.2


def test_what_the_client_wrote_wrong_stays_wrong(people):
    fails(ask(people, "/api/person?select=id,note(body)&note.id=eq.x"), 400, "invalid_value")
    fails(ask(people, "/api/person?select=id,note(nothing)"), 400, "unknown_column")


@pytest.mark.parametrize("alias, said", [
    ('"a b"', '"a b"'), ('"a\\"\\\\"', '"a\\"\\\\"'), ("grün", '%"gr%c3%bcn"'), ("1st", '"1st"'), ("a-b", "a-b")])
def test_names_are_items_of_a_structured_field(people, alias, said):
    with failing(people, "note"):
        answer = ask(people, "/api/person?select=id," + quote(alias) + ":note(body)&limit=1")
        assert answer.status == 200 and answer.headers["composure-partial"] == f"{said};code=database_error"
        assert answer.json["partial"] is True and answer.json["data"][0][answer.json["missing"][0]["member"]] is None


def test_names_that_do_not_fit_are_not_cut(people):
    with failing(people, "note"):
        answer = ask(people, f"/api/person?select=id,{'n' * 1500}:note(body)&limit=1")
        assert answer.headers["composure-partial"] == "*;code=database_error"
        assert answer.json["missing"] == [{"member": "n" * 1500, "code": "database_error"}]


# --- with what is kept ---

KEPT = "/api/kept?select=id,name,kept_pay(id)"


def test_a_partial_answer_is_not_kept(people):
    uri = KEPT + "&limit=1"
    with locked(people, "public.kept_pay"):
        answer = lacks(ask(people, uri, wait=None), ("kept_pay", LATE))
        assert "stored" not in answer.headers["cache-status"]
        fails(ask(people, uri, wait=None, Cache_Control="only-if-cached"), 504, "not_cached")
        lacks(ask(people, uri, wait=None), ("kept_pay", LATE))
    answer = wait_until(lambda: (a := ask(people, uri, wait=None)).status == 200 and "hit" in a.headers["cache-status"] and a, "a hit")
    assert answer.json["data"] == [{"id": 1, "name": "old", "kept_pay": [{"id": 1}]}] and answer.headers["etag"]


def test_what_was_too_slow_for_one_is_there_whole_for_the_next(people):
    """Whoever asks for partial answers waits half of the time for the whole; others are not to find it given up each time."""
    uri = KEPT + "&limit=7"
    with locked(people, "public.kept_pay"):
        lacks(ask(people, uri, wait=None), ("kept_pay", LATE))
    answer = wait_until(lambda: (a := ask(people, uri, prefer=None, Cache_Control="only-if-cached")).status == 200 and a, "what is kept")
    assert answer.json["data"][0]["kept_pay"] == [{"id": 1}]


def test_who_did_not_ask_for_it_never_gets_it(people):
    """They wait for one another's answers; the parts are missing only where that was asked for."""
    uri = KEPT + "&limit=2"

    def one(i):
        with people.workers.fcgi() as c:
            headers = {**auth(people.database.keys["demo"]), **({"Prefer": "partial"} if i % 2 else {})}
            return c.ask("GET", uri, headers)
    with locked(people, "public.kept_pay"):
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(one, range(8)))
        for i, answer in enumerate(answers):
            body = json.loads(answer.body)
            if i % 2:
                assert answer.status == 200 and body["missing"] == [{"member": "kept_pay", "code": LATE}], answer.out
            else:
                assert answer.status == 504 and body["code"] == LATE, answer.out


def test_one_in_a_hurry_gets_what_there_is_in_its_time(people):
    with locked(people, "public.kept_pay"):
        answer = lacks(ask(people, KEPT + "&id=gt.0", wait="400ms"), ("kept_pay", LATE))
        assert answer.took < 0.4


def test_what_is_true_in_part_is_better_than_what_was_true(people):
    uri = "/api/kept/1?select=id,name,kept_pay(id)"
    assert wait_until(lambda: (a := ask(people, uri, wait=None)).status == 200 and "hit" in a.headers["cache-status"] and a, "hit").json["name"] == "old"
    with locked(people, "public.kept_pay"):
        people.sql("UPDATE public.kept SET name = 'new' WHERE id = 1")
        fresh = wait_until(lambda: "composure-partial" in (a := ask(people, uri, wait=None)).headers and a, "the change")
        assert lacks(fresh, ("kept_pay", LATE)).json == {"id": 1, "name": "new", "kept_pay": None}
        stale = ask(people, uri, prefer=None, wait=None)
        assert stale.status == 200 and stale.json == {"id": 1, "name": "old", "kept_pay": [{"id": 1}]}
        assert "stale-if-error" in stale.headers["cache-status"]


@contextmanager
def cut_off(people, at_once):
    """As soon as so many wait for a lock their connections are lost, and each time that they are asked again."""
    over = threading.Event()

    def cut():
        session = people.database.connect()
        begun = False
        while not over.is_set():
            with session.cursor() as cursor:
                cursor.execute("SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
                waiting = cursor.fetchall()
                begun = begun or len(waiting) >= at_once
                for pid in waiting if begun else ():
                    cursor.execute("SELECT pg_terminate_backend(%s)", pid)
            over.wait(0.01)
        session.close()
    thread = threading.Thread(target=cut)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_what_is_nobodys_part_is_the_error_or_what_is_kept(people):
    """The connections of the parts are lost, again and again: it is not their fault."""
    uri = "/api/patient/2?select=id,name,a:kept_pay(id),b:kept_pay(id)"
    wait_until(lambda: "hit" in ask(people, uri, wait=None).headers["cache-status"], "a hit")
    people.sql("UPDATE public.kept SET name = 'second' WHERE id = 2")
    wait_until(lambda: "hit" not in ask(people, uri, prefer=None, wait=None, Cache_Control="only-if-cached").headers.get("cache-status", ""), "the change")
    with locked(people, "public.kept_pay"), cut_off(people, 2):
        fails(ask(people, "/api/patient/1?select=id,a:kept_pay(id),b:kept_pay(id)", wait=None), 503, "database_unavailable")
        kept = ask(people, uri, wait=None)
    assert kept.status == 200 and kept.json["name"] == "two" and "stale-if-error" in kept.headers["cache-status"], kept.out
    wait_until(lambda: ask(people, uri, wait=None).json["name"] == "second", "it to answer again")


# --- with circuit breakers ---

@pytest.fixture(scope="module")
def guarded(home, demo_template):
    """Breakers that open after six calls; a resource whose deadline is its own, since a client in a hurry opens none."""
    database = copy_of(demo_template)
    database.sql(SCHEMA + "SELECT composure.expose('public.person', name => 'brief', partial => true, methods => '{GET}', deadline => '800ms');")
    keys = [database.create_key(f"client {i}", role="api_user") for i in range(6)]
    with site(home, "partial-guarded", database, breaker_calls=6, breaker_open_ms=2000, breaker_open_max_ms=2000) as made:
        made.settle()
        made.straight = Straight(made.workers, None)
        made.keys = keys
        yield made
        made.straight.close()


def test_what_is_known_to_fail_is_left_out_at_once(guarded):
    """The breaker of what is embedded opens, that of the list does not: nobody waits for what will not come."""
    def one(i, uri="/api/brief?select=id,team(name),pay(amount)&limit=1"):
        return ask(guarded, uri, prefer=None, wait=None, Authorization=f"Bearer {guarded.keys[i % 6]}")
    with locked(guarded, "public.pay"):
        answers = []
        while not answers or "circuit_open" not in answers[-1].headers["composure-partial"]:
            assert len(answers) < 30
            answers.append(one(len(answers)))
            assert answers[-1].json["data"] == [{"id": 1, "team": {"name": "red"}, "pay": None}]
        assert len(answers) > 6 and all(LATE in a.headers["composure-partial"] for a in answers[:6])
        lacks(answers[-1], ("pay", "circuit_open"))
        assert one(0, "/api/brief?select=id").status == 200
    healed = wait_until(lambda: "composure-partial" not in (a := one(1)).headers and a, "the whole")
    assert healed.json["data"] == [{"id": 1, "team": {"name": "red"}, "pay": [{"amount": 80}, {"amount": 160}]}]
