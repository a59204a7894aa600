#!/usr/bin/python3
"""What a refusal by an open breaker costs, beside a hit of the workers' store: the median time of an answer while PostgreSQL is
stopped, the refusals and the hits in turns that alternate, and of the hits before it was. One worker, straight on the FastCGI
socket and behind nginx with kept connections, the same clients for all.

    COMPOSURE_BIN=build/composure tests/bench/breaker.py [--rounds N] [--seconds N]
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "integration"))

from harness import servers  # noqa: E402
from harness.alone import one_worker  # noqa: E402
from harness.measure import medians, time_of  # noqa: E402
from harness.process import wait_until  # noqa: E402
from harness.shared import ask  # noqa: E402

CLIENTS = 16
KEPT, NOT_KEPT = "/api/users?limit=50", "/api/payments/1"


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2)
    return parser.parse_args()


def prepare(database):
    database.load_demo(rows=1000)
    database.sql("SELECT composure.expose('public.users', cache => 'ttl=3600, stale-if-error=3600');"
                 "SELECT composure.expose('public.payments', cache => NULL)")
    database.keys["bench"] = database.create_key("bench", role="api_user", plan=None)


def is_refused(workers, key):
    """At once, without a try: PostgreSQL's breaker opens within a second of its end."""
    answer = ask(workers, NOT_KEPT, key)
    return answer.status == 503 and json.loads(answer.body)["code"] in ("database_unavailable", "circuit_open")


def main():
    wanted = options()
    with one_worker(prepare, connections=4, cache_bytes=64 << 20) as (database, workers):
        key = database.keys["bench"]
        assert ask(workers, NOT_KEPT, key).status == 200
        wait_until(lambda: "hit" in ask(workers, KEPT, key).headers["cache-status"], "a hit")
        nginx = servers.nginx(workers.home, "nginx", workers)
        targets = {"straight": workers, "nginx": nginx}

        def turns(**sides):
            return {name: medians({side: time_of(target, uri, key, status, CLIENTS, wanted.seconds)
                                   for side, (uri, status) in sides.items()}, wanted.rounds) for name, target in targets.items()}
        before = turns(hit=(KEPT, 200))
        database.cluster.stop()
        wait_until(lambda: is_refused(workers, key), "refusals")
        away = turns(hit=(KEPT, 200), refused=(NOT_KEPT, 503))
        nginx.stop()
    print(f"\none worker, {CLIENTS} connections, medians of {wanted.rounds} turns of {wanted.seconds:g} s, milliseconds an answer\n\n"
          "| | hit | hit, PostgreSQL stopped | refused | refused of hit |\n| --- | ---: | ---: | ---: | ---: |")
    for name in targets:
        hit, stale, refused = before[name]["hit"], away[name]["hit"], away[name]["refused"]
        print(f"| {name} | {hit:.3f} | {stale:.3f} | {refused:.3f} | {refused / hit:.2f} |")


if __name__ == "__main__":
    main()
