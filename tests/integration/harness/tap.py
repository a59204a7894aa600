"""pytest's results as TAP on standard output, one line as each test ends, for automake's driver. Processes that have been
forked (side_by_side.py) count together; what a failed test has to say stands before its line."""

import re

from .side_by_side import Counter

NAME = 200  # characters: a line of that length is written at once


class Tap:
    def __init__(self):
        self.results = Counter()
        self.is_part = lambda: False  # of a run that others end

    def say(self, text):
        print(text, flush=True)

    def result(self, ok, name, directive="", comments=""):
        with self.results.next() as n:
            if comments:
                self.say("\n".join(f"# {line}" for line in comments.splitlines()))
            self.say(f"{'ok' if ok else 'not ok'} {n + 1} - {name}{directive}")

    def failed(self, name, comments=""):
        self.result(False, name, comments=comments)

    def pytest_runtest_logreport(self, report):
        name = re.sub(r"^.*?([^/]*)\.py::", r"\1::", report.nodeid).replace("#", "No.")
        if len(name) > NAME:
            name = name[:NAME - 3] + "..."
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else getattr(report, "wasxfail", "")
            self.result(True, name, f" # SKIP {reason}")
        elif report.failed:
            sections = [f"--- {title} ---\n{content}" for title, content in report.sections]
            self.failed(name if report.when == "call" else f"{name} ({report.when})", "\n".join([report.longreprtext, *sections]))
        elif report.when == "call":
            self.result(True, f"{name} ({report.duration:.1f} s)")

    def pytest_collectreport(self, report):
        if report.failed:
            self.failed(f"collecting {report.nodeid}", report.longreprtext)

    def pytest_internalerror(self, excrepr):
        self.failed("pytest itself", str(excrepr))

    def pytest_keyboard_interrupt(self, excinfo):
        self.say(f"# {excinfo.value}")

    def pytest_sessionfinish(self, session, exitstatus):
        if exitstatus == 1 or exitstatus == 5:  # failed tests are told above; no need to say it twice
            session.exitstatus = 0
        if self.is_part():
            return
        if not self.results.value:
            self.failed("there are tests")
        self.say(f"1..{self.results.value}")
