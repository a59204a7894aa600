"""pytest's results as TAP on standard output, one line as each test ends, for automake's driver."""

import re


class Tap:
    def __init__(self):
        self.count = 0
        self.failed = set()

    def say(self, text):
        print(text, flush=True)

    def result(self, ok, name, directive=""):
        self.count += 1
        self.say(f"{'ok' if ok else 'not ok'} {self.count} - {name}{directive}")

    def comment(self, text):
        for line in text.splitlines():
            self.say(f"# {line}")

    def pytest_runtest_logreport(self, report):
        name = re.sub(r"^.*?([^/]*)\.py::", r"\1::", report.nodeid).replace("#", "No.")
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else getattr(report, "wasxfail", "")
            self.result(True, name, f" # SKIP {reason}")
        elif report.failed:
            self.comment(report.longreprtext)
            for title, content in report.sections:
                self.comment(f"--- {title} ---\n{content}")
            self.result(False, name if report.when == "call" else f"{name} ({report.when})")
        elif report.when == "call":
            self.result(True, f"{name} ({report.duration:.1f} s)")

    def pytest_collectreport(self, report):
        if report.failed:
            self.comment(report.longreprtext)
            self.result(False, f"collecting {report.nodeid}")

    def pytest_internalerror(self, excrepr):
        self.comment(str(excrepr))
        self.result(False, "pytest itself")

    def pytest_sessionfinish(self, session, exitstatus):
        if not self.count:
            self.result(False, "there are tests")
        self.say(f"1..{self.count}")
        if exitstatus == 1 or exitstatus == 5:  # failed tests are told above; no need to say it twice
            session.exitstatus = 0
