"""Creating rows, as the contract has it: what is written is what was sent, to the digit; what is refused has not
happened; and no error says more than it should."""

import json
import re

import pytest

from conftest import copy_of
from harness.problems import is_problem
from harness.site import site

PAYMENT = {"user_id": 7, "amount": 12.5, "currency": "EUR"}


@pytest.fixture(scope="module")
def api(home, demo_template):
    with site(home, "write", copy_of(demo_template)) as made:
        made.sql("""
            CREATE SCHEMA w; GRANT USAGE ON SCHEMA w TO api_user;
            CREATE DOMAIN w.positive AS bigint NOT NULL CHECK (VALUE > 0);
            CREATE DOMAIN w.word AS text CHECK (VALUE ~ '^[a-z]+$');
            CREATE TABLE w.things (
              id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
              big bigint, small smallint, exact numeric, rounded numeric(30,2), approx float8, flag bool, word text,
              short varchar(5), fixed char(3), day date, moment timestamptz, span interval, tags text[], doc jsonb,
              raw json, bytes bytea, uid uuid,
              twice numeric GENERATED ALWAYS AS (exact * 2) STORED,
              made timestamptz NOT NULL DEFAULT '2020-01-01', kept text DEFAULT 'kept', hush text DEFAULT 'psst'
            );
            CREATE TABLE w.rules (
              id int PRIMARY KEY, code text UNIQUE, must text NOT NULL DEFAULT 'x', n int CHECK (n < 100),
              p w.positive DEFAULT 1, w w.word, span int4range, parent int REFERENCES w.rules,
              country char(2) REFERENCES public.countries DEFERRABLE INITIALLY DEFERRED,
              EXCLUDE USING gist (span WITH &&)
            );
        """)
        made.expose("w.things", read_only=["kept"], hidden=["hush"])
        made.expose("w.rules")
        yield made


@pytest.fixture(scope="module")
def post(api):
    return api.client.post


def state_of(api):
    """What any statement that was executed, and not only what was committed, would have changed."""
    return api.sql("""
        SELECT (SELECT count(*) FROM payments), (SELECT last_value FROM payments_id_seq),
               (SELECT count(*) FROM w.things), (SELECT last_value FROM w.things_id_seq), (SELECT count(*) FROM w.rules)""")


@pytest.fixture
def unchanged(api):
    before = state_of(api)
    yield
    assert state_of(api) == before


# --- what is written ---

def test_a_payment_is_created(api, post):
    answer = post("/api/payments", PAYMENT)
    assert answer.status == 201
    assert answer.headers["Content-Type"] == "application/json"
    assert "no-store" in answer.headers["Cache-Control"] or "no-cache" in answer.headers["Cache-Control"]
    row, = api.sql("SELECT id, row_to_json(p)::text FROM payments p ORDER BY id DESC LIMIT 1")
    assert answer.headers["Location"] == f"/api/payments/{row[0]}"
    assert answer.body.decode() == row[1]
    assert list(answer.json) == ["id", "user_id", "amount", "currency", "status", "note", "created_at"]
    assert answer.json["amount"] == "12.50" and answer.json["status"] == "pending" and answer.json["note"] is None
    again = api.client.get(answer.headers["Location"])
    assert again.status == 200 and again.body == answer.body


def test_an_array_is_created_whole_and_in_order(api, post):
    answer = post("/api/payments", [{**PAYMENT, "note": f"n{i}"} for i in range(300)])
    assert answer.status == 201 and answer.headers["Location"] is None
    assert [row["note"] for row in answer.json] == [f"n{i}" for i in range(300)]
    ids = [row["id"] for row in answer.json]
    assert ids == sorted(ids)
    assert post("/api/payments", [PAYMENT]).json[0]["user_id"] == 7


def test_of_an_array_with_one_bad_row_nothing_is_created(api, post):
    before = api.value("SELECT count(*) FROM payments")
    is_problem(post("/api/payments", [PAYMENT, {**PAYMENT, "amount": -1}]), 422, "constraint_violation")
    assert api.value("SELECT count(*) FROM payments") == before


def test_members_that_are_absent_get_their_defaults_and_null_is_null(post):
    row = post("/api/things", {}).json
    assert row["kept"] == "kept" and row["made"] == "2020-01-01T00:00:00+00:00" and row["word"] is None
    row = post("/api/things", {"word": None}).json
    assert row["kept"] == "kept" and row["word"] is None
    is_problem(post("/api/things", {"made": None}), 422, "constraint_violation")
    assert "hush" not in row


@pytest.mark.parametrize("column,sent,stored", [
    ("exact", "123456789012345678901234567890.123456789012345678901234567890", None),
    ("exact", "0." + "0" * 40 + "1", None),
    ("exact", "1" + "0" * 400, None),
    ("exact", "-0.10", "-0.10"),
    ("exact", "1e30", "1000000000000000000000000000000"),
    ("exact", "1.50E-3", "0.00150"),
    ("exact", '"NaN"', '"NaN"'),
    ("exact", '"12.30"', "12.30"),
    ("rounded", "1234567890123456789012345678.905", "1234567890123456789012345678.91"),
    ("big", "9223372036854775807", None),
    ("big", "-9223372036854775808", None),
    ("big", "9007199254740993", None),
    ("big", '"9223372036854775807"', "9223372036854775807"),
    ("small", "-32768", None),
    ("approx", "0.1", None), ("approx", "5e-324", None), ("approx", "1.7976931348623157e+308", None),
    ("approx", '"-Infinity"', None),
    ("flag", "true", None), ("flag", "false", None), ("flag", '"yes"', "true"),
    ("word", '""', None), ("word", '"\\u00e9\\ud83d\\ude00\\n\\"\\\\\\u0001"', None), ("word", "12.50", '"12.50"'), ("word", "true", '"true"'),
    ("word", '"' + "x" * 100000 + '"', None),
    ("word", "\"'; DROP TABLE users; --\"", None), ("word", '"$1 %s \\\\x00 {}"', None),
    ("short", '"abcde"', None), ("fixed", '"a"', '"a  "'),
    ("day", '"-infinity"', None), ("day", '"0044-03-15 BC"', None), ("day", '"29 Feb 2024"', '"2024-02-29"'),
    ("moment", '"2024-06-01T12:00:00.123456+05:30"', '"2024-06-01T06:30:00.123456+00:00"'),
    ("span", '"P1Y2DT3.5S"', '"1 year 2 days 00:00:03.5"'),
    ("tags", '["a,b",null,"\\"","{}",""]', None), ("tags", "[]", None), ("tags", '"{a,NULL}"', '["a",null]'),
    ("tags", '[["a","b"],["c","d"]]', None),
    ("doc", '{"b":1.10,"a":[1,null,{"c":"x"}]}', '{"a": [1, null, {"c": "x"}], "b": 1.10}'),
    ("doc", "123456789012345678901234567890.5", None), ("doc", '"text"', None), ("doc", "[]", None),
    ("raw", '{"b":  1.10, "a":2e400}', None),
    ("bytes", '"\\\\x00ff"', None), ("uid", '"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"', '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"'),
])
def test_a_value_arrives_as_it_was_sent(api, post, column, sent, stored):
    answer = post("/api/things", f'{{"{column}":{sent}}}', headers={"Content-Type": "application/json"})
    assert answer.status == 201, answer
    expected = stored or sent
    if column in ("word", "short", "fixed", "tags") and not stored:  # escapes may be spelt otherwise
        assert answer.json[column] == json.loads(expected)
    else:
        assert f'"{column}":{expected}'.encode() in answer.body, answer
    assert api.client.get(answer.headers["Location"]).body == answer.body


def test_a_body_may_be_written_in_any_lawful_way(post):
    for body in ('\n\t {"user_id" : 7 , "amount":1,\r\n"currency":"EUR"} \n', '{"\\u0075ser_id":7,"amount":1,"currency":"\\u0045UR"}',
                 '{"currency":"EUR","amount":1,"user_id":7}', '[ {"user_id":7,"amount":1,"currency":"EUR"} ]'):
        answer = post("/api/payments", body, headers={"Content-Type": "application/json"})
        assert answer.status == 201, (body, answer)
    for kind in ("application/json; charset=utf-8", "APPLICATION/JSON", 'application/json;charset="UTF-8"'):
        assert post("/api/payments", json.dumps(PAYMENT), headers={"Content-Type": kind}).status == 201


# --- what is refused ---

BAD_BODIES = {
    "nothing": b"", "blanks": b" \n", "no JSON": b"user_id=7", "a half": b'{"user_id":7,"amount":1,"currency":"EUR"',
    "half a string": b'{"user_id":7,"currency":"EU', "half an escape": b'{"currency":"\\u12', "trailing text": b'{"user_id":7}x',
    "two documents": b'{"user_id":7}{"user_id":8}', "a trailing comma": b'{"user_id":7,}', "single quotes": b"{'user_id':7}",
    "no quotes": b"{user_id:7}", "a comment": b'{"user_id":7/**/}', "twice": b'{"user_id":7,"user_id":8,"amount":1,"currency":"EUR"}',
    "twice, escaped": b'{"user_id":7,"user_\\u0069d":8}', "twice, deep": b'{"note":{"a":1,"a":2}}', "NaN": b'{"amount":NaN}',
    "Infinity": b'{"amount":Infinity}', "-Infinity": b'{"amount":-Infinity}', "a plus": b'{"amount":+1}', "a leading zero": b'{"amount":01}',
    "no digits": b'{"amount":1.}', "no digits before": b'{"amount":.5}', "hexadecimal": b'{"amount":0x10}', "an exponent": b'{"amount":1e}',
    "a NUL": b'{"note":"\x00"}', "an escaped NUL": b'{"note":"\\u0000"}', "NUL behind": b'{"user_id":7}\x00', "a control character": b'{"note":"a\nb"}',
    "bad UTF-8": b'{"note":"\xff"}', "overlong UTF-8": b'{"note":"\xc0\xaf"}', "a surrogate in UTF-8": b'{"note":"\xed\xa0\x80"}',
    "half a surrogate": b'{"note":"\\ud83d"}', "surrogates reversed": b'{"note":"\\ude00\\ud83d"}', "above Unicode": b'{"note":"\xf4\x90\x80\x80"}',
    "cut UTF-8": b'{"note":"\xe2\x82"}', "UTF-16": '{"note":"a"}'.encode("utf-16"), "a byte order mark": b'\xef\xbb\xbf{"user_id":7}',
    "a number": b"7", "a string": b'"user_id"', "true": b"true", "null": b"null", "an empty array": b"[]", "an array of numbers": b"[1,2]",
    "an array of arrays": b'[[{"user_id":7}]]', "a null row": b"[null]", "objects without members": b"[{},{}]",
    "unlike objects": b'[{"user_id":7,"amount":1,"currency":"EUR"},{"user_id":7,"amount":1}]',
    "as long as the first": b'[{"user_id":7,"amount":1},{"user_id":7,"currency":"EUR"}]',
    "deep": b'{"note":' + b"[" * 5000 + b"]" * 5000 + b"}", "deep and open": b"[" * 100000, "many values": b"[" + b"1," * 250000 + b"1]",
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_bad_body_is_refused_and_nothing_is_executed(api, unchanged, body):
    problem = is_problem(api.direct.post("/api/payments", body, headers={"Content-Type": "application/json"}), 400,
                         ("invalid_body", "query_too_complex"))
    assert problem["detail"]


def test_a_body_is_refused_at_its_place(post):
    for body, place in (('{"user_id":7,"amount":1,"user_id":8}', 34), ('{"amount":NaN}', 10), ('{"a":1}x', 7)):
        detail = post("/api/payments", body, headers={"Content-Type": "application/json"}).json["detail"]
        assert int(re.search(r"byte ([0-9]+)", detail).group(1)) == place, detail


@pytest.mark.parametrize("row,code,names", [
    ({"nope": 1}, "unknown_column", "nope"), ({"User_id": 1}, "unknown_column", "User_id"), ({"user_id ": 1}, "unknown_column", "user_id "),
    ({"": 1}, "unknown_column", ""), ({"ctid": 1}, "unknown_column", "ctid"), ({"tableoid": 1}, "unknown_column", "tableoid"),
    ({'a"); DROP TABLE users; --': 1}, "unknown_column", 'a"); DROP TABLE users; --'),
    ({"é\U0001F418\n": 1}, "unknown_column", "é\U0001F418\n"),
])
def test_an_unknown_column_is_refused_by_name(post, unchanged, row, code, names):
    for body in ({**PAYMENT, **row}, [{**PAYMENT, **row}]):
        assert f'"{names}"' in is_problem(post("/api/payments", body), 400, code)["detail"]


@pytest.mark.parametrize("column,code", [("id", "read_only_column"), ("twice", "read_only_column"), ("kept", "read_only_column"),
                                         ("hush", "unknown_column")])
def test_a_column_that_is_not_to_be_written_is_refused(post, unchanged, column, code):
    assert column in is_problem(post("/api/things", {column: 1}), 400, code)["detail"]


@pytest.mark.parametrize("row", [
    {"small": 32768}, {"small": 1.5}, {"small": "x"}, {"big": 9223372036854775808}, {"big": 10 ** 30}, {"big": 1e300}, {"big": True},
    {"exact": "1,5"}, {"exact": {}}, {"approx": "1e999"}, {"flag": "maybe"}, {"flag": 2}, {"short": "abcdef"}, {"day": "2023-02-29"},
    {"day": "tomorrowish"}, {"day": 20240101.5}, {"moment": "25:00"}, {"span": "1 fortnightish"}, {"tags": "a"}, {"tags": {"a": 1}},
    {"tags": [["a"], ["b", "c"]]}, {"tags": [["a"], "b"]}, {"bytes": "\\x0"}, {"uid": "x"}, {"rounded": 10 ** 29},
])
def test_a_value_that_does_not_fit_is_refused(api, post, row):
    before = api.value("SELECT count(*) FROM w.things")
    is_problem(post("/api/things", row), 400, "invalid_value")
    assert api.value("SELECT count(*) FROM w.things") == before


def test_rules_of_the_database_are_mapped(api, post):
    def rule(row, status, code):
        problem = is_problem(post("/api/rules", row), status, code)
        assert "rules_" not in json.dumps(problem) and "Failing row" not in json.dumps(problem)
    assert post("/api/rules", {"id": 1, "code": "a", "span": "[1,5)", "country": "DE"}).status == 201
    rule({"id": 1}, 409, "conflict")
    rule({"id": 2, "code": "a"}, 409, "conflict")
    rule({"id": 2, "span": "[4,9)"}, 409, "conflict")
    rule({"id": 2, "parent": 99}, 409, "foreign_key_violation")
    rule({"id": 2, "country": "XX"}, 409, "foreign_key_violation")  # at the commit
    rule({"id": 2, "must": None}, 422, "constraint_violation")
    rule({"code": "b"}, 422, "constraint_violation")
    rule({"id": 2, "n": 100}, 422, "constraint_violation")
    rule({"id": 2, "p": 0}, 422, "constraint_violation")
    rule({"id": 2, "p": None}, 422, "constraint_violation")
    rule({"id": 2, "w": "NOT A WORD"}, 422, "constraint_violation")
    rule([{"id": 3}, {"id": 3}], 409, "conflict")
    assert api.value("SELECT count(*) FROM w.rules") == 1
    # A NOT NULL domain with a default is no hindrance.
    assert post("/api/rules", {"id": 2}).json["p"] == 1


def test_what_a_trigger_says_goes_to_the_client_and_nothing_else_does(api, post):
    api.sql("""
        CREATE TABLE w.guarded (id int PRIMARY KEY, t text);
        CREATE FUNCTION w.guard() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF NEW.t = 'raise' THEN RAISE EXCEPTION 'no such word: %', NEW.t USING DETAIL = 'a secret detail', HINT = 'a secret hint';
          ELSIF NEW.t = 'divide' THEN PERFORM 1 / 0;
          ELSIF NEW.t = 'deny' THEN RAISE insufficient_privilege USING MESSAGE = 'secret table xyz';
          ELSIF NEW.t = 'internal' THEN RAISE internal_error USING MESSAGE = 'secret of the house';
          ELSIF NEW.t = 'skip' THEN RETURN NULL;
          ELSIF NEW.t = 'change' THEN NEW.t := 'changed';
          END IF;
          RETURN NEW;
        END $$;
        CREATE TRIGGER guard BEFORE INSERT ON w.guarded FOR EACH ROW EXECUTE FUNCTION w.guard();
    """)
    path = api.expose("w.guarded")
    assert is_problem(post(path, {"id": 1, "t": "raise"}), 400, "raised")["detail"] == "no such word: raise"
    for t, status, code in (("divide", (400, 500), None), ("deny", (403,), "forbidden"), ("internal", (500,), "database_error")):
        answer = post(path, {"id": 1, "t": t})
        assert answer.status in status
        problem = is_problem(answer, answer.status, code)
        assert "secret" not in json.dumps(problem)
    assert api.value("SELECT count(*) FROM w.guarded") == 0
    answer = post(path, {"id": 1, "t": "skip"})
    assert answer.status in (200, 201) and answer.headers["Location"] is None
    assert api.value("SELECT count(*) FROM w.guarded") == 0
    assert post(path, {"id": 1, "t": "change"}).json == {"id": 1, "t": "changed"}


@pytest.mark.parametrize("kind", ["text/plain", "text/html", "application/xml", "multipart/form-data; boundary=x", "application/jsonx",
                                  "application", "json", "application/octet-stream", "image/png"])
def test_a_body_of_another_media_type_is_refused(post, unchanged, kind):
    is_problem(post("/api/payments", json.dumps(PAYMENT), headers={"Content-Type": kind}), 415, "unsupported_media_type")


def test_a_body_that_is_too_large_is_refused(api, unchanged):
    bytes_max = 1048576
    head, tail = b'{"user_id":7,"amount":1,"currency":"EUR","note":"', b'"}'
    direct = {"Content-Type": "application/json"}
    over = head + b"x" * (bytes_max + 1 - len(head) - len(tail)) + tail
    for length in (len(over), "99999999999999999999", 10 ** 15):
        is_problem(api.direct.post("/api/payments", over, headers=direct, CONTENT_LENGTH=length), 413, "body_too_large")
    # One that does not say its length is cut off where it is too long.
    is_problem(api.direct.post("/api/payments", over, headers=direct, CONTENT_LENGTH=""), 413, "body_too_large")
    answer = api.server.client(api.database.keys["demo"]).post("/api/payments", over, headers=direct)
    is_problem(answer, 413, "body_too_large")


def test_a_body_of_the_largest_kind_is_taken(api, post):
    head, tail = '{"user_id":7,"amount":1,"currency":"EUR","note":"', '"}'
    note = "x" * (1048576 - len(head) - len(tail))
    answer = post("/api/payments", head + note + tail, headers={"Content-Type": "application/json"})
    assert answer.status == 201 and answer.json["note"] == note


def test_a_body_that_is_not_as_long_as_it_says_is_refused(api, unchanged):
    body, kind = json.dumps(PAYMENT).encode(), {"Content-Type": "application/json"}
    for length in (len(body) - 1, len(body) + 1, 1, 0):
        is_problem(api.direct.post("/api/payments", body, headers=kind, CONTENT_LENGTH=length), 400, "invalid_body")
    for length in ("-1", "1e3", "0x10", " 5", "5 5", "+5", "five"):
        is_problem(api.direct.post("/api/payments", body, headers=kind, CONTENT_LENGTH=length), 400, "invalid_header")


def test_who_may_not_write_is_refused_whatever_the_body(api, unchanged):
    api.sql("GRANT USAGE ON SCHEMA w TO composure_anonymous; CREATE ROLE reader NOLOGIN; GRANT USAGE ON SCHEMA public, w TO reader;"
            "GRANT SELECT ON payments, w.things TO reader")
    reader = api.server.client(api.database.create_key("reader", role="reader"))
    api.settle()  # until then PostgreSQL is asked what a new role may
    for body in (PAYMENT, {"nope": 1}, [], {}):
        is_problem(reader.post("/api/payments", body), 403, "forbidden")
        is_problem(api.server.client().post("/api/payments", body), 401, "unauthenticated")
        is_problem(reader.post("/api/nothing", body), 404, "not_found")


def test_creating_takes_no_parameters_of_a_list(post, unchanged):
    for query in ("limit=1", "cursor=eyJpZCI6MTI4fQ", "nope=1", "offset=0"):
        is_problem(post(f"/api/payments?{query}", PAYMENT), 400)


def test_where_a_key_is_required_there_must_be_one(api, post):
    api.sql("CREATE TABLE w.once (id int PRIMARY KEY)")
    path = api.expose("w.once", idempotency="required")
    is_problem(post(path, {"id": 1}), 400, "idempotency_key_missing")
    assert api.value("SELECT count(*) FROM w.once") == 0
    assert post(path, {"id": 1}, headers={"Idempotency-Key": '"one"'}).status == 201


def test_a_view_takes_rows_as_its_table_does(api, post):
    api.sql("CREATE TABLE w.base (id int PRIMARY KEY DEFAULT 5, t text, secret text DEFAULT 's');"
            "CREATE VIEW w.window AS SELECT id, t FROM w.base WHERE id < 100 WITH CHECK OPTION")
    path = api.expose("w.window", key=["id"])
    assert post(path, {"t": "x"}).json == {"id": 5, "t": "x"}
    is_problem(post(path, {"id": 100}), 422, "constraint_violation")
    is_problem(post(path, {"id": 6, "secret": "x"}), 400, "unknown_column")
