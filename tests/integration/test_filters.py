"""Filters against the same conditions written by hand in SQL: row for row, over every operator and many types."""

import itertools
from urllib.parse import quote

import pytest

from conftest import copy_of
from harness.site import site
from harness.straight import Straight

TABLE = """
CREATE EXTENSION IF NOT EXISTS citext;
CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE public.f (
  id int PRIMARY KEY, i int, s smallint, b bigint, n numeric, d float8, t text, v varchar(20), c char(4), ci citext,
  fold text COLLATE folded, flag boolean, day date, at timestamptz, local timestamp, u uuid, m mood, p positive, tags text[], nums int[],
  r int4range, tr tstzrange, j jsonb, js json, ts tsvector, ip inet, "odd, ""name"".x" int, "limit" int);
INSERT INTO public.f
SELECT g, nullif(g % 7, 3), g % 5, g * 1000000000000, nullif(g / 4.0, 2.5), CASE g % 9 WHEN 0 THEN 'NaN' WHEN 1 THEN NULL ELSE g / 3.0 END,
       (ARRAY['alpha','Beta','a,b','(x)','"quoted"','back\\slash','50%','under_score', NULL, '', 'ünï', 'new' || chr(10) || 'line'])[1 + g % 12],
       (ARRAY['v1','V2','v3',NULL])[1 + g % 4], (ARRAY['ab','abcd',NULL])[1 + g % 3], (ARRAY['One','TWO','three'])[1 + g % 3],
       (ARRAY['same','SAME','other'])[1 + g % 3], (ARRAY[true,false,NULL])[1 + g % 3], date '2020-01-01' + g,
       timestamptz '2020-01-01 00:00:00.123456+00' + g * interval '1 hour', timestamp '2020-01-01' + g * interval '1 day',
       ('00000000-0000-0000-0000-0000000000' || lpad(g::text, 2, '0'))::uuid, (ARRAY['sad','ok','happy',NULL]::mood[])[1 + g % 4], 1 + g % 3,
       (ARRAY['{a,b}','{b,c}','{}','{"x,y",null}',NULL]::text[][])[1 + g % 5:1 + g % 5], ARRAY[g % 3, g % 4],
       CASE g % 4 WHEN 0 THEN NULL WHEN 1 THEN 'empty' ELSE int4range(g, g + 5) END, tstzrange('2020-01-01', timestamptz '2020-01-01' + g * interval '1 day'),
       CASE WHEN g % 6 > 0 THEN jsonb_build_object('a', g % 4, 'b', jsonb_build_object('c', 'x' || g % 3), 'l', jsonb_build_array(g % 2, 'two'), 'k.k', 1) END,
       json_build_object('a', g % 4, 'name', 'n' || g % 5), to_tsvector('english', (ARRAY['fat cats ate','a rat ran','cats and dogs'])[1 + g % 3]),
       ('10.0.0.' || g)::inet, g % 4, g % 6
  FROM generate_series(1, 40) g;
UPDATE public.f SET tags = (ARRAY['{a,b}','{b,c}','{}','{"x,y",null}',NULL])[1 + id % 5]::text[];
"""

COMPARISONS = [("eq", "="), ("neq", "<>"), ("gt", ">"), ("gte", ">="), ("lt", "<"), ("lte", "<="), ("isdistinct", "IS DISTINCT FROM")]
VALUES = {  # column: values as text
    "i": ["2", "-1"], "s": ["3"], "b": ["5000000000000", "9223372036854775807"], "n": ["2.25", "1e1", "NaN"], "d": ["3.0", "NaN", "Infinity"],
    "t": ["alpha", "a,b", '"quoted"', "", "ünï", "back\\slash"], "v": ["v1"], "c": ["ab", "abcd"], "ci": ["one"], "fold": ["same"], "flag": ["true", "f"],
    "day": ["2020-01-20"], "at": ["2020-01-01T05:00:00.123456Z"], "local": ["2020-01-09 00:00"],
    "u": ["00000000-0000-0000-0000-000000000007"], "m": ["ok"], "p": ["2"], "ip": ["10.0.0.9"], "tags": ["{a,b}"], "r": ["[8,13)"],
    "j": ['{"a":1}'],
}
CASES = [(f"{col}={op}.{value}", f"{col} {sql} %s", (value,))
         for col, values in VALUES.items() for value in values for op, sql in COMPARISONS]

BY_HAND = [  # query, condition
    ("t=like.a*", "t LIKE 'a%%'"), ("t=like.*%25*", "t LIKE '%%%%%%'"), ("t=ilike.BETA", "t ILIKE 'BETA'"),
    ("t=like.under_score", "t LIKE 'under_score'"), ("t=not.like.a*", "NOT (t LIKE 'a%%')"), ("c=like.ab*", "c LIKE 'ab%%'"),
    ("ci=like.o*", "ci LIKE 'o%%'"), ("v=ilike.v*", "v ILIKE 'v%%'"), ("t=like.*\\\\*", "t LIKE '%%\\\\%%'"), ("t=like(any).{a*,B*}", "t LIKE 'a%%' OR t LIKE 'B%%'"),
    ("t=like(all).{*a*,*l*}", "t LIKE '%%a%%' AND t LIKE '%%l%%'"), ("t=ilike(any).{A*,b*}", "t ILIKE 'a%%' OR t ILIKE 'b%%'"),
    ('t=eq(any).{"a,b","(x)"}', "t IN ('a,b', '(x)')"), ("i=eq(any).{1,2}", "i IN (1, 2)"), ("i=gt(any).{3,5}", "i > 3"),
    ("i=gt(all).{3,5}", "i > 5"), ("i=lte(all).{3,5}", "i <= 3"), ("i=not.eq(any).{1,2}", "NOT i IN (1, 2)"), ("i=eq(any).{}", "false"),
    ("ci=like(any).{o*,T*}", "ci LIKE 'o%%' OR ci LIKE 't%%'"),
    ("t=match.^[ab]", "t ~ '^[ab]'"), ("t=imatch.^[AB]", "t ~* '^[ab]'"), ("t=not.match.a", "NOT (t ~ 'a')"), ("t=match(any).{^a,x}", "t ~ '^a' OR t ~ 'x'"),
    ("i=in.(1,2,4)", "i IN (1,2,4)"), ("i=in.()", "false"), ("i=not.in.(1,2)", "i NOT IN (1,2)"), ('t=in.("a,b","(x)",alpha)', "t IN ('a,b','(x)','alpha')"),
    ('t=in.("\\"quoted\\"")', "t = '\"quoted\"'"), ('t=in.("back\\\\slash")', "t = E'back\\\\slash'"), ('t=in.("")', "t = ''"),
    ("m=in.(ok,sad)", "m IN ('ok','sad')"), ("u=in.(00000000-0000-0000-0000-000000000003)", "id = 3"), ("d=in.(NaN,1)", "d IN ('NaN',1)"),
    ('tags=in.("{a,b}","{}")', "tags IN ('{a,b}','{}')"), ('r=in.("[8,13)")', "r = '[8,13)'"), ("flag=in.(true)", "flag"), ("p=in.(1,3)", "p IN (1,3)"),
    ("fold=in.(SAME)", "fold = 'same'"), ("ci=in.(ONE,three)", "ci IN ('one','three')"), ("c=in.(ab)", "c = 'ab'"),
    ("i=is.null", "i IS NULL"), ("i=is.not_null", "i IS NOT NULL"), ("i=not.is.null", "i IS NOT NULL"), ("i=is.NULL", "i IS NULL"),
    ("flag=is.true", "flag IS TRUE"), ("flag=is.false", "flag IS FALSE"), ("flag=is.unknown", "flag IS UNKNOWN"), ("flag=not.is.true", "flag IS NOT TRUE"),
    ("j=is.null", "j IS NULL"), ("j->a=is.null", "j->'a' IS NULL"), ("js=is.null", "js IS NULL"), ("tags=is.null", "tags IS NULL"),
    ("tags=cs.{a}", "tags @> '{a}'"), ("tags=cd.{a,b,c}", "tags <@ '{a,b,c}'"), ("tags=ov.{c,z}", "tags && '{c,z}'"), ('tags=cs.{"x,y"}', "tags @> '{\"x,y\"}'"),
    ("tags=not.cs.{a}", "NOT tags @> '{a}'"), ("nums=cs.{1,2}", "nums @> '{1,2}'"), ("nums=ov.{3}", "nums && '{3}'"), ("nums=eq.{1,1}", "nums = '{1,1}'"),
    ("r=cs.[9,10)", "r @> '[9,10)'::int4range"), ("r=cd.[0,20)", "r <@ '[0,20)'"), ("r=ov.[10,12)", "r && '[10,12)'"), ("r=sl.[20,30)", "r << '[20,30)'"),
    ("r=sr.[5,8)", "r >> '[5,8)'"), ("r=nxr.[5,20)", "r &< '[5,20)'"), ("r=nxl.[10,20)", "r &> '[10,20)'"), ("r=adj.[1,10)", "r -|- '[1,10)'"),
    ("tr=ov.[2020-01-05,2020-01-06)", "tr && '[2020-01-05,2020-01-06)'"), ("r=not.ov.[10,12)", "NOT r && '[10,12)'"), ("r=adj.(1,9]", "r -|- '(1,9]'"),
    ('j=cs.{"a":1}', "j @> '{\"a\":1}'"), ('j=cd.{"a":1,"b":{"c":"x1"},"l":[1,"two"],"k.k":1}', "j <@ '{\"a\":1,\"b\":{\"c\":\"x1\"},\"l\":[1,\"two\"],\"k.k\":1}'"),
    ("j->a=eq.1", "j->'a' = '1'"), ("j->>a=eq.1", "j->>'a' = '1'"), ("j->b->>c=eq.x1", "j->'b'->>'c' = 'x1'"), ("j->b->>c=like.x*", "j->'b'->>'c' LIKE 'x%%'"),
    ("j->l->0=eq.1", "j->'l'->0 = '1'"), ("j->l->>-1=eq.two", "j->'l'->>-1 = 'two'"), ("j->>a=in.(1,2)", "j->>'a' IN ('1','2')"), ('j->"k.k"=eq.1', "j->'k.k' = '1'"),
    ("j->nope=is.null", "j->'nope' IS NULL"), ("j->>a=isdistinct.1", "j->>'a' IS DISTINCT FROM '1'"), ("js->>name=eq.n1", "js->>'name' = 'n1'"),
    ("j->a=in.(1,2)", "j->'a' IN ('1','2')"), ("j->a=gt.1", "j->'a' > '1'"), ('j->b=cs.{"c":"x1"}', "j->'b' @> '{\"c\":\"x1\"}'"), ("nums->0=eq.1", "nums[1] = 1"),
    ("ts=fts.cat", "ts @@ to_tsquery('cat')"), ("ts=fts(english).cats%20%26%20dogs", "ts @@ to_tsquery('english', 'cats & dogs')"),
    ("ts=plfts(english).the%20fat%20cats", "ts @@ plainto_tsquery('english', 'the fat cats')"), ("ts=phfts(english).fat%20cats", "ts @@ phraseto_tsquery('english', 'fat cats')"),
    ("ts=wfts(english).cats%20-dogs", "ts @@ websearch_to_tsquery('english', 'cats -dogs')"), ("ts=not.fts.rat", "NOT ts @@ to_tsquery('rat')"),
    ("t=fts(simple).alpha", "to_tsvector('simple', t) @@ to_tsquery('simple', 'alpha')"), ("t=plfts.beta", "to_tsvector(t) @@ plainto_tsquery('beta')"),
    ("j=fts.x1", "to_tsvector(j) @@ to_tsquery('x1')"), ("js=fts(simple).n1", "to_tsvector('simple', js) @@ to_tsquery('simple', 'n1')"),
    ("or=(i.eq.1,i.eq.2)", "i = 1 OR i = 2"), ("and=(i.gt.1,i.lt.5)", "i > 1 AND i < 5"), ("not.or=(i.eq.1,i.eq.2)", "NOT (i = 1 OR i = 2)"),
    ("not.and=(i.gt.1,s.lt.3)", "NOT (i > 1 AND s < 3)"), ("or=(and(i.eq.1,s.eq.1),not.and(i.gt.0,s.gt.0))", "(i = 1 AND s = 1) OR NOT (i > 0 AND s > 0)"),
    ("or=(i.is.null,t.is.null)", "i IS NULL OR t IS NULL"), ('or=(t.eq."a,b",t.eq."(x)")', "t IN ('a,b','(x)')"), ("or=(i.not.eq.1,i.is.null)", "i <> 1 OR i IS NULL"),
    ("or=(i.in.(1,2),s.in.(0))", "i IN (1,2) OR s = 0"), ("or=(tags.cs.{a,b},tags.eq.{})", "tags @> '{a,b}' OR tags = '{}'"), ("or=(r.ov.[10,12),i.eq.1)", "r && '[10,12)' OR i = 1"),
    ("or=(r.adj.(1,9],i.eq.1)", "r -|- '(1,9]' OR i = 1"), ("or=(t.like.a*,t.like.*x*)", "t LIKE 'a%%' OR t LIKE '%%x%%'"), ("or=(j->>a.eq.1,j->a.eq.2)", "j->>'a' = '1' OR j->'a' = '2'"),
    ("or=(t.fts(english).alpha,i.eq.1)", "to_tsvector('english', t) @@ to_tsquery('english', 'alpha') OR i = 1"), ("or=(i.eq(any).{1,2},s.gt(all).{2,3})", "i IN (1,2) OR s > 3"),
    ("and=(i.gt.1)&and=(s.gt.1)", "i > 1 AND s > 1"), ("i=gt.1&i=lt.5", "i > 1 AND i < 5"), ("i=gt.1&or=(s.eq.1,s.eq.2)&t=not.is.null", "i > 1 AND s IN (1,2) AND t IS NOT NULL"),
    ("or=(i.eq.1,or(s.eq.1,or(p.eq.1,and(n.gt.2,n.lt.3))))", "i = 1 OR s = 1 OR p = 1 OR (n > 2 AND n < 3)"),
    ('odd, "name".x=eq.1', '"odd, ""name"".x" = 1'), ('"odd, \\"name\\".x"=eq.2', '"odd, ""name"".x" = 2'), ('or=("odd, \\"name\\".x".eq.1,i.eq.1)', '"odd, ""name"".x" = 1 OR i = 1'),
    ("and=(limit.eq.5)", '"limit" = 5'), ("t=eq.new%0Aline", "t = E'new\\nline'"), ("t=eq.x.y.z", "t = 'x.y.z'"), ("t=eq.(x)", "t = '(x)'"),
    ("t=neq.", "t <> ''"), ("t=eq.null", "t = 'null'"), ("t=in.(null)", "t IN ('null')"), ("ip=gt.10.0.0.20", "ip > '10.0.0.20'"), ("i=eq.%2B2", "i = 2"),
]
CASES += [(query, condition, ()) for query, condition in BY_HAND]
for (a, sa), (b, sb) in itertools.islice(itertools.combinations([c for c in BY_HAND if "&" not in c[0] and "%" not in c[0] and "%" not in c[1]], 2), 0, 4000, 53):
    CASES.append((f"{a}&{b}", f"({sa}) AND ({sb})", ()))

REFUSED = [  # query, code, what the detail says
    ("i=5", "unknown_operator", 'byte 0 of "i"'), ("i=foo.5", "unknown_operator", 'byte 0 of "i"'), ("i=not.foo.5", "unknown_operator", 'byte 4 of "i"'),
    ("i=eq", "invalid_filter", 'byte 2 of "i"'), ("i=eq.x", "invalid_value", 'byte 3 of "i"'), ("i=eq.", "invalid_value", 'byte 3'), ("i=eq.1%20or%201=1", "invalid_value", "byte 3"),
    ("i=eq.99999999999", "invalid_value", "byte 3"), ("s=eq.32768", "invalid_value", "byte 3"), ("u=eq.x", "invalid_value", "byte 3"), ("n=gt.1.2.3", "invalid_value", "byte 3"),
    ("i=in.(1,x)", "invalid_value", 'byte 6 of "i"'), ("i=in.1,2", "invalid_filter", "byte 3"), ("i=in.(1,2", "invalid_filter", "no end"), ("i=in.(1,2)x", "invalid_filter", "byte 8"),
    ('t=in.("a)', "invalid_filter", "quote"), ('t=in.("a"b)', "invalid_filter", "comma"), ("nope=eq.1", "unknown_parameter", "nope"), ("or=(nope.eq.1)", "unknown_column", 'byte 1 of "or"'),
    ("or=(i.eq.1", "invalid_filter", "byte 7"), ("or=i.eq.1", "invalid_filter", "byte 0"), ("or=()", "invalid_filter", "name is missing"), ("or=(i)", "invalid_filter", "point"),
    ("or=(i.eq.1)x", "invalid_filter", "byte 8"), ("or=(i.eq.1,)", "invalid_filter", "name is missing"), ("t=is.maybe", "invalid_filter", "byte 3"), ("t=is.true", "invalid_filter", "boolean"),
    ("i=like.1*", "invalid_filter", "does not fit"), ("fold=like.a", "invalid_filter", "does not fit"), ("js=eq.{}", "invalid_filter", "does not fit"), ("t=cs.{a}", "invalid_filter", "does not fit"),
    ("i=ov.{1}", "invalid_filter", "does not fit"), ("tags=sl.{1}", "invalid_filter", "does not fit"), ("i=fts.x", "invalid_filter", "does not fit"), ("t=fts(klingon).x", "invalid_filter", "configuration"),
    ("i->a=eq.1", "invalid_filter", "no members"), ("j->>a->b=eq.1", "invalid_filter", "->>"), ("j->=eq.1", "invalid_filter", "name is missing"), ("i=in(any).{1}", "invalid_filter", "(any)"),
    ("i=neq(any).{1}", "invalid_filter", "(any)"), ("i=eq(some).{1}", "invalid_filter", "(any)"), ("i=eq(any).1", "invalid_filter", "{...}"), ("day=eq.tomorrowish", "invalid_value", 'byte 3 of "day"'),
    ("m=eq.angry", "invalid_value", 'byte 3 of "m"'), ("r=ov.[5,1)", "invalid_value", 'byte 3 of "r"'), ("j=cs.{", "invalid_value", 'byte 3 of "j"'), ("t=match.(", "invalid_value", ""), ("ts=fts.a%20b", "invalid_value", ""),
    ("t=like.a\\", "invalid_value", ""), ("f=eq.1", "unknown_parameter", ""), ("order=nope", "unknown_column", 'byte 0 of "order"'), ("order=i.up", "invalid_order", "byte 2"),
    ("order=i,,t", "invalid_order", "byte 2"), ("order=js", "invalid_order", "no order"), ("order=i.desc.desc2", "invalid_order", ""), ("select=i,nope", "unknown_column", 'byte 2 of "select"'),
    ("select=i,", "invalid_select", "byte 2"), ("select=i::regclass", "invalid_select", "cast"), ("select=a:i,a:s", "invalid_select", "alias"), ("select=i)", "invalid_select", "byte 1"),
    ("select=g(*)", "unknown_relationship", "byte 0"), ("select=...i", "invalid_select", "byte 4"), ("select=" + "i%20" * 3 + "x", "unknown_column", ""), ("offset=5", "unknown_parameter", "cursor"),
    ("limit=0", "invalid_limit", "limit"), ("limit=1&limit=2", "invalid_parameter", "twice"), ("order=i&order=s", "invalid_parameter", "twice"), ("select=i&select=s", "invalid_parameter", "twice"),
    ("&".join(["i=gt.0"] * 33), "query_too_complex", "32"), ("or=(" + ",".join(["i.gt.0"] * 32) + ")", "query_too_complex", "32"), ("i=in.(" + ",".join(["1"] * 201) + ")", "query_too_complex", "200"),
    ("t=like." + "a" * 257, "query_too_complex", "256"), ("or=(" + "and(" * 40 + "i.eq.1" + ")" * 41, "query_too_complex", "32"), ("hidden=eq.1", "unknown_parameter", ""),
]


def encoded(query):
    return quote(query, safe="=&%()*,.:!-+")


@pytest.fixture(scope="module")
def f(home, demo_template):
    database = copy_of(demo_template)
    database.sql(TABLE)
    with site(home, "filters", database) as made:
        made.expose("public.f", page_default=200, regular_expressions=True)
        made.direct = Straight(made.workers, database.keys["demo"])
        yield made
        made.direct.close()


def test_filters_choose_the_rows_that_the_same_sql_chooses(f):
    assert len(CASES) >= 300
    connection = f.database.connect()
    cursor = connection.cursor()
    wrong, some = [], 0
    for query, condition, values in CASES:
        cursor.execute(f"SELECT id FROM public.f WHERE {condition} ORDER BY id", values or ())
        expected = [row[0] for row in cursor.fetchall()]
        answer = f.direct.get("/api/f?select=id&" + encoded(query))
        if answer.status != 200 or [row["id"] for row in answer.json["data"]] != expected:
            wrong.append((query, condition, answer.body.decode()[:400], expected))
        some += 0 < len(expected) < 40
    connection.close()
    print(f"{len(CASES)} filters, {some} of them choose some rows and not others")
    assert not wrong, "\n".join(map(str, wrong[:20])) + f"\n{len(wrong)} of {len(CASES)}"
    assert some > 200


@pytest.mark.parametrize("query, code, said", REFUSED, ids=lambda v: str(v)[:40])
def test_what_is_wrong_is_refused_with_its_place(f, query, code, said):
    answer = f.direct.get("/api/f?" + encoded(query))
    assert answer.status == 400, answer
    assert answer.json["code"] == code, answer
    assert said in answer.json.get("detail", ""), answer


def test_blanks_may_stand_around_conditions(f):
    answer = f.direct.get("/api/f?select=id&or=(%20id.eq.1,%20id.eq.2)")
    assert [row["id"] for row in answer.json["data"]] == [1, 2]


INJECTIONS = ["'; DROP TABLE public.f; --", "1); DROP TABLE public.f; --", '"; DROP TABLE public.f; --', "$1", "$$; DROP TABLE public.f; $$",
              "1 OR 1=1", "' OR '1'='1", "x' UNION SELECT secret FROM composure.installation --", "\\'; DELETE FROM public.f; --",
              "pg_sleep(10)", "';SELECT pg_sleep(10)--", "{}'); DROP TABLE public.f; --", "/*", "*/", "%s", "\\", "E'\\x27'", "id; DROP TABLE public.f",
              "(SELECT 1)", "id::text; DROP TABLE public.f", "t.\"id\"", "id)) OR ((1=1", "U&\"\\0061\"", "a->>'b'", "ünï'‮", "\x01"]
PLACES = ["id=eq.{}", "t=eq.{}", "t=like.{}", "t=match.{}", "t=in.({})", 't=in.("{}")', "t=fts.{}", "t=fts({}).x", "t={}.x", "t=eq({}).%7Bx%7D", "{}=eq.1",
          "j->{}=eq.1", "j->>{}=eq.1", "tags=cs.%7B{0}%7D", "r=ov.{}", "j=cs.{}", "t=is.{}", "or=({})", "or=(t.eq.{})", 'or=(t.eq."{}")', "or=({}.eq.1)", "not.and=(t.{}.x)",
          "select={}", "select=id,{}", "select={}:id", 'select="{}":id', "select=id::{}", "select=j->{}", "select={}(id)", "select=f!{}(id)", "order={}", "order=id.{}", "order=j->>{}", 'order=j->"{}"', "limit={}", "cursor={}",
          "{}={}", "f.{}=eq.1", "offset={}"]


# Where what is taken can only be a value that no row has.
COMPARED = ("id=", "t=eq", "t=in", "tags=", "r=", "j=", "or=(t.eq")


def test_sql_in_any_place_is_refused_or_finds_nothing(f):
    def state():
        return f.sql("SELECT count(*), sum(hashtext(f::text)) FROM public.f"), f.value(
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")

    before, seen = state(), {}
    for place in PLACES:
        for text in INJECTIONS:
            q = quote(text, safe="")
            answer = f.direct.get("/api/f?" + place.replace("{0}", "{}").replace("{}", q))
            assert answer.status in (200, 400), (place, text, answer)
            seen[answer.status] = seen.get(answer.status, 0) + 1
            if answer.status == 400:
                assert answer.json["code"] not in ("bad_request", "database_error"), (place, text, answer)
            elif place.startswith(COMPARED):
                assert answer.json["data"] == [], (place, text, answer)
    assert state() == before
    print(seen)
