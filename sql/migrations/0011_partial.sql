-- Partial answers (doc/degradation.md): which resources give them without being asked, and which columns may be missing.

CALL pg_temp.composure_apply('0011_partial', $migration$

ALTER TABLE composure.resource
  ADD COLUMN partial boolean NOT NULL DEFAULT false,
  ADD COLUMN optional text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN composure.resource.partial IS 'Whether an answer may come without a part that failed, where the client did not say Prefer: partial';
COMMENT ON COLUMN composure.resource.optional IS 'Columns that a partial answer may come without, as it may come without what is embedded';

CREATE OR REPLACE VIEW composure.resource_now AS
  SELECT r.name, r.relation, r.methods, r.key, r.hidden, r.read_only, r.default_order, r.page_default, r.page_max,
         r.cache, r.cost_read, r.cost_write, r.idempotency, r.owner, r.deadline_ms, r.depends, r.trust_me, r.exposed_at,
         c.relkind, n.nspname, c.relname, k.found_key,
         composure.total_order(r.default_order, k.found_key) AS total_order,
         CASE
           WHEN c.oid IS NULL THEN 'its relation is gone: unexpose it'
           WHEN k.found_key IS NULL THEN 'its key is gone: give the table a primary key'
           ELSE (SELECT format('column "%s" is gone: expose it again', w.name)
                   FROM (SELECT unnest(k.found_key || r.hidden || r.read_only || r.optional || r.owner)
                         UNION ALL
                         SELECT o ->> 'column' FROM jsonb_array_elements(r.default_order) o) w (name)
                  WHERE w.name IS NOT NULL
                    AND NOT EXISTS (SELECT FROM pg_attribute a
                                     WHERE a.attrelid = c.oid AND a.attname = w.name
                                       AND a.attnum > 0 AND NOT a.attisdropped)
                  LIMIT 1)
         END AS problem,
         r.exact_count, r.regular_expressions, r.partial, r.optional
    FROM composure.resource r
    LEFT JOIN pg_class c ON c.oid = r.relation
    LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL (SELECT coalesce(r.key, composure.find_key(r.relation)) AS found_key OFFSET 0) k;

-- With what 0010 decides: scope, ttl_bound_ms and touches.
CREATE OR REPLACE FUNCTION composure.catalog_resources() RETURNS json
LANGUAGE sql STABLE
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
    SELECT c.*, t.typarray AS array_oid
      FROM composure.columns_of(ARRAY(SELECT DISTINCT relid FROM served)) c JOIN pg_type t ON t.oid = c.base_oid
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
             'array_oid', col.array_oid::bigint,
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
  ), into_relation AS MATERIALIZED (
    SELECT t.root, t.relation FROM composure.written_with(ARRAY(SELECT DISTINCT relid FROM served)) t
  ), touched AS MATERIALIZED (
    SELECT i.root, json_agg(DISTINCT f.resource ORDER BY f.resource) AS names
      FROM into_relation i JOIN composure.followed f ON f.relation = i.relation
     GROUP BY i.root
  )
  SELECT coalesce(json_agg(json_build_object(
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
           'exact_count', s.exact_count,
           'regular_expressions', s.regular_expressions,
           'partial', s.partial,
           'optional', s.optional,
           'cache', s.cache,
           'scope', cached.scope,
           'ttl_bound_ms', cached.ttl_bound_ms,
           'touches', coalesce(touched.names, '[]'),
           'cost_read', s.cost_read,
           'cost_write', s.cost_write,
           'idempotency', s.idempotency,
           'owner', s.owner,
           'deadline_ms', s.deadline_ms,
           'rls', s.relrowsecurity,
           'force_rls', s.relforcerowsecurity,
           'reading_runs_code', code.reading,
           'writing_runs_code', code.writing,
           'select_roles', coalesce(allowed.sel, '[]'),
           'insert_roles', coalesce(allowed.ins, '[]'),
           'update_roles', coalesce(allowed.upd, '[]'),
           'delete_roles', coalesce(allowed.del, '[]')) ORDER BY s.name), '[]')
    FROM served s
    JOIN columns ON columns.resource = s.name
    JOIN composure.running_code() code ON code.relation = s.relid
    JOIN composure.cache_scopes_of(ARRAY(SELECT own.name FROM composure.resource own)) cached ON cached.name = s.name
    LEFT JOIN allowed ON allowed.resource = s.name
    LEFT JOIN touched ON touched.root = s.relid
$f$;

-- What every row, URL, cursor or query needs cannot be missing.
CREATE FUNCTION composure.check_optional(r composure.resource, optional text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
#variable_conflict use_variable
DECLARE
  names constant text[] := ARRAY(SELECT c.name FROM composure.columns_of(ARRAY[r.relation::oid]) c ORDER BY c.num);
  item text;
  called text;
BEGIN
  FOREACH item IN ARRAY optional LOOP
    IF item IS NULL OR item <> ALL (names) THEN
      PERFORM composure.refuse(format('optional: %s has no column "%s"', composure.describe(r.relation), item),
                               format('Its columns are: %s.', array_to_string(names, ', ')));
    ELSIF item = ANY (coalesce(r.key, composure.find_key(r.relation))) THEN
      PERFORM composure.refuse(format('optional: column "%s" is part of the key', item),
                               'Without it no row has a URL, and no page a cursor.');
    ELSIF r.default_order @> jsonb_build_array(jsonb_build_object('column', item)) THEN
      PERFORM composure.refuse(format('optional: the default order uses column "%s"', item),
                               'No page can be ordered by what is missing: leave it out of default_order, or of optional.');
    ELSIF item = r.owner THEN
      PERFORM composure.refuse(format('optional: column "%s" says whose row it is', item), 'Every query asks for it.');
    ELSIF item = ANY (r.hidden) THEN
      PERFORM composure.refuse(format('optional: column "%s" is hidden', item), 'It is in no answer anyway.');
    END IF;
  END LOOP;
  IF optional <> '{}' THEN
    SELECT min(p.proname) INTO called
      FROM pg_rewrite w
      CROSS JOIN composure.functions_named(ARRAY[w.ev_action::text]) f
      JOIN pg_proc p ON p.oid = f.function
     WHERE w.ev_class = r.relation AND p.provolatile = 'v';
    IF called IS NOT NULL THEN
      RAISE WARNING '% calls the volatile function %(): PostgreSQL may compute a column that calls it where the column is left out, too',
        composure.describe(r.relation), called
        USING HINT = 'If it changes nothing and gives the same result within a statement: ALTER FUNCTION ... STABLE.';
    END IF;
  END IF;
END
$f$;
COMMENT ON FUNCTION composure.check_optional(composure.resource, text[]) IS 'Internal: refuses optional columns that nothing can do without';

-- expose() gets two more arguments at its end.
DROP FUNCTION composure.expose(text, text, text[], text[], text[], text[], text, int, int, text, int, int, text, text, interval, text[], boolean, boolean, boolean);
DROP FUNCTION composure.expose_options(text, oid, boolean, boolean);

CREATE FUNCTION composure.expose_options(p_name text, p_relation oid, p_exact_count boolean, p_regular_expressions boolean,
                                         p_partial boolean, p_optional text[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  counted constant boolean := coalesce(p_exact_count, false);
  matched constant boolean := coalesce(p_regular_expressions, false);
  partly constant boolean := coalesce(p_partial, false);
  missing constant text[] := coalesce(p_optional, '{}');
  r composure.resource;
BEGIN
  SELECT * INTO STRICT r FROM composure.resource known WHERE known.relation = p_relation AND (p_name IS NULL OR known.name = p_name);
  PERFORM composure.check_optional(r, missing);
  -- An UPDATE counts as a change of the catalog, even of no row.
  IF (r.exact_count, r.regular_expressions, r.partial, r.optional) <> (counted, matched, partly, missing) THEN
    UPDATE composure.resource known
       SET exact_count = counted, regular_expressions = matched, partial = partly, optional = missing
     WHERE known.name = r.name;
  END IF;
END
$f$;
COMMENT ON FUNCTION composure.expose_options(text, oid, boolean, boolean, boolean, text[]) IS 'Internal: what expose() sets beside expose_relation()';

CREATE FUNCTION composure.expose(
  relation text,
  name text DEFAULT NULL,
  methods text[] DEFAULT NULL,
  key text[] DEFAULT NULL,
  hidden text[] DEFAULT '{}',
  read_only text[] DEFAULT '{}',
  default_order text DEFAULT NULL,
  page_default int DEFAULT NULL,
  page_max int DEFAULT NULL,
  cache text DEFAULT NULL,
  cost_read int DEFAULT 1,
  cost_write int DEFAULT 1,
  idempotency text DEFAULT 'optional',
  owner text DEFAULT NULL,
  deadline interval DEFAULT NULL,
  depends text[] DEFAULT '{}',
  trust_me boolean DEFAULT false,
  exact_count boolean DEFAULT false,
  regular_expressions boolean DEFAULT false,
  partial boolean DEFAULT false,
  optional text[] DEFAULT '{}')
RETURNS text
LANGUAGE plpgsql
AS $f$
#variable_conflict use_variable
DECLARE
  found pg_catalog.oid := composure.find_relation(relation);
  found_depends pg_catalog.oid[] := '{}';
  dependency text;
  decisions text;
BEGIN
  FOREACH dependency IN ARRAY coalesce(depends, '{}') LOOP
    found_depends := pg_catalog.array_append(found_depends, composure.find_relation(dependency));
  END LOOP;
  decisions := composure.expose_relation(
    found, name, methods, key, hidden, read_only, default_order, page_default, page_max,
    cache, cost_read, cost_write, idempotency, owner, deadline, found_depends, trust_me);
  PERFORM composure.expose_options(name, found, exact_count, regular_expressions, partial, optional);
  RETURN pg_catalog.concat_ws(E'\n', decisions, composure.cache_decision(name, found),
           CASE WHEN exact_count THEN '  count    exact' END,
           CASE WHEN regular_expressions THEN '  filters  match, imatch' END,
           CASE WHEN partial THEN '  partial  also where nobody asks for it' END,
           '  optional ' || nullif(pg_catalog.array_to_string(optional, ', '), ''));
END
$f$;
COMMENT ON FUNCTION composure.expose(text, text, text[], text[], text[], text[], text, int, int, text, int, int, text, text, interval, text[], boolean, boolean, boolean, boolean, text[])
  IS $c$Serves a table, view or materialized view at /name; called again, it replaces all that was said before:
SELECT composure.expose('public.users', hidden => '{password}', cache => 'ttl=30, stale-if-error=600');
name           its path; default: the relation's name
methods        of GET, POST, PATCH, PUT, DELETE; default: what PostgreSQL can do with the relation
key            the columns that identify a row; needed for views
hidden         columns that do not exist for the API
read_only      columns that no request may write
default_order  'created_at desc nulls last, id'; default: the key
page_default, page_max   rows of a page: 50 and 200; at most 1000
cache          'public, max-age=30, stale-while-revalidate=60' for caches, 'ttl=30' for our own; default: private, no-cache
cost_read, cost_write    tokens that a request takes from its rate limit
idempotency    required, optional or none: the Idempotency-Key of writes
owner          the column that says whose row it is
deadline       the longest a request may take: '2 seconds'
depends        tables that a view reads where PostgreSQL does not know: '{public.users}'
trust_me       share cached answers more widely than is safe by default
exact_count    whether "Prefer: count=exact" is taken, which reads every row that fits
regular_expressions      whether filters may use match and imatch
partial        whether an answer may come without an embedded resource that failed, where no client said "Prefer: partial"
optional       columns that such an answer may come without, too: '{score,forecast}'$c$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA composure FROM PUBLIC;
SELECT composure.grant_worker();
UPDATE composure.installation SET catalog_version = catalog_version + 1;

$migration$);
