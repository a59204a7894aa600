-- Names that stand in answers though no row has them: an enum's labels, a composite type's members. With another one, all that is
-- kept is read anew.

CALL pg_temp.composure_apply('0012_types', $migration$

DO $do$
DECLARE
  was constant text := pg_get_functiondef('composure.catalog_state()'::regprocedure);
  behind constant text := '           (SELECT concat_ws(''.'', count(*), sum(m.xmin::text::bigint)) FROM pg_auth_members m),';
  becomes constant text := replace(was, behind, concat_ws(E'\n',
    '           -- The labels of enums, the members of composite types',
    '           (SELECT concat_ws(''.'', count(*), sum(e.xmin::text::bigint))',
    '              FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid WHERE t.typnamespace <> ALL (temporary)),',
    '           (SELECT concat_ws(''.'', count(*), sum(a.xmin::text::bigint))',
    '              FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid',
    '             WHERE c.relkind = ''c'' AND a.attnum > 0 AND c.relnamespace <> ALL (temporary)),',
    behind));
BEGIN
  IF becomes = was THEN
    RAISE EXCEPTION 'composure.catalog_state() is not that of 0010_caching';
  END IF;
  EXECUTE becomes;
END
$do$;

$migration$);
