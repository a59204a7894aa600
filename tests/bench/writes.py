#!/usr/bin/python3
"""What an idempotent write costs beside the same INSERT without a key: whole HTTP requests straight to one
worker, PostgreSQL with fsync, 8 and 32 clients. Turns are taken, so that a slow minute of the machine hits both; medians,
and what counts is their ratio within the run.

    COMPOSURE_BIN=build/composure tests/bench/writes.py [rounds] [seconds]
"""

import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "integration"))

from harness.alone import one_worker  # noqa: E402
from harness.load import Stream, load  # noqa: E402

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 9
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 3
CONNECTIONS = 8  # to PostgreSQL, of the one worker
BODY = '{"user_id":1,"amount":5.25,"currency":"EUR"}'


def turn(workers, key, name, clients, first):
    headers = ["Idempotency-Key: k{}"] if name == "with a key" else []
    seen = load(workers, Stream(name, "/api/payments", key, connections=clients, method="POST", body=BODY,
                                headers=headers, first=first, last=first + 10**9), seconds=SECONDS)[name]
    if seen.failed or list(seen.status) != [201]:
        sys.exit(f"writes: {seen}")
    return seen.rate


def main():
    durable = {"fsync": "on", "full_page_writes": "on"}
    with one_worker(lambda database: database.load_demo(rows=1000), durable, connections=CONNECTIONS) as (database, workers):
        key, first = database.keys["demo"], 1
        for clients in (8, 32):
            rates = {"without": [], "with a key": []}
            for round_ in range(ROUNDS):
                for name in sorted(rates, reverse=bool(round_ % 2)):
                    rates[name].append(turn(workers, key, name, clients, first))
                    first += 10**6
            median = {name: statistics.median(of) for name, of in rates.items()}
            print(f"{clients} clients: {median['without']:.0f}/s without, {median['with a key']:.0f}/s with a key: "
                  f"{median['with a key'] / median['without']:.2f}", flush=True)


if __name__ == "__main__":
    main()
