"""Workers that die or stop while they read and write the store, all the time: nobody waits for what never comes, no body is
torn or of another answer, nothing stale is served, and somebody follows the feed soon again.

COMPOSURE_SOAK is for how many seconds (`make soak`).
"""

import os
import signal
import time
from collections import Counter

import pytest

from harness.process import wait_until
from harness.shared import POINTS, ask, describe, files, host, is_stopped
from harness.versions import PROGRAM, SQL, URIS, Api, Heartbeat, Killer, Log, Readers, Straight, judge

SOAK = float(os.environ.get("COMPOSURE_SOAK", 0))
# More than there is room for in SMALL, so that entries are given up all the time; it has one lock.
MANY = [*URIS, *(f"/api/things?item=gt.{i}&limit={45 - i}&order=item.desc" for i in range(40))]
LARGE, SMALL = 64 << 20, 400000
HUNG_MS = 10000  # five deadlines: on whatever machine

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="tests/load/readers is not built")


class Scene:
    """Workers of one host, read and written through and past."""

    def __init__(self, database, home, workers, seconds, n=8, room=LARGE):
        database.sql(SQL)
        self.key = database.create_key("reads and writes", role="api_user", plan=None)
        self.place = host(home)
        self.at = workers(n, database, runtime_dir=self.place, log="none", log_level="debug", cache_bytes=room, deadline_ms=2000)
        self.log = Log()
        self.writers = [Straight(self.log, database), Api(self.log, "a", 0, self.at, self.key)]
        self.heart = Heartbeat(files(self.place)["watch"])
        self.readers = Readers(home, [self.at], self.key, seconds, MANY, connections=6, deadline_ms=HUNG_MS, reuse=16)
        for thread in (*self.writers, self.heart):
            thread.start()

    def end(self):
        """Everything that has to be true; a line of figures."""
        seen = self.readers.result()
        for writer in self.writers:
            writer.finish()
        ages = self.heart.finish()
        found = judge(self.readers, self.log, expected_status=(200, 404, 503, 504))
        assert not found.violations, "\n".join(map(str, found.wrong))
        assert not seen["torn"] and not seen["hung"], self.readers.said
        assert found.status[200], f"nothing was read: {found}"
        wait_until(lambda: all(line.endswith("locks held: 0") for line in describe(self.at)[1].splitlines() if "locks held" in line),
                   "what the dead held to be free")
        wait_until(lambda: "hit" in ask(self.at, "/api/things/1", self.key).headers["cache-status"], "a hit")
        return ages, (f"{found}; answers {dict(found.status)}, {seen['broken']} broken off, {seen['torn']} torn, {seen['hung']} hung,"
                      f" longest {seen['longest_ms']:.0f} ms; heartbeat: {len(ages)} beats, oldest {ages[-1]} ms,"
                      f" {sum(age > 200 for age in ages)} times above 200")


@pytest.mark.once
@pytest.mark.parametrize("how", ["kill", "stop"])
def test_eight_workers_of_which_one_ends_every_50_ms(fresh_database, new_home, workers, capsys, how):
    scene = Scene(fresh_database, new_home, workers, SOAK or 5)
    killer = Killer([scene.at], pause=0.05, how=(how,), watch=0.2, at_once=4)
    killer.strike_while(scene.readers.running)
    ages, line = scene.end()
    with capsys.disabled():
        print(f"\n# {how}: {dict(killer.counts)}; {line}")
    # What is usual, since a machine may be busy with other things; the oldest is in the line above.
    bound = 200 * (1 if os.getloadavg()[0] < os.cpu_count() else 10)
    assert ages[len(ages) // 2] < bound, ages


# Those of the watch and of the keys are test_region's.
PLACES = ["store-locked", "store-writing", "store-written", "store-evicting", "flight-taken"]


@pytest.mark.skipif(not POINTS, reason="configured without --enable-test-points")
@pytest.mark.parametrize("how, room", [("kill", LARGE), ("stop", LARGE), ("kill", SMALL)])
def test_each_worker_ends_inside_something(fresh_database, new_home, workers, capsys, how, room):
    scene = Scene(fresh_database, new_home, workers, SOAK or 6, n=1, room=room)
    ended, stopped, n, point_of = Counter(), [], 0, {}

    def start_next():
        nonlocal n
        scene.at.settings["point"] = f"{PLACES[n % len(PLACES)]}:{how}:{1 + n // len(PLACES) % 3}"
        point_of[scene.at.start_one().pid] = PLACES[n % len(PLACES)]
        n += 1
    while scene.readers.running():
        for process in list(scene.at.processes):
            if not process.alive():
                ended[point_of[process.pid]] += 1
                scene.at.processes.remove(process)
            elif is_stopped(process) and process not in [p for p, _ in stopped]:
                ended[point_of[process.pid]] += 1
                stopped.append((process, time.monotonic()))
        for process, since in list(stopped):
            if time.monotonic() - since > 1:
                process.send_signal(signal.SIGCONT)
                stopped.remove((process, since))
                process.stop(signal.SIGKILL)
                scene.at.processes.remove(process)
        # Beside one that has the watch and goes on.
        if len(scene.at.processes) < 9:
            start_next()
        time.sleep(0.01)
    # Those that have not come to their place would do so in what follows.
    for process in scene.at.processes[1:]:
        process.stop(signal.SIGKILL)
    del scene.at.processes[1:]
    _, line = scene.end()
    with capsys.disabled():
        print(f"\n# {how} inside, {room >> 10} KiB: {dict(ended)}; {line}")
    assert all(ended[place] for place in PLACES[:3]) or room == SMALL, ended
