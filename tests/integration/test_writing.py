"""Writes over HTTP: idempotency, preconditions, what is refused, and what code of the user's may not leave behind."""

import json
import signal
import threading

import pytest

from harness import fastcgi
from harness.process import wait_until

PAYMENT = {"user_id": 1, "amount": 5.25, "currency": "EUR"}


class Api:
    """Requests straight to the workers, each on a connection of its own."""

    def __init__(self, workers, key):
        self.workers, self.key = workers, key

    def __call__(self, method, uri, body=None, key=None, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        key = self.key if key is None else key
        if key:
            headers["Authorization"] = f"Bearer {key}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        with self.workers.fcgi() as c:
            answer = c.ask(method, uri, headers, body or b"")
        answer.code = json.loads(answer.body)["code"] if answer.status >= 400 else None
        answer.detail = json.loads(answer.body).get("detail") if answer.status >= 400 else None
        return answer

    def post(self, body=PAYMENT, once=None, **headers):
        if once is not None:
            headers["Idempotency_Key"] = once
        return self("POST", "/api/payments", body, **headers)


@pytest.fixture
def api(fresh_database, worker):
    return Api(worker(fresh_database), fresh_database.keys["demo"])


def same(a, b):
    names = ("location", "etag", "content-type", "cache-control", "content-range", "preference-applied")
    return (a.status, a.body, [a.headers.get(n) for n in names]) == (b.status, b.body, [b.headers.get(n) for n in names])


def count(database, condition="true"):
    return database.value(f"SELECT count(*) FROM public.payments WHERE {condition}")


# --- idempotency ---


def test_a_replay_is_the_first_answer_byte_for_byte(api, fresh_database):
    before = count(fresh_database)
    first = api.post(once="one")
    assert first.status == 201 and first.headers["etag"] and "idempotency-replayed" not in first.headers
    for form in ("one", '"one"'):
        again = api.post(once=form)
        assert same(first, again)
        assert again.headers["idempotency-replayed"] == "true"
    assert count(fresh_database) == before + 1


MANY_TYPES = """b bool DEFAULT true, i smallint DEFAULT -3, n numeric DEFAULT 1.50, f float8 DEFAULT 1e-7, c char(3) DEFAULT 'a',
 t text DEFAULT E'"\\u00e9\\n', u uuid DEFAULT '0123456789abcdef0123456789abcdef', d date DEFAULT '2026-02-03',
 s timestamp DEFAULT '2026-02-03 04:05:06.7', z timestamptz DEFAULT '2026-02-03 04:05:06.789+02', j json DEFAULT '{"a": 1}',
 k jsonb DEFAULT '{"a": 1}', a int[] DEFAULT '{1,NULL}', r int4range DEFAULT '[1,3)', y bytea DEFAULT '\\x00ff',
 v interval DEFAULT '1 day', e text, composure text DEFAULT 'x'"""


# The first three are answered by PostgreSQL itself, in one trip; the others are not, and nobody sees a difference.
@pytest.mark.parametrize("columns", [
    "id bigint PRIMARY KEY",
    "id uuid PRIMARY KEY",
    "id int, x uuid DEFAULT '0123456789abcdef0123456789abcdef', PRIMARY KEY (id, x)",
    "id text PRIMARY KEY",
    "id bigint PRIMARY KEY, composure_written int DEFAULT 1",
])
def test_whoever_makes_the_answer_it_is_the_same_and_that_of_a_read(fresh_database, worker, columns):
    fresh_database.sql(f"CREATE TABLE public.of_types ({columns}, {MANY_TYPES}); GRANT ALL ON public.of_types TO api_user;"
                       "SELECT composure.expose('public.of_types')")
    api = Api(worker(fresh_database), fresh_database.keys["demo"])
    ids = ["00000000-0000-0000-0000-00000000000%d" % n if "id uuid" in columns else n for n in range(3)]
    kept = api("POST", "/api/of_types", {"id": ids[0]}, Idempotency_Key="full")
    assert kept.status == 201
    assert same(kept, api("POST", "/api/of_types", {"id": ids[0]}, Idempotency_Key="full"))
    read = api("GET", kept.headers["location"])
    assert (read.status, read.body, read.headers["etag"]) == (200, kept.body, kept.headers["etag"])
    bare = api("POST", "/api/of_types", {"id": ids[1]})
    assert (bare.status, set(bare.headers)) == (201, set(kept.headers))
    assert bare.body.replace(str(ids[1]).encode(), str(ids[0]).encode(), 1) == kept.body
    minimal = api("POST", "/api/of_types", {"id": ids[2]}, Idempotency_Key="short", Prefer="return=minimal")
    assert (minimal.status, minimal.body, minimal.headers["preference-applied"]) == (201, b"", "return=minimal")
    assert "etag" not in minimal.headers and api("GET", minimal.headers["location"]).status == 200
    assert same(minimal, api("POST", "/api/of_types", {"id": ids[2]}, Idempotency_Key="short", Prefer="return=minimal"))


def test_a_table_with_a_rule_takes_keys_too(fresh_database, worker):
    fresh_database.sql("CREATE TABLE public.ruled (id bigint PRIMARY KEY); CREATE TABLE public.log (id bigint);"
                       "CREATE RULE r AS ON INSERT TO public.ruled DO ALSO INSERT INTO public.log VALUES (NEW.id);"
                       "GRANT ALL ON public.ruled, public.log TO api_user; SELECT composure.expose('public.ruled')")
    api = Api(worker(fresh_database), fresh_database.keys["demo"])
    first = api("POST", "/api/ruled", {"id": 1}, Idempotency_Key="one")
    assert first.status == 201 and same(first, api("POST", "/api/ruled", {"id": 1}, Idempotency_Key="one"))
    assert fresh_database.value("SELECT count(*) FROM public.log") == 1


def test_what_is_deferred_fails_at_the_commit_and_leaves_the_key_free(fresh_database, worker):
    fresh_database.sql("CREATE TABLE public.late (id bigint PRIMARY KEY, other bigint REFERENCES public.late DEFERRABLE INITIALLY"
                       " DEFERRED); GRANT ALL ON public.late TO api_user; SELECT composure.expose('public.late')")
    api = Api(worker(fresh_database), fresh_database.keys["demo"])
    assert api("POST", "/api/late", {"id": 1, "other": 2}, Idempotency_Key="late").status == 409
    assert fresh_database.value("SELECT count(*) FROM public.late") == 0
    fresh_database.sql("INSERT INTO public.late VALUES (2)")
    assert api("POST", "/api/late", {"id": 1, "other": 2}, Idempotency_Key="late").status == 201


def test_of_32_clients_with_one_key_at_the_same_moment_one_writes(fresh_database, workers):
    running = workers(2, fresh_database, connections=16)
    before = count(fresh_database)
    n, rounds = 32, 5
    for turn in range(rounds):
        barrier = threading.Barrier(n)
        answers = [None] * n

        def client(i):
            with running.fcgi() as c:
                headers = {"Authorization": f"Bearer {fresh_database.keys['demo']}", "Content-Type": "application/json",
                           "Idempotency-Key": f"race-{turn}"}
                assert c.ask("GET", "/healthz").status == 200
                barrier.wait()
                answers[i] = c.ask("POST", "/api/payments", headers, json.dumps(PAYMENT).encode())

        threads = [threading.Thread(target=client, args=(i,)) for i in range(n)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        made = [a for a in answers if a.status == 201]
        assert {a.status for a in answers} <= {201, 409}
        assert len({a.body for a in made}) == 1
        assert len([a for a in made if "idempotency-replayed" not in a.headers]) == 1
        for a in answers:
            if a.status == 409:
                assert json.loads(a.body)["code"] == "idempotency_in_progress"
                assert a.headers["retry-after"] == "1"
    assert count(fresh_database) == before + rounds


def test_another_request_under_a_key_is_a_422(api):
    first = api.post(once="k", Prefer="return=minimal")
    assert first.status == 201
    others = [
        api.post({**PAYMENT, "amount": 6}, once="k", Prefer="return=minimal"),
        api.post(once="k"),
        api("POST", "/api/payments?columns=user_id,amount,currency", PAYMENT, Idempotency_Key="k", Prefer="return=minimal"),
        api("POST", "/api/users", PAYMENT, Idempotency_Key="k", Prefer="return=minimal"),
        api("PATCH", "/api/payments/1", {"note": "x"}, Idempotency_Key="k", Prefer="return=minimal"),
        api.post(once="k", Prefer="return=minimal", Content_Type="application/json; charset=utf-8"),
    ]
    assert [(a.status, a.code) for a in others] in ([(422, "idempotency_mismatch")] * 3 + [(400, "unknown_column")] +
                                                    [(422, "idempotency_mismatch")] * 2,)


def test_a_key_belongs_to_an_identity_not_to_its_secret(api, fresh_database):
    first = api.post(once="mine")
    other = fresh_database.create_key("other", role="api_user", plan="demo")
    theirs = api.post(once="mine", key=other)
    assert theirs.status == 201 and theirs.body != first.body and "idempotency-replayed" not in theirs.headers
    rotated = fresh_database.value("SELECT composure.rotate_key(%s)", fresh_database.keys["demo"].split("_")[1])
    wait_until(lambda: api.post(once="mine", key=rotated).status == 201, "the new secret")
    assert same(first, api.post(once="mine", key=rotated))


def test_a_record_of_another_role_or_tenant_is_not_shown(api, fresh_database):
    assert api.post(once="before").status == 201
    fresh_database.sql("UPDATE composure.api_key SET tenant = 'acme'")
    def refused():
        a = api.post(once="before")
        return a.status == 403 and a
    assert b"5.25" not in wait_until(refused, "the new tenant").body


def test_a_record_lives_a_day_and_goes_with_its_partition(api, fresh_database):
    first = api.post(once="old")
    fresh_database.sql("UPDATE composure.idempotency SET slot = (slot + 2) % 3")  # yesterday's
    fresh_database.sql("SELECT composure.idem_sweep()")
    assert same(first, api.post(once="old"))
    fresh_database.sql("UPDATE composure.idempotency SET slot = (slot + 2) % 3")  # the day before, which is tomorrow's place
    fresh_database.sql("SELECT composure.idem_sweep()")
    again = api.post(once="old")
    assert again.status == 201 and again.body != first.body


def test_the_watcher_empties_the_partition_that_is_due(fresh_database, worker):
    fresh_database.sql("""INSERT INTO composure.idempotency (slot, id, identity, key, fingerprint, status, headers, body)
                          SELECT s, composure.idem_id('i', 'k' || s), 'i', 'k' || s, sha256(''), 200, '', '' FROM generate_series(0, 2) s""")
    today = fresh_database.value("SELECT composure.idem_slot()")
    worker(fresh_database)
    wait_until(lambda: fresh_database.value("SELECT count(*) FROM composure.idempotency") == 2, "the sweep")
    left = {row[0] for row in fresh_database.sql("SELECT slot FROM composure.idempotency")}
    assert left == {0, 1, 2} - {(today + 1) % 3}


def test_what_failed_is_not_recorded_and_leaves_the_key_free(api, fresh_database):
    before = count(fresh_database)
    for wrong, status in (({**PAYMENT, "amount": -1}, 422), ({**PAYMENT, "user_id": 10**9}, 409), ({**PAYMENT, "amount": "x"}, 400)):
        assert api.post(wrong, once="k").status == status
    assert count(fresh_database) == before
    assert api.post(once="k").status == 201


def test_an_answer_that_is_too_large_to_keep_is_not_written(fresh_database, worker):
    api = Api(worker(fresh_database, idempotency_max_bytes=1024), fresh_database.keys["demo"])
    before = count(fresh_database)
    rows = [PAYMENT] * 20
    assert api.post(rows, once="big").code == "answer_too_large"
    assert api.post({**PAYMENT, "note": "x" * 1024}, once="one").code == "answer_too_large"
    assert count(fresh_database) == before
    assert api.post(rows, once="big", Prefer="return=minimal").status == 201
    assert count(fresh_database) == before + 20
    assert api.post(rows).status == 201


def test_malformed_keys_are_refused(api, fresh_database):
    before = count(fresh_database)
    for key in ("", '""', "a b", "a,b", '"a', 'a"', '"a"b', '"a\\b"', "x" * 256, '"' + "x" * 256 + '"', "a;b=1", "\xe4"):
        answer = api.post(once=key)
        assert (answer.status, answer.code) == (400, "idempotency_key_invalid"), key
    assert count(fresh_database) == before
    for key in ("x" * 255, '"a b"', '"a\\"\\\\b"', "a=/+:_-.~!"):
        assert api.post(once=key).status == 201, key


def test_a_key_needs_an_api_key_and_may_be_required_or_not_taken(api, fresh_database):
    fresh_database.sql("GRANT INSERT ON public.payments TO composure_anonymous")
    wait_until(lambda: api.post(key="").status == 201, "the grant")
    assert api.post(once="k", key="").code == "idempotency_key_invalid"
    fresh_database.sql("SELECT composure.expose('public.payments', idempotency => 'required')")
    wait_until(lambda: api.post().code == "idempotency_key_missing", "required")
    assert api.post(once="r").status == 201
    fresh_database.sql("SELECT composure.expose('public.payments', idempotency => 'none')")
    wait_until(lambda: api.post().status == 201, "none")
    assert api.post(once="n").code == "idempotency_key_invalid"


def test_a_replay_comes_before_preconditions(api):
    row = api.post()
    where = row.headers["location"]
    first = api("PATCH", where, {"note": "a"}, If_Match=row.headers["etag"], Idempotency_Key="p")
    assert first.status == 200
    assert same(first, api("PATCH", where, {"note": "a"}, If_Match=row.headers["etag"], Idempotency_Key="p"))
    assert api("PATCH", where, {"note": "a"}, If_Match=row.headers["etag"]).code == "precondition_failed"


# --- the other methods ---


def test_if_match_is_compared_with_the_row_as_get_renders_it(api):
    where = api.post().headers["location"]
    tag = api("GET", where).headers["etag"]
    assert api("GET", where, If_None_Match=tag).status == 304
    assert api("PATCH", where, {"note": "x"}, If_Match=f'W/{tag}').status == 412
    assert api("PATCH", where, {"note": "x"}, If_Match=f'"other", {tag}').status == 200
    assert api("DELETE", where, If_Match=tag).status == 412
    assert api("DELETE", where, If_Match=api("GET", where).headers["etag"]).status == 204
    assert api("DELETE", where, If_Match="*").status == 412
    assert api("GET", where).status == 404


def test_put_makes_or_replaces_a_whole_row(api):
    where = "/api/payments/77777"
    assert api("PUT", where, PAYMENT, If_Match="*").status == 412
    made = api("PUT", where, {**PAYMENT, "note": "n"})
    assert (made.status, made.headers["location"]) == (201, where)
    again = api("PUT", where, {**PAYMENT, "id": 77777})
    assert again.status == 200 and json.loads(again.body)["note"] is None
    assert api("PUT", where, PAYMENT, If_None_Match="*").status == 412
    assert api("PUT", where, {**PAYMENT, "id": 5}).code == "invalid_body"
    assert api("PUT", "/api/payments", PAYMENT).status == 405


def test_lists_are_written_to_only_within_filters_and_bounds(fresh_database, worker):
    api = Api(worker(fresh_database, affected_rows_max=10), fresh_database.keys["demo"])
    assert api("PATCH", "/api/payments", {"note": "x"}).code == "invalid_parameter"
    assert api("DELETE", "/api/payments").code == "invalid_parameter"
    before = fresh_database.value("SELECT md5(string_agg(p::text, ',' ORDER BY id)) FROM public.payments p")
    assert api("DELETE", "/api/payments?id=gt.0").code == "query_too_complex"
    assert api("PATCH", "/api/payments?id=gt.0", {"note": "x"}, Prefer="return=minimal").code == "query_too_complex"
    assert before == fresh_database.value("SELECT md5(string_agg(p::text, ',' ORDER BY id)) FROM public.payments p")
    changed = api("PATCH", "/api/payments?id=lte.3", {"note": "three"})
    assert changed.status == 200 and [r["note"] for r in json.loads(changed.body)] == ["three"] * 3
    gone = api("DELETE", "/api/payments?note=eq.three", Idempotency_Key="d")
    assert (gone.status, gone.headers["content-range"]) == (204, "*/3")
    assert same(gone, api("DELETE", "/api/payments?note=eq.three", Idempotency_Key="d"))


def test_upsert_by_on_conflict(api):
    row = {"name": "Z", "email": "z@example.com", "country": "DE"}
    where = "/api/users?on_conflict=email"
    first = api("POST", where, [row], Prefer="resolution=merge-duplicates")
    assert first.status == 200
    merged = json.loads(api("POST", where, [{**row, "name": "Y"}], Prefer="resolution=merge-duplicates").body)
    assert [(r["id"], r["name"]) for r in merged] == [(json.loads(first.body)[0]["id"], "Y")]
    assert json.loads(api("POST", where, [row], Prefer="resolution=ignore-duplicates").body) == []
    assert api("POST", "/api/users", row).code == "conflict"


def test_csv_and_forms_are_rows(api):
    made = api.post(b'user_id,amount,currency,note\r\n1,5,EUR,"a ""q"", b"\r\n2,6.5,USD,\r\n', Content_Type="text/csv")
    assert [(r["user_id"], r["note"]) for r in json.loads(made.body)] == [(1, 'a "q", b'), (2, None)]
    assert json.loads(api.post(b"user_id=1&amount=7&currency=EUR", Content_Type="application/x-www-form-urlencoded").body)["amount"] == 7
    assert api.post(b"x", Content_Type="text/plain").status == 415
    assert api("PATCH", "/api/payments/1", b"a\n1", Content_Type="text/csv").status == 415


def test_errors_name_the_column_and_nothing_else(api):
    assert "amount" in api.post({**PAYMENT, "amount": "abc"}).detail
    assert "currency" in api.post({**PAYMENT, "currency": None}).detail
    assert "bogus" in api.post({**PAYMENT, "bogus": 1}).detail
    for wrong in ({**PAYMENT, "user_id": 10**9}, {**PAYMENT, "amount": -1}):
        assert api.post(wrong).detail is None
    duplicate = api("POST", "/api/users", {"id": 1, "name": "x", "email": "x@x", "country": "DE"})
    assert (duplicate.status, duplicate.code, duplicate.detail) == (409, "conflict", None)


# --- functions ---


def expose(database, text, name, **options):
    database.sql(text)
    more = "".join(f", {k} => %s" for k in options)
    database.sql(f"SELECT composure.expose_function('public.{name}'{more})", *options.values())
    database.sql(f"GRANT EXECUTE ON FUNCTION public.{name} TO api_user")


def test_functions_return_values_sets_and_nothing(fresh_database, worker):
    d = fresh_database
    expose(d, "CREATE FUNCTION public.add(a int, b int DEFAULT 2) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT a + b'", "add")
    expose(d, "CREATE FUNCTION public.few(n int) RETURNS TABLE (i int, t text) STABLE LANGUAGE sql AS "
              "$$SELECT i, 'x' || i FROM generate_series(1, n) i$$", "few", rows_max=3)
    expose(d, "CREATE FUNCTION public.nothing() RETURNS void LANGUAGE sql AS ''", "nothing")
    expose(d, "CREATE FUNCTION public.says(h text) RETURNS int LANGUAGE plpgsql AS $$BEGIN "
              "PERFORM set_config('response.status', '202', true), set_config('response.headers', h, true); RETURN 1; END$$", "says")
    api = Api(worker(d), d.keys["demo"])
    assert (api("GET", "/api/rpc/add?a=1").body, api("POST", "/api/rpc/add", {"a": 1, "b": 5}).body) == (b"3", b"6")
    assert json.loads(api("GET", "/api/rpc/few?n=2").body) == {
        "data": [{"i": 1, "t": "x1"}, {"i": 2, "t": "x2"}], "next_cursor": None, "has_more": False}
    more = json.loads(api("POST", "/api/rpc/few", {"n": 9}).body)
    assert len(more["data"]) == 3 and more["has_more"]
    assert api("POST", "/api/rpc/nothing", {}).status == 204
    assert api("GET", "/api/rpc/nothing").status == 405
    assert "\"a\" is missing" in api("GET", "/api/rpc/add").detail
    assert "\"c\"" in api("GET", "/api/rpc/add?c=1").detail
    assert "\"a\"" in api("GET", "/api/rpc/add?a=x").detail
    assert api("GET", "/api/rpc/none").status == 404
    said = api("POST", "/api/rpc/says", {"h": json.dumps([{"Sunset": "soon"}, {"X-Accel-Redirect": "/etc"}, {"Set-Cookie": "a=b"},
                                                         {"Retry-After": "1\r\nX: y"}])})
    assert (said.status, said.headers["sunset"], said.body) == (202, "soon", b"1")
    assert not {"x-accel-redirect", "set-cookie", "retry-after", "x"} & set(said.headers)


def test_what_a_function_raises(fresh_database, worker):
    expose(fresh_database, "CREATE FUNCTION public.raises(s text) RETURNS void LANGUAGE plpgsql AS "
                           "$$BEGIN RAISE EXCEPTION 'in plain words' USING ERRCODE = s; END$$", "raises")
    api = Api(worker(fresh_database), fresh_database.keys["demo"])
    got = {s: api("POST", "/api/rpc/raises", {"s": s}) for s in ("P0001", "PT418", "PT999", "XX000", "23505")}
    assert [(a.status, a.code, a.detail) for a in got.values()] == [
        (400, "raised", "in plain words"), (418, "raised", "in plain words"), (500, "database_error", None),
        (500, "database_error", None), (409, "conflict", None)]


def test_serialization_failures_are_tried_again_and_not_for_ever(fresh_database, worker):
    expose(fresh_database, """CREATE SEQUENCE public.tries; GRANT USAGE ON SEQUENCE public.tries TO api_user;
        CREATE FUNCTION public.flaky(fails int) RETURNS bigint LANGUAGE plpgsql AS $$DECLARE n bigint := nextval('public.tries');
        BEGIN IF n <= fails THEN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END IF; RETURN n; END$$""", "flaky")
    api = Api(worker(fresh_database), fresh_database.keys["demo"])
    assert api("POST", "/api/rpc/flaky", {"fails": 3}, Idempotency_Key="f").body == b"4"
    fresh_database.sql("ALTER SEQUENCE public.tries RESTART")
    assert api("POST", "/api/rpc/flaky", {"fails": 1000}).status == 503
    assert fresh_database.value("SELECT last_value FROM public.tries") <= 7


# --- what code of the user's may not leave behind: one connection, a function that leaves something, then another request ---

LEFT = {
    "role": ("PERFORM set_config('role', 'none', false)", "current_user", "api_user"),
    "search_path": ("PERFORM set_config('search_path', 'pg_temp', false)", "current_setting('search_path')", "public"),
    "setting": ("PERFORM set_config('work_mem', '64kB', false)", "current_setting('work_mem')", "4MB"),
    "own setting": ("PERFORM set_config('my.secret', 'x', false)", "coalesce(nullif(current_setting('my.secret', true), ''), 'none')", "none"),
    "lock": ("PERFORM pg_advisory_lock(4711)", "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711)::text", "0"),
    "listen": ("LISTEN gossip", "(SELECT count(*) FROM pg_listening_channels())::text", "0"),
    "cursor": ("EXECUTE 'DECLARE kept CURSOR WITH HOLD FOR SELECT 1'", "(SELECT count(*) FROM pg_cursors WHERE is_holdable)::text", "0"),
    "temporary table": ("CREATE TEMP TABLE users AS SELECT 'mine' AS name", "coalesce(to_regclass('pg_temp.users')::text, 'none')", "none"),
    "prepared": ("EXECUTE 'PREPARE mine AS SELECT 1'", "(SELECT count(*) FROM pg_prepared_statements WHERE name = 'mine')::text", "0"),
    "deallocated": ("EXECUTE 'DEALLOCATE ALL'", "'fine'", "fine"),
    "isolation": ("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
                  "current_setting('default_transaction_isolation')", "read committed"),
    "response": ("PERFORM set_config('response.status', '202', false)", "'fine'", "fine"),
}


@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
@pytest.mark.parametrize("what", LEFT)
def test_nothing_of_a_function_is_left_for_the_next_request(fresh_database, worker, what, fails):
    leave, look, expected = LEFT[what]
    expose(fresh_database, f"""CREATE FUNCTION public.leave() RETURNS int LANGUAGE plpgsql AS
        $$BEGIN {leave}; {"RAISE EXCEPTION 'failed';" if fails else ""} RETURN 1; END$$""", "leave()")
    expose(fresh_database, f"CREATE FUNCTION public.look() RETURNS text LANGUAGE sql VOLATILE AS $$SELECT ({look})::text$$", "look()")
    api = Api(worker(fresh_database, connections=1), fresh_database.keys["demo"])
    for turn in range(3):
        assert api("GET", "/api/users/1").status == 200
        assert api("POST", "/api/rpc/leave", {}).status == (400 if fails else 202 if what == "response" else 200)
        found = api("POST", "/api/rpc/look", {})
        assert (found.status, json.loads(found.body)) == (200, expected)
        assert api.post(once=f"{what}-{turn}".replace(" ", "-")).status == 201


@pytest.mark.parametrize("what", LEFT)
def test_nothing_of_a_view_is_left_for_the_next_request(fresh_database, worker, what):
    leave, look, expected = LEFT[what]
    fresh_database.sql(f"""
        CREATE FUNCTION public.leave() RETURNS int LANGUAGE plpgsql AS $$BEGIN {leave}; RETURN 1; END$$;
        CREATE VIEW public.leaving AS SELECT public.leave() AS id; GRANT SELECT ON public.leaving TO api_user;
        SELECT composure.expose('public.leaving', key => '{{id}}')""")
    fresh_database.sql(f"CREATE VIEW public.looking AS SELECT 1 AS id, ({look})::text AS it; GRANT SELECT ON public.looking TO api_user;"
                       "SELECT composure.expose('public.looking', key => '{id}')")
    api = Api(worker(fresh_database, connections=1), fresh_database.keys["demo"])
    for _ in range(3):
        # Not everything may be done while reading.
        assert api("GET", "/api/leaving").status == api("GET", "/api/leaving/1").status
        found = api("GET", "/api/looking")
        assert (found.status, json.loads(found.body)["data"][0]["it"]) == (200, expected)
        assert api("GET", "/api/users/1").status == 200


@pytest.mark.parametrize("where", ["ALTER TABLE public.users ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON public.users USING (public.leave() = 1)",
                                   "ALTER TABLE public.payments ALTER note SET DEFAULT public.leave()",
                                   "ALTER TABLE public.payments ADD CHECK (public.leave() = 1)"],
                         ids=["policy", "default", "check"])
def test_nothing_of_code_that_nobody_calls_by_name_is_left(fresh_database, worker, where):
    leave, look, expected = LEFT["role"]
    fresh_database.sql(f"""
        CREATE FUNCTION public.leave() RETURNS int LANGUAGE plpgsql AS $$BEGIN {leave}; RETURN 1; END$$;
        CREATE VIEW public.looking AS SELECT 1 AS id, ({look})::text AS it; GRANT SELECT ON public.looking TO api_user;
        SELECT composure.expose('public.looking', key => '{{id}}'); {where}""")
    api = Api(worker(fresh_database, connections=1), fresh_database.keys["demo"])
    for turn in range(3):
        api("GET", "/api/users/1")
        assert api.post({"user_id": 1, "amount": 1, "currency": "EUR"}).status == 201
        assert json.loads(api("GET", "/api/looking").body)["data"][0]["it"] == expected
        assert api.post(once=f"k{turn}").status == 201


def test_nothing_of_a_trigger_is_left_either(fresh_database, worker):
    fresh_database.sql("""
        CREATE FUNCTION public.meddle() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
          PERFORM set_config('role', 'none', false), set_config('search_path', 'pg_temp', false), pg_advisory_lock(4711);
          CREATE TEMP TABLE IF NOT EXISTS payments (x int); EXECUTE 'DEALLOCATE ALL'; RETURN NEW; END$$;
        CREATE TRIGGER meddle BEFORE INSERT ON public.payments FOR EACH ROW EXECUTE FUNCTION public.meddle()""")
    expose(fresh_database, "CREATE FUNCTION public.look() RETURNS text LANGUAGE sql VOLATILE AS $$SELECT current_user || "
                           "current_setting('search_path') || (SELECT count(*) FROM pg_locks WHERE objid = 4711)$$", "look()")
    api = Api(worker(fresh_database, connections=1), fresh_database.keys["demo"])
    for turn in range(3):
        first = api.post(once=f"t{turn}")
        assert first.status == 201
        assert same(first, api.post(once=f"t{turn}"))
        assert json.loads(api("POST", "/api/rpc/look", {}).body) == "api_userpublic0"


def test_deferred_triggers_run_as_the_caller_and_before_the_record(fresh_database, worker):
    fresh_database.sql("""
        CREATE TABLE public.seen (who text); GRANT INSERT ON public.seen TO PUBLIC;
        CREATE FUNCTION public.late() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
          INSERT INTO public.seen VALUES (current_user);
          IF NEW.note = 'no' THEN RAISE EXCEPTION 'late no'; END IF; RETURN NULL; END$$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON public.payments DEFERRABLE INITIALLY DEFERRED
          FOR EACH ROW EXECUTE FUNCTION public.late()""")
    api = Api(worker(fresh_database), fresh_database.keys["demo"])
    assert api.post(once="a").status == 201 and api.post().status == 201
    assert api.post({**PAYMENT, "note": "no"}, once="b").detail == "late no"
    assert api.post({**PAYMENT, "note": "no"}).detail == "late no"
    assert fresh_database.sql("SELECT DISTINCT who FROM public.seen") == [("api_user",)]
    assert fresh_database.value("SELECT count(*) FROM composure.idempotency") == 1


# --- outcomes that nobody knows ---


def commits_wait(database):
    """From now on a commit is in the log, and its session waits for a standby that never answers."""
    database.sql("CREATE TABLE IF NOT EXISTS public.probe (x int)")
    database.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    database.sql("SELECT pg_reload_conf()")

    over = threading.Event()

    def insert():
        connection = database.connect()
        with connection.cursor() as cursor:
            while not over.is_set():
                cursor.execute("INSERT INTO public.probe VALUES (1)")
        connection.close()
    thread = threading.Thread(target=insert, daemon=True)
    thread.start()
    pid = wait_until(lambda: waiting_commit(database), "commits to wait")
    over.set()
    database.value("SELECT pg_cancel_backend(%s)", pid)
    thread.join()


def waiting_commit(database):
    return database.value("SELECT min(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")


def post_that_waits(api, database, **more):
    """(its thread, its answer once that has ended); the commit is in the log, and waits."""
    commits_wait(database)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(api.post(**more)))
    thread.start()
    wait_until(lambda: waiting_commit(database), "the commit to wait")
    return thread, answers


def crash_behind_the_commit(cluster):
    """And back; commits wait for nobody then."""
    cluster.psql("postgres", "-c", "ALTER SYSTEM RESET synchronous_standby_names")
    cluster.kill()
    cluster.start()


def test_a_commit_whose_answer_is_lost_is_asked_for_again(own_cluster, own_database, worker):
    """The backend is killed while its commit waits for a standby that does not answer: the commit is in the log."""
    api = Api(worker(own_database, deadline_ms=20000), own_database.keys["demo"])
    assert api.post().status == 201
    before = count(own_database)
    thread, answers = post_that_waits(api, own_database, once="lost")
    crash_behind_the_commit(own_cluster)
    thread.join()
    assert answers[0].status == 201
    assert count(own_database) == before + 1
    again = api.post(once="lost")
    assert same(again, answers[0]) and again.headers["idempotency-replayed"] == "true"


def test_what_goes_wrong_before_a_lost_commit_is_looked_up_says_nothing_of_it(own_cluster, own_database, worker):
    api = Api(worker(own_database, deadline_ms=20000), own_database.keys["demo"])
    assert api.post().status == 201
    before = count(own_database)
    thread, answers = post_that_waits(api, own_database, once="lost")
    own_database.sql("""SET synchronous_commit = local;
        ALTER FUNCTION composure.idem_begin RENAME TO idem_begins;
        CREATE FUNCTION composure.idem_begin(text, text, bytea, text, text) RETURNS void LANGUAGE plpgsql AS
          $$BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = 'XX000'; END$$""")
    crash_behind_the_commit(own_cluster)
    wait_until(lambda: "ERROR:  not now" in own_cluster.process.output(), "it to be asked for in vain")
    own_database.sql("DROP FUNCTION composure.idem_begin; ALTER FUNCTION composure.idem_begins RENAME TO idem_begin")
    thread.join()
    assert answers[0].status == 201 and count(own_database) == before + 1


def test_without_a_key_a_lost_commit_is_a_504_and_not_tried_again(own_cluster, own_database, worker):
    api = Api(worker(own_database, deadline_ms=20000), own_database.keys["demo"])
    assert api.post().status == 201
    before = count(own_database)
    thread, answers = post_that_waits(api, own_database)
    own_cluster.kill()
    thread.join()
    assert (answers[0].status, answers[0].code, answers[0].headers["retry-after"]) == (504, "outcome_unknown", "1")
    own_cluster.start()
    assert count(own_database) <= before + 1


def test_past_the_deadline_the_outcome_is_unknown_and_the_retry_safe(own_cluster, own_database, worker):
    api = Api(worker(own_database, deadline_ms=1000), own_database.keys["demo"])
    assert api.post().status == 201
    before = count(own_database)
    commits_wait(own_database)
    late = api.post(once="late")
    assert (late.status, late.code, late.headers["retry-after"]) == (504, "outcome_unknown", "1")
    own_database.sql("ALTER SYSTEM RESET synchronous_standby_names")
    own_database.sql("SELECT pg_reload_conf()")
    settled = wait_until(lambda: (lambda a: a.status == 201 and a)(api.post(once="late")), "the outcome")
    assert settled.status == 201 and count(own_database) == before + 1


def test_a_frozen_postgresql_costs_the_deadline_and_nothing_is_written_twice(own_cluster, own_database, worker):
    api = Api(worker(own_database, deadline_ms=700), own_database.keys["demo"])
    assert api.post().status == 201
    before = count(own_database)
    own_cluster.freeze()
    assert api.post(once="ice").status in (503, 504)
    own_cluster.thaw()
    assert wait_until(lambda: api.post(once="ice").status == 201, "the thaw")
    assert count(own_database) == before + 1


def test_a_worker_that_is_stopped_in_a_transaction_holds_its_locks_no_longer_than_the_deadline(fresh_database, worker):
    running = worker(fresh_database, deadline_ms=1500)
    api = Api(running, fresh_database.keys["demo"])
    fresh_database.sql("""CREATE FUNCTION public.slowly() RETURNS trigger LANGUAGE plpgsql AS
                             $$BEGIN PERFORM pg_sleep(0.7); RETURN NEW; END$$;
                           CREATE TRIGGER slowly BEFORE UPDATE ON public.users FOR EACH ROW EXECUTE FUNCTION public.slowly()""")
    key, process = fresh_database.keys["demo"], running.processes[0]
    head = {"Authorization": f"Bearer {key}", "Idempotency-Key": "stopped", "Content-Type": "application/json"}
    with running.fcgi() as c:
        c.send(fastcgi.request(1, "PATCH", "/api/users/1", head, b'{"name":"stopped"}'))
        wait_until(lambda: fresh_database.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 1, "the write")
        process.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: fresh_database.value("SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'") == 1,
                       "its first trip to be over")
            wait_until(lambda: fresh_database.value("SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'") == 0,
                       "PostgreSQL to end it", 5)
            fresh_database.sql("SELECT FROM public.users WHERE id = 1 FOR UPDATE NOWAIT")
        finally:
            process.send_signal(signal.SIGCONT)
        assert c.receive().status in (503, 504)
    assert fresh_database.value("SELECT name FROM public.users WHERE id = 1") != "stopped"


def test_requests_over_their_bounds_are_refused_unread(fresh_database, worker):
    api = Api(worker(fresh_database, body_max_bytes=2000, body_max_depth=5, body_max_rows=10), fresh_database.keys["demo"])
    before = count(fresh_database)
    assert api.post([PAYMENT] * 11).code == "query_too_complex"
    assert api.post([PAYMENT] * 100).code == "body_too_large"
    assert api.post(b'{"note":[[[[[[1]]]]]]}', Content_Type="application/json").code == "invalid_body"
    assert count(fresh_database) == before


def test_a_client_that_goes_leaves_no_lock(fresh_database, worker):
    running = worker(fresh_database)
    api = Api(running, fresh_database.keys["demo"])
    body = json.dumps(PAYMENT).encode()
    headers = {"Authorization": f"Bearer {api.key}", "Idempotency-Key": "gone", "Content-Type": "application/json"}
    with fresh_database.connect() as lock, lock.cursor() as cursor:
        lock.autocommit = False
        cursor.execute("LOCK TABLE public.payments IN EXCLUSIVE MODE")
        c = running.fcgi()
        c.send(fastcgi.request(1, "POST", "/api/payments", headers, body))
        wait_until(lambda: fresh_database.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"), "the write to wait")
        assert api.post(once="gone").code == "idempotency_in_progress"
        c.close()
        lock.rollback()
    wait_until(lambda: api.post(once="gone").status == 201, "the key to be free")
