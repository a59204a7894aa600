-- Read replicas (doc/replicas.md): how far behind one may be that a resource is read from.

CALL pg_temp.composure_apply('0012_replicas', $migration$

-- max-lag=5: a replica that is further behind, in seconds, is not read from; 0: none is. Ours alone, as ttl.
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
  END IF;
  RETURN array_to_string(parsed, ', ');
END
$f$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA composure FROM PUBLIC;
SELECT composure.grant_worker();

$migration$);
