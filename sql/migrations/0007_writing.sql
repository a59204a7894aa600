-- Writing: the records that make a retry harmless, and functions that are served at /rpc/name.
--
-- A key is unique because of its lock, not because of an index: the partitions cannot share one. So whoever looks up or
-- records a key holds the advisory lock of that key until commit, look-up and lock are statements of their own, and all
-- of it runs in READ COMMITTED: a snapshot taken before the lock would not see the record that the one before us has
-- just committed, and the write would happen twice.

CALL pg_temp.composure_apply('0007_writing', $migration$

-- The records

-- Day d is recorded in slot d % 3. While it lasts, the slot of the day before is kept and that of the day after is
-- emptied: a record lives for at least 24 hours. TRUNCATE empties it; a mass DELETE would leave its rows for vacuum,
-- and making new partitions would stall writers behind any open transaction.
--
-- All that a write with a key costs is here, so the forms are the cheapest that were found (doc/performance.md): the key
-- is 16 bytes of a hash, so that the index is small; functions name the partitions themselves, since planning and
-- opening them through their parent took 90 us; and what a CHECK would say idem_record() says, since PostgreSQL parses
-- the text of a CHECK anew for every statement.
CREATE TABLE composure.idempotency (
  slot smallint NOT NULL,
  id uuid NOT NULL,
  identity text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  fingerprint bytea NOT NULL,
  role text,
  tenant text,
  status smallint NOT NULL,
  headers text NOT NULL,
  body text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
) PARTITION BY LIST (slot);
COMMENT ON TABLE composure.idempotency IS
  'The answers of writes that were sent with an Idempotency-Key: each for at least 24 hours after its commit';
COMMENT ON COLUMN composure.idempotency.slot IS 'The day it was recorded, modulo 3';
COMMENT ON COLUMN composure.idempotency.id IS 'composure.idem_id(identity, key)';
COMMENT ON COLUMN composure.idempotency.identity IS 'The id of the API key; its secrets may be rotated meanwhile';
COMMENT ON COLUMN composure.idempotency.fingerprint IS 'SHA-256 of the request: a key is for one request alone';
COMMENT ON COLUMN composure.idempotency.headers IS
  'Lines of the answer that a replay repeats; an ETag of "*" is that of the body';

-- Nothing is ever updated or deleted in them, so vacuum has nothing to do before a TRUNCATE does it.
CREATE TABLE composure.idempotency_0 PARTITION OF composure.idempotency (PRIMARY KEY (id)) FOR VALUES IN (0) WITH (autovacuum_enabled = off);
CREATE TABLE composure.idempotency_1 PARTITION OF composure.idempotency (PRIMARY KEY (id)) FOR VALUES IN (1) WITH (autovacuum_enabled = off);
CREATE TABLE composure.idempotency_2 PARTITION OF composure.idempotency (PRIMARY KEY (id)) FOR VALUES IN (2) WITH (autovacuum_enabled = off);
COMMENT ON TABLE composure.idempotency_0 IS 'Internal: a day in three of composure.idempotency';
COMMENT ON TABLE composure.idempotency_1 IS 'Internal: a day in three of composure.idempotency';
COMMENT ON TABLE composure.idempotency_2 IS 'Internal: a day in three of composure.idempotency';

CREATE FUNCTION composure.idem_slot() RETURNS smallint
LANGUAGE sql
RETURN (pg_catalog.floor(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) OPERATOR(pg_catalog./) 86400)::pg_catalog.int8
        OPERATOR(pg_catalog.%) 3)::pg_catalog.int2;
COMMENT ON FUNCTION composure.idem_slot() IS 'Internal: where the records of today are';

CREATE FUNCTION composure.idem_id(identity text, key text) RETURNS uuid
LANGUAGE sql STABLE -- convert_to() is no more than that, and only what says so is inlined
RETURN pg_catalog.encode(pg_catalog.substr(pg_catalog.sha256(pg_catalog.convert_to(
         -- The length in front: two pairs never make the same text.
         pg_catalog.octet_length(identity)::pg_catalog.text OPERATOR(pg_catalog.||) ':' OPERATOR(pg_catalog.||) identity
           OPERATOR(pg_catalog.||) key, 'UTF8')), 1, 16), 'hex')::pg_catalog.uuid;
COMMENT ON FUNCTION composure.idem_id(text, text) IS 'Internal: identity and key in 16 bytes of SHA-256';

CREATE FUNCTION composure.idem_lock(id uuid) RETURNS boolean
LANGUAGE sql
RETURN pg_catalog.pg_try_advisory_xact_lock(
         ('x' OPERATOR(pg_catalog.||) pg_catalog.translate(pg_catalog.left(id::pg_catalog.text, 18), '-', ''))::pg_catalog.bit(64)::pg_catalog.int8);
COMMENT ON FUNCTION composure.idem_lock(uuid) IS 'Internal: tries the lock of a key, until the end of the transaction';

CREATE FUNCTION composure.idem_begin(identity text, key text, fingerprint bytea, role text, tenant text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $f$
#variable_conflict use_column
DECLARE
  wanted uuid := composure.idem_id(idem_begin.identity, idem_begin.key);
  got boolean := composure.idem_lock(wanted);
  known record;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'idempotent writes need READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'ZC005';
  ELSIF idem_begin.identity IS NULL OR idem_begin.key IS NULL OR idem_begin.fingerprint IS NULL THEN
    PERFORM composure.refuse('identity, key and fingerprint must not be NULL', 'The worker gives all three.');
  END IF;
  SELECT i.fingerprint, i.role, i.tenant INTO known
    FROM (SELECT * FROM composure.idempotency_0 a WHERE a.id = wanted
          UNION ALL SELECT * FROM composure.idempotency_1 a WHERE a.id = wanted
          UNION ALL SELECT * FROM composure.idempotency_2 a WHERE a.id = wanted) i;
  IF FOUND THEN
    IF known.role IS DISTINCT FROM idem_begin.role OR known.tenant IS DISTINCT FROM idem_begin.tenant THEN
      RAISE EXCEPTION 'recorded for another role or tenant' USING ERRCODE = 'ZC004';
    ELSIF known.fingerprint <> idem_begin.fingerprint THEN
      RAISE EXCEPTION 'recorded for another request' USING ERRCODE = 'ZC003';
    END IF;
    RAISE EXCEPTION 'recorded' USING ERRCODE = 'ZC001';
  ELSIF NOT got THEN
    RAISE EXCEPTION 'in progress' USING ERRCODE = 'ZC002';
  END IF;
END
$f$;
COMMENT ON FUNCTION composure.idem_begin(text, text, bytea, text, text) IS
  $c$For the workers: begins a write under a key; returns if this transaction is to carry it out, and raises
ZC001  the answer is recorded: composure.idem_answer()
ZC002  another transaction is carrying it out
ZC003  the key was used for another request
ZC004  the role or the tenant of the identity is another than then
ZC005  the transaction is not READ COMMITTED$c$;

CREATE FUNCTION composure.idem_record(identity text, key text, fingerprint bytea, role text, tenant text,
                                      status int, headers text, body text, most int DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  wanted uuid := composure.idem_id(idem_record.identity, idem_record.key);
BEGIN
  IF (idem_record.identity <> '' AND octet_length(idem_record.key) BETWEEN 1 AND 255 AND length(idem_record.fingerprint) = 32
      AND idem_record.status BETWEEN 200 AND 599 AND idem_record.headers IS NOT NULL AND idem_record.body IS NOT NULL) IS NOT TRUE THEN
    PERFORM composure.refuse('this is no record: identity, key, fingerprint, status, headers and body must be what they are called',
                             'The worker gives all six.');
  ELSIF octet_length(idem_record.body) > idem_record.most THEN
    RAISE EXCEPTION 'the answer is larger than % bytes', idem_record.most USING ERRCODE = 'ZC006';
  -- Held since idem_begin(), else whoever has it has looked up and not found what we are about to record.
  ELSIF NOT composure.idem_lock(wanted) THEN
    RAISE EXCEPTION 'another transaction has this key' USING ERRCODE = 'ZC002';
  END IF;
  CASE composure.idem_slot()
  WHEN 0 THEN
    INSERT INTO composure.idempotency_0 (slot, id, identity, key, fingerprint, role, tenant, status, headers, body, created_at)
    VALUES (0, wanted, idem_record.identity, idem_record.key, idem_record.fingerprint, idem_record.role, idem_record.tenant,
            idem_record.status, idem_record.headers, idem_record.body, clock_timestamp());
  WHEN 1 THEN
    INSERT INTO composure.idempotency_1 (slot, id, identity, key, fingerprint, role, tenant, status, headers, body, created_at)
    VALUES (1, wanted, idem_record.identity, idem_record.key, idem_record.fingerprint, idem_record.role, idem_record.tenant,
            idem_record.status, idem_record.headers, idem_record.body, clock_timestamp());
  WHEN 2 THEN
    INSERT INTO composure.idempotency_2 (slot, id, identity, key, fingerprint, role, tenant, status, headers, body, created_at)
    VALUES (2, wanted, idem_record.identity, idem_record.key, idem_record.fingerprint, idem_record.role, idem_record.tenant,
            idem_record.status, idem_record.headers, idem_record.body, clock_timestamp());
  END CASE;
END
$f$;
COMMENT ON FUNCTION composure.idem_record(text, text, bytea, text, text, int, text, text, int) IS
  $c$For the workers: records the answer of the write that idem_begin() began in this transaction, and raises
ZC006  the body has more than `most` bytes$c$;

CREATE FUNCTION composure.idem_answer(identity text, key text)
RETURNS TABLE (status int, headers text, body text)
LANGUAGE sql STABLE SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $f$
  SELECT i.status::int, i.headers, i.body
    FROM composure.idempotency i
   WHERE i.id = composure.idem_id(idem_answer.identity, idem_answer.key)
$f$;
COMMENT ON FUNCTION composure.idem_answer(text, text) IS 'For the workers: the answer that was recorded under a key; no row: none';

CREATE FUNCTION composure.idem_sweep() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '50ms'
AS $f$
DECLARE
  tomorrow regclass := (ARRAY['composure.idempotency_1', 'composure.idempotency_2', 'composure.idempotency_0'])[composure.idem_slot() + 1];
BEGIN
  -- Two at a time would wait for each other; look-ups wait behind whoever waits for the table, so not for long.
  IF pg_relation_size(tomorrow) = 0 THEN
    RETURN true;
  ELSIF NOT pg_try_advisory_xact_lock(hashtextextended('composure.idem_sweep', 0)) THEN
    RETURN false;
  END IF;
  BEGIN
    EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', tomorrow);
  EXCEPTION WHEN lock_not_available THEN
    RETURN false;
  END;
  -- Midnight may have passed while we waited.
  IF tomorrow <> (ARRAY['composure.idempotency_1', 'composure.idempotency_2', 'composure.idempotency_0']::regclass[])[composure.idem_slot() + 1] THEN
    RETURN false;
  END IF;
  EXECUTE format('TRUNCATE ONLY %s', tomorrow);
  RETURN true;
END
$f$;
COMMENT ON FUNCTION composure.idem_sweep() IS
  'For the workers: empties the partition of tomorrow, whose records are more than 24 hours old; false: try again';

-- Functions

CREATE TABLE composure.function (
  name text PRIMARY KEY,
  function regprocedure NOT NULL,
  methods text[] NOT NULL,
  cost int NOT NULL DEFAULT 1 CHECK (cost >= 0),
  idempotency text NOT NULL DEFAULT 'optional' CHECK (idempotency IN ('required', 'optional', 'none')),
  deadline_ms int CHECK (deadline_ms > 0),
  rows_max int NOT NULL DEFAULT 200 CHECK (rows_max BETWEEN 1 AND 1000),
  cache text,
  exposed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE composure.function IS
  'The functions that the API serves at /rpc/name; written by composure.expose_function() and composure.unexpose_function()';

CREATE TRIGGER catalog_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON composure.function
  FOR EACH STATEMENT EXECUTE FUNCTION composure.catalog_changed();
ALTER TABLE composure.function ENABLE ALWAYS TRIGGER catalog_changed;

CREATE FUNCTION composure.describe_function(f oid) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT format('%s %I.%I(%s)',
                CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' WHEN 'w' THEN 'window function'
                               ELSE 'function' END,
                n.nspname, p.proname, pg_get_function_identity_arguments(p.oid))
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
   WHERE p.oid = f
$f$;
COMMENT ON FUNCTION composure.describe_function(oid) IS 'Internal: a function as a person calls it';

-- In the search_path of whoever calls, as find_relation(). A name alone will do where there is one such function.
CREATE FUNCTION composure.find_function(signature text) RETURNS oid
LANGUAGE plpgsql STABLE
AS $f$
DECLARE
  found pg_catalog.oid;
  candidates text;
BEGIN
  IF signature OPERATOR(pg_catalog.!~) '^[0-9-]*$' THEN
    BEGIN
      found := CASE WHEN pg_catalog.strpos(signature, '(') OPERATOR(pg_catalog.>) 0 THEN pg_catalog.to_regprocedure(signature)
                    ELSE pg_catalog.to_regproc(signature) END;
    EXCEPTION WHEN syntax_error OR invalid_name OR feature_not_supported OR invalid_parameter_value
                OR invalid_text_representation OR undefined_object OR too_many_arguments THEN
      found := NULL;
    END;
  END IF;
  IF found IS NULL THEN
    SELECT pg_catalog.string_agg(c.f, ', ') INTO candidates
      FROM (SELECT p.oid::pg_catalog.regprocedure::pg_catalog.text AS f
              FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
             WHERE n.nspname OPERATOR(pg_catalog.<>) ALL ('{pg_catalog,information_schema,composure}'::pg_catalog.name[])
               AND pg_catalog.lower(pg_catalog.replace(pg_catalog.split_part(signature, '(', 1), '"', '')) OPERATOR(pg_catalog.=)
                   ANY (ARRAY[pg_catalog.lower(p.proname::pg_catalog.text),
                              pg_catalog.lower(pg_catalog.format('%s.%s', n.nspname, p.proname))])
             ORDER BY 1 LIMIT 5) c;
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_function',
      MESSAGE = pg_catalog.format('function "%s" does not exist', signature),
      HINT = CASE WHEN candidates IS NULL THEN 'Write it as schema.name(type, type): ''public.transfer(bigint, bigint, numeric)''.'
                  ELSE pg_catalog.format('There is: %s', candidates) END;
  END IF;
  RETURN found;
END
$f$;
COMMENT ON FUNCTION composure.find_function(text) IS 'Internal: a function by the signature a person gave, or a plain error';

-- What is passed in, by name. OUT and TABLE arguments are columns of the result.
CREATE FUNCTION composure.arguments_of(f oid)
RETURNS TABLE (num int, name text, type_oid oid, has_default boolean, is_variadic boolean)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT (row_number() OVER (ORDER BY a.n))::int, coalesce(a.name, ''), a.type_oid,
         row_number() OVER (ORDER BY a.n) > p.pronargs - p.pronargdefaults, coalesce(a.mode, 'i') = 'v'
    FROM pg_proc p
    CROSS JOIN LATERAL (
      SELECT t.n, t.type_oid, p.proargmodes[t.n] AS mode, p.proargnames[t.n] AS name
        FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) WITH ORDINALITY t (type_oid, n)) a
   WHERE p.oid = f AND coalesce(a.mode, 'i') IN ('i', 'b', 'v')
$f$;
COMMENT ON FUNCTION composure.arguments_of(oid) IS 'Internal: the arguments that a caller of a function gives';

-- Calls name their arguments, and of functions with one name PostgreSQL takes the one that fits best: that must never be
-- one that was not exposed.
CREATE FUNCTION composure.namesake(f oid) RETURNS oid
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT o.oid
    FROM pg_proc p JOIN pg_proc o ON o.pronamespace = p.pronamespace AND o.proname = p.proname AND o.oid <> p.oid
   WHERE p.oid = f
     AND NOT EXISTS (SELECT FROM composure.arguments_of(o.oid) a
                      WHERE NOT a.has_default AND a.name NOT IN (SELECT b.name FROM composure.arguments_of(f) b))
   ORDER BY o.oid LIMIT 1
$f$;
COMMENT ON FUNCTION composure.namesake(oid) IS 'Internal: another function that a call of this one, by its arguments'' names, might reach';

CREATE FUNCTION composure.expose_function_oid(
  f oid, p_name text, p_methods text[], p_deadline interval, p_cost int, p_idempotency text, p_cache text, p_rows_max int)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  inst composure.installation;
  p pg_proc;
  schema_name name;
  what text := composure.describe_function(f);
  r composure.function;
  old composure.function;
  known_names text[];
  possible text[];
  result_type pg_type;
  item text;
BEGIN
  SELECT * INTO inst FROM composure.installation FOR UPDATE;
  SELECT * INTO p FROM pg_proc WHERE oid = f;
  SELECT nspname INTO schema_name FROM pg_namespace WHERE oid = p.pronamespace;
  SELECT * INTO result_type FROM pg_type WHERE oid = p.prorettype;

  -- What it is
  IF p.prokind <> 'f' THEN
    PERFORM composure.refuse(format('%s cannot be exposed', what),
      CASE p.prokind WHEN 'p' THEN 'A procedure can end the transaction that it runs in: make it a function.'
                     ELSE 'Make a function of your own that calls it.' END);
  ELSIF schema_name = 'composure' THEN
    PERFORM composure.refuse(format('%s belongs to Composure itself and cannot be exposed', what),
                             'Expose functions of your own.');
  ELSIF schema_name IN ('pg_catalog', 'information_schema') THEN
    PERFORM composure.refuse(format('%s belongs to PostgreSQL and cannot be exposed', what),
                             'Make a function of your own that calls it.');
  ELSIF schema_name LIKE 'pg\_temp%' THEN
    PERFORM composure.refuse(format('%s is temporary: no other session can see it', what), 'Make it in a schema of yours.');
  ELSIF result_type.typname IN ('trigger', 'event_trigger') THEN
    PERFORM composure.refuse(format('%s is a trigger function', what), 'Only triggers call it.');
  END IF;

  -- What it takes: each argument by its name, of a type that a value can have.
  SELECT format('%s: argument %s has no name', what, a.num) INTO item
    FROM composure.arguments_of(f) a WHERE a.name = '' ORDER BY a.num LIMIT 1;
  IF FOUND THEN
    PERFORM composure.refuse(item, 'Requests give arguments by name: make it again with names.');
  END IF;
  SELECT format('%s: argument "%s" is VARIADIC', what, a.name) INTO item
    FROM composure.arguments_of(f) a WHERE a.is_variadic;
  IF FOUND THEN
    PERFORM composure.refuse(item, 'Make a function that takes an array in its place.');
  END IF;
  SELECT format('%s: argument "%s" is of the type %s, which a request cannot give', what, a.name, format_type(a.type_oid, NULL))
    INTO item
    FROM composure.arguments_of(f) a JOIN pg_type t ON t.oid = a.type_oid
   WHERE t.typtype = 'p' ORDER BY a.num LIMIT 1;
  IF FOUND THEN
    PERFORM composure.refuse(item, 'Make a function with the types that it is to be called with.');
  END IF;
  IF (SELECT count(*) > 100 FROM composure.arguments_of(f)) THEN
    PERFORM composure.refuse(format('%s takes more than 100 arguments', what), 'Let it take one json argument.');
  END IF;

  IF composure.namesake(f) IS NOT NULL THEN
    PERFORM composure.refuse(
      format('%s cannot be told from %s by the names of its arguments', what, composure.describe_function(composure.namesake(f))),
      'Give one of them another name, or other names to its arguments.');
  END IF;

  -- What it returns
  IF result_type.typname = 'record' AND p.proallargtypes IS NULL THEN
    PERFORM composure.refuse(format('%s returns a record of unknown columns', what),
                             'Say which: RETURNS TABLE (...), OUT arguments, or a named type.');
  ELSIF result_type.typtype = 'p' AND result_type.typname NOT IN ('record', 'void') THEN
    PERFORM composure.refuse(format('%s returns %s, which has no form of its own', what, format_type(result_type.oid, NULL)),
                             'Let it return the type that it is used with.');
  END IF;

  -- Name. Without one, a function that is exposed already keeps its name.
  r.name := p_name;
  IF r.name IS NULL THEN
    known_names := ARRAY(SELECT have.name FROM composure.function have WHERE have.function = f ORDER BY have.name);
    IF cardinality(known_names) > 1 THEN
      PERFORM composure.refuse(format('%s is exposed under several names: %s', what, array_to_string(known_names, ', ')),
                               format('Say which one: name => %L.', known_names[1]));
    END IF;
    r.name := coalesce(known_names[1], p.proname);
  END IF;
  IF r.name IN ('', '.', '..') OR r.name ~ '[/,\x01-\x1f\x7f]' OR octet_length(r.name) > 200 THEN
    PERFORM composure.refuse(
      format('name: "%s" cannot be part of a URL', regexp_replace(r.name, '[\x01-\x1f\x7f]', '?', 'g')),
      'Choose another with name => ''...'': 1 to 200 bytes without "/", "," and control characters, and not "." or "..".');
  END IF;
  SELECT * INTO old FROM composure.function have WHERE have.name = r.name;
  IF FOUND AND old.function <> f AND EXISTS (SELECT FROM pg_proc WHERE oid = old.function) THEN
    PERFORM composure.refuse(format('name: "%s" is taken by %s', r.name, composure.describe_function(old.function)),
                             format('Choose another with name => ''...'', or first: SELECT composure.unexpose_function(%L);', r.name));
  END IF;
  r.function := f;

  -- Methods
  possible := CASE WHEN p.provolatile = 'v' THEN '{POST}'::text[] ELSE '{GET,POST}' END;
  r.methods := CASE WHEN p_methods IS NULL THEN possible ELSE composure.parse_methods(p_methods) END;
  SELECT m INTO item FROM unnest(r.methods) m WHERE m <> ALL (possible) LIMIT 1;
  IF FOUND THEN
    PERFORM composure.refuse(format('methods: %s cannot take %s', what, item),
      CASE WHEN item = 'GET' THEN 'It is VOLATILE: a request that only reads must not change anything. Declare it STABLE if it does not.'
           ELSE format('Functions take %s.', array_to_string(possible, ' and ')) END);
  END IF;

  -- Numbers and words
  r.cost := coalesce(p_cost, 1);
  IF r.cost < 0 THEN
    PERFORM composure.refuse('cost must not be negative', 'It is the number of rate-limit tokens that a call takes; 0 is free.');
  END IF;
  r.idempotency := coalesce(p_idempotency, 'optional');
  IF r.idempotency NOT IN ('required', 'optional', 'none') THEN
    PERFORM composure.refuse(format('idempotency: "%s" is not known', r.idempotency), 'It is one of required, optional and none.');
  END IF;
  IF p_deadline IS NOT NULL AND (p_deadline < interval '1 millisecond' OR p_deadline > interval '10 minutes') THEN
    PERFORM composure.refuse(format('deadline must be between 1 ms and 10 minutes, not %s', p_deadline),
                             'For example: deadline => ''2 seconds''.');
  END IF;
  r.deadline_ms := extract(epoch FROM p_deadline) * 1000;
  r.rows_max := coalesce(p_rows_max, 200);
  IF r.rows_max NOT BETWEEN 1 AND 1000 THEN
    PERFORM composure.refuse(format('rows_max must be between 1 and 1000, not %s', r.rows_max),
                             'It is the most rows of a set that one answer holds.');
  END IF;
  r.cache := composure.parse_cache(p_cache);
  IF r.cache IS NOT NULL AND NOT 'GET' = ANY (r.methods) THEN
    PERFORM composure.refuse(format('cache: only GET is cached, and %s takes POST alone', what), 'Leave cache out.');
  ELSIF 'public' = ANY (string_to_array(r.cache, ', '))
        AND NOT has_function_privilege(coalesce(inst.anonymous_role, inst.worker_role), f, 'EXECUTE') THEN
    PERFORM composure.refuse(
      format('cache: public, but role "%s" may not call %s', coalesce(inst.anonymous_role, inst.worker_role), what),
      format('GRANT EXECUTE ON FUNCTION %s TO %I; or leave public out.', f::regprocedure, inst.anonymous_role));
  END IF;

  -- What is not wrong, and yet likely not meant
  IF p.prosecdef AND NOT EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c LIKE 'search\_path=%') THEN
    RAISE WARNING '% runs with its owner''s rights and has no search_path of its own', what
      USING HINT = format('ALTER FUNCTION %s SET search_path = pg_catalog, public, pg_temp;', f::regprocedure);
  END IF;
  IF p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee = 0 AND a.privilege_type = 'EXECUTE') THEN
    RAISE NOTICE 'everyone may call %', what
      USING HINT = format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC; and grant it to the roles of your keys.', f::regprocedure);
  END IF;

  INSERT INTO composure.function (name, function, methods, cost, idempotency, deadline_ms, rows_max, cache)
  VALUES (r.name, r.function, r.methods, r.cost, r.idempotency, r.deadline_ms, r.rows_max, r.cache)
  ON CONFLICT (name) DO UPDATE
     SET function = excluded.function, methods = excluded.methods, cost = excluded.cost,
         idempotency = excluded.idempotency, deadline_ms = excluded.deadline_ms, rows_max = excluded.rows_max,
         cache = excluded.cache, exposed_at = now();
  RETURN format(E'%s is served at /rpc/%s\n  methods  %s\n  callers  %s', what, r.name, array_to_string(r.methods, ', '),
                coalesce((SELECT string_agg(role, ', ' ORDER BY role) FROM composure.running_roles() role
                           WHERE has_function_privilege(role, f, 'EXECUTE')),
                         format('none yet: GRANT EXECUTE ON FUNCTION %s TO ...;', f::regprocedure)));
END
$f$;
COMMENT ON FUNCTION composure.expose_function_oid(oid, text, text[], interval, int, text, text, int) IS
  'Internal: what expose_function() does once the function is found';

CREATE FUNCTION composure.expose_function(
  signature text,
  name text DEFAULT NULL,
  methods text[] DEFAULT NULL,
  deadline interval DEFAULT NULL,
  cost int DEFAULT 1,
  idempotency text DEFAULT 'optional',
  cache text DEFAULT NULL,
  rows_max int DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql
AS $f$
BEGIN
  RETURN composure.expose_function_oid(composure.find_function(signature), name, methods, deadline, cost, idempotency, cache, rows_max);
END
$f$;
COMMENT ON FUNCTION composure.expose_function(text, text, text[], interval, int, text, text, int) IS
  $c$Serves a function at /rpc/name; called again, it replaces all that was said before:
SELECT composure.expose_function('public.transfer(bigint, bigint, numeric)', idempotency => 'required');
name         its path behind /rpc/; default: the function's name
methods      POST, and GET where the function is STABLE or IMMUTABLE; default: what is possible
deadline     the longest a call may take: '2 seconds'
cost         tokens that a call takes from the rate limit
idempotency  required, optional or none: the Idempotency-Key of POST
cache        'public, max-age=30' for caches, 'ttl=30' for our own; of GET
rows_max     the most rows of a set in one answer: 200; at most 1000$c$;

CREATE FUNCTION composure.unexpose_function(name text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
BEGIN
  PERFORM FROM composure.installation FOR UPDATE;
  DELETE FROM composure.function f WHERE f.name = unexpose_function.name;
  IF NOT FOUND THEN
    PERFORM composure.refuse(
      format('no function is exposed as "%s"', unexpose_function.name),
      coalesce((SELECT 'Exposed are: ' || string_agg(f.name, ', ' ORDER BY f.name) || '.' FROM composure.function f),
               'None is exposed yet.'));
  END IF;
  RETURN format('/rpc/%s is no longer served', unexpose_function.name);
END
$f$;
COMMENT ON FUNCTION composure.unexpose_function(text) IS
  'Takes a function out of the API: SELECT composure.unexpose_function(''transfer'')';

-- regprocedure may name what is gone; it reads as its number then.
CREATE OR REPLACE FUNCTION composure.catalog_functions() RETURNS json
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  WITH RECURSIVE base (type_oid, base_oid) AS (
    SELECT DISTINCT a.type_oid, a.type_oid
      FROM composure.function f JOIN pg_proc p ON p.oid = f.function CROSS JOIN LATERAL composure.arguments_of(p.oid) a
    UNION ALL
    SELECT b.type_oid, t.typbasetype FROM base b JOIN pg_type t ON t.oid = b.base_oid WHERE t.typtype = 'd'
  )
  SELECT coalesce(json_agg(json_build_object(
           'name', f.name,
           'oid', p.oid::bigint,
           'schema', n.nspname,
           'function', p.proname,
           'volatility', p.provolatile,
           -- A set's rows are objects or bare values; to_json() makes either.
           'returns', CASE WHEN p.proretset THEN 'set' WHEN t.typname = 'void' THEN 'void' ELSE 'value' END,
           'arguments', coalesce((
             SELECT json_agg(json_build_object(
                      'name', a.name,
                      'type', quote_ident(tn.nspname) || '.' || quote_ident(at.typname),
                      'type_oid', a.type_oid::bigint,
                      'base_oid', b.base_oid::bigint,
                      'has_default', a.has_default) ORDER BY a.num)
               FROM composure.arguments_of(p.oid) a
               JOIN pg_type at ON at.oid = a.type_oid
               JOIN pg_namespace tn ON tn.oid = at.typnamespace
               JOIN base b ON b.type_oid = a.type_oid
               JOIN pg_type bt ON bt.oid = b.base_oid AND bt.typtype <> 'd'), '[]'),
           'methods', f.methods,
           'cost', f.cost,
           'idempotency', f.idempotency,
           'deadline_ms', f.deadline_ms,
           'rows_max', f.rows_max,
           'cache', f.cache,
           'roles', coalesce((
             SELECT json_agg(r.role ORDER BY r.role) FROM composure.running_roles() r (role)
              WHERE has_function_privilege(r.role, p.oid, 'EXECUTE') AND has_schema_privilege(r.role, n.oid, 'USAGE')), '[]'))
           ORDER BY f.name), '[]')
    FROM composure.function f
    JOIN pg_proc p ON p.oid = f.function AND p.prokind = 'f'
    JOIN pg_namespace n ON n.oid = p.pronamespace
    JOIN pg_type t ON t.oid = p.prorettype
   WHERE composure.namesake(p.oid) IS NULL
$f$;

-- As 0006 left it, with the functions behind it.
ALTER FUNCTION composure.catalog_state() RENAME TO catalog_state_of_relations;
ALTER FUNCTION composure.catalog_state_of_relations() SECURITY INVOKER;
COMMENT ON FUNCTION composure.catalog_state_of_relations() IS 'Internal: the part of catalog_state() about tables and views';

CREATE FUNCTION composure.catalog_state() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT concat_ws('.', composure.catalog_state_of_relations(),
           (SELECT concat_ws('.', count(*), sum(p.xmin::text::bigint), sum(n.xmin::text::bigint))
              FROM composure.function f
              JOIN pg_proc exposed ON exposed.oid = f.function
              JOIN pg_proc p ON p.proname = exposed.proname AND p.pronamespace = exposed.pronamespace
              JOIN pg_namespace n ON n.oid = p.pronamespace))
$f$;
COMMENT ON FUNCTION composure.catalog_state() IS 'For the workers: changes when composure.catalog() does';

-- What a worker may call says so in its comment, so that no list has to be kept beside the functions.
CREATE OR REPLACE FUNCTION composure.grant_worker() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  worker name := (SELECT worker_role FROM composure.installation);
  f regprocedure;
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA composure TO %I', worker);
  -- What was granted before and is no longer for the workers; not from the owner, who would lose what is his.
  IF worker <> (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'composure.installation'::regclass) THEN
    EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA composure FROM %I', worker);
  END IF;
  FOR f IN SELECT p.oid FROM pg_proc p
            WHERE p.pronamespace = 'composure'::regnamespace
              AND obj_description(p.oid, 'pg_proc') LIKE 'For the workers:%'
            ORDER BY p.oid LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', f, worker);
  END LOOP;
END
$f$;
COMMENT ON FUNCTION composure.grant_worker() IS
  'Internal: grants the worker role the functions whose comment begins with "For the workers:"';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA composure FROM PUBLIC;
SELECT composure.grant_worker();
UPDATE composure.installation SET catalog_version = catalog_version + 1;

$migration$);
