"""Clients that send and read as slowly as a bad line, or as ill will, makes them."""

import socket
import threading

from . import fastcgi

TICK = 0.05  # seconds between two bytes


class Dawdler:
    """Sends `first` at once, then one of the pieces in `rest` each tick; reads at most `sip` bytes each tick. `got` is
    what came, `ended` whether the other side closed, or reset, the connection."""

    def __init__(self, connection, first, rest=(), sip=65536):
        self.socket, self.rest, self.sip = connection, list(rest), sip
        self.got, self.ended, self.error = b"", False, None
        connection.sendall(first)
        connection.setblocking(False)

    def tick(self):
        if self.ended:
            return
        try:
            if self.rest:
                self.socket.send(self.rest[0])
                del self.rest[0]
        except BlockingIOError:
            pass
        except OSError as error:
            self.rest, self.error = [], error
        try:
            data = self.socket.recv(self.sip)
            self.got += data
            self.ended = not data
        except BlockingIOError:
            pass
        except OSError as error:
            self.ended, self.error = True, error

    def status(self):
        """Of the answer, HTTP or FastCGI; None before it is there."""
        for before in (b"HTTP/1.1 ", b"Status: "):
            at = self.got.find(before)
            if at >= 0 and len(self.got) >= at + len(before) + 3:
                return int(self.got[at + len(before):at + len(before) + 3])
        return None


class Dawdlers:
    """Many of them, in a thread of their own until close()."""

    def __init__(self, target, key):
        """`target` is a web Server, or Workers for their FastCGI socket."""
        self.target, self.key, self.all, self.over = target, key, [], threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def run(self):
        while not self.over.wait(TICK):
            for one in list(self.all):
                one.tick()

    def close(self):
        self.over.set()
        self.thread.join()
        for one in self.all:
            one.socket.close()

    def straight(self):
        return not hasattr(self.target, "port")

    def connect(self, receive_buffer=None):
        s = socket.socket(socket.AF_UNIX if self.straight() else socket.AF_INET)
        if receive_buffer:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        s.settimeout(20)
        s.connect(str(self.target.path) if self.straight() else ("127.0.0.1", self.target.port))
        return s

    def add(self, *arguments, **more):
        one = Dawdler(*arguments, **more)
        self.all.append(one)
        return one

    def send_slowly(self, uri, body):
        """A POST whose body comes a byte a tick."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        each = [bytes([b]) for b in body]
        if self.straight():
            params = fastcgi.pairs(fastcgi.params_of("POST", uri, headers, body))
            first = fastcgi.begin(1) + fastcgi.stream(fastcgi.PARAMS, 1, params)
            return self.add(self.connect(), first, [fastcgi.record(fastcgi.STDIN, 1, piece) for piece in [*each, b""]])
        return self.add(self.connect(), http("POST", uri, headers, len(body)), each)

    def read_slowly(self, uri):
        """A GET whose answer is read a byte a tick."""
        headers = {"Authorization": f"Bearer {self.key}"}
        if self.straight():
            return self.add(self.connect(), fastcgi.request(1, "GET", uri, headers), sip=1)
        return self.add(self.connect(receive_buffer=4096), http("GET", uri, headers), sip=1)


def http(method, uri, headers, length=None):
    lines = [f"{method} {uri} HTTP/1.1", "Host: test", *(f"{name}: {value}" for name, value in headers.items())]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()

