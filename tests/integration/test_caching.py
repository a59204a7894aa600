"""What caches are told: Cache-Control and CDN-Cache-Control by policy, Vary, tags, ETag and 304."""

import json

import pytest

from harness.process import wait_until
from harness.shared import auth


@pytest.fixture
def ask(fresh_database, worker):
    """ask(uri, key=, **headers): If_None_Match='"x"' is a header."""
    made = []

    def one(uri, key=fresh_database.keys["demo"], method="GET", body=b"", **headers):
        if not made:
            made.append(worker(fresh_database, surrogate_rows=64))
        with made[0].fcgi() as c:
            return c.ask(method, uri, {**auth(key), **{name.replace("_", "-"): v for name, v in headers.items()}}, body)
    return one


PUBLIC = "public, max-age=30, s-maxage=60, stale-while-revalidate=60, stale-if-error=3600"


@pytest.mark.parametrize("uri", ["/api/countries?limit=3", "/api/countries/DE"])
def test_what_is_public_says_so_and_is_the_same_for_everybody(ask, uri):
    mine, anybodys = ask(uri), ask(uri, None)
    for answer in (mine, anybodys):
        assert answer.status == 200
        assert answer.headers["cache-control"] == PUBLIC
        assert answer.headers["cdn-cache-control"] == "max-age=60, stale-while-revalidate=60, stale-if-error=3600"
        assert answer.headers["vary"] == "Accept, Prefer"
        assert "ratelimit" not in answer.headers
    assert (mine.body, mine.headers["etag"]) == (anybodys.body, anybodys.headers["etag"])


def test_tags_name_the_resource_and_an_items_row(ask):
    page, item = ask("/api/countries?limit=3&order=code.desc"), ask("/api/countries/DE")
    codes = [row["code"] for row in json.loads(page.body)["data"]]
    assert len(codes) == 3 and page.headers["surrogate-key"] == page.headers["xkey"] == " ".join(["countries", *(f"countries/{c}" for c in codes)])
    assert page.headers["cache-tag"] == page.headers["xkey"].replace(" ", ",")
    back = ask("/api/countries?limit=2&order=code.desc&cursor=" + page.headers["link"].split("cursor=")[1].split(">")[0])
    assert back.headers["xkey"].split()[0] == "countries" and len(back.headers["xkey"].split()) == 3
    assert item.headers["surrogate-key"] == item.headers["xkey"] == "countries countries/DE"
    assert item.headers["cache-tag"] == "countries,countries/DE"
    assert not {"surrogate-key", "xkey", "cache-tag", "cdn-cache-control"} & set(ask("/api/users/1").headers)


def test_rows_are_named_as_far_as_the_head_has_room(ask, fresh_database):
    fresh_database.sql("""
        CREATE TABLE public.pairs (a int, b text, PRIMARY KEY (a, b)); GRANT SELECT ON public.pairs TO api_user, composure_anonymous;
        INSERT INTO public.pairs SELECT n, 'x, y' FROM generate_series(1, 80) n;
        CREATE TABLE public.long (id text PRIMARY KEY); GRANT SELECT ON public.long TO api_user, composure_anonymous;
        INSERT INTO public.long SELECT n || repeat('x', 60) FROM generate_series(10, 80) n;
        SELECT composure.expose('public.' || t, cache => 'public, max-age=9') FROM unnest('{pairs,long}'::text[]) t""")
    few = ask("/api/pairs?limit=2")
    assert few.headers["xkey"] == "pairs pairs/1,x%2C%20y pairs/2,x%2C%20y"
    assert few.headers["cache-tag"] == "pairs,pairs/1;x%2C%20y,pairs/2;x%2C%20y"
    assert len(ask("/api/countries?limit=50").headers["xkey"].split()) == 51
    for uri, resource in (("/api/pairs?limit=65", "pairs"), ("/api/long?limit=50", "long")):
        many = ask(uri)
        assert many.headers["xkey"] == many.headers["cache-tag"] == resource
        assert many.headers["x-request-id"] and many.headers["content-security-policy"]


def test_tags_name_all_that_is_embedded(ask, fresh_database):
    fresh_database.sql("""
        CREATE TABLE public.a (id int PRIMARY KEY); CREATE TABLE public.b (id int PRIMARY KEY REFERENCES public.a);
        CREATE TABLE public.c (id int PRIMARY KEY); CREATE TABLE public.b_c (b int REFERENCES public.b, c int REFERENCES public.c, PRIMARY KEY (b, c));
        GRANT SELECT ON public.a, public.b, public.c, public.b_c TO api_user, composure_anonymous;
        SELECT composure.expose('public.' || t, cache => 'public, max-age=9') FROM unnest('{a,b,c,b_c}'::text[]) t""")
    tags = ask("/api/a?select=id,b(id,c(id))").headers["surrogate-key"]
    assert sorted(tags.split()) == ["a", "b", "b_c", "c"]


def test_what_is_not_public_stays_with_whoever_asked(ask, fresh_database):
    for uri in ("/api/users?limit=3", "/api/users/1", "/api/payments?limit=3&select=id,users(id)"):
        answer = ask(uri)
        assert answer.headers["cache-control"].startswith("private, no-cache")
        assert "Authorization" in answer.headers["vary"] and "X-API-Key" in answer.headers["vary"]
    fresh_database.sql("SELECT composure.expose('public.users', cache => 'max-age=7, s-maxage=60, ttl=5')")
    wait_until(lambda: ask("/api/users/1").headers["cache-control"] == "private, max-age=7", "the new policy")


def test_one_private_thing_in_an_answer_makes_it_private(ask):
    shown = ask("/api/countries?limit=2&select=*,users(id)")
    assert shown.status == 200
    assert shown.headers["cache-control"] == "private, max-age=30, stale-while-revalidate=60, stale-if-error=3600"
    assert "Authorization" in shown.headers["vary"] and "surrogate-key" not in shown.headers


def test_public_rows_are_read_as_nobody_in_particular(ask, fresh_database):
    """A policy that looks at who asks sees nobody, so that no answer depends on it."""
    fresh_database.sql("""
        CREATE TABLE public.notes (id int PRIMARY KEY, of text);
        INSERT INTO public.notes VALUES (1, 'everybody'), (2, 'acme');
        ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY;
        CREATE POLICY mine ON public.notes USING (of = 'everybody' OR of = current_setting('composure.tenant', true)
                                                  OR current_user = 'api_user');
        GRANT SELECT ON public.notes TO api_user, composure_anonymous;
        SELECT composure.expose('public.notes', cache => 'public, max-age=9')""")
    acme = fresh_database.create_key("acme", role="api_user", plan=None, tenant="acme")
    for key in (acme, None):
        answer = ask("/api/notes", key)
        assert answer.headers["cache-control"] == "public, max-age=9"
        assert b"everybody" in answer.body and b"acme" not in answer.body


@pytest.mark.parametrize("uri", ["/api/countries?limit=3", "/api/users?limit=3", "/api/users/1", "/api/users?limit=3&id=gt.990"])
def test_who_has_it_already_gets_a_304(ask, uri):
    full = ask(uri)
    tag = full.headers["etag"]
    assert tag[0] == tag[-1] == '"' and len(tag) == 34
    for known in (tag, f"W/{tag}", f'"x", {tag}', "*", f' "a,b" ,{tag} '):
        answer = ask(uri, If_None_Match=known)
        assert (answer.status, answer.body) == (304, b""), known
        for name in ("etag", "cache-control", "vary"):
            assert answer.headers[name] == full.headers[name]
        assert "content-length" not in answer.headers
    for other in ('"x"', tag[:-2] + '"', tag.strip('"'), ""):
        answer = ask(uri, If_None_Match=other)
        assert (answer.status, answer.body) == (200, full.body), other


def test_head_says_what_get_would(ask):
    for uri in ("/api/countries?limit=3", "/api/users?limit=3"):
        full, head = ask(uri), ask(uri, method="HEAD")
        assert (head.status, head.body, head.headers["etag"]) == (200, b"", full.headers["etag"])
        assert ask(uri, method="HEAD", If_None_Match=full.headers["etag"]).status == 304


def test_the_tag_changes_with_the_bytes(ask, fresh_database):
    before = ask("/api/users?limit=2").headers["etag"]
    assert ask("/api/users?limit=3").headers["etag"] != before
    assert ask("/api/users?limit=2", Accept="text/csv").headers["etag"] != before
    fresh_database.sql("UPDATE public.users SET name = 'another' WHERE id = 1")
    changed = wait_until(lambda: (a := ask("/api/users?limit=2", If_None_Match=before)).status == 200 and a, "the change")
    assert changed.headers["etag"] != before


def test_errors_and_writes_are_kept_by_nobody(ask):
    for answer in (ask("/api/nothing"), ask("/api/countries/XX"), ask("/api/countries?limit=x"), ask("/api/users/1", "cmps_wrong"),
                   ask("/api/payments", method="POST", body=b'{"user_id":1,"amount":1,"currency":"EUR"}', Content_Type="application/json")):
        assert answer.headers["cache-control"] == "no-store"
        assert "cdn-cache-control" not in answer.headers and "surrogate-key" not in answer.headers


def test_functions_have_policies_too(ask, fresh_database):
    fresh_database.sql("""
        CREATE FUNCTION public.answer(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n';
        CREATE FUNCTION public.mine() RETURNS text LANGUAGE sql STABLE AS $$SELECT current_setting('composure.key_id', true)$$;
        SELECT composure.expose_function('public.answer', cache => 'public, max-age=3');
        SELECT composure.expose_function('public.mine')""")
    for key in (fresh_database.keys["demo"], None):
        shared = ask("/api/rpc/answer?n=42", key)
        assert (shared.status, shared.body) == (200, b"42")
        assert shared.headers["cache-control"] == "public, max-age=3" and shared.headers["cdn-cache-control"] == "max-age=3"
        assert shared.headers["vary"] == "Accept, Prefer" and shared.headers["surrogate-key"] == "rpc/answer"
    mine = ask("/api/rpc/mine")
    assert mine.headers["cache-control"] == "private, no-cache" and "Authorization" in mine.headers["vary"]
    assert ask("/api/rpc/answer", method="POST", body=b'{"n":1}', Content_Type="application/json").headers["cache-control"] == "no-store"
