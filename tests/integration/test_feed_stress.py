"""The change feed under all that may go wrong, followed by src/db/feed.c (tests/load/feed_follow): directly and through
PgBouncer, both at the same time, against 16 writers.

COMPOSURE_SOAK is for how many seconds the writers write; `make soak` takes 60, half of it with a transaction open.
"""

import os
import random
import shutil
import signal
import threading
import time
from collections import Counter

import psycopg2
import pytest
from harness.cluster import Cluster
from harness.feed import FOLLOW, Follower, PgBouncer
from harness.process import Home, wait_until

SECONDS = float(os.environ.get("COMPOSURE_SOAK", 5))
WRITERS = 16
LEVELS = ("READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")

pytestmark = [pytest.mark.once,
              pytest.mark.skipif(not FOLLOW.exists(), reason="tests/load/feed_follow is not built")]

# The writer has no right on composure's tables: the trigger has.
TABLES = """
    DO $$ BEGIN CREATE ROLE stress_writer LOGIN; EXCEPTION WHEN duplicate_object THEN END $$;
    CREATE TABLE public.stress (key text PRIMARY KEY);
    CREATE TABLE public.contended (id int PRIMARY KEY, n bigint NOT NULL DEFAULT 0);
    INSERT INTO public.contended SELECT generate_series(1, 8);
    CREATE FUNCTION public.note_stress() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
      SET search_path = pg_catalog, pg_temp AS $f$
    BEGIN
      PERFORM composure.note_change('stress', ARRAY(SELECT key FROM touched LIMIT 101));
      RETURN NULL;
    END $f$;
    CREATE TRIGGER note_stress AFTER INSERT ON public.stress
      REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION public.note_stress();
    GRANT SELECT, INSERT ON public.stress TO stress_writer;
    GRANT SELECT, UPDATE ON public.contended TO stress_writer;
"""


class Writers:
    """16 sessions that write keys, each key once: with savepoints, rollbacks, prepared transactions, at every isolation
    level. `sent` has when the commit of a key was asked for, if it was."""

    def __init__(self, database, hold=0.0, seed=1):
        self.database, self.hold, self.seed = database, hold, seed
        self.sent, self.prepared, self.counts, self.faults = {}, {}, Counter(), []
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(i,), daemon=True) for i in range(WRITERS)]
        if hold:
            self.threads.append(threading.Thread(target=self.run_long, daemon=True))

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    def finish(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(self.hold + 60)
        assert not self.faults, self.faults
        return self

    def connect(self):
        connection = self.database.connect("stress_writer")
        cursor = connection.cursor()
        cursor.execute("SET lock_timeout = '5s'; SET client_min_messages = error")
        return connection, cursor

    def run(self, number):
        rng = random.Random(f"{self.seed}.{number}")
        connection = None
        while not self.stopped.is_set():
            try:
                if connection is None:
                    connection, cursor = self.connect()
                self.transaction(cursor, rng, number)
            except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
                self.counts["failed"] += 1
                if isinstance(error, psycopg2.extensions.TransactionRollbackError) or error.pgcode == "55P03":
                    cursor.execute("ROLLBACK")
                else:
                    connection = None
                    self.stopped.wait(0.05)
            except Exception as error:  # noqa: BLE001 - shown by finish()
                self.faults.append(repr(error))
                return

    def insert(self, cursor, rng, number, keys):
        fresh = [f"{self.seed}-{number}-{self.counts[number] + i}" for i in range(rng.choice((1, 1, 1, 2, 5)))]
        self.counts[number] += len(fresh)
        cursor.execute("INSERT INTO public.stress SELECT unnest(%s)", (fresh,))
        keys += fresh

    def pause(self, rng):
        if rng.random() < 0.2:
            time.sleep(rng.choice((0.001, 0.01, 0.03, 0.1)))

    def transaction(self, cursor, rng, number):
        keys = []
        cursor.execute(f"BEGIN ISOLATION LEVEL {rng.choice(LEVELS)}")
        for _ in range(rng.randint(1, 3)):
            kind = rng.random()
            if kind < 0.4:
                cursor.execute("SAVEPOINT a")
                self.insert(cursor, rng, number, keys)
                if kind < 0.2:
                    cursor.execute("SAVEPOINT b")
                    self.insert(cursor, rng, number, keys)
                    cursor.execute("ROLLBACK TO b" if kind < 0.1 else "RELEASE b")
                cursor.execute(rng.choice(("ROLLBACK TO a", "RELEASE a")))
                self.counts["savepoints"] += 1
            else:
                self.insert(cursor, rng, number, keys)
            self.pause(rng)
        if rng.random() < 0.1:
            cursor.execute("UPDATE public.contended SET n = n + 1 WHERE id = %s", (rng.randint(1, 8),))
        self.end(cursor, rng, keys)

    def end(self, cursor, rng, keys):
        kind = rng.random()
        if kind < 0.15:
            cursor.execute("ROLLBACK")
            self.counts["rolled back"] += 1
        elif kind < 0.35:
            name = keys[-1]
            self.prepared[name] = keys
            cursor.execute(f"PREPARE TRANSACTION '{name}'")
            self.pause(rng)
            self.end_prepared(cursor, name, kind < 0.3)
        else:
            self.mark(keys)
            cursor.execute("COMMIT")
            self.counts["committed"] += 1

    def mark(self, keys):
        now = time.monotonic()
        self.sent.update((key, now) for key in keys)

    def end_prepared(self, cursor, name, commit):
        if commit:
            self.mark(self.prepared[name])
        cursor.execute(f"{'COMMIT' if commit else 'ROLLBACK'} PREPARED '{name}'")
        self.counts["committed in two phases" if commit else "rolled back"] += 1

    def end_all_prepared(self):
        """Those that a crash left behind."""
        names = [row[0] for row in self.database.sql("SELECT gid FROM pg_prepared_xacts ORDER BY 1")]
        for n, name in enumerate(names):
            connection, cursor = self.connect()
            self.end_prepared(cursor, name, n % 2 == 0)
            connection.close()
        return names

    def run_long(self):
        connection, cursor = self.connect()
        keys = []
        cursor.execute("BEGIN")
        for _ in range(10):
            self.insert(cursor, random.Random(self.seed), "long", keys)
        self.stopped.wait(self.hold)
        self.insert(cursor, random.Random(self.seed), "long", keys)
        self.mark(keys)
        cursor.execute("COMMIT")
        self.counts["open for long"] += 1
        connection.close()


def check_visible(database, unseen):
    """on_poll: what is told is visible to another session at this moment."""
    connection = []

    def check(changes):
        keys = [k for e in changes if e.resource == "stress" for k in e.keys or ()]
        try:
            if not connection:
                connection.append(database.connect())
            with connection[0].cursor() as cursor:
                cursor.execute("SELECT key FROM public.stress WHERE key = ANY (%s)", (keys,))
                unseen.extend(set(keys) - {row[0] for row in cursor.fetchall()})
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            connection.clear()  # the crash
    return check


class Verdict:
    """What a follower told beside what was committed."""

    def __init__(self, follower, writers, committed, unseen):
        told = Counter(k for e in follower.of("changed", "stress") for k in e.keys or ())
        first = {}
        for e in follower.of("changed", "stress"):
            for key in e.keys or ():
                first.setdefault(key, e.at)
        everything = [e.at for e in follower.of("everything")]
        untold = committed - set(told)
        self.covered = {k for k in untold if any(at > writers.sent[k] for at in everything)}
        self.missed = untold - self.covered
        self.never_committed = set(told) - committed
        self.doubled = {k for k, n in told.items() if n > 1}
        self.early = {k for k, at in first.items() if at < writers.sent.get(k, float("inf"))} | set(unseen)
        late = sorted(at - writers.sent[k] for k, at in first.items() if k in writers.sent)
        polls = sorted(e.at - e.asked for e in follower.of("polled"))
        self.line = (f"{follower.name}: {len(told)} keys told, {len(self.missed)} missed, {len(self.doubled)} doubled, "
                     f"{len(self.early)} early, {len(self.never_committed)} never committed, {len(self.covered)} in everything "
                     f"({len(everything)} times); told after ms: median {at(late, .5)}, 99 % {at(late, .99)}, "
                     f"longest {at(late, 1)}; {len(polls)} polls, ms: median {at(polls, .5)}, 99 % {at(polls, .99)}")

    def check(self):
        assert not (self.missed or self.doubled or self.early or self.never_committed), \
            (self.line, self.missed, self.doubled, self.early, self.never_committed)


def at(values, share):
    return f"{values[min(len(values) - 1, int(len(values) * share))] * 1000:.1f}" if values else "-"


@pytest.fixture
def say(capsys):
    """A line for people, also where pytest keeps the output back."""
    def say(text):
        with capsys.disabled():
            print(f"# {text}", flush=True)
    return say


@pytest.fixture(scope="module")
def stressed():
    """A cluster that these tests have for themselves, crashes included, and its database."""
    home = Home()
    cluster = Cluster(home, max_prepared_transactions=64)
    database = cluster.create_database("stress")
    database.migrate()
    database.sql(TABLES)
    yield database
    if cluster.process.alive():
        cluster.stop()
    home.remove()


@pytest.fixture
def database(stressed):
    if not stressed.cluster.process.alive():
        stressed.cluster.start()
    stressed.sql("TRUNCATE public.stress, composure.change")
    return stressed


@pytest.fixture
def followers(database, new_home, running):
    """Directly and, where it is installed, through PgBouncer. Each has `unseen`: keys told before others could see them."""
    def start(*options):
        ways = [("direct", database.worker_dsn, ())]
        if shutil.which("pgbouncer"):
            bouncer = PgBouncer(new_home, database.cluster)
            running.append(bouncer)
            ways.append(("pooled", bouncer.dsn(database.name), ("--pooled",)))
        made = []
        for name, dsn, more in ways:
            unseen = []
            follower = Follower(new_home, name, dsn, *options, *more, on_poll=check_visible(database, unseen))
            follower.unseen = unseen
            running.append(follower)
            made.append(follower)
        return [f.wait_started() for f in made]
    return start


def surprises(follower, retention, after=0.0):
    """What it called everything for, but for polls that did come late: the machine may be busy with other tests."""
    words, polled = [], None
    for e in follower.events:
        if e.kind == "polled":
            polled = e.asked
        elif e.kind == "everything" and e.at > after:
            late = polled is not None and e.at - polled > retention / 2
            if not (late and e.words in ("the last poll was long ago", "changes were deleted before they were read")):
                words.append(e.words)
    return words


def committed_keys(database):
    return {row[0] for row in database.sql("SELECT key FROM public.stress")}


def summary(writers, committed):
    named = {k: n for k, n in writers.counts.items() if isinstance(k, str) and k != "long"}
    return f"{WRITERS} writers: {len(committed)} keys; transactions: " + ", ".join(f"{n} {k}" for k, n in sorted(named.items()))


def worked(writers, seconds):
    """Waits until the writers have committed what a machine of any use commits in so long, and were at it for so long."""
    begin, wanted = time.monotonic(), writers.counts["committed"] + 100 * seconds
    wait_until(lambda: time.monotonic() - begin >= seconds and writers.counts["committed"] >= wanted, "the writers' work",
               seconds + 120)


def test_each_committed_change_is_told_once_and_not_before(database, followers, say):
    following = followers("--retention-us", "5000000")
    writers = Writers(database, hold=SECONDS / 2).start()
    worked(writers, SECONDS)
    wait_until(lambda: writers.counts["open for long"] == 1, "the long transaction to end", SECONDS + 60)
    writers.finish()
    committed = committed_keys(database)
    assert writers.counts["open for long"] == 1 and len(committed) > 100 * SECONDS
    say(summary(writers, committed))
    for follower in following:
        follower.wait_polled()
        verdict = Verdict(follower, writers, committed, follower.unseen)
        say(verdict.line)
        verdict.check()
        assert surprises(follower, 5) == ["the feed starts"]
    # The rows go, though one transaction was open for longer than they live.
    wait_until(lambda: database.value("SELECT count(*) FROM composure.change") == 0, "the feed to be cleaned")


def test_a_crash_of_postgresql_is_everything(database, followers, say):
    following = followers("--retention-us", "4000000")
    before = Writers(database, seed=1).start()
    worked(before, SECONDS / 2)
    database.cluster.kill()
    crashed = time.monotonic()
    database.cluster.start()
    for follower in following:
        wait_until(lambda: any(e.at > crashed for e in follower.of("everything")), f"{follower.name} to tell of the crash", 60)
    worked(before, SECONDS / 2)
    before.finish()
    left = before.end_all_prepared()
    committed = committed_keys(database)
    say(f"a crash: {summary(before, committed)}; {len(left)} prepared before it, ended after it")
    for follower in following:
        follower.wait_polled()
        verdict = Verdict(follower, before, committed, follower.unseen)
        say(verdict.line)
        verdict.check()
        words = surprises(follower, 4, crashed)
        assert words[0] == "PostgreSQL crashed or was replaced"
        # And then only for what was prepared before.
        assert set(words[1:]) <= {"rights changed"}


def test_a_transaction_prepared_before_a_crash_is_everything_when_it_ends(database, followers):
    following = followers()
    database.sql("BEGIN; INSERT INTO public.stress VALUES ('prepared'); PREPARE TRANSACTION 'p'")
    database.cluster.kill()
    crashed = time.monotonic()
    database.cluster.start()
    for follower in following:
        wait_until(lambda: any(e.at > crashed for e in follower.of("everything")), "the crash to be told", 60)
        follower.wait_polled()
    restarted = time.monotonic()
    database.sql("COMMIT PREPARED 'p'")
    for follower in following:
        follower.wait_polled()
        follower.wait_polled()
        assert surprises(follower, 10, restarted) == ["rights changed"]


def test_a_clean_restart_is_everything_once(database, followers):
    following = followers()
    stopped = time.monotonic()
    database.cluster.restart()
    for follower in following:
        wait_until(lambda: any(e.at > stopped for e in follower.of("everything")), "the restart to be told", 60)
    database.sql("INSERT INTO public.stress VALUES ('after')")
    for follower in following:
        follower.wait_polled()
        assert surprises(follower, 10, stopped) == ["PostgreSQL was restarted"]
        assert [e.keys for e in follower.of("changed", "stress")] == [["after"]]


def test_a_follower_that_was_stopped_for_longer_than_rows_live_takes_everything_for_changed(database, followers, new_home,
                                                                                            running):
    (sleeper, *_) = followers("--retention-us", "2000000")
    other = Follower(new_home, "other", database.worker_dsn, "--retention-us", "2000000")
    running.append(other)
    other.wait_started()
    sleeper.send_signal(signal.SIGSTOP)
    database.sql("INSERT INTO public.stress VALUES ('slept')")
    wait_until(lambda: database.value("SELECT gone <> '0' FROM composure.feed_epoch"), "the row to be deleted")
    assert [e.keys for e in other.of("changed", "stress")] == [["slept"]]
    woken = time.monotonic()
    sleeper.send_signal(signal.SIGCONT)
    sleeper.wait_polled()
    told = [e.words for e in sleeper.of("everything") if e.at > woken]
    assert told in (["changes were deleted before they were read"],
                    # A poll was on its way when it was stopped.
                    ["the last poll was long ago", "changes were deleted before they were read"])
    assert surprises(other, 2) == ["the feed starts"]


def test_a_feed_that_was_stopped_starts_with_everything(database, followers):
    following = followers()
    for follower in following:
        follower.send_signal(signal.SIGUSR1)
        wait_until(lambda: follower.of("stopped"), f"{follower.name} to stop")
        count = len(follower.events)
        database.sql("SELECT composure.note_change('stress', '{unheard}')")
        follower.send_signal(signal.SIGUSR2)
        follower.wait_polled()
        assert [e.kind for e in follower.events[count:count + 2]] == ["everything", "polled"]
        assert not any("unheard" in (e.keys or ()) for e in follower.events[count:])


def test_more_changes_at_once_than_are_read_one_by_one_are_everything(database, followers):
    following = followers()
    then = time.monotonic()
    database.sql("INSERT INTO composure.change (resource, keys) SELECT 'stress', ARRAY[i::text] FROM generate_series(1, 10001) i")
    for follower in following:
        follower.wait_polled()
        assert [e.words for e in follower.of("everything") if e.at > then] == ["more changed at once than is read one by one"]
        assert not follower.of("changed")
    database.sql("INSERT INTO composure.change (resource, keys) SELECT 'stress', ARRAY[i::text] FROM generate_series(1, 10000) i")
    for follower in following:
        follower.wait_polled()
        assert sum(len(e.keys) for e in follower.of("changed")) == 10000


def test_a_quiet_server_with_one_old_change_is_no_reason_for_everything(database, followers):
    """Nothing else moves the snapshots' xmax on, by which followers tell whether deleted rows were read."""
    following = followers("--retention-us", "2000000")
    database.sql("INSERT INTO public.stress VALUES ('alone')")
    wait_until(lambda: database.value("SELECT NOT EXISTS (SELECT FROM composure.change)"), "it to be deleted")
    for follower in following:
        follower.wait_polled()
        follower.wait_polled()
        assert surprises(follower, 2) == ["the feed starts"]
        assert [e.keys for e in follower.of("changed", "stress")] == [["alone"]]
    # And with nothing to delete it is left alone.
    xid = database.value("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
    following[0].wait_polled(time.monotonic() + 2.5)
    assert database.value("SELECT pg_snapshot_xmax(pg_current_snapshot())::text") == xid
