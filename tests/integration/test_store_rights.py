"""What somebody may no longer see is not served out of the store either, whatever took the right away."""

import os
import threading
import time

import pytest

from harness.process import wait_until
from harness.shared import POINTS, auth, host

# The watcher looks at the catalogs of PostgreSQL once a second.
IN_FORCE_S = 1.5

SQL = """
CREATE TABLE public.secrets (id int PRIMARY KEY, of text, word text, secret text);
INSERT INTO public.secrets SELECT i, 'of ' || i % 2, 'word ' || i, 'secret ' || i FROM generate_series(1, 6) i;
CREATE FUNCTION public.may_see(of text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT $1 = 'of 1' $$;
ALTER TABLE public.secrets ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON public.secrets USING (public.may_see(of));
GRANT SELECT ON public.secrets TO api_user;
SELECT composure.expose('public.secrets', cache => 'ttl=600');
CREATE TABLE public.plain (id int PRIMARY KEY, word text, secret text);
INSERT INTO public.plain SELECT id, word, secret FROM public.secrets;
GRANT SELECT ON public.plain TO api_user;
SELECT composure.expose('public.plain', cache => 'ttl=600');
"""

POLICY, FUNCTION = "ALTER POLICY p ON public.secrets USING ({})", "CREATE OR REPLACE FUNCTION public.may_see(of text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT $1 = '{}' $$"

# What is done, whose answers change, and whether one is as it is to be from then on.
STEPS = [
    ("REVOKE", "REVOKE SELECT ON public.secrets FROM api_user", "secrets", lambda a: a.status == 403),
    ("GRANT", "GRANT SELECT ON public.secrets TO api_user", "secrets", lambda a: a.status == 200 and b"word 1" in a.body),
    ("REVOKE of a column's", "REVOKE SELECT ON public.plain FROM api_user; GRANT SELECT (id, word) ON public.plain TO api_user", "plain",
     lambda a: a.status == 403 or b"secret" not in a.body),
    ("GRANT of a column", "GRANT SELECT ON public.plain TO api_user", "plain", lambda a: a.status == 200 and b"secret 1" in a.body),
    ("ALTER POLICY", POLICY.format("of = 'of 0'"), "secrets", lambda a: b"word 1" not in a.body),
    ("ALTER POLICY back", POLICY.format("public.may_see(of)"), "secrets", lambda a: a.status == 200 and b"word 1" in a.body),
    ("CREATE OR REPLACE FUNCTION", FUNCTION.format("of 0"), "secrets", lambda a: b"word 1" not in a.body),
    ("CREATE OR REPLACE FUNCTION back", FUNCTION.format("of 1"), "secrets", lambda a: a.status == 200 and b"word 1" in a.body),
    ("hidden", "SELECT composure.expose('public.plain', hidden => '{secret}', cache => 'ttl=600')", "plain",
     lambda a: a.status == 200 and b"secret" not in a.body),
    ("unexpose", "SELECT composure.unexpose('plain')", "plain", lambda a: a.status == 404),
]


class Asking(threading.Thread):
    """Asks one worker without a pause. `seen`: when each question began, whose it was, and the answer."""

    def __init__(self, workers, key):
        super().__init__(daemon=True)
        self.workers, self.key, self.seen, self.stopping, self.fault = workers, key, [], threading.Event(), None

    def run(self):
        try:
            with self.workers.fcgi() as c:
                while not self.stopping.is_set():
                    for name in ("secrets", "plain"):
                        for uri in (f"/api/{name}?limit=9", f"/api/{name}/1"):
                            begin = time.monotonic()
                            self.seen.append((begin, name, c.ask("GET", uri, auth(self.key))))
                    self.stopping.wait(0.002)
        except Exception as error:  # noqa: BLE001 - the test shows it
            self.fault = error

    def last(self, name):
        return [(begin, a) for begin, which, a in self.seen[-8:] if which == name]


def is_hit(answer):
    return answer.headers.get("cache-status", "").startswith("Composure; hit")


@pytest.mark.once
def test_no_hit_shows_what_may_no_longer_be_seen(fresh_database, new_home, workers, capsys):
    database = fresh_database
    database.sql(SQL)
    key = database.create_key("reads", role="api_user", plan=None)
    made = [workers(1, database, runtime_dir=host(new_home, name), log="none") for name in ("a", "a", "b")]
    asking = [Asking(one, key) for one in made]
    for thread in asking:
        thread.start()
    took, hits = {}, 0
    bound = IN_FORCE_S * (1 if os.getloadavg()[0] < os.cpu_count() and not POINTS else 3)
    try:
        for what, text, name, good in STEPS:
            for thread in asking:
                wait_until(lambda: not thread.is_alive() or any(is_hit(a) for _, a in thread.last(name)) or all(
                    a.status != 200 for _, a in thread.last(name)), f"hits before {what}")
            begun = [len(thread.seen) for thread in asking]
            database.sql(text)
            done = time.monotonic()

            def is_so(a):
                # A row that is hidden now is not there at all.
                return good(a) or (a.status == 404 and "back" not in what and what.startswith(("ALTER", "CREATE")))
            for thread in asking:
                wait_until(lambda: not thread.is_alive() or all(begin > done and is_so(a) for begin, a in thread.last(name)), what)
                assert not thread.fault, thread.fault
            # And stays so: of what began after the bound, nothing is as it was.
            late = max(begin for thread, n in zip(asking, begun) for begin, which, a in thread.seen[n:] if which == name and not is_so(a)) \
                if any(which == name and not is_so(a) for thread, n in zip(asking, begun) for _, which, a in thread.seen[n:]) else done
            took[what] = max(late - done, 0)
            hits += sum(is_hit(a) for thread, n in zip(asking, begun) for _, _, a in thread.seen[n:])
    finally:
        for thread in asking:
            thread.stopping.set()
            thread.join()
    with capsys.disabled():
        print(f"\n# old answers last seen: {', '.join(f'{what} {1000 * s:.0f} ms' for what, s in took.items())} ({hits} hits meanwhile)")
    assert hits > 100
    for what, seconds in took.items():
        assert seconds < bound, (what, seconds)


# What a server does all day: no right changes, and nothing that `plain` is made of.
TRAFFIC = [
    "CREATE TEMP TABLE t (id serial PRIMARY KEY, n int DEFAULT 7 CHECK (n > 0))", "CREATE TEMP VIEW tv AS SELECT * FROM public.plain",
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "TRUNCATE public.secrets", "VACUUM FULL public.secrets", "ANALYZE",
    "REINDEX TABLE CONCURRENTLY public.plain", "REFRESH MATERIALIZED VIEW public.made", "CREATE TABLE public.staging (id serial PRIMARY KEY CHECK (id > 0))",
]


def test_traffic_ends_nothing_that_is_kept_of_others(fresh_database, workers):
    database = fresh_database
    database.sql(f"ALTER DATABASE {database.name} SET track_functions = 'all'")
    database.sql(SQL + "CREATE MATERIALIZED VIEW public.made AS SELECT 1 AS id; CREATE UNIQUE INDEX ON public.made (id); "
                       "SELECT composure.expose('public.made', key => '{id}')")
    key = database.create_key("reads", role="api_user", plan=None)
    made = workers(1, database, log="none")
    session = database.connect()

    def ask():
        with made.fcgi() as c:
            return c.ask("GET", "/api/plain?limit=9", auth(key))

    def looks():
        with session.cursor() as cursor:
            cursor.execute("SELECT calls FROM pg_stat_user_functions WHERE funcname = 'catalog_state'")
            return (cursor.fetchone() or (0,))[0]

    wait_until(lambda: is_hit(ask()), "a hit")
    for statement in TRAFFIC:
        with session.cursor() as cursor:
            cursor.execute(statement)
    # What PostgreSQL counts comes some looks late.
    begun = looks()
    wait_until(lambda: looks() >= begun + 4, "the watcher's looks", 60)
    assert is_hit(ask())
    session.close()
