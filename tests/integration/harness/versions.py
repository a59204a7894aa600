"""Rows whose versions only grow, who writes them, who reads them, and whether what was read was true.

    log = Log()
    Writer(...), Api(...) write into it when a commit was asked for and when it had returned; Readers (tests/load/readers)
    says what was read and when. judge(readers, log) compares.

Times are microseconds of CLOCK_MONOTONIC. A row's versions are in the order of its commits. Rows above 100 come and go:
an odd version is there, the even one that follows it is its deletion; each is written by one writer alone.
"""

import json
import mmap
import random
import re
import signal
import struct
import subprocess
import threading
import time
from bisect import bisect_right
from collections import Counter, defaultdict

from .process import BINARY
from .shared import auth, kill_all

PROGRAM = BINARY.parent / "tests/load/readers"
ROWS = 12
COMING_AND_GOING = {"sql": 101, "a": 201, "b": 301}
ALLOWED_US = 45000    # feed_interval and 20 ms
BLIND_US = 5000000    # what says of itself that the feed was not heard (detail=blind)

SQL = f"""
CREATE TABLE public.owners (owner int PRIMARY KEY, name text NOT NULL);
CREATE TABLE public.things (item int PRIMARY KEY, version int NOT NULL DEFAULT 1, pad text NOT NULL DEFAULT '', sum text,
  kind int NOT NULL DEFAULT 1, owner int NOT NULL DEFAULT 1 REFERENCES public.owners);
CREATE FUNCTION public.next_version() RETURNS trigger LANGUAGE plpgsql AS $f$
BEGIN
  IF TG_OP = 'UPDATE' AND OLD.item <= 100 THEN NEW.version := OLD.version + 1; END IF;
  NEW.pad := repeat(md5(NEW.version::text), 24);
  NEW.sum := encode(sha256(convert_to(NEW.item || ':' || NEW.version || ':' || NEW.pad, 'UTF8')), 'hex');
  RETURN NEW;
END $f$;
CREATE TRIGGER next_version BEFORE INSERT OR UPDATE ON public.things FOR EACH ROW EXECUTE FUNCTION public.next_version();
INSERT INTO public.owners SELECT i, 'owner ' || i FROM generate_series(1, 3) i;
INSERT INTO public.things (item, kind, owner) SELECT i, 1 + i % 3, 1 + i % 3 FROM generate_series(1, {ROWS}) i;
INSERT INTO public.things (item, kind) SELECT i, 9 FROM generate_series(1001, 1150) i;
CREATE VIEW public.seen AS SELECT t.item, t.version, o.name FROM public.things t JOIN public.owners o USING (owner) WHERE t.item < 1000;
CREATE FUNCTION public.slow() RETURNS int LANGUAGE plpgsql STABLE AS $f$ BEGIN PERFORM pg_sleep(0.01); RETURN 1; END $f$;
CREATE VIEW public.slowly AS SELECT t.item, t.version, s.s FROM public.things t, (SELECT public.slow() AS s OFFSET 0) s WHERE t.item < 100;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.things, public.owners TO api_user;
GRANT SELECT ON public.seen, public.slowly TO api_user;
SELECT composure.expose('public.owners', cache => 'ttl=600');
SELECT composure.expose('public.things', methods => '{{GET,POST,PUT,PATCH,DELETE}}', cache => 'ttl=600');
SELECT composure.expose('public.slowly', key => '{{item}}', cache => 'ttl=600', trust_me => true);
SELECT composure.expose('public.seen', key => '{{item}}', cache => 'ttl=600');
"""

# What is read, and which of the rows that come and go are in it when they are there.
SLOWLY = "/api/slowly?select=item,version&limit=50"
ALL = frozenset(COMING_AND_GOING.values())
URIS = {
    **{f"/api/things/{i}": frozenset() for i in range(1, ROWS + 1)},
    **{f"/api/things/{i}": frozenset([i]) for i in ALL},
    "/api/things?item=lt.1000&order=item.asc&limit=50": ALL,
    "/api/things?kind=eq.1&select=item,version&limit=50": ALL,
    "/api/things?item=lt.100&order=version.desc&select=item,version&limit=5": frozenset(),
    "/api/owners?select=owner,things(item,version)&owner=gt.1": frozenset(),
    "/api/owners/2?select=owner,things(item,version)": frozenset(),
    "/api/seen?order=item.asc&select=item,version&limit=50": ALL,
    "/api/seen/3": frozenset(),
    SLOWLY: frozenset(),
    "/api/slowly/2": frozenset(),
}


def now_us():
    return time.monotonic_ns() // 1000


class Log:
    """What was written. `via` is None for what went straight to PostgreSQL, else the number of the host."""

    def __init__(self):
        self.acked = defaultdict(list)    # item: (version, when the commit had returned, via)
        self.begun = {}                   # (item, version) of a deletion: when it was asked for

    def wrote(self, item, version, via):
        self.acked[item].append((version, now_us(), via))

    def deletes(self, item, version):
        self.begun[item, version] = now_us()


class Stepper(threading.Thread):
    """Calls step() with pauses of up to `pause` seconds until stopped."""

    def __init__(self, log, name, via, pause, seed=1):
        super().__init__(daemon=True)
        self.log, self.via, self.pause = log, via, pause
        self.random = random.Random(f"{seed}.{name}")
        self.stopping = threading.Event()
        self.own, self.version, self.done, self.fault, self.refusal = COMING_AND_GOING[name], 0, 0, None, None

    def run(self):
        try:
            while not self.stopping.is_set():
                self.step(self.random.random())
                self.done += 1
                self.stopping.wait(self.random.uniform(0, self.pause))
        except Exception as error:  # noqa: BLE001 - finish() shows it
            self.fault = error

    def finish(self):
        self.stopping.set()
        self.join(20)
        assert not self.fault, repr(self.fault)
        assert not self.is_alive(), f"a writer hangs: {self.refusal}"

    def come_or_go(self):
        self.version += 1
        if self.version % 2:
            self.come()
        else:
            self.log.deletes(self.own, self.version)
            self.go()
        self.log.wrote(self.own, self.version, self.via)


class Straight(Stepper):
    """Writes past Composure: one row, several, all of them, in transactions of some length."""

    def __init__(self, log, database, pause=0.1):
        super().__init__(log, "sql", None, pause)
        self.connection = database.connect()

    def rows(self, text, *parameters):
        with self.connection.cursor() as cursor:
            cursor.execute(text, parameters)
            return cursor.fetchall() if cursor.description else []

    def come(self):
        self.rows("INSERT INTO public.things (item, version) VALUES (%s, %s)", self.own, self.version)

    def go(self):
        self.rows("DELETE FROM public.things WHERE item = %s", self.own)

    def update(self, where):
        return self.rows(f"UPDATE public.things SET pad = '' WHERE {where} RETURNING item, version")

    def step(self, which):
        if which < 0.2:
            return self.come_or_go()
        if which < 0.6:
            wrote = self.update(f"item = {self.random.randint(1, ROWS)}")
        elif which < 0.63:
            wrote = self.update("item < 100 OR item > 1000")  # more keys than are noted one by one
        else:
            self.rows("BEGIN")
            wrote = []
            for item in sorted(self.random.sample(range(1, ROWS + 1), 3)):
                wrote += self.update(f"item = {item}")
            self.stopping.wait(self.random.uniform(0, 0.03))
            self.rows("COMMIT")
        for item, version in wrote:
            if item <= ROWS:
                self.log.wrote(item, version, self.via)


class Api(Stepper):
    """Writes through one host. What its worker's death left open is written again."""

    def __init__(self, log, name, via, workers, key, pause=0.1):
        super().__init__(log, name, via, pause)
        self.workers, self.key, self.connection, self.lost = workers, key, None, 0

    def ask(self, method, uri, body=None):
        while True:
            try:
                self.connection = self.connection or self.workers.fcgi(10)
                headers = {**auth(self.key), "Content-Type": "application/json"} if body is not None else auth(self.key)
                answer = self.connection.ask(method, uri, headers, json.dumps(body).encode() if body is not None else b"")
                if self.done % 20 == 0:
                    self.connection.close()
                    self.connection = None
                if answer.status < 500:
                    return answer
                self.refusal = answer.out
            except (OSError, AssertionError) as error:
                self.refusal = error
                if self.connection:
                    self.connection.close()
                self.connection = None
            self.lost += 1
            self.stopping.wait(0.02)

    def come(self):
        answer = self.ask("PUT", f"/api/things/{self.own}", {"item": self.own, "version": self.version, "kind": 1, "owner": 1})
        assert answer.status in (200, 201), answer.out

    def go(self):
        answer = self.ask("DELETE", f"/api/things/{self.own}")
        assert answer.status in (200, 204, 404), answer.out

    def step(self, which):
        if which < 0.2:
            return self.come_or_go()
        item = self.random.randint(1, ROWS)
        answer = self.ask("PATCH", f"/api/things/{item}", {"pad": "x"})
        assert answer.status == 200, answer.out
        version = int(re.search(rb'"version":(\d+)', answer.body).group(1))
        self.log.wrote(item, version, self.via)
        # Its own write at once, also where others have just asked and wait for what was before it.
        answer = self.ask("GET", SLOWLY)
        read = int(re.search(rb'"item":%d,"version":(\d+)' % item, answer.body).group(1))
        assert read >= version, f"it wrote version {version} of {item}, and reads {answer.out}"


class Readers:
    """A run of tests/load/readers on the hosts."""

    def __init__(self, home, hosts, key, seconds, uris=tuple(URIS), connections=3, deadline_ms=2000, reuse=64, name="reads"):
        self.uris, self.file = list(uris), home.path / name
        argv = ["setpriv", "--pdeathsig", "KILL", "--", PROGRAM, "--seconds", seconds, "--out", self.file, "--key", key,
                "--connections", connections, "--deadline-ms", deadline_ms, "--reuse", reuse]
        for host in hosts:
            argv += ["--host", host.path]
        for uri in self.uris:
            argv += ["--uri", uri]
        self.popen = subprocess.Popen([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def running(self):
        return self.popen.poll() is None

    def end(self):
        if self.running():
            self.popen.terminate()
        return self.result()

    def result(self):
        out, self.said = self.popen.communicate(timeout=300)
        assert self.popen.returncode == 0, self.said
        self.seen = json.loads(out)
        return self.seen

    def reads(self):
        """(begin, end, uri, status, host, how, rows) of each."""
        data, at = self.file.read_bytes(), 0
        head = struct.Struct("<qqHHHBB")
        while at < len(data):
            begin, end, uri, status, n, host, how = head.unpack_from(data, at)
            at += head.size
            flat = struct.unpack_from(f"<{2 * n}I", data, at)
            at += 8 * n
            yield begin, end, self.uris[uri], status, host, how, list(zip(flat[::2], flat[1::2]))


class History:
    """Of one row: since when something newer than a version must have been seen."""

    def __init__(self, acked):
        acked = sorted(acked)
        self.versions = [version for version, _, _ in acked]
        self.since = [when for _, when, _ in acked]
        for i in range(len(acked) - 2, -1, -1):
            self.since[i] = min(self.since[i], self.since[i + 1])

    def stale_us(self, version, begin):
        """How long before `begin` something newer was acknowledged; 0: it was not."""
        i = bisect_right(self.versions, version)
        return max(begin - self.since[i], 0) if i < len(self.versions) else 0


class Judgement:
    def __init__(self):
        self.reads, self.how, self.status, self.wrong, self.violations = 0, Counter(), Counter(), [], 0
        self.stalest = {"hit": 0, "miss": 0, "blind": 0}
        self.stale_reads = self.late_blind = 0

    @property
    def hits(self):
        return sum(n for how, n in self.how.items() if how & 1)

    def wrongly(self, *what):
        self.violations += 1
        if len(self.wrong) < 20:
            self.wrong.append(what)

    def __str__(self):
        return (f"{self.reads} reads, {self.hits} hits ({100 * self.hits / max(self.reads, 1):.0f} %),"
                f" {sum(n for how, n in self.how.items() if how & 3 == 2)} collapsed,"
                f" {sum(n for how, n in self.how.items() if how & 4)} blind, {self.violations} violations,"
                f" stalest hit {self.stalest['hit'] / 1000:.1f} ms ({self.stale_reads} reads behind what was committed elsewhere),"
                f" stalest blind {self.stalest['blind'] / 1000:.1f} ms, {self.late_blind} rows of blind reads later than the rest may be")


def judge(readers, log, expected_status=(200, 404)):
    """Every read against what was written: nothing older than ALLOWED_US before it began, nothing older than what this host
    had acknowledged, no deleted row."""
    everywhere = {item: History(acked) for item, acked in log.acked.items()}
    on_host = defaultdict(dict)
    for item, acked in log.acked.items():
        for host in {via for _, _, via in acked} - {None}:
            on_host[host][item] = History([a for a in acked if a[2] == host])
    deletions = defaultdict(list)
    for (item, version), when in sorted(log.begun.items(), key=lambda one: one[1]):
        deletions[item].append((when, version))
    j = Judgement()
    nothing = History([])

    def look(item, version, begin, host, how, read):
        elsewhere = everywhere.get(item, nothing).stale_us(version, begin)
        here = on_host[host].get(item, nothing).stale_us(version, begin)
        kind = "blind" if how & 4 else "hit" if how & 1 else "miss"
        j.stalest[kind] = max(j.stalest[kind], elsewhere)
        j.late_blind += kind == "blind" and elsewhere > ALLOWED_US
        if here:
            j.wrongly("not its own write", item, version, here, read)
        elif elsewhere > (BLIND_US + ALLOWED_US if how & 4 else ALLOWED_US):
            j.wrongly("stale", item, version, elsewhere, read)
        return bool(elsewhere)

    for read in readers.reads():
        begin, end, uri, status, host, how, rows = read
        j.reads += 1
        j.how[how] += 1
        j.status[status] += 1
        coming = URIS.get(uri, frozenset())
        behind = False
        if status not in expected_status or how & 8 or (status == 404 and not coming):
            j.wrongly("status", status, how, read)
            continue
        for item, version in rows:
            behind |= look(item, version, begin, host, how, read)
        for item in coming.difference(item for item, _ in rows) if coming else ():
            # Not there: its state is a deletion that had begun by then, the latest of them.
            behind |= look(item, latest_deletion(deletions[item], end), begin, host, how, read)
        j.stale_reads += behind
    return j


def latest_deletion(deletions, end):
    """The version that is the last deletion which had been asked for by `end`; 0: it was not there yet."""
    i = bisect_right(deletions, (end, 1 << 32))
    return deletions[i - 1][1] if i else 0


# --- who kills and stops workers ---

def holders(processes):
    """Those that have the watch, by what they say at log_level=debug."""
    return [p for p in processes if p.alive() and p.output().count("has the watch") > p.output().count("lost the watch")]


class Killer:
    """Every `pause` seconds: a worker of a host, often the one that has the watch, is killed and replaced, or
    stopped for a second. Not a thread: what a thread started dies with it (PR_SET_PDEATHSIG)."""

    def __init__(self, hosts, pause=0.3, how=("kill", "stop"), watch=0.5, at_once=1, seed=1):
        """`watch`: the share of strikes that are at who has the watch; at_once: so many of a host are stopped."""
        self.hosts, self.pause, self.how, self.watch, self.at_once = hosts, pause, how, watch, at_once
        self.random, self.counts, self.stopped = random.Random(seed), Counter(), []

    def strike_while(self, condition):
        due = time.monotonic()
        try:
            while condition():
                self.go_on(1.0)
                if time.monotonic() >= due:
                    self.strike(self.random.choice(self.hosts))
                    due = max(due + self.pause, time.monotonic() - self.pause)
                time.sleep(0.005)
        finally:
            self.go_on(0)

    def go_on(self, after):
        for process, since in list(self.stopped):
            if time.monotonic() - since >= after:
                process.send_signal(signal.SIGCONT)
                self.stopped.remove((process, since))

    def strike(self, host):
        standing = [p for p, _ in self.stopped]
        able = [p for p in host.processes if p not in standing]
        watching = holders(able) if self.random.random() < self.watch else []
        how = self.random.choice(self.how)
        if how == "stop" and len(host.processes) - len(able) >= self.at_once:
            return
        victim = self.random.choice(watching or able)
        self.counts[how] += 1
        self.counts["of the watch"] += bool(watching)
        if how == "stop":
            victim.send_signal(signal.SIGSTOP)
            self.stopped.append((victim, time.monotonic()))
            return
        kill_all([victim])
        victim.popen.wait()
        host.processes.remove(victim)
        host.start_one()


class Heartbeat(threading.Thread):
    """How old the heartbeat of a host got (shm/watch.c: the fourth word of the watch's file, milliseconds of
    CLOCK_BOOTTIME). `ages` has the greatest age before each beat."""

    def __init__(self, path):
        super().__init__(daemon=True)
        with open(path, "rb") as f:
            self.memory = mmap.mmap(f.fileno(), 4096, prot=mmap.PROT_READ)
        self.ages, self.stopping = [], threading.Event()

    def run(self):
        before, oldest = 0, 0
        while not self.stopping.wait(0.002):
            beat = struct.unpack_from("<Q", self.memory, 24)[0]
            now = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000000
            if beat != before and before:
                self.ages.append(oldest)
                oldest = 0
            before, oldest = beat, max(oldest, now - beat)
        self.ages.append(oldest)

    def finish(self):
        self.stopping.set()
        self.join()
        return sorted(self.ages)
