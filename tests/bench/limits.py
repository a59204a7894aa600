#!/usr/bin/python3
"""What rate limits cost and protect, medians of turns that alternate, so that a slow minute of the machine hits both sides.

- A refusal (429) beside `constant`, which answers the same number of bytes to whatever is asked: straight on the
  FastCGI socket, and behind nginx. One worker each.
- A key with limits beside a key without, for rows out of PostgreSQL.
- A neighbour: p99 of another key's pages while one key asks for 50 times its rate, beside p99 without it.

    make -C build tests/bench/constant
    COMPOSURE_BIN=build/composure tests/bench/limits.py [rounds] [seconds]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "integration"))

from harness import servers  # noqa: E402
from harness.alone import one_worker  # noqa: E402
from harness.load import Stream, load  # noqa: E402
from harness.measure import medians, rate_of  # noqa: E402
from harness.process import BINARY  # noqa: E402

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 9
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 2
CLIENTS = 8


def compare(title, sides):
    """Two sides; the first is put over the second."""
    median = medians(sides, ROUNDS)
    first, second = sides
    print(f"{title}: {first} {median[first]:.2f}, {second} {median[second]:.2f}: {median[first] / median[second]:.2f}", flush=True)


def rate(target, uri, key, status):
    return rate_of(target, uri, key, status, connections=CLIENTS, seconds=SECONDS)


def neighbour(workers, victim, hammer):
    def run():
        streams = [Stream("page", "/api/users?limit=50", victim, connections=8, rate=200)]
        if hammer:
            streams.append(Stream("hammer", "/api/users/{}", hammer, connections=16, rate=50 * 20))
        seen = load(workers, *streams, seconds=max(SECONDS, 4))["page"]
        if seen.failed or list(seen.status) != [200]:
            sys.exit(f"limits: {seen}")
        return seen.p99
    return run


def main():
    def prepare(database):
        database.load_demo(rows=1000)
        for name, values in (("dry", "1, 1, '1 day'"), ("twenty", "20, 20"), ("wide", "1000000, 1000000")):
            database.sql(f"SELECT composure.create_plan('{name}', {values})")
        database.keys.update({name: database.create_key(name, role="api_user", plan=name) for name in ("dry", "twenty", "wide")})
        database.keys["free"] = database.create_key("free", role="api_user", plan=None)

    with one_worker(prepare, connections=4) as (database, workers):
        keys, home = database.keys, workers.home
        with workers.fcgi() as c:
            headers = {"Authorization": f"Bearer {keys['dry']}"}
            while (refused := c.ask("GET", "/api/users/1", headers)).status != 429:
                pass
        constant = servers.Workers(home, "constant", 1, ["--bytes", len(refused.body)], binary=BINARY.parent / "tests/bench/constant",
                                   wait=False)
        try:
            compare("429/s, straight", {"composure": rate(workers, "/api/users/1", keys["dry"], 429),
                                        "constant": rate(constant, "/api/users/1", keys["dry"], 200)})
            ours, theirs = (servers.nginx(home, name, behind) for name, behind in (("n1", workers), ("n2", constant)))
            compare("429/s, behind nginx", {"composure": rate(ours, "/api/users/1", keys["dry"], 429),
                                            "constant": rate(theirs, "/api/users/1", keys["dry"], 200)})
            ours.stop()
            theirs.stop()
        finally:
            for process in constant.processes:
                process.kill()
        compare("rows/s", {"limited": rate(workers, "/api/users/{}", keys["wide"], 200),
                           "not limited": rate(workers, "/api/users/{}", keys["free"], 200)})
        compare("p99 of another's pages, ms", {"beside 50 times its rate": neighbour(workers, keys["free"], keys["twenty"]),
                                               "alone": neighbour(workers, keys["free"], None)})


if __name__ == "__main__":
    main()
