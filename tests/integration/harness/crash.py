"""Clients that write until they know, while everything under them is killed; and what has to be true afterwards.

Each client posts with a key and repeats the same request under the same key until it has an answer. An answer that came
once has to come again, byte for byte, however often it is asked for.
"""

import json
import os
import random
import signal
import threading
import time
from pathlib import Path

from . import fastcgi
from .process import children_of, wait_until

AGAIN = {"overloaded", "database_unavailable", "deadline_exceeded", "outcome_unknown", "circuit_open", "idempotency_in_progress"}


class Violation(AssertionError):
    pass


class Client(threading.Thread):
    """Writes until stopped; what it knows is in .answers: key -> (what, status, location, etag, body)."""

    def __init__(self, run, number):
        super().__init__(daemon=True)
        self.run_, self.number = run, number
        self.random = random.Random(run.seed * 1000 + number)
        self.answers, self.counts, self.wrong = {}, {}, []
        self.connection = None

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def drop(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def ask_once(self, key, uri, body):
        """None when the connection went, by somebody else's doing or by ours."""
        try:
            if not self.connection:
                self.connection = fastcgi.Connection(self.run_.workers.path, timeout=30)
            headers = {"Authorization": f"Bearer {self.run_.key}", "Idempotency-Key": key, "Content-Type": "application/json"}
            self.connection.send(fastcgi.request(1, "POST", uri, headers, body))
            if self.random.random() < self.run_.drops:
                self.count("connections dropped")
                time.sleep(self.random.random() * 0.004)
                self.drop()
                return None
            return self.connection.receive()
        except (OSError, AssertionError):
            self.drop()
            self.count("connections lost")
            return None

    def ask(self, key, uri, body):
        """Until there is an answer that does not ask for patience."""
        until = time.monotonic() + 120
        while time.monotonic() < until:
            got = self.ask_once(key, uri, body)
            if got is None:
                time.sleep(0.002)
                continue
            if got.status in (200, 201):
                if "idempotency-replayed" in got.headers:
                    self.count("replays")
                return got.status, got.headers.get("location"), got.headers.get("etag"), got.body
            code = json.loads(got.body).get("code") if got.body else None
            self.count(f"{got.status} {code}")
            if code not in AGAIN:
                raise Violation(f"{key}: {got.status} {got.body!r}")
            time.sleep(self.run_.pause + self.random.random() * 0.02)
        raise Violation(f"{key}: no answer in 120 s")

    def make(self, n):
        key = f"c{self.run_.seed}-{self.number}-{n}"
        if self.random.random() < 0.2:
            a, b = self.random.sample(range(1, 101), 2)
            return key, "/api/rpc/transfer", {"from_user": a, "to_user": b, "amount": 0.01}
        return key, "/api/payments", {"user_id": self.random.randint(1, 1000), "amount": 1.25, "currency": "EUR", "note": key}

    def run(self):
        n = 0
        try:
            while not self.run_.over():
                key, uri, what = self.make(n)
                body = json.dumps(what).encode()
                answer = self.ask(key, uri, body)
                self.answers[key] = (uri, what, body, answer)
                self.count("writes")
                n += 1
                time.sleep(self.run_.pause)
                if self.random.random() < 0.3:
                    self.check(self.random.choice(list(self.answers)))
            for key in self.random.sample(list(self.answers), min(50, len(self.answers))):
                self.check(key)
        except Violation as violation:
            self.wrong.append(str(violation))
        finally:
            self.drop()

    def check(self, key):
        uri, _, body, answer = self.answers[key]
        again = self.ask(key, uri, body)
        self.count("asked again")
        if again != answer:
            self.wrong.append(f"{key}: first {answer}, then {again}")


class Run:
    """writes and kills: what has to be reached before it ends. Each client pauses for so many seconds after an answer."""

    def __init__(self, cluster, database, workers, writes, kills, seed, n_clients=16, drops=0.02, pause=0):
        self.cluster, self.database, self.workers = cluster, database, workers
        self.writes, self.kills, self.seed, self.drops, self.pause = writes, kills, seed, drops, pause
        self.key = database.keys["demo"]
        self.done = {"worker": 0, "backend": 0, "terminate": 0, "postmaster": 0}
        self.random = random.Random(seed)
        self.clients = [Client(self, i) for i in range(n_clients)]

    def written(self):
        return sum(c.counts.get("writes", 0) for c in self.clients)

    def over(self):
        return self.written() >= self.writes and sum(self.done.values()) >= self.kills

    def kill_worker(self):
        victim = self.random.choice([p for p in self.workers.processes if p.alive()])
        victim.kill()
        self.workers.start_one()

    def backends(self):
        found = []
        for pid in children_of(self.cluster.process.pid):
            try:
                if b"composure_worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
            except OSError:
                pass
        return found

    def signal_backend(self, number):
        pids = wait_until(self.backends, "a backend of a worker", timeout=60)
        try:
            os.kill(self.random.choice(pids), number)
        except ProcessLookupError:
            pass

    def kill_one(self):
        what = self.random.choices(list(self.done), weights=(40, 15, 25, 20))[0]
        if what == "worker":
            self.kill_worker()
        elif what == "backend":
            self.signal_backend(signal.SIGKILL)  # PostgreSQL ends all others and recovers
        elif what == "terminate":
            self.signal_backend(signal.SIGTERM)
        else:
            self.cluster.kill()
            self.cluster.start()
        self.done[what] += 1

    def start(self):
        for c in self.clients:
            c.start()

    def go(self, pace=0.35):
        self.start()
        while not self.over() and any(c.is_alive() for c in self.clients):
            time.sleep(self.random.random() * 2 * pace)
            if sum(self.done.values()) < self.kills:
                self.kill_one()
        return self.finish()

    def finish(self):
        """Waits until each client knows of all its writes; what was wrong."""
        for c in self.clients:
            c.join(300)
        return [w for c in self.clients for w in c.wrong] + [f"client {c.number} hangs" for c in self.clients if c.is_alive()]

    def counts(self):
        total = {}
        for c in self.clients:
            for what, n in c.counts.items():
                total[what] = total.get(what, 0) + n
        return {**total, **{f"kills of a {k}" if k != "terminate" else "backends terminated": n for k, n in self.done.items()}}


def state(database):
    """What must not change but by what the clients have done."""
    return {
        "payments": database.value("SELECT count(*) FROM public.payments"),
        "balances": dict(database.sql("SELECT id, balance FROM public.users WHERE id <= 100")),
        "users": database.value("SELECT md5(string_agg(u::text, ',' ORDER BY id)) FROM (SELECT id, name, email, country FROM public.users) u"),
    }


def verify(run, before):
    """Violations, as a list."""
    wrong = []
    after = state(run.database)
    paid, moved = set(), {}
    for c in run.clients:
        for key, (uri, what, _, answer) in c.answers.items():
            if uri.endswith("payments"):
                paid.add(key)
                row = json.loads(answer[3])
                if row["note"] != key or answer[1] != f"/api/payments/{row['id']}":
                    wrong.append(f"{key}: answered with another payment: {answer}")
            else:
                moved[what["from_user"]] = moved.get(what["from_user"], 0) - 1
                moved[what["to_user"]] = moved.get(what["to_user"], 0) + 1
    rows = run.database.sql("SELECT note, count(*) FROM public.payments WHERE note LIKE %s GROUP BY note", f"c{run.seed}-%")
    wrong += [f"{key}: {n} payments" for key, n in rows if n != 1]
    wrong += [f"{key}: answered, but there is no payment" for key in paid - {key for key, _ in rows}]
    wrong += [f"{key}: a payment that nobody was told of" for key in {key for key, _ in rows} - paid]
    if after["payments"] - before["payments"] != len(paid):
        wrong.append(f"{after['payments'] - before['payments']} payments more, for {len(paid)} keys")
    for user, balance in after["balances"].items():
        cents = round((balance - before["balances"][user]) * 100)
        if cents != moved.get(user, 0):
            wrong.append(f"user {user}: {cents} cents more, for transfers of {moved.get(user, 0)}")
    if after["users"] != before["users"]:
        wrong.append("users were changed")
    return wrong
