"""Processes that a test starts: as an unprivileged user, with their output kept, ended by pid and never left behind."""

import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[3]
BINARY = Path(os.environ.get("COMPOSURE_BIN", SOURCE / "composure"))

# PostgreSQL refuses root, so what root starts runs as the user of Debian's package.
USER = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())


class Gone(AssertionError):
    """What is waited for can never come: its process has ended."""


def wait_until(condition, what, timeout=20.0):
    """Returns the first true value of condition(). Exceptions count as false; past the time the last one is shown."""
    end = time.monotonic() + timeout
    last = None
    while True:
        try:
            value = condition()
            if value:
                return value
            last = None
        except Gone:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not there yet
            last = error
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout:g} s for {what}" + (f": {last!r}" if last else ""))
        time.sleep(0.01)


RESERVED = []


def free_port():
    """A TCP port on 127.0.0.1 that nobody else gets as long as this process lives: below those that the kernel gives to who
    connects, and reserved among all test processes by the UDP port of the same number."""
    lowest_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(max(1024, lowest_given - 10000), lowest_given), 1000):
        reserved = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            reserved.bind(("127.0.0.1", port))
            with socket.socket() as s:
                s.bind(("127.0.0.1", port))
        except OSError:
            reserved.close()
            continue
        RESERVED.append(reserved)
        return port
    raise AssertionError("no port is free")


def place_for_files():
    """/dev/shm where there is room: thousands of small files cost a file system on a disk several times the processor time."""
    memory = os.statvfs("/dev/shm")
    available = int(re.search(r"MemAvailable: *(\d+)", Path("/proc/meminfo").read_text()).group(1)) << 10
    roomy = min(memory.f_bavail * memory.f_frsize, available) > 6 << 30
    return "/dev/shm" if roomy and not memory.f_flag & os.ST_NOEXEC else "/tmp"


def as_user(argv):
    """The command that runs argv as USER and dies with us, however we end."""
    prefix = ["setpriv", "--pdeathsig", "KILL"]
    if os.getuid() == 0:
        prefix += [f"--reuid={USER.pw_uid}", f"--regid={USER.pw_gid}", "--init-groups"]
    return prefix + ["--"] + [str(a) for a in argv]


class Home:
    """A short-named folder of USER's: Unix socket paths end at 107 bytes, and the checkout may be closed to USER."""

    def __init__(self, place=None):
        self.path = Path(tempfile.mkdtemp(prefix="cmps-", dir=place or place_for_files()))
        self.give(self.path)
        self.path.chmod(0o755)
        self.shared = None

    def give(self, path):
        if os.getuid() == 0:
            os.chown(path, USER.pw_uid, USER.pw_gid)
        return path

    def folder(self, name):
        path = self.path / name
        path.mkdir(exist_ok=True)
        return self.give(path)

    def file(self, name, text):
        path = self.path / name
        path.write_text(text)
        return self.give(path)

    def copy(self, source, name=None):
        """A copy that USER can read, also where the checkout lies in a closed folder."""
        target = self.path / (name or source.name)
        if not target.exists():
            if source.is_dir():
                shutil.copytree(source, target)
                for path in target.rglob("*"):
                    path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
            else:
                shutil.copy(source, target)
            target.chmod(0o755)
        return target

    def memory(self):
        """Where the workers of this home share memory: a folder of its own, so that nothing of a test outlives it."""
        if self.shared is None:
            self.shared = Path(tempfile.mkdtemp(prefix="cmps-", dir="/dev/shm"))
            self.give(self.shared)
        return self.shared

    def remove(self):
        shutil.rmtree(self.path, ignore_errors=True)
        if self.shared is not None:
            shutil.rmtree(self.shared, ignore_errors=True)


class Process:
    """One started program. Its output is in self.output(); stop() ends it and gives the exit status. `network` is the
    file of a network namespace that it runs in."""

    def __init__(self, home, name, argv, env=None, stdin=subprocess.DEVNULL, network=None):
        self.name = name
        self.log = home.file(f"{name}.out", "")
        enter = ["nsenter", f"--net={network}", "--"] if network else []
        with open(self.log, "ab") as out:
            self.popen = subprocess.Popen(
                enter + as_user(argv), env={**environment(home), **(env or {})}, stdin=stdin, stdout=out, stderr=out, cwd=home.path)

    @property
    def pid(self):
        return self.popen.pid

    def alive(self):
        return self.popen.poll() is None

    def output(self):
        return self.log.read_text(errors="replace")

    def send_signal(self, number):
        self.popen.send_signal(number)

    def stop(self, number=signal.SIGTERM, timeout=20):
        """Asks, then forces. The exit status, negative for a signal."""
        if self.alive():
            self.popen.send_signal(signal.SIGCONT)
            self.popen.send_signal(number)
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise AssertionError(f"{self.name} did not end within {timeout} s of signal {number}\n{self.output()}") from None

    def kill(self):
        self.popen.kill()
        return self.popen.wait()


def environment(home):
    """Nothing of the caller's but what tools need; sanitizers report and give up on the first error."""
    env = {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(home.path),
        "TMPDIR": str(home.path),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "ASAN_OPTIONS": "abort_on_error=0:exitcode=99:detect_stack_use_after_return=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:exitcode=99",
    }
    env.update({k: v for k, v in os.environ.items() if k in ("LSAN_OPTIONS", "LD_LIBRARY_PATH")})
    return env


def children_of(pid):
    """Pids of the direct children."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(p) for p in text.split()]


def program_of(pid):
    """The path of what a process runs; empty when it has ended meanwhile, as the script's short-lived children do."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""
