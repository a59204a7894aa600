"""Tests side by side: pytest collects, forks, and each process takes the next group of tests until none is left. Those that
are marked `alone` run afterwards, beside nothing. Each process has session fixtures of its own, PostgreSQL among them."""

import ctypes
import fcntl
import os
import signal
import tempfile
from contextlib import contextmanager

import pytest

PR_SET_PDEATHSIG = 1

# Half a minute and more, and most of it waiting.
LONGEST = {name: n for n, name in enumerate((
    "test_faults", "test_script_server", "test_limits", "test_feed_stress", "test_region", "test_replicas", "test_writing",
    "test_breakers", "test_never_stale", "test_store_crash", "test_slow_clients", "test_leaving", "test_failover", "test_store",
    "test_crash", "test_walks", "test_web_servers", "test_partial", "test_in_force"))}


class Counter:
    """Counts for processes that have been forked. Who is killed while counting holds up nobody: the kernel unlocks."""

    def __init__(self):
        self.file = tempfile.TemporaryFile()

    @contextmanager
    def next(self):
        """How many there were before; no other process counts until the block ends."""
        fcntl.lockf(self.file, fcntl.LOCK_EX)
        try:
            n = self.value
            os.pwrite(self.file.fileno(), b"%d" % (n + 1), 0)
            yield n
        finally:
            fcntl.lockf(self.file, fcntl.LOCK_UN)

    @property
    def value(self):
        return int(os.pread(self.file.fileno(), 20, 0) or 0)


class SideBySide:
    """`before()` makes what all processes are to have; failed(text) is told of one that did not end as it should."""

    def __init__(self, processes, failed, before):
        self.processes, self.failed, self.before = processes, failed, before
        self.taken = Counter()
        self.children = []
        self.is_child = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        if session.testsfailed or session.config.option.collectonly:
            return None
        alone = [item for item in session.items if item.get_closest_marker("alone")]
        groups = groups_of(item for item in session.items if not item.get_closest_marker("alone"))
        self.before()
        try:
            for _ in range(min(self.processes, len(groups))):
                pid = os.fork()
                if not pid:
                    self.be_child(session)
                    run(session, self.take(groups))
                    return True
                self.children.append(pid)
            while self.children:
                status = self.wait()
                if status:
                    self.failed(f"a process of the tests ended with {status}")
        finally:
            for pid in self.children:
                os.kill(pid, signal.SIGTERM)
            while self.children:
                self.wait()
        run(session, iter(alone))
        return True

    def be_child(self, session):
        self.is_child, self.children = True, []
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        capture = session.config.pluginmanager.getplugin("capturemanager")
        capture.stop_global_capturing()  # into a file that the others have, too
        capture.start_global_capturing()

    def take(self, groups):
        while True:
            with self.taken.next() as n:
                pass
            if n >= len(groups):
                return
            yield from groups[n]

    def wait(self):
        """Until a child ends; its exit status."""
        pid, status = os.wait()
        self.children.remove(pid)
        return os.waitstatus_to_exitcode(status)


def groups_of(items):
    """The tests of each file, those that take longest first, then those of which there are most."""
    files = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    return sorted(files.values(), key=lambda tests: (LONGEST.get(tests[0].path.stem, len(LONGEST)), -len(tests)))


def run(session, items):
    """A test's fixtures end with regard to what comes next, so that is fetched beforehand."""
    item = next(items, None)
    while item:
        following = next(items, None)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following
