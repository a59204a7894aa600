"""A FastCGI client that speaks records to a worker's socket: to send what no web server would, in any pieces."""

import socket
import struct

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR, DATA, GET_VALUES, GET_VALUES_RESULT, UNKNOWN = range(1, 12)
KEEP_CONN = 1
RESPONDER = 1


def record(kind, request_id, content=b"", padding=0):
    return struct.pack("!BBHHBx", 1, kind, request_id, len(content), padding) + content + bytes(padding)


def stream(kind, request_id, content, piece=65535, end=True):
    """The content in records of at most `piece` bytes, and the empty record that ends a stream."""
    records = [record(kind, request_id, content[i:i + piece]) for i in range(0, len(content), piece)]
    return b"".join(records) + (record(kind, request_id) if end else b"")


def begin(request_id, role=RESPONDER, flags=KEEP_CONN):
    return record(BEGIN, request_id, struct.pack("!HB5x", role, flags))


def pairs(params):
    def length(n):
        return struct.pack("!B", n) if n < 128 else struct.pack("!I", n | 0x80000000)

    out = b""
    for key, value in params.items():
        key, value = (x if isinstance(x, bytes) else str(x).encode() for x in (key, value))
        out += length(len(key)) + length(len(value)) + key + value
    return out


def parse_pairs(data):
    out, at = {}, 0

    def length():
        nonlocal at
        n = data[at]
        if n < 128:
            at += 1
            return n
        (n,) = struct.unpack_from("!I", data, at)
        at += 4
        return n & 0x7FFFFFFF

    while at < len(data):
        nk, nv = length(), length()
        out[data[at:at + nk]] = data[at + nk:at + nk + nv]
        at += nk + nv
    return out


def params_of(method="GET", uri="/", headers=None, body=b"", **more):
    """What a web server sends for a request."""
    headers = dict(headers or {})
    params = {
        "REQUEST_METHOD": method,
        "REQUEST_URI": uri,
        "QUERY_STRING": uri.partition("?")[2],
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
    }
    if body or method in ("POST", "PUT", "PATCH"):
        params["CONTENT_LENGTH"] = len(body)
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        params[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key] = value
    params.update(more)
    return params


def request(request_id=1, method="GET", uri="/", headers=None, body=b"", flags=KEEP_CONN, **more):
    """All bytes of one request."""
    params = params_of(method, uri, headers, body, **more)
    return (begin(request_id, flags=flags) + stream(PARAMS, request_id, pairs(params)) +
            stream(STDIN, request_id, body))


class Answer:
    """What came back for one request: the CGI answer taken apart, and the end's two statuses."""

    def __init__(self):
        self.out = b""
        self.err = b""
        self.app_status = self.protocol_status = None

    @property
    def ended(self):
        return self.protocol_status is not None

    @property
    def head(self):
        return self.out.partition(b"\r\n\r\n")[0].decode("latin-1")

    @property
    def body(self):
        return self.out.partition(b"\r\n\r\n")[2]

    @property
    def headers(self):
        """Names in lower case; repeated ones joined by a comma."""
        out = {}
        for line in self.head.split("\r\n"):
            name, _, value = line.partition(":")
            name = name.strip().lower()
            out[name] = f"{out[name]}, {value.strip()}" if name in out else value.strip()
        return out

    @property
    def status(self):
        return int(self.headers.get("status", "200").split()[0])


class Connection:
    """One connection to the worker. send() takes any bytes; receive() reads records until request_id has ended."""

    def __init__(self, path, timeout=20):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        self.pending = b""
        self.answers = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data, piece=None):
        """In one write, or in writes of `piece` bytes."""
        if not piece:
            self.socket.sendall(data)
        else:
            for i in range(0, len(data), piece):
                self.socket.sendall(data[i:i + piece])

    def read_record(self):
        """(type, request id, content), or None at the end of the connection."""
        header = self._exactly(8)
        if header is None:
            return None
        version, kind, request_id, n, padding = struct.unpack("!BBHHBx", header)
        assert version == 1, f"record version {version}"
        content = self._exactly(n) if n else b""
        if padding:
            self._exactly(padding)
        return kind, request_id, content

    def _exactly(self, n):
        while len(self.pending) < n:
            got = self.socket.recv(65536)
            if not got:
                assert not self.pending, f"the connection ended within a record: {self.pending!r}"
                return None
            self.pending += got
        out, self.pending = self.pending[:n], self.pending[n:]
        return out

    def receive(self, request_id=1):
        """The answer to request_id; records of other requests are kept for their own receive()."""
        answer = self.answers.setdefault(request_id, Answer())
        while not answer.ended:
            got = self.read_record()
            if got is None:
                raise ConnectionError(f"closed before request {request_id} ended; so far {answer.out!r}")
            kind, at, content = got
            other = self.answers.setdefault(at, Answer())
            if kind == STDOUT:
                other.out += content
            elif kind == STDERR:
                other.err += content
            elif kind == END:
                other.app_status, other.protocol_status = struct.unpack("!IB3x", content)
            else:
                raise AssertionError(f"record of type {kind}")
        del self.answers[request_id]
        return answer

    def ask(self, method="GET", uri="/", headers=None, body=b"", request_id=1, **more):
        self.send(request(request_id, method, uri, headers, body, **more))
        return self.receive(request_id)
