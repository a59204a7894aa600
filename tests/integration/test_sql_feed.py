"""The change feed in SQL: what the triggers note, what a poll tells, what is deleted, and who may do what."""

import shutil
import subprocess

import psycopg2
import pytest
from harness.feed import PgBouncer
from harness.process import SOURCE, wait_until
from sqlcluster import Session

FUTURE = "9000000000:9000000000:"


@pytest.fixture(scope="module")
def shared(migrated_template):
    return migrated_template.cluster.create_database("sql_feed", migrated_template.name)


@pytest.fixture
def session(shared):
    session = Session(shared)
    session.run("TRUNCATE composure.resource, composure.plan, composure.plan_window, composure.api_key, composure.api_secret;"
                " DROP TABLE IF EXISTS public.t; TRUNCATE composure.change")
    yield session
    session.close()


@pytest.fixture
def other(shared):
    session = Session(shared)
    yield session
    session.close()


@pytest.fixture
def feed(session, shared):
    feed = Feed(shared)
    yield feed
    feed.close()


class Feed(Session):
    """A worker that polls: poll() gives the changes since the last one as (resource, keys)."""

    def __init__(self, database, user="composure_worker"):
        super().__init__(database, user)
        self.snapshot = None
        self.poll()

    def ask(self, previous):
        """The first row's snapshot, epoch and gone, and the changes."""
        first, *changes = self.run("SELECT snapshot, epoch, gone, resource, keys FROM composure.feed_poll(%s)", previous)
        assert first[0] is not None and first[3:] == (None, None)
        assert all(c[:3] == (None, None, None) for c in changes)
        return first[:3], [c[3:] for c in changes]

    def poll(self):
        (self.snapshot, self.epoch, self.gone), changes = self.ask(self.snapshot)
        return changes


def note(session, resource="t", keys="{1}"):
    session.run("SELECT composure.note_change(%s, %s)", resource, keys)


def waiting(session):
    return session.one("SELECT count(*) FROM composure.change")


# What is noted

def test_a_change_is_told_with_its_keys_or_as_all(session, feed):
    note(session, "users", "{1,b,\"c d\"}")
    note(session, "users", None)
    note(session, "countries", "{}")
    assert feed.poll() == [("users", ["1", "b", "c d"]), ("users", None)]
    assert feed.poll() == []


def test_a_change_needs_a_resource(session):
    for wrong in (None, ""):
        message, hint = session.refused("SELECT composure.note_change(%s, '{1}')", wrong)
        assert message == "resource: a change needs one" and "composure.note_change(" in hint


@pytest.mark.parametrize("keys", ["array_fill('k'::text, ARRAY[101])", "ARRAY[repeat('k', 4097)]",
                                  "array_fill(repeat('k', 60), ARRAY[90])", "ARRAY['a', NULL]", "ARRAY[ARRAY['a'], ARRAY['b']]"])
def test_more_keys_than_a_row_takes_and_keys_that_are_none_are_all(session, feed, keys):
    session.run(f"SELECT composure.note_change('t', {keys})")
    assert feed.poll() == [("t", None)]


def test_a_hundred_keys_are_still_keys(session, feed):
    uuid = "c0ffee00-0000-4000-8000-000000000001"
    session.run("SELECT composure.note_change('t', array_fill(%s::text, ARRAY[100]))", uuid)
    assert feed.poll() == [("t", [uuid] * 100)]


def test_a_transaction_notes_so_many_rows_and_then_all_once_for_each_resource(session, feed):
    session.run("BEGIN")
    session.run("SELECT composure.note_change('t', ARRAY[i::text]) FROM generate_series(1, 1500) i")
    note(session, "u", "{1}")
    note(session, "u", "{2}")
    session.run("COMMIT")
    changes = feed.poll()
    assert len(changes) == 1002
    assert changes.count(("t", None)) == 1 and changes.count(("u", None)) == 1
    # The next transaction begins anew.
    note(session, "u", "{3}")
    assert feed.poll() == [("u", ["3"])]


def test_all_is_noted_once_in_a_transaction_and_again_after_a_savepoint_took_it_back(session, feed):
    session.run("BEGIN")
    note(session, keys=None)
    note(session, keys=None)
    session.run("COMMIT")
    assert feed.poll() == [("t", None)]
    session.run("BEGIN; SAVEPOINT a")
    note(session, keys=None)
    session.run("ROLLBACK TO a")
    note(session, keys=None)
    session.run("COMMIT")
    assert feed.poll() == [("t", None)]


def test_a_setting_made_by_hand_hides_no_change(session, feed):
    session.run("BEGIN; SELECT set_config('composure.noted', repeat('9', 2000), true)")
    note(session, "t", "{1}")
    note(session, "u", "{1}")
    note(session, "u", "{2}")
    session.run("COMMIT")
    assert sorted(feed.poll()) == [("t", None), ("u", None)]
    session.run("SET composure.noted = '-5'")
    note(session, "t", "{1}")
    assert feed.poll() == [("t", ["1"])]


def test_the_catalog_is_noted_once_for_each_transaction_that_changes_it(session, feed):
    for change in ("CREATE TABLE public.t (id int PRIMARY KEY); SELECT composure.expose('public.t')",
                   "SELECT composure.expose('public.t', methods => '{GET}')",
                   "SELECT composure.unexpose('t')",
                   "UPDATE composure.installation SET catalog_version = catalog_version + 1",
                   "TRUNCATE composure.resource",
                   "SET session_replication_role = replica; UPDATE composure.installation SET catalog_version = 9;"
                   " RESET session_replication_role"):
        session.run(change)
        assert feed.poll() == [("@catalog", None)], change


def only_keys(changes):
    return sorted({key for resource, keys in changes if resource == "@key" for key in keys or ["all"]})


def test_keys_are_noted_by_their_ids(session, feed):
    session.run("CREATE ROLE feed_user NOLOGIN")
    try:
        ids = [session.one("SELECT composure.create_key('k', role => 'feed_user')").split("_")[1] for _ in range(2)]
        assert only_keys(feed.poll()) == sorted(ids)
        session.run("SELECT composure.rotate_key(%s)", ids[0])
        assert only_keys(feed.poll()) == [ids[0]]
        session.run("SELECT composure.revoke_key(%s)", ids[0])
        assert only_keys(feed.poll()) == [ids[0]]
        session.run("UPDATE composure.api_key SET tenant = 'x' WHERE id = %s", ids[1])
        assert feed.poll() == [("@key", [ids[1]])]
        session.run("UPDATE composure.api_key SET tenant = 'x' WHERE false")
        assert feed.poll() == []
        # The old id is answered differently, too.
        session.run("DELETE FROM composure.api_secret; UPDATE composure.api_key SET id = 'AAAAAAAAAAAAAA' WHERE id = %s", ids[1])
        assert only_keys(feed.poll()) == sorted(["AAAAAAAAAAAAAA", ids[1]])
        session.run("SET session_replication_role = replica; DELETE FROM composure.api_key; RESET session_replication_role")
        assert only_keys(feed.poll()) == sorted(["AAAAAAAAAAAAAA", ids[0]])
    finally:
        session.run("DROP OWNED BY feed_user; DROP ROLE feed_user")


def test_many_keys_at_once_and_truncate_are_all_keys(session, feed):
    session.run("INSERT INTO composure.api_key (id, name) SELECT lpad(i::text, 14, '0'), 'k' FROM generate_series(1, 100) i")
    assert len(only_keys(feed.poll())) == 100
    session.run("UPDATE composure.api_key SET name = 'l'")
    assert len(only_keys(feed.poll())) == 100
    session.run("INSERT INTO composure.api_key (id, name) SELECT lpad(i::text, 14, 'a'), 'k' FROM generate_series(1, 101) i")
    assert feed.poll() == [("@key", None)]
    session.run("TRUNCATE composure.api_secret")
    assert feed.poll() == [("@key", None)]


def test_changed_rights_are_everything(session, feed):
    session.run("SELECT composure.rights_changed()")
    assert feed.poll() == [("@all", None)]


# What a poll tells

def test_without_a_snapshot_a_poll_tells_of_no_change(session, feed):
    note(session)
    (snapshot, epoch, gone), changes = feed.ask(None)
    assert changes == [] and epoch and int(gone) >= 0
    assert feed.ask(snapshot)[1] == []


def test_a_change_is_told_when_it_commits_however_many_commit_before_it(session, other, feed):
    other.run("BEGIN")
    note(other, "slow")
    for n in range(3):
        note(session, "quick", f"{{{n}}}")
        assert feed.poll() == [("quick", [str(n)])]
    other.run("SAVEPOINT a")
    note(other, "taken back")
    other.run("ROLLBACK TO a; SAVEPOINT b")
    note(other, "kept")
    other.run("RELEASE b")
    assert feed.poll() == []
    other.run("COMMIT")
    assert sorted(feed.poll()) == [("kept", ["1"]), ("slow", ["1"])]
    assert feed.poll() == []


def test_what_rolls_back_is_never_told(session, other, feed):
    other.run("BEGIN")
    note(other)
    assert feed.poll() == []
    other.run("ROLLBACK")
    note(session, "next")
    assert feed.poll() == [("next", ["1"])]


def test_a_poll_tells_only_what_its_own_transaction_can_see(session, feed):
    """Behind a session whose isolation somebody changed."""
    feed.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
    assert feed.poll() == []
    note(session)
    assert feed.poll() == []
    feed.run("COMMIT")
    assert feed.poll() == [("t", ["1"])]


def test_a_poll_is_read_only_and_scans_by_the_index(session, feed):
    session.run("INSERT INTO composure.change (resource, keys) SELECT 't', ARRAY[i::text] FROM generate_series(1, 5000) i")
    feed.poll()
    note(session)
    scans = "SELECT seq_scan, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname IN ('change', 'feed_epoch') ORDER BY relname"
    feed.run("BEGIN READ ONLY")
    before = feed.run(scans)
    assert feed.poll() == [("t", ["1"])]
    after = feed.run(scans)
    feed.run("COMMIT")
    assert [s for s, _ in after] == [0, 0]
    assert after[0][1] - before[0][1] < 10


def test_a_poll_tells_at_most_ten_thousand_and_one(session, feed):
    session.run("INSERT INTO composure.change (resource) SELECT 't' || i FROM generate_series(1, 10005) i")
    assert len(feed.poll()) == 10001
    assert feed.poll() == []


def test_a_snapshot_that_is_none_is_refused(feed):
    for wrong in ("x", "1:2", "2:1:", ""):
        message, _ = feed.refused("SELECT composure.feed_poll(%s)", wrong)
        assert "pg_snapshot" in message
    # One of another server tells of nothing: the epoch says the rest.
    assert feed.ask(FUTURE)[1] == [] and feed.ask("1:1:")[0][1] == feed.epoch


def test_rows_that_a_dump_brought_are_never_told_before_their_time(session, feed):
    session.run("INSERT INTO composure.change (xid, resource) VALUES ('9000000000', 'future'), ('3', 'past')")
    assert feed.poll() == []


# The epoch

def test_a_missing_epoch_is_told_and_made_by_whoever_finds_it(session, feed):
    before = feed.epoch
    session.run("DELETE FROM composure.feed_epoch")
    feed.poll()
    assert (feed.epoch, feed.gone) == (None, None)
    feed.run("SELECT composure.feed_begin()")
    feed.poll()
    made = feed.epoch
    assert made and made != before
    feed.run("SELECT composure.feed_begin()")
    feed.poll()
    assert feed.epoch == made


def test_a_crash_is_a_missing_epoch_also_on_a_connection_that_lived_through_it(own_cluster, new_home):
    if not shutil.which("pgbouncer"):
        pytest.skip("apt-get install pgbouncer")
    database = own_cluster.create_database("own")
    database.migrate()
    bouncer = PgBouncer(new_home, own_cluster)
    try:
        client = psycopg2.connect(bouncer.dsn(database.name))
        client.autocommit = True
        cursor = client.cursor()
        poll = "SELECT epoch FROM composure.feed_poll(NULL)"
        cursor.execute(poll)
        assert cursor.fetchone()[0]
        own_cluster.kill()
        own_cluster.start()
        for attempt in range(2):
            try:
                cursor.execute(poll)
                break
            except psycopg2.OperationalError:
                # PgBouncer tells one client that its server is gone.
                assert attempt == 0
                client = psycopg2.connect(bouncer.dsn(database.name))
                client.autocommit = True
                cursor = client.cursor()
        assert cursor.fetchone()[0] is None
        client.close()
    finally:
        bouncer.stop()


def test_a_copy_of_the_database_has_another_epoch(cluster, bare_database):
    original = Feed(bare_database)
    original.close()
    # Not a template while PostgreSQL has not seen the session end.
    copy = wait_until(lambda: cluster.create_database(f"{bare_database.name}_copy", bare_database.name), "the copy")
    copied = Feed(copy)
    assert copied.epoch != original.epoch and copied.epoch.split(".")[0] == original.epoch.split(".")[0]
    copied.close()


def test_a_restored_dump_has_another_epoch_and_works_whatever_it_brought(cluster, bare_database):
    owner, original = Session(bare_database), Feed(bare_database)
    note(owner, "dumped")
    owner.run("UPDATE composure.feed_epoch SET gone = '8000000000'")
    owner.close()
    original.close()
    empty = cluster.create_database(f"{bare_database.name}_restored")
    dump = subprocess.run([cluster.bin / "pg_dump", "-d", bare_database.dsn], check=True, capture_output=True)
    subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", empty.dsn], input=dump.stdout, check=True,
                   capture_output=True)
    restored = Feed(empty)
    assert restored.epoch is None  # gone cannot be
    restored.run("SELECT composure.feed_begin()")
    restored.poll()
    assert restored.epoch and restored.epoch != original.epoch and restored.gone == "0"
    owner = Session(empty)
    note(owner, "new")
    assert restored.poll() == [("new", ["1"])]
    owner.close()
    restored.close()


# Deleting

def clean(feed, old, cleaned=None):
    return feed.one("SELECT composure.feed_clean(%s, %s)", old, cleaned)


def test_rows_are_deleted_that_the_old_snapshot_saw(session, other, feed):
    other.run("BEGIN")
    note(other, "open")
    note(session, "seen")
    feed.poll()
    old = feed.snapshot
    note(session, "later")
    assert clean(feed, old) == 1
    assert sorted(session.column("SELECT resource FROM composure.change")) == ["later"]
    feed.poll()
    assert feed.gone == old.split(":")[1]
    other.run("COMMIT")
    assert feed.poll() == [("open", ["1"])]
    # Between the two snapshots, the one that was open at the first.
    assert clean(feed, feed.snapshot, old) == 2
    assert waiting(session) == 0
    assert clean(feed, feed.snapshot, old) == 0


def test_deleted_rows_show_in_gone_to_whoever_did_not_read_them(session, feed):
    late = feed.snapshot
    note(session)
    feed.poll()
    clean(feed, feed.snapshot)
    (_, _, gone), changes = feed.ask(late)
    assert changes == [] and int(gone) >= int(late.split(":")[1])
    # The xmax of one that was taken after is above it.
    feed.poll()
    assert int(feed.gone) < int(feed.snapshot.split(":")[1])


def test_gone_never_goes_back(session, feed):
    note(session)
    feed.poll()
    first = feed.snapshot
    note(session)
    feed.poll()
    second = feed.snapshot
    session.run("UPDATE composure.feed_epoch SET gone = %s", second.split(":")[1])
    assert clean(feed, first) == 1
    feed.poll()
    assert feed.gone == second.split(":")[1]


def test_the_xmax_moves_on_before_rows_of_a_quiet_server_are_deleted(session, feed):
    """Else the snapshots of all followers would look as old as the deleted rows."""
    before = feed.snapshot
    note(session)
    feed.poll()
    seen = feed.snapshot
    assert clean(feed, before) == 0
    feed.poll()
    assert int(feed.snapshot.split(":")[1]) > int(seen.split(":")[1])
    assert clean(feed, seen) == 1
    # And a server without rows is left alone.
    feed.poll()
    quiet = feed.snapshot
    assert clean(feed, quiet, seen) == 0
    feed.poll()
    assert feed.snapshot == quiet


def test_one_that_was_open_when_the_old_snapshot_was_taken_moves_it_on_too(session, other, feed):
    other.run("BEGIN")
    note(other)
    feed.poll()
    old = feed.snapshot
    other.run("COMMIT")
    feed.poll()
    seen = feed.snapshot
    assert clean(feed, old) == 0
    feed.poll()
    assert feed.snapshot != seen


def test_at_most_twenty_thousand_rows_are_deleted_at_a_time(session, feed):
    session.run("INSERT INTO composure.change (resource) SELECT 't' FROM generate_series(1, 20007)")
    feed.poll()
    assert [clean(feed, feed.snapshot) for _ in range(3)] == [20000, 7, 0]


def test_one_deletes_at_a_time(session, other, feed):
    note(session)
    feed.poll()
    other.run("BEGIN")
    assert other.one("SELECT composure.feed_clean(%s)", feed.snapshot) == 1
    assert clean(feed, feed.snapshot) is None
    other.run("ROLLBACK")
    assert clean(feed, feed.snapshot) == 1


def test_deleting_needs_a_snapshot_of_this_server(session, feed):
    for wrong in (None, FUTURE):
        message, hint = feed.refused("SELECT composure.feed_clean(%s)", wrong)
        assert message == "old: not a snapshot that this server has taken" and "feed_poll()" in hint
    note(session)
    assert clean(feed, "3:3:") == 0
    assert waiting(session) == 1


# Who may

def test_a_worker_polls_begins_and_cleans_and_writes_nothing_itself(session, feed):
    for text in ("SELECT composure.note_change('t')", "SELECT composure.rights_changed()", "TABLE composure.change",
                 "INSERT INTO composure.change (resource) VALUES ('t')", "TABLE composure.feed_epoch"):
        assert "permission denied" in feed.refused(text)[0]
    feed.run("SELECT composure.feed_begin()")
    assert clean(feed, feed.snapshot) == 0


def test_nobody_else_reaches_the_feed(session):
    session.run("SET ROLE composure_anonymous")
    for text in ("SELECT composure.feed_poll(NULL)", "SELECT composure.feed_begin()", "SELECT composure.feed_clean(NULL)",
                 "SELECT composure.note_change('t')", "SELECT composure.rights_changed()"):
        assert "permission denied" in session.refused(text)[0]
    session.run("RESET ROLE")


def test_where_no_role_can_be_made_the_owner_does_it_all(cluster):
    cluster.psql("postgres", "-c", "CREATE ROLE feed_owner LOGIN")
    database = cluster.create_database("feed_owned")
    try:
        database.sql("ALTER DATABASE feed_owned OWNER TO feed_owner")
        subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", cluster.dsn(database.name, "feed_owner"),
                        "-f", "sql/migrate.sql"], check=True, capture_output=True, cwd=str(SOURCE))
        feed = Feed(database, "feed_owner")
        owner = Session(database, "feed_owner")
        owner.run("SELECT composure.create_key('k')")
        assert {resource for resource, _ in feed.poll()} == {"@key"}
        owner.run("SELECT composure.rights_changed()")
        assert feed.poll() == [("@all", None)]
        assert clean(feed, feed.snapshot) > 0
        feed.run("SELECT composure.feed_begin()")
        feed.close()
        owner.close()
    finally:
        cluster.psql("postgres", "-c", "DROP DATABASE feed_owned")
        cluster.psql("postgres", "-c", "DROP ROLE feed_owner")
