"""A retry never writes twice: SIGKILL for workers, backends and the postmaster, and dropped connections, while 16 clients
write; under each default_transaction_isolation, across a border between two partitions of the records.

`make check` runs it shortly. CRASH_WRITES and CRASH_KILLS say how much each of the three runs has to reach:

    make crash        20,000 writes and 300 kills in all
"""

import os
import time

import pytest

from harness import crash

LEVELS = ["repeatable read", *(pytest.param(level, marks=pytest.mark.once) for level in ("read committed", "serializable"))]
WRITES = int(os.environ.get("CRASH_WRITES", 300))
KILLS = int(os.environ.get("CRASH_KILLS", 6))

# Today ends when half of the writes were begun, however quick or slow the machine is.
BORDER = """
CREATE SEQUENCE public.begun; GRANT USAGE ON SEQUENCE public.begun TO PUBLIC;
CREATE OR REPLACE FUNCTION composure.idem_slot() RETURNS smallint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $f$ BEGIN RETURN CASE WHEN nextval('public.begun') < %d THEN 0 ELSE 1 END; END $f$
"""


@pytest.mark.parametrize("level", LEVELS)
def test_a_retry_never_writes_twice(own_cluster, own_database, workers, level, capsys):
    database = own_database
    database.sql("ALTER DATABASE own SET default_transaction_isolation = '%s'" % level)
    database.sql("SELECT composure.expose_function('public.transfer', idempotency => 'required');"
                 "GRANT EXECUTE ON FUNCTION public.transfer(bigint, bigint, numeric) TO api_user;"
                 "SELECT composure.expose('public.payments', idempotency => 'required');"
                 "UPDATE public.users SET balance = 1000000 WHERE id <= 100")
    database.sql(BORDER % (WRITES // 2))
    running = workers(2, database, deadline_ms=3000)
    before = crash.state(database)
    run = crash.Run(own_cluster, database, running, WRITES, KILLS, seed=int(time.time()) % 100000)
    wrong = run.go()
    wrong += crash.verify(run, before)
    slots = database.value("SELECT count(DISTINCT slot) FROM composure.idempotency")
    records = database.value("SELECT count(*) FROM composure.idempotency")
    with capsys.disabled():
        print(f"\n# {level}, seed {run.seed}: {run.counts()}, {records} records in {slots} partitions, {len(wrong)} violations")
    assert not wrong, "\n".join(wrong[:20])
    assert records == sum(len(c.answers) for c in run.clients)
    assert slots == 2, "the run did not cross the border"
