#!/usr/bin/python3
"""What a hit of the workers' store costs: a page of 50 users under a key with limits, and the 304 of who has it, beside
`constant`, which answers as many bytes (head and body) to whatever is asked. One worker of each, straight on the FastCGI socket,
behind nginx with kept connections and behind lighttpd; medians of turns that alternate.

    make -C build tests/bench/constant
    COMPOSURE_BIN=build/composure tests/bench/hits.py [--rounds N] [--seconds N]

    --strace      system calls a request of both, by strace
    --callgrind   instructions a hit, and the ten dearest functions, by valgrind
"""

import argparse
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "integration"))

from harness import servers  # noqa: E402
from harness.alone import one_worker  # noqa: E402
from harness.load import Stream, load  # noqa: E402
from harness.measure import medians, rate_of  # noqa: E402
from harness.process import BINARY, as_user, environment, wait_until  # noqa: E402
from harness.shared import auth  # noqa: E402

CLIENTS = 16
URI = "/api/users?limit=50"


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--requests", type=int, default=20000, help="under strace; a tenth of it under callgrind")
    parser.add_argument("--strace", action="store_true")
    parser.add_argument("--callgrind", action="store_true")
    return parser.parse_args()


def prepare(database):
    database.load_demo(rows=1000)
    database.sql("SELECT composure.create_plan('wide', 1000000, 1000000);"
                 "SELECT composure.expose('public.users', cache => 'ttl=3600')")
    database.keys["wide"] = database.create_key("wide", role="api_user", plan="wide")


def hit_of(workers, key):
    """The answer, once it comes out of the store."""
    def ask():
        with workers.fcgi() as c:
            answer = c.ask("GET", URI, auth(key))
            return answer.status == 200 and "hit" in answer.headers.get("cache-status", "") and answer
    return wait_until(ask, "a hit")


@contextmanager
def constant_of(home, n_bytes):
    """`constant` with answers of that many bytes, head and body."""
    def start(n_body):
        return servers.Workers(home, f"constant-{n_body}", 1, ["--bytes", str(n_body)], binary=BINARY.parent / "tests/bench/constant",
                               wait=False)

    def end(workers):
        workers.listener.close()
        for process in workers.processes:
            process.kill()

    def size(workers):
        with workers.fcgi() as c:
            return len(c.ask("GET", "/").out)
    first = start(n_bytes - 500)
    head = size(first) - (n_bytes - 500)
    end(first)
    made = start(n_bytes - head)
    try:
        if size(made) != n_bytes:
            sys.exit(f"hits: constant answers {size(made)} bytes and not {n_bytes}")
        yield made
    finally:
        end(made)


def compare(workers, constant, key, hit, wanted):
    def rates(ours, theirs):
        def rate(target, key, status, headers=()):
            return rate_of(target, URI, key, status, CLIENTS, wanted.seconds, headers)
        return medians({"hit": rate(ours, key, 200), "constant": rate(theirs, None, 200),
                        "304": rate(ours, key, 304, ["If-None-Match: " + hit.headers["etag"]])}, wanted.rounds)
    seen = {"straight": rates(workers, constant)}
    for kind in ("nginx", "lighttpd"):
        both = [getattr(servers, kind)(workers.home, f"{kind}-{of.name}", of) for of in (workers, constant)]
        seen[kind] = rates(*both)
        for server in both:
            server.stop()
    print(f"\n{len(hit.out)} bytes, one worker, {CLIENTS} connections, medians of {wanted.rounds} turns of {wanted.seconds:g} s\n\n"
          "| | hit | constant | hit of constant | 304 | 304 of constant |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, of in seen.items():
        print(f"| {name} | {of['hit']:,.0f}/s | {of['constant']:,.0f}/s | {of['hit'] / of['constant']:.2f} | {of['304']:,.0f}/s | "
              f"{of['304'] / of['constant']:.2f} |")


def ask_often(target, key, n):
    seen = load(target, Stream("all", URI, key, connections=CLIENTS, count=n), seconds=600)["all"]
    if seen.failed or seen.status != {200: n}:
        sys.exit(f"hits: {seen}")


def calls(name, workers, server, key, n):
    """System calls a request, behind a web server."""
    pid, out = workers.processes[0].pid, workers.home.path / f"{name}.strace"
    strace = subprocess.Popen(["strace", "-c", "-f", "-o", str(out), "-p", str(pid)], stderr=subprocess.DEVNULL)
    wait_until(lambda: re.search(r"TracerPid:\s+[1-9]", Path(f"/proc/{pid}/status").read_text()), "strace to attach")
    ask_often(server, key, n)
    strace.send_signal(signal.SIGINT)
    strace.wait()
    # % time, seconds, usecs/call, calls, perhaps errors, name
    by_name = {f[-1]: int(f[3]) / n for f in map(str.split, out.read_text().splitlines()) if len(f) > 4 and f[3].isdigit()}
    total = by_name.pop("total")
    most = ", ".join(f"{k} {v:.2f}" for k, v in sorted(by_name.items(), key=lambda kv: -kv[1]) if v >= 0.005)
    print(f"{name}: {total:.2f} system calls a request: {most}", flush=True)


def callgrind(database, home, key, n):
    out = home.file("callgrind.out", "")
    wrapper = home.file("under-callgrind", "#!/bin/sh\nexec valgrind --tool=callgrind --instr-atstart=no "
                        f"--callgrind-out-file={out} {home.copy(BINARY)}\n")
    wrapper.chmod(0o755)
    workers = servers.Workers(home, "callgrind", 1, binary=wrapper, dsn=database.worker_dsn, log="none",
                              runtime_dir=home.folder("callgrind-memory"), feed_interval_ms=1000)

    def instrument(word):
        subprocess.run(as_user(["vgdb", f"--pid={workers.processes[0].pid}", "instrumentation", word]), env=environment(home),
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    workers.wait_ready()
    hit_of(workers, key)
    instrument("on")
    ask_often(workers, key, n)
    instrument("off")
    workers.stop()
    text = subprocess.run(["callgrind_annotate", str(out)], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    total = next(line for line in text if "PROGRAM TOTALS" in line)
    print(f"\n{int(total.split()[0].replace(',', '')) / n:,.0f} instructions a hit, straight on the socket, {n} hits; of them:")
    begin = next(i for i, line in enumerate(text) if "file:function" in line) + 2
    for line in text[begin:begin + 10]:
        count, share, where = re.match(r"\s*([\d,]+) \(\s*([\d.]+%)\)\s+(.*)", line).groups()
        where = re.sub(r" \[.*", "", where).rpartition("/")[2].lstrip("?:")
        print(f"{int(count.replace(',', '')) / n:8,.0f} {share:>7}  {where}")


def main():
    wanted = options()
    with one_worker(prepare, connections=4, cache_bytes=64 << 20) as (database, workers):
        key, home = database.keys["wide"], workers.home
        hit = hit_of(workers, key)
        with constant_of(home, len(hit.out)) as constant:
            if wanted.strace:
                for name, of, sent in (("composure", workers, key), ("constant", constant, None)):
                    server = servers.nginx(home, f"strace-{name}", of)
                    calls(name, of, server, sent, wanted.requests)
                    server.stop()
            elif not wanted.callgrind:
                compare(workers, constant, key, hit, wanted)
        if wanted.callgrind:
            callgrind(database, home, key, wanted.requests // 10)


if __name__ == "__main__":
    main()
