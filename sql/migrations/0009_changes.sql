-- The change feed carries changes of rows: triggers on the tables that a resource with a ttl reads, and the bounds of
-- caching where they cannot see everything.
--
-- Each table has one function, composure.note_rows_<oid>(), written for it: with the names and keys of the resources that
-- read it. So a trigger needs no look-up and no dynamic SQL; when resources change, only the function is replaced, and the
-- table is not locked. No write fails because of us: where the keys cannot be read (a column was renamed), all rows count
-- as changed.
--
-- A table is followed by statement triggers with transition tables. By row triggers, if rows of it can be changed through
-- another (partitions, inheritance) or by a subscription: statement triggers do not fire there. A partitioned table's
-- row triggers are cloned to its partitions, new ones too; TRUNCATE is always of a statement.

CALL pg_temp.composure_apply('0009_changes', $migration$

-- Hard and soft

ALTER TABLE composure.change ADD COLUMN hard boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN composure.change.hard IS 'Rows went away, or rights changed: what was cached is never served again, not even while PostgreSQL is away';

DROP FUNCTION composure.note_change(text, text[]);

CREATE FUNCTION composure.note_change(resource text, keys text[] DEFAULT NULL, hard boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
#variable_conflict use_column
DECLARE
  -- More keys, or more bytes of them, are "all": what a follower reads in one poll stays small.
  most_keys constant int := 100;
  most_bytes constant int := 4096;
  -- So many rows of one transaction, then one "all" for each of its resources.
  most_rows constant int := 1000;
  listed text[] := note_change.keys;
  rows_before int;
BEGIN
  IF coalesce(note_change.resource, '') = '' THEN
    PERFORM composure.refuse('resource: a change needs one', 'For example: composure.note_change(''users'', ''{1,2}'')');
  END IF;
  IF listed = '{}' THEN
    RETURN;
  END IF;
  IF listed IS NOT NULL THEN
    IF cardinality(listed) > most_keys OR pg_column_size(listed) > most_bytes OR array_ndims(listed) > 1
       OR array_position(listed, NULL) IS NOT NULL THEN
      listed := NULL;
    ELSE
      -- The setting ends with the transaction, and goes back with a savepoint, as the rows do. Whoever sets it by hand
      -- gets one "all" too many or rows too many, never a change that nobody hears of.
      rows_before := coalesce(nullif(current_setting('composure.noted', true), ''), '0')::int;
      IF rows_before >= most_rows THEN
        listed := NULL;
      ELSE
        PERFORM set_config('composure.noted', (rows_before + 1)::text, true);
      END IF;
    END IF;
  END IF;
  -- Under serializable isolation the look would make a conflict of any two writers.
  IF listed IS NULL AND current_setting('transaction_isolation') <> 'serializable' THEN
    IF EXISTS (SELECT FROM composure.change c
                WHERE c.xid = pg_current_xact_id() AND c.resource = note_change.resource AND c.keys IS NULL
                  AND c.hard >= coalesce(note_change.hard, false)) THEN
      RETURN;
    END IF;
  END IF;
  INSERT INTO composure.change (resource, keys, hard) VALUES (note_change.resource, listed, coalesce(note_change.hard, false));
END
$f$;
COMMENT ON FUNCTION composure.note_change(text, text[], boolean) IS
  $c$Internal: tells the followers of the feed, once this transaction commits, that rows changed; without keys: all of them
hard  what was cached of them must never be served again$c$;

DROP FUNCTION composure.feed_poll(pg_snapshot);

CREATE FUNCTION composure.feed_poll(previous pg_snapshot)
RETURNS TABLE (snapshot text, epoch text, gone text, resource text, keys text[], hard boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 10
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS $f$
BEGIN
  -- One statement: the snapshot that is returned is the one by which the rows were read. @all: a transaction ended
  -- whose rows a crash took.
  RETURN QUERY
  WITH s AS MATERIALIZED (SELECT pg_current_snapshot() AS now)
  SELECT s.now::text, e.epoch, e.gone::text, NULL::text, NULL::text[], NULL::boolean
    FROM s LEFT JOIN (
           -- The rest betrays a row that was copied or restored into another database, or lived through a restart.
           SELECT concat_ws('.', f.id, f.tableoid, d.oid, extract(epoch FROM pg_postmaster_start_time())) AS epoch, f.gone
             FROM composure.feed_epoch f, pg_database d WHERE f.one AND d.datname = current_database()) e
         ON e.gone < pg_snapshot_xmax(s.now)
  UNION ALL
  SELECT NULL, NULL, NULL, '@all', NULL, true
    FROM s JOIN composure.feed_epoch f ON f.one
   WHERE f.orphans <> '{}'
     AND EXISTS (SELECT FROM pg_snapshot_xip(previous) x WHERE x = ANY (f.orphans) AND pg_visible_in_snapshot(x, s.now))
  UNION ALL
  (SELECT NULL, NULL, NULL, c.resource, c.keys, c.hard
     FROM s CROSS JOIN LATERAL (
       SELECT a.resource, a.keys, a.hard FROM composure.change a
        WHERE a.xid >= pg_snapshot_xmax(previous) AND a.xid < pg_snapshot_xmax(s.now)
       UNION ALL
       SELECT b.resource, b.keys, b.hard FROM composure.change b
        WHERE b.xid = ANY (ARRAY(SELECT x FROM pg_snapshot_xip(previous) x WHERE pg_visible_in_snapshot(x, s.now)))) c
    LIMIT 10001);
END
$f$;
COMMENT ON FUNCTION composure.feed_poll(pg_snapshot) IS
  $c$For the workers: a row with the snapshot to give next time, the feed's epoch and what was deleted, then one for each
change that previous did not see and that snapshot sees, at most 10001 of them. Without previous: none.
epoch  another than before, or NULL: take everything for changed; NULL: then composure.feed_begin()
gone   not below the xmax of previous: take everything for changed
hard   never serve again what was cached of it$c$;

CREATE OR REPLACE FUNCTION composure.rights_changed() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
BEGIN
  PERFORM composure.note_change('@all', NULL, true);
END
$f$;

CREATE FUNCTION composure.purge(resource text, key text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
BEGIN
  IF NOT EXISTS (SELECT FROM composure.resource r WHERE r.name = purge.resource) THEN
    PERFORM composure.refuse(
      format('nothing is exposed as "%s"', purge.resource),
      coalesce((SELECT 'Exposed are: ' || string_agg(r.name, ', ' ORDER BY r.name) || '.' FROM composure.resource r),
               'Nothing is exposed yet.'));
  ELSIF purge.key = '' THEN
    PERFORM composure.refuse('key: it is empty', 'Write it as in the item''s path: ''128'', or ''1,DE''; without it all rows are meant.');
  END IF;
  PERFORM composure.note_change(purge.resource, CASE WHEN purge.key IS NOT NULL THEN ARRAY[purge.key] END, true);
  RETURN format('/%s is no longer served from the cache', concat_ws('/', purge.resource, purge.key));
END
$f$;
COMMENT ON FUNCTION composure.purge(text, text) IS
  $c$Takes a resource, or a row of it, out of every cache of ours: SELECT composure.purge('users', '128')
key  as in the item's path, the parts of a composite one by comma$c$;

-- What is followed

CREATE TABLE composure.followed (
  resource text NOT NULL,
  relation regclass NOT NULL,
  key text[],
  hard boolean NOT NULL,
  PRIMARY KEY (resource, relation)
);
CREATE INDEX followed_by_relation ON composure.followed (relation);
COMMENT ON TABLE composure.followed IS 'What is read by resources with a ttl, as the triggers were last made';
COMMENT ON COLUMN composure.followed.key IS 'The columns by which its rows are noted; NULL: any change is one of the whole resource';
COMMENT ON COLUMN composure.followed.hard IS 'Row-level security reads it: any change of it is one of rights';

CREATE TABLE composure.followed_relation (
  relation regclass PRIMARY KEY,
  contents text NOT NULL,
  problem text
);
COMMENT ON TABLE composure.followed_relation IS 'The relations in composure.followed';
COMMENT ON COLUMN composure.followed_relation.contents IS
  'The file of a table, the version of a materialized view: another one has other rows, and no trigger told of it';
COMMENT ON COLUMN composure.followed_relation.problem IS 'Why its triggers are not there';

CREATE TABLE composure.followed_state (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  state text NOT NULL DEFAULT '',
  again_at timestamptz,
  pause interval NOT NULL DEFAULT '0'
);
INSERT INTO composure.followed_state DEFAULT VALUES;
COMMENT ON TABLE composure.followed_state IS 'One row: composure.follow_state() when all was last looked at';
COMMENT ON COLUMN composure.followed_state.again_at IS 'When to try again what failed though we may do it: a lock was held';
COMMENT ON COLUMN composure.followed_state.pause IS 'How long that took to come; it doubles, up to a minute';

CREATE FUNCTION composure.has_ttl(cache text) RETURNS boolean
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT coalesce(cache ~ '(^|, )ttl=[0-9]*[1-9]', false)
$f$;
COMMENT ON FUNCTION composure.has_ttl(text) IS 'Internal: whether a cache policy keeps answers in our own cache';

CREATE FUNCTION composure.is_own_business(relation oid) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT c.oid < 16384 OR c.relnamespace IN ('composure'::regnamespace, 'pg_catalog'::regnamespace, 'information_schema'::regnamespace)
    FROM pg_class c WHERE c.oid = relation
$f$;
COMMENT ON FUNCTION composure.is_own_business(oid) IS 'Internal: whether a relation is PostgreSQL''s or ours, and gets no triggers';

CREATE FUNCTION composure.reads(names text[], all_of_them boolean DEFAULT false)
RETURNS TABLE (resource text, relation oid, key text[], hard boolean)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
#variable_conflict use_column
DECLARE
  served text[];
  roots oid[];
  keys text[];
  more oid[];
  reached oid[] := '{}';
  edge_from oid[] := '{}';
  edge_to oid[] := '{}';
  edge_kind text[] := '{}';
  froms oid[];
  tos oid[];
  kinds text[];
BEGIN
  SELECT array_agg(r.name), array_agg(r.relation::oid) INTO served, roots
    FROM composure.resource r JOIN pg_class c ON c.oid = r.relation
   WHERE (names IS NULL OR r.name = ANY (names)) AND (all_of_them OR composure.has_ttl(r.cache));
  more := ARRAY(SELECT unnest(roots) UNION
                SELECT unnest(r.depends)::oid FROM composure.resource r WHERE r.name = ANY (served));
  WHILE more <> '{}' LOOP
    reached := reached || more;
    -- A materialized view changes when it is refreshed, whatever it was made from.
    SELECT array_agg(e.a), array_agg(e.b), array_agg(e.k) INTO froms, tos, kinds
      FROM (SELECT w.ev_class, d.refobjid, 'view' FROM pg_rewrite w
              JOIN pg_class c ON c.oid = w.ev_class AND c.relkind = 'v'
              JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
             WHERE w.ev_class = ANY (more) AND w.ev_type = '1' AND NOT composure.is_own_business(w.ev_class)
            UNION
            SELECT p.polrelid, d.refobjid, 'policy' FROM pg_policy p
              JOIN pg_class c ON c.oid = p.polrelid AND c.relrowsecurity
              JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_class'::regclass
             WHERE p.polrelid = ANY (more) AND p.polcmd IN ('r', '*')
            UNION
            SELECT i.inhparent, i.inhrelid, 'child' FROM pg_inherits i WHERE i.inhparent = ANY (more)) e (a, b, k)
     WHERE e.a <> e.b;
    edge_from := edge_from || froms;
    edge_to := edge_to || tos;
    edge_kind := edge_kind || kinds;
    more := ARRAY(SELECT DISTINCT t FROM unnest(tos) t WHERE t <> ALL (reached));
  END LOOP;

  -- 1: its own rows, 2: read for them, 3: read to decide who sees them. The highest says all that the others do.
  RETURN QUERY
    WITH RECURSIVE edge AS MATERIALIZED (
      SELECT e.a, e.b, e.k FROM unnest(edge_from, edge_to, edge_kind) e (a, b, k)
    ), reach (name, relid, how) AS (
      (SELECT s.name, s.root, 1 FROM unnest(served, roots) s (name, root)
       UNION ALL
       SELECT r.name, d::oid, 2 FROM composure.resource r CROSS JOIN unnest(r.depends) d WHERE r.name = ANY (served))
      UNION
      SELECT reach.name, edge.b, CASE edge.k WHEN 'policy' THEN 3 WHEN 'view' THEN greatest(reach.how, 2) ELSE reach.how END
        FROM reach JOIN edge ON edge.a = reach.relid
    )
    SELECT w.name, w.relid, CASE WHEN w.how = 1 THEN n.found_key END, w.how = 3
      FROM (SELECT reach.name, reach.relid, max(reach.how) AS how FROM reach JOIN pg_class c ON c.oid = reach.relid
             GROUP BY 1, 2) w
      JOIN (SELECT now.name, now.found_key FROM composure.resource_now now WHERE now.name = ANY (served) OFFSET 0) n ON n.name = w.name;
END
$f$;
COMMENT ON FUNCTION composure.reads(text[], boolean) IS
  'Internal: the relations that reading a resource with a ttl (or any) reads, views and policies and children followed; those that functions read are not known';

-- The triggers

-- What the table's function has to note: not what a partitioned table above it notes by the triggers that it cloned.
CREATE FUNCTION composure.noted_by(p_relation oid) RETURNS TABLE (resource text, key text[], hard boolean)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT f.resource, f.key, f.hard
    FROM composure.followed f JOIN pg_class c ON c.oid = f.relation
   WHERE f.relation = p_relation AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
     AND NOT composure.is_own_business(c.oid)
     AND NOT (c.relispartition AND EXISTS (
       SELECT FROM pg_partition_ancestors(p_relation) a JOIN composure.followed g ON g.relation = a.relid
        WHERE a.relid <> p_relation AND g.resource = f.resource AND g.key IS NOT DISTINCT FROM f.key AND g.hard = f.hard))
$f$;
COMMENT ON FUNCTION composure.noted_by(oid) IS 'Internal: what the triggers of a table note, without what comes down from a partitioned table';

-- Some types are written as the writer's settings say; an item's path has them as the workers' say.
CREATE FUNCTION composure.note_settings(p_relation oid) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT CASE WHEN EXISTS (
    SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
     WHERE a.attrelid = p_relation AND t.typtype <> 'e'
       AND a.attname IN (SELECT unnest(f.key)::name FROM composure.followed f WHERE f.relation = p_relation)
       AND t.oid <> ALL ('{bool,"\"char\"",name,int8,int2,int4,text,oid,bpchar,varchar,numeric,uuid,inet,cidr,macaddr}'::regtype[]::oid[]))
    THEN ' SET timezone = ''UTC'' SET datestyle = ''ISO'' SET intervalstyle = ''postgres'' SET extra_float_digits = 1 SET bytea_output = ''hex''' ELSE '' END
$f$;
COMMENT ON FUNCTION composure.note_settings(oid) IS 'Internal: the settings that the keys of a table need to be written with';

CREATE FUNCTION composure.note_body(p_relation oid) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  by_row constant boolean :=
    (SELECT c.relkind = 'p' FROM pg_class c WHERE c.oid = p_relation)
    OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = p_relation)
    OR EXISTS (SELECT FROM pg_subscription_rel s WHERE s.srrelid = p_relation);
  item record;
  new_key text;
  old_key text;
  select_key text;
  any_row text;
  inserted text := '';
  updated text := '';
  deleted text := '';
  notes text := '';
  unknown text := '';
  variables text := '';
BEGIN
  FOR item IN
    SELECT n.key, n.num, count(*) AS resources,
           string_agg(format(E'PERFORM composure.note_change(%L, k%s, %s);\n', n.resource, n.num,
                             CASE WHEN n.hard THEN 'true' ELSE 'hard' END), '    ' ORDER BY n.resource) AS calls,
           string_agg(format('(%L, k%s, hard)', n.resource, n.num), ', ' ORDER BY n.resource) AS rows
      FROM (SELECT *, dense_rank() OVER (ORDER BY w.key) AS num FROM composure.noted_by(p_relation) w) n
     GROUP BY n.key, n.num ORDER BY n.num
  LOOP
    variables := variables || format(E'  k%s text[];\n', item.num);
    unknown := unknown || format(E'      k%s := NULL;\n', item.num);
    IF item.key IS NULL THEN
      notes := notes || format(E'  IF k%1$s IS NULL THEN\n    %2$s  END IF;\n', item.num, item.calls);
      CONTINUE WHEN by_row;
      any_row := format(E'        k%s := CASE WHEN EXISTS (SELECT FROM %%s_rows) THEN NULL ELSE ''{}'' END;\n', item.num);
      inserted := inserted || format(any_row, 'new');
      updated := updated || format(any_row, 'new');
      deleted := deleted || format(any_row, 'old');
      CONTINUE;
    END IF;
    -- What note_change() does, without the call where that is all.
    notes := notes || format(
      E'  noted := coalesce(nullif(current_setting(''composure.noted'', true), ''''), ''0'');\n'
      '  IF cardinality(k%1$s) BETWEEN 1 AND 100 AND pg_column_size(k%1$s) <= 4096 AND noted < 1000 THEN\n'
      '    noted := set_config(''composure.noted'', (noted + %2$s)::text, true);\n'
      '    INSERT INTO composure.change (resource, keys, hard) VALUES %3$s;\n'
      '  ELSIF k%1$s IS NULL OR k%1$s <> ''{}'' THEN\n    %4$s  END IF;\n', item.num, item.resources, item.rows, item.calls);
    -- As an item's path has it. concat() and no cast, which would take the blanks off a char(n).
    SELECT format('concat(%s)', string_agg('NEW.' || quote_ident(k.name), ', '','', ' ORDER BY k.n)),
           format('concat(%s)', string_agg('OLD.' || quote_ident(k.name), ', '','', ' ORDER BY k.n)),
           format('SELECT concat(%s)', string_agg('r.' || quote_ident(k.name), ', '','', ' ORDER BY k.n))
      INTO new_key, old_key, select_key
      FROM unnest(item.key) WITH ORDINALITY k (name, n);
    IF by_row THEN
      inserted := inserted || format(E'        k%s := ARRAY[%s];\n', item.num, new_key);
      deleted := deleted || format(E'        k%s := ARRAY[%s];\n', item.num, old_key);
      updated := updated || format(
        E'        k%1$s := ARRAY[%2$s];\n        IF %3$s <> k%1$s[1] THEN\n          k%1$s := ARRAY[k%1$s[1], %3$s];\n        END IF;\n',
        item.num, new_key, old_key);
    ELSE
      inserted := inserted || format(E'        k%s := ARRAY(%s FROM new_rows r LIMIT 101);\n', item.num, select_key);
      deleted := deleted || format(E'        k%s := ARRAY(%s FROM old_rows r LIMIT 101);\n', item.num, select_key);
      updated := updated || format(
        E'        k%s := ARRAY((%2$s FROM new_rows r LIMIT 101) UNION (%2$s FROM old_rows r LIMIT 101));\n',
        item.num, select_key);
    END IF;
  END LOOP;
  IF notes = '' THEN
    RETURN NULL;
  END IF;
  RETURN format(E'-- by %s\n%sDECLARE\n%s  noted int;\n  hard constant boolean := TG_OP IN (''DELETE'', ''TRUNCATE'');\nBEGIN\n',
                CASE WHEN by_row THEN 'row' ELSE 'statement' END,
                CASE WHEN composure.note_settings(p_relation) <> '' THEN E'-- under settings of our own\n' END, variables)
    || CASE WHEN inserted <> '' THEN format(
         E'  IF TG_OP <> ''TRUNCATE'' THEN\n    BEGIN\n      IF TG_OP = ''INSERT'' THEN\n%s      ELSIF TG_OP = ''DELETE'' THEN\n%s      ELSE\n%s      END IF;\n'
         '    EXCEPTION WHEN OTHERS THEN\n%s    END;\n  END IF;\n', inserted, deleted, updated, unknown) ELSE '' END
    || notes || E'  RETURN NULL;\nEND\n';
END
$f$;
COMMENT ON FUNCTION composure.note_body(oid) IS 'Internal: the text of a table''s composure.note_rows_<oid>(); NULL: it needs none';

CREATE FUNCTION composure.triggers_wanted(relations oid[]) RETURNS TABLE (relation oid, owner oid, event text, definition text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT t.relid, p.relid, e.event,
         format('CREATE TRIGGER composure_%s_%s AFTER %s ON %s EXECUTE FUNCTION composure.note_rows_%1$s()', p.relid, e.event,
                upper(replace(e.event, 'rows', 'insert or update or delete')),
                format('%I.%I', n.nspname, c.relname)
                || CASE e.event WHEN 'insert' THEN ' REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT'
                                WHEN 'update' THEN ' REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT'
                                WHEN 'delete' THEN ' REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT'
                                WHEN 'rows' THEN ' FOR EACH ROW' ELSE ' FOR EACH STATEMENT' END)
    FROM (SELECT r.relid, f.prosrc LIKE '-- by row%' AS by_row FROM unnest(relations) r (relid)
            JOIN pg_proc f ON f.pronamespace = 'composure'::regnamespace AND f.proname = ('note_rows_' || r.relid)::name) p
    CROSS JOIN LATERAL (SELECT p.relid UNION SELECT tree.relid FROM pg_partition_tree(p.relid) tree) t
    JOIN pg_class c ON c.oid = t.relid AND c.relkind IN ('r', 'p')
    JOIN pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN unnest('{insert,update,delete,rows,truncate}'::text[]) e (event)
   WHERE e.event = 'truncate' OR (t.relid = p.relid AND (e.event = 'rows') = p.by_row)
$f$;
COMMENT ON FUNCTION composure.triggers_wanted(oid[]) IS
  'Internal: the triggers that call the functions of these tables; a partitioned table''s is called by TRUNCATE of its partitions too';

CREATE FUNCTION composure.keep_triggers(names text[]) RETURNS text[]
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
AS $f$
#variable_conflict use_variable
DECLARE
  changed text[];
  affected oid[];
  repaired oid[] := '{}';
  relids oid[];
  failed oid[] := '{}';
  problems text[] := '{}';
  item record;
  body text;
BEGIN
  -- What is read
  WITH now AS MATERIALIZED (
    SELECT * FROM composure.reads(names)
  ), made AS (
    INSERT INTO composure.followed AS f (resource, relation, key, hard)
    SELECT n.resource, n.relation, n.key, n.hard FROM now n
     WHERE NOT EXISTS (SELECT FROM composure.followed o
                        WHERE o.resource = n.resource AND o.relation = n.relation
                          AND o.key IS NOT DISTINCT FROM n.key AND o.hard = n.hard)
    ON CONFLICT ON CONSTRAINT followed_pkey DO UPDATE SET key = excluded.key, hard = excluded.hard
    RETURNING f.resource, f.relation
  ), gone AS (
    DELETE FROM composure.followed f
     WHERE (names IS NULL OR f.resource = ANY (names))
       AND NOT EXISTS (SELECT FROM now n WHERE n.resource = f.resource AND n.relation = f.relation)
    RETURNING f.resource, f.relation
  )
  SELECT array_agg(DISTINCT c.resource), array_agg(DISTINCT c.relation::oid) INTO changed, affected
    FROM (SELECT * FROM made UNION ALL SELECT * FROM gone) c;
  affected := ARRAY(SELECT unnest(affected)
                    UNION SELECT f.relation FROM composure.followed f WHERE names IS NULL OR f.resource = ANY (names)
                    UNION SELECT substr(p.proname, 11)::oid FROM pg_proc p
                           WHERE names IS NULL AND p.pronamespace = 'composure'::regnamespace AND p.proname ~ '^note_rows_[0-9]+$'
                    ORDER BY 1);

  -- The functions
  FOR item IN
    SELECT r.relid, format('composure.note_rows_%s()', r.relid) AS name, p.prosrc AS source, composure.note_body(r.relid) AS wanted
      FROM unnest(affected) r (relid)
      LEFT JOIN pg_proc p ON p.pronamespace = 'composure'::regnamespace AND p.proname = ('note_rows_' || r.relid)::name
     ORDER BY r.relid
  LOOP
    CONTINUE WHEN item.source IS NOT DISTINCT FROM item.wanted;
    BEGIN
      IF item.wanted IS NULL OR split_part(item.source, E'\n', 1) <> split_part(item.wanted, E'\n', 1) THEN
        -- Its triggers go with it; to drop them one by one we would have to own the table.
        EXECUTE format('DROP FUNCTION IF EXISTS %s CASCADE', item.name);
      END IF;
      IF item.wanted IS NOT NULL THEN
        EXECUTE format('CREATE OR REPLACE FUNCTION %s RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp%s AS %L',
                       item.name, composure.note_settings(item.relid), item.wanted);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', item.name);
        EXECUTE format('COMMENT ON FUNCTION %s IS %L', item.name, 'Internal: notes changes of ' || composure.describe(item.relid));
      END IF;
      repaired := repaired || item.relid;
    EXCEPTION WHEN OTHERS THEN
      failed := failed || item.relid;
      problems := problems || SQLERRM;
    END;
  END LOOP;

  -- The triggers: those that are missing, those that are of no use, those that do not always fire.
  FOR item IN
    WITH wanted AS MATERIALIZED (
      SELECT w.*, format('composure_%s_%s', w.owner, w.event)::name AS name, ('note_rows_' || w.owner)::name AS function
        FROM composure.triggers_wanted(affected) w
    ), present AS MATERIALIZED (
      SELECT t.tgrelid, t.tgname, t.tgparentid, t.tgenabled, p.proname AS function
        FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
       WHERE p.pronamespace = 'composure'::regnamespace AND p.proname ~ '^note_rows_[0-9]+$'
         AND (names IS NULL OR substr(p.proname, 11)::oid = ANY (affected))
    )
    SELECT w.relation AS relid, w.definition AS command
      FROM wanted w LEFT JOIN present p ON p.tgrelid = w.relation AND p.tgname = w.name AND p.function = w.function
     WHERE p.tgrelid IS NULL
    UNION ALL
    SELECT p.tgrelid, format('DROP TRIGGER IF EXISTS %I ON %s', p.tgname, format('%I.%I', n.nspname, c.relname))
      FROM present p
      JOIN pg_class c ON c.oid = p.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN wanted w ON p.tgrelid = w.relation AND p.tgname = w.name AND p.function = w.function
     WHERE w.relation IS NULL AND p.tgparentid = 0 AND pg_has_role(c.relowner, 'USAGE')
     ORDER BY 1, 2
  LOOP
    BEGIN
      EXECUTE item.command;
      repaired := repaired || item.relid;
    EXCEPTION WHEN OTHERS THEN
      failed := failed || item.relid;
      problems := problems || SQLERRM;
    END;
  END LOOP;

  FOR item IN
    SELECT t.tgrelid AS relid, format('ALTER TABLE %I.%I ENABLE ALWAYS TRIGGER %I', n.nspname, c.relname, t.tgname) AS command
      FROM pg_proc p JOIN pg_trigger t ON t.tgfoid = p.oid
      JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE p.pronamespace = 'composure'::regnamespace AND p.proname ~ '^note_rows_[0-9]+$'
       AND (names IS NULL OR substr(p.proname, 11)::oid = ANY (affected))
       AND t.tgenabled <> 'A' AND pg_has_role(c.relowner, 'USAGE')
     ORDER BY t.tgparentid <> 0, 1, 2
  LOOP
    BEGIN
      EXECUTE item.command;
      repaired := repaired || item.relid;
    EXCEPTION WHEN OTHERS THEN
      failed := failed || item.relid;
      problems := problems || SQLERRM;
    END;
  END LOOP;

  -- Their contents, and what went wrong
  DELETE FROM composure.followed_relation r WHERE NOT EXISTS (SELECT FROM composure.followed f WHERE f.relation = r.relation);
  WITH now AS MATERIALIZED (
    SELECT c.oid AS relid, concat_ws(' ', c.relkind, c.relfilenode, CASE WHEN c.relkind = 'm' THEN c.xmin END) AS contents,
           (SELECT min(p.problem) FROM unnest(failed, problems) p (relid, problem) WHERE p.relid = c.oid) AS problem
      FROM pg_class c
     WHERE c.oid IN (SELECT f.relation FROM composure.followed f WHERE f.relation = ANY (affected))
  ), put AS (
    INSERT INTO composure.followed_relation AS r (relation, contents, problem)
    SELECT n.relid, n.contents, n.problem FROM now n
      LEFT JOIN composure.followed_relation o ON o.relation = n.relid
     WHERE (o.contents, o.problem) IS DISTINCT FROM (n.contents, n.problem)
    ON CONFLICT (relation) DO UPDATE SET contents = excluded.contents, problem = excluded.problem
    RETURNING r.relation
  )
  SELECT array_agg(p.relation) INTO relids FROM put p;
  RETURN ARRAY(SELECT unnest(changed)
               UNION SELECT f.resource FROM composure.followed f
                      WHERE f.relation = ANY (repaired || relids)
                        AND f.relation <> ALL (failed)
               ORDER BY 1);
END
$f$;
COMMENT ON FUNCTION composure.keep_triggers(text[]) IS
  'Internal: makes what these resources (NULL: all) read followed by triggers, as far as we may; the resources that had changed';

-- A trigger, so that whoever writes composure.resource by hand is followed too.
CREATE FUNCTION composure.follow_resources() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $f$
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    PERFORM composure.keep_triggers(NULL);
  ELSIF TG_OP = 'INSERT' THEN
    PERFORM composure.keep_triggers(ARRAY(SELECT name FROM after));
  ELSIF TG_OP = 'DELETE' THEN
    PERFORM composure.keep_triggers(ARRAY(SELECT name FROM before));
  ELSE
    PERFORM composure.keep_triggers(ARRAY(SELECT name FROM before UNION SELECT name FROM after));
  END IF;
  RETURN NULL;
END
$f$;
COMMENT ON FUNCTION composure.follow_resources() IS 'Internal: triggers come and go with the resources that need them';

CREATE TRIGGER follow_insert AFTER INSERT ON composure.resource
  REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION composure.follow_resources();
CREATE TRIGGER follow_update AFTER UPDATE ON composure.resource
  REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION composure.follow_resources();
CREATE TRIGGER follow_delete AFTER DELETE ON composure.resource
  REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION composure.follow_resources();
CREATE TRIGGER follow_truncate AFTER TRUNCATE ON composure.resource
  FOR EACH STATEMENT EXECUTE FUNCTION composure.follow_resources();

CREATE FUNCTION composure.follow_state() RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $f$
BEGIN
  -- In plpgsql for its plan, which is kept.
  RETURN concat_ws('.',
           (SELECT catalog_version FROM composure.installation),
           (SELECT concat_ws('.', count(*), sum(c.xmin::text::bigint))
              FROM pg_class c WHERE c.oid IN (SELECT r.relation FROM composure.followed_relation r)),
           -- Columns of keys that are still there under their names.
           (SELECT count(*) FROM composure.followed f CROSS JOIN LATERAL unnest(f.key) k (name) CROSS JOIN LATERAL (
                     SELECT FROM pg_attribute a WHERE a.attrelid = f.relation AND a.attname = k.name::name LIMIT 1) a),
           (SELECT concat_ws('.', count(*), sum(i.xmin::text::bigint)) FROM pg_index i
             WHERE i.indisunique AND i.indrelid IN (SELECT r.relation FROM composure.followed_relation r)),
           (SELECT concat_ws('.', count(*), sum(t.xmin::text::bigint)) FROM pg_trigger t WHERE NOT t.tgisinternal),
           (SELECT concat_ws('.', count(*), sum(w.xmin::text::bigint)) FROM pg_rewrite w WHERE w.oid >= 16384),
           (SELECT concat_ws('.', count(*), sum(p.xmin::text::bigint)) FROM pg_policy p),
           (SELECT concat_ws('.', count(*), sum(h.xmin::text::bigint)) FROM pg_inherits h),
           (SELECT count(*) FROM pg_subscription_rel));
END
$f$;
COMMENT ON FUNCTION composure.follow_state() IS 'Internal: changes when triggers may be missing';

CREATE FUNCTION composure.follow_tables() RETURNS text[]
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '50ms'
AS $f$
DECLARE
  now constant text := composure.follow_state();
  repaired text[];
  failed boolean;
  one text;
BEGIN
  IF (SELECT s.state = now AND coalesce(s.again_at > clock_timestamp(), true) FROM composure.followed_state s) THEN
    RETURN '{}';
  END IF;
  -- One at a time, and not beside expose().
  PERFORM FROM composure.installation FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN '{}';
  END IF;
  repaired := composure.keep_triggers(NULL);
  -- Nothing told of what was written while they were missing. A materialized view was only made anew.
  FOREACH one IN ARRAY repaired LOOP
    PERFORM composure.note_change(one, NULL, NOT EXISTS (
      SELECT FROM composure.resource r JOIN pg_class c ON c.oid = r.relation WHERE r.name = one AND c.relkind = 'm'));
  END LOOP;
  -- By what was there before the look: what came since, our own doing too, is looked at the next time.
  failed := EXISTS (SELECT FROM composure.followed_relation r
                     WHERE r.problem IS NOT NULL AND has_table_privilege(r.relation::oid, 'TRIGGER'));
  UPDATE composure.followed_state s
     SET state = now,
         pause = CASE WHEN failed THEN least(greatest(s.pause * 2, interval '1 second'), interval '1 minute') ELSE '0' END,
         again_at = CASE WHEN failed THEN clock_timestamp() + least(s.pause, interval '1 minute') END;
  RETURN repaired;
END
$f$;
COMMENT ON FUNCTION composure.follow_tables() IS
  $c$For the workers: makes triggers that are missing (a partition was attached, a table swapped), drops those of no use, notes
what was refreshed, rewritten or not followed for a while as changed; the names of those resources. Waits for no lock longer than 50 ms: call it each second$c$;

-- How widely, and for how long

CREATE FUNCTION composure.cache_scopes_of(names text[]) RETURNS TABLE (name text, scope text, ttl_bound_ms int, reason text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $f$
#variable_conflict use_column
DECLARE
  blind_ttl_ms constant int := 5000;
  read_names text[];
  read_relations oid[];
  relations oid[];
  tree_of oid[];
  trees text[];
  used_by oid[];
  used oid[];
BEGIN
  SELECT array_agg(r.resource), array_agg(r.relation) INTO read_names, read_relations FROM composure.reads(names, true) r;
  relations := ARRAY(SELECT DISTINCT unnest(read_relations));
  SELECT array_agg(t.relid), array_agg(t.tree) INTO tree_of, trees
    FROM (SELECT w.ev_class, w.ev_action::text FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class AND c.relkind = 'v'
           WHERE w.ev_class = ANY (relations) AND w.ev_type = '1' AND NOT composure.is_own_business(w.ev_class)
          UNION ALL
          SELECT p.polrelid, p.polqual::text FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid AND c.relrowsecurity
           WHERE p.polrelid = ANY (relations) AND p.polcmd IN ('r', '*')) t (relid, tree)
   WHERE t.tree IS NOT NULL;
  SELECT array_agg(u.relid), array_agg(u.function) INTO used_by, used
    FROM (SELECT tree_of[n.tree] AS relid, n.function FROM composure.functions_named(trees) n) u;

  RETURN QUERY
    WITH call AS MATERIALIZED (
      SELECT DISTINCT u.relid, f.oid AS function, f.proname::text AS proname,
             p.provolatile = 'v' AS volatile,
             p.provolatile <> 'v' AND (p.oid >= 16384 AND p.provolatile <> 'i'
                                       OR p.oid < 16384 AND p.proname ~ '_to_xml') AS hides,
             p.oid < 16384 AND (p.proname IN ('now', 'transaction_timestamp', 'statement_timestamp') OR p.proname = 'age' AND p.pronargs = 1) AS clock
        FROM unnest(used_by, used) u (relid, function)
        JOIN pg_proc f ON f.oid = u.function
        LEFT JOIN pg_aggregate a ON a.aggfnoid = f.oid
        CROSS JOIN LATERAL (VALUES (f.oid), (a.aggtransfn::oid), (a.aggfinalfn::oid)) v (oid)
        JOIN pg_proc p ON p.oid = v.oid
    ), by_relation AS MATERIALIZED (
      SELECT r.relid, composure.describe(r.relid) AS what,
             (SELECT min(c.proname) FROM call c WHERE c.relid = r.relid AND c.volatile) AS volatile,
             (SELECT min(c.proname) FROM call c WHERE c.relid = r.relid AND c.hides) AS hides,
             -- CURRENT_DATE and its like, up to LOCALTIMESTAMP, are no functions.
             EXISTS (SELECT FROM call c WHERE c.relid = r.relid AND c.clock)
               OR EXISTS (SELECT FROM unnest(tree_of, trees) t (relid, tree)
                           WHERE t.relid = r.relid AND t.tree ~ '\{SQLVALUEFUNCTION :op [0-8] ') AS clock,
             CASE
               WHEN s.what IS NOT NULL THEN 'it reads ' || s.what
               WHEN k.relkind = 'v' AND NOT composure.is_own_business(k.oid) THEN NULL
               WHEN k.relkind = 'm' THEN 'it is refreshed, by no trigger that tells'
               WHEN k.relkind = 'f' THEN 'its rows are elsewhere'
               WHEN k.relkind NOT IN ('r', 'p') OR composure.is_own_business(k.oid) THEN 'it can have no trigger of ours'
               WHEN NOT has_table_privilege(k.oid, 'TRIGGER') THEN format('role "%s" may make no trigger on it', current_user)
               ELSE 'its triggers are missing: ' || fr.problem
             END AS unseen
        FROM unnest(relations) r (relid)
        JOIN pg_class k ON k.oid = r.relid
        -- pg_depend has none of PostgreSQL's own.
        CROSS JOIN LATERAL (
          SELECT min(composure.describe(m[1]::oid)) AS what
            FROM unnest(tree_of, trees) t (relid, tree) CROSS JOIN LATERAL regexp_matches(t.tree, ':relid (\d{1,5}) ', 'g') m
           WHERE t.relid = r.relid AND m[1]::oid BETWEEN 1 AND 16383) s
        LEFT JOIN composure.followed_relation fr ON fr.relation = r.relid
    ), found AS MATERIALIZED (
      SELECT r.name, min(b.volatile) AS volatile, bool_or(b.clock) AS clock, min(b.hides) AS hides,
             min(format('%s: %s', b.what, b.unseen)) FILTER (WHERE b.unseen IS NOT NULL) AS unseen
        FROM unnest(read_names, read_relations) r (name, relid) JOIN by_relation b ON b.relid = r.relid
       GROUP BY r.name
    ), decided AS (
      SELECT r.name, r.cache,
             CASE WHEN c.oid IS NULL OR f.volatile IS NOT NULL THEN 'none'
                  WHEN 'public' = ANY (string_to_array(r.cache, ', ')) THEN 'public'
                  WHEN c.relkind IN ('r', 'p') AND NOT c.relrowsecurity THEN 'role'
                  ELSE 'identity' END AS scope,
             CASE WHEN c.oid IS NULL THEN 'its relation is gone'
                  WHEN f.volatile IS NOT NULL THEN format('reading it calls %s(), which is volatile', f.volatile)
                  WHEN 'public' = ANY (string_to_array(r.cache, ', ')) THEN 'by its cache policy'
                  WHEN c.relkind IN ('r', 'p') AND NOT c.relrowsecurity THEN 'a table without row-level security'
                  WHEN c.relkind IN ('r', 'p') THEN 'a table under row-level security'
                  WHEN c.relkind = 'v' THEN 'a view'
                  WHEN c.relkind = 'm' THEN 'a materialized view'
                  ELSE 'a foreign table' END AS why,
             CASE WHEN c.oid IS NULL OR f.volatile IS NOT NULL OR r.trust_me THEN NULL
                  WHEN f.unseen IS NOT NULL THEN 'changes are not seen of ' || f.unseen
                  WHEN f.hides IS NOT NULL AND r.depends = '{}' THEN format('%s() may read tables: name them with depends', f.hides)
                  WHEN f.clock THEN 'it depends on the time' END AS bound
        FROM composure.resource r
        LEFT JOIN pg_class c ON c.oid = r.relation
        LEFT JOIN found f ON f.name = r.name
       WHERE names IS NULL OR r.name = ANY (names)
    )
    SELECT d.name, d.scope, CASE WHEN d.bound IS NOT NULL THEN blind_ttl_ms END, concat_ws('; ', d.why, d.bound)
      FROM decided d ORDER BY d.name;
END
$f$;
COMMENT ON FUNCTION composure.cache_scopes_of(text[]) IS 'Internal: cache_scopes() for these resources; NULL: for all';

CREATE FUNCTION composure.cache_scopes() RETURNS TABLE (name text, scope text, ttl_bound_ms int, reason text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT * FROM composure.cache_scopes_of(NULL)
$f$;
COMMENT ON FUNCTION composure.cache_scopes() IS
  $c$For each resource, who may share an answer of it in our cache, and for how long one may live:
scope         public: all, read as the anonymous role; role: those of the same role; identity: nobody; none: it is not cached
ttl_bound_ms  the longest ttl, where not every change is seen; NULL: triggers see every change, or trust_me
reason        why, for people$c$;

CREATE FUNCTION composure.cache_decision(p_name text, p_relation oid) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  resource_name constant text := coalesce(p_name, (SELECT min(r.name) FROM composure.resource r WHERE r.relation = p_relation));
  decision record;
  item record;
BEGIN
  IF NOT (SELECT composure.has_ttl(r.cache) FROM composure.resource r WHERE r.name = resource_name) THEN
    RETURN NULL;
  END IF;
  FOR item IN
    SELECT composure.describe(r.relation) AS what, r.problem, format('%I.%I', n.nspname, c.relname) AS name,
           has_table_privilege(k.relowner, c.oid, 'TRIGGER') AS may, pg_get_userbyid(k.relowner) AS us
      FROM composure.followed f
      JOIN composure.followed_relation r ON r.relation = f.relation
      JOIN pg_class c ON c.oid = r.relation JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_class k ON k.oid = 'composure.resource'::regclass
     WHERE f.resource = resource_name AND r.problem IS NOT NULL
  LOOP
    RAISE NOTICE 'changes of % are not followed: %', item.what, item.problem
      USING HINT = CASE WHEN item.may THEN 'Workers try again each second.'
                        ELSE format('GRANT TRIGGER ON %s TO %I; until then answers are cached for 5 s at most.', item.name, item.us) END;
  END LOOP;
  SELECT * INTO decision FROM composure.cache_scopes_of(ARRAY[resource_name]);
  RETURN '  cached   ' || concat(
    CASE decision.scope WHEN 'none' THEN 'not at all' WHEN 'public' THEN 'for all' WHEN 'role' THEN 'for each role'
                        ELSE 'for each identity' END,
    CASE WHEN decision.ttl_bound_ms IS NOT NULL THEN format(', %s s at most', decision.ttl_bound_ms / 1000) END,
    format(' (%s)', decision.reason));
END
$f$;
COMMENT ON FUNCTION composure.cache_decision(text, oid) IS 'Internal: the line of expose() about our own cache';

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
           'scope', cached.scope,
           'ttl_bound_ms', cached.ttl_bound_ms,
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
    JOIN composure.cache_scopes() cached ON cached.name = s.name
    LEFT JOIN allowed ON allowed.resource = s.name
$f$;

CREATE OR REPLACE FUNCTION composure.expose(
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
  RETURN pg_catalog.concat_ws(E'\n', decisions, composure.cache_decision(name, found),
           CASE WHEN exact_count THEN '  count    exact' END,
           CASE WHEN regular_expressions THEN '  filters  match, imatch' END);
END
$f$;

-- What decides about the cache: where reading leads, and the functions it may call.
CREATE OR REPLACE FUNCTION composure.catalog_state() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT concat_ws('.', composure.catalog_state_of_relations(),
           (SELECT concat_ws('.', count(*), sum(p.xmin::text::bigint), sum(n.xmin::text::bigint))
              FROM composure.function f
              JOIN pg_proc exposed ON exposed.oid = f.function
              JOIN pg_proc p ON p.proname = exposed.proname AND p.pronamespace = exposed.pronamespace
              JOIN pg_namespace n ON n.oid = p.pronamespace),
           (SELECT concat_ws('.', count(*), sum(c.xmin::text::bigint))
              FROM pg_class c WHERE c.oid IN (SELECT relation FROM composure.followed_relation) AND c.relkind <> 'm'),
           (SELECT count(problem) FROM composure.followed_relation),
           (SELECT concat_ws('.', count(*), sum(p.xmin::text::bigint))
              FROM pg_proc p WHERE p.oid >= 16384 AND p.pronamespace <> 'composure'::regnamespace AND p.prokind <> 'p'))
$f$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA composure FROM PUBLIC;
SELECT composure.grant_worker();
SELECT composure.keep_triggers(NULL);
UPDATE composure.installation SET catalog_version = catalog_version + 1;

$migration$);
