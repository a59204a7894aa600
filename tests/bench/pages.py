#!/usr/bin/python3
"""What a page costs by how deep it lies: page 1, 100 and 10,000 of a table of 1,000,000 rows in the order (created_at desc,
id desc), which has an index; beside the same page by OFFSET, which is PostgreSQL's time alone. Pages are asked for in random order.

    COMPOSURE_BIN=build/composure tests/bench/pages.py [rows] [rounds]
"""

import base64
import json
import random
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "integration"))

from harness.alone import one_worker  # noqa: E402
from harness.straight import Straight  # noqa: E402

ROWS = int(sys.argv[1]) if len(sys.argv) > 1 else 1000000
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 200
LIMIT = 50
PAGES = [p for p in (1, 100, 10000) if p * LIMIT <= ROWS]
ORDER = "ORDER BY created_at DESC, id DESC"


def ms(call):
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000


def told(times):
    return f"{statistics.median(times):.2f} ms ({sorted(times)[len(times) // 10]:.2f})"


def prepare(database):
    database.sql(f"""
        CREATE ROLE api_user NOLOGIN; SELECT composure.check_key_role('api_user');
        CREATE TABLE public.events (id bigint PRIMARY KEY, created_at timestamptz NOT NULL, kind text NOT NULL, amount numeric);
        INSERT INTO public.events SELECT g, timestamptz '2020-01-01' + (g / 3) * interval '1 second', 'kind ' || g % 10, g / 100.0
          FROM generate_series(1, {ROWS}) g;
        CREATE INDEX ON public.events (created_at DESC, id DESC);
        GRANT SELECT ON public.events TO api_user;
        SELECT composure.expose('public.events', default_order => 'created_at desc, id desc')""")
    database.keys["bench"] = database.create_key("bench", role="api_user")


def uri_of(client, cursor, page):
    """The page's own URI: by the cursor that the list itself gives on the row before it."""
    if page == 1:
        return f"/api/events?limit={LIMIT}"
    cursor.execute(f"SELECT created_at, id FROM public.events {ORDER} OFFSET {(page - 1) * LIMIT - 2} LIMIT 1")
    before, id_before = cursor.fetchone()
    plain = base64.urlsafe_b64encode(json.dumps({"created_at": before.isoformat(), "id": id_before}).encode()).rstrip(b"=").decode()
    one = client.get(f"/api/events?limit=1&cursor={plain}")
    return f"/api/events?limit={LIMIT}&cursor=" + one.json["next_cursor"]


def measure(database, client):
    connection = database.connect()
    cursor = connection.cursor()
    uris = {p: uri_of(client, cursor, p) for p in PAGES}
    by_cursor, by_offset = {p: [] for p in PAGES}, {p: [] for p in PAGES}
    for p in PAGES:
        cursor.execute(f"PREPARE page_{p} AS SELECT id, created_at, kind, amount FROM public.events {ORDER} LIMIT {LIMIT} OFFSET {(p - 1) * LIMIT}")
        cursor.execute(f"EXECUTE page_{p}")
        expected = [row[0] for row in cursor.fetchall()]
        assert [row["id"] for row in client.get(uris[p]).json["data"]] == expected, p
    rng = random.Random(1)
    for n in range(ROUNDS):
        for p in rng.sample(PAGES, len(PAGES)):
            by_cursor[p].append(ms(lambda: client.get(uris[p])))
    for n in range(ROUNDS // 10):
        for p in rng.sample(PAGES, len(PAGES)):
            by_offset[p].append(ms(lambda: (cursor.execute(f"EXECUTE page_{p}"), cursor.fetchall())))
    connection.close()
    print(f"{ROWS:,} rows, {LIMIT} a page; {ROUNDS} requests and {ROUNDS // 10} statements each: median, and the quickest tenth\n")
    print("| page | by cursor, the whole request | by OFFSET, PostgreSQL alone |\n| ---: | ---: | ---: |")
    for p in PAGES:
        print(f"| {p:,} | {told(by_cursor[p])} | {told(by_offset[p])} |")


def main():
    with one_worker(prepare) as (database, workers):
        client = Straight(workers, database.keys["bench"])
        measure(database, client)
        client.close()


if __name__ == "__main__":
    main()
