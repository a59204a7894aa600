"""A wire that loses and delays packets: one end here, the other in a network namespace of its own. Root is needed.

Two TUN devices and a program between them that carries the packets, because tc's netem is not in every kernel; TCP on both
sides is the kernel's and repeats what was lost. The namespace and both devices go with the program, however that ends.
"""

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time
from pathlib import Path

DEVICE = Path("/dev/net/tun")
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
PACKET_MAX = 65536


def usable():
    if os.getuid() != 0 or not DEVICE.exists() or not Path("/sbin/ip").exists():
        return False
    tried = ["unshare", "--net", "/sbin/ip", "tuntap", "add", "dev", "cmps-try", "mode", "tun"]
    return subprocess.run(tried, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


class Wire:
    """.near and .far are the addresses of the ends, .network the namespace of the far one."""

    def __init__(self):
        # RFC 2544's addresses for measuring; two of them that no other run has.
        net = f"198.18.{os.getpid() % 250}"
        pair = random.randrange(64) * 4
        self.near, self.far = f"{net}.{pair + 1}", f"{net}.{pair + 2}"
        name = f"cmps{os.getpid()}-{pair}"
        self.popen = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", sys.executable, __file__, name],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.popen.stdout.readline() == b"ready\n", "the wire's program did not start"
        self.network = f"/proc/{self.popen.pid}/ns/net"
        self.configure([], name, self.near, self.far)
        self.configure(["nsenter", f"--net={self.network}", "--"], name, self.far, self.near)

    @staticmethod
    def configure(enter, name, address, peer):
        subprocess.run([*enter, "ip", "address", "add", address, "peer", peer, "dev", name], check=True)
        subprocess.run([*enter, "ip", "link", "set", name, "up"], check=True)

    def be(self, loss=0.0, delay_ms=0):
        """From now on: which share of the packets is lost, and how long those take that are not; in both directions."""
        self.popen.stdin.write(f"{loss} {delay_ms}\n".encode())
        self.popen.stdin.flush()

    def close(self):
        self.popen.kill()
        self.popen.wait()


def open_end(name):
    fd = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return fd


def enter_new_network():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")


def packets(fd):
    while True:
        try:
            yield os.read(fd, PACKET_MAX)
        except BlockingIOError:
            return


def deliver(fd, packet):
    try:
        os.write(fd, packet)
    except OSError:
        pass  # a full queue loses packets, too


def carry(near, far):
    other = {near: far, far: near}
    loss, delay, on_way, n = 0.0, 0.0, [], 0
    while True:
        wait = max(0.0, on_way[0][0] - time.monotonic()) if on_way else None
        ready, _, _ = select.select([0, near, far], [], [], wait)
        if 0 in ready:
            word = os.read(0, 4096)
            if not word:
                return
            loss, delay = (float(x) for x in word.splitlines()[-1].split())
            delay /= 1000
        for fd in ready:
            for packet in packets(fd) if fd else ():
                if random.random() >= loss:
                    heapq.heappush(on_way, (time.monotonic() + delay, n, other[fd], packet))
                    n += 1
        while on_way and on_way[0][0] <= time.monotonic():
            deliver(*heapq.heappop(on_way)[2:])


def main():
    near = open_end(sys.argv[1])
    enter_new_network()
    far = open_end(sys.argv[1])
    print("ready", flush=True)
    carry(near, far)


if __name__ == "__main__":
    main()
