-- The tables of the catalog, the roles, and what a worker reads: composure.catalog().
--
-- Every function of ours sets search_path = pg_catalog, pg_temp, and none may be called by PUBLIC: without it an
-- unprivileged writer's operator or aggregate would run with the owner's rights.

CALL pg_temp.composure_apply('0001_catalog', $migration$

CREATE TABLE composure.installation (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  id uuid NOT NULL DEFAULT gen_random_uuid(),
  secret bytea NOT NULL CHECK (length(secret) = 32),
  worker_role name NOT NULL,
  anonymous_role name,
  catalog_version bigint NOT NULL DEFAULT 1
);
COMMENT ON TABLE composure.installation IS 'One row: this installation of Composure';
COMMENT ON COLUMN composure.installation.secret IS 'Key of the HMAC in API key ids; only the owner and the workers know it';
COMMENT ON COLUMN composure.installation.worker_role IS 'The role that workers log in as';
COMMENT ON COLUMN composure.installation.anonymous_role IS
  'The role of requests without an API key; NULL: they run as the worker itself (a host where no role can be made)';
COMMENT ON COLUMN composure.installation.catalog_version IS 'Grows by one with every change of what catalog() returns';

CREATE TABLE composure.resource (
  name text PRIMARY KEY,
  relation regclass NOT NULL,
  methods text[] NOT NULL,
  key text[],
  hidden text[] NOT NULL DEFAULT '{}',
  read_only text[] NOT NULL DEFAULT '{}',
  default_order jsonb NOT NULL DEFAULT '[]',
  page_default int NOT NULL DEFAULT 50,
  page_max int NOT NULL DEFAULT 200 CHECK (page_max BETWEEN 1 AND 1000),
  cache text,
  cost_read int NOT NULL DEFAULT 1 CHECK (cost_read >= 0),
  cost_write int NOT NULL DEFAULT 1 CHECK (cost_write >= 0),
  idempotency text NOT NULL DEFAULT 'optional' CHECK (idempotency IN ('required', 'optional', 'none')),
  owner text,
  deadline_ms int CHECK (deadline_ms > 0),
  depends regclass[] NOT NULL DEFAULT '{}',
  trust_me boolean NOT NULL DEFAULT false,
  exposed_at timestamptz NOT NULL DEFAULT now(),
  CHECK (page_default BETWEEN 1 AND page_max)
);
CREATE INDEX resource_relation ON composure.resource (relation);
COMMENT ON TABLE composure.resource IS 'What the API serves; written by composure.expose() and composure.unexpose()';
COMMENT ON COLUMN composure.resource.key IS
  'The columns that identify a row; NULL: the primary key, else a unique index of NOT NULL columns, as it is now';
COMMENT ON COLUMN composure.resource.default_order IS '[{"column","desc","nulls_first"}]; key columns are appended on reading';

CREATE TABLE composure.plan (
  name text PRIMARY KEY CHECK (name <> ''),
  rate numeric NOT NULL CHECK (rate > 0),
  burst int NOT NULL CHECK (burst > 0),
  per interval NOT NULL CHECK (per > interval '0')
);
COMMENT ON TABLE composure.plan IS 'Rate limits: rate tokens per interval, at most burst at once';

CREATE TABLE composure.api_key (
  id text PRIMARY KEY CHECK (id ~ '^[0-9A-Za-z]{14}$'),
  name text NOT NULL CHECK (name <> ''),
  role name,
  plan text REFERENCES composure.plan ON UPDATE CASCADE,
  tenant text,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz,
  revoked_at timestamptz
);
COMMENT ON TABLE composure.api_key IS 'Identities: who calls the API. Look at composure.keys, it has no secrets';
COMMENT ON COLUMN composure.api_key.role IS 'The role its requests run as; NULL: the worker itself';

CREATE TABLE composure.api_secret (
  key_id text NOT NULL REFERENCES composure.api_key ON DELETE CASCADE,
  hash bytea NOT NULL CHECK (length(hash) = 32),
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  expires_at timestamptz,
  PRIMARY KEY (key_id, hash)
);
COMMENT ON TABLE composure.api_secret IS 'The secrets of an identity: SHA-256 of the 27 secret characters';

INSERT INTO composure.installation (secret, worker_role)
VALUES (sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())),
        current_user);

-- A trigger and not a habit of expose(): whoever writes the table by hand is seen by the workers too. The row lock on
-- composure.installation also makes writers of the catalog wait for each other.
CREATE FUNCTION composure.catalog_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $f$
BEGIN
  UPDATE composure.installation SET catalog_version = catalog_version + 1;
  RETURN NULL;
END
$f$;
COMMENT ON FUNCTION composure.catalog_changed() IS 'Internal: counts a change of the catalog';

CREATE TRIGGER catalog_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON composure.resource
  FOR EACH STATEMENT EXECUTE FUNCTION composure.catalog_changed();

-- Roles

CREATE FUNCTION composure.may_become(member name, role name) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  -- From PostgreSQL 16 on, a member may take a role only if the grant says SET.
  SELECT pg_has_role(member, role,
                     CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)
$f$;
COMMENT ON FUNCTION composure.may_become(name, name) IS 'Internal: whether a session of member may SET ROLE role';

-- What the worker may call. A migration that adds such a function replaces this one, and calls it.
CREATE FUNCTION composure.grant_worker() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  worker name := (SELECT worker_role FROM composure.installation);
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA composure TO %I', worker);
  EXECUTE format('GRANT EXECUTE ON FUNCTION composure.catalog() TO %I', worker);
END
$f$;
COMMENT ON FUNCTION composure.grant_worker() IS 'Internal: grants the worker role the few functions it calls';

-- Roles belong to the cluster, not to the database: they may be there already, made by the migration of another
-- database, perhaps by another role, perhaps at this moment.
--
-- PUBLIC may usually create temporary tables, and that right cannot be taken from one role alone; so workers always
-- write names with their schema, and user code runs on connections that are cleaned afterwards.
CREATE FUNCTION composure.install_roles() RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  worker constant name := 'composure_worker';
  anonymous constant name := 'composure_anonymous';
  role_name name;
  found_role record;
  setting text[];
  settings text[] := ARRAY[
    ['default_transaction_isolation', 'read committed'],
    ['synchronous_commit', 'on'],
    ['idle_in_transaction_session_timeout', '30s'],
    ['timezone', 'UTC'],
    ['datestyle', 'ISO'],
    ['intervalstyle', 'postgres'],
    ['extra_float_digits', '1'],
    ['bytea_output', 'hex']];
BEGIN
  IF NOT (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user) THEN
    UPDATE composure.installation
       SET worker_role = current_user, anonymous_role = NULL, catalog_version = catalog_version + 1
     WHERE anonymous_role IS NULL AND worker_role <> current_user;
    PERFORM composure.grant_worker();
    RETURN (SELECT format('no roles made: role "%s" may not create roles; workers log in as "%s"',
                          current_user, worker_role)
              FROM composure.installation);
  END IF;

  -- client_connection_check_interval came with PostgreSQL 14: the server notices a client that is gone.
  IF current_setting('server_version_num')::int >= 140000 THEN
    settings := settings || ARRAY[ARRAY['client_connection_check_interval', '100ms']];
  END IF;

  FOR attempt IN 1..5 LOOP
    BEGIN
      FOREACH role_name IN ARRAY ARRAY[worker, anonymous] LOOP
        SELECT * INTO found_role FROM pg_roles WHERE rolname = role_name;
        IF NOT FOUND THEN
          EXECUTE format(CASE role_name WHEN worker THEN 'CREATE ROLE %I LOGIN NOINHERIT'
                                        ELSE 'CREATE ROLE %I NOLOGIN' END, role_name);
        ELSIF found_role.rolsuper OR found_role.rolbypassrls THEN
          RAISE EXCEPTION 'role "%" exists and is a superuser or has BYPASSRLS', role_name
            USING HINT = format('Run as a superuser: ALTER ROLE %I NOSUPERUSER NOBYPASSRLS; then run migrate.sql again.',
                                role_name);
        ELSIF role_name = worker AND (found_role.rolinherit OR NOT found_role.rolcanlogin) THEN
          BEGIN
            EXECUTE format('ALTER ROLE %I LOGIN NOINHERIT', worker);
          EXCEPTION WHEN insufficient_privilege THEN
            RAISE WARNING 'role "%" exists and is not LOGIN NOINHERIT, and role "%" may not change it', worker, current_user
              USING HINT = format('Run as a superuser: ALTER ROLE %I LOGIN NOINHERIT;', worker);
          END;
        END IF;
      END LOOP;

      FOREACH setting SLICE 1 IN ARRAY settings LOOP
        CONTINUE WHEN EXISTS (
          SELECT FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole
           WHERE r.rolname = worker AND s.setdatabase = 0
             AND lower(setting[1]) || '=' || setting[2] IN
                 (SELECT lower(split_part(c, '=', 1)) || '=' || split_part(c, '=', 2) FROM unnest(s.setconfig) c));
        BEGIN
          EXECUTE format('ALTER ROLE %I SET %I = %L', worker, setting[1], setting[2]);
        EXCEPTION WHEN insufficient_privilege THEN
          RAISE WARNING 'role "%" lacks a setting, and role "%" may not change it', worker, current_user
            USING HINT = format('Run as a superuser: ALTER ROLE %I SET %I = %L;', worker, setting[1], setting[2]);
        END;
      END LOOP;

      IF NOT composure.may_become(worker, anonymous) THEN
        EXECUTE format('GRANT %I TO %I', anonymous, worker);
      END IF;
      EXIT;
    EXCEPTION WHEN duplicate_object OR unique_violation OR internal_error THEN
      -- The migration of another database was faster ("tuple concurrently updated" is an internal error).
      IF attempt = 5 THEN
        RAISE;
      END IF;
    END;
  END LOOP;

  UPDATE composure.installation
     SET worker_role = worker, anonymous_role = anonymous, catalog_version = catalog_version + 1
   WHERE worker_role IS DISTINCT FROM worker OR anonymous_role IS DISTINCT FROM anonymous;
  IF NOT has_database_privilege(worker, current_database(), 'CONNECT') THEN
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), worker);
  END IF;
  PERFORM composure.grant_worker();
  RETURN format('workers log in as "%s"; requests without a key run as "%s"', worker, anonymous);
END
$f$;
COMMENT ON FUNCTION composure.install_roles() IS
  'Makes the worker and the anonymous role (again), as migrate.sql does: SELECT composure.install_roles()';

CREATE FUNCTION composure.running_roles() RETURNS SETOF name
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT r.rolname
    FROM pg_roles r
   WHERE r.rolname IN (
           SELECT coalesce(i.anonymous_role, i.worker_role) FROM composure.installation i
           UNION ALL
           SELECT coalesce(k.role, i.worker_role)
             FROM composure.api_key k CROSS JOIN composure.installation i
            WHERE k.revoked_at IS NULL)
$f$;
COMMENT ON FUNCTION composure.running_roles() IS 'Internal: the roles that requests run as, anonymous or by a key';

-- What PostgreSQL knows about a relation

CREATE FUNCTION composure.is_sortable(type oid) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  t pg_type;
BEGIN
  SELECT * INTO t FROM pg_type WHERE oid = is_sortable.type;
  IF t.typtype = 'd' THEN
    RETURN composure.is_sortable(t.typbasetype);
  ELSIF t.typtype IN ('e', 'r', 'm') THEN
    RETURN true;
  ELSIF t.typtype <> 'b' THEN
    -- A composite compares only if each of its fields does, and makes a poor cursor: not offered.
    RETURN false;
  ELSIF EXISTS (SELECT FROM pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid) THEN
    RETURN composure.is_sortable(t.typelem);
  END IF;
  RETURN EXISTS (
    SELECT FROM pg_opclass o JOIN pg_am am ON am.oid = o.opcmethod
     WHERE am.amname = 'btree' AND o.opcdefault
       AND (o.opcintype = t.oid OR EXISTS (
              SELECT FROM pg_cast c
               WHERE c.castsource = t.oid AND c.casttarget = o.opcintype
                 AND c.castmethod = 'b' AND c.castcontext = 'i')));
END
$f$;
COMMENT ON FUNCTION composure.is_sortable(oid) IS 'Internal: whether a type has a default btree ordering';

CREATE FUNCTION composure.columns_of(relations oid[])
RETURNS TABLE (relation oid, num int2, name text, type_oid oid, base_oid oid, type_kind text, type text, category text,
               elem_oid oid, not_null boolean, has_default boolean, generated boolean, sortable boolean,
               nondeterministic boolean)
LANGUAGE sql STABLE ROWS 5000
SET search_path = pg_catalog, pg_temp
AS $f$
  WITH RECURSIVE att AS MATERIALIZED (
    SELECT a.attrelid, a.attnum, a.attname, a.atttypid, a.attnotnull, a.atthasdef, a.attidentity, a.attgenerated,
           a.attcollation, c.relkind
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
     WHERE a.attrelid = ANY (relations) AND a.attnum > 0 AND NOT a.attisdropped
  ), chain (type_oid, base_oid, not_null, has_default) AS (
    SELECT DISTINCT atttypid, atttypid, false, false FROM att
    UNION ALL
    SELECT chain.type_oid, t.typbasetype, chain.not_null OR t.typnotnull,
           chain.has_default OR t.typdefault IS NOT NULL
      FROM chain JOIN pg_type t ON t.oid = chain.base_oid
     WHERE t.typtype = 'd'
  ), known AS MATERIALIZED (
    SELECT chain.type_oid, chain.base_oid, chain.not_null, chain.has_default,
           base.typtype::text AS type_kind, base.typcategory::text AS category,
           CASE WHEN base.typcategory = 'A' AND base.typlen = -1 THEN base.typelem ELSE 0 END AS elem_oid,
           quote_ident(n.nspname) || '.' || quote_ident(t.typname) AS type,
           composure.is_sortable(base.oid) AS sortable
      FROM chain
      JOIN pg_type base ON base.oid = chain.base_oid AND base.typtype <> 'd'
      JOIN pg_type t ON t.oid = chain.type_oid
      JOIN pg_namespace n ON n.oid = t.typnamespace
  )
  SELECT a.attrelid, a.attnum, a.attname::text, a.atttypid, k.base_oid, k.type_kind, k.type, k.category, k.elem_oid,
         -- An outer join in a view yields NULL even where the domain says NOT NULL.
         a.attnotnull OR (k.not_null AND a.relkind IN ('r', 'p')),
         a.attgenerated = '' AND (a.atthasdef OR a.attidentity <> '' OR k.has_default),
         a.attgenerated <> '' OR a.attidentity = 'a',
         k.sortable, co.oid IS NOT NULL
    FROM att a
    JOIN known k ON k.type_oid = a.atttypid
    LEFT JOIN pg_collation co ON co.oid = a.attcollation AND NOT co.collisdeterministic
$f$;
COMMENT ON FUNCTION composure.columns_of(oid[]) IS 'Internal: the columns of relations, domains resolved to base types';

CREATE FUNCTION composure.find_key(relation oid) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT k.names
    FROM (SELECT i.indexrelid, i.indisprimary, i.indnkeyatts,
                 (SELECT array_agg(a.attname::text ORDER BY c.n)
                    FROM unnest(i.indkey) WITH ORDINALITY c (attnum, n)
                    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = c.attnum AND a.attnotnull
                   WHERE c.n <= i.indnkeyatts) AS names
            FROM pg_index i
           WHERE i.indrelid = find_key.relation AND i.indisunique AND i.indisvalid
             AND (i.indisprimary OR i.indimmediate) AND i.indpred IS NULL AND i.indexprs IS NULL) k
   WHERE cardinality(k.names) = k.indnkeyatts
   ORDER BY k.indisprimary DESC, k.indnkeyatts, k.indexrelid
   LIMIT 1
$f$;
COMMENT ON FUNCTION composure.find_key(oid) IS 'Internal: the primary key, else the smallest unique index of NOT NULL columns';

-- The order a list has: what was asked for, then the key columns that are missing in it. They take the direction of
-- the column before them, so that one index, read forwards or backwards, serves the whole.
CREATE FUNCTION composure.total_order(default_order jsonb, key text[]) RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT default_order || coalesce(
           (SELECT jsonb_agg(jsonb_build_object('column', k.name, 'desc', d.reverse, 'nulls_first', d.reverse)
                             ORDER BY k.n)
              FROM unnest(key) WITH ORDINALITY k (name, n),
                   (SELECT coalesce((default_order -> -1 ->> 'desc')::boolean, false) AS reverse) d
             WHERE NOT default_order @> jsonb_build_array(jsonb_build_object('column', k.name))), '[]')
$f$;
COMMENT ON FUNCTION composure.total_order(jsonb, text[]) IS 'Internal: an order with the key columns appended';

-- Columns are kept by name (names survive a dump and restore, numbers do not). So one that was renamed or dropped
-- takes its resource out of the API until it is exposed again: a renamed hidden column must not become visible.
CREATE VIEW composure.resource_now AS
  SELECT r.*, c.relkind, n.nspname, c.relname, k.found_key,
         composure.total_order(r.default_order, k.found_key) AS total_order,
         CASE
           WHEN c.oid IS NULL THEN 'its relation is gone: unexpose it'
           WHEN k.found_key IS NULL THEN 'its key is gone: give the table a primary key'
           ELSE (SELECT format('column "%s" is gone: expose it again', w.name)
                   FROM (SELECT unnest(k.found_key || r.hidden || r.read_only || r.owner)
                         UNION ALL
                         SELECT o ->> 'column' FROM jsonb_array_elements(r.default_order) o) w (name)
                  WHERE w.name IS NOT NULL
                    AND NOT EXISTS (SELECT FROM pg_attribute a
                                     WHERE a.attrelid = c.oid AND a.attname = w.name
                                       AND a.attnum > 0 AND NOT a.attisdropped)
                  LIMIT 1)
         END AS problem
    FROM composure.resource r
    LEFT JOIN pg_class c ON c.oid = r.relation
    LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL (SELECT coalesce(r.key, composure.find_key(r.relation)) AS found_key OFFSET 0) k;
COMMENT ON VIEW composure.resource_now IS 'Internal: resources beside what PostgreSQL says about their relations now';

CREATE VIEW composure.resources AS
  SELECT name, relation, methods, found_key AS key,
         (SELECT string_agg(concat_ws(' ', o.e ->> 'column', CASE WHEN (o.e ->> 'desc')::boolean THEN 'desc' END), ', '
                            ORDER BY o.n)
            FROM jsonb_array_elements(total_order) WITH ORDINALITY o (e, n)) AS "order",
         hidden, read_only, cache, coalesce(problem, 'served') AS state
    FROM composure.resource_now;
COMMENT ON VIEW composure.resources IS 'What the API serves, for people; state says what keeps a resource from being served';

CREATE FUNCTION composure.catalog() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $f$
  -- "problem IS NULL" as a column: as a condition the planner takes it for rare, and joins 500 resources in loops.
  WITH state AS MATERIALIZED (
    SELECT *, problem IS NULL AS sound FROM composure.resource_now
  ), served AS MATERIALIZED (
    SELECT r.*, r.relation::oid AS relid, c.relnamespace, c.relrowsecurity, c.relforcerowsecurity, c.relhastriggers
      FROM state r JOIN pg_class c ON c.oid = r.relation
     WHERE r.sound
  ), col AS MATERIALIZED (
    SELECT * FROM composure.columns_of(ARRAY(SELECT DISTINCT relid FROM served))
  ), columns AS MATERIALIZED (
    SELECT s.name AS resource,
           json_agg(json_build_object(
             'name', col.name,
             'type_oid', col.type_oid::bigint,
             'base_oid', col.base_oid::bigint,
             'type_kind', col.type_kind,
             'type', col.type,
             'category', col.category,
             'elem_oid', col.elem_oid::bigint,
             -- The key of a view is its user's word: unique and not null.
             'not_null', col.not_null OR col.name = ANY (s.found_key),
             'hidden', col.name = ANY (s.hidden),
             'read_only', col.name = ANY (s.read_only),
             'has_default', col.has_default,
             'generated', col.generated,
             'sortable', col.sortable,
             'nondeterministic', col.nondeterministic) ORDER BY col.num) AS list
      FROM served s JOIN col ON col.relation = s.relid
     GROUP BY s.name
  ), allowed AS MATERIALIZED (
    SELECT s.name AS resource,
           coalesce(json_agg(r.role ORDER BY r.role) FILTER (WHERE has_any_column_privilege(r.role, s.relid, 'SELECT')), '[]') AS sel,
           coalesce(json_agg(r.role ORDER BY r.role) FILTER (WHERE has_any_column_privilege(r.role, s.relid, 'INSERT')), '[]') AS ins,
           coalesce(json_agg(r.role ORDER BY r.role) FILTER (WHERE has_any_column_privilege(r.role, s.relid, 'UPDATE')), '[]') AS upd,
           coalesce(json_agg(r.role ORDER BY r.role) FILTER (WHERE has_table_privilege(r.role, s.relid, 'DELETE')), '[]') AS del
      FROM served s JOIN composure.running_roles() r (role) ON has_schema_privilege(r.role, s.relnamespace, 'USAGE')
     GROUP BY s.name
  )
  SELECT json_build_object(
           'version', i.catalog_version,
           'installation', json_build_object(
             'id', i.id,
             'secret', encode(i.secret, 'hex'),
             'anonymous_role', i.anonymous_role,
             'worker_role', i.worker_role),
           'roles', coalesce((SELECT json_agg(r.role ORDER BY r.role) FROM composure.running_roles() r (role)), '[]'),
           'resources', coalesce((
             SELECT json_agg(json_build_object(
                      'name', s.name,
                      'oid', s.relid::bigint,
                      'schema', s.nspname,
                      'relation', s.relname,
                      'kind', s.relkind,
                      'methods', s.methods,
                      'columns', columns.list,
                      'key', s.found_key,
                      'order', s.total_order,
                      'page_default', s.page_default,
                      'page_max', s.page_max,
                      'cache', s.cache,
                      'cost_read', s.cost_read,
                      'cost_write', s.cost_write,
                      'idempotency', s.idempotency,
                      'owner', s.owner,
                      'deadline_ms', s.deadline_ms,
                      'rls', s.relrowsecurity,
                      'force_rls', s.relforcerowsecurity,
                      'select_roles', coalesce(allowed.sel, '[]'),
                      'insert_roles', coalesce(allowed.ins, '[]'),
                      'update_roles', coalesce(allowed.upd, '[]'),
                      'delete_roles', coalesce(allowed.del, '[]')) ORDER BY s.name)
               FROM served s
               JOIN columns ON columns.resource = s.name
               LEFT JOIN allowed ON allowed.resource = s.name), '[]'))::text
    FROM composure.installation i
$f$;
COMMENT ON FUNCTION composure.catalog() IS 'For the workers: everything they need to know, as one JSON text';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA composure FROM PUBLIC;
SELECT composure.install_roles();

$migration$);
