"""Load of every kind while something is broken, and what each kind saw of it.

A scene has workers under even load, far below what they can do. It is left alone for a while, then a fault happens, ends, and the load
goes on. What was answered while all was well is what the rest is measured by: the same run, the same rates, the same
connections. Beside it clients write until they know (crash.py); no write of theirs may be lost or be there twice.

COMPOSURE_FAULTS=long (`make faults`) is for a machine that does nothing else: five times the fault, and the bounds as promised.
The short form runs among other tests on whatever machine, with bounds that show what is broken and not what is busy.
"""

import os
import random
import signal
import time
from pathlib import Path

from . import crash
from .load import Load, Stream
from .process import wait_until
from .shared import ask

LONG = os.environ.get("COMPOSURE_FAULTS") == "long"

UNDISTURBED = 10 if LONG else 1.5  # seconds before the fault
HOLD = 10 if LONG else 2           # seconds that it lasts
AFTER = 5 if LONG else 3.5         # seconds after it
DEADLINE_MS = 2000 if LONG else 1000
# A p99 of half a millisecond is twice as long when the kernel once gives the processor to somebody else: below the floor no
# p99 is a finding. In the short form the tenth of a second in which silence cannot be told from slowness is more than one
# answer in a hundred.
FLOOR_MS = 5 if LONG else 150
LATE_MS = 50 if LONG else 250      # behind the deadline
RECOVERY = 2                       # seconds
GROWTH_KB = 64 << 10
WELL = 1 if LONG else 0.5          # the share of good answers before the fault, or there is nothing to compare with

SLICE, UNBROKEN = 0.1, 5  # recovered: so many slices of so many seconds with good answers and no other

WORKERS, CONNECTIONS = 2, 4
GOOD = (200, 201)


def patience():
    """Of the short form, on whatever machine, and where others want the processors: all of it takes as much longer."""
    return 1 if LONG else 3 if os.getloadavg()[0] < os.cpu_count() else 8


SQL = """
CREATE TABLE public.kept (id bigint PRIMARY KEY, word text NOT NULL);
CREATE TABLE public.plain (LIKE public.kept INCLUDING ALL);
CREATE TABLE public.other (LIKE public.kept INCLUDING ALL);
INSERT INTO public.kept SELECT n, md5(n::text) FROM generate_series(1, 200) n;
INSERT INTO public.plain SELECT * FROM public.kept;
INSERT INTO public.other SELECT * FROM public.kept;
CREATE TABLE public.notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, word text NOT NULL);
CREATE VIEW public.slow AS SELECT 1 AS id, pg_sleep(%g)::text AS slept;
GRANT SELECT ON public.kept, public.plain, public.other, public.slow TO api_user;
GRANT SELECT, INSERT ON public.notes TO api_user;
SELECT composure.expose('public.kept', cache => 'ttl=60, stale-if-error=3600');
SELECT composure.expose('public.plain');
SELECT composure.expose('public.other');
SELECT composure.expose('public.slow', key => '{id}');
SELECT composure.expose('public.notes', idempotency => 'required');
SELECT composure.expose('public.payments', idempotency => 'required');
SELECT composure.expose_function('public.transfer', idempotency => 'required');
UPDATE public.users SET balance = 1000000 WHERE id <= 100;
"""


# Large enough that the room in the last page of a table is soon used up.
NOTE = '{"word":"%s"}' % ("x" * 1500)


def prepare(database):
    """A new database, filled; returned."""
    database.migrate()
    database.load_demo(rows=1000)
    database.sql(SQL % (DEADLINE_MS / 2000))
    database.keys["demo"] = database.create_key("faults", role="api_user", plan=None)
    return database


def streams(key, seed):
    """More connections than requests can be out at their rate: none waits here."""
    return [
        Stream("cached", "/api/kept/{}", key, connections=250, rate=200, last=200),
        Stream("healthz", "/healthz", connections=20, rate=100),
        Stream("other", "/api/other/{}", key, connections=150, rate=50, last=200),
        Stream("reads", "/api/plain/{}", key, connections=150, rate=50, last=200),
        Stream("writes", "/api/notes", key, connections=150, rate=40, method="POST", body=NOTE, last=1 << 40,
               headers=[f"Idempotency-Key: n{seed}-{{}}"]),
    ]


class Answer:
    __slots__ = ("due", "at", "ms", "status", "cache")

    def __init__(self, due_us, took_us, status, cache):
        self.due, self.at, self.ms = int(due_us) / 1e6, (int(due_us) + int(took_us)) / 1e6, int(took_us) / 1000
        self.status, self.cache = int(status), cache

    def is_kept(self):
        """It came out of the store, however late; else it is PostgreSQL's, and the store had to learn it anew."""
        return "hit" in self.cache or "detail=" in self.cache


def read_records(path):
    """{stream: its answers, by when they fell due}"""
    found = {}
    for line in path.read_text().splitlines():
        name, due_us, took_us, status, cache = line.split(" ", 4)
        found.setdefault(name, []).append(Answer(due_us, took_us, status, cache))
    return {name: sorted(of, key=lambda a: a.due) for name, of in found.items()}




def percentile(answers, share):
    ms = sorted(a.ms for a in answers)
    return ms[min(int(len(ms) * share), len(ms) - 1)] if ms else 0.0


def recovered(answers, back, end):
    """Seconds from `back` until half a second of good answers without a break; None when there is none. What was asked for
    before it was back is not held against it, but good answers have to come."""
    after = [a for a in answers if a.at >= back and (a.due >= back or a.status in GOOD)]
    n = int((end - back) / SLICE)
    good, bad = [False] * n, [False] * n
    for a in after:
        at = int((a.at - back) / SLICE)
        if at < n:
            (good if a.status in GOOD else bad)[at] = True
    fine = [g and not b for g, b in zip(good, bad)]
    for i in range(n - UNBROKEN + 1):
        if all(fine[i:i + UNBROKEN]):
            return i * SLICE
    return None


class Row:
    """What one stream saw: before, and from the fault's beginning on."""

    def __init__(self, name, answers, begin, back, end):
        before = [a for a in answers if a.due < begin and a.at < begin]
        self.name, self.since = name, [a for a in answers if a.due >= begin]
        self.usual, self.p99 = percentile(before, 0.99), percentile(self.since, 0.99)
        self.well = sum(a.status in GOOD for a in before) >= max(1, WELL * len(before))
        self.p50, self.max = percentile(self.since, 0.5), max((a.ms for a in self.since), default=0)
        self.late = sum(a.ms > DEADLINE_MS + 50 for a in self.since)
        self.status = {}
        for a in self.since:
            self.status[a.status] = self.status.get(a.status, 0) + 1
        self.recovered = recovered(answers, back, end)

    def __str__(self):
        good = sum(self.status.get(s, 0) for s in GOOD)
        others = {s: n for s, n in self.status.items() if s not in (*GOOD, 503, 504)}
        back = "never" if self.recovered is None else f"{self.recovered:.1f} s"
        return (f"  {self.name:9} {good:7} {self.status.get(503, 0):6} {self.status.get(504, 0):6} {sum(others.values()):6}"
                f" {self.usual:9.1f} {self.p50:7.1f} {self.p99:8.1f} {self.max:8.1f} {self.late:5} {back:>10}"
                + (f"  {others}" if others else ""))


HEAD = ("2xx", "503", "504", "else", "usual p99", "p50 ms", "p99 ms", "max ms", "late", "recovered")


def head(title):
    a, b, c, d, *more = HEAD
    return "{:11} {:>7} {:>6} {:>6} {:>6} {:>9} {:>7} {:>8} {:>8} {:>5} {:>10}".format(title, a, b, c, d, *more)


class Writers(crash.Run):
    """Few and unhurried, until they are told to finish."""

    def __init__(self, cluster, database, workers, seed):
        super().__init__(cluster, database, workers, 0, 0, seed, n_clients=3, drops=0.02, pause=0.05)
        self.before, self.told = crash.state(database), False

    def over(self):
        return self.told

    def finish(self):
        self.told = True
        return super().finish() + crash.verify(self, self.before)


def peak_kb(process):
    """The most memory that it ever had."""
    line = next(x for x in Path(f"/proc/{process.pid}/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1])


def check_alone(workers):
    """Those of the workers that do not answer /healthz when they are the only ones who can."""
    silent = []
    for process in workers.processes:
        rest = [p for p in workers.processes if p is not process]
        try:
            for p in rest:
                p.send_signal(signal.SIGSTOP)
            if ask(workers, "/healthz").status != 200:
                silent.append(process.name)
        except OSError:
            silent.append(process.name)
        finally:
            for p in rest:
                p.send_signal(signal.SIGCONT)
    return silent


class Scene:
    def __init__(self, home, cluster, database, workers):
        self.home, self.cluster, self.database, self.workers = home, cluster, database, workers
        self.key, self.seed = database.keys["demo"], random.randrange(100000)
        self.back = None  # when it began to be there again; else when the fault returns

    def warm(self):
        for n in range(1, 201):
            assert ask(self.workers, f"/api/kept/{n}", self.key).status == 200
        wait_until(lambda: "hit" in ask(self.workers, "/api/kept/1", self.key).headers["cache-status"], "a hit")

    def run(self, title, fault, spared=(), unhurried=(), capsys=None):
        """fault(scene) makes it (and sets .database where another server has taken over) and returns when all is back: nothing, or what streams saw that were part of it, as
        read_records() gives it. Cached reads are all answered until then, /healthz and the streams in `spared` always; the
        answers out of the store, /healthz and these as quickly as before, but for those in `unhurried`."""
        self.warm()
        records = self.home.file(f"records-{self.seed}", "")
        notes = self.database.value("SELECT count(*) FROM public.notes")
        writers = Writers(self.cluster, self.database, self.workers, self.seed)
        load = Load(self.workers, *streams(self.key, self.seed), seconds=600, records=records)
        writers.start()
        time.sleep(UNDISTURBED)
        peaks = [peak_kb(p) for p in self.workers.processes]
        begin = time.monotonic()
        try:
            made = fault(self) or {}
            back = self.back or time.monotonic()
            time.sleep(AFTER)
            end = time.monotonic()
        finally:
            load.finish()
            writers.database = self.database  # another server's by now, perhaps
            wrong = writers.finish()
        seen = read_records(records)
        rows = [Row(name, of, begin, back, end) for name, of in sorted(seen.items())]
        hits = Row("hits", [a for a in seen["cached"] if a.is_kept()], begin, back, end)
        culprits = [Row(name, of, begin, back, end) for name, of in made.items()]
        grown = [(p, peak_kb(w)) for p, w in zip(peaks, self.workers.processes)]
        for r in rows:
            wrong += [*judge(r, r.name in ("healthz", *spared)), *judge_recovery(r)]
        missed = [a for a in seen["cached"] if begin <= a.due < back and a.status not in GOOD]
        wrong += [f"cached: {len(missed)} were not answered while PostgreSQL was away, those of the seconds "
                  + ", ".join(f"{a.due - begin:.3f}" for a in missed[:5]) + f" of {back - begin:.3f}"] if missed else []
        for r in culprits:
            wrong += judge(r, spared=False)
        for r in (hits, *(r for r in rows if r.name in ("healthz", *spared))):
            wrong += judge_pace(r) if r.name not in unhurried else []
        wrong += self.count_notes(seen["writes"], notes)
        wrong += [f"a worker grew from {a} to {b} KiB" for a, b in grown if b - a > GROWTH_KB]
        wrong += [f"{name} does not answer" for name in check_alone(self.workers)]
        with capsys.disabled():
            print("\n# " + "\n# ".join([head(title), *map(str, [hits, *rows, *culprits])]))
            print("#   workers' peak memory, MiB: " + ", ".join(f"{a / 1024:.1f} -> {b / 1024:.1f}" for a, b in grown)
                  + f"; {writers.written()} writes with retries: {writers.counts()}; {len(wrong)} violations", flush=True)
        assert not wrong, "\n".join(wrong[:30])

    def count_notes(self, writes, before):
        """Each acknowledged one is there, and none twice."""
        there = self.database.value("SELECT count(*) FROM public.notes") - before
        told = sum(a.status == 201 for a in writes)
        return [] if told <= there <= len(writes) else [f"{told} notes of {len(writes)} acknowledged, and {there} there"]


def judge(row, spared):
    """What was not as promised in a stream."""
    allowed = {*GOOD, *(() if spared else (409, 503, 504) if row.name == "writes" else (503, 504))}
    if set(row.status) - allowed:
        yield f"{row.name}: answered with {row.status}"
    if row.max > DEADLINE_MS + LATE_MS * patience():
        yield f"{row.name}: an answer took {row.max:.0f} ms, which is later than its deadline"


def judge_pace(row):
    if row.p99 > max(2 * row.usual, FLOOR_MS * patience()):
        yield f"{row.name}: p99 is {row.p99:.1f} ms, and {row.usual:.1f} ms undisturbed"


def judge_recovery(row):
    if not row.well:
        yield f"{row.name}: it was not well before"
    if row.recovered is None or row.recovered > RECOVERY * patience():
        yield f"{row.name}: recovered after {row.recovered} s"
