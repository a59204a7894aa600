"""What stands between a worker and PostgreSQL and looks at what it carries: it can hold a connection at a certain moment."""

import selectors
import socket
import threading

from .cluster import PORT
from .process import wait_until


class Tunnel(threading.Thread):
    """Listens on 127.0.0.1:.port and carries each connection to the cluster: its Unix socket, or its TCP port at an address.

    .hold_at: a connection that is about to send this text is held from then on: neither side hears of the other again.
    .answers: so many bytes of PostgreSQL's are carried on a connection that is made from now on; None: all.
    .held: how many are held."""

    def __init__(self, cluster, address=None):
        super().__init__(daemon=True)
        self.family = socket.AF_INET if address else socket.AF_UNIX
        self.target = (address, PORT) if address else f"{cluster.sockets}/.s.PGSQL.{PORT}"
        self.hold_at, self.answers, self.held = None, None, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.selector, self.other, self.left = selectors.DefaultSelector(), {}, {}
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.cutting = self.over = False
        self.start()

    def run(self):
        while not self.over:
            for key, _ in self.selector.select(0.02):
                if key.fileobj is self.listener:
                    self.take()
                elif key.fileobj in self.other:
                    self.carry(key.fileobj)
            if self.cutting:
                while self.other:
                    self.close(next(iter(self.other)))
                self.cutting = False

    def take(self):
        near, far = self.listener.accept()[0], socket.socket(self.family)
        try:
            far.connect(self.target)
        except OSError:
            near.close()
            far.close()
            return
        self.other[near], self.other[far], self.left[far] = far, near, self.answers
        for end in (near, far):
            self.selector.register(end, selectors.EVENT_READ)

    def carry(self, end):
        try:
            piece = end.recv(65536)
            left = self.left.get(end)
            if not piece:
                self.close(end)
            elif end not in self.left and self.hold_at and self.hold_at in piece:
                self.hold(end)
            elif left is not None and len(piece) > left:
                self.other[end].sendall(piece[:left])
                self.hold(end)
            else:
                self.other[end].sendall(piece)
                if left is not None:
                    self.left[end] = left - len(piece)
        except OSError:
            self.close(end)

    def hold(self, end):
        for one in (end, self.other[end]):
            self.selector.unregister(one)
        self.held += 1

    def close(self, end):
        for one in (end, self.other[end]):
            if one in self.selector.get_map():
                self.selector.unregister(one)
            del self.other[one]
            self.left.pop(one, None)
            one.close()

    def cut(self):
        """Closes what it carries or holds; new connections are taken."""
        self.cutting = True
        wait_until(lambda: not self.cutting, "the tunnel to have closed its connections")

    def stop(self):
        self.over = True
        self.join()
        for end in (self.listener, *self.other):
            end.close()
