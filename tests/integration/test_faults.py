"""PostgreSQL goes in every way that there is, with load running; harness/faults.py has what is promised, and prints what was seen.

    make faults        the durations and bounds in full
"""

import os
import signal
import subprocess
import threading
import time

import psycopg2
import pytest

from harness import wire
from harness.cluster import PORT, Cluster, Database
from harness.faults import CONNECTIONS, DEADLINE_MS, HOLD, LONG, WORKERS, Scene, prepare, read_records
from harness.load import PROGRAM, Stream, load
from harness.process import Home, wait_until
from harness.replica import Replica

pytestmark = [pytest.mark.once, pytest.mark.skipif(not PROGRAM.exists(), reason="tests/load/load is not built")]


@pytest.fixture(scope="module")
def place():
    home = Home()
    yield home
    home.remove()


@pytest.fixture(scope="module")
def broken_cluster(place):
    """One for all faults: each leaves it as it was."""
    cluster = Cluster(place, max_connections=40)
    yield cluster
    if cluster.process.alive():
        cluster.stop()


@pytest.fixture(scope="module")
def broken_database(broken_cluster):
    return prepare(broken_cluster.create_database("faults"))


@pytest.fixture
def scene(new_home, broken_cluster, broken_database, workers, capsys):
    """scene(title, fault, ...): Scene.run() with workers of its own."""
    def run(title, fault, cluster=broken_cluster, database=broken_database, **more):
        dsn = more.pop("dsn", database.worker_dsn)
        made = workers(WORKERS, database, dsn=dsn, connections=CONNECTIONS, deadline_ms=DEADLINE_MS, log="none",
                       read_dsn=more.pop("read_dsn", ""))
        Scene(new_home, cluster, database, made).run(title, fault, capsys=capsys, **more)
    return run


# --- PostgreSQL is away ---


@pytest.mark.parametrize("how", ["fast", "immediate", "killed"])
def test_postgresql_stopped(broken_cluster, scene, how):
    stop = {"fast": broken_cluster.stop, "immediate": lambda: broken_cluster.stop(signal.SIGQUIT), "killed": broken_cluster.kill}

    def fault(_):
        stop[how]()
        time.sleep(HOLD)
        broken_cluster.start()
    scene(f"{how} {HOLD} s", fault)


def test_postgresql_frozen(broken_cluster, scene):
    def fault(_):
        broken_cluster.freeze()
        time.sleep(HOLD)
        broken_cluster.thaw()
    scene(f"frozen {HOLD} s", fault)


def test_postgresql_restarted_again_and_again(broken_cluster, scene):
    times, pause = (10, 3) if LONG else (2, 2)

    def fault(_):
        for n in range(times):
            time.sleep(pause if n else 0)
            broken_cluster.restart()
    scene(f"{times} restarts", fault)


# --- its connections are ---


def end_all_sessions(database):
    return database.value("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'composure_worker'")


def test_all_connections_terminated_again_and_again(broken_database, scene):
    def fault(_):
        for n in range(max(2, int(HOLD / 1.5))):
            time.sleep(1.5 if n else 0)
            end_all_sessions(broken_database)
    scene("terminated", fault)


def test_no_connection_is_left(broken_cluster, broken_database, scene):
    """Somebody else has all that there are, but for a superuser's."""
    broken_database.sql("CREATE ROLE crowd LOGIN")
    over = threading.Event()

    def take():
        crowd = []
        while not over.is_set():
            try:
                crowd.append(broken_cluster.connect("faults", "crowd"))
            except psycopg2.OperationalError:
                time.sleep(0.01)
        for c in crowd:
            c.close()

    def has_all():
        end_all_sessions(broken_database)
        return broken_database.value("""
            SELECT count(*) FILTER (WHERE usename = 'composure_worker') = 0
                   AND count(*) >= current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
              FROM pg_stat_activity WHERE backend_type = 'client backend'""")

    takers = [threading.Thread(target=take) for _ in range(2)]

    def fault(_):
        for t in takers:
            t.start()
        wait_until(has_all, "somebody else to have all connections")
        time.sleep(HOLD)
        over.set()  # from here on there are some
    try:
        scene("exhausted", fault)
    finally:
        over.set()
        for t in takers:
            t.join()
        broken_database.sql("DROP ROLE crowd")


# --- something in it is ---


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to mount a tmpfs")
def test_the_disk_is_full(broken_database, place, scene):
    folder = place.folder("disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=0777", "tmpfs", folder], check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        space = place.folder("disk/space")
        space.chmod(0o700)
        broken_database.sql(f"CREATE TABLESPACE disk LOCATION '{space}'")
        broken_database.sql("ALTER TABLE public.notes SET TABLESPACE disk")
        broken_database.sql("ALTER TABLE public.payments SET TABLESPACE disk")

        def fault(_):
            with open(folder / "filler", "wb", buffering=0) as f:
                try:
                    while f.write(b"x" * 4096):
                        pass
                except OSError:
                    pass
            time.sleep(HOLD)
            (folder / "filler").unlink()
        try:
            scene("disk full", fault, spared=("other", "reads"))
        finally:
            broken_database.sql("ALTER TABLE public.notes SET TABLESPACE pg_default")
            broken_database.sql("ALTER TABLE public.payments SET TABLESPACE pg_default")
            broken_database.sql("DROP TABLESPACE disk")
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_table_is_locked(broken_database, scene):
    def fault(_):
        holder = broken_database.connect()
        holder.autocommit = False
        with holder.cursor() as c:
            c.execute("LOCK TABLE public.plain IN ACCESS EXCLUSIVE MODE")
            time.sleep(HOLD)
        holder.rollback()
        holder.close()
    scene("locked", fault, spared=("other", "writes"))


def test_one_resource_is_slow(place, scene):
    """Ten times as many clients as there are connections ask for it: so many are out at a time if all have to wait."""
    clients = 10 * WORKERS * CONNECTIONS

    def fault(of):
        records = place.file("slow", "")
        stream = Stream("slow", "/api/slow", of.key, connections=3 * clients, rate=2 * clients * 1000 / DEADLINE_MS)
        load(of.workers, stream, seconds=HOLD, records=records)
        return read_records(records)
    scene("slow", fault, spared=("other", "reads", "writes"))


# --- the wire to it is ---


@pytest.fixture(scope="module")
def far(place):
    """(wire, database, dsn): PostgreSQL behind a wire; it is reached from here without it, too."""
    if not wire.usable():
        pytest.skip("needs root, /dev/net/tun and iproute2, for a network of its own")
    made = wire.Wire()
    cluster = Cluster(place, "far", network=made.network, listen_addresses=made.far)
    with open(cluster.data / "pg_hba.conf", "a") as f:
        f.write(f"host all all {made.near}/32 trust\n")
    database = prepare(cluster.create_database("faults"))
    database.sql("SELECT pg_reload_conf()")
    yield made, database, f"host={made.far} port={PORT} dbname=faults user=composure_worker"
    cluster.stop()
    made.close()


@pytest.mark.parametrize("title, loss, delay_ms, unhurried", [("wire cut", 1, 0, ()), ("wire bad", 0.2, 50, ("hits",))])
def test_packets_are_lost_and_delayed(far, scene, title, loss, delay_ms, unhurried):
    """Where the feed comes late, but comes, a hit is asked for first (doc/caching.md): it takes as long as the wire."""
    it, database, dsn = far

    def fault(_):
        it.be(loss, delay_ms)
        time.sleep(HOLD)
        it.be()
    scene(title, fault, database.cluster, database, dsn=dsn, unhurried=unhurried)


# --- a replica, and what takes over ---


@pytest.fixture(scope="module")
def followed(place):
    """(primary, replica, database)"""
    primary = Cluster(place, "followed")
    database = prepare(primary.create_database("faults"))
    replica = Replica(place, primary, "follower")
    yield primary, replica, database
    for cluster in (primary, replica):
        if cluster.process.alive():
            cluster.stop()


@pytest.fixture
def replicated(scene, followed):
    primary, replica, database = followed
    dsn = (f"host={primary.sockets},{replica.sockets} port={PORT} dbname=faults user=composure_worker"
           " target_session_attrs=read-write")

    def run(title, fault, **more):
        scene(title, fault, primary, database, dsn=dsn, read_dsn=replica.dsn("faults", "composure_worker"), **more)
    return run


def test_a_replica_lags(followed, replicated):
    _, replica, _ = followed

    def fault(_):
        replica.pause()
        time.sleep(HOLD)
        replica.resume()
    replicated("lagging", fault, spared=("other", "reads", "writes"))


def test_a_replica_is_killed(followed, replicated):
    """Its reads are the primary's from then on; who was reading there asks once more."""
    _, replica, _ = followed

    def fault(_):
        replica.kill()
        time.sleep(HOLD)
        replica.start()
    replicated("replica killed", fault, spared=("writes",))


def test_a_replica_takes_over(followed, replicated):
    """The last of these: there is no way back. No commit returns before the replica has it on its disk, or it could be lost."""
    primary, replica, database = followed
    database.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
    database.sql("SELECT pg_reload_conf()")

    def fault(of):
        primary.kill()
        time.sleep(HOLD / 2)
        of.back = time.monotonic()  # workers may find the new primary before pg_ctl tells us
        replica.promote()
        of.database = Database(replica, "faults")
        of.database.keys = database.keys
    replicated("promoted", fault)
