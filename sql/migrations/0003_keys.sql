-- Plans and API keys: cmps_<id>_<secret><crc32>, in base62 (0-9A-Za-z).
--
--   id      14 characters: 8 random, then 6 of HMAC-SHA256(installation.secret, those 8): its first 5 bytes as a
--           big-endian integer, modulo 62^6. A worker refuses forged ids without a look-up.
--   secret  27 characters: 160 random bits. Stored is the SHA-256 of these characters.
--   crc32   6 characters: CRC-32 (IEEE) of everything before it, for secret scanners and typing errors.
--
-- All three numbers have the most significant digit first and are padded with 0 on the left.

CALL pg_temp.composure_apply('0003_keys', $migration$

CREATE FUNCTION composure.base62(number numeric, width int) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  alphabet constant text := '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
  rest numeric := number;
  digits text := '';
BEGIN
  FOR digit IN 1..width LOOP
    digits := substr(alphabet, mod(rest, 62)::int + 1, 1) || digits;
    rest := div(rest, 62);
  END LOOP;
  RETURN digits;
END
$f$;
COMMENT ON FUNCTION composure.base62(numeric, int) IS 'Internal: the last width digits of a number in base 62';

CREATE FUNCTION composure.big_endian(bytes bytea) RETURNS numeric
LANGUAGE plpgsql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  number numeric := 0;
BEGIN
  FOR i IN 0..length(bytes) - 1 LOOP
    number := number * 256 + get_byte(bytes, i);
  END LOOP;
  RETURN number;
END
$f$;
COMMENT ON FUNCTION composure.big_endian(bytea) IS 'Internal: bytes as a number, the first byte the most significant';

CREATE FUNCTION composure.random_bytes(count int) RETURNS bytea
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $f$
  -- 244 bits of the server's strong random source; pgcrypto may not be there. At most 32 bytes.
  SELECT substr(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 1, count)
$f$;
COMMENT ON FUNCTION composure.random_bytes(int) IS 'Internal: up to 32 random bytes';

CREATE FUNCTION composure.hmac_sha256(key bytea, message bytea) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  inner_pad bytea := decode(repeat('36', 64), 'hex');
  outer_pad bytea := decode(repeat('5c', 64), 'hex');
  k bytea := CASE WHEN length(key) > 64 THEN sha256(key) ELSE key END;
BEGIN
  FOR i IN 0..length(k) - 1 LOOP
    inner_pad := set_byte(inner_pad, i, get_byte(k, i) # 54);
    outer_pad := set_byte(outer_pad, i, get_byte(k, i) # 92);
  END LOOP;
  RETURN sha256(outer_pad || sha256(inner_pad || message));
END
$f$;
COMMENT ON FUNCTION composure.hmac_sha256(bytea, bytea) IS 'Internal: HMAC-SHA256 (RFC 2104)';

CREATE FUNCTION composure.crc32_ieee(bytes bytea) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  crc bigint := 4294967295;
BEGIN
  FOR i IN 0..length(bytes) - 1 LOOP
    crc := crc # get_byte(bytes, i);
    FOR bit IN 1..8 LOOP
      crc := CASE WHEN crc & 1 = 1 THEN (crc >> 1) # 3988292384 ELSE crc >> 1 END;
    END LOOP;
  END LOOP;
  RETURN crc # 4294967295;
END
$f$;
COMMENT ON FUNCTION composure.crc32_ieee(bytea) IS 'Internal: CRC-32 as in zip and Ethernet';

CREATE FUNCTION composure.create_plan(name text, rate numeric, burst int DEFAULT NULL, per interval DEFAULT '1 second')
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
#variable_conflict use_column
BEGIN
  IF coalesce(create_plan.name, '') = '' THEN
    PERFORM composure.refuse('name: a plan needs one', 'For example: composure.create_plan(''standard'', rate => 100, burst => 200)');
  ELSIF create_plan.rate IS NULL OR create_plan.rate = 'NaN' OR create_plan.rate <= 0 OR create_plan.rate > 1000000000 THEN
    PERFORM composure.refuse(format('rate must be above 0 and at most 1000000000, not %s', coalesce(create_plan.rate::text, 'NULL')),
                             'It is the number of requests per interval; a key without a plan has no limit.');
  ELSIF create_plan.per IS NULL OR create_plan.per < interval '1 millisecond' OR create_plan.per > interval '31 days' THEN
    PERFORM composure.refuse(format('per must be between 1 ms and 31 days, not %s', coalesce(create_plan.per::text, 'NULL')),
                             'For example: per => ''1 minute''.');
  ELSIF create_plan.burst < 1 THEN
    PERFORM composure.refuse(format('burst must be at least 1, not %s', create_plan.burst),
                             'It is the number of requests that may come at once.');
  END IF;
  INSERT INTO composure.plan AS p (name, rate, burst, per)
  VALUES (create_plan.name, create_plan.rate, coalesce(create_plan.burst, ceil(create_plan.rate)::int), create_plan.per)
  ON CONFLICT (name) DO UPDATE SET rate = excluded.rate, burst = excluded.burst, per = excluded.per;
  RETURN (SELECT format('plan %s: %s per %s, at most %s at once', p.name, p.rate,
                        CASE p.per WHEN interval '1 second' THEN 'second' WHEN interval '1 minute' THEN 'minute'
                                   WHEN interval '1 hour' THEN 'hour' WHEN interval '1 day' THEN 'day'
                                   ELSE p.per::text END, p.burst)
            FROM composure.plan p WHERE p.name = create_plan.name);
END
$f$;
COMMENT ON FUNCTION composure.create_plan(text, numeric, int, interval) IS
  $c$A rate limit for keys; called again, it replaces: SELECT composure.create_plan('standard', rate => 100, burst => 200)
burst defaults to the rate, per to one second.$c$;

CREATE FUNCTION composure.check_key_role(role name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  inst composure.installation;
  r pg_roles;
  item text;
BEGIN
  SELECT * INTO inst FROM composure.installation;
  SELECT * INTO r FROM pg_roles WHERE rolname = role;
  IF NOT FOUND THEN
    PERFORM composure.refuse(format('role "%s" does not exist', role), format('CREATE ROLE %I NOLOGIN;', role));
  ELSIF r.rolsuper THEN
    PERFORM composure.refuse(format('role "%s" is a superuser: its keys could do anything', role),
                             'Make a role for the API: CREATE ROLE api_user NOLOGIN;');
  ELSIF r.rolbypassrls THEN
    PERFORM composure.refuse(format('role "%s" has BYPASSRLS: row-level security would not apply to its keys', role),
                             format('ALTER ROLE %I NOBYPASSRLS; or make another role for the API.', role));
  ELSIF role = inst.worker_role THEN
    PERFORM composure.refuse(format('role "%s" is the one that workers log in as', role),
                             'Make a role for the API: CREATE ROLE api_user NOLOGIN;');
  ELSIF role LIKE 'pg\_%' THEN
    PERFORM composure.refuse(format('role "%s" belongs to PostgreSQL', role),
                             'Make a role for the API: CREATE ROLE api_user NOLOGIN;');
  END IF;
  -- SET ROLE follows memberships: what the role is a member of, code behind the API could become.
  SELECT s.rolname INTO item
    FROM pg_roles s
   WHERE (s.rolsuper OR s.rolbypassrls
          OR s.rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files'))
     AND pg_has_role(role, s.oid, 'MEMBER')
   ORDER BY s.rolname LIMIT 1;
  IF FOUND THEN
    PERFORM composure.refuse(format('role "%s" is a member of "%s", which is as good as a superuser', role, item),
                             format('REVOKE %I FROM %I; or make another role for the API.', item, role));
  END IF;

  IF NOT composure.may_become(inst.worker_role, role) THEN
    BEGIN
      EXECUTE format('GRANT %I TO %I', role, inst.worker_role);
    EXCEPTION WHEN insufficient_privilege OR invalid_grant_operation THEN
      PERFORM composure.refuse(format('role "%s" may not be granted to "%s" by you', role, inst.worker_role),
                               format('Let an administrator run: GRANT %I TO %I;', role, inst.worker_role));
    END;
  END IF;

  IF r.rolcreaterole THEN
    RAISE WARNING 'role "%" may create roles, and so give itself nearly any right', role
      USING HINT = format('ALTER ROLE %I NOCREATEROLE;', role);
  END IF;
  FOR item IN
    SELECT format('%I.%I', n.nspname, c.relname)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relrowsecurity AND NOT c.relforcerowsecurity AND c.relpersistence <> 't'
       AND pg_has_role(role, c.relowner, 'USAGE')
     ORDER BY 1
  LOOP
    RAISE WARNING 'role "%" owns %: its row-level security does not apply to these keys', role, item
      USING HINT = format('ALTER TABLE %s FORCE ROW LEVEL SECURITY;', item);
  END LOOP;
END
$f$;
COMMENT ON FUNCTION composure.check_key_role(name) IS 'Internal: refuses roles that keys must not run as, and grants the rest to the workers';

CREATE FUNCTION composure.add_secret(key_id text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  secret text := composure.base62(composure.big_endian(composure.random_bytes(20)), 27);
  head text := format('cmps_%s_%s', key_id, secret);
BEGIN
  INSERT INTO composure.api_secret (key_id, hash) VALUES (add_secret.key_id, sha256(convert_to(secret, 'UTF8')));
  RETURN head || composure.base62(composure.crc32_ieee(convert_to(head, 'UTF8')), 6);
END
$f$;
COMMENT ON FUNCTION composure.add_secret(text) IS 'Internal: gives an identity one more secret and returns the whole key';

CREATE FUNCTION composure.create_key(name text, role text DEFAULT NULL, plan text DEFAULT 'standard',
                                     tenant text DEFAULT NULL, expires_at timestamptz DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
#variable_conflict use_column
DECLARE
  inst composure.installation;
  key_role name := create_key.role;
  key_plan text := create_key.plan;
  head text;
  key_id text;
BEGIN
  SELECT * INTO inst FROM composure.installation FOR UPDATE;
  IF coalesce(btrim(create_key.name), '') = '' THEN
    PERFORM composure.refuse('name: a key needs one, so that people know whose it is',
                             'For example: composure.create_key(''mobile app'', role => ''api_user'')');
  END IF;

  IF inst.anonymous_role IS NULL AND (key_role IS NULL OR key_role = inst.worker_role) THEN
    key_role := NULL;
  ELSIF key_role IS NULL THEN
    PERFORM composure.refuse('role: say which role the requests of this key run as',
                             'For example: CREATE ROLE api_user NOLOGIN; and role => ''api_user''');
  ELSE
    PERFORM composure.check_key_role(key_role);
  END IF;

  IF key_plan IS NOT NULL AND NOT EXISTS (SELECT FROM composure.plan p WHERE p.name = key_plan) THEN
    IF key_plan <> 'standard' THEN
      PERFORM composure.refuse(
        format('plan "%s" does not exist', key_plan),
        coalesce((SELECT 'There are: ' || string_agg(p.name, ', ' ORDER BY p.name) || '.' FROM composure.plan p),
                 format('SELECT composure.create_plan(%L, rate => 100, burst => 200);', key_plan)));
    END IF;
    RAISE NOTICE 'there is no plan "standard": this key has no rate limit'
      USING HINT = 'SELECT composure.create_plan(''standard'', rate => 100, burst => 200); before the next key.';
    key_plan := NULL;
  END IF;
  IF create_key.expires_at <= now() THEN
    PERFORM composure.refuse(format('expires_at lies in the past: %s', create_key.expires_at), 'Leave it out for a key without an end.');
  END IF;

  -- catalog() tells who may read what, for the roles that keys have: a new one changes it.
  IF coalesce(key_role, inst.worker_role) NOT IN (SELECT composure.running_roles()) THEN
    UPDATE composure.installation SET catalog_version = catalog_version + 1;
  END IF;

  LOOP
    head := composure.base62(composure.big_endian(composure.random_bytes(16)), 8);
    key_id := head || composure.base62(composure.big_endian(substr(
                composure.hmac_sha256(inst.secret, convert_to(head, 'UTF8')), 1, 5)), 6);
    INSERT INTO composure.api_key (id, name, role, plan, tenant, expires_at)
    VALUES (key_id, btrim(create_key.name), key_role, key_plan, create_key.tenant, nullif(create_key.expires_at, 'infinity'))
    ON CONFLICT DO NOTHING;
    EXIT WHEN FOUND;
  END LOOP;
  RETURN composure.add_secret(key_id);
END
$f$;
COMMENT ON FUNCTION composure.create_key(text, text, text, text, timestamptz) IS
  $c$Makes an API key and returns it, this once: SELECT composure.create_key('mobile app', role => 'api_user')
role        its requests run as this role; it is granted to the workers
plan        its rate limit; NULL: none
tenant      what current_setting('composure.tenant', true) says in its requests, for policies
expires_at  its end; default: none$c$;

CREATE FUNCTION composure.find_identity(key_id text) RETURNS composure.api_key
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  k composure.api_key;
BEGIN
  SELECT * INTO k FROM composure.api_key WHERE id = key_id FOR UPDATE;
  IF NOT FOUND THEN
    PERFORM composure.refuse(
      CASE WHEN key_id LIKE 'cmps\_%' THEN 'this is a whole key: only its id is wanted'
           ELSE format('there is no key with the id "%s"', key_id) END,
      'The id is the 14 characters between the first two "_" of a key: SELECT id, name FROM composure.keys;');
  END IF;
  RETURN k;
END
$f$;
COMMENT ON FUNCTION composure.find_identity(text) IS 'Internal: an identity by its id, locked, or a plain error';

CREATE FUNCTION composure.rotate_key(id text, overlap interval DEFAULT '1 day') RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
#variable_conflict use_column
DECLARE
  k composure.api_key := composure.find_identity(rotate_key.id);
BEGIN
  IF k.revoked_at IS NOT NULL OR k.expires_at <= now() THEN
    PERFORM composure.refuse(format('key "%s" (%s) is %s', k.name, k.id, CASE WHEN k.revoked_at IS NULL THEN 'expired' ELSE 'revoked' END),
                             'Make a new one with composure.create_key().');
  ELSIF rotate_key.overlap IS NULL OR rotate_key.overlap < interval '0' OR rotate_key.overlap > interval '366 days' THEN
    PERFORM composure.refuse(format('overlap must be between 0 and 366 days, not %s', coalesce(rotate_key.overlap::text, 'NULL')),
                             'It is how long the old secret still works.');
  END IF;
  UPDATE composure.api_secret s SET expires_at = least(s.expires_at, now() + rotate_key.overlap) WHERE s.key_id = k.id;
  DELETE FROM composure.api_secret s WHERE s.key_id = k.id AND s.expires_at <= now();
  -- The workers compare against each of them.
  IF (SELECT count(*) >= 8 FROM composure.api_secret s WHERE s.key_id = k.id) THEN
    PERFORM composure.refuse(format('key "%s" (%s) has 8 secrets that still work', k.name, k.id),
                             'Wait until the oldest expires, or end them all now: overlap => ''0''.');
  END IF;
  RETURN composure.add_secret(k.id);
END
$f$;
COMMENT ON FUNCTION composure.rotate_key(text, interval) IS
  $c$Gives an identity a new secret and returns the new key, this once; the old one works until overlap is over:
SELECT composure.rotate_key('<id>', overlap => '1 hour')$c$;

CREATE FUNCTION composure.revoke_key(id text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
#variable_conflict use_column
DECLARE
  k composure.api_key := composure.find_identity(revoke_key.id);
BEGIN
  UPDATE composure.api_key a SET revoked_at = coalesce(a.revoked_at, now()) WHERE a.id = k.id;
  DELETE FROM composure.api_secret s WHERE s.key_id = k.id;
  RETURN format('key "%s" (%s) is revoked', k.name, k.id);
END
$f$;
COMMENT ON FUNCTION composure.revoke_key(text) IS 'Ends an identity and all its secrets: SELECT composure.revoke_key(''<id>'')';

CREATE VIEW composure.keys AS
  SELECT k.id, k.name, coalesce(k.role, i.worker_role) AS role, k.plan, k.tenant, k.created_at, k.expires_at,
         (SELECT count(*) FROM composure.api_secret s
           WHERE s.key_id = k.id AND coalesce(s.expires_at > now(), true)) AS secrets,
         CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked'
              WHEN k.expires_at <= now() THEN 'expired'
              WHEN k.role IS NULL THEN 'works'
              WHEN r.oid IS NULL THEN 'refused: its role is gone'
              WHEN r.rolsuper OR r.rolbypassrls THEN 'refused: its role is a superuser or has BYPASSRLS'
              ELSE 'works' END AS state
    FROM composure.api_key k
    CROSS JOIN composure.installation i
    LEFT JOIN pg_roles r ON r.rolname = k.role;
COMMENT ON VIEW composure.keys IS 'API keys, for people: without their secrets';

CREATE FUNCTION composure.key_lookup(key_id text)
RETURNS TABLE (id text, name text, role text, tenant text, plan text, rate float8, burst int, per_seconds float8,
               secret_hashes bytea[], expires_at bigint, secret_expires_at bigint[])
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT k.id, k.name, k.role::text, k.tenant, k.plan, p.rate::float8, p.burst, extract(epoch FROM p.per)::float8,
         s.hashes, round(extract(epoch FROM k.expires_at) * 1000000)::bigint, s.expiries
    FROM composure.api_key k
    LEFT JOIN composure.plan p ON p.name = k.plan
    CROSS JOIN LATERAL (
      SELECT array_agg(a.hash ORDER BY a.created_at DESC, a.hash) AS hashes,
             array_agg(coalesce(round(extract(epoch FROM a.expires_at) * 1000000)::bigint, 0)
                       ORDER BY a.created_at DESC, a.hash) AS expiries
        FROM composure.api_secret a
       WHERE a.key_id = k.id AND coalesce(a.expires_at > now(), true)) s
   WHERE k.id = key_lookup.key_id AND k.revoked_at IS NULL AND coalesce(k.expires_at > now(), true)
     AND s.hashes IS NOT NULL
     AND (k.role IS NULL
          OR EXISTS (SELECT FROM pg_roles r WHERE r.rolname = k.role AND NOT r.rolsuper AND NOT r.rolbypassrls))
$f$;
COMMENT ON FUNCTION composure.key_lookup(text) IS
  'For the workers: one identity with its limit and the hashes of its secrets; no row if it may not come in';

CREATE OR REPLACE FUNCTION composure.grant_worker() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  worker name := (SELECT worker_role FROM composure.installation);
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA composure TO %I', worker);
  EXECUTE format('GRANT EXECUTE ON FUNCTION composure.catalog(), composure.key_lookup(text) TO %I', worker);
END
$f$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA composure FROM PUBLIC;
SELECT composure.grant_worker();

$migration$);
