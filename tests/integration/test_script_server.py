"""script/server, as someone with a fresh checkout uses it: in a copy of this one."""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import psycopg2
import pytest

from harness.process import BINARY, SOURCE, Gone, children_of, free_port, program_of, wait_until
from harness.web import Client

ROWS = 300


def under_sanitizers():
    return b"libasan" in subprocess.run(["ldd", BINARY], stdout=subprocess.PIPE, check=False).stdout


pytestmark = pytest.mark.skipif(under_sanitizers(), reason="script/server builds the program for itself")


class Server:
    """script/server running in the copy."""

    def __init__(self, top, *arguments):
        self.top, self.port = top, free_port()
        self.log = top / "server.out"
        with open(self.log, "wb") as out:
            self.popen = subprocess.Popen(
                [top / "script/server", f"--port={self.port}", "--workers", "2", *arguments],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd="/", start_new_session=True,
                env={**os.environ, "CFLAGS": "-O0"})  # half the time to build it

    def output(self):
        return self.log.read_text()

    def wait_until_it_serves(self):
        def serves():
            if self.popen.poll() is not None:
                raise Gone(self.output())
            return "Ctrl-C stops everything" in self.output()
        wait_until(serves, "script/server to serve", timeout=600)
        return self

    def environment(self):
        text = subprocess.run(
            ["bash", "-c", '. "$1" && printf "%s\\n" "$COMPOSURE_URL" "$COMPOSURE_KEY" "$COMPOSURE_DSN"', "-",
             self.top / "var/server.env"], check=True, stdout=subprocess.PIPE, text=True).stdout
        return dict(zip(("url", "key", "dsn"), text.splitlines()))

    def end(self, number=signal.SIGTERM):
        """The exit status of the script."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        return self.popen.wait(300)

    def client(self):
        return Client(self.port, self.environment()["key"])


def processes_of(top):
    """Command lines of all processes that name a path below top, or work there."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                where = os.readlink(entry / "cwd")
            except OSError:
                continue
            if f"{top}/" in line or where.startswith(f"{top}/"):
                found.append(line)
    return found


def nothing_is_left(server):
    wait_until(lambda: not processes_of(server.top), "the last process to end", timeout=120)
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", server.port))
    assert not list((server.top / "var/run").glob("*.sock"))
    return True


@pytest.fixture(scope="module")
def top(home):
    """A fresh checkout."""
    def left_out(folder, names):
        return [n for n in names if n in (".git", "build", "var", "autom4te.cache", "__pycache__", "config.status", "Makefile")
                or n.startswith("composure-")] if Path(folder) == SOURCE else [n for n in names if n == "__pycache__"]
    top = home.path / "checkout"
    shutil.copytree(SOURCE, top, ignore=left_out)
    subprocess.run(["chmod", "-R", "u+w", top], check=True)
    yield top


@pytest.fixture
def start(top):
    """start(*arguments): script/server in the copy, ended with the test."""
    started = []

    def start_one(*arguments):
        started.append(Server(top, *(arguments or ("--rows", str(ROWS)))))
        return started[-1]
    yield start_one
    for server in started:
        server.end()
        print(server.output()[-3000:])


def curl_lines(output):
    return [line.strip() for line in output.splitlines() if line.strip().startswith("curl ")]


def paste(line):
    done = subprocess.run(["bash", "-c", f"{line} -s -w '\\n%{{http_code}}'"], stdout=subprocess.PIPE, text=True, check=True)
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def test_the_printed_lines_work_and_sigterm_leaves_nothing_behind(start):
    server = start().wait_until_it_serves()
    lines = curl_lines(server.output())
    assert len(lines) == 3

    status, body = paste(lines[0])
    assert status == 200
    assert body.startswith('{"data":[{"id":1,') and '"next_cursor":"eyJpZCI6NTB9","has_more":true}' in body

    status, body = paste(lines[1])
    assert status == 200 and body.startswith('{"data":[{"id":129,') and '"next_cursor":"eyJpZCI6MTc4fQ"' in body

    status, body = paste(lines[2])
    assert status == 201 and '"amount":12.50' in body and f'"id":{3 * ROWS + 1}' in body

    env = server.environment()
    assert env["url"] == f"http://127.0.0.1:{server.port}"
    assert env["key"] in server.output()
    connection = psycopg2.connect(env["dsn"])
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM public.payments")
        assert cursor.fetchone() == (3 * ROWS + 1,)
    connection.close()
    for secret in ("server.env", "key"):
        assert (server.top / "var" / secret).stat().st_mode & 0o077 == 0

    assert server.end(signal.SIGTERM) == 143
    assert nothing_is_left(server)


def test_a_second_start_keeps_data_and_key_and_ctrl_c_ends_it(start):
    before = (start().wait_until_it_serves())
    key = before.environment()["key"]
    count = len(list(before.client().walk("/api/payments?limit=200")))
    before.end()
    assert nothing_is_left(before)

    again = start("--rows", "7").wait_until_it_serves()
    assert "already" in again.output()
    assert again.environment()["key"] == key
    assert len(list(again.client().walk("/api/payments?limit=200"))) == count
    os.killpg(again.popen.pid, signal.SIGINT)  # as a terminal does
    assert again.popen.wait(300) == 130
    assert nothing_is_left(again)


def test_a_killed_script_takes_its_parts_along_and_the_next_start_works(start):
    server = start().wait_until_it_serves()
    server.popen.kill()
    server.popen.wait()
    wait_until(lambda: not processes_of(server.top), "the parts to end")
    assert start().wait_until_it_serves().client().get("/api/users/1").status == 200


def test_it_ends_by_itself_when_a_part_does(start):
    server = start().wait_until_it_serves()
    lighttpd = [p for p in children_of(server.popen.pid) if "lighttpd" in program_of(p)]
    os.kill(lighttpd[0], signal.SIGKILL)
    assert server.popen.wait(300) == 1
    assert "lighttpd ended" in server.output()
    assert nothing_is_left(server)


def test_sigterm_while_it_starts_leaves_nothing_behind(start):
    server = start()
    wait_until(lambda: "starting PostgreSQL" in server.output(), "a step in the middle", timeout=600)
    assert server.end(signal.SIGTERM) == 143
    assert nothing_is_left(server)


def refusal(top, *arguments):
    done = subprocess.run([top / "script/server", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_a_port_in_use_is_one_line(top):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert refusal(top, "--port", str(port)) == f"server: port {port} is in use: choose another with --port\n"


@pytest.mark.parametrize("dsn, said", [
    ("host=/nowhere dbname=x", "No such file or directory"),
    ("postgresql://me:secret@127.0.0.1:1/x", "Connection refused"),
    ("hots=localhost dbname=x", 'invalid connection option "hots"'),
])
def test_a_wrong_dsn_is_one_line_without_the_password(top, dsn, said):
    line = refusal(top, "--port", str(free_port()), "--dsn", dsn)
    assert line.startswith("server: cannot connect with --dsn: ") and said in line and "secret" not in line


@pytest.mark.parametrize("arguments", [("--port", "http"), ("--workers", "0"), ("--rows", "-1"), ("--frobnicate",), ("--port",)])
def test_a_wrong_option_is_one_line(top, arguments):
    assert arguments[0] in refusal(top, *arguments)


def test_a_second_script_is_told_that_the_first_runs(start):
    server = start().wait_until_it_serves()
    assert "is running already" in refusal(server.top, "--port", str(free_port()))


def test_an_own_database_is_migrated_and_served(start, own_cluster):
    database = own_cluster.create_database("My Shop")
    database.sql('CREATE SCHEMA "Sales"; CREATE TABLE "Sales"."Order Lines" ("Order" int, line int, "What?" text, PRIMARY KEY ("Order", line));'
                 """INSERT INTO "Sales"."Order Lines" SELECT o, l, o || '/' || l FROM generate_series(1, 5) o, generate_series(1, 4) l""")
    dsn = f"host={own_cluster.sockets} dbname='My Shop' user=postgres"
    server = start("--dsn", dsn).wait_until_it_serves()
    database.sql('GRANT USAGE ON SCHEMA "Sales" TO api_user; GRANT SELECT ON "Sales"."Order Lines" TO api_user;'
                 """SELECT composure.expose('"Sales"."Order Lines"', name => 'order_lines')""")
    database.sql('''
        CREATE TYPE "Sales"."Mood" AS ENUM ('sad', 'ok'); CREATE DOMAIN "Sales"."Cents" AS int CHECK (VALUE >= 0);
        CREATE TABLE "Sales".moods (id int PRIMARY KEY, mood "Sales"."Mood", price "Sales"."Cents", tags text[]);
        INSERT INTO "Sales".moods VALUES (1, 'sad', 5, '{a,b}'), (2, 'ok', 7, NULL);
        CREATE TABLE "Sales".parts (day date, n int, PRIMARY KEY (day, n)) PARTITION BY RANGE (day);
        CREATE TABLE "Sales".p1 PARTITION OF "Sales".parts FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
        CREATE TABLE "Sales".p2 PARTITION OF "Sales".parts DEFAULT;
        INSERT INTO "Sales".parts SELECT date '2026-01-30' + g, g FROM generate_series(1, 5) g;
        CREATE VIEW "Sales".sums AS SELECT "Order", count(*) AS n FROM "Sales"."Order Lines" GROUP BY 1;
        GRANT SELECT ON "Sales".moods, "Sales".parts, "Sales".sums TO api_user;
        SELECT composure.expose('"Sales".moods'), composure.expose('"Sales".parts'),
               composure.expose('"Sales".sums', key => '{Order}')''')
    client = server.client()
    wait_until(lambda: client.get("/api/order_lines").status == client.get("/api/sums").status == 200,
               "the catalog to be read again")
    assert list(client.walk("/api/moods?limit=1")) == [{"id": 1, "mood": "sad", "price": 5, "tags": ["a", "b"]},
                                                       {"id": 2, "mood": "ok", "price": 7, "tags": None}]
    assert [row["n"] for row in client.walk("/api/parts?limit=2")] == [1, 2, 3, 4, 5]
    assert [row["n"] for row in client.walk("/api/sums?limit=2")] == [4] * 5
    rows = list(client.walk("/api/order_lines?limit=3"))
    assert rows == [{"Order": o, "line": n, "What?": f"{o}/{n}"} for o in range(1, 6) for n in range(1, 5)]
    assert client.get("/api/order_lines/3,2").json == {"Order": 3, "line": 2, "What?": "3/2"}
    server.end()
    assert nothing_is_left(server)
    assert not database.sql("SELECT 1 FROM pg_class WHERE relname = 'users' AND relnamespace = 'public'::regnamespace")
