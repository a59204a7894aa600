-- The change feed: what was changed, for the one worker of each host that follows it (src/db/feed.h).
--
-- A trigger inserts a row in the writer's own transaction; a change is new to a follower when the snapshot it takes now
-- sees the row and the snapshot it took last did not. So the order of commits does not matter, nothing is missed while
-- other transactions run for however long, and a follower needs nothing but its last snapshot, as text.
--
-- Both tables are UNLOGGED: a crash empties them. feed_epoch betrays that: a follower that finds another epoch, or none,
-- takes everything for changed. It does so, too, when rows were deleted that it may not have read (feed_epoch.gone).
--
-- A dump should leave their rows out: pg_dump --exclude-table-data='composure.(change|feed_epoch)'. Restored ones do
-- no harm.

CALL pg_temp.composure_apply('0005_feed', $migration$

CREATE UNLOGGED TABLE composure.change (
  xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
  resource text NOT NULL CHECK (resource <> ''),
  keys text[]
) WITH (
  -- Rows live for seconds. Truncating the table would lock out its writers; statistics of a table that is empty at one
  -- moment and full at the next are worse than none.
  vacuum_truncate = off,
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 10000,
  autovacuum_vacuum_insert_threshold = -1,
  autovacuum_vacuum_cost_delay = 0,
  autovacuum_analyze_threshold = 2147483647,
  toast.vacuum_truncate = off
);
-- A hundred uuids, or as much of other keys, fit into a row as they are (composure.note_change()).
ALTER TABLE composure.change ALTER COLUMN keys SET STORAGE PLAIN;
CREATE INDEX change_xid ON composure.change (xid);
-- Whether a transaction has said "all" of a resource already.
CREATE INDEX change_all ON composure.change (xid, resource) WHERE keys IS NULL;
COMMENT ON TABLE composure.change IS 'The change feed: a row lives until every follower has had some seconds to read it';
COMMENT ON COLUMN composure.change.xid IS 'The transaction that made the change, with its epoch, so that it never repeats';
COMMENT ON COLUMN composure.change.resource IS
  'A resource, or @catalog (expose() and plans), @key (API keys, by id), @all (composure.rights_changed())';
COMMENT ON COLUMN composure.change.keys IS 'The rows that changed; NULL: all of them';

CREATE UNLOGGED TABLE composure.feed_epoch (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  id uuid NOT NULL DEFAULT gen_random_uuid(),
  since timestamptz NOT NULL DEFAULT clock_timestamp(),
  orphans xid8[] NOT NULL,
  gone xid8 NOT NULL DEFAULT '0'
) WITH (
  vacuum_truncate = off,
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 500
);
COMMENT ON TABLE composure.feed_epoch IS 'One row, or none after a crash: the feed since when nothing in it was lost';
COMMENT ON COLUMN composure.feed_epoch.orphans IS
  'Transactions that were prepared when the epoch began: they outlive the crash that empties the feed, their rows do not';
COMMENT ON COLUMN composure.feed_epoch.gone IS
  'Rows that a snapshot with this xmax saw may have been deleted: a snapshot whose xmax is above it saw them too';

-- Writing

CREATE FUNCTION composure.note_change(resource text, keys text[] DEFAULT NULL) RETURNS void
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
  IF listed IS NULL AND EXISTS (
       SELECT FROM composure.change c
        WHERE c.xid = pg_current_xact_id() AND c.resource = note_change.resource AND c.keys IS NULL) THEN
    RETURN;
  END IF;
  INSERT INTO composure.change (resource, keys) VALUES (note_change.resource, listed);
END
$f$;
COMMENT ON FUNCTION composure.note_change(text, text[]) IS
  'Internal: tells the followers of the feed, once this transaction commits, that rows changed; without keys: all of them';

CREATE FUNCTION composure.note_catalog() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $f$
BEGIN
  PERFORM composure.note_change('@catalog');
  RETURN NULL;
END
$f$;
COMMENT ON FUNCTION composure.note_catalog() IS 'Internal: a change of what the API serves, or of its limits';

CREATE FUNCTION composure.note_keys() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  -- One more than note_change() takes makes it "all"; NULL says so itself.
  ids text[];
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    ids := NULL;
  ELSIF TG_TABLE_NAME = 'api_key' AND TG_OP = 'UPDATE' THEN
    ids := ARRAY(SELECT id FROM before UNION SELECT id FROM after LIMIT 101);
  ELSIF TG_TABLE_NAME = 'api_key' THEN
    ids := ARRAY(SELECT id FROM touched LIMIT 101);
  ELSIF TG_OP = 'UPDATE' THEN
    ids := ARRAY(SELECT key_id FROM before UNION SELECT key_id FROM after LIMIT 101);
  ELSE
    ids := ARRAY(SELECT DISTINCT key_id FROM touched LIMIT 101);
  END IF;
  PERFORM composure.note_change('@key', ids);
  RETURN NULL;
END
$f$;
COMMENT ON FUNCTION composure.note_keys() IS 'Internal: a change of API keys, by their ids';

CREATE TRIGGER note_catalog AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON composure.installation
  FOR EACH STATEMENT EXECUTE FUNCTION composure.note_catalog();
CREATE TRIGGER note_catalog AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON composure.resource
  FOR EACH STATEMENT EXECUTE FUNCTION composure.note_catalog();
CREATE TRIGGER note_catalog AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON composure.plan
  FOR EACH STATEMENT EXECUTE FUNCTION composure.note_catalog();

CREATE TRIGGER note_insert AFTER INSERT ON composure.api_key
  REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION composure.note_keys();
CREATE TRIGGER note_update AFTER UPDATE ON composure.api_key
  REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION composure.note_keys();
CREATE TRIGGER note_delete AFTER DELETE ON composure.api_key
  REFERENCING OLD TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION composure.note_keys();
CREATE TRIGGER note_truncate AFTER TRUNCATE ON composure.api_key
  FOR EACH STATEMENT EXECUTE FUNCTION composure.note_keys();

CREATE TRIGGER note_insert AFTER INSERT ON composure.api_secret
  REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION composure.note_keys();
CREATE TRIGGER note_update AFTER UPDATE ON composure.api_secret
  REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION composure.note_keys();
CREATE TRIGGER note_delete AFTER DELETE ON composure.api_secret
  REFERENCING OLD TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION composure.note_keys();
CREATE TRIGGER note_truncate AFTER TRUNCATE ON composure.api_secret
  FOR EACH STATEMENT EXECUTE FUNCTION composure.note_keys();

-- Also under session_replication_role = replica, as restores and replication tools set it.
DO $always$
DECLARE
  t record;
BEGIN
  FOR t IN SELECT tgrelid::regclass AS relation, tgname FROM pg_trigger
            WHERE tgfoid IN ('composure.note_catalog'::regproc, 'composure.note_keys'::regproc) LOOP
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', t.relation, t.tgname);
  END LOOP;
END
$always$;

CREATE FUNCTION composure.rights_changed() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
BEGIN
  PERFORM composure.note_change('@all');
END
$f$;
COMMENT ON FUNCTION composure.rights_changed() IS
  'Call it after GRANT, REVOKE or a changed policy: nothing that was cached before is served: SELECT composure.rights_changed()';

-- Following

-- Its plan is fixed by the settings: statistics of a table that is full and empty in turn say nothing, and a sequential
-- scan that was right for ten rows would be kept for a million.
CREATE FUNCTION composure.feed_poll(previous pg_snapshot)
RETURNS TABLE (snapshot text, epoch text, gone text, resource text, keys text[])
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
  SELECT s.now::text, e.epoch, e.gone::text, NULL::text, NULL::text[]
    FROM s LEFT JOIN (
           -- The rest betrays a row that was copied or restored into another database, or lived through a restart.
           SELECT concat_ws('.', f.id, f.tableoid, d.oid, extract(epoch FROM pg_postmaster_start_time())) AS epoch, f.gone
             FROM composure.feed_epoch f, pg_database d WHERE f.one AND d.datname = current_database()) e
         ON e.gone < pg_snapshot_xmax(s.now)
  UNION ALL
  SELECT NULL, NULL, NULL, '@all', NULL
    FROM s JOIN composure.feed_epoch f ON f.one
   WHERE f.orphans <> '{}'
     AND EXISTS (SELECT FROM pg_snapshot_xip(previous) x WHERE x = ANY (f.orphans) AND pg_visible_in_snapshot(x, s.now))
  UNION ALL
  (SELECT NULL, NULL, NULL, c.resource, c.keys
     FROM s CROSS JOIN LATERAL (
       SELECT a.resource, a.keys FROM composure.change a
        WHERE a.xid >= pg_snapshot_xmax(previous) AND a.xid < pg_snapshot_xmax(s.now)
       UNION ALL
       SELECT b.resource, b.keys FROM composure.change b
        WHERE b.xid = ANY (ARRAY(SELECT x FROM pg_snapshot_xip(previous) x WHERE pg_visible_in_snapshot(x, s.now)))) c
    LIMIT 10001);
END
$f$;
COMMENT ON FUNCTION composure.feed_poll(pg_snapshot) IS
  $c$For the workers: a row with the snapshot to give next time, the feed's epoch and what was deleted, then one for each
change that previous did not see and that snapshot sees, at most 10001 of them. Without previous: none.
epoch  another than before, or NULL: take everything for changed; NULL: then composure.feed_begin()
gone   not below the xmax of previous: take everything for changed$c$;

CREATE FUNCTION composure.feed_begin() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $f$
BEGIN
  -- One that was restored from a dump of a server that had seen more transactions.
  DELETE FROM composure.feed_epoch e WHERE e.gone >= pg_snapshot_xmax(pg_current_snapshot());
  INSERT INTO composure.feed_epoch (orphans)
  VALUES (ARRAY(SELECT x FROM pg_snapshot_xip(pg_current_snapshot()) x
                 WHERE x::xid IN (SELECT p.transaction FROM pg_prepared_xacts p)))
  ON CONFLICT DO NOTHING;
END
$f$;
COMMENT ON FUNCTION composure.feed_begin() IS 'For the workers: makes the epoch of the feed where there is none';

CREATE FUNCTION composure.feed_clean(old pg_snapshot, cleaned pg_snapshot DEFAULT NULL) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS $f$
DECLARE
  most_rows constant int := 20000;
  deleted int;
BEGIN
  IF old IS NULL OR pg_snapshot_xmax(old) > pg_snapshot_xmax(pg_current_snapshot()) THEN
    PERFORM composure.refuse('old: not a snapshot that this server has taken', 'Give one that composure.feed_poll() returned some seconds ago.');
  END IF;
  IF NOT pg_try_advisory_xact_lock(hashtextextended('composure.feed_clean', 0)) THEN
    RETURN NULL;
  END IF;
  -- What became visible between cleaned and old, found as feed_poll() finds it: rows that were deleted before, but are
  -- kept by some long transaction's horizon, are not walked over again each time.
  DELETE FROM composure.change c
   WHERE c.ctid = ANY (ARRAY(
           SELECT r.row_id FROM (
             SELECT a.ctid AS row_id FROM composure.change a
              WHERE a.xid >= coalesce(pg_snapshot_xmax(cleaned), '0') AND a.xid < pg_snapshot_xmax(old)
                AND pg_visible_in_snapshot(a.xid, old)
             UNION ALL
             SELECT b.ctid FROM composure.change b
              WHERE b.xid = ANY (ARRAY(SELECT x FROM pg_snapshot_xip(cleaned) x WHERE pg_visible_in_snapshot(x, old)))) r
            LIMIT most_rows));
  GET DIAGNOSTICS deleted = ROW_COUNT;
  IF deleted > 0 THEN
    UPDATE composure.feed_epoch e SET gone = greatest(e.gone, pg_snapshot_xmax(old));
  ELSIF EXISTS (SELECT FROM composure.change c
                 WHERE c.xid >= pg_snapshot_xmax(old) AND c.xid < pg_snapshot_xmax(pg_current_snapshot()))
     OR EXISTS (SELECT FROM composure.change c WHERE c.xid = ANY (ARRAY(SELECT pg_snapshot_xip(old)))) THEN
    -- There will be rows to delete. On a server that is otherwise quiet, the xmax of snapshots has to move on by then,
    -- or followers could not tell theirs from one that did not see those rows.
    PERFORM pg_current_xact_id();
  END IF;
  RETURN deleted;
END
$f$;
COMMENT ON FUNCTION composure.feed_clean(pg_snapshot, pg_snapshot) IS
  $c$For the workers: deletes the changes that old saw, at most 20000 at a time; how many, or NULL while another is at it
old      a snapshot that was taken so long ago that all followers have read what it saw
cleaned  the one of the last call that deleted less than 20000: all it saw is gone$c$;

CREATE OR REPLACE FUNCTION composure.grant_worker() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  worker name := (SELECT worker_role FROM composure.installation);
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA composure TO %I', worker);
  EXECUTE format('GRANT EXECUTE ON FUNCTION composure.catalog(), composure.catalog_state(), composure.key_lookup(text),'
                 ' composure.feed_poll(pg_snapshot), composure.feed_begin(), composure.feed_clean(pg_snapshot, pg_snapshot)'
                 ' TO %I', worker);
END
$f$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA composure FROM PUBLIC;
SELECT composure.grant_worker();
SELECT composure.feed_begin();

$migration$);
