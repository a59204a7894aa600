"""HTTP clients: one that behaves (kept connections), and a raw one for those that do not."""

import http.client
import json
import re
import socket


class Response:
    def __init__(self, raw, body):
        self.status = raw.status
        self.headers = raw.headers  # case-insensitive; .get_all() for repeated ones
        self.body = body

    @property
    def json(self):
        """Numbers with a point or exponent stay text, so that exact digits can be compared."""
        return json.loads(self.body, parse_float=str)

    def __repr__(self):
        return f"<{self.status} {self.body[:300]!r}>"


class Client:
    """Keeps its connection; makes a new one where the server closed it."""

    def __init__(self, port, key=None, timeout=30):
        self.port, self.key, self.timeout = port, key, timeout
        self.connection = None

    def close(self):
        if self.connection:
            self.connection.close()
            self.connection = None

    def request(self, method, path, body=None, headers=None, key=None):
        """`body` other than bytes or text is sent as JSON; `key=''` sends no API key."""
        headers = dict(headers or {})
        key = self.key if key is None else key
        if key:
            headers.setdefault("Authorization", f"Bearer {key}")
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        if isinstance(body, str):
            body = body.encode()
        fresh = self.connection is None
        if fresh:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.timeout)
        try:
            self.connection.request(method, path, body, headers)
            raw = self.connection.getresponse()
            answer = Response(raw, raw.read())
        except (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected):
            self.close()
            if fresh or method not in ("GET", "HEAD", "OPTIONS"):
                raise
            return self.request(method, path, body, headers, key)
        except Exception:
            self.close()
            raise
        if raw.will_close:
            self.close()
        return answer

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def post(self, path, body=None, **more):
        return self.request("POST", path, body, **more)

    def walk(self, path):
        """Each row of a list, page by page, by the cursors the server gives."""
        cursor, before = None, set()
        while True:
            sep = "&" if "?" in path else "?"
            page = self.get(path + (f"{sep}cursor={cursor}" if cursor else ""))
            assert page.status == 200, page
            yield from page.json["data"]
            cursor = page.json["next_cursor"]
            assert page.json["has_more"] == (cursor is not None)
            if cursor is None:
                return
            assert cursor not in before, f"{path} goes round in circles"
            before.add(cursor)


class Raw:
    """A socket to a web server, to write and read as slowly or as wrongly as wanted."""

    def __init__(self, port, timeout=30, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.connect(("127.0.0.1", port))
        self.got = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def read(self, n=65536):
        """What is there, at most n bytes; b'' at the end."""
        data = self.socket.recv(n)
        self.got += data
        return data

    def read_response(self):
        """Reads one whole answer (Content-Length, chunked or to the end): (status, headers by lower-case name, body)."""
        raw = http.client.HTTPResponse(self.socket)
        raw.begin()
        return raw.status, {k.lower(): v for k, v in raw.getheaders()}, raw.read()


def seconds_to_wait(response):
    """Retry-After of an answer, which is whole seconds."""
    assert re.fullmatch(r"[0-9]+", response.headers["Retry-After"])
    return int(response.headers["Retry-After"])
