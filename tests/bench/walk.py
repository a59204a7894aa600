#!/usr/bin/python3
"""The walk over all of the demo's users by cursor, straight to a worker: that every id comes once, and what a page costs
at the end beside what it costs at the beginning (medians of 200 pages each, asked for in turn).

    COMPOSURE_BIN=build/composure tests/bench/walk.py [rows]
"""

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "integration"))

from harness.alone import one_worker  # noqa: E402
from harness.straight import Straight  # noqa: E402

ROWS = int(sys.argv[1]) if len(sys.argv) > 1 else 100000


def ms(call):
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000


def walk(client):
    seen, uri, uris = [], "/api/users?limit=50", []
    while uri:
        page = client.get(uri).json
        seen += [row["id"] for row in page["data"]]
        uris.append(uri)
        uri = page["has_more"] and f"/api/users?limit=50&cursor={page['next_cursor']}"
    return seen, uris


def main():
    with one_worker(lambda database: database.load_demo(rows=ROWS)) as (database, workers):
        client = Straight(workers, database.keys["demo"])
        seen, uris = walk(client)
        all_ids = [row[0] for row in database.sql("SELECT id FROM public.users ORDER BY id")]
        print(f"{len(seen):,} ids in {len(uris):,} pages: {'each once' if seen == all_ids else 'WRONG'}")
        times = {"first": [], "last": []}
        for _ in range(200):
            for name, uri in (("first", uris[0]), ("last", uris[-1])):
                times[name].append(ms(lambda uri=uri: client.get(uri)))
        first, last = (statistics.median(times[name]) for name in ("first", "last"))
        print(f"first page {first:.3f} ms, last page {last:.3f} ms: {last / first:.2f}")
        client.close()
    sys.exit(seen != all_ids)


if __name__ == "__main__":
    main()
