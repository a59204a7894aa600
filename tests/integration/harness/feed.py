"""tests/load/feed_follow, which follows the change feed with src/db/feed.c, and PgBouncer for it to go through."""

import signal
import subprocess
import threading
import time
from collections import namedtuple

from .process import BINARY, Process, as_user, environment, free_port, wait_until

FOLLOW = BINARY.parent / "tests" / "load" / "feed_follow"

# What was told, and when (time.monotonic()). changed: resource, keys (None: all). everything, failed: words. polled: when
# the poll was asked for.
Event = namedtuple("Event", "at kind resource keys words asked", defaults=(None, None, None, None))


def parse(line):
    at, kind, *words = line.split(" ")
    at = int(at) / 1e6
    if kind == "changed":
        return Event(at, kind, resource=words[0], keys=words[1:] or None)
    if kind == "polled":
        return Event(at, kind, asked=at - int(words[0]) / 1e6)
    return Event(at, kind, words=" ".join(words))


class Follower:
    """One feed. `events` has what it told; on_poll(changes) is called in a thread of its own after each poll that brought
    some."""

    def __init__(self, home, name, dsn, *options, on_poll=None):
        self.name, self.events, self.on_poll = name, [], on_poll
        self.errors = home.file(f"{name}.err", "")
        with open(self.errors, "ab") as err:
            self.popen = subprocess.Popen(
                as_user([home.copy(FOLLOW, f"feed_follow_{name}"), *options, dsn]), env=environment(home),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, cwd=home.path)
        self.fault = None
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        fresh = []
        for line in self.popen.stdout:
            event = parse(line.decode().rstrip("\n"))
            self.events.append(event)
            if event.kind == "changed":
                fresh.append(event)
            elif event.kind == "polled":
                if fresh and self.on_poll:
                    try:
                        self.on_poll(fresh)
                    except Exception as error:  # noqa: BLE001 - shown by stop()
                        self.fault = error
                fresh = []

    def of(self, kind, resource=None):
        return [e for e in list(self.events) if e.kind == kind and resource in (None, e.resource)]

    def wait_started(self):
        wait_until(lambda: self.of("everything") and self.of("polled"), f"{self.name} to follow")
        return self

    def wait_polled(self, after=None, timeout=30):
        """Until all that was committed before now, or before `after`, has been told."""
        after = after or time.monotonic()
        wait_until(lambda: self.events and next((e.asked > after for e in reversed(list(self.events)) if e.kind == "polled"), 0),
                   f"{self.name} to poll", timeout)

    def send_signal(self, number):
        self.popen.send_signal(number)

    def output(self):
        return self.errors.read_text(errors="replace")

    def stop(self):
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGCONT)
            self.popen.send_signal(signal.SIGTERM)
        try:
            status = self.popen.wait(20)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            status = self.popen.wait()
        self.reader.join(20)
        assert status == 0 and self.fault is None, f"{self.name} ended with {status}: {self.fault!r}\n{self.output()}"


class PgBouncer:
    """In transaction mode, in front of a cluster; anyone may log in as anyone, as the cluster allows it."""

    def __init__(self, home, cluster, name="pgbouncer"):
        self.port = free_port()
        self.sockets = home.folder(name)
        users = home.file(f"{name}/users.txt", '"postgres" ""\n"composure_worker" ""\n')
        settings = home.file(f"{name}/pgbouncer.ini", f"""[databases]
* = host={cluster.sockets} port=5432

[pgbouncer]
listen_addr =
listen_port = {self.port}
unix_socket_dir = {self.sockets}
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = 4
max_client_conn = 100
; A server that was down is tried again at once, not after 15 s.
server_login_retry = 0.2
ignore_startup_parameters = extra_float_digits
""")
        self.process = Process(home, name, ["pgbouncer", settings])
        wait_until(lambda: (self.sockets / f".s.PGSQL.{self.port}").exists(), "PgBouncer")

    def dsn(self, database, user="composure_worker"):
        return f"host={self.sockets} port={self.port} dbname={database} user={user}"

    def output(self):
        return self.process.output()

    def stop(self):
        if self.process.alive():
            self.process.stop(signal.SIGINT)
