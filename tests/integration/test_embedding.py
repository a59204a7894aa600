"""Resources inside of others: along foreign keys, against them, through junctions, to oneself; with their own filters,
order and limit; and never more than the role may see."""

import json
from urllib.parse import quote

import pytest

from conftest import copy_of
from harness.site import site
from harness.straight import Straight

SCHEMA = """
CREATE TABLE public.team (id int PRIMARY KEY, name text NOT NULL, secret text);
CREATE TABLE public.person (id int PRIMARY KEY, name text NOT NULL, manager_id int REFERENCES public.person, hidden_boss int CONSTRAINT boss REFERENCES public.person,
  home int CONSTRAINT home_team REFERENCES public.team, away int CONSTRAINT away_team REFERENCES public.team, made timestamptz, tags text[], doc jsonb);
CREATE TABLE public.badge (person_id int PRIMARY KEY REFERENCES public.person, code text);
CREATE TABLE public.film (id int PRIMARY KEY, title text, length numeric);
CREATE TABLE public.role (film_id int REFERENCES public.film, person_id int REFERENCES public.person, character text, PRIMARY KEY (film_id, person_id));
CREATE TABLE public.note (id int PRIMARY KEY, person_id int REFERENCES public.person, tenant text NOT NULL, body text);
CREATE TABLE public.private (id int PRIMARY KEY, person_id int REFERENCES public.person);
CREATE TABLE public.guarded (id int PRIMARY KEY, person_id int REFERENCES public.person);
CREATE TABLE public.wide (id int PRIMARY KEY, person_id int REFERENCES public.person);
INSERT INTO public.team VALUES (1, 'red', 'r'), (2, 'blue', 'b');
INSERT INTO public.person SELECT g, 'p' || g, nullif(g / 2, 0), 1, nullif(g % 3, 0), 1 + g % 2, timestamptz '2020-01-01 00:00:00.5+00' + g * interval '1 day',
  ARRAY['t' || g, NULL], jsonb_build_object('k', g % 2, 'q"', 'v') FROM generate_series(1, 8) g;
INSERT INTO public.badge SELECT g, 'b' || g FROM generate_series(1, 8, 2) g;
INSERT INTO public.film SELECT g, 'f' || g, g * 10.50 FROM generate_series(1, 5) g;
INSERT INTO public.role SELECT f, p, 'c' || f || p FROM generate_series(1, 5) f, generate_series(1, 8) p WHERE (f + p) % 3 = 0;
INSERT INTO public.note SELECT g, 1 + g % 8, 't' || g % 2, 'n' || g FROM generate_series(1, 30) g;
INSERT INTO public.private VALUES (1, 1); INSERT INTO public.guarded SELECT g, 1 + g % 8 FROM generate_series(1, 16) g;
INSERT INTO public.wide SELECT g, 1 FROM generate_series(1, 30) g;
ALTER TABLE public.guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY even ON public.guarded USING (id % 2 = 0);
GRANT SELECT ON public.team, public.person, public.badge, public.film, public.role, public.note, public.guarded, public.wide TO api_user;
SELECT composure.expose('public.team', hidden => '{secret}'), composure.expose('public.person', hidden => '{hidden_boss}', exact_count => true),
  composure.expose('public.badge'), composure.expose('public.film'), composure.expose('public.role'), composure.expose('public.private'),
  composure.expose('public.note', owner => 'tenant'), composure.expose('public.guarded', exact_count => true), composure.expose('public.wide', page_max => 7);
"""

# Query string after /api/person?, and what each person's row has to be, as SQL over `p`.
CASES = [
    ("select=id,manager_id(name)", "SELECT p.id, (SELECT row_to_json(m) FROM (SELECT m.name FROM person m WHERE m.id = p.manager_id) m) AS manager_id"),
    ("select=id,boss:person!manager_id(id,name)", "SELECT p.id, (SELECT row_to_json(m) FROM (SELECT m.id, m.name FROM person m WHERE m.id = p.manager_id) m) AS boss"),
    ("select=id,reports:person!person_manager_id_fkey(id)", "SELECT p.id, coalesce((SELECT json_agg(m) FROM (SELECT m.id FROM person m WHERE m.manager_id = p.id ORDER BY m.id) m), '[]') AS reports"),
    ("select=id,home_team(name),away:team!away_team(*)", "SELECT p.id, (SELECT row_to_json(t) FROM (SELECT name FROM team WHERE id = p.home) t) AS home_team, (SELECT row_to_json(t) FROM (SELECT id, name FROM team WHERE id = p.away) t) AS away"),
    ("select=id,team!home(name)", "SELECT p.id, (SELECT row_to_json(t) FROM (SELECT name FROM team WHERE id = p.home) t) AS team"),
    ("select=id,badge(code)", "SELECT p.id, (SELECT row_to_json(b) FROM (SELECT code FROM badge WHERE person_id = p.id) b) AS badge"),
    ("select=id,...badge(code,c:person_id)", "SELECT p.id, b.code, b.person_id AS c"),
    ("select=id,film(title,length)&film.order=length.desc&film.limit=2", "SELECT p.id, coalesce((SELECT json_agg(f) FROM (SELECT title, length FROM film f WHERE EXISTS (SELECT FROM role r WHERE r.film_id = f.id AND r.person_id = p.id) ORDER BY length DESC LIMIT 2) f), '[]') AS film"),
    ("select=id,role(character,film(title,role(character)))&role.film.role.limit=1", "SELECT p.id, coalesce((SELECT json_agg(x) FROM (SELECT r.character, (SELECT row_to_json(f) FROM (SELECT f.title, coalesce((SELECT json_agg(y) FROM (SELECT r2.character FROM role r2 WHERE r2.film_id = f.id ORDER BY r2.film_id, r2.person_id LIMIT 1) y), '[]') AS role FROM film f WHERE f.id = r.film_id) f) AS film FROM role r WHERE r.person_id = p.id ORDER BY r.film_id, r.person_id) x), '[]') AS role"),
    ("select=id,film(id)&film.title=in.(f1,f2)", "SELECT p.id, coalesce((SELECT json_agg(f) FROM (SELECT id FROM film f WHERE title IN ('f1','f2') AND EXISTS (SELECT FROM role r WHERE r.film_id = f.id AND r.person_id = p.id) ORDER BY id) f), '[]') AS film"),
    ("select=id,film(id)&film.or=(title.eq.f1,length.gt.40)", "SELECT p.id, coalesce((SELECT json_agg(f) FROM (SELECT id FROM film f WHERE (title = 'f1' OR length > 40) AND EXISTS (SELECT FROM role r WHERE r.film_id = f.id AND r.person_id = p.id) ORDER BY id) f), '[]') AS film"),
    ("select=id,w:wide(id)", "SELECT p.id, coalesce((SELECT json_agg(w) FROM (SELECT id FROM wide WHERE person_id = p.id ORDER BY id LIMIT 7) w), '[]') AS w"),
    ("select=id,w:wide(id)&w.limit=100", "SELECT p.id, coalesce((SELECT json_agg(w) FROM (SELECT id FROM wide WHERE person_id = p.id ORDER BY id LIMIT 7) w), '[]') AS w"),
    ("select=id,guarded(id)", "SELECT p.id, coalesce((SELECT json_agg(w) FROM (SELECT id FROM guarded WHERE person_id = p.id AND id % 2 = 0 ORDER BY id) w), '[]') AS guarded"),
    ("select=id,note(body)", "SELECT p.id, coalesce((SELECT json_agg(w) FROM (SELECT body FROM note WHERE person_id = p.id AND tenant = 't1' ORDER BY id) w), '[]') AS note"),
    ("select=id,m:manager_id(made,tags,doc,x:doc->k,\"q\\\"\":doc->>\"q\\\"\",n:id::text)", "SELECT p.id, (SELECT row_to_json(m) FROM (SELECT made, tags, doc, doc->'k' AS x, doc->>'q\"' AS \"q\"\"\", id::text AS n FROM person m WHERE m.id = p.manager_id) m) AS m"),
    ("select=id,manager_id(name,...home_team(team:name))", "SELECT p.id, (SELECT row_to_json(m) FROM (SELECT m.name, t.name AS team FROM person m LEFT JOIN team t ON t.id = m.home WHERE m.id = p.manager_id) m) AS manager_id"),
]

# Which persons there are, and in which order.
CHOSEN = [
    ("select=id,badge!inner(code)", "WHERE EXISTS (SELECT FROM badge b WHERE b.person_id = p.id) ORDER BY p.id"),
    ("select=id,badge!inner()&badge.code=eq.b3", "WHERE p.id = 3 ORDER BY p.id"),
    ("select=id,badge()&badge=is.null", "WHERE p.id % 2 = 0 ORDER BY p.id"),
    ("select=id,badge()&badge=not.is.null", "WHERE p.id % 2 = 1 ORDER BY p.id"),
    ("select=id,badge(),film()&film.id=eq.5&or=(badge.is.null,film.not.is.null)", "WHERE p.id % 2 = 0 OR EXISTS (SELECT FROM role r WHERE r.film_id = 5 AND r.person_id = p.id) ORDER BY p.id"),
    ("select=id,film!inner(id)&film.length=gt.40", "WHERE EXISTS (SELECT FROM role r JOIN film f ON f.id = r.film_id WHERE r.person_id = p.id AND f.length > 40) ORDER BY p.id"),
    ("select=id,role!inner(film!inner(title))&role.film.title=eq.f2", "WHERE EXISTS (SELECT FROM role r WHERE r.person_id = p.id AND r.film_id = 2) ORDER BY p.id"),
    ("select=id,role(film!inner(title))&role.film.title=eq.f2", "ORDER BY p.id"),
    ("select=id,home_team()&order=home_team(name).desc.nullslast,name.desc", "ORDER BY (SELECT name FROM team WHERE id = p.home) DESC NULLS LAST, p.name DESC, p.id DESC"),
    ("select=id,manager_id(name)&order=manager_id(name).nullsfirst", "ORDER BY (SELECT name FROM person m WHERE m.id = p.manager_id) NULLS FIRST, p.id"),
    ("select=id,note!inner()&note.body=eq.n2", "WHERE false"),
]

REFUSED = [
    ("select=team(*)", "ambiguous_relationship", "!away_team, !home_team"), ("select=person(*)", "ambiguous_relationship", "!manager_id"),
    ("select=private(*)", "unknown_relationship", "private"), ("select=boss(*)", "unknown_relationship", "boss"), ("select=person!hidden_boss(*)", "unknown_relationship", ""),
    ("select=hidden_boss(*)", "unknown_relationship", ""), ("select=home_team(secret)", "unknown_column", "secret"), ("select=id,home_team(id)&home_team.secret=eq.r", "unknown_parameter", "secret"),
    ("select=id,home_team(id)&order=home_team(secret)", "unknown_column", "secret"), ("select=pg_class(*)", "unknown_relationship", ""), ("select=...film(*)", "invalid_select", "once"),
    ("select=badge(*),badge(*)", "invalid_select", "twice"), ("select=role(film(role(film(id))))", "query_too_complex", "3 levels"), ("select=id,badge:name,badge(code)", "invalid_select", "name"),
    ("select=" + ",".join(f"b{i}:badge(code)" for i in range(9)), "query_too_complex", "8"), ("select=id,film(id)&order=film(title)", "invalid_order", "many"), ("order=badge(code)", "invalid_order", "select"),
    ("select=id,film(id)&film.limit=0", "invalid_limit", ""), ("select=id,film(id)&film.offset=1", "unknown_parameter", ""), ("film.id=eq.1", "unknown_parameter", ""), ("select=id,badge(code)&badge=eq.1", "invalid_filter", "is.null"),
]


@pytest.fixture(scope="module")
def people(home, demo_template):
    database = copy_of(demo_template)
    database.sql(SCHEMA)
    database.keys["tenant"] = database.create_key("tenant", role="api_user", tenant="t1")
    with site(home, "embedding", database) as made:
        made.settle()
        made.straight = Straight(made.workers, database.keys["tenant"])
        yield made
        made.straight.close()


def ask(people, query, path="/api/person"):
    return people.straight.get(f"{path}?" + quote(query, safe="=&()*,.:!"))


@pytest.mark.parametrize("query, sql", CASES, ids=[c[0][:60] for c in CASES])
def test_what_is_embedded_is_what_sql_says(people, query, sql):
    expected = people.sql(f"SET search_path = public; SET timezone = 'UTC'; SELECT json_agg(row_to_json(r)) FROM ({sql} FROM person p LEFT JOIN badge b ON b.person_id = p.id ORDER BY p.id) r")[0][0]
    answer = ask(people, query)
    assert answer.status == 200, answer.out
    assert answer.json["data"] == expected
    # Without a blank or a line too many, like all that we write.
    assert answer.body == json.dumps(answer.json, separators=(",", ":"), ensure_ascii=False).encode() or "made" in query or "length" in query
    one = people.straight.get("/api/person/3?" + quote(query, safe="=&()*,.:!"))
    assert one.status == 200 and one.json == expected[2], one.out


@pytest.mark.parametrize("query, rest", CHOSEN, ids=[c[0][:60] for c in CHOSEN])
def test_what_is_embedded_chooses_and_sorts(people, query, rest):
    expected = [row[0] for row in people.sql(f"SET search_path = public; SELECT p.id FROM person p {rest}")]
    seen, uri = [], "&limit=3"
    for _ in range(9):
        page = ask(people, query + uri)
        assert page.status == 200, page.out
        seen += [row["id"] for row in page.json["data"]]
        if not page.json["next_cursor"]:
            break
        uri = "&limit=3&cursor=" + page.json["next_cursor"]
    assert seen == expected
    counted = people.straight.get("/api/person?" + quote(query, safe="=&()*,.:!"), Prefer="count=exact")
    assert counted.headers["content-range"] == f"*/{len(expected)}"


@pytest.mark.parametrize("query, code, said", REFUSED, ids=[r[0][:60] for r in REFUSED])
def test_what_cannot_be_embedded_is_refused(people, query, code, said):
    answer = ask(people, query)
    assert (answer.status, answer.json["code"]) == (400, code), answer.out
    assert said in answer.json["detail"], answer.out


def test_an_empty_page_of_a_foreign_key_is_an_empty_list(people):
    assert ask(people, "select=id,film(id)&film.id=eq.99&limit=1").json["data"] == [{"id": 1, "film": []}]
    assert ask(people, "select=film(id)&id=eq.99").json["data"] == []


# --- counts ---

def test_counts_are_given_where_they_are_allowed(people):
    exact = people.straight.get("/api/person?id=gt.2&limit=1&select=id", Prefer="count=exact")
    assert (exact.headers["content-range"], exact.headers["preference-applied"]) == ("*/6", "count=exact")
    page = people.straight.get(people.straight.link(exact, "next"), Prefer="return=minimal, count=exact")
    assert page.headers["content-range"] == "*/6" and page.json["data"] == [{"id": 4}]
    assert "content-range" not in people.straight.get("/api/person").headers
    refused = people.straight.get("/api/film", Prefer="count=exact")
    assert (refused.status, refused.json["code"]) == (400, "query_too_complex")
    people.sql("ANALYZE public.film")
    assert people.straight.get("/api/film", Prefer="count=planned").headers["content-range"] == "*/5"
    assert people.straight.get("/api/film?id=gt.3", Prefer="count=estimated").headers["content-range"] == "*/2"
    assert people.straight.get("/api/guarded", Prefer="count=exact").headers["content-range"] == "*/8"
    for how in ("planned", "estimated"):
        refused = people.straight.get("/api/guarded", Prefer=f"count={how}")
        assert (refused.status, refused.json["code"]) == (400, "invalid_header")


def test_an_estimate_is_exact_up_to_a_bound_and_the_planners_above(people):
    client = Straight(people.workers, people.database.keys["demo"])
    n = int(client.get("/api/payments", Prefer="count=estimated").headers["content-range"][2:])
    assert 1001 <= n and abs(n - 3000) < 300
    assert client.get("/api/payments?id=lte.1000", Prefer="count=estimated").headers["content-range"] == "*/1000"
    client.close()
