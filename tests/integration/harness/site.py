"""A database, a worker and lighttpd that all tests of a file share: started once, for tests that ask much and leave
nothing behind that another would stumble over."""

from contextlib import contextmanager

from . import servers
from .process import wait_until


class Site:
    """`client` has the demo's key, if there is one."""

    def __init__(self, database, workers, server):
        self.database, self.workers, self.server = database, workers, server
        self.client = server.client(database.keys.get("demo"))

    def sql(self, text, *parameters):
        return self.database.sql(text, *parameters)

    def value(self, text, *parameters):
        return self.database.value(text, *parameters)

    def expose(self, relation, role="api_user", name=None, **options):
        """Exposes it, lets the role do everything with it, and waits until the workers know. Options are expose()'s."""
        name = name or relation.rpartition(".")[2].strip('"')
        options["name"] = name
        schema = relation.rpartition(".")[0]
        self.sql(f"GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT ALL ON {relation} TO {role}")
        more = "".join(f", {option} => %s" for option in options)
        before = self.version()
        self.sql(f"SELECT composure.expose(%s{more})", relation, *options.values())
        assert self.version() > before
        self.settle()
        return "/api/" + name

    def version(self):
        return self.value("SELECT catalog_version FROM composure.installation")

    def settle(self):
        """Until the worker serves the catalog as it is now: a table made for this appears in it."""
        marker = f"marker_{self.version()}"
        self.sql(f"CREATE VIEW public.{marker} AS SELECT 1 AS id;"
                 f"SELECT composure.expose('public.{marker}', key => '{{id}}')")
        self.wait_status(f"/api/{marker}", 401)
        self.sql(f"SELECT composure.unexpose('{marker}'); DROP VIEW public.{marker}")
        self.wait_status(f"/api/{marker}", 404)

    def wait_status(self, path, status, client=None, **more):
        client = client or self.server.client()
        return wait_until(lambda: (r := client.get(path, **more)).status == status and r, f"{status} from {path}")


@contextmanager
def site(home, name, database, **settings):
    workers = servers.Workers(home, f"{name}-worker", 1, dsn=database.worker_dsn, **settings)
    server = None
    try:
        workers.wait_ready()
        server = servers.lighttpd(home, f"{name}-lighttpd", workers)
        made = Site(database, workers, server)
        yield made
        made.client.close()
    finally:
        if server:
            server.stop()
        workers.stop()
