-- The catalog in parts, which later migrations replace one by one: composure.catalog_resources(),
-- catalog_relationships(), catalog_functions(). New in it: foreign keys between what is served, array types, text search
-- configurations, and two things that a resource may allow: count=exact, and regular expressions in filters.

CALL pg_temp.composure_apply('0006_relationships', $migration$

ALTER TABLE composure.resource
  ADD COLUMN exact_count boolean NOT NULL DEFAULT false,
  ADD COLUMN regular_expressions boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN composure.resource.exact_count IS 'Whether Prefer: count=exact is taken: it reads every row that fits';
COMMENT ON COLUMN composure.resource.regular_expressions IS 'Whether filters may use match and imatch';

-- New columns come behind the old ones; a view takes no column in its middle.
CREATE OR REPLACE VIEW composure.resource_now AS
  SELECT r.name, r.relation, r.methods, r.key, r.hidden, r.read_only, r.default_order, r.page_default, r.page_max,
         r.cache, r.cost_read, r.cost_write, r.idempotency, r.owner, r.deadline_ms, r.depends, r.trust_me, r.exposed_at,
         c.relkind, n.nspname, c.relname, k.found_key,
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
         END AS problem,
         r.exact_count, r.regular_expressions
    FROM composure.resource r
    LEFT JOIN pg_class c ON c.oid = r.relation
    LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL (SELECT coalesce(r.key, composure.find_key(r.relation)) AS found_key OFFSET 0) k;

-- Code of the user's can leave the session other than it was: settings, the role, locks, temporary tables. A statement
-- that may run some gets a session that is cleaned behind it. Volatility says nothing of that: a stable function may
-- call set_config().
CREATE FUNCTION composure.functions_named(trees text[]) RETURNS TABLE (tree bigint, function oid)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT t.n, m[1]::oid FROM unnest(trees) WITH ORDINALITY t (tree, n) CROSS JOIN LATERAL
         regexp_matches(t.tree, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)', 'g') m
  UNION
  SELECT t.n, o.oprcode FROM unnest(trees) WITH ORDINALITY t (tree, n) CROSS JOIN LATERAL
         regexp_matches(t.tree, ':(?:opno|eqop|sortop) (\d{5,})', 'g') m JOIN pg_operator o ON o.oid = m[1]::oid
$f$;
COMMENT ON FUNCTION composure.functions_named(text[]) IS
  'Internal: the functions in stored expressions (pg_node_tree as text), the built-in ones included, which pg_depend does not have';

CREATE FUNCTION composure.code_among(functions oid[]) RETURNS oid[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT coalesce(array_agg(DISTINCT part.function), '{}')
    FROM (SELECT f, f FROM unnest(functions) f
          UNION ALL
          SELECT a.aggfnoid, v.f FROM pg_aggregate a CROSS JOIN LATERAL (
                   VALUES (a.aggtransfn::oid), (a.aggfinalfn::oid), (a.aggmtransfn::oid), (a.aggmfinalfn::oid)) v (f)
           WHERE a.aggfnoid = ANY (functions)) part (function, oid)
    JOIN pg_proc p ON p.oid = part.oid
    JOIN pg_language l ON l.oid = p.prolang
   WHERE CASE WHEN l.lanname IN ('internal', 'c') OR p.oid < 16384
              THEN p.provolatile = 'v' AND p.prokind = 'f' AND p.proname NOT IN (
                'nextval', 'currval', 'lastval', 'random', 'clock_timestamp', 'timeofday',
                'gen_random_uuid', 'gen_random_bytes', 'uuid_generate_v1', 'uuid_generate_v1mc', 'uuid_generate_v4',
                'pg_sleep', 'pg_sleep_for', 'pg_sleep_until')
              ELSE p.prokind <> 'a' END
$f$;
COMMENT ON FUNCTION composure.code_among(oid[]) IS
  'Internal: those that may leave something in the session; of PostgreSQL''s own and of those in C the volatile ones but for some';

-- For all that is served at once: one look through each system catalog, however many resources there are.
CREATE FUNCTION composure.running_code() RETURNS TABLE (relation oid, reading boolean, writing boolean)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
#variable_conflict use_column
DECLARE
  roots constant oid[] := ARRAY(SELECT DISTINCT r.relation FROM composure.resource r);
  reached oid[] := '{}';
  more oid[] := roots;
  edge_from oid[] := '{}';
  edge_to oid[] := '{}';
  edge_writes boolean[] := '{}';
  froms oid[];
  tos oid[];
  writes boolean[];
  tree_of oid[];
  tree_writes boolean[];
  trees text[];
  used oid[];
  used_tree bigint[];
  code oid[];
  types oid[];
  bad oid[] := '{}';
  reads_code oid[];
  writes_code oid[];
BEGIN
  -- What a view or a policy reads, partitions, and where rows go or change with those that they refer to.
  WHILE more <> '{}' LOOP
    reached := reached || more;
    SELECT array_agg(e.a), array_agg(e.b), array_agg(e.w) INTO froms, tos, writes
      FROM (SELECT w.ev_class, d.refobjid, false FROM pg_rewrite w
              JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
             WHERE w.ev_class = ANY (more)
            UNION
            SELECT p.polrelid, d.refobjid, false FROM pg_policy p
              JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_class'::regclass
             WHERE p.polrelid = ANY (more)
            UNION
            SELECT i.inhparent, i.inhrelid, false FROM pg_inherits i WHERE i.inhparent = ANY (more)
            UNION
            SELECT c.confrelid, c.conrelid, true FROM pg_constraint c
             WHERE c.contype = 'f' AND c.confrelid = ANY (more)
               AND (c.confdeltype IN ('c', 'n', 'd') OR c.confupdtype IN ('c', 'n', 'd'))) e (a, b, w)
     WHERE e.a <> e.b;
    edge_from := edge_from || froms;
    edge_to := edge_to || tos;
    edge_writes := edge_writes || writes;
    more := ARRAY(SELECT DISTINCT t FROM unnest(tos) t WHERE t <> ALL (reached));
  END LOOP;

  -- Every expression of theirs, and whether it counts for those who write alone.
  SELECT array_agg(t.relid), array_agg(t.w), array_agg(t.tree) INTO tree_of, tree_writes, trees
    FROM (SELECT w.ev_class, false, w.ev_action::text FROM pg_rewrite w WHERE w.ev_class = ANY (reached)
          UNION ALL
          SELECT p.polrelid, false, concat(p.polqual, p.polwithcheck) FROM pg_policy p WHERE p.polrelid = ANY (reached)
          UNION ALL
          SELECT d.adrelid, a.attgenerated <> 'v', d.adbin::text FROM pg_attrdef d
            JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
           WHERE d.adrelid = ANY (reached)
          UNION ALL
          SELECT c.conrelid, true, c.conbin::text FROM pg_constraint c WHERE c.contype = 'c' AND c.conrelid = ANY (reached)
          UNION ALL
          SELECT i.indrelid, true, concat(i.indexprs, i.indpred) FROM pg_index i
           WHERE i.indrelid = ANY (reached) AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
          UNION ALL
          SELECT t.partrelid, true, t.partexprs::text FROM pg_partitioned_table t
           WHERE t.partrelid = ANY (reached) AND t.partexprs IS NOT NULL) t (relid, w, tree);
  SELECT array_agg(n.tree), array_agg(n.function) INTO used_tree, used FROM composure.functions_named(trees) n;
  code := composure.code_among(used);

  -- Types of which a domain's check or a cast is code, and those made of them.
  types := ARRAY(
    SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = ANY (reached) AND a.attnum > 0 AND a.atttypid >= 16384
    UNION
    SELECT m[1]::oid FROM unnest(trees) t (tree) CROSS JOIN LATERAL regexp_matches(t.tree, ':resulttype (\d{5,})', 'g') m);
  IF types <> '{}' THEN
    more := ARRAY(
      SELECT c.contypid FROM pg_constraint c
       WHERE c.contype = 'c' AND c.contypid <> 0
         AND composure.code_among(ARRAY(SELECT n.function FROM composure.functions_named(ARRAY[c.conbin::text]) n)) <> '{}'
      UNION
      SELECT v.type FROM pg_cast c CROSS JOIN LATERAL (VALUES (c.castsource), (c.casttarget)) v (type)
       WHERE c.castfunc >= 16384 AND v.type >= 16384 AND composure.code_among(ARRAY[c.castfunc]) <> '{}');
    WHILE more <> '{}' LOOP
      bad := bad || more;
      more := ARRAY(
        SELECT t.oid FROM pg_type t
         WHERE (t.typbasetype = ANY (more) OR t.typelem = ANY (more)) AND t.oid <> ALL (bad)
        UNION
        SELECT t.oid FROM pg_attribute a JOIN pg_type t ON t.typrelid = a.attrelid
         WHERE a.atttypid = ANY (more) AND a.attnum > 0 AND t.oid <> ALL (bad));
    END LOOP;
  END IF;

  reads_code := ARRAY(
    SELECT tree_of[u.tree] FROM unnest(used_tree, used) u (tree, function)
     WHERE NOT tree_writes[u.tree] AND u.function = ANY (code)
    UNION
    SELECT a.attrelid FROM pg_attribute a WHERE bad <> '{}' AND a.attrelid = ANY (reached) AND a.atttypid = ANY (bad) AND a.attnum > 0
    UNION
    SELECT t.relid FROM unnest(tree_of, tree_writes, trees) t (relid, w, tree)
      CROSS JOIN LATERAL regexp_matches(t.tree, ':resulttype (\d{5,})', 'g') m
     WHERE bad <> '{}' AND NOT t.w AND m[1]::oid = ANY (bad));
  writes_code := ARRAY(
    SELECT tree_of[u.tree] FROM unnest(used_tree, used) u (tree, function) WHERE u.function = ANY (code)
    UNION
    SELECT t.relid FROM unnest(tree_of, trees) t (relid, tree)
      CROSS JOIN LATERAL regexp_matches(t.tree, ':resulttype (\d{5,})', 'g') m
     WHERE bad <> '{}' AND m[1]::oid = ANY (bad)
    UNION
    SELECT t.tgrelid FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
     WHERE t.tgrelid = ANY (reached) AND NOT t.tgisinternal AND p.pronamespace <> 'composure'::regnamespace);

  RETURN QUERY
    WITH RECURSIVE edge AS MATERIALIZED (
      SELECT e.a, e.b, e.w FROM unnest(edge_from, edge_to, edge_writes) e (a, b, w)
    ), reach (root, relid, writes) AS (
      SELECT r, r, false FROM unnest(roots) r
      UNION
      SELECT reach.root, edge.b, reach.writes OR edge.w FROM reach JOIN edge ON edge.a = reach.relid
    )
    SELECT reach.root,
           coalesce(bool_or(NOT reach.writes AND reach.relid = ANY (reads_code)), false),
           coalesce(bool_or(reach.relid = ANY (reads_code) OR reach.relid = ANY (writes_code)), false)
      FROM reach GROUP BY reach.root;
END
$f$;
COMMENT ON FUNCTION composure.running_code() IS
  'Internal: for each relation that is served, whether reading it, or writing to it, may run functions that leave something in the session';

CREATE FUNCTION composure.catalog_resources() RETURNS json
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
           'cache', s.cache,
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
    LEFT JOIN allowed ON allowed.resource = s.name
$f$;
COMMENT ON FUNCTION composure.catalog_resources() IS 'Internal: the part of catalog() about tables and views';

CREATE FUNCTION composure.catalog_relationships() RETURNS json
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  -- A foreign key to a partitioned table has a row for each partition of it, which is no relationship of its own; the
  -- one that a partition has inherited is, for a partition that is served itself.
  WITH fk AS MATERIALIZED (
    SELECT c.oid, c.conname, c.conrelid, c.confrelid, c.conkey, c.confkey
      FROM pg_constraint c LEFT JOIN pg_constraint parent ON parent.oid = c.conparentid
     WHERE c.contype = 'f'
       AND (parent.oid IS NULL OR parent.conrelid <> c.conrelid)
       AND c.conrelid IN (SELECT relation FROM composure.resource)
       AND c.confrelid IN (SELECT relation FROM composure.resource)
  )
  SELECT coalesce(json_agg(json_build_object(
           'constraint', fk.conname,
           'from', fk.conrelid::bigint,
           'from_columns', (SELECT json_agg(a.attname ORDER BY k.n)
                              FROM unnest(fk.conkey) WITH ORDINALITY k (num, n)
                              JOIN pg_attribute a ON a.attrelid = fk.conrelid AND a.attnum = k.num),
           'to', fk.confrelid::bigint,
           'to_columns', (SELECT json_agg(a.attname ORDER BY k.n)
                            FROM unnest(fk.confkey) WITH ORDINALITY k (num, n)
                            JOIN pg_attribute a ON a.attrelid = fk.confrelid AND a.attnum = k.num),
           'unique', EXISTS (
             SELECT FROM pg_index i
              WHERE i.indrelid = fk.conrelid AND i.indisunique AND i.indisvalid
                AND i.indpred IS NULL AND i.indexprs IS NULL
                AND (SELECT bool_and(i.indkey[n] = ANY (fk.conkey)) FROM generate_series(0, i.indnkeyatts - 1) n)))
           ORDER BY fk.conname, fk.oid), '[]')
    FROM fk
$f$;
COMMENT ON FUNCTION composure.catalog_relationships() IS
  'Internal: the part of catalog() about foreign keys; unique: at most one row on their own side belongs to one on the other';

CREATE FUNCTION composure.catalog_functions() RETURNS json
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT '[]'::json
$f$;
COMMENT ON FUNCTION composure.catalog_functions() IS 'Internal: the part of catalog() about functions';

CREATE OR REPLACE FUNCTION composure.catalog() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT json_build_object(
           'version', i.catalog_version,
           'installation', json_build_object(
             'id', i.id,
             'secret', encode(i.secret, 'hex'),
             'anonymous_role', i.anonymous_role,
             'worker_role', i.worker_role),
           'roles', coalesce((SELECT json_agg(r.role ORDER BY r.role) FROM composure.running_roles() r (role)), '[]'),
           -- By the name that a client writes; of two with one name pg_catalog's.
           'text_search', (SELECT coalesce(json_object_agg(c.cfgname, c.sql), '{}')
                             FROM (SELECT DISTINCT ON (c.cfgname) c.cfgname,
                                          quote_literal(quote_ident(n.nspname) || '.' || quote_ident(c.cfgname))
                                            || '::pg_catalog.regconfig' AS sql
                                     FROM pg_ts_config c JOIN pg_namespace n ON n.oid = c.cfgnamespace
                                    ORDER BY c.cfgname, n.nspname <> 'pg_catalog', n.nspname) c),
           'resources', composure.catalog_resources(),
           'relationships', composure.catalog_relationships(),
           'functions', composure.catalog_functions())::text
    FROM composure.installation i
$f$;

-- catalog_state() tells of foreign keys and of unique indexes, too.
CREATE OR REPLACE FUNCTION composure.catalog_state() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $f$
  -- expose() and the keys count in catalog_version; columns, grants and owners change the xmin of a row here.
  SELECT concat_ws('.',
           (SELECT catalog_version FROM composure.installation),
           (SELECT concat_ws('.', count(*), sum(c.xmin::text::bigint))
              FROM pg_class c WHERE c.oid IN (SELECT relation FROM composure.resource)),
           (SELECT concat_ws('.', count(*), sum(a.xmin::text::bigint))
              FROM pg_attribute a WHERE a.attrelid IN (SELECT relation FROM composure.resource)),
           (SELECT concat_ws('.', count(*), sum(n.xmin::text::bigint))
              FROM pg_namespace n WHERE n.oid IN (
                SELECT c.relnamespace FROM pg_class c JOIN composure.resource r ON r.relation = c.oid)),
           (SELECT concat_ws('.', count(*), sum(m.xmin::text::bigint)) FROM pg_auth_members m),
           -- What running_code() follows, wherever it leads.
           (SELECT concat_ws('.', count(*), sum(t.xmin::text::bigint)) FROM pg_trigger t WHERE NOT t.tgisinternal),
           (SELECT concat_ws('.', count(*), sum(w.xmin::text::bigint)) FROM pg_rewrite w WHERE w.oid >= 16384),
           (SELECT concat_ws('.', count(*), sum(p.xmin::text::bigint)) FROM pg_policy p),
           (SELECT concat_ws('.', count(*), sum(d.xmin::text::bigint)) FROM pg_attrdef d),
           (SELECT concat_ws('.', count(*), sum(c.xmin::text::bigint)) FROM pg_constraint c WHERE c.contype = 'c'),
           (SELECT concat_ws('.', count(*), sum(h.xmin::text::bigint)) FROM pg_inherits h),
           (SELECT concat_ws('.', count(*), sum(c.xmin::text::bigint))
              FROM pg_constraint c WHERE c.contype = 'f' AND c.conrelid IN (SELECT relation FROM composure.resource)),
           (SELECT concat_ws('.', count(*), sum(i.xmin::text::bigint))
              FROM pg_index i WHERE i.indisunique AND i.indrelid IN (SELECT relation FROM composure.resource)))
$f$;

-- expose() gets two more arguments at its end; expose_relation() keeps its own, and what is new is set behind it.
DROP FUNCTION composure.expose(text, text, text[], text[], text[], text[], text, int, int, text, int, int, text, text, interval, text[], boolean);

CREATE FUNCTION composure.expose_options(p_name text, p_relation oid, p_exact_count boolean, p_regular_expressions boolean)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  counted constant boolean := coalesce(p_exact_count, false);
  matched constant boolean := coalesce(p_regular_expressions, false);
BEGIN
  -- An UPDATE counts as a change of the catalog, even of no row.
  IF EXISTS (SELECT FROM composure.resource r
              WHERE r.relation = p_relation AND (p_name IS NULL OR r.name = p_name)
                AND (r.exact_count, r.regular_expressions) <> (counted, matched)) THEN
    UPDATE composure.resource r SET exact_count = counted, regular_expressions = matched
     WHERE r.relation = p_relation AND (p_name IS NULL OR r.name = p_name);
  END IF;
END
$f$;
COMMENT ON FUNCTION composure.expose_options(text, oid, boolean, boolean) IS 'Internal: what expose() sets beside expose_relation()';

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
  regular_expressions boolean DEFAULT false)
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
  PERFORM composure.expose_options(name, found, exact_count, regular_expressions);
  RETURN pg_catalog.concat_ws(E'\n', decisions,
           CASE WHEN exact_count THEN '  count    exact' END,
           CASE WHEN regular_expressions THEN '  filters  match, imatch' END);
END
$f$;
COMMENT ON FUNCTION composure.expose(text, text, text[], text[], text[], text[], text, int, int, text, int, int, text, text, interval, text[], boolean, boolean, boolean)
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
regular_expressions      whether filters may use match and imatch$c$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA composure FROM PUBLIC;
SELECT composure.grant_worker();
UPDATE composure.installation SET catalog_version = catalog_version + 1;

$migration$);
