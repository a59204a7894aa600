"""Pages on any order: random tables, orders, filters and limits. Forward and backward walks have to be the brute-force
sort of PostgreSQL, cut into pages: no gap, no duplicate; and while rows come and go around the cursor, every row that
was there throughout appears exactly once, in its place.

COMPOSURE_WALKS=20000 COMPOSURE_SEED=7 run more of them, of another seed (make soak).
"""

import os
import random
import re
from urllib.parse import quote

import pytest

from conftest import copy_of
from harness.process import wait_until
from harness.site import site
from harness.straight import Straight

WALKS = int(os.environ.get("COMPOSURE_WALKS", "500"))
SEED = int(os.environ.get("COMPOSURE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)

SETUP = """
CREATE TYPE public.mood AS ENUM ('sad', 'ok', 'happy');
CREATE COLLATION public.german (provider = icu, locale = 'de-u-kn');
CREATE COLLATION public.folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE public.parent (id int PRIMARY KEY, name text, rank numeric);
INSERT INTO public.parent SELECT g, (ARRAY['x','y',NULL,'z'])[1 + g % 4], nullif(g % 3, 1) FROM generate_series(1, 6) g;
"""

# Types, and few values each: ties are heavy.
TYPES = {
    "int": ["-1", "0", "7"],
    "bigint": ["9223372036854775807", "-9223372036854775808", "0"],
    "numeric": ["0.1", "0.10000000000000000001", "-5", "NaN", "123456789012345678901234567890.5"],
    "float8": ["0.1", "0.30000000000000004", "NaN", "Infinity", "-1e300"],
    "float4": ["0.1", "16777217", "-0"],
    "boolean": ["true", "false"],
    "text": ["", "a", "a\"b", "ä'\\", "z,)(", "10", "9", "\u2028\u0001&=+%", "{\"x\":1}"],
    'text COLLATE "C"': ["B", "a", "ä"],
    "text COLLATE public.german": ["a10", "a9", "Ä", "b"],
    "text COLLATE public.folded": ["same", "SAME", "other"],
    "char(3)": ["a", "ab", "b"],
    "varchar(9)": ["x", "y"],
    "date": ["2020-02-29", "infinity", "0044-03-15 BC"],
    "timestamptz": ["2020-01-01 00:00:00.000001+00", "2020-01-01 00:00:00.000002+00", "-infinity"],
    "timestamp": ["1999-12-31 23:59:59.999999", "2000-01-01"],
    "time": ["00:00:00.000001", "23:59:59"],
    "interval": ["1 day", "24 hours", "-1 mon"],
    "uuid": ["00000000-0000-0000-0000-000000000001", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
    "public.mood": ["sad", "ok", "happy"],
    "int[]": ["{}", "{1,NULL}", "{1,2}"],
    "jsonb": ["{\"k\":1}", "{\"k\":\"a\"}", "[]", "null"],
    "inet": ["10.0.0.1", "10.0.0.0/8", "::1"],
    "int4range": ["empty", "[1,5)", "(,3)"],
    "bytea": ["\\x00ff", "\\x"],
}


def literal(text):
    return "NULL" if text is None else "'" + text.replace("'", "''") + "'"


class Table:
    def __init__(self, rng, number):
        self.name = f"t{number}"
        self.path = f"/api/{self.name}"
        self.types = [rng.choice(list(TYPES)) for _ in range(rng.randint(1, 4))]
        self.columns = [f"c{i}" for i in range(len(self.types))]
        self.not_null = [rng.random() < 0.35 for _ in self.types]
        self.key = ["id"] if rng.random() < 0.7 else ["k1", "k2"]
        self.n = rng.randint(0, 45)
        self.next_id = self.n + 1000

    def value(self, rng, i):
        return None if not self.not_null[i] and rng.random() < 0.3 else rng.choice(TYPES[self.types[i]])

    def row(self, rng, number, old):
        data = rng.choice([None, '{"k": 1}', '{"k": "b", "l": [2]}', '{"k": null}', "[]"])
        cells = [self.value(rng, i) for i in range(len(self.types))]
        return "(" + ", ".join([str(number), str(number % 5), f"'k{number:05d}'", literal(rng.choice([None, "1", "3", "4", "6"])),
                                literal(data), str(old).lower()] + [literal(c) for c in cells]) + ")"

    def create(self, rng):
        columns = ", ".join(f"{c} {t}" + (" NOT NULL" if nn else "") for c, t, nn in zip(self.columns, self.types, self.not_null))
        key = ", ".join(self.key)
        yield (f"CREATE TABLE public.{self.name} (id int NOT NULL UNIQUE, k1 int NOT NULL, k2 text NOT NULL, parent_id int REFERENCES public.parent,"
               f" data jsonb, old boolean NOT NULL, {columns}, PRIMARY KEY ({key}))")
        if self.n:
            yield f"INSERT INTO public.{self.name} VALUES " + ", ".join(self.row(rng, i + 1, True) for i in range(self.n))
        if rng.random() < 0.5:
            yield f"CREATE INDEX ON public.{self.name} (" + ", ".join(f"{c} {rng.choice(['', 'DESC'])}" for c in self.columns) + ")"
        yield f"SELECT composure.expose('public.{self.name}')"


class Case:
    """One list: its query string, and the same in SQL."""

    def __init__(self, rng, table):
        self.table = table
        self.limit = rng.choice([1, 2, 3, 5, 8, 20])
        self.params, self.where, self.order = [], [], []
        select = ["id"]
        subjects = [(c, f"t.{c}") for c in table.columns]
        subjects += [("data->>k", "t.data->>'k'"), ("data->k", "t.data->'k'"), ("data->l->0", "t.data->'l'->0")]
        if rng.random() < 0.4:
            subjects += [("parent(name)", "p.name"), ("parent(rank)", "p.rank")]
            select.append("parent(name)" if rng.random() < 0.5 else "parent()")
        if rng.random() < 0.9:
            self.take_order(rng, subjects)
        for _ in range(rng.choice([0, 0, 0, 1, 2])):
            self.take_filter(rng)
        self.key_order()
        if rng.random() < 0.3:
            select.insert(0, "*" if rng.random() < 0.5 else rng.choice(table.columns))
        self.params.append("select=" + ",".join(select))
        self.params.append(f"limit={self.limit}")
        rng.shuffle(self.params)

    def take_order(self, rng, subjects):
        asked = []
        for name, sql in rng.sample(subjects, min(len(subjects), rng.randint(1, 4))):
            desc, nulls = rng.choice(["", ".asc", ".desc"]), rng.choice(["", "", ".nullsfirst", ".nullslast"])
            asked.append(name + desc + nulls)
            self.desc = desc == ".desc"
            self.order.append(f"{sql} {'DESC' if self.desc else 'ASC'}"
                              + {".nullsfirst": " NULLS FIRST", ".nullslast": " NULLS LAST"}.get(nulls, ""))
        self.params.append("order=" + ",".join(asked))

    def key_order(self):
        down = " DESC" if self.order and self.desc else ""
        self.order += [f"t.{k}{down}" for k in self.table.key]

    def take_filter(self, rng):
        i = rng.randrange(len(self.table.columns))
        column, value = self.table.columns[i], rng.choice(TYPES[self.table.types[i]])
        name, sql = rng.choice([
            (f"{column}=not.is.null", f"t.{column} IS NOT NULL"),
            (f"{column}=gte.{quote(value, safe='')}", f"t.{column} >= {literal(value)}"),
            (f"{column}=neq.{quote(value, safe='')}", f"t.{column} <> {literal(value)}"),
            ("id=gt.7", "t.id > 7"), ("or=(k1.in.(1,2),data.is.null)", "(t.k1 IN (1, 2) OR t.data IS NULL)"),
            (f"not.and=({column}.is.null,k1.lt.3)", f"NOT (t.{column} IS NULL AND t.k1 < 3)")])
        self.params.append(name)
        self.where.append(sql)

    def uri(self):
        return self.table.path + "?" + "&".join(p.replace(">", "%3E") for p in self.params)

    def sql(self):
        where = " WHERE " + " AND ".join(self.where) if self.where else ""
        return (f"SELECT t.id FROM public.{self.table.name} t LEFT JOIN public.parent p ON p.id = t.parent_id{where}"
                f" ORDER BY {', '.join(self.order)}")


class Walker:
    def __init__(self, client, connection):
        self.client, self.connection = client, connection

    def ids(self, sql):
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            return [row[0] for row in cursor.fetchall()]

    def page(self, uri):
        answer = self.client.get(uri)
        assert answer.status == 200, answer.out
        body = answer.json
        return [row["id"] for row in body["data"]], body, self.client.link(answer, "prev"), self.client.link(answer, "next")

    def forward(self, case, between=lambda: None):
        """Pages of ids, by next_cursor, and the last page's way back."""
        pages, uri = [], case.uri()
        while True:
            rows, body, prev, following = self.page(uri)
            assert body["has_more"] == (body["next_cursor"] is not None)
            assert len(rows) == case.limit if body["has_more"] else len(rows) <= case.limit
            assert (following is not None) == body["has_more"] and (not following or following.endswith("cursor=" + body["next_cursor"]))
            assert (prev is not None) == bool(pages and rows)
            pages.append(rows)
            if not body["has_more"]:
                return pages, prev
            assert len(pages) < 500
            uri = case.uri() + "&cursor=" + body["next_cursor"]
            between()

    def backward(self, prev, between=lambda: None):
        pages = []
        while prev:
            between()
            rows, body, prev, following = self.page(prev)
            pages.insert(0, rows)
            assert following or not rows
            assert len(pages) < 500
        return pages


def flat(pages):
    return [i for page in pages for i in page]


def check_still(walker, case):
    expected = walker.ids(case.sql())
    pages, prev = walker.forward(case)
    assert flat(pages) == expected
    assert walker.forward(case)[0] == pages
    back = walker.backward(prev)
    assert flat(back) == expected[:len(expected) - len(pages[-1])]
    return len(pages)


def check_moving(walker, case, rng, connection):
    """Rows with old = false come and go between the pages; the others are all there, once, in their order."""
    def churn():
        t = case.table
        with connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM public.{t.name} WHERE NOT old AND random() < 0.5")
            rows = []
            for _ in range(rng.randint(0, 4)):
                rows.append(t.row(rng, t.next_id, False))
                t.next_id += 1
            if rows:
                cursor.execute(f"INSERT INTO public.{t.name} VALUES " + ", ".join(rows))

    churn()
    old = [i for i in walker.ids(case.sql()) if i < 1000]
    pages, prev = walker.forward(case, churn)
    seen = [i for i in flat(pages) if i < 1000]
    assert seen == old
    assert len(set(flat(pages))) == len(flat(pages))
    last = pages[-1]
    if last: # of a page that the rows have left meanwhile there is no way back
        back = [i for i in flat(walker.backward(prev, churn)) if i < 1000]
        assert back == old[:len(old) - sum(i < 1000 for i in last)]
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM public.{case.table.name} WHERE NOT old")
    return len(pages)


@pytest.fixture(scope="module")
def walks(home, demo_template):
    database = copy_of(demo_template)
    database.sql(SETUP)
    with site(home, "walks", database, cursor_max_bytes=4096) as made:
        yield made


def make_tables(made, rng, count):
    tables = [Table(rng, i) for i in range(count)]
    made.sql("DROP TABLE IF EXISTS " + ", ".join(f"public.t{i}" for i in range(count)) + " CASCADE")
    connection = made.database.connect()
    with connection.cursor() as cursor:
        for t in tables:
            for statement in t.create(rng):
                cursor.execute(statement)
        cursor.execute("SELECT composure.expose('public.parent')")
        cursor.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO api_user")
    connection.close()
    made.settle()
    return tables


def test_walks_are_the_sort_of_postgresql_cut_into_pages(walks):
    print(f"COMPOSURE_SEED={SEED} COMPOSURE_WALKS={WALKS}")
    rng = random.Random(SEED)
    connection = walks.database.connect()
    client = Straight(walks.workers, walks.database.keys["demo"])
    walker = Walker(client, connection)
    done = pages = 0
    while done < WALKS:
        tables = make_tables(walks, rng, 20)
        for _ in range(min(500, WALKS - done)):
            case = Case(rng, rng.choice(tables))
            try:
                if rng.random() < 0.3:
                    pages += check_moving(walker, case, rng, connection)
                else:
                    pages += check_still(walker, case)
            except AssertionError as error:
                raise AssertionError(f"COMPOSURE_SEED={SEED}, walk {done}\n{case.uri()}\n{case.sql()}\n{case.table.types} {case.table.not_null}\n{error}") from error
            done += 1
    print(f"{done} walks, {pages} pages forward")
    client.close()
    connection.close()


def test_a_cursor_of_another_list_is_refused(walks):
    client = Straight(walks.workers, walks.database.keys["demo"])

    def cursor_of(query):
        return client.get("/api/payments?limit=2&" + query).json["next_cursor"]

    plain, filtered, ordered = cursor_of(""), cursor_of("amount=gt.1"), cursor_of("order=amount.desc")
    assert plain == "eyJpZCI6Mn0"
    assert client.get(f"/api/payments?amount=gt.1&limit=5&cursor={filtered}&select=id").status == 200
    for query in ("", "amount=gt.2", "amount=gte.1", "order=amount.desc", "amount=gt.1&id=gt.0"):
        answer = client.get(f"/api/payments?{query}&cursor={filtered}")
        assert (answer.status, answer.json["code"]) == (400, "invalid_cursor"), query
    for query in ("", "order=amount", "order=amount.desc.nullslast", "order=amount.desc&id=gt.1"):
        answer = client.get(f"/api/payments?{query}&cursor={ordered}")
        assert (answer.status, answer.json["code"]) == (400, "invalid_cursor"), query
    # A plain one goes wherever its columns fit the order.
    for query in ("amount=gt.1", "select=id", "order=id"):
        assert client.get(f"/api/payments?{query}&cursor={plain}").json["data"][0]["id"] >= 3
    assert client.get(f"/api/payments?amount=gt.1&id=lt.9&cursor={cursor_of('id=lt.9&amount=gt.1')}").status == 200
    client.close()


@pytest.fixture(scope="module")
def explained(home, demo_template):
    """A site whose PostgreSQL writes the plan of every statement into its log."""
    database = copy_of(demo_template)
    database.sql(f"""
        ALTER DATABASE "{database.name}" SET session_preload_libraries = 'auto_explain';
        ALTER DATABASE "{database.name}" SET auto_explain.log_min_duration = 0;
        CREATE TABLE public.big (id bigint PRIMARY KEY, a int NOT NULL, n int, created_at timestamptz NOT NULL, doc jsonb NOT NULL);
        INSERT INTO public.big SELECT g, g % 50, nullif(g % 40, 3), timestamptz '2020-01-01' + (g / 3) * interval '1 second',
          jsonb_build_object('k', 'v' || g % 1000) FROM generate_series(1, 30000) g;
        CREATE INDEX ON public.big (created_at DESC, id DESC);
        CREATE INDEX ON public.big (a, id DESC);
        CREATE INDEX ON public.big (n, id);
        CREATE INDEX ON public.big (n DESC NULLS LAST, id DESC);
        CREATE INDEX ON public.big ((doc ->> 'k'), id);
        CREATE INDEX ON public.big (a, created_at, id);
        ANALYZE public.big;
        GRANT SELECT ON public.big TO api_user;
        SELECT composure.expose('public.big')""")
    with site(home, "explained", database) as made:
        yield made


def plan_of(made, client, uri):
    log = made.database.cluster.process
    before = len(log.output())
    assert client.get(uri).status == 200, uri

    def plans():
        parts = log.output()[before:].split(" plan:")[1:]
        return [p.split(" LOG: ")[0] for p in parts if '"public"."big"' in p.split(" LOG: ")[0]]
    return wait_until(lambda: (found := plans()) and found[-1], "the plan in PostgreSQL's log")


ORDERS = ["", "order=id.desc", "order=created_at.desc", "order=created_at.desc,id.desc", "order=created_at", "order=a,id.desc",
          "order=a.desc,id", "order=n", "order=n.desc", "order=n.desc.nullslast,id.desc", "order=n.nullsfirst,id", "order=doc-%3E%3Ek",
          "a=eq.7&order=created_at"]


@pytest.mark.parametrize("query", ORDERS)
def test_a_deep_page_comes_from_an_index_without_a_sort(explained, query):
    client = Straight(explained.workers, explained.database.keys["demo"])
    page, uri = None, f"/api/big?limit=50&{query}"
    for _ in range(4):
        answer = client.get(uri)
        uri = client.link(answer, "next")
    for at in (uri, client.link(answer, "prev")):
        plan = plan_of(explained, client, at)
        assert "Index" in plan and "Seq Scan" not in plan, f"{at}\n{plan}"
        # Branches are merged, each cut to a page before: PostgreSQL may sort that page's rows, nothing else.
        lines = plan.splitlines()
        for i, line in enumerate(lines):
            if re.search(r"(^|-> ) *(Incremental )?Sort ", line):
                below = [x for x in lines[i + 1:] if "->" in x]
                assert below and "->  Limit" in below[0], f"{at}\n{plan}"
    client.close()
