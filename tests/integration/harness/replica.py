"""A second cluster that follows the first one by streaming replication, and may be promoted."""

import signal
import subprocess

from .cluster import PORT, Cluster, newest_bin
from .process import as_user, environment, wait_until


class Replica(Cluster):
    """Made by pg_basebackup -R from `primary`, which goes on meanwhile."""

    def __init__(self, home, primary, name="replica", **settings):
        self.home, self.name, self.settings = home, name, settings
        self.bin = newest_bin()
        self.data = home.path / name / "data"
        self.sockets = home.folder(name)
        self.process = None
        self.network = None
        self.frozen = []
        subprocess.run(
            as_user([self.bin / "pg_basebackup", "-D", self.data, "-h", primary.sockets, "-p", PORT, "-U", "postgres", "-R",
                     "-X", "stream", "-c", "fast", "--no-sync"]),
            env=environment(home), cwd=home.path, check=True, stdout=subprocess.DEVNULL)
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
