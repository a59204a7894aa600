"""Rate limits, in SQL: plans and their windows, leases, what a crash and a stepping clock must not give away.

Most tests replace composure.limit_clock(): time stands still until at() moves it.
"""

import threading
import time
from collections import namedtuple

import psycopg2
import pytest
from harness.process import wait_until
from sqlcluster import Session

Lease = namedtuple("Lease", "num granted wait_us violated hosts epoch policy rate burst remaining")
LEASE = ("SELECT * FROM composure.lease(%s, %s, %s::text[], %s::int[], %s::int[], %s::int[], %s::int[], %s::int[], %s::int[])")


@pytest.fixture(scope="module")
def shared(migrated_template):
    return migrated_template.cluster.create_database("sql_limits", migrated_template.name)


@pytest.fixture
def session(shared):
    session = Session(shared, keep=False)
    stand_still(session)
    yield session
    session.close()


def stand_still(session):
    """The epoch began at 0; it is 100000 seconds later."""
    session.run("CREATE OR REPLACE FUNCTION composure.limit_clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS "
                "$$ SELECT to_timestamp(0) + current_setting('test.us')::bigint * interval '1 microsecond' $$; "
                "UPDATE composure.feed_epoch SET since = to_timestamp(0)")
    at(session, 100000)


def at(session, seconds):
    session.run("SELECT set_config('test.us', %s, false)", str(round(seconds * 1000000)))


def later(session, us):
    session.run("SELECT set_config('test.us', (current_setting('test.us')::bigint + %s)::text, false)", us)


def make_key(session, name="app", plan="p"):
    """An id. Keys have no role in these tests: they are about limits, and roles outlive a database."""
    return session.one("INSERT INTO composure.api_key (id, name, plan, created_at) VALUES "
                       "(composure.base62(composure.big_endian(composure.random_bytes(16)), 14), %s, %s, to_timestamp(1)) RETURNING id",
                       name, plan)


def plan(session, arguments):
    session.run(f"SELECT composure.create_plan('p', {arguments})")
    return make_key(session)


def lease_all(session, owners, wanted, minimum=None, returned=None, debt=None, admitted=None, refused=None, host=None, epoch=None):
    n = len(owners)
    numbers = [wanted] + [x or [d] * n for x, d in ((minimum, 1), (returned, 0), (debt, 0), (admitted, 0), (refused, 0))]
    return [Lease(*row) for row in session.run(LEASE, host, epoch, owners, *numbers)]


def lease(session, owner, wanted, minimum=1, returned=0, debt=0, admitted=0, refused=0, **more):
    return lease_all(session, [owner], [wanted], [minimum], [returned], [debt], [admitted], [refused], **more)[0]


def drain(session, owner):
    """Takes all there is; how much that was."""
    total = 0
    while got := lease(session, owner, 1).granted:
        total += got
    return total


# Plans and windows

def test_windows_are_added_replaced_and_dropped(session):
    key = plan(session, "rate => 100, burst => 200")
    assert session.one("SELECT composure.add_window('p', 'day', 1000000)") == "plan p, window day: 1000000 per day, at most 1000000 at once"
    session.run("SELECT composure.add_window('p', 'min', 60, 5, '1 minute')")
    session.run("SELECT composure.add_window('p', 'day', 500, 7, '12 hours')")
    assert session.run("SELECT name, rate, burst, per::text, long FROM composure.plan_window ORDER BY num") == [
        ("default", 100, 200, "00:00:01", False), ("day", 500, 7, "12:00:00", True), ("min", 60, 5, "00:01:00", False)]
    assert session.one("SELECT composure.drop_window('p', 'default')") == "plan p: window default is dropped"
    assert lease(session, key, 0).burst == [7, 5]
    session.run("SELECT composure.create_plan('p', 9)")
    assert session.run("SELECT name, rate FROM composure.plan_window") == [("default", 9)]


def test_a_key_is_looked_up_with_its_first_window(session):
    session.run("CREATE ROLE sql_limits_user NOLOGIN; SELECT composure.create_plan('p', 100, 200, '2 seconds'), "
                "composure.add_window('p', 'day', 5)")
    key = session.one("SELECT composure.create_key('k', 'sql_limits_user', 'p')").split("_")[1]
    row = "SELECT plan, rate, burst, per_seconds FROM composure.key_lookup(%s)"
    assert session.run(row, key) == [("p", 100, 200, 2)]
    session.run("SELECT composure.drop_window('p', 'default')")
    assert session.run(row, key) == [("p", 5, 5, 86400)]


@pytest.mark.parametrize("call, message", [
    ("add_window('q', 'day', 1)", 'plan "q" does not exist'),
    ("add_window(NULL, 'day', 1)", 'plan "" does not exist'),
    ("add_window('p', 'Day', 1)", "name must be 1 to 32 of a-z, 0-9, _ and -, not 'Day'"),
    ("add_window('p', '', 1)", "name must be 1 to 32 of a-z, 0-9, _ and -, not ''"),
    ("add_window('p', NULL, 1)", "name must be 1 to 32 of a-z, 0-9, _ and -, not NULL"),
    ("add_window('p', repeat('a', 33), 1)", f"name must be 1 to 32 of a-z, 0-9, _ and -, not '{'a' * 33}'"),
    ("add_window('p', 'day', 0)", "rate must be above 0 and at most 1000000000, not 0"),
    ("add_window('p', 'day', 1, 0)", "burst must be at least 1, not 0"),
    ("add_window('p', 'day', 1, per => '32 days')", "per must be between 1 ms and 31 days, not 32 days"),
    ("drop_window('q', 'day')", 'plan "q" does not exist'),
    ("drop_window('p', 'day')", 'plan "p" has no window "day"'),
    ("drop_window('p', 'default')", 'window "default" is the only one of plan "p"'),
])
def test_wrong_windows_are_refused_in_plain_words(session, call, message):
    plan(session, "1")
    assert session.refused(f"SELECT composure.{call}")[0] == message


def test_a_plan_has_at_most_four_windows(session):
    plan(session, "1")
    for name in "abc":
        session.run("SELECT composure.add_window('p', %s, 1)", name)
    assert session.refused("SELECT composure.add_window('p', 'd', 1)")[0] == 'plan "p" has 4 windows already'
    session.run("SELECT composure.add_window('p', 'c', 2)")


def test_changes_of_plans_are_noted_as_limits(bare_database):
    session = Session(bare_database)
    for change in ("SELECT composure.create_plan('p', 10)", "SELECT composure.create_plan('p', 11)",
                   "SELECT composure.add_window('p', 'day', 10)", "SELECT composure.drop_window('p', 'day')",
                   "UPDATE composure.plan_window SET burst = 7", "DELETE FROM composure.plan",
                   "SET session_replication_role = replica; INSERT INTO composure.plan VALUES ('q'); RESET session_replication_role"):
        session.run("TRUNCATE composure.change")
        session.run(change)
        assert session.run("SELECT resource, keys FROM composure.change") == [("@limits", None)], change
    session.close()


@pytest.mark.parametrize("rate, per, policy", [
    ("100", "1 second", '"default";q=100;w=1'),
    ("1000000", "1 day", '"default";q=1000000;w=86400'),
    ("0.5", "1 second", '"default";q=1;w=1'),
    ("10", "100 ms", '"default";q=100;w=1'),
    ("10", "1.5 seconds", '"default";q=6;w=1'),
    ("2.7", "1 minute", '"default";q=2;w=60'),
])
def test_the_policy_is_that_of_the_header_field(session, rate, per, policy):
    key = plan(session, f"{rate}, per => '{per}'")
    assert lease(session, key, 0).policy == policy
    session.run("SELECT composure.add_window('p', 'day', 9)")
    assert lease(session, key, 0).policy == policy + ', "day";q=9;w=86400'


# Leases

def test_a_bucket_gives_its_burst_and_then_its_rate(session):
    key = plan(session, "rate => 2, burst => 5")
    assert drain(session, key) == 5
    at(session, 100000.999)
    assert drain(session, key) == 1
    at(session, 100001)
    assert drain(session, key) == 1
    at(session, 200000)
    assert drain(session, key) == 5


def test_a_grant_is_at_most_a_quarter_second_or_a_fiftieth(session):
    assert lease(session, plan(session, "rate => 100, burst => 1000"), 10000).granted == 25
    assert lease(session, plan(session, "rate => 100, burst => 10000"), 10000).granted == 200
    assert lease(session, plan(session, "rate => 1, burst => 20"), 10000).granted == 1
    assert lease(session, plan(session, "rate => 100, burst => 1000"), 7).granted == 7
    assert lease(session, plan(session, "rate => 1, burst => 20"), 10, minimum=8).granted == 8
    assert lease(session, plan(session, "rate => 1000, burst => 3"), 10000).granted == 3


def test_every_window_pays_and_each_may_stand_in_the_way(session):
    key = plan(session, "rate => 100, burst => 4")
    session.run("SELECT composure.add_window('p', 'day', 6), composure.add_window('p', 'min', 1000, 1000, '1 minute')")
    got = lease(session, key, 1)
    assert (got.granted, got.remaining) == (1, [3, 5, 999])
    assert drain(session, key) == 3
    got = lease(session, key, 1)
    assert (got.granted, got.violated, got.wait_us) == (0, 0b001, 10001)
    at(session, 100001)
    assert drain(session, key) == 2
    assert lease(session, key, 1).violated == 0b010
    session.run("UPDATE composure.bucket SET tokens = 0")
    assert lease(session, key, 1).violated == 0b111


def test_what_is_there_is_granted_up_to_a_lease(session):
    key = plan(session, "rate => 100, burst => 100")
    lease(session, key, 0, debt=0)
    for there, granted in ((100, 25), (25, 25), (13.9, 13), (1, 1), (0.9, 0), (0, 0)):
        session.run("DELETE FROM composure.bucket")
        session.run("INSERT INTO composure.bucket VALUES (%s, 'default', %s, composure.limit_clock())", key, there)
        assert lease(session, key, 1000).granted == granted, there


def test_whoever_has_not_got_a_whole_lease_comes_back_when_there_is_one(session):
    key = plan(session, "rate => 100, burst => 85")
    for left in (60, 35):
        got = lease(session, key, 1000)
        assert (got.granted, got.remaining, got.wait_us, got.violated) == (25, [left], 0, 0)
    got = lease(session, key, 1000)
    assert (got.granted, got.remaining, got.wait_us, got.violated) == (25, [10], 150001, 1)
    got = lease(session, key, 1000)  # who asks all the same has what there is
    assert (got.granted, got.remaining, got.wait_us) == (10, [0], 250001)
    later(session, got.wait_us)
    assert lease(session, key, 1000).granted == 25


@pytest.mark.parametrize("windows", [
    ["100, 100"], ["0.3, 5"], ["1000, 3"], ["7, 20, '3 seconds'", "50, 60, '1 minute'"], ["1000, 1000", "1000000, 1000000, '1 day'"],
    # The cap grows with the second window's tokens while the first one fills.
    ["1000, 1000", "100, 1000", "2000, 100000"],
])
@pytest.mark.parametrize("wanted, minimum", [(1, 1), (1000, 1), (5, 3), (40, 2)])
def test_after_the_wait_a_lease_is_granted_and_just_before_it_is_not(session, windows, wanted, minimum):
    key = plan(session, windows[0])
    for n, window in enumerate(windows[1:]):
        session.run(f"SELECT composure.add_window('p', 'w{n}', {window})")
    lease(session, key, wanted, minimum)
    for table, part in (("bucket", 0), ("bucket_long", 0.9)):
        session.run(f"UPDATE composure.{table} SET tokens = tokens * {part}")
    got = lease(session, key, wanted, minimum)
    assert got.granted == 0 and got.wait_us > 1
    later(session, got.wait_us - 3)
    before = lease(session, key, wanted, minimum)
    assert before.granted == 0 and 1 <= before.wait_us <= 6
    later(session, 3)
    assert lease(session, key, wanted, minimum).granted >= minimum


def test_the_wait_counts_on_a_cap_that_grows_meanwhile(session):
    key = plan(session, "rate => 1000, burst => 1000")
    session.run("SELECT composure.add_window('p', 'b', 1, 1000, '1 second')")
    lease(session, key, 10)
    session.run("UPDATE composure.bucket SET tokens = CASE window_name WHEN 'default' THEN 0 ELSE 149.9995 END")
    got = lease(session, key, 10)
    assert got.granted == 0
    later(session, got.wait_us)
    assert lease(session, key, 10).granted >= 1


def test_a_minimum_is_all_or_nothing_and_never_above_a_burst(session):
    key = plan(session, "rate => 1, burst => 10")
    session.run("SELECT composure.add_window('p', 'day', 100)")
    got = lease(session, key, 1, minimum=11)
    assert (got.granted, got.wait_us, got.violated) == (0, None, 1)
    assert lease(session, key, 1, minimum=7).granted == 7
    got = lease(session, key, 5, minimum=5)
    assert (got.granted, got.wait_us) == (0, 2000001)
    assert got.remaining == [3, 93]


def test_without_a_plan_all_is_granted(session):
    plan(session, "1")
    revoked = make_key(session)
    session.run("SELECT composure.revoke_key(%s)", revoked)
    for owner in (make_key(session, plan=None), revoked, "nobody", "address/192.0.2.1"):
        got = lease(session, owner, 1000, minimum=9)
        assert got[1:4] == (1000, 0, 0) and got[6:] == (None,) * 4
    assert session.one("SELECT count(*) FROM composure.bucket") == 0


def test_addresses_share_the_plan_and_not_the_bucket(session):
    session.run("SELECT composure.create_plan('anonymous', 1, 3)")
    assert drain(session, "address/192.0.2.1") == 3
    assert drain(session, "address/2001:db8::/64") == 3
    assert drain(session, "address/192.0.2.1") == 0


def test_a_batch_answers_each_owner_by_its_place(session):
    key = plan(session, "rate => 1, burst => 10")
    other = make_key(session)
    got = lease_all(session, [max(key, other), "nobody", min(key, other), max(key, other)], [1, 5, 0, 1])
    by_num = {g.num: g for g in got}
    assert sorted(by_num) == [1, 2, 3, 4]
    assert [by_num[n].granted for n in (1, 2, 3, 4)] == [1, 5, 0, 1]
    assert sorted((by_num[1].remaining, by_num[4].remaining)) == [[8], [9]] and by_num[3].remaining == [10]
    assert lease_all(session, [], []) == []


WRONG = [dict(wanted=[1, 1]), dict(owners=["a", "b"]), dict(minimum=[]), dict(returned=[1, 1]), dict(debt=[1, 1]),
         dict(admitted=[1, 1]), dict(refused=[1, 1]), dict(owners=None), dict(wanted=None), dict(refused=None),
         dict(owners=["a"] * 1001, wanted=[1] * 1001)]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_arrays_of_other_lengths_are_refused(session, wrong):
    right = dict(owners=["a"], wanted=[1], minimum=[1], returned=[0], debt=[0], admitted=[0], refused=[0])
    right.update(wrong)
    if len(right["owners"] or ()) > 1000:
        right = {k: (v * 1001)[:1001] for k, v in right.items()}
    assert session.refused(LEASE, None, None, *right.values())[0] == "owners and numbers: arrays of one length, at most 1000"


@pytest.mark.parametrize("wrong", [dict(owners=[None]), dict(wanted=[-1]), dict(wanted=[None]), dict(minimum=[0]), dict(minimum=[None]),
                                   dict(returned=[-1]), dict(debt=[-1]), dict(debt=[None]), dict(admitted=[-1]), dict(refused=[-1])],
                         ids=str)
def test_numbers_that_make_no_sense_are_refused(session, wrong):
    right = dict(owners=["a"], wanted=[1], minimum=[1], returned=[0], debt=[0], admitted=[0], refused=[0])
    right.update(wrong)
    message = session.refused(LEASE, None, None, *right.values())[0]
    assert message == "owners and numbers must not be NULL, numbers not negative, minimum at least 1"


def test_the_simple_form_leases_by_id(session):
    key = plan(session, "rate => 1, burst => 3")
    assert [session.one("SELECT composure.lease(%s, 1)", key) for _ in range(4)] == [1, 1, 1, 0]
    assert session.refused("SELECT composure.lease('nope', 1)")[0] == 'there is no key with the id "nope"'
    assert session.refused("SELECT composure.lease('cmps_x_y', 1)")[0] == "this is a whole key: only its id is wanted"
    assert session.refused("SELECT composure.lease(%s, 0)", key)[0] == "wanted must be at least 1, not 0"


def test_a_wait_of_ages_is_a_number_too(session):
    key = plan(session, "rate => 1e-20, burst => 1")
    assert drain(session, key) == 1
    assert lease(session, key, 1).wait_us == 10**18
    got = lease(session, key, 2147483647, 2147483647, 2147483647, 2147483647)
    assert (got.granted, got.wait_us) == (0, None)


# Given back, and owed

def test_tokens_given_back_are_there_again_and_never_above_the_burst(session):
    key = plan(session, "rate => 1, burst => 10")
    session.run("SELECT composure.add_window('p', 'day', 20)")
    assert drain(session, key) == 10
    assert lease(session, key, 0, returned=4).remaining == [4, 14]
    assert lease(session, key, 0, returned=1000).remaining == [10, 20]
    assert lease(session, key, 1, returned=3).remaining == [9, 19]


def test_a_debt_is_paid_before_more_is_granted_and_is_never_above_the_burst(session):
    key = plan(session, "rate => 1, burst => 10")
    epoch = lease(session, key, 0).epoch
    got = lease(session, key, 1, debt=12, epoch=epoch)
    assert (got.granted, got.remaining, got.wait_us) == (0, [-2], 3000001)
    assert lease(session, key, 0, debt=1000, epoch=epoch).remaining == [-10]
    at(session, 100010)
    assert drain(session, key) == 0
    at(session, 100030)
    assert drain(session, key) == 10


def test_a_debt_of_another_epoch_is_forgotten_but_where_the_bucket_survived(session):
    key = plan(session, "rate => 1, burst => 10")
    session.run("SELECT composure.add_window('p', 'day', 100)")
    lease(session, key, 1)
    for epoch in ("00000000-0000-0000-0000-000000000000", None):
        session.run("UPDATE composure.bucket_long SET tokens = 100")
        assert lease(session, key, 0, debt=5, epoch=epoch).remaining == [9, 95]


def test_a_report_alone_writes_to_no_bucket(session):
    key = plan(session, "rate => 1, burst => 10")
    session.run("SELECT composure.add_window('p', 'day', 100)")
    assert lease(session, key, 0, admitted=3, refused=1).remaining == [10, 100]
    assert session.run("SELECT owner FROM composure.bucket UNION ALL SELECT owner FROM composure.bucket_long") == []


def test_a_plan_without_long_windows_leaves_the_logged_table_alone(bare_database):
    session = Session(bare_database)
    key = plan(session, "rate => 1000, burst => 1000")
    lease(session, key, 1, admitted=1, host="h")
    kept = "SELECT pg_relation_size('composure.bucket_long')"
    assert session.one(kept) == 0
    unlogged = "SELECT relname FROM pg_class WHERE relnamespace = 'composure'::regnamespace AND relpersistence = 'u' AND relkind = 'r'"
    assert {"bucket", "limit_count", "limit_host"} <= set(session.column(unlogged))
    assert "bucket_long" not in session.column(unlogged)
    session.close()


# Changes of a plan

def test_a_new_rate_and_burst_apply_from_the_next_lease(session):
    key = plan(session, "rate => 1, burst => 100")
    lease(session, key, 1)
    session.run("SELECT composure.create_plan('p', 5, 10)")
    assert lease(session, key, 1).remaining == [9]
    assert drain(session, key) == 9
    at(session, 100001)
    assert drain(session, key) == 5


# The clock

def test_a_clock_that_goes_back_and_forth_gives_nothing_twice(session):
    key = plan(session, "rate => 10, burst => 5")
    assert drain(session, key) == 5
    for _ in range(10):
        at(session, 99999.5)
        assert drain(session, key) == 0
        at(session, 100000)
        assert drain(session, key) == 0
    at(session, 100000.1)
    assert drain(session, key) == 1


def test_a_clock_that_was_set_back_far_does_not_stop_the_bucket(session):
    key = plan(session, "rate => 10, burst => 5")
    assert drain(session, key) == 5
    at(session, 50000)
    assert drain(session, key) == 0
    at(session, 50000.2)
    assert drain(session, key) == 2


def test_a_forward_step_gives_one_burst_at_most(session):
    key = plan(session, "rate => 10, burst => 5")
    assert drain(session, key) == 5
    at(session, 900000)
    assert drain(session, key) == 5


# Beginning, and crashes

def test_a_missing_bucket_begins_with_what_came_in_since_the_epoch(session):
    key = plan(session, "rate => 1, burst => 10")
    session.run("SELECT composure.add_window('p', 'day', 20); SELECT composure.create_plan('anonymous', 1, 10)")
    session.run("UPDATE composure.feed_epoch SET since = to_timestamp(100000 - 4)")
    assert lease(session, key, 0).remaining == [4, 20]
    assert lease(session, "address/192.0.2.1", 0).remaining == [4]
    session.run("UPDATE composure.api_key SET created_at = to_timestamp(100000 - 3)")
    assert lease(session, key, 0).remaining == [10, 20]


def test_a_missing_epoch_is_made_and_its_id_returned(session):
    key = plan(session, "rate => 1, burst => 10")
    before = lease(session, key, 0).epoch
    assert before == session.one("SELECT id::text FROM composure.feed_epoch")
    session.run("DELETE FROM composure.feed_epoch")
    got = lease(session, key, 0)
    assert got.epoch == session.one("SELECT id::text FROM composure.feed_epoch") != before


def test_a_crash_fills_no_bucket_and_long_windows_survive_it(own_cluster):
    database = own_cluster.create_database("limits")
    database.migrate()
    session = Session(database)
    session.run("SELECT composure.create_plan('short', 1, 30, '1 minute'), composure.create_plan('p', 1000000, 1000000), "
                "composure.add_window('p', 'day', 50), composure.create_plan('anonymous', 1, 30, '1 minute')")
    short, both = make_key(session, plan="short"), make_key(session)
    assert drain(session, short) >= 0
    epoch = lease(session, both, 1, minimum=45).epoch
    session.run("CHECKPOINT")
    session.close()
    own_cluster.kill()
    own_cluster.start()
    session = Session(database)
    got = lease(session, short, 0)
    assert got.epoch != epoch and got.remaining[0] < 1
    assert lease(session, "address/192.0.2.1", 0).remaining[0] < 1
    assert 5 <= lease(session, both, 0).remaining[1] < 6
    # A key that is made after the crash has not been served by anyone.
    session.run("UPDATE composure.api_key SET created_at = clock_timestamp() WHERE id = %s", short)
    assert lease(session, short, 0).remaining == [30]
    session.close()


# Hosts

def test_hosts_are_counted_for_ten_seconds_and_forgotten_after_a_minute(session):
    key = plan(session, "1")
    assert lease(session, key, 0).hosts == 1
    assert lease(session, key, 0, host="a").hosts == 1
    assert lease(session, key, 0, host="b").hosts == 2
    at(session, 100009)
    assert lease(session, key, 0, host="b").hosts == 2
    at(session, 100011)
    assert lease(session, key, 0, host="b").hosts == 1
    assert session.column("SELECT id FROM composure.limit_host ORDER BY id") == ["a", "b"]
    at(session, 100061)
    lease(session, key, 0, host="b")
    assert session.column("SELECT id FROM composure.limit_host") == ["b"]


def test_a_host_is_written_at_most_once_a_second(session):
    key = plan(session, "1")
    seen = "SELECT extract(epoch FROM seen)::float8 FROM composure.limit_host"
    for seconds, written in ((100000, 100000), (100000.9, 100000), (100001.1, 100001.1), (50000, 50000)):
        at(session, seconds)
        lease(session, key, 0, host="a")
        assert session.one(seen) == written


def test_a_host_that_another_is_noting_is_not_waited_for(bare_database):
    one, two = Session(bare_database), Session(bare_database)
    lease(one, "nobody", 0, host="a")
    one.run("UPDATE composure.limit_host SET seen = seen - interval '5 seconds'")
    one.run("BEGIN")
    lease(one, "nobody", 0, host="a")
    assert lease(two, "nobody", 1, host="a").granted == 1  # lock_timeout would make it an error
    one.run("ROLLBACK")
    one.close()
    two.close()


# Many at once

def test_a_lock_that_is_held_ends_a_lease_with_55P03(bare_database):
    one, two = Session(bare_database), Session(bare_database)
    key = plan(one, "100")
    one.run("BEGIN")
    lease(one, key, 1)
    with pytest.raises(psycopg2.errors.LockNotAvailable):
        lease(two, key, 1)
    assert two.one("SHOW lock_timeout") == "0"
    one.run("COMMIT")
    assert lease(two, key, 1).granted == 1
    one.close()
    two.close()


def test_the_clock_is_read_when_the_lock_is_ours(bare_database):
    one, two = Session(bare_database), Session(bare_database)
    key = plan(one, "rate => 10, burst => 1000")
    two.run("BEGIN")
    two.run("SELECT now()")
    lease(one, key, 500, minimum=500)
    lease(one, key, 500, minimum=500)
    last = one.one("SELECT last FROM composure.bucket")
    lease(two, key, 0, returned=1)
    assert two.one("SELECT last FROM composure.bucket") > last
    two.run("ROLLBACK")
    one.close()
    two.close()


@pytest.mark.parametrize("rate, burst, wanted", [(200, 100, 1), (2000, 500, 40)])
def test_sixteen_sessions_share_one_bucket_to_the_token(bare_database, rate, burst, wanted):
    session = Session(bare_database)
    key = plan(session, f"{rate}, {burst}")
    warm = "address/192.0.2."
    session.run("SELECT composure.create_plan('anonymous', 1000000)")
    ready, end = threading.Barrier(17), [0.0]
    totals, errors = [0] * 16, []

    def work(n):
        mine = Session(bare_database, "composure_worker")
        try:
            # A session's first call plans its statements; a bucket that is full meanwhile loses what comes in.
            lease(mine, f"{warm}{n}", 1)
            ready.wait()
            while time.monotonic() < end[0]:
                try:
                    got = lease(mine, key, wanted)
                except psycopg2.errors.LockNotAvailable:
                    continue
                totals[n] += got.granted
                if got.wait_us:
                    mine.run("SELECT pg_sleep(%s)", min(got.wait_us / 1e6, 0.01))
        except Exception as error:  # it would be the thread's alone
            errors.append(error)
            ready.abort()
        finally:
            mine.close()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for t in threads:
        t.start()
    session.run("UPDATE composure.api_key SET created_at = now()")  # a new key: its bucket begins full
    wait_until(lambda: ready.n_waiting == 16 or errors, "sixteen sessions that are ready")
    begun = time.monotonic()
    end[0] = begun + 2
    ready.wait()
    for t in threads:
        t.join()
    elapsed = time.monotonic() - begun
    assert errors == []
    assert sum(totals) <= burst + rate * elapsed + 1
    assert sum(totals) >= 0.95 * (burst + rate * 2)
    session.close()


# For people

def test_usage_shows_tokens_as_of_now_and_counts_and_writes_nothing(session):
    key = plan(session, "rate => 2, burst => 10")
    session.run("SELECT composure.add_window('p', 'day', 20); SELECT composure.create_plan('anonymous', 1, 10)")
    free = make_key(session, "free", None)
    lease(session, key, 5, minimum=5, admitted=3, refused=2)
    lease(session, key, 0, admitted=1)
    lease(session, free, 1, admitted=7)
    lease(session, "address/192.0.2.1", 1, refused=1)
    at(session, 100001)
    before = session.run("SELECT b::text FROM composure.bucket b UNION ALL SELECT b::text FROM composure.bucket_long b ORDER BY 1")
    rows = session.run("SELECT id, name, plan, window_name, rate, burst, per::text, round(tokens::numeric, 3)::float8, admitted, refused "
                       "FROM composure.usage")
    assert {(r[0], r[3]): (r[1], r[2], r[4], r[5], r[6], r[7], r[8], r[9]) for r in rows} == {
        (key, "default"): ("app", "p", 2, 10, "00:00:01", 7.0, 4, 2),
        (key, "day"): ("app", "p", 20, 20, "1 day", 15.0, 4, 2),
        (free, None): ("free", None, None, None, None, None, 7, 0),
        ("address/192.0.2.1", "default"): ("192.0.2.1", "anonymous", 1, 10, "00:00:01", 10.0, 0, 1)}
    assert session.run("SELECT b::text FROM composure.bucket b UNION ALL SELECT b::text FROM composure.bucket_long b ORDER BY 1") == before


def test_usage_can_be_read_where_nothing_may_be_written(bare_database):
    session = Session(bare_database)
    key = plan(session, "10")
    session.run("BEGIN READ ONLY")
    assert session.run("SELECT id, admitted FROM composure.usage") == [(key, 0)]
    session.run("ROLLBACK")
    session.close()


# Sweeping

def test_the_sweep_takes_full_buckets_and_no_lease_can_tell(session):
    key = plan(session, "rate => 1, burst => 10")
    session.run("SELECT composure.add_window('p', 'day', 86400, 10)")
    lease(session, key, 5, minimum=5)
    rows = "SELECT (SELECT count(*) FROM composure.bucket) + (SELECT count(*) FROM composure.bucket_long)"
    at(session, 100014)
    assert session.one("SELECT composure.limit_sweep()") == 0
    at(session, 100016)
    before = lease(session, key, 0).remaining
    assert session.one("SELECT composure.limit_sweep()") == 2
    assert session.one(rows) == 0
    assert lease(session, key, 0).remaining == before == [10, 10]


def test_the_sweep_leaves_a_bucket_whose_successor_would_not_be_full(session):
    key = plan(session, "rate => 1, burst => 1000")
    lease(session, key, 1)
    at(session, 100100)
    session.run("UPDATE composure.feed_epoch SET since = to_timestamp(100000)")
    assert session.one("SELECT composure.limit_sweep()") == 0
    session.run("UPDATE composure.feed_epoch SET since = to_timestamp(0)")
    assert session.one("SELECT composure.limit_sweep()") == 1


def test_the_sweep_takes_what_has_no_window_any_more_once_it_is_over(session):
    key = plan(session, "rate => 1, burst => 1000")
    session.run("SELECT composure.add_window('p', 'day', 1000000)")
    lease(session, key, 900, minimum=900)
    session.run("SELECT composure.revoke_key(%s)", key)
    at(session, 100059)
    assert session.one("SELECT composure.limit_sweep()") == 0
    at(session, 100061)
    assert session.one("SELECT composure.limit_sweep()") == 1
    at(session, 100000 + 32 * 86400)
    assert session.one("SELECT composure.limit_sweep()") == 1


def test_the_sweep_forgets_addresses_after_an_hour_and_no_key(session):
    key = plan(session, "1")
    lease(session, key, 0, admitted=1)
    lease(session, "address/192.0.2.2", 0, admitted=1)  # which have no limit, and no end: not even counted
    session.run("SELECT composure.create_plan('anonymous', 1)")
    lease(session, "address/192.0.2.1", 0, admitted=1)
    assert session.one("SELECT count(*) FROM composure.limit_count") == 2
    at(session, 103599)
    assert session.one("SELECT composure.limit_sweep()") == 0
    at(session, 103601)
    assert session.one("SELECT composure.limit_sweep()") == 1
    assert session.column("SELECT owner FROM composure.limit_count") == [key]


def test_the_sweep_waits_for_nobody_and_takes_a_thousand_at_a_time(bare_database):
    one, two = Session(bare_database), Session(bare_database)
    plan(one, "rate => 1000, burst => 1000")
    one.run("UPDATE composure.feed_epoch SET since = now() - interval '1 hour'; INSERT INTO composure.bucket "
            "SELECT 'address/' || i, 'default', 10, now() - interval '1 hour' FROM generate_series(1, 1500) i")
    two.run("BEGIN")
    two.run("SELECT FROM composure.bucket WHERE owner = 'address/7' FOR UPDATE")
    assert [one.one("SELECT composure.limit_sweep()") for _ in range(3)] == [1000, 499, 0]
    two.run("ROLLBACK")
    assert one.one("SELECT composure.limit_sweep()") == 1
    one.close()
    two.close()


# Rights

def test_the_worker_leases_and_sweeps_and_may_do_nothing_else_here(bare_database):
    worker = Session(bare_database, "composure_worker")
    assert lease(worker, "nobody", 1).granted == 1
    assert worker.one("SELECT composure.limit_sweep()") == 0
    names = ("lease", "limit_sweep", "limit_hosts", "limit_clock", "bucket_begin", "bucket_tokens", "add_window", "drop_window",
             "create_plan", "find_plan", "check_window", "describe_window", "note_limits")
    assert worker.column("SELECT p.oid::regprocedure::text FROM pg_proc p WHERE pronamespace = 'composure'::regnamespace "
                         "AND proname = ANY (%s) AND has_function_privilege(p.oid, 'EXECUTE') ORDER BY 1", list(names)) == [
        "composure.lease(text,text,text[],integer[],integer[],integer[],integer[],integer[],integer[])", "composure.limit_sweep()"]
    for table in ("bucket", "bucket_long", "limit_count", "limit_host", "plan_window", "usage"):
        assert "permission denied" in worker.refused(f"SELECT * FROM composure.{table}")[0]
    worker.close()
