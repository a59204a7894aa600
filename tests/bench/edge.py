#!/usr/bin/python3
"""What a public answer costs, by who has it: nginx's own cache (conf/nginx-cache.conf), the workers' store behind nginx
(conf/nginx.conf), and beside them a file of the same bytes that nginx serves. One worker, one process of nginx for each side, kept
connections; medians of turns that alternate.

    COMPOSURE_BIN=build/composure tests/bench/edge.py [rounds] [seconds]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "integration"))

from harness import servers  # noqa: E402
from harness.alone import one_worker  # noqa: E402
from harness.measure import medians, rate_of  # noqa: E402

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 7
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 2
CLIENTS = 16
URI = "/api/countries?limit=50"


def main():
    with one_worker(lambda database: database.load_demo(rows=1000), peer="nginx", cache_bytes=64 << 20) as (database, workers):
        edge = servers.nginx(workers.home, "edge", workers, conf="nginx-cache.conf")
        plain = servers.nginx(workers.home, "plain", workers)
        body = edge.client().get(URI).body
        (workers.home.path / "www/same.json").write_bytes(body)
        shown = edge.client().get(URI), plain.client().get(URI), plain.client().get("/same.json")
        said = [answer.headers.get_all("Cache-Status") for answer in shown]
        if "nginx; hit" not in (said[0] or []) or "Composure; hit" not in str(said[1]) or {a.body for a in shown} != {body}:
            sys.exit(f"edge: not what is to be measured: {said}")
        seen = medians({
            "file": rate_of(plain, "/same.json", None, 200, CLIENTS, SECONDS),
            "nginx's cache": rate_of(edge, URI, None, 200, CLIENTS, SECONDS),
            "the workers' store": rate_of(plain, URI, None, 200, CLIENTS, SECONDS)}, ROUNDS)
        print(f"\n{len(body)} bytes, requests a second, medians of {ROUNDS} turns of {SECONDS:g} s")
        for name, rate in seen.items():
            print(f"{name:20} {rate:8.0f}  {rate / seen['file']:.2f} of the file")
        edge.stop()
        plain.stop()


if __name__ == "__main__":
    main()
