"""What the tests of the shared memory have in common: folders that stand for hosts, workers one by one, and what a
request to them has to bring whatever happened."""

import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from . import fastcgi
from .process import BINARY, Process, as_user, environment, wait_until
from .servers import Workers

NOTE = b"Memory is not shared"
POINTS = os.environ.get("COMPOSURE_TEST_POINTS") == "yes"
LOAD = BINARY.parent / "tests" / "load"


def host(home, name="host"):
    """A runtime_dir of USER's: workers with the same one are on one host."""
    path = home.folder(name)
    path.chmod(0o700)
    return path


def files(folder):
    """The region's and the watch's file, by what they are."""
    return {path.name.split("-")[0]: path for path in Path(folder).iterdir()}


def state_of(pid):
    """'T' when stopped, 'Z' or None when gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_stopped(process):
    return state_of(process.pid) == "T"


def auth(key):
    return {"Authorization": f"Bearer {key}"} if key else {}


def ask(workers, uri, key=None, timeout=5, **more):
    """One request on a connection of its own, as lighttpd does it: answered within `timeout` or an error."""
    with workers.fcgi(timeout) as c:
        return c.ask("GET", uri, auth(key), **more)


def key_id(key):
    return key.split("_")[1]


class Victim(Workers):
    """A worker that is going to stop or die: not waited for, and forgiven how it ends."""

    def __init__(self, home, name, **settings):
        super().__init__(home, name, 1, wait=False, **settings)

    @property
    def process(self):
        return self.processes[0]

    def gone(self):
        return not self.process.alive() or is_stopped(self.process)

    def poke(self, key):
        """A request that may never be answered."""
        c = self.fcgi()
        c.send(fastcgi.request(1, "GET", "/api/users?limit=1", auth(key)))
        return c

    def stop(self):
        self.listener.close()
        if self.process.alive():
            self.process.kill()


def describe(workers):
    """What `composure --region` says, as a list of lines."""
    env = {f"COMPOSURE_{k.upper()}": str(v) for k, v in workers.settings.items() if k != "point" and v is not None}
    done = subprocess.run(as_user([workers.binary, "--region"]), env={**environment(workers.home), **env},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=workers.home.path, timeout=20)
    return done.returncode, done.stdout


class Traffic:
    """Clients that ask without a pause. Each request is answered as it has to be, or its connection is closed because
    its worker was killed; none is left without either past `deadline` seconds."""

    def __init__(self, workers, expectations, clients=4, deadline=5.0):
        """`expectations`: (uri, key, statuses that are right, a function of the answer that must be true)."""
        self.workers, self.expectations, self.deadline = workers, expectations, deadline
        self.wrong, self.answered, self.lost = [], 0, 0
        self.longest = 0.0
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self, at):
        while not self.stopping.is_set():
            at += 1
            uri, key, statuses, right = self.expectations[at % len(self.expectations)]
            begin = time.monotonic()
            try:
                answer = ask(self.workers, uri, key, timeout=self.deadline)
                if answer.status not in statuses or (answer.status == 200 and not right(answer)):
                    self.wrong.append((uri, answer.status, answer.out[:300]))
                self.answered += 1
            except socket.timeout:
                self.wrong.append((uri, "no answer", time.monotonic() - begin))
            except (ConnectionError, AssertionError):
                self.lost += 1
            self.longest = max(self.longest, time.monotonic() - begin)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()


def kill_all(processes, number=signal.SIGKILL):
    for process in processes:
        if process.alive():
            process.send_signal(number)


def start_other(home, name, argv):
    return Process(home, name, argv)


__all__ = [name for name in dir() if not name.startswith("_")] + ["wait_until"]
