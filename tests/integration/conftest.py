"""Fixtures of the integration tests. The built program's path is in COMPOSURE_BIN.

    def test_a_page(database, workers, lighttpd):
        server = lighttpd(workers(2, database))
        page = server.client(database.keys["demo"]).get("/api/users?limit=50")

Servers and workers that a test makes end with the test; a worker that does not end with status 0, or about which a
sanitizer has something to say, fails it. What they wrote is shown when a test fails.
"""

import itertools
import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import servers  # noqa: E402
from harness.cluster import Cluster, Database, filled  # noqa: E402
from harness.process import Home  # noqa: E402
from harness.replica import Replica  # noqa: E402
from harness.side_by_side import SideBySide  # noqa: E402
from harness.tap import Tap  # noqa: E402

LOG_TAIL = 6000  # characters of each program's output that a failed test shows


def pytest_addoption(parser):
    parser.addoption("--tap", action="store_true", help="TAP on standard output in place of pytest's own report")


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session):
    def interrupt(number, _):
        """Once: what follows is cleaning up. A Ctrl-C reaches all processes, and each is told by its parent, too. Where
        Python swallows the exception, as in a destructor, it ends behind the test."""
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_IGN)
        session.shouldstop = f"interrupted by signal {number}"
        raise KeyboardInterrupt(session.shouldstop)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)  # the fixtures clean up


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    config.addinivalue_line("markers", "once: for one build alone, the one without sanitizers (see run)")
    config.addinivalue_line("markers", "alone: times something, or takes all of the machine: not beside other tests")
    if config.getoption("--tap"):
        tap = Tap()
        config.pluginmanager.unregister(name="terminalreporter")
        config.pluginmanager.register(tap, "tap")
        processes = int(os.environ.get("COMPOSURE_JOBS") or 1)
        if processes > 1:
            beside = SideBySide(processes, tap.failed, before=filled)
            config.pluginmanager.register(beside, "side by side")
            tap.is_part = lambda: beside.is_child


@pytest.fixture(scope="session")
def home():
    """The folder of this run, removed at its end."""
    home = Home()
    yield home
    home.remove()


@pytest.fixture(scope="session")
def shared_cluster(home):
    cluster = Cluster(home, data=filled()[0])
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def demo_template(shared_cluster):
    """A database with the demo, only ever copied. It has its name and keys."""
    return Database(shared_cluster, "own", filled()[1])


@pytest.fixture(scope="session")
def migrated_template(shared_cluster):
    database = shared_cluster.create_database("migrated")
    database.migrate()
    return database


@pytest.fixture
def cluster(shared_cluster):
    """PostgreSQL for tests that leave it as it was. Those that stop, kill or freeze it take own_cluster."""
    return shared_cluster


@pytest.fixture
def own_cluster(request, new_home):
    """PostgreSQL for one test alone: .stop() .kill() .restart() .freeze() .thaw(). Nobody has migrated anything in it, but
    for own_database."""
    cluster = Cluster(new_home, data=filled()[0] if "own_database" in request.fixturenames else None)
    yield cluster
    if cluster.process.alive():
        cluster.stop(signal.SIGQUIT)


@pytest.fixture
def own_database(own_cluster):
    """The demo in own_cluster."""
    return Database(own_cluster, "own", filled()[1])


@pytest.fixture
def replica_of(new_home):
    """replica_of(own_cluster, **settings): a cluster that follows it."""
    made = []

    def make(primary, **settings):
        made.append(Replica(new_home, primary, f"replica{len(made)}", **settings))
        return made[-1]
    yield make
    for replica in made:
        replica.end()


@pytest.fixture
def new_home():
    home = Home()
    yield home
    home.remove()


def copy_of(template, count=itertools.count(1)):
    database = template.cluster.create_database(f"test_{next(count)}", template.name)
    database.keys = dict(template.keys)
    return database


@pytest.fixture(scope="session")
def database(demo_template):
    """The demo (1,000 users, 3,000 payments), shared: tests may add rows, not depend on there being none."""
    return copy_of(demo_template)


@pytest.fixture
def copies():
    """copies(template): a copy until the test ends."""
    made = []

    def copy(template):
        made.append(copy_of(template))
        return made[-1]
    yield copy
    for database in made:
        database.cluster.drop_database(database.name)


@pytest.fixture
def fresh_database(copies, demo_template):
    """A copy of the demo for one test alone."""
    return copies(demo_template)


@pytest.fixture
def bare_database(copies, migrated_template):
    """Migrated, nothing exposed, for one test alone."""
    return copies(migrated_template)


@pytest.fixture
def running(request, new_home):
    """What the test has started, in order; ended last first. Behind a failed test comes what each of them wrote."""
    started = []
    yield started
    faults = []
    for thing in reversed(started):
        try:
            thing.stop()
        except AssertionError as error:
            faults.append(str(error))
    report = getattr(request.node, "report_call", None)
    if faults or (report and report.failed):
        for thing in started:
            print(f"--- {thing.name if hasattr(thing, 'name') else thing.process.name} ---")
            print(thing.output()[-LOG_TAIL:])
    assert not faults, "\n".join(faults)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    setattr(item, f"report_{call.when}", outcome.get_result())


@pytest.fixture
def workers(running, new_home):
    """workers(n, database, **settings): n workers on one socket, ready. Settings are the program's, by name:
    deadline_ms=500. With dsn= in place of a database they are only alive, not waited for until ready."""
    def start(n=1, database=None, arguments=(), ready=True, **settings):
        if database is not None:
            settings.setdefault("dsn", database.worker_dsn)
        made = servers.Workers(new_home, f"worker{len(running)}", n, arguments, **settings)
        running.append(made)
        if database is not None and ready:
            made.wait_ready()
        return made
    return start


@pytest.fixture
def worker(workers):
    """worker(database, **settings): one worker."""
    def start(database=None, **settings):
        return workers(1, database, **settings)
    return start


def web_server(kind):
    program = {"apache": "apache2"}.get(kind, kind)

    @pytest.fixture(name=kind)
    def fixture(running, new_home):
        """lighttpd(workers, **options): the web server in front of the workers, as conf/ has it."""
        if not servers.available(program):
            pytest.skip(f"apt-get install {program}")

        def start(workers, **options):
            made = getattr(servers, kind)(new_home, f"{kind}{len(running)}", workers, **options)
            running.append(made)
            return made
        return start
    return fixture


lighttpd = web_server("lighttpd")
nginx = web_server("nginx")
apache = web_server("apache")


@pytest.fixture(params=["lighttpd", "nginx", "apache"])
def web(request):
    """Each of the three in turn: a test that takes `web` runs three times. web(workers) -> Server."""
    start = request.getfixturevalue(request.param)
    peer = request.param

    def start_one(workers, **options):
        return start(workers, **options)
    start_one.peer = peer
    return start_one


@pytest.fixture
def http(database, workers, lighttpd):
    """A client with the demo's key, through lighttpd, to one worker: for tests that only ask."""
    client = lighttpd(workers(1, database)).client(database.keys["demo"])
    yield client
    client.close()
