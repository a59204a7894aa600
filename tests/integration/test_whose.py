"""Nobody is ever given an answer that was kept for somebody else: tenants, keys, roles with other columns, nobody at all; in
a build with test points also where all of them have the same hash."""

import random
import threading
from collections import Counter

import pytest

from harness.process import wait_until
from harness.shared import POINTS, auth, host

ASKED, AT_ONCE = 4000, 4

SQL = """
DO $$ BEGIN CREATE ROLE whose_few; CREATE ROLE whose_all; EXCEPTION WHEN duplicate_object THEN END $$;
GRANT whose_few, whose_all TO composure_worker;
GRANT USAGE ON SCHEMA public TO whose_few, whose_all;
CREATE TABLE public.docs (id int PRIMARY KEY, tenant text, body text);
INSERT INTO public.docs SELECT i, 't' || i % 3, 'body ' || i FROM generate_series(1, 12) i;
ALTER TABLE public.docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON public.docs USING (tenant = current_setting('composure.tenant', true));
CREATE TABLE public.mine (id int PRIMARY KEY, key_id text, body text);
ALTER TABLE public.mine ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON public.mine USING (key_id = current_setting('composure.key_id', true));
CREATE TABLE public.owned (id int PRIMARY KEY, tenant text, body text);
INSERT INTO public.owned SELECT i, 't' || i % 3, 'owned ' || i FROM generate_series(1, 12) i;
CREATE TABLE public.staff (id int PRIMARY KEY, name text, salary int);
INSERT INTO public.staff SELECT i, 'name ' || i, 1000 * i FROM generate_series(1, 5) i;
CREATE TABLE public.news (id int PRIMARY KEY, title text);
INSERT INTO public.news SELECT i, 'title ' || i FROM generate_series(1, 5) i;
CREATE VIEW public.self AS SELECT 1 AS id, current_setting('composure.tenant', true) AS tenant,
  current_setting('composure.key_id', true) AS key_id, n.title FROM public.news n WHERE n.id = 1;
CREATE FUNCTION public.who() RETURNS text LANGUAGE sql STABLE AS
  $$ SELECT concat_ws('/', current_setting('composure.tenant', true), current_setting('composure.key_id', true)) $$;
GRANT SELECT ON public.docs, public.mine, public.owned, public.self TO whose_few, whose_all;
GRANT SELECT (id, name) ON public.staff TO whose_few;
GRANT SELECT ON public.staff TO whose_all;
GRANT SELECT ON public.news TO whose_few, whose_all, composure_anonymous;
GRANT EXECUTE ON FUNCTION public.who() TO whose_few, whose_all;
SELECT composure.expose('public.docs', cache => 'ttl=60'), composure.expose('public.mine', cache => 'ttl=60'),
  composure.expose('public.owned', owner => 'tenant', cache => 'ttl=60'), composure.expose('public.staff', cache => 'ttl=60'),
  composure.expose('public.news', cache => 'public, ttl=60'), composure.expose('public.self', key => '{id}', cache => 'ttl=60'),
  composure.expose_function('public.who', cache => 'ttl=60');
"""

URIS = ["/api/docs", "/api/docs/1", "/api/docs/2", "/api/docs?limit=2", "/api/mine", "/api/mine/1", "/api/owned", "/api/owned/1",
        "/api/staff", "/api/staff/1", "/api/staff?limit=2", "/api/staff?select=id,name",
        "/api/staff/2?select=id,name", "/api/news", "/api/news/1", "/api/self", "/api/self/1", "/api/rpc/who"]
# Changes nothing but that what was kept is out of date.
TOUCH = ["docs SET body = body", "mine SET body = body", "owned SET body = body", "staff SET name = name", "news SET title = title"]


def seen_in(answer):
    return answer.status, answer.body if answer.status == 200 else b"", *(answer.headers.get(n) for n in ("etag", "vary", "cache-control"))


def test_private_is_for_one_key_alone(fresh_database, workers):
    fresh_database.sql("SELECT composure.expose('public.users', cache => 'private, ttl=60')")
    w = workers(1, fresh_database)
    other = fresh_database.create_key("another", role="api_user", plan=None)

    def status(key):
        with w.fcgi() as c:
            return c.ask("GET", "/api/users/1", auth(key)).headers["cache-status"]
    wait_until(lambda: "hit" in status(fresh_database.keys["demo"]), "a hit")
    assert "fwd=uri-miss" in status(other)


@pytest.mark.parametrize("collide", [None, pytest.param(1, marks=pytest.mark.skipif(not POINTS, reason="configured without --enable-test-points"))],
                         ids=["apart", "one hash for all"])
def test_nobody_gets_what_was_kept_for_another(fresh_database, new_home, workers, capsys, collide):
    database = fresh_database
    database.sql(SQL)
    keys = {"one": database.create_key("one", role="whose_few", plan=None, tenant="t1"),
            "one too": database.create_key("one too", role="whose_few", plan=None, tenant="t1"),
            "two": database.create_key("two", role="whose_few", plan=None, tenant="t2"),
            "all": database.create_key("all", role="whose_all", plan=None, tenant="t1"),
            "none's": database.create_key("none", role="whose_all", plan=None),
            "nobody": None}
    database.sql("INSERT INTO public.mine SELECT row_number() OVER (), id, 'of ' || name FROM composure.api_key WHERE role LIKE 'whose%'")
    # The same without a store says what is right.
    plain = workers(1, database, runtime_dir=host(new_home, "plain"), cache_bytes=0, log="none")
    right = {}
    with plain.fcgi() as c:
        for who, key in keys.items():
            for uri in URIS:
                wait_until(lambda: (a := c.ask("GET", uri, auth(key))).status < 500 and right.__setitem__((who, uri), seen_in(a)) is None, uri)
    assert len({v[1] for (_, uri), v in right.items() if uri == "/api/docs"}) >= 3, "they see different things"
    assert right["one", "/api/staff"][1] != right["all", "/api/staff"][1]
    made = workers(3, database, runtime_dir=host(new_home, "kept"), log="none", collide=collide)
    counts, wrong, lock = Counter(), [], threading.Lock()

    def ask(seed):
        chosen = random.Random(seed)
        connection = made.fcgi()
        touching = database.connect()
        for n in range(ASKED // AT_ONCE):
            if n % 50 == 49:
                connection.close()
                connection = made.fcgi()
            if n % 40 == 0:
                touching.cursor().execute(f"UPDATE public.{chosen.choice(TOUCH)}")
            who, uri = chosen.choice(list(right))
            known = right[chosen.choice(list(keys)), uri][2] if chosen.random() < 0.3 else None
            answer = connection.ask("GET", uri, {**auth(keys[who]), **({"If-None-Match": known} if known else {})})
            should = right[who, uri]
            status = answer.headers.get("cache-status", "none").split(";")[1:2] or ["none"]
            with lock:
                counts[status[0].split("=")[0].strip()] += 1
                if known and known == should[2]:
                    good = (answer.status, answer.body) == (304, b"")
                else:
                    good = seen_in(answer) == should
                if not good:
                    wrong.append((who, uri, known, answer.out, should))
        connection.close()
        touching.close()
    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with capsys.disabled():
        print(f"\n# {'one hash for all' if collide else 'apart'}: {sum(counts.values())} asked, {dict(counts)}, {len(wrong)} were another's")
    assert not wrong, wrong[:3]
    assert sum(counts.values()) == ASKED and counts["hit"] > ASKED / 20
