-- Whether the catalog that a worker holds is still true: a text that changes when composure.catalog() would return
-- something else. It is asked for several times a second, so it counts transactions instead of reading what they did.
CALL pg_temp.composure_apply('0004_catalog_state', $migration$

CREATE FUNCTION composure.catalog_state() RETURNS text
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
           (SELECT concat_ws('.', count(*), sum(t.xmin::text::bigint))
              FROM pg_trigger t WHERE t.tgrelid IN (SELECT relation FROM composure.resource)))
$f$;
COMMENT ON FUNCTION composure.catalog_state() IS 'For the workers: changes when composure.catalog() does';

CREATE OR REPLACE FUNCTION composure.grant_worker() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  worker name := (SELECT worker_role FROM composure.installation);
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA composure TO %I', worker);
  EXECUTE format('GRANT EXECUTE ON FUNCTION composure.catalog(), composure.catalog_state(), composure.key_lookup(text) TO %I',
    worker);
END
$f$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA composure FROM PUBLIC;
SELECT composure.grant_worker();

$migration$);
