-- Our own cache's part of the change feed: what a transaction of ours has noted itself, and which resources a write may reach.

CALL pg_temp.composure_apply('0010_caching', $migration$

-- Who writes and reads again must not get what was cached before: the worker asks in the writing transaction itself.
CREATE FUNCTION composure.noted() RETURNS TABLE (resource text, keys text[], hard boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 10
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $f$
DECLARE
  ours constant xid8 := pg_current_xact_id_if_assigned();
BEGIN
  IF ours IS NOT NULL THEN
    RETURN QUERY SELECT c.resource, c.keys, c.hard FROM composure.change c WHERE c.xid = ours;
  END IF;
END
$f$;
COMMENT ON FUNCTION composure.noted() IS
  'For the workers: the changes that this transaction has noted so far, as others will hear of them once it commits; keys NULL: all rows';

-- Ours alone, as ttl. min-fresh=5: an entry lives at least that long through soft changes by others. max-lag=5: a replica that
-- is further behind, in seconds, is not read from; 0: none is (doc/replicas.md).
CREATE OR REPLACE FUNCTION composure.parse_cache(cache text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  flags constant text[] := '{public,private,no-store,no-cache,must-revalidate,immutable}';
  ages constant text[] := '{ttl,min-fresh,max-lag,max-age,s-maxage,stale-while-revalidate,stale-if-error}';
  part text;
  directive text;
  argument text;
  seen text[] := '{}';
  parsed text[] := '{}';
BEGIN
  IF cache IS NULL THEN
    RETURN NULL;
  END IF;
  FOREACH part IN ARRAY string_to_array(cache, ',') LOOP
    directive := lower(btrim(split_part(part, '=', 1)));
    argument := CASE WHEN position('=' IN part) > 0 THEN btrim(substr(part, position('=' IN part) + 1)) END;
    IF directive = ANY (ages) THEN
      IF argument IS NULL OR argument !~ '^[0-9]{1,9}$' THEN
        PERFORM composure.refuse(format('cache: %s needs a number of seconds', directive),
                                 format('For example: cache => ''%s=30''.', directive));
      END IF;
      argument := argument::int::text;
    ELSIF directive <> ALL (flags) THEN
      PERFORM composure.refuse(format('cache: "%s" is not a directive', btrim(part)),
                               format('Known are %s, and with seconds, as in ttl=30, %s.',
                                      array_to_string(flags, ', '), array_to_string(ages, ', ')));
    ELSIF argument IS NOT NULL THEN
      PERFORM composure.refuse(format('cache: %s takes no value', directive),
                               format('Write only %s.', directive));
    END IF;
    IF directive = ANY (seen) THEN
      PERFORM composure.refuse(format('cache: %s is there twice', directive), 'Write each directive once.');
    END IF;
    seen := seen || directive;
    parsed := parsed || concat_ws('=', directive, argument);
  END LOOP;
  IF seen = '{}' THEN
    PERFORM composure.refuse('cache: it is empty', 'Leave it out for the default (private, no-cache).');
  ELSIF seen @> '{public,private}' THEN
    PERFORM composure.refuse('cache: public and private exclude each other', 'Keep one of them.');
  ELSIF seen @> '{public,no-store}' THEN
    PERFORM composure.refuse('cache: public and no-store exclude each other', 'Keep one of them.');
  ELSIF 'must-revalidate' = ANY (seen) AND seen && '{stale-while-revalidate,stale-if-error}' THEN
    PERFORM composure.refuse('cache: must-revalidate forbids what stale-while-revalidate and stale-if-error allow',
                             'Keep one or the other.');
  END IF;
  RETURN array_to_string(parsed, ', ');
END
$f$;

CREATE FUNCTION composure.written_with(roots oid[]) RETURNS TABLE (root oid, relation oid)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  -- What a row may go into: a partition, the table behind a view.
  WITH RECURSIVE below AS (
    SELECT r AS root, r AS relid FROM unnest(roots) r
    UNION
    SELECT b.root, e.b
      FROM below b CROSS JOIN LATERAL (
        SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = b.relid
        UNION ALL
        SELECT d.refobjid FROM pg_rewrite w JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
         WHERE w.ev_class = b.relid AND w.ev_type = '1' AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> b.relid) e (b)
  -- And what has it as a row of its own, then.
  ), above AS (
    SELECT b.root, b.relid FROM below b
    UNION
    SELECT a.root, i.inhparent FROM above a JOIN pg_inherits i ON i.inhrelid = a.relid
  )
  SELECT a.root, a.relid FROM above a
$f$;
COMMENT ON FUNCTION composure.written_with(oid[]) IS
  'Internal: the relations whose rows an INSERT into one of these may change; what triggers of the user''s write besides is not known';

-- What a trigger costs: half of what it did (doc/change-feed.md has the forms). PostgreSQL parses the text of a CHECK anew for
-- each statement, and an index costs each row its lock and its look, whether the row is in it or not.

ALTER TABLE composure.change DROP CONSTRAINT change_resource_check;
DROP INDEX composure.change_all;

CREATE OR REPLACE FUNCTION composure.note_change(resource text, keys text[] DEFAULT NULL, hard boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $f$
#variable_conflict use_column
DECLARE
  -- More keys, or more bytes of them, are "all": what a follower reads in one poll stays small.
  most_keys constant int := 100;
  most_bytes constant int := 4096;
  -- So many rows of one transaction, then one "all" for each of its resources.
  most_rows constant int := 1000;
  listed text[] := note_change.keys;
  -- As long as the rows are many: no number, which could be something else.
  noted text;
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
      noted := current_setting('composure.noted', true);
      IF octet_length(noted) >= most_rows THEN
        listed := NULL;
      ELSE
        PERFORM set_config('composure.noted', concat(noted, '.'), true);
      END IF;
    END IF;
  END IF;
  -- Under serializable isolation the look would make a conflict of any two writers.
  IF listed IS NULL AND current_setting('transaction_isolation') <> 'serializable' THEN
    -- Backwards: what says "all" comes after what has keys. A range, since the order of equals would be left out.
    IF EXISTS (SELECT FROM (SELECT c.resource, c.keys, c.hard FROM composure.change c
                             WHERE c.xid >= pg_current_xact_id() AND c.xid <= pg_current_xact_id()
                             ORDER BY c.xid DESC OFFSET 0) c
                WHERE c.resource = note_change.resource AND c.keys IS NULL AND c.hard >= coalesce(note_change.hard, false)) THEN
      RETURN;
    END IF;
  END IF;
  INSERT INTO composure.change (resource, keys, hard) VALUES (note_change.resource, listed, coalesce(note_change.hard, false));
END
$f$;

CREATE OR REPLACE FUNCTION composure.note_body(p_relation oid) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  by_row constant boolean :=
    (SELECT c.relkind = 'p' FROM pg_class c WHERE c.oid = p_relation)
    OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = p_relation)
    OR EXISTS (SELECT FROM pg_subscription_rel s WHERE s.srrelid = p_relation);
  -- Under its function's name, since a column may be called tg_op.
  op constant text := format('note_rows_%s.tg_op', p_relation);
  is_hard constant text := format('%s OPERATOR(pg_catalog.=) ANY (''{DELETE,TRUNCATE}'')', op);
  -- A column that is gone is not to be found in the name of the rows instead.
  rows_name constant text := (
    SELECT 'row_' || n FROM generate_series(1, 1000) n
     WHERE NOT EXISTS (SELECT FROM composure.noted_by(p_relation) w WHERE 'row_' || n = ANY (w.key)) ORDER BY n LIMIT 1);
  item record;
  new_key text;
  old_key text;
  column_key text;
  any_row text;
  inserted text := '';
  updated text := '';
  deleted text := '';
  notes text := '';
  unknown text := '';
  variables text := '';
  columns text := '';
BEGIN
  -- All names say their schema, types too: search_path is the writer's, whose pg_temp.text would stand for ours, and its check run
  -- as us. To set it costs each write two walks over all settings. Little is evaluated, for the same reason.
  FOR item IN
    SELECT n.key, n.num, count(*) AS resources,
           string_agg(format(E'PERFORM composure.note_change(%L, k%s, %s);\n', n.resource, n.num,
                             CASE WHEN n.hard THEN 'true' ELSE is_hard END), '    ' ORDER BY n.resource) AS calls,
           string_agg(format('(%L, k%s, %s OPERATOR(pg_catalog.=) ''DELETE'')', n.resource, n.num, op), ', ' ORDER BY n.resource) AS rows
      FROM (SELECT *, dense_rank() OVER (ORDER BY w.key) AS num FROM composure.noted_by(p_relation) w) n
     GROUP BY n.key, n.num ORDER BY n.num
  LOOP
    variables := variables || format(E'  k%s pg_catalog.text[];\n', item.num);
    unknown := unknown || format(E'      own.k%s := NULL;\n', item.num);
    IF item.key IS NULL THEN
      notes := notes || format(E'  IF k%1$s IS NULL THEN\n    %2$s  END IF;\n', item.num, item.calls);
      CONTINUE WHEN by_row;
      any_row := format(E'      own.k%s := CASE WHEN EXISTS (SELECT FROM %%s_rows) THEN NULL ELSE ''{}'' END;\n', item.num);
      inserted := inserted || format(any_row, 'new');
      updated := updated || format(any_row, 'new');
      deleted := deleted || format(any_row, 'old');
      CONTINUE;
    END IF;
    -- What note_change() does, without the call where that is all. The count stops one above, so that it stays short.
    notes := notes || format(
      E'  IF pg_catalog.cardinality(k%1$s) OPERATOR(pg_catalog.>) 0 AND pg_catalog.cardinality(k%1$s) OPERATOR(pg_catalog.<=) 100\n'
      '     AND pg_catalog.pg_column_size(k%1$s) OPERATOR(pg_catalog.<=) 4096\n'
      '     AND pg_catalog.octet_length(pg_catalog.set_config(''composure.noted'', pg_catalog.left(pg_catalog.concat('
      'pg_catalog.current_setting(''composure.noted'', true), %2$L), %5$s), true)) OPERATOR(pg_catalog.<) %5$s THEN\n'
      '    INSERT INTO composure.change (resource, keys, hard) VALUES %3$s;\n'
      '  ELSIF k%1$s IS NULL OR pg_catalog.cardinality(k%1$s) OPERATOR(pg_catalog.>) 0 THEN\n    %4$s  END IF;\n',
      item.num, repeat('.', item.resources::int), item.rows, item.calls, 1000 + item.resources);
    -- As an item's path has it. concat() and no cast, which would take the blanks off a char(n).
    SELECT format('pg_catalog.concat(%s)', string_agg('NEW.' || k.quoted, ', '','', ' ORDER BY k.n)),
           format('pg_catalog.concat(%s)', string_agg('OLD.' || k.quoted, ', '','', ' ORDER BY k.n)),
           -- Where the column is gone this reads the variable of its name: a key that is too long for any list.
           format('SELECT CASE WHEN %s THEN pg_catalog.concat(%s) ELSE pg_catalog.repeat(''-'', 5000) END',
                  string_agg(k.quoted || ' IS NOT NULL', ' AND ' ORDER BY k.n), string_agg(k.quoted, ', '','', ' ORDER BY k.n))
      INTO new_key, old_key, column_key
      FROM (SELECT format('"%s"', replace(u.name, '"', '""')) AS quoted, u.n FROM unnest(item.key) WITH ORDINALITY u (name, n)) k;
    IF by_row THEN
      inserted := inserted || format(E'      own.k%s := ARRAY[%s];\n', item.num, new_key);
      deleted := deleted || format(E'      own.k%s := ARRAY[%s];\n', item.num, old_key);
      updated := updated || format(
        E'      own.k%1$s := ARRAY[%2$s];\n      IF %3$s OPERATOR(pg_catalog.<>) own.k%1$s[1] THEN\n        own.k%1$s := ARRAY[own.k%1$s[1], %3$s];\n      END IF;\n',
        item.num, new_key, old_key);
    ELSE
      inserted := inserted || format(E'      own.k%s := ARRAY(%s FROM new_rows %s LIMIT 101);\n', item.num, column_key, rows_name);
      deleted := deleted || format(E'      own.k%s := ARRAY(%s FROM old_rows %s LIMIT 101);\n', item.num, column_key, rows_name);
      updated := updated || format(
        E'      own.k%s := ARRAY((%2$s FROM new_rows %3$s LIMIT 101) UNION (%2$s FROM old_rows %3$s LIMIT 101));\n',
        item.num, column_key, rows_name);
    END IF;
  END LOOP;
  IF notes = '' THEN
    RETURN NULL;
  END IF;
  IF NOT by_row THEN
    SELECT coalesce(E'  DECLARE\n' || string_agg(format(E'    "%s" pg_catalog.text;\n', replace(k.name, '"', '""')), '' ORDER BY k.name), '')
      INTO columns
      FROM (SELECT DISTINCT unnest(w.key) AS name FROM composure.noted_by(p_relation) w) k;
  END IF;
  RETURN format(E'-- by %s\n%s#variable_conflict use_column\n<<own>>\nDECLARE\n%sBEGIN\n',
                CASE WHEN by_row THEN 'row' ELSE 'statement' END,
                CASE WHEN composure.note_settings(p_relation) <> '' THEN E'-- under settings of our own\n' END, variables)
    || CASE WHEN inserted <> '' THEN format(
         E'%1$s  BEGIN\n    IF %5$s OPERATOR(pg_catalog.=) ''INSERT'' THEN\n%2$s'
         '    ELSIF %5$s OPERATOR(pg_catalog.=) ''UPDATE'' THEN\n%4$s    ELSIF %5$s OPERATOR(pg_catalog.=) ''DELETE'' THEN\n%3$s    END IF;\n%6$s  END;\n',
         columns, inserted, deleted, updated, op,
         -- A record has no variable behind it.
         CASE WHEN by_row THEN E'  EXCEPTION WHEN OTHERS THEN\n' || unknown ELSE '' END) ELSE '' END
    || notes || E'  RETURN NULL;\nEND\n';
END
$f$;

-- A right that was given and taken back between two looks at the catalog leaves pg_class as it was but for its xmin, and answers
-- in the store that were made in between. So with any new row in pg_class, of a materialized view or not, all who read it are told.
DO $do$
DECLARE
  was constant text := pg_get_functiondef('composure.keep_triggers(text[])'::regprocedure);
  contents constant text := replace(was, 'CASE WHEN c.relkind = ''m'' THEN c.xmin END', 'c.xmin');
  becomes constant text := replace(contents, ' SECURITY DEFINER SET search_path = pg_catalog, pg_temp%s AS ', ' SECURITY DEFINER%s AS ');
BEGIN
  IF contents = was OR becomes = contents THEN
    RAISE EXCEPTION 'composure.keep_triggers() is not that of 0009_changes';
  END IF;
  EXECUTE becomes;
END
$do$;
COMMENT ON COLUMN composure.followed_relation.contents IS 'Its row in pg_class at the last look: another where it was rewritten, and where rights changed';

-- Functions with a ttl; and functions whose bodies PostgreSQL knows (BEGIN ATOMIC), wherever they are called

ALTER TABLE composure.function ADD COLUMN depends regclass[] NOT NULL DEFAULT '{}';
ALTER TABLE composure.function ADD COLUMN trust_me boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN composure.function.depends IS 'Tables that it reads, where PostgreSQL does not know';
COMMENT ON COLUMN composure.followed.resource IS 'A resource, or a function as rpc/name';

CREATE FUNCTION composure.reached(names text[], all_of_them boolean)
RETURNS TABLE (resource text, node bigint, how int)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
#variable_conflict use_column
DECLARE
  served text[];
  roots bigint[];
  more bigint[];
  relations oid[];
  functions oid[];
  reached bigint[] := '{}';
  edge_from bigint[] := '{}';
  edge_to bigint[] := '{}';
  edge_kind text[] := '{}';
  froms bigint[];
  tos bigint[];
  kinds text[];
BEGIN
  SELECT array_agg(w.name), array_agg(w.node) INTO served, roots
    FROM (SELECT r.name, r.relation::oid::bigint, r.cache FROM composure.resource r JOIN pg_class c ON c.oid = r.relation
          UNION ALL
          SELECT 'rpc/' || f.name, -f.function::oid::bigint, f.cache FROM composure.function f JOIN pg_proc p ON p.oid = f.function) w (name, node, cache)
   WHERE (names IS NULL OR w.name = ANY (names)) AND (all_of_them OR composure.has_ttl(w.cache));
  more := ARRAY(SELECT unnest(roots)
                UNION SELECT unnest(r.depends)::oid::bigint FROM composure.resource r WHERE r.name = ANY (served)
                UNION SELECT unnest(f.depends)::oid::bigint FROM composure.function f WHERE 'rpc/' || f.name = ANY (served));
  WHILE more <> '{}' LOOP
    reached := reached || more;
    relations := ARRAY(SELECT m::oid FROM unnest(more) m WHERE m > 0);
    functions := ARRAY(SELECT (-m)::oid FROM unnest(more) m WHERE m < 0);
    -- A materialized view changes when it is refreshed, whatever it was made from. Of a function pg_depend has what its
    -- body reads if that is BEGIN ATOMIC, of an aggregate the functions it is made of, and of others nothing.
    SELECT array_agg(e.a), array_agg(e.b), array_agg(e.k) INTO froms, tos, kinds
      FROM (SELECT u.a, CASE d.refclassid WHEN 'pg_class'::regclass THEN d.refobjid::bigint
                                          WHEN 'pg_proc'::regclass THEN -d.refobjid::bigint
                                          ELSE -o.oprcode::oid::bigint END, u.k
              FROM (SELECT w.ev_class::bigint, 'pg_rewrite'::regclass, w.oid, 'read' FROM pg_rewrite w
                      JOIN pg_class c ON c.oid = w.ev_class AND c.relkind = 'v'
                     WHERE w.ev_class = ANY (relations) AND w.ev_type = '1' AND NOT composure.is_own_business(w.ev_class)
                    UNION ALL
                    SELECT p.polrelid::bigint, 'pg_policy'::regclass, p.oid, 'policy' FROM pg_policy p
                      JOIN pg_class c ON c.oid = p.polrelid AND c.relrowsecurity
                     WHERE p.polrelid = ANY (relations) AND p.polcmd IN ('r', '*')
                    UNION ALL
                    SELECT -f::bigint, 'pg_proc'::regclass, f, 'read' FROM unnest(functions) f) u (a, class, object, k)
              JOIN pg_depend d ON d.classid = u.class AND d.objid = u.object
                              AND d.refclassid IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_operator'::regclass)
              LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
            UNION
            SELECT i.inhparent::bigint, i.inhrelid::bigint, 'child' FROM pg_inherits i
              JOIN pg_class c ON c.oid = i.inhrelid AND c.relpersistence <> 't'
             WHERE i.inhparent = ANY (relations)) e (a, b, k)
     WHERE e.a <> e.b AND e.b <> 0;
    edge_from := edge_from || froms;
    edge_to := edge_to || tos;
    edge_kind := edge_kind || kinds;
    more := ARRAY(SELECT DISTINCT t FROM unnest(tos) t WHERE t <> ALL (reached));
  END LOOP;

  RETURN QUERY
    WITH RECURSIVE edge AS MATERIALIZED (
      SELECT e.a, e.b, e.k FROM unnest(edge_from, edge_to, edge_kind) e (a, b, k)
    ), reach (name, node, how) AS (
      (SELECT s.name, s.root, CASE WHEN s.root > 0 THEN 1 ELSE 2 END FROM unnest(served, roots) s (name, root)
       UNION ALL
       SELECT r.name, d::oid::bigint, 2 FROM composure.resource r CROSS JOIN unnest(r.depends) d WHERE r.name = ANY (served)
       UNION ALL
       SELECT 'rpc/' || f.name, d::oid::bigint, 2 FROM composure.function f CROSS JOIN unnest(f.depends) d WHERE 'rpc/' || f.name = ANY (served))
      UNION
      SELECT reach.name, edge.b, CASE edge.k WHEN 'policy' THEN 3 WHEN 'read' THEN greatest(reach.how, 2) ELSE reach.how END
        FROM reach JOIN edge ON edge.a = reach.node
    )
    SELECT reach.name, reach.node, max(reach.how) FROM reach GROUP BY 1, 2;
END
$f$;
COMMENT ON FUNCTION composure.reached(text[], boolean) IS
  $c$Internal: where reading a resource or function with a ttl (or any) leads, views, policies, children and functions followed
node  the oid of a relation, or minus that of a function
how   1: its own rows, 2: read for them, 3: read to decide who sees them; the highest says all that the others do$c$;

CREATE OR REPLACE FUNCTION composure.reads(names text[], all_of_them boolean DEFAULT false)
RETURNS TABLE (resource text, relation oid, key text[], hard boolean)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  WITH reach AS MATERIALIZED (
    SELECT * FROM composure.reached(names, all_of_them)
  ), keyed AS MATERIALIZED (
    SELECT now.name, now.found_key FROM composure.resource_now now
     WHERE now.name = ANY (ARRAY(SELECT r.resource FROM reach r WHERE r.how = 1))
  )
  SELECT r.resource, c.oid, CASE WHEN r.how = 1 THEN k.found_key END, r.how = 3
    FROM reach r JOIN pg_class c ON c.oid::bigint = r.node
    LEFT JOIN keyed k ON k.name = r.resource
$f$;
COMMENT ON FUNCTION composure.reads(text[], boolean) IS
  'Internal: the relations that reading a resource or function with a ttl (or any) reads, as far as PostgreSQL knows';

CREATE OR REPLACE FUNCTION composure.follow_resources() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  prefix constant text := CASE TG_TABLE_NAME WHEN 'function' THEN 'rpc/' ELSE '' END;
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    PERFORM composure.keep_triggers(NULL);
  ELSIF TG_OP = 'INSERT' THEN
    PERFORM composure.keep_triggers(ARRAY(SELECT prefix || name FROM after));
  ELSIF TG_OP = 'DELETE' THEN
    PERFORM composure.keep_triggers(ARRAY(SELECT prefix || name FROM before));
  ELSE
    PERFORM composure.keep_triggers(ARRAY(SELECT prefix || name FROM before UNION SELECT prefix || name FROM after));
  END IF;
  RETURN NULL;
END
$f$;
CREATE TRIGGER follow_insert AFTER INSERT ON composure.function
  REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION composure.follow_resources();
CREATE TRIGGER follow_update AFTER UPDATE ON composure.function
  REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION composure.follow_resources();
CREATE TRIGGER follow_delete AFTER DELETE ON composure.function
  REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION composure.follow_resources();
CREATE TRIGGER follow_truncate AFTER TRUNCATE ON composure.function
  FOR EACH STATEMENT EXECUTE FUNCTION composure.follow_resources();

CREATE OR REPLACE FUNCTION composure.follow_state() RETURNS text
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
           -- What leads elsewhere than before begins at what is followed. What is temporary no other session sees.
           (SELECT concat_ws('.', count(*), sum(t.xmin::text::bigint)) FROM pg_trigger t
             WHERE NOT t.tgisinternal AND t.tgrelid IN (SELECT r.relation FROM composure.followed_relation r)),
           (SELECT concat_ws('.', count(*), sum(w.xmin::text::bigint)) FROM pg_rewrite w
             WHERE w.ev_class IN (SELECT r.relation FROM composure.followed_relation r)),
           (SELECT concat_ws('.', count(*), sum(p.xmin::text::bigint)) FROM pg_policy p
             WHERE p.polrelid IN (SELECT r.relation FROM composure.followed_relation r)),
           (SELECT concat_ws('.', count(*), sum(h.xmin::text::bigint))
              FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid AND c.relpersistence <> 't'
             WHERE h.inhparent IN (SELECT r.relation FROM composure.followed_relation r)
                OR h.inhrelid IN (SELECT r.relation FROM composure.followed_relation r)),
           -- Functions that PostgreSQL knows the tables of.
           (SELECT concat_ws('.', count(*), sum(p.xmin::text::bigint)) FROM pg_proc p
             WHERE p.oid >= 16384 AND p.prosrc = ''
               AND p.pronamespace NOT IN (SELECT n.oid FROM pg_namespace n WHERE n.nspname LIKE 'pg\_temp\_%')),
           (SELECT count(*) FROM pg_subscription_rel));
END
$f$;

CREATE OR REPLACE FUNCTION composure.cache_scopes_of(names text[]) RETURNS TABLE (name text, scope text, ttl_bound_ms int, reason text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $f$
#variable_conflict use_column
DECLARE
  blind_ttl_ms constant int := 5000;
  read_names text[];
  read_nodes bigint[];
  relations oid[];
  functions oid[];
  tree_of bigint[];
  trees text[];
  used_by bigint[];
  used oid[];
BEGIN
  SELECT array_agg(r.resource), array_agg(r.node) INTO read_names, read_nodes FROM composure.reached(names, true) r;
  relations := ARRAY(SELECT DISTINCT n::oid FROM unnest(read_nodes) n WHERE n > 0);
  functions := ARRAY(SELECT DISTINCT (-n)::oid FROM unnest(read_nodes) n WHERE n < 0);
  SELECT array_agg(t.node), array_agg(t.tree) INTO tree_of, trees
    FROM (SELECT w.ev_class::bigint, w.ev_action::text FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class AND c.relkind = 'v'
           WHERE w.ev_class = ANY (relations) AND w.ev_type = '1' AND NOT composure.is_own_business(w.ev_class)
          UNION ALL
          SELECT p.polrelid::bigint, p.polqual::text FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid AND c.relrowsecurity
           WHERE p.polrelid = ANY (relations) AND p.polcmd IN ('r', '*')
          UNION ALL
          -- A column that PostgreSQL 13 does not have.
          SELECT -p.oid::bigint, to_jsonb(p) ->> 'prosqlbody' FROM pg_proc p WHERE p.oid = ANY (functions) AND p.prosrc = '') t (node, tree)
   WHERE t.tree IS NOT NULL;
  SELECT array_agg(u.node), array_agg(u.function) INTO used_by, used
    FROM (SELECT tree_of[n.tree] AS node, n.function FROM composure.functions_named(trees) n
          UNION
          SELECT -f.function::oid::bigint, f.function::oid FROM composure.function f WHERE f.function = ANY (functions)) u;

  RETURN QUERY
    WITH call AS MATERIALIZED (
      SELECT DISTINCT u.node, f.oid AS function, f.proname::text AS proname,
             p.provolatile = 'v' AS volatile,
             p.provolatile <> 'v' AND (p.oid >= 16384 AND p.provolatile <> 'i'
                                       AND NOT (p.prosrc = '' AND p.prolang = (SELECT l.oid FROM pg_language l WHERE l.lanname = 'sql'))
                                       OR p.oid < 16384 AND p.proname ~ '_to_xml') AS hides,
             p.oid < 16384 AND (p.proname IN ('now', 'transaction_timestamp', 'statement_timestamp') OR p.proname = 'age' AND p.pronargs = 1) AS clock
        FROM unnest(used_by, used) u (node, function)
        JOIN pg_proc f ON f.oid = u.function
        LEFT JOIN pg_aggregate a ON a.aggfnoid = f.oid
        CROSS JOIN LATERAL (VALUES (f.oid), (a.aggtransfn::oid), (a.aggfinalfn::oid)) v (oid)
        JOIN pg_proc p ON p.oid = v.oid
    ), by_node AS MATERIALIZED (
      SELECT r.node, CASE WHEN r.node > 0 THEN composure.describe(r.node::oid) ELSE composure.describe_function((-r.node)::oid) END AS what,
             (SELECT min(c.proname) FROM call c WHERE c.node = r.node AND c.volatile) AS volatile,
             (SELECT min(c.proname) FROM call c WHERE c.node = r.node AND c.hides) AS hides,
             -- CURRENT_DATE and its like, up to LOCALTIMESTAMP, are no functions.
             EXISTS (SELECT FROM call c WHERE c.node = r.node AND c.clock)
               OR EXISTS (SELECT FROM unnest(tree_of, trees) t (node, tree)
                           WHERE t.node = r.node AND t.tree ~ '\{SQLVALUEFUNCTION :op [0-8] ') AS clock,
             CASE
               WHEN s.what IS NOT NULL THEN 'it reads ' || s.what
               WHEN k.oid IS NULL OR k.relkind = 'v' AND NOT composure.is_own_business(k.oid) THEN NULL
               WHEN k.relkind = 'm' THEN 'it is refreshed, by no trigger that tells'
               WHEN k.relkind = 'f' THEN 'its rows are elsewhere'
               WHEN k.relkind NOT IN ('r', 'p') OR composure.is_own_business(k.oid) THEN 'it can have no trigger of ours'
               WHEN NOT has_table_privilege(k.oid, 'TRIGGER') THEN format('role "%s" may make no trigger on it', current_user)
               ELSE 'its triggers are missing: ' || fr.problem
             END AS unseen
        FROM (SELECT DISTINCT n FROM unnest(read_nodes) n) r (node)
        LEFT JOIN pg_class k ON k.oid::bigint = r.node
        -- pg_depend has none of PostgreSQL's own.
        CROSS JOIN LATERAL (
          SELECT min(composure.describe(m[1]::oid)) AS what
            FROM unnest(tree_of, trees) t (node, tree) CROSS JOIN LATERAL regexp_matches(t.tree, ':relid (\d{1,5}) ', 'g') m
           WHERE t.node = r.node AND m[1]::oid BETWEEN 1 AND 16383) s
        LEFT JOIN composure.followed_relation fr ON fr.relation = k.oid
    ), found AS MATERIALIZED (
      SELECT r.name, min(b.volatile) AS volatile, bool_or(b.clock) AS clock, min(b.hides) AS hides,
             min(format('%s: %s', b.what, b.unseen)) FILTER (WHERE b.unseen IS NOT NULL) AS unseen
        FROM unnest(read_names, read_nodes) r (name, node) JOIN by_node b ON b.node = r.node
       GROUP BY r.name
    ), served AS (
      SELECT r.name, r.cache, r.trust_me, r.depends <> '{}' AS named, c.oid IS NULL AS gone, 'relation' AS kind, c.relkind, c.relrowsecurity
        FROM composure.resource r LEFT JOIN pg_class c ON c.oid = r.relation
      UNION ALL
      SELECT 'rpc/' || f.name, f.cache, f.trust_me, f.depends <> '{}', p.oid IS NULL, 'function', NULL, NULL
        FROM composure.function f LEFT JOIN pg_proc p ON p.oid = f.function
    ), decided AS (
      SELECT r.name,
             CASE WHEN r.gone OR f.volatile IS NOT NULL THEN 'none'
                  WHEN 'public' = ANY (string_to_array(r.cache, ', ')) THEN 'public'
                  WHEN 'private' = ANY (string_to_array(r.cache, ', ')) THEN 'identity'
                  WHEN r.relkind IN ('r', 'p') AND NOT r.relrowsecurity THEN 'role'
                  ELSE 'identity' END AS scope,
             CASE WHEN r.gone THEN format('its %s is gone', r.kind)
                  WHEN f.volatile IS NOT NULL THEN format('reading it calls %s(), which is volatile', f.volatile)
                  WHEN string_to_array(r.cache, ', ') && '{public,private}' THEN 'by its cache policy'
                  WHEN r.kind = 'function' THEN 'a function'
                  WHEN r.relkind IN ('r', 'p') AND NOT r.relrowsecurity THEN 'a table without row-level security'
                  WHEN r.relkind IN ('r', 'p') THEN 'a table under row-level security'
                  WHEN r.relkind = 'v' THEN 'a view'
                  WHEN r.relkind = 'm' THEN 'a materialized view'
                  ELSE 'a foreign table' END AS why,
             CASE WHEN r.gone OR f.volatile IS NOT NULL OR r.trust_me THEN NULL
                  WHEN f.unseen IS NOT NULL THEN 'changes are not seen of ' || f.unseen
                  WHEN f.hides IS NOT NULL AND NOT r.named THEN format('%s() may read tables: name them with depends', f.hides)
                  WHEN f.clock THEN 'it depends on the time' END AS bound
        FROM served r LEFT JOIN found f ON f.name = r.name
       WHERE names IS NULL OR r.name = ANY (names)
    )
    SELECT d.name, d.scope, CASE WHEN d.bound IS NOT NULL THEN blind_ttl_ms END, concat_ws('; ', d.why, d.bound)
      FROM decided d ORDER BY d.name;
END
$f$;

COMMENT ON FUNCTION composure.cache_scopes() IS
  $c$For each resource, and each function as rpc/name, who may share an answer of it in our cache, and for how long one may live:
scope         public: all, read as the anonymous role; role: those of the same role; identity: nobody; none: it is not cached
ttl_bound_ms  the longest ttl, where not every change is seen; NULL: triggers see every change, or trust_me
reason        why, for people$c$;

CREATE OR REPLACE FUNCTION composure.cache_decision(p_name text, p_relation oid) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  resource_name constant text := coalesce(p_name, (SELECT min(r.name) FROM composure.resource r WHERE r.relation = p_relation));
  decision record;
  item record;
BEGIN
  IF NOT EXISTS (SELECT FROM composure.resource r WHERE r.name = resource_name AND composure.has_ttl(r.cache)
                 UNION ALL
                 SELECT FROM composure.function f WHERE 'rpc/' || f.name = resource_name AND composure.has_ttl(f.cache)) THEN
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

CREATE OR REPLACE FUNCTION composure.purge(resource text, key text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
BEGIN
  IF NOT EXISTS (SELECT FROM composure.resource r WHERE r.name = purge.resource
                  UNION ALL SELECT FROM composure.function f WHERE 'rpc/' || f.name = purge.resource) THEN
    PERFORM composure.refuse(
      format('nothing is exposed as "%s"', purge.resource),
      coalesce((SELECT 'Exposed are: ' || string_agg(w.name, ', ' ORDER BY w.name LIKE 'rpc/%', w.name) || '.'
                  FROM (SELECT r.name FROM composure.resource r
                        UNION ALL SELECT 'rpc/' || f.name FROM composure.function f) w),
               'Nothing is exposed yet.'));
  ELSIF purge.key IS NOT NULL AND purge.resource LIKE 'rpc/%' THEN
    PERFORM composure.refuse('key: answers of a function have none', format('SELECT composure.purge(%L);', purge.resource));
  ELSIF purge.key = '' THEN
    PERFORM composure.refuse('key: it is empty', 'Write it as in the item''s path: ''128'', or ''1,DE''; without it all rows are meant.');
  END IF;
  PERFORM composure.note_change(purge.resource, CASE WHEN purge.key IS NOT NULL THEN ARRAY[purge.key] END, true);
  RETURN format('/%s is no longer served from the cache', concat_ws('/', purge.resource, purge.key));
END
$f$;
COMMENT ON FUNCTION composure.purge(text, text) IS
  $c$Takes a resource, a row of it, or a function out of every cache of ours: SELECT composure.purge('users', '128')
key  as in the item's path, the parts of a composite one by comma; not for functions: composure.purge('rpc/totals')$c$;

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
           'scope', cached.scope,
           'ttl_bound_ms', cached.ttl_bound_ms,
           'roles', coalesce((
             SELECT json_agg(r.role ORDER BY r.role) FROM composure.running_roles() r (role)
              WHERE has_function_privilege(r.role, p.oid, 'EXECUTE') AND has_schema_privilege(r.role, n.oid, 'USAGE')), '[]'))
           ORDER BY f.name), '[]')
    FROM composure.function f
    JOIN pg_proc p ON p.oid = f.function AND p.prokind = 'f'
    JOIN pg_namespace n ON n.oid = p.pronamespace
    JOIN pg_type t ON t.oid = p.prorettype
    JOIN composure.cache_scopes_of(ARRAY(SELECT 'rpc/' || own.name FROM composure.function own)) cached ON cached.name = 'rpc/' || f.name
   WHERE composure.namesake(p.oid) IS NULL
$f$;

CREATE FUNCTION composure.expose_function_caching(p_name text, f oid, p_depends oid[], p_trust_me boolean) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  own constant text := coalesce(p_name, (SELECT min(e.name) FROM composure.function e WHERE e.function = f));
BEGIN
  UPDATE composure.function e SET depends = p_depends::regclass[], trust_me = p_trust_me
   WHERE e.name = own AND (e.depends::oid[] <> p_depends OR e.trust_me <> p_trust_me);
  RETURN composure.cache_decision('rpc/' || own, NULL);
END
$f$;
COMMENT ON FUNCTION composure.expose_function_caching(text, oid, oid[], boolean) IS
  'Internal: what expose_function() sets and says of our own cache';

DROP FUNCTION composure.expose_function(text, text, text[], interval, int, text, text, int);

CREATE FUNCTION composure.expose_function(
  signature text,
  name text DEFAULT NULL,
  methods text[] DEFAULT NULL,
  deadline interval DEFAULT NULL,
  cost int DEFAULT 1,
  idempotency text DEFAULT 'optional',
  cache text DEFAULT NULL,
  rows_max int DEFAULT NULL,
  depends text[] DEFAULT '{}',
  trust_me boolean DEFAULT false)
RETURNS text
LANGUAGE plpgsql
AS $f$
#variable_conflict use_variable
DECLARE
  found pg_catalog.oid := composure.find_function(signature);
  found_depends pg_catalog.oid[] := '{}';
  dependency text;
  decisions text;
BEGIN
  FOREACH dependency IN ARRAY coalesce(depends, '{}') LOOP
    found_depends := pg_catalog.array_append(found_depends, composure.find_relation(dependency));
  END LOOP;
  decisions := composure.expose_function_oid(found, name, methods, deadline, cost, idempotency, cache, rows_max);
  RETURN pg_catalog.concat_ws(E'\n', decisions,
           composure.expose_function_caching(name, found, found_depends, coalesce(trust_me, false)));
END
$f$;
COMMENT ON FUNCTION composure.expose_function(text, text, text[], interval, int, text, text, int, text[], boolean) IS
  $c$Serves a function at /rpc/name; called again, it replaces all that was said before:
SELECT composure.expose_function('public.transfer(bigint, bigint, numeric)', idempotency => 'required');
name         its path behind /rpc/; default: the function's name
methods      POST, and GET where the function is STABLE or IMMUTABLE; default: what is possible
deadline     the longest a call may take: '2 seconds'
cost         tokens that a call takes from the rate limit
idempotency  required, optional or none: the Idempotency-Key of POST
cache        'public, max-age=30' for caches, 'ttl=30' for our own; of GET
rows_max     the most rows of a set in one answer: 200; at most 1000
depends      tables that it reads, where its body is no BEGIN ATOMIC: else a ttl is 5 s at most; '{public.users}'
trust_me     a ttl is as long as it says, though changes may be missed$c$;

-- What catalog() and the right to see an answer hang on: all that is kept ends with a change of it, so nothing is counted that
-- traffic changes. What is rewritten (TRUNCATE, VACUUM FULL, CLUSTER, REFRESH, REINDEX CONCURRENTLY) gets a new row in pg_class or
-- pg_index: of those it is what they say that counts, of others the xmin. What is temporary no other session sees.

CREATE FUNCTION composure.leads_to(relations oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  reached oid[] := '{}';
  more oid[] := relations;
BEGIN
  -- The way of running_code(), but for other sessions' temporary children.
  WHILE more <> '{}' LOOP
    reached := reached || more;
    more := ARRAY(
      SELECT d.refobjid FROM unnest(more) m (oid)
        JOIN pg_rewrite w ON w.ev_class = m.oid
        JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
      UNION
      SELECT d.refobjid FROM unnest(more) m (oid)
        JOIN pg_policy p ON p.polrelid = m.oid
        JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_class'::regclass
      UNION
      SELECT i.inhrelid FROM unnest(more) m (oid)
        JOIN pg_inherits i ON i.inhparent = m.oid
        JOIN pg_class c ON c.oid = i.inhrelid AND c.relpersistence <> 't'
      UNION
      SELECT k.conrelid FROM unnest(more) m (oid)
        JOIN pg_constraint k ON k.confrelid = m.oid AND k.contype = 'f'
         AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd'))
      EXCEPT
      SELECT unnest(reached));
  END LOOP;
  RETURN reached;
END
$f$;
COMMENT ON FUNCTION composure.leads_to(oid[]) IS
  'Internal: these relations, and those on which it hangs what reading and writing them does: behind views and policies, children, where foreign keys carry a change';

CREATE OR REPLACE FUNCTION composure.catalog_state() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $f$
DECLARE
  -- In plpgsql for its plans, which are kept.
  ours constant oid[] := composure.leads_to(ARRAY(
    SELECT r.relation FROM composure.resource r UNION SELECT r.relation FROM composure.followed_relation r));
  temporary constant oid[] := ARRAY(SELECT n.oid FROM pg_namespace n WHERE n.nspname LIKE 'pg\_temp\_%');
  relations text;
  schemas oid[];
BEGIN
  SELECT concat_ws('.', count(*), sum(hashtextextended(
           (c.oid, c.relname, c.relnamespace, c.relowner, c.relacl, c.relkind, c.relispartition, c.relrowsecurity,
            c.relforcerowsecurity, c.reloptions)::text, 0))),
         array_agg(DISTINCT c.relnamespace)
    INTO relations, schemas
    FROM pg_class c WHERE c.oid IN (SELECT unnest(ours));
  RETURN concat_ws('.', relations,
           -- expose() and the keys
           (SELECT i.catalog_version FROM composure.installation i),
           (SELECT count(r.problem) FROM composure.followed_relation r),
           (SELECT concat_ws('.', count(*), sum(n.xmin::text::bigint)) FROM pg_namespace n WHERE n.oid = ANY (schemas)),
           (SELECT concat_ws('.', count(*), sum(a.xmin::text::bigint))
              FROM pg_attribute a WHERE a.attrelid IN (SELECT unnest(ours)) AND a.attnum > 0),
           (SELECT concat_ws('.', count(*), sum(d.xmin::text::bigint))
              FROM pg_attrdef d WHERE d.adrelid IN (SELECT unnest(ours))),
           (SELECT concat_ws('.', count(*), sum(t.xmin::text::bigint))
              FROM pg_trigger t WHERE t.tgrelid IN (SELECT unnest(ours)) AND NOT t.tgisinternal),
           (SELECT concat_ws('.', count(*), sum(h.xmin::text::bigint))
              FROM pg_inherits h WHERE h.inhparent IN (SELECT unnest(ours)) AND h.inhrelid IN (SELECT unnest(ours))),
           (SELECT concat_ws('.', count(*), sum(k.xmin::text::bigint))
              FROM pg_constraint k WHERE k.conrelid IN (SELECT unnest(ours)) AND k.contype = 'c'),
           (SELECT concat_ws('.', count(*), sum(hashtextextended(
                     (k.conname, k.conrelid, k.conkey, k.confrelid, k.confkey, k.conparentid, k.confdeltype, k.confupdtype)::text, 0)))
              FROM pg_constraint k WHERE k.conrelid IN (SELECT unnest(ours)) AND k.contype = 'f'),
           -- Of two unique indexes that would do the older one is the key: find_key().
           (SELECT concat_ws('.', count(*), sum(hashtextextended(
                     (i.indrelid, i.age, i.indisunique, i.indisprimary, i.indimmediate, i.indnkeyatts, i.indkey, i.indexprs, i.indpred)::text, 0)))
              FROM (SELECT *, row_number() OVER (PARTITION BY indrelid ORDER BY indexrelid) AS age
                      FROM pg_index
                     WHERE indrelid IN (SELECT unnest(ours)) AND indisvalid
                       AND (indisunique OR indexprs IS NOT NULL OR indpred IS NOT NULL)) i),
           -- Rights may hang on any of these: a function that hides what it reads may be called anywhere.
           (SELECT concat_ws('.', count(*), sum(w.xmin::text::bigint))
              FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class AND c.relpersistence <> 't' WHERE w.oid >= 16384),
           (SELECT concat_ws('.', count(*), sum(p.xmin::text::bigint))
              FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid AND c.relpersistence <> 't'),
           (SELECT concat_ws('.', count(*), sum(p.xmin::text::bigint)) FROM pg_proc p
             WHERE p.oid >= 16384 AND p.pronamespace <> 'composure'::regnamespace AND p.pronamespace <> ALL (temporary) AND p.prokind <> 'p'),
           (SELECT concat_ws('.', count(*), sum(p.xmin::text::bigint), sum(n.xmin::text::bigint))
              FROM composure.function f
              JOIN pg_proc exposed ON exposed.oid = f.function
              JOIN pg_proc p ON p.proname = exposed.proname AND p.pronamespace = exposed.pronamespace
              JOIN pg_namespace n ON n.oid = p.pronamespace),
           -- The checks of domains
           (SELECT concat_ws('.', count(*), sum(k.xmin::text::bigint))
              FROM pg_constraint k WHERE k.contypid > 0 AND k.connamespace <> ALL (temporary)),
           -- Names in answers that no row has: the labels of enums, the members of composite types
           (SELECT concat_ws('.', count(*), sum(e.xmin::text::bigint))
              FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid WHERE t.typnamespace <> ALL (temporary)),
           (SELECT concat_ws('.', count(*), sum(a.xmin::text::bigint))
              FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
             WHERE c.relkind = 'c' AND a.attnum > 0 AND c.relnamespace <> ALL (temporary)),
           (SELECT concat_ws('.', count(*), sum(m.xmin::text::bigint)) FROM pg_auth_members m),
           -- Not its xmin: a password may change.
           (SELECT concat_ws('.', count(*), sum(hashtext(concat_ws(' ', r.oid, r.rolsuper, r.rolbypassrls, r.rolinherit))::bigint))
              FROM pg_roles r));
END
$f$;
COMMENT ON FUNCTION composure.catalog_state() IS 'For the workers: changes when composure.catalog() does, and when rights do';
DROP FUNCTION composure.catalog_state_of_relations();

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA composure FROM PUBLIC;
SELECT composure.grant_worker();
SELECT composure.keep_triggers(NULL);
UPDATE composure.installation SET catalog_version = catalog_version + 1;

$migration$);
