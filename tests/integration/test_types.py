"""Every type that PostgreSQL has: what the API answers is what to_json() says in a session whose time zone is UTC,
byte for byte; what it answers can be sent back; and whatever can be sorted can be a key and be paged by."""

import base64
import json
from urllib.parse import quote

import pytest

from conftest import copy_of
from harness.site import site

TEXTS = [
    "", "plain", "it's \"quoted\" \\ and / slashed", "\x01\x02\b\t\n\x0b\f\r\x1f\x7f", "größe \u2028\u2029 \ufeff \ufffd",
    "\U0001F418\U0010FFFF", "null", "{}", "  blanks  ", "x" * 5000,
]
JSONS = [
    "{}", "[]", '""', "0", "-0.0", "1e400", "null", "true", '{"a": [1, {"b": null}], "a b": "\\u00e9\\n\\ud83d\\ude00"}',
    '[1.10, 12345678901234567890123456789012345678901234567890]',
]
NUMERICS = [
    "0", "0.00", "-1.10", "1", "10000", "100000000.00001", "0.0000000000001", "NaN", "Infinity", "-Infinity",
    "9" * 1000, "-" + "12345678" * 100 + "." + "87654321" * 25, "1e-50", "1e131071",
]
MOMENTS = [
    "2024-02-29 12:34:56.789", "2000-01-01 00:00:00", "1999-12-31 23:59:59.999999", "infinity", "-infinity",
    "0044-03-15 01:02:03 BC", "4713-01-01 00:00:00 BC", "0001-01-01 00:00:00", "9999-12-31 23:59:59.9",
    "10000-01-01 00:00:00.000001", "294276-12-31 23:59:59.999999",
]

# What a value of each type can be, as text. The first two differ, and the first is the least where that is plain.
VALUES = {
    "bool": ["f", "t"],
    "char": ["a", "b", "", '"', "\\"],
    "name": ["a", "B c\"d", "n" * 63],
    "int2": ["-32768", "0", "32767"],
    "int4": ["-2147483648", "0", "2147483647"],
    "int8": ["-9223372036854775808", "0", "9007199254740993", "9223372036854775807"],
    "oid": ["0", "4294967295"],
    "float4": ["-Infinity", "-1.1754944e-38", "0", "-0", "0.1", "3.4028235e+38", "Infinity", "NaN", "16777217"],
    "float8": ["-Infinity", "5e-324", "-0", "0.1", "0.30000000000000004", "1.7976931348623157e+308", "Infinity", "NaN",
               "1e21", "1e-7", "123456789012345680000"],
    "numeric": NUMERICS,
    "money": ["-$92233720368547758.08", "$1,234.56", "$0.00"],
    "text": TEXTS,
    "varchar": TEXTS,
    "bpchar": TEXTS,
    "bytea": ["", "\\x00ff10", "\\x225c0a"],
    "date": ["-infinity", "4714-11-24 BC", "0001-12-31 BC", "0001-01-01", "1999-12-31", "2000-02-29", "9999-12-31",
             "10000-01-01", "5874897-12-31", "infinity"],
    "time": ["00:00:00", "23:59:59.999999", "24:00:00", "12:30"],
    "timetz": ["00:00:00+15:59:59", "12:34:56.789-08", "24:00:00-15:59:59"],
    "timestamp": MOMENTS,
    "timestamptz": [m.replace(" BC", "+00 BC") if "BC" in m else m if "inf" in m else m + "+00" for m in MOMENTS]
    + ["2024-06-01 12:00:00 America/New_York"],
    "interval": ["-178000000 years", "1 day", "1 year 2 mons -3 days 04:05:06.000007", "-00:00:01", "00:00:00"],
    "uuid": ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
             "01234567-89AB-CDEF-0123-456789abcdef"],
    "json": JSONS + [' { "a" : 1 , "a" : 2 }\n', '"\\u0000"', '"\\/"'],
    "jsonb": [j for j in JSONS if j != "1e400"] + ['{"z": 1, "a": 2, "a": 3}', "1e400"],
    "jsonpath": ["$", '$."a b"[*] ? (@.x > 1 && @.y == "q\\"")'],
    "xml": ["<a b='c'>&amp; é</a>", "text"],
    "bit": ["0", "1"],
    "varbit": ["", "1011001"],
    "inet": ["10.0.0.1", "10.0.0.1/8", "::1", "2001:db8::/32"],
    "cidr": ["10.0.0.0/8", "2001:db8::/32"],
    "macaddr": ["00:00:00:00:00:00", "08:00:2b:01:02:03"],
    "macaddr8": ["00:00:00:00:00:00:00:00", "08:00:2b:01:02:03:04:05"],
    "point": ["(0,0)", "(1.5,-2e300)", "(NaN,Infinity)"],
    "line": ["{1,-1,0}"], "lseg": ["[(0,0),(1,1)]"], "box": ["(2,2),(1,1)"], "path": ["[(0,0),(1,1)]", "((0,0),(1,1))"],
    "polygon": ["((0,0),(1,1),(2,0))"], "circle": ["<(0,0),2>"],
    "tsvector": ["", "'a':1A,2 'b''c':3"], "tsquery": ["'a' & !'b'"],
    "tid": ["(0,1)", "(4294967295,65535)"], "xid": ["0", "4294967295"], "cid": ["0", "7"], "xid8": ["0", "18446744073709551615"],
    "pg_lsn": ["0/0", "FFFFFFFF/FFFFFFFF"], "pg_snapshot": ["1:3:1,2"], "txid_snapshot": ["1:3:1,2"],
    "regclass": ["pg_class", "0"], "regtype": ["integer", "\"char\""], "regproc": ["now"], "regprocedure": ["now()"],
    "regoper": ["pg_catalog.||/"], "regoperator": ["+(integer,integer)"], "regrole": ["postgres"],
    "regnamespace": ["pg_catalog"], "regconfig": ["simple"], "regdictionary": ["simple"],
    "regcollation": ['"C"'],
    "refcursor": ["c", "a \"b\""], "aclitem": ["postgres=arwd/postgres"], "int2vector": ["", "1 2 3"],
    "oidvector": ["", "1 2 3"],
    "int4range": ["empty", "[1,5)", "(,)", "[3,)"], "int8range": ["empty", "[-9223372036854775808,9223372036854775807)"],
    "numrange": ["empty", "[0.00,1.10]", "(,NaN)"], "tsrange": ["empty", '["2020-01-01 00:00:00",infinity)'],
    "tstzrange": ["empty", '["2020-01-01 00:00:00+00",infinity)'],
    "daterange": ["empty", "[2020-01-01,2021-01-01)"],
    "int4multirange": ["{}", "{[1,5),[7,9)}"], "int8multirange": ["{}", "{[1,5)}"], "nummultirange": ["{}", "{[0.1,1]}"],
    "tsmultirange": ["{}", '{["2020-01-01 00:00:00",infinity)}'],
    "tstzmultirange": ["{}", '{["2020-01-01 00:00:00+00",infinity)}'], "datemultirange": ["{}", "{[2020-01-01,2021-01-01)}"],
}
OWN = {
    't."Mood of day"': ["sad", "O'K \"x\"", "größe"],
    "t.positive": ["1", "9223372036854775807"],
    "t.small_positive": ["1", "99"],
    "t.words": ["{}", '{a,NULL,"b c"}'],
    "t.pair": ['(1,"a ""b"" \\\\ c")', "(,)"],
    "t.nested": ['("(1,x)","{1,2,NULL}",sad)'],
    "t.floats": ["empty", "[-Infinity,1.5)"],
    "t.floatss": ["{}", "{[1.5,2.5)}"],
    "t.citext": ["ABC", "abcd"],
}


def quote_text(value):
    return "'" + value.replace("'", "''") + "'"


def array_values(array, element, values):
    """Empty, with NULLs, of several dimensions, with bounds of its own."""
    made = ["'{}'"]
    # An array constructor takes an array, and what is one in disguise, for one dimension more.
    if not any(word in element for word in ("int2vector", "oidvector", "words")):
        a, b = (f"CAST({quote_text(v)} AS {element})" for v in (values[0], values[-1]))
        made += [f"ARRAY[{a}, NULL, {b}]", f"ARRAY[[{a}, NULL], [{b}, {a}]]", "'{{{NULL}}}'",
                 f"array_fill({b}, '{{2}}', '{{-5}}')"]
    return [f"CAST({v} AS {array})" for v in made]


@pytest.fixture(scope="module")
def types(home, demo_template):
    """The site, and {type: [SQL expressions]} of all that can be a column: built in, arrays of them, and our own."""
    database = copy_of(demo_template)
    database.sql("""
        CREATE SCHEMA t;
        CREATE TYPE t."Mood of day" AS ENUM ('sad', 'O''K "x"', 'größe');
        CREATE DOMAIN t.positive AS bigint CHECK (VALUE > 0);
        CREATE DOMAIN t.small_positive AS t.positive CHECK (VALUE < 100);
        CREATE DOMAIN t.words AS text[];
        CREATE TYPE t.pair AS (a int, "b ""c"" d" text);
        CREATE TYPE t.nested AS (p t.pair, n int[], m t."Mood of day");
        CREATE TYPE t.floats AS RANGE (subtype = float8, subtype_diff = float8mi);
    """)
    known = dict(OWN)
    if database.value("SELECT count(*) FROM pg_available_extensions WHERE name = 'citext'"):
        database.sql("CREATE EXTENSION citext SCHEMA t")
    else:
        del known["t.citext"]
    if database.value("SELECT to_regtype('t.floatmultirange') IS NULL"):
        del known["t.floatss"]
    else:
        known["t.floatmultirange"] = known.pop("t.floatss")
    for name, in database.sql("SELECT n FROM unnest(%s) n WHERE to_regtype(format('pg_catalog.%%I', n)) IS NOT NULL", list(VALUES)):
        known[f'pg_catalog."{name}"'] = VALUES[name]
    expressions = {name: [f"CAST({quote_text(v)} AS {name})" for v in values] for name, values in known.items()}
    arrays = database.sql("""
        SELECT e, format('%%I.%%I', n.nspname, a.typname)
          FROM unnest(%s) e JOIN pg_type t ON t.oid = to_regtype(e) JOIN pg_type a ON a.oid = t.typarray
          JOIN pg_namespace n ON n.oid = a.typnamespace""", list(known))
    for element, array in arrays:
        expressions[array] = array_values(array, element, known[element])
    # What can be in a table but not be written, and what PostgreSQL has that is not named above: NULL.
    for name, in database.sql("""
            SELECT format('pg_catalog.%I', typname) FROM pg_type
             WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm')
               AND typelem NOT IN (SELECT oid FROM pg_type WHERE typtype IN ('p', 'c'))"""):
        unquoted = name.replace('"', "").partition(".")[2]
        if f'pg_catalog."{unquoted}"' not in expressions and name not in expressions:
            expressions[name] = []
    with site(home, "types", database, cursor_max_bytes=6144) as made:
        yield made, expressions


@pytest.fixture(scope="module")
def everything(types):
    """A table with one column of each type; the names of its columns and their expressions."""
    made, expressions = types
    columns = []
    for i, (name, values) in enumerate(sorted(expressions.items())):
        columns.append((f"c{i:03d}", name, values))
    made.sql("CREATE TABLE t.everything (id int PRIMARY KEY, " + ", ".join(f"{c} {t}" for c, t, _ in columns) + ")")
    rows = max(len(values) for _, _, values in columns)
    for row in range(rows):
        # A row with some of each, shorter lists being over sooner; the last row is NULL all over.
        here = [(c, values[row]) for c, _, values in columns if row < len(values)]
        names, values = zip(*here)
        made.sql(f"INSERT INTO t.everything (id, {', '.join(names)}) VALUES ({row}, {', '.join(values)})")
    made.sql(f"INSERT INTO t.everything (id) VALUES ({rows})")
    return made.expose("t.everything", page_default=200), columns


def raw_members(text, at, names):
    """The values of the object at `at` as they stand in the text, and where it ends."""
    decoder = json.JSONDecoder(parse_int=str, parse_float=str)
    out = []
    for i, name in enumerate(names):
        head = ("," if i else "{") + json.dumps(name) + ":"
        assert text.startswith(head, at), text[at:at + 80]
        at += len(head)
        start = at
        while text[at] in " \n":
            at += 1
        _, at = decoder.raw_decode(text, at)
        while text[at] in " \n":
            at += 1
        out.append(text[start:at])
    assert text[at] == "}"
    return out, at + 1


def to_json_of(made, columns):
    """What to_json() says, row by row."""
    connection = made.database.connect()
    with connection.cursor() as cursor:
        cursor.execute("SET timezone = 'UTC'; SET datestyle = ISO; SET intervalstyle = postgres; SET extra_float_digits = 1")
        cursor.execute("SELECT " + ", ".join(f"to_json({c})::text" for c, _, _ in columns) + " FROM t.everything ORDER BY id")
        rows = cursor.fetchall()
    connection.close()
    return rows


def test_there_are_many_types(everything):
    _, columns = everything
    assert len(columns) > 150
    assert sum(bool(values) for _, _, values in columns) > 130


def test_each_value_is_what_to_json_says_byte_for_byte(types, everything):
    made, _ = types
    path, columns = everything
    expected = to_json_of(made, columns)
    answer = made.client.get(path)
    assert answer.status == 200, answer
    text = answer.body.decode()
    names = ["id"] + [c for c, _, _ in columns]
    at = len('{"data":[')
    for row, values in enumerate(expected):
        got, at = raw_members(text, at, names)
        assert got[0] == str(row)
        for (column, name, _), is_so, should_be in zip(columns, got[1:], values):
            assert is_so == ("null" if should_be is None else should_be), f"row {row}, {column} {name}"
        at += 1
    assert text[at:] == ',"next_cursor":null,"has_more":false}'
    items = [made.client.get(f"{path}/{row}").body.decode() for row in range(len(expected))]
    assert text.startswith('{"data":[' + ",".join(items) + "]")


def is_taken(text):
    """Of what the type json can hold, a body may not have everything: see DESIGN, rules for values."""
    def distinct(pairs):
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a member comes twice")
        return dict(pairs)
    try:
        json.loads(text, object_pairs_hook=distinct, parse_int=str, parse_float=str)
    except ValueError:
        return False
    return "\\u0000" not in text


def test_what_was_answered_can_be_sent_back(types, everything):
    """Each value as JSON, into another table: there it is what it was here. Only that a json null is a NULL then."""
    made, _ = types
    path, columns = everything
    sendable = [(c, t) for c, t, values in columns if values]
    made.sql("CREATE TABLE t.copies (LIKE t.everything INCLUDING ALL)")
    copies = made.expose("t.copies")
    text = made.client.get(path).body.decode()
    at = len('{"data":[')
    names = ["id"] + [c for c, _, _ in columns]
    n = made.value("SELECT count(*) FROM t.everything")
    kept_back = []
    for row in range(n):
        values, at = raw_members(text, at, names)
        at += 1
        sent = {c: v for c, v in zip(names, values) if is_taken(v) and (c == "id" or c in dict(sendable))}
        kept_back += [(row, c) for c in dict(sendable) if c not in sent]
        body = "{" + ",".join(f"{json.dumps(c)}:{v}" for c, v in sent.items()) + "}"
        made_row = made.client.post(copies, body, headers={"Content-Type": "application/json"})
        assert made_row.status == 201, (row, made_row)
    assert len(kept_back) == 2  # of the type json
    for column, name in sendable:
        different = made.sql(f"""
            SELECT e.id, to_json(e.{column})::text, to_json(c.{column})::text
              FROM t.everything e LEFT JOIN t.copies c USING (id)
             WHERE nullif(to_json(e.{column})::text, 'null') IS DISTINCT FROM to_json(c.{column})::text""")
        for row, was, became in different:
            # A string in a json loses needless escapes.
            assert (row, column) in kept_back or json.loads(was) == json.loads(became or ""), f"{column} {name}"


@pytest.fixture(scope="module")
def keyed(types):
    """A table for each type that sorts, with the type as its key: (name of the type, path, table)."""
    made, expressions = types
    names = [name for name, values in expressions.items() if values]
    sortable = [name for name, in made.sql(
        "SELECT e FROM unnest(%s) e WHERE composure.is_sortable(to_regtype(e))", names)]
    assert len(sortable) > 80
    made.sql("CREATE SCHEMA k; GRANT USAGE ON SCHEMA k TO api_user")
    setup = []
    for i, name in enumerate(sortable):
        values = ", ".join(f"({v})" for v in expressions[name])
        setup.append(f"CREATE TABLE k.k{i} (k {name} PRIMARY KEY, n int); GRANT ALL ON k.k{i} TO api_user;"
                     f"INSERT INTO k.k{i} SELECT DISTINCT ON (v) v, 1 FROM (VALUES {values}) x (v) "
                     f"WHERE length(v::text) < 2000; SELECT composure.expose('k.k{i}')")
    made.sql(";".join(setup))
    made.settle()
    return [(name, f"/api/k{i}", f"k.k{i}") for i, name in enumerate(sortable)]


def test_whatever_sorts_can_be_a_key(types, keyed):
    """A page of one row at a time: each row once, in PostgreSQL's own order, and each found by its path."""
    made, _ = types
    made.sql("SET timezone = 'UTC'")
    for name, path, table in keyed:
        rows = made.sql(f"SELECT k::text, to_json(k)::text FROM {table} t ORDER BY t.k")
        walked = [row["k"] for row in made.client.walk(f"{path}?limit=1")]
        assert walked == [json.loads(text, parse_float=str) for _, text in rows], name
        for text, _ in rows:
            if text in ("", ".", "..") or any(c < " " or c == "\x7f" for c in text):
                continue  # no segment of a path
            answer = made.client.get(f"{path}/" + quote(text, safe=""))
            assert answer.status == 200, (name, text, answer)


GARBAGE = ["x", "-1", "1.5", "99999999999999999999999", "1e999999", "{", "[5,1)", "(1,2", "\\x0", "2020-13-45", "25:61", "1 fortnight",
           "2020-01-01 00:00+99", "a.b.c", '"', "'", "$$", "1/0", "10.0.0.1/99", "zz:zz", "!&|", "é\U0001F418", "{{1},{2,3}}", "00000000-0000",
           "P1Y2Z", "0x", "null", "true"]


def test_garbage_is_no_value_of_any_type(types, keyed):
    """PostgreSQL's input functions have many ways to say no; for a client they are one."""
    made, _ = types
    for name, path, _ in keyed:
        if "._" in name:
            continue  # an array reads its elements as their own type does
        for text in GARBAGE:
            item = made.client.get(f"{path}/" + quote(text, safe=""))
            assert item.status in (200, 404), (name, text, item)
            cursor = base64.urlsafe_b64encode(json.dumps({"k": text}).encode()).decode().rstrip("=")
            page = made.client.get(f"{path}?cursor={cursor}")
            assert page.status == 200 or page.json["code"] == "invalid_cursor", (name, text, page)


def test_a_location_leads_to_the_row(types):
    made, expressions = types
    made.sql('CREATE TABLE t.located ("a,b" t.citext, tags text[], doc jsonb, raw bytea, at timestamptz, addr inet,'
             ' r int4range, PRIMARY KEY ("a,b", tags, doc, raw, at, addr, r))')
    path = made.expose("t.located")
    body = {"a,b": "x/y,\"z\" %41", "tags": ["a,b", None, "\"", "\\"], "doc": {"k": [1, None, "ü"]}, "raw": "\\x00ff",
            "at": "0044-03-15T00:00:00.5+00:00 BC", "addr": "10.0.0.1", "r": "[1,5)"}
    answer = made.client.post(path, body)
    assert answer.status == 201, answer
    assert answer.json == body
    location = answer.headers["Location"]
    assert location.startswith(path + "/x%2Fy%2C%22z%22%20%2541,")
    again = made.client.get(location)
    assert again.status == 200 and again.json == body
