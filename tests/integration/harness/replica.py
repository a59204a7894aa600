"""A second cluster that follows the first one by streaming replication, and may be promoted."""

import signal

from .cluster import PORT, Cluster, copy_data, newest_bin
from .process import wait_until


class Replica(Cluster):
    """What `primary` was when it was new, and then follows it: pg_basebackup would take a second."""

    def __init__(self, home, primary, name="replica", **settings):
        self.home, self.name, self.settings = home, name, settings
        self.bin = newest_bin()
        self.data = home.path / name / "data"
        self.sockets = home.folder(name)
        self.process = None
        self.network = None
        self.frozen = []
        self.origin = primary.origin
        copy_data(self.origin, self.data)
        for changed in ("postgresql.auto.conf", "pg_hba.conf"):
            copy_data(primary.data / changed, self.data)
        with open(self.data / "postgresql.auto.conf", "a") as file:
            file.write(f"primary_conninfo = 'host={primary.sockets} port={PORT} user=postgres'\n")
        home.file(f"{name}/data/standby.signal", "")
        self.start()

    def value(self, text, *parameters):
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(text, parameters or None)
            return cursor.fetchone()[0]

    def pause(self):
        """Receives, and replays nothing: it lags from now on."""
        self.value("SELECT pg_wal_replay_pause()::text")
        wait_until(lambda: self.value("SELECT pg_get_wal_replay_pause_state()") == "paused", "replay to pause")

    def resume(self):
        self.value("SELECT pg_wal_replay_resume()::text")

    def catch_up(self, primary):
        """Until it has replayed what the primary has now."""
        with primary.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_wal_flush_lsn()::text")
            lsn = cursor.fetchone()[0]
        wait_until(lambda: self.value("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", lsn), "the replica to catch up")

    def promote(self):
        self.value("SELECT pg_promote()")
        wait_until(lambda: not self.value("SELECT pg_is_in_recovery()"), "the replica to be a primary")

    def end(self):
        """At the end of a test, whatever state it is in."""
        if self.process.alive():
            self.thaw()
            self.process.stop(signal.SIGQUIT)
