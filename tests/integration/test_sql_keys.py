"""Plans and API keys: the key's format, recomputed; identities and secrets; what is refused; key_lookup()."""

import hashlib
import hmac
import re
import zlib

import pytest
from sqlcluster import Session

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

LOOKUP = ("id", "name", "role", "tenant", "plan", "rate", "burst", "per_seconds", "secret_hashes", "expires_at",
          "secret_expires_at")


def base62(number, width):
    digits = ""
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits = ALPHABET[digit] + digits
    return digits


ROLES = "CREATE ROLE sql_user NOLOGIN; CREATE ROLE sql_other NOLOGIN"


@pytest.fixture(scope="module")
def shared(migrated_template):
    return migrated_template.cluster.create_database("sql_keys", migrated_template.name)


@pytest.fixture
def session(shared):
    session = Session(shared, keep=False)
    session.run(ROLES)
    yield session
    session.close()


@pytest.fixture
def committed(bare_database):
    """For tests with more than one session."""
    session = Session(bare_database)
    session.run(ROLES)
    yield session
    session.run("DO $$ DECLARE r name; BEGIN FOR r IN SELECT rolname FROM pg_roles "
                "WHERE rolname IN ('sql_user', 'sql_other', 'sql_maker') LOOP "
                "EXECUTE format('DROP OWNED BY %I; DROP ROLE %I', r, r); END LOOP; END $$")
    session.close()


def create(session, arguments="'app', role => 'sql_user'"):
    return session.one(f"SELECT composure.create_key({arguments})")


def id_of(key):
    return key.split("_")[1]


def lookup(session, key_id):
    rows = session.run(f"SELECT {', '.join(LOOKUP)} FROM composure.key_lookup(%s)", key_id)
    assert len(rows) <= 1
    if not rows:
        return None
    found = dict(zip(LOOKUP, rows[0]))
    found["secret_hashes"] = [bytes(h) for h in found["secret_hashes"]]
    return found


def hash_of(key):
    return hashlib.sha256(key.split("_")[2][:27].encode()).digest()


# The format

def test_a_key_has_the_documented_format(session):
    secret = bytes.fromhex(session.catalog()["installation"]["secret"])
    assert len(secret) == 32
    for _ in range(50):
        key = create(session)
        assert re.fullmatch(r"cmps_[0-9A-Za-z]{14}_[0-9A-Za-z]{33}", key)
        head, rest = key[5:13], key[13:19]
        mac = hmac.new(secret, head.encode(), hashlib.sha256).digest()
        assert rest == base62(int.from_bytes(mac[:5], "big") % 62**6, 6)
        assert key[-6:] == base62(zlib.crc32(key[:-6].encode()), 6)
        assert lookup(session, id_of(key))["secret_hashes"] == [hash_of(key)]


def test_keys_differ_and_use_the_whole_range(session):
    keys = [create(session) for _ in range(100)]
    assert len({id_of(k) for k in keys}) == 100
    assert len({k[20:47] for k in keys}) == 100
    assert len({c for k in keys for c in k[24:47]}) == 62
    # 160 bits are at most this in base 62.
    assert all(k[20:47] <= base62(2**160 - 1, 27) for k in keys)


def test_hmac_crc_and_base62_agree_with_other_implementations(session):
    for key, message in [(b"", b""), (b"k", b"m"), (bytes(range(64)), b"x" * 200), (b"long" * 40, bytes(range(256)))]:
        ours = session.one("SELECT composure.hmac_sha256(%s, %s)", key, message)
        assert bytes(ours) == hmac.new(key, message, hashlib.sha256).digest()
    for data in [b"", b"123456789", bytes(range(256))]:
        assert session.one("SELECT composure.crc32_ieee(%s)", data) == zlib.crc32(data)
    for number in [0, 61, 62, 62**6 - 1, 62**6, 2**40 - 1, 2**160 - 1]:
        assert session.one("SELECT composure.base62(%s, 27)", number) == base62(number, 27)
    assert session.one("SELECT composure.big_endian(%s)", b"\x01\x00\xff") == 0x0100FF


def test_the_secret_is_stored_nowhere(session):
    key = create(session)
    secret = key[20:47]
    for table in session.column("SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'v') "
                                "AND relnamespace = 'composure'::regnamespace"):
        assert secret not in str(session.run(f"SELECT t::text FROM {table} t"))


# Plans

def test_a_plan_is_made_and_replaced(session):
    assert session.one("SELECT composure.create_plan('p', rate => 100, burst => 200)") == (
        "plan p: 100 per second, at most 200 at once")
    assert session.one("SELECT composure.create_plan('p', rate => 5, per => '1 minute')") == (
        "plan p: 5 per minute, at most 5 at once")
    assert session.run("SELECT plan, name, rate, burst, per::text FROM composure.plan_window") == [
        ("p", "default", 5, 5, "00:01:00")]
    assert session.one("SELECT composure.create_plan('q', rate => 0.5)") == "plan q: 0.5 per second, at most 1 at once"


@pytest.mark.parametrize("arguments, message", [
    ("'', 1", "name: a plan needs one"),
    ("NULL, 1", "name: a plan needs one"),
    ("'p', 0", "rate must be above 0 and at most 1000000000, not 0"),
    ("'p', -1", "rate must be above 0 and at most 1000000000, not -1"),
    ("'p', NULL", "rate must be above 0 and at most 1000000000, not NULL"),
    ("'p', 'NaN'", "rate must be above 0 and at most 1000000000, not NaN"),
    ("'p', 1e12", "rate must be above 0 and at most 1000000000, not 1000000000000"),
    ("'p', 1, 0", "burst must be at least 1, not 0"),
    ("'p', 1, per => '0'", "per must be between 1 ms and 31 days, not 00:00:00"),
    ("'p', 1, per => '-1 s'", "per must be between 1 ms and 31 days, not -00:00:01"),
    ("'p', 1, per => '1 year'", "per must be between 1 ms and 31 days, not 1 year"),
    ("'p', 1, per => NULL", "per must be between 1 ms and 31 days, not NULL"),
])
def test_a_wrong_plan_is_refused_in_plain_words(session, arguments, message):
    assert session.refused(f"SELECT composure.create_plan({arguments})")[0] == message
    assert session.one("SELECT count(*) FROM composure.plan") == 0


# Keys

def test_a_key_carries_its_role_plan_tenant_and_end(session):
    session.run("SELECT composure.create_plan('standard', rate => 2.5, burst => 7, per => '1 minute')")
    key = create(session, "'mobile app', role => 'sql_user', tenant => 'acme', expires_at => '2100-01-01 00:00:00.000001+00'")
    assert lookup(session, id_of(key)) == {
        "id": id_of(key), "name": "mobile app", "role": "sql_user", "tenant": "acme", "plan": "standard", "rate": 2.5,
        "burst": 7, "per_seconds": 60.0, "secret_hashes": [hash_of(key)], "expires_at": 4102444800000001,
        "secret_expires_at": [0]}


def test_a_key_without_a_plan_has_no_limit_and_says_so(session):
    key = create(session)
    assert 'there is no plan "standard": this key has no rate limit' in session.said
    found = lookup(session, id_of(key))
    assert [found[n] for n in ("plan", "rate", "burst", "per_seconds", "tenant", "expires_at")] == [None] * 6
    create(session, "'app', role => 'sql_user', plan => NULL")
    assert session.said == ""


def test_a_key_that_never_ends_has_no_expiry(session):
    assert lookup(session, id_of(create(session, "'a', 'sql_user', expires_at => 'infinity'")))["expires_at"] is None


def test_creating_a_key_grants_its_role_to_the_workers(committed, bare_database):
    worker = Session(bare_database, "composure_worker")
    assert "permission denied" in worker.refused("SET ROLE sql_user")[0]
    create(committed)
    worker.run("SET ROLE sql_user")
    worker.close()


KEY_REFUSED = [
    ("''", "name: a key needs one, so that people know whose it is", "create_key('mobile app'"),
    ("'  ', 'sql_user'", "name: a key needs one, so that people know whose it is", "create_key('mobile app'"),
    ("'k'", "role: say which role the requests of this key run as", "CREATE ROLE"),
    ("'k', 'sql_nobody_here'", 'role "sql_nobody_here" does not exist', "CREATE ROLE sql_nobody_here NOLOGIN;"),
    ("'k', 'postgres'", 'role "postgres" is a superuser: its keys could do anything', "CREATE ROLE api_user"),
    ("'k', 'sql_bypass'", 'role "sql_bypass" has BYPASSRLS: row-level security would not apply to its keys', "NOBYPASSRLS"),
    ("'k', 'composure_worker'", 'role "composure_worker" is the one that workers log in as', "CREATE ROLE api_user"),
    ("'k', 'pg_monitor'", 'role "pg_monitor" belongs to PostgreSQL', "CREATE ROLE api_user"),
    ("'k', 'sql_climber'", 'role "sql_climber" is a member of "sql_boss", which is as good as a superuser',
     "REVOKE sql_boss FROM sql_climber;"),
    ("'k', 'sql_user', plan => 'gold'", 'plan "gold" does not exist', "create_plan('gold'"),
    ("'k', 'sql_user', expires_at => '2020-01-01 00:00+00'", "expires_at lies in the past: ", "Leave it out"),
    ("'k', 'sql_user', expires_at => '-infinity'", "expires_at lies in the past: -infinity", "Leave it out"),
]


@pytest.mark.parametrize("arguments, message, hint", KEY_REFUSED, ids=[r[0] for r in KEY_REFUSED])
def test_a_key_that_must_not_be_is_refused_in_plain_words(session, arguments, message, hint):
    session.run("CREATE ROLE sql_bypass BYPASSRLS; CREATE ROLE sql_boss SUPERUSER; "
                "CREATE ROLE sql_climber; GRANT sql_boss TO sql_climber")
    said, hinted = session.refused(f"SELECT composure.create_key({arguments})")
    assert said == message or message.endswith(": ") and said.startswith(message)
    assert hint in hinted
    assert session.one("SELECT count(*) FROM composure.api_key") == 0


def test_an_unknown_plan_is_told_which_there_are(session):
    session.run("SELECT composure.create_plan('a', 1), composure.create_plan('b', 1)")
    assert session.refused("SELECT composure.create_key('k', 'sql_user', plan => 'c')")[1] == "There are: a, b."


def test_a_role_that_may_not_be_granted_is_an_error_with_the_grant_to_run(committed, bare_database):
    committed.run("CREATE ROLE sql_maker LOGIN; GRANT USAGE ON SCHEMA composure TO sql_maker; "
                "GRANT ALL ON ALL TABLES IN SCHEMA composure TO sql_maker; "
                "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA composure TO sql_maker")
    maker = Session(bare_database, "sql_maker")
    message, hint = maker.refused("SELECT composure.create_key('k', role => 'sql_other')")
    assert message == 'role "sql_other" may not be granted to "composure_worker" by you'
    assert "GRANT sql_other TO composure_worker;" in hint
    maker.close()


def test_an_owner_of_a_table_with_policies_is_a_warning_unless_forced(session):
    session.run("CREATE TABLE public.owned (id int PRIMARY KEY); ALTER TABLE public.owned OWNER TO sql_user; "
                "ALTER TABLE public.owned ENABLE ROW LEVEL SECURITY")
    create(session)
    assert 'role "sql_user" owns public.owned: its row-level security does not apply to these keys' in session.said
    assert "ALTER TABLE public.owned FORCE ROW LEVEL SECURITY;" in session.said
    session.run("ALTER TABLE public.owned FORCE ROW LEVEL SECURITY")
    create(session)
    assert "public.owned" not in session.said


def test_a_role_that_may_create_roles_is_a_warning(session):
    session.run("ALTER ROLE sql_user CREATEROLE")
    create(session)
    assert 'role "sql_user" may create roles, and so give itself nearly any right' in session.said


def test_a_key_with_a_new_role_changes_the_catalog_and_a_second_does_not(session):
    session.run("CREATE TABLE public.t (id int PRIMARY KEY); GRANT SELECT, DELETE ON public.t TO sql_user; "
                "GRANT UPDATE (id) ON public.t TO sql_user; GRANT INSERT ON public.t TO composure_anonymous")
    session.run("SELECT composure.expose('public.t')")
    before = session.catalog()["version"]
    create(session)
    assert session.catalog()["version"] == before + 1
    create(session)
    assert session.catalog()["version"] == before + 1
    t = session.resource("t")
    assert t["select_roles"] == t["update_roles"] == t["delete_roles"] == ["sql_user"]
    assert t["insert_roles"] == ["composure_anonymous"]


# Rotation, revocation, look-up

def test_rotating_adds_a_secret_and_ends_the_old_one_after_the_overlap(session):
    old = create(session)
    new = session.one("SELECT composure.rotate_key(%s, overlap => '1 hour')", id_of(old))
    assert id_of(new) == id_of(old) and new[20:] != old[20:]
    assert new[-6:] == base62(zlib.crc32(new[:-6].encode()), 6)
    found = lookup(session, id_of(old))
    assert found["secret_hashes"] == [hash_of(new), hash_of(old)]
    now = session.one("SELECT extract(epoch FROM now())")
    assert found["secret_expires_at"][0] == 0
    assert abs(found["secret_expires_at"][1] / 1e6 - float(now) - 3600) < 60
    assert session.one("SELECT secrets FROM composure.keys") == 2


def test_rotating_with_no_overlap_ends_the_old_secret_at_once(session):
    old = create(session)
    new = session.one("SELECT composure.rotate_key(%s, overlap => '0')", id_of(old))
    assert lookup(session, id_of(old))["secret_hashes"] == [hash_of(new)]


def test_a_later_rotation_does_not_give_an_old_secret_more_time(session):
    old = create(session)
    session.run("SELECT composure.rotate_key(%s, overlap => '1 minute')", id_of(old))
    session.run("SELECT composure.rotate_key(%s, overlap => '1 day')", id_of(old))
    expiries = lookup(session, id_of(old))["secret_expires_at"]
    assert expiries[0] == 0 and expiries[2] < expiries[1]


def test_a_key_has_at_most_eight_secrets(session):
    key = create(session)
    for _ in range(7):
        session.run("SELECT composure.rotate_key(%s)", id_of(key))
    message, hint = session.refused("SELECT composure.rotate_key(%s)", id_of(key))
    assert message == f'key "app" ({id_of(key)}) has 8 secrets that still work'
    session.run("SELECT composure.rotate_key(%s, overlap => '0')", id_of(key))
    assert len(lookup(session, id_of(key))["secret_hashes"]) == 1


def test_a_revoked_key_is_not_found_and_cannot_be_rotated(session):
    key = create(session)
    assert session.one("SELECT composure.revoke_key(%s)", id_of(key)) == f'key "app" ({id_of(key)}) is revoked'
    assert lookup(session, id_of(key)) is None
    assert session.run("SELECT state, secrets FROM composure.keys") == [("revoked", 0)]
    assert session.refused("SELECT composure.rotate_key(%s)", id_of(key))[0] == f'key "app" ({id_of(key)}) is revoked'
    session.run("SELECT composure.revoke_key(%s)", id_of(key))


def test_an_expired_key_is_not_found_and_cannot_be_rotated(session):
    key = create(session)
    session.run("UPDATE composure.api_key SET expires_at = now()")
    assert lookup(session, id_of(key)) is None
    assert session.one("SELECT state FROM composure.keys") == "expired"
    assert session.refused("SELECT composure.rotate_key(%s)", id_of(key))[0] == f'key "app" ({id_of(key)}) is expired'


@pytest.mark.parametrize("overlap", ["-1 s", "2 years"])
def test_a_senseless_overlap_is_refused(session, overlap):
    message, hint = session.refused("SELECT composure.rotate_key(%s, %s)", id_of(create(session)), overlap)
    assert message.startswith("overlap must be between 0 and 366 days, not ")


@pytest.mark.parametrize("function", ["rotate_key", "revoke_key"])
def test_an_unknown_id_is_told_where_to_find_them(session, function):
    message, hint = session.refused(f"SELECT composure.{function}('nope')")
    assert message == 'there is no key with the id "nope"'
    assert "SELECT id, name FROM composure.keys;" in hint


def test_a_whole_key_in_place_of_its_id_is_refused_without_repeating_it(session):
    key = create(session)
    message, hint = session.refused("SELECT composure.revoke_key(%s)", key)
    assert message == "this is a whole key: only its id is wanted"
    assert key[20:47] not in message + hint


def test_a_key_whose_role_is_gone_or_became_a_superuser_is_not_found(session):
    key = create(session, "'a', 'sql_user'")
    other = create(session, "'b', 'sql_other'")
    session.run("DROP ROLE sql_user; ALTER ROLE sql_other SUPERUSER")
    assert lookup(session, id_of(key)) is None
    assert lookup(session, id_of(other)) is None
    assert session.column("SELECT state FROM composure.keys ORDER BY name") == [
        "refused: its role is gone", "refused: its role is a superuser or has BYPASSRLS"]


def test_the_worker_looks_keys_up_and_nobody_else_may(committed, bare_database):
    key = create(committed)
    worker = Session(bare_database, "composure_worker")
    assert lookup(worker, id_of(key))["secret_hashes"] == [hash_of(key)]
    assert lookup(worker, "nope") is None
    assert "permission denied" in worker.refused("SELECT * FROM composure.api_secret")[0]
    assert "permission denied" in worker.refused("SELECT * FROM composure.keys")[0]
    assert "permission denied" in worker.refused("SELECT composure.create_key('k', 'sql_user')")[0]
    worker.run("SET ROLE sql_user")
    for call in ("key_lookup('x')", "catalog()"):
        assert worker.refused(f"SELECT * FROM composure.{call}")[0] == "permission denied for schema composure"
    committed.run("GRANT USAGE ON SCHEMA composure TO sql_user")
    assert worker.refused("SELECT * FROM composure.key_lookup('x')")[0] == "permission denied for function key_lookup"
    worker.close()


def test_a_callers_operators_do_not_run_with_the_owners_rights(committed, bare_database):
    committed.run("CREATE SCHEMA evil AUTHORIZATION composure_worker")
    worker = Session(bare_database, "composure_worker")
    worker.run("CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE plpgsql AS "
               "$$ BEGIN RAISE EXCEPTION 'ran as %', current_user; END $$; "
               "CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq); "
               "SET search_path = evil, pg_catalog")
    assert lookup(worker, "nope") is None
    worker.catalog()
    worker.close()
    committed.run("DROP SCHEMA evil CASCADE")
