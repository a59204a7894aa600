"""For programs that measure one worker without a web server: its PostgreSQL, database and worker, gone again in the end."""

from contextlib import contextmanager

from . import servers
from .cluster import Cluster
from .process import Home


@contextmanager
def one_worker(prepare, cluster=None, **settings):
    """(database, workers), ready. `prepare(database)` fills the new database; `cluster` and the rest are settings of
    PostgreSQL and of the worker. It keeps no answers: what is measured is what it takes to make one."""
    home = Home()
    try:
        postgres = Cluster(home, **(cluster or {}))
        database = postgres.create_database("bench")
        database.migrate()
        prepare(database)
        database.sql("VACUUM ANALYZE")
        workers = servers.Workers(home, "worker", 1, (), **{"dsn": database.worker_dsn, "log": "none", "cache_bytes": 0, **settings})
        workers.wait_ready()
        yield database, workers
        workers.stop()
        postgres.stop()
    finally:
        home.remove()
