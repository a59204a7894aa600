"""Workers on a listening socket, and the web servers in front of them, configured by the files in conf/."""

import os
import signal
import socket
from pathlib import Path

from . import fastcgi
from .process import BINARY, SOURCE, Gone, Process, free_port, wait_until
from .web import Client, Raw

CONF = SOURCE / "conf"
MODULES = Path("/usr/lib/apache2/modules")
CACHE_BYTES = 16 << 20  # taken at once: less than the usual 64 MB, sooner


class Workers:
    """n worker processes on one listening socket, passed as file descriptor 0 as spawn-fcgi does."""

    def __init__(self, home, name, n=1, arguments=(), binary=BINARY, wait=True, **settings):
        self.home, self.name, self.arguments = home, name, arguments
        self.binary = home.copy(binary)
        # Tests refuse keys by the thousand; those of that limit set it.
        self.settings = {"log": "-", "runtime_dir": home.memory(), "auth_failures": 0, "cache_bytes": CACHE_BYTES, **settings}
        self.path = home.path / f"{name}.sock"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.path.chmod(0o660)
        home.give(self.path)
        self.listener.listen(1024)
        self.processes, self.started = [], 0
        for _ in range(n):
            self.start_one()
        if wait:
            wait_until(self.answers, "the workers to answer /healthz")

    def start_one(self):
        env = {f"COMPOSURE_{key.upper()}": str(value) for key, value in self.settings.items() if value is not None}
        process = Process(self.home, f"{self.name}-{self.started}", [self.binary, *self.arguments], env,
                          stdin=self.listener)
        self.processes.append(process)
        self.started += 1
        return process

    def answers(self):
        for process in self.processes:
            if not process.alive():
                raise Gone(f"{process.name} ended: {process.output()}")
        with fastcgi.Connection(self.path, timeout=5) as c:
            return c.ask("GET", "/healthz").status == 200

    def wait_ready(self):
        """Until /readyz says yes: the catalog is there."""
        def ready():
            with fastcgi.Connection(self.path, timeout=5) as c:
                answer = c.ask("GET", "/readyz")
                if answer.status != 200:
                    raise RuntimeError(answer.out.decode(errors="replace"))
                return True
        wait_until(ready, "/readyz to say yes")
        return self

    def fcgi(self, timeout=20):
        """A new FastCGI connection to the workers."""
        return fastcgi.Connection(self.path, timeout)

    def output(self):
        return "".join(p.output() for p in self.processes)

    def stop(self):
        """SIGTERM; each has to end by itself, with status 0: a sanitizer's finding or a leak is none."""
        self.listener.close()
        statuses = []
        for process in self.processes:
            wait_until(lambda: takes_sigterm(process), f"{process.name} to be through with starting")
            statuses.append((process.name, process.stop()))
        bad = [(name, status) for name, status in statuses if status not in (0, -9)]
        assert not bad, f"workers ended with {bad}\n{self.output()}"
        for word in ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:"):
            assert word not in self.output(), self.output()


def takes_sigterm(process):
    """True, too, of one that ended. One that is still being loaded dies of SIGTERM, as any program does."""
    try:
        status = Path(f"/proc/{process.popen.pid}/status").read_text()
    except FileNotFoundError:
        return True
    masks = {line[:6]: line.split()[1] for line in status.splitlines() if line.startswith(("SigBlk", "SigCgt"))}
    if not process.alive() or not masks:
        return True
    bit = 1 << (signal.SIGTERM - 1)
    return bool((int(masks["SigBlk"], 16) | int(masks["SigCgt"], 16)) & bit)


class Server:
    """A web server on a port of its own."""

    def __init__(self, process, port, log):
        self.process, self.port, self.log = process, port, log
        self.url = f"http://127.0.0.1:{port}"
        wait_until(self.listens, process.name)

    def listens(self):
        if not self.process.alive():
            raise Gone(self.output())
        socket.create_connection(("127.0.0.1", self.port), 1).close()
        return True

    def client(self, key=None, timeout=30):
        return Client(self.port, key, timeout)

    def raw(self, timeout=30, receive_buffer=None):
        return Raw(self.port, timeout, receive_buffer)

    def output(self):
        return self.process.output() + (self.log.read_text(errors="replace") if self.log.exists() else "")

    def stop(self):
        if self.process.alive():
            self.process.stop()


def from_conf(name, **replacements):
    """A file of conf/ with the example's values replaced; one that is not there any more is a mistake here."""
    text = (CONF / name).read_text()
    for old, new in replacements.values():
        assert old in text, f"conf/{name} has no {old!r}"
        text = text.replace(old, str(new))
    return text


def lighttpd(home, name, workers, **options):
    """Options are lines of lighttpd's own: {'server.stream-request-body': 1} as server_stream_request_body=1."""
    port = free_port()
    folder = home.folder(name)
    home.file(f"{name}/lighttpd.conf", from_conf(
        "lighttpd.conf", socket=("/run/composure/composure.sock", workers.path)))
    text = from_conf(
        "lighttpd-alone.conf",
        port=("var.port = 8080", f"var.port = {port}"),
        docroot=("/usr/local/share/composure/www", home.copy(SOURCE / "www")),
        state=("/var/lib/composure", folder))
    for key, value in options.items():
        text += "{} = {}\n".format(key.replace("_", ".", 1).replace("_", "-"), value)
    conf = home.file(f"{name}/main.conf", text)
    process = Process(home, f"{name}.process", ["/usr/sbin/lighttpd", "-D", "-f", conf])
    return Server(process, port, folder / "lighttpd.log")


def nginx(home, name, workers, http="", location="", worker_processes=1, conf="nginx.conf", **replacements):
    """`http` and `location` are more directives for these two blocks; `conf` and `replacements` are from_conf()'s."""
    port = free_port()
    folder = home.folder(name)
    if conf == "nginx-cache.conf":
        replacements["cache"] = ("/var/cache/nginx/composure", folder / "cache")
    site = from_conf(
        conf,
        socket=("/run/composure/composure.sock", workers.path),
        port=("listen 8080;", f"listen 127.0.0.1:{port} reuseport;"),
        docroot=("/usr/local/share/composure/www", home.copy(SOURCE / "www")),
        more=("fastcgi_keep_conn on;", f"fastcgi_keep_conn on;\n{location}"), **replacements)
    temporary = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in
                          ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    conf = home.file(f"{name}/nginx.conf", f"""
daemon off;
pid {folder}/nginx.pid;
worker_processes {worker_processes};
error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
access_log off;
{temporary}
types {{ text/html html; }}
{http}
{site}
}}
""")
    process = Process(home, f"{name}.process", ["/usr/sbin/nginx", "-p", folder, "-e", folder / "error.log", "-c", conf])
    return Server(process, port, folder / "error.log")


def apache(home, name, workers, more=""):
    """A private ServerRoot; `more` are further directives."""
    port = free_port()
    folder = home.folder(name)
    site = from_conf(
        "apache.conf",
        socket=("/run/composure/composure.sock", workers.path),
        docroot=("/usr/local/share/composure/www", home.copy(SOURCE / "www")))
    load = "\n".join(f"LoadModule {module}_module {MODULES}/mod_{module}.so" for module in (
        "mpm_event", "authz_core", "dir", "env", "mime", "proxy", "proxy_fcgi"))
    conf = home.file(f"{name}/apache.conf", f"""
ServerRoot {folder}
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {folder}/apache.pid
DefaultRuntimeDir {folder}
ErrorLog {folder}/error.log
{load}
TypesConfig /dev/null
{site}
{more}
""")
    process = Process(home, f"{name}.process", ["/usr/sbin/apache2", "-D", "FOREGROUND", "-f", conf])
    return Server(process, port, folder / "error.log")


def shared_host(home, name, dsn):
    """An account on a shared host: Apache that leaves all to www/.htaccess, the program started as plain CGI."""
    port = free_port()
    folder = home.folder(name)
    docroot = home.copy(SOURCE / "www", f"{name}/public_html")
    settings = home.file(f"{name}/composure.conf", f"dsn = {dsn}\nlog = none\nruntime_dir = {home.memory()}\n")
    wrapper = docroot / "api.fcgi"
    text = wrapper.read_text()
    for old, new in (("$HOME/composure.conf", settings), ("$HOME/bin/composure", home.copy(BINARY))):
        assert old in text
        text = text.replace(old, str(new))
    wrapper.write_text(text)
    load = "\n".join(f"LoadModule {module}_module {MODULES}/mod_{module}.so" for module in (
        "mpm_event", "authz_core", "dir", "mime", "rewrite", "setenvif", "cgid"))
    conf = home.file(f"{name}/apache.conf", f"""
ServerRoot {folder}
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {folder}/apache.pid
DefaultRuntimeDir {folder}
ErrorLog {folder}/error.log
{load}
ScriptSock {folder}/cgid
TypesConfig /dev/null
DocumentRoot {docroot}
<Directory {docroot}>
Require all granted
AllowOverride All
</Directory>
""")
    process = Process(home, f"{name}.process", ["/usr/sbin/apache2", "-D", "FOREGROUND", "-f", conf])
    return Server(process, port, folder / "error.log")


def available(program):
    return any(os.access(f"/{folder}/{program}", os.X_OK) for folder in ("usr/sbin", "usr/bin"))
