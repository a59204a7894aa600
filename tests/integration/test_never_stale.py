"""No read that began more than feed_interval and 20 ms after a commit shows what was before it, on any host; on the host
that wrote nothing is ever older than the write; what was deleted stays away. Whoever dies or stops meanwhile: then hits
become misses, never lies.

COMPOSURE_SOAK is for how many seconds it is read (`make soak`).
"""

import os

import pytest

from harness.process import wait_until
from harness.shared import ask, host
from harness.versions import PROGRAM, SQL, URIS, Api, Killer, Log, Readers, Straight, judge

SOAK = float(os.environ.get("COMPOSURE_SOAK", 0))

pytestmark = [pytest.mark.once, pytest.mark.skipif(not PROGRAM.exists(), reason="tests/load/readers is not built")]


@pytest.mark.parametrize("what, seconds", [("quiet", 7), ("ends", 7)])
def test_no_read_is_stale_while_three_write(fresh_database, new_home, workers, capsys, what, seconds):
    database = fresh_database
    database.sql(SQL)
    key = database.create_key("reads and writes", role="api_user", plan=None)
    hosts = [workers(3, database, runtime_dir=host(new_home, name), log="none", log_level="debug") for name in ("a", "b")]
    for at in hosts:
        for uri in URIS:
            wait_until(lambda: "hit" in ask(at, uri, key).headers.get("cache-status", "") or ask(at, uri, key).status == 404, f"a hit of {uri}")
    log = Log()
    writers = [Straight(log, database), Api(log, "a", 0, hosts[0], key), Api(log, "b", 1, hosts[1], key)]
    killer = Killer(hosts) if what == "ends" else None
    readers = Readers(new_home, hosts, key, SOAK or seconds, connections=8 if killer else 3, deadline_ms=20000)
    for writer in writers:
        writer.start()
    if killer:
        killer.strike_while(readers.running)
    seen = readers.result()
    for writer in writers:
        writer.finish()
    found = judge(readers, log)
    with capsys.disabled():
        print(f"\n# {what}: {sum(w.done for w in writers)} commits, {found}; {seen['broken']} broken off, {seen['torn']} torn,"
              f" longest answer {seen['longest_ms']:.0f} ms" + (f"; {dict(killer.counts)}" if killer else ""))
    assert not found.violations, "\n".join(map(str, found.wrong))
    assert not seen["torn"] and not seen["hung"], readers.said
    assert seen["broken"] == 0 or killer
    # It is a test of the store: there have to be answers out of it, and changes that end them.
    assert found.hits > found.reads / 10, "hardly anything came out of the store"
    assert found.stalest["hit"] or SOAK == 0
