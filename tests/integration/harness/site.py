"""A database, a worker and lighttpd that all tests of a file share: started once, for tests that ask much and leave
nothing behind that another would stumble over."""

import email.message
import json
from contextlib import contextmanager

from . import servers
from .process import wait_until


class Answer:
    """A worker's answer in the form of harness.web.Response."""

    def __init__(self, answer):
        self.status, self.body = answer.status, answer.body
        self.headers = email.message.Message()
        for line in answer.head.split("\r\n"):
            name, _, value = line.partition(":")
            self.headers[name] = value.strip()

    @property
    def json(self):
        return json.loads(self.body, parse_float=str)

    def __repr__(self):
        return f"<{self.status} {self.body[:300]!r}>"


class Direct:
    """A client of the worker itself: web servers refuse many a URL before it comes that far. Text of a URI or header
    goes out as Latin-1, so that it can be any bytes."""

    def __init__(self, workers, key):
        self.workers, self.key = workers, key

    def request(self, method, uri, body=b"", headers=None, key=None, **params):
        key = self.key if key is None else key
        given = {"Authorization": f"Bearer {key}"} if key else {}
        given.update(headers or {})
        if not isinstance(body, (bytes, str)):
            body = json.dumps(body)
            given.setdefault("Content-Type", "application/json")
        with self.workers.fcgi() as c:
            return Answer(c.ask(method, "", {k: v if isinstance(v, bytes) else v.encode("latin-1") for k, v in given.items()},
                                body.encode() if isinstance(body, str) else body,
                                **{"REQUEST_URI": uri.encode("latin-1"), **params}))

    def get(self, uri, **more):
        return self.request("GET", uri, **more)

    def post(self, uri, body, **more):
        return self.request("POST", uri, body, **more)


class Site:
    """`client` has the demo's key, if there is one; so has `direct`, which leaves the web server out."""

    def __init__(self, database, workers, server):
        self.database, self.workers, self.server = database, workers, server
        self.client = server.client(database.keys.get("demo"))
        self.direct = Direct(workers, database.keys.get("demo"))
        self.session = database.connect()

    def sql(self, text, *parameters):
        """As the owner, always in the same session: the rows of the last statement, None without any."""
        with self.session.cursor() as cursor:
            cursor.execute(text, parameters or None)
            return cursor.fetchall() if cursor.description else None

    def value(self, text, *parameters):
        return self.sql(text, *parameters)[0][0]

    def close(self):
        self.client.close()
        self.session.close()

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
        made.close()
    finally:
        if server:
            server.stop()
        workers.stop()
