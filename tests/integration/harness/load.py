"""tests/load/load from Python: streams of requests beside one another, and how long each answer took.

    seen = load(workers, Stream("page", "/api/users?limit=50", key, rate=300), seconds=2)
    assert seen["page"].failed == 0
"""

import json
import os
import subprocess

from .process import BINARY

PROGRAM = BINARY.parent / "tests/load/load"

# `make soak` sets it: the full counts of the issue, and its figures as limits.
SOAK = bool(os.environ.get("COMPOSURE_SOAK"))


class Stream:
    """Requests of one kind. Without a rate each connection asks again when it has its answer. `uri` may have one {} that
    runs from `first` to `last`; answers that contain `mark` are counted apart; those later than late_ms are counted; what
    is still out at the end of one to `abandon` is not waited for. `headers_of` is a file: each request has one of its
    lines as a header more."""

    def __init__(self, name, uri, key=None, connections=4, rate=None, count=None, method="GET", body=None, mark=None,
                 late_ms=None, first=1, last=1000, headers=(), headers_of=None, abandon=False):
        self.name = name
        self.arguments = ["--stream", name, "--uri", uri, "--method", method, "--connections", connections,
                          "--from", first, "--to", last]
        for option, value in (("rate", rate), ("count", count), ("body", body), ("mark", mark)):
            if value is not None:
                self.arguments += [f"--{option}", value]
        if late_ms:
            self.arguments += ["--late-us", int(late_ms * 1000)]
        if headers_of:
            self.arguments += ["--headers-of", headers_of]
        if abandon:
            self.arguments += ["--abandon"]
        for header in [*headers, *([f"Authorization: Bearer {key}"] if key else [])]:
            self.arguments += ["--header", header]


class Seen:
    """What came of a stream: counts, and latencies in milliseconds (p50, p99, max, ...)."""

    def __init__(self, line):
        self.raw = line
        self.sent, self.answered, self.failed = line["sent"], line["answered"], line["failed"]
        self.status = {int(code): n for code, n in line["status"].items()}
        self.rate, self.late, self.marked = line["rate"], line["late"], line["marked"]
        self.p50, self.p90, self.p99, self.p999, self.max = (
            line[f"{name}_us"] / 1000 for name in ("p50", "p90", "p99", "p999", "max"))

    def __repr__(self):
        return (f"{self.answered} answers ({self.rate:.0f}/s) {self.status}, {self.failed} failed; "
                f"p50 {self.p50:.2f} p99 {self.p99:.2f} p99.9 {self.p999:.2f} max {self.max:.2f} ms"
                + (f", {self.marked} apart" if self.marked else "") + (f", {self.late} late" if self.late else ""))


class Load:
    """A run of the program, to be waited for with result(); finish() ends it before its time, end() kills it. `records` is
    a file for a line of each request (see load.c)."""

    def __init__(self, target, *streams, seconds, records=None):
        where = ["--http", target.port] if hasattr(target, "port") else ["--socket", target.path]
        argv = ["setpriv", "--pdeathsig", "KILL", "--", PROGRAM, *where, "--seconds", seconds]
        if records:
            argv += ["--records", records]
        for stream in streams:
            argv += stream.arguments
        self.popen = subprocess.Popen([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def result(self):
        out, err = self.popen.communicate()
        assert self.popen.returncode == 0, err
        seen = {}
        for line in map(json.loads, out.splitlines()):
            seen[line["stream"]] = Seen(line)
            print(f"{line['stream']:12} {seen[line['stream']]}")
        if err:
            print(err)
        return seen

    def running(self):
        return self.popen.poll() is None

    def finish(self):
        """What is out is waited for; what came until then."""
        self.popen.terminate()
        return self.result()

    def end(self):
        self.popen.kill()
        self.popen.communicate()


def load(target, *streams, seconds, records=None):
    """Runs to its end. `target` is Workers (FastCGI on their socket) or a web Server."""
    return Load(target, *streams, seconds=seconds, records=records).result()
