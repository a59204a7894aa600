"""A throw-away PostgreSQL: a Unix socket, no fsync, everything trusted inside a folder that is ours.

initdb takes a second of processor time, a copy of what it made a tenth of it: so one is made for each run, or two, and
copied. Processes can be killed without fsync; only a machine that goes down would need it."""

import atexit
import functools
import os
import re
import signal
import subprocess
from pathlib import Path

import psycopg2

from .process import SOURCE, Gone, Home, Process, as_user, children_of, environment, wait_until

PORT = 5432


def newest_bin():
    """Where Debian keeps initdb and postgres."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[-3]))
    return found[-1].parent


def kept_home():
    """A home until this process ends; those that it has forked leave it alone."""
    home, maker = Home(), os.getpid()
    atexit.register(lambda: os.getpid() == maker and home.remove())
    return home


@functools.lru_cache(maxsize=None)
def empty_data():
    """The data directory that initdb makes."""
    home = kept_home()
    data = home.path / "data"
    subprocess.run(
        as_user([newest_bin() / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync", "--encoding=UTF8",
                 "--locale=C.UTF-8", "--wal-segsize=1"]),
        env=environment(home), cwd=home.path, check=True, stdout=subprocess.DEVNULL)
    return shrunk(data)


def copy_data(origin, data):
    subprocess.run(["cp", "-a", "--reflink=auto", origin, data], check=True)


def shrunk(data):
    """Without the log, which is half of it, but for what it takes to start."""
    told = subprocess.run([newest_bin() / "pg_controldata", data], check=True, stdout=subprocess.PIPE, text=True).stdout
    needed = re.search(r"REDO WAL file: *(\w+)", told).group(1)
    for segment in (data / "pg_wal").iterdir():
        if segment.is_file() and segment.name != needed:
            segment.unlink()
    return data


@functools.lru_cache(maxsize=None)
def filled():
    """(data directory, keys of the demo): its database `own` has the demo."""
    cluster = Cluster(kept_home())
    own = cluster.create_database("own")
    own.migrate()
    own.load_demo(rows=1000)
    cluster.stop()
    return shrunk(cluster.data), own.keys


class Cluster:
    def __init__(self, home, name="pg", network=None, data=None, **settings):
        """A copy of the directory `data`, else an empty one. `network` is the file of a network namespace; its Unix socket is
        reached from here all the same."""
        self.home, self.name, self.network, self.settings = home, name, network, settings
        self.bin = newest_bin()
        self.data = home.path / name / "data"
        self.sockets = home.folder(name)
        self.process = None
        self.frozen = []
        self.origin = data or empty_data()
        copy_data(self.origin, self.data)
        self.start()

    def start(self):
        settings = {"listen_addresses": "", "unix_socket_directories": self.sockets, "port": PORT, "fsync": "off",
                    "dynamic_shared_memory_type": "mmap",  # else what is killed leaves files in /dev/shm
                    "synchronous_commit": "on", "full_page_writes": "off", "max_connections": 100,
                    "max_wal_size": "1GB", "wal_keep_size": "256MB", "shared_buffers": "64MB", "log_line_prefix": "%m [%p] %u@%d ", **self.settings}
        argv = [self.bin / "postgres", "-D", self.data]
        for key, value in settings.items():
            argv += ["-c", f"{key}={value}"]
        self.process = Process(self.home, self.name, argv, network=self.network)
        wait_until(self.answers, "PostgreSQL")

    def answers(self):
        if not self.process.alive():
            raise Gone(self.process.output())
        self.connect("postgres").close()
        return True

    def stop(self, how=signal.SIGINT):
        """Fast: sessions are ended, transactions rolled back. With SIGQUIT immediate: as after a crash."""
        self.thaw()
        self.process.stop(how)

    def kill(self):
        """A crash: the postmaster and each of its processes get SIGKILL."""
        self.thaw()
        family = children_of(self.process.pid)
        self.process.kill()
        for pid in family:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        wait_until(lambda: not any(Path(f"/proc/{p}").exists() for p in family), "the last backend to end")

    def restart(self):
        if self.process.alive():
            self.stop()
        self.start()

    def freeze(self):
        """Every process stops where it is: it accepts nothing and answers nothing, but its sockets live."""
        self.frozen = [self.process.pid]
        os.kill(self.process.pid, signal.SIGSTOP)
        for pid in children_of(self.process.pid):
            os.kill(pid, signal.SIGSTOP)
            self.frozen.append(pid)

    def thaw(self):
        for pid in reversed(self.frozen):
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
        self.frozen = []

    def dsn(self, database="postgres", user="postgres"):
        return f"host={self.sockets} port={PORT} dbname='{database}' user={user}"

    def connect(self, database="postgres", user="postgres"):
        """psycopg2, in autocommit."""
        connection = psycopg2.connect(self.dsn(database, user))
        connection.autocommit = True
        return connection

    def psql(self, database, *arguments, check=True):
        """Runs psql as the owner; its output as text."""
        done = subprocess.run(
            ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.dsn(database), *map(str, arguments)],
            cwd=SOURCE, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if check and done.returncode:
            raise AssertionError(f"psql {' '.join(map(str, arguments))}: {done.returncode}\n{done.stderr}")
        return done.stdout if check else done

    def sql(self, text):
        """One statement that concerns all of it."""
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(text)
        finally:
            connection.close()

    def create_database(self, name, template="template0"):
        """By copying files: with fsync off that is half the work of logging every page."""
        self.sql(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
        return Database(self, name)

    def drop_database(self, name):
        self.sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


class Database:
    """One database of the cluster, for the test as owner and for workers as composure_worker."""

    def __init__(self, cluster, name, keys=()):
        self.cluster, self.name = cluster, name
        self.keys = dict(keys)

    @property
    def dsn(self):
        return self.cluster.dsn(self.name)

    @property
    def worker_dsn(self):
        return self.cluster.dsn(self.name, "composure_worker")

    def connect(self, user="postgres"):
        return self.cluster.connect(self.name, user)

    def sql(self, text, *parameters):
        """Runs one or more statements; the rows of the last one as tuples, None without any."""
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(text, parameters or None)
                return cursor.fetchall() if cursor.description else None
        finally:
            connection.close()

    def value(self, text, *parameters):
        """The single value of a single row."""
        return self.sql(text, *parameters)[0][0]

    def file(self, path, **variables):
        arguments = [a for k, v in variables.items() for a in ("-v", f"{k}={v}")]
        return self.cluster.psql(self.name, *arguments, "-f", path)

    def migrate(self):
        self.file("sql/migrate.sql")

    def load_demo(self, rows=1000):
        """users, payments (three for each user), countries, currencies, transfer(); the key of self.keys['demo']."""
        self.file("sql/demo/demo.sql", rows=rows, iso_codes="/usr/share/iso-codes/json")
        self.keys["demo"] = self.create_key("demo", role="api_user", plan="demo")

    def create_key(self, name, **options):
        """A new API key's secret. Options are create_key()'s arguments by name: role='api_user', plan='demo'."""
        more = "".join(f", {option} => %s" for option in options)
        return find_key(self.value(f"SELECT composure.create_key(%s{more})::text", name, *options.values()))


def find_key(text):
    """The secret in what create_key() returned, whatever stands around it."""
    return re.search(r"cmps_[0-9A-Za-z_]+", text).group(0)
