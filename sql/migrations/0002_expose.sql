-- composure.expose() and composure.unexpose(): what the API serves.
--
-- expose() itself only finds the relation, in the search_path of whoever calls it; expose_relation() does the rest
-- under a search_path of our own.

CALL pg_temp.composure_apply('0002_expose', $migration$

CREATE FUNCTION composure.find_relation(relation text) RETURNS oid
LANGUAGE plpgsql STABLE
AS $f$
DECLARE
  found oid;
  similar_name text;
BEGIN
  -- to_regclass() takes a number for an oid, checked against nothing.
  IF relation OPERATOR(pg_catalog.!~) '^[0-9]+$' THEN
    BEGIN
      found := pg_catalog.to_regclass(relation);
    EXCEPTION WHEN syntax_error OR invalid_name OR feature_not_supported OR invalid_parameter_value THEN
      found := NULL;
    END;
  END IF;
  IF found IS NULL THEN
    SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) INTO similar_name
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
     WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f}'::pg_catalog."char"[])
       AND n.nspname OPERATOR(pg_catalog.<>) ALL ('{pg_catalog,information_schema,composure}'::pg_catalog.name[])
       AND pg_catalog.lower(pg_catalog.replace(relation, '"', '')) OPERATOR(pg_catalog.=)
           ANY (ARRAY[pg_catalog.lower(c.relname::pg_catalog.text),
                      pg_catalog.lower(pg_catalog.format('%s.%s', n.nspname, c.relname))])
     ORDER BY 1 LIMIT 1;
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_table',
      MESSAGE = pg_catalog.format('relation "%s" does not exist', relation),
      HINT = CASE WHEN similar_name IS NULL
                  THEN 'Write it as schema.table; a name with capitals needs double quotes inside: ''public."Users"''.'
                  ELSE pg_catalog.format('Did you mean %L?', similar_name) END;
  END IF;
  RETURN found;
END
$f$;
COMMENT ON FUNCTION composure.find_relation(text) IS 'Internal: a relation by the name a person gave, or a plain error';

CREATE FUNCTION composure.refuse(message text, hint text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = message, HINT = hint;
END
$f$;
COMMENT ON FUNCTION composure.refuse(text, text) IS 'Internal: the one way in which wrong arguments are refused';

CREATE FUNCTION composure.parse_methods(methods text[]) RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  known constant text[] := '{GET,POST,PATCH,PUT,DELETE}';
  unknown text;
  parsed text[];
BEGIN
  SELECT m INTO unknown FROM unnest(methods) m
   WHERE m IS NULL OR upper(m) <> ALL (known || '{HEAD,OPTIONS}'::text[]) LIMIT 1;
  IF FOUND THEN
    PERFORM composure.refuse(format('methods: "%s" is not a method', unknown),
                             'Known are GET, POST, PATCH, PUT and DELETE; GET brings HEAD and OPTIONS with it.');
  END IF;
  parsed := ARRAY(SELECT k FROM unnest(known) WITH ORDINALITY k (k, n)
                   WHERE k IN (SELECT upper(m) FROM unnest(methods) m) ORDER BY n);
  IF parsed = '{}' THEN
    PERFORM composure.refuse('methods: none is left', 'Name at least one of GET, POST, PATCH, PUT and DELETE.');
  END IF;
  RETURN parsed;
END
$f$;
COMMENT ON FUNCTION composure.parse_methods(text[]) IS 'Internal: methods in capitals and in a fixed order';

CREATE FUNCTION composure.parse_cache(cache text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  flags constant text[] := '{public,private,no-store,no-cache,must-revalidate,immutable}';
  ages constant text[] := '{ttl,max-age,s-maxage,stale-while-revalidate,stale-if-error}';
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
COMMENT ON FUNCTION composure.parse_cache(text) IS 'Internal: a cache policy, checked, in small letters, separated by ", "';

CREATE FUNCTION composure.parse_order(default_order text) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  rest text := btrim(coalesce(default_order, ''), E' \t\r\n');
  part text[];
  reverse boolean;
  parsed jsonb := '[]';
BEGIN
  WHILE rest <> '' LOOP
    part := regexp_match(rest,
      '^\s*("(?:[^"]|"")+"|[^\s,"]+)(?:\s+([aA][sS][cC]|[dD][eE][sS][cC]))?(?:\s+[nN][uU][lL][lL][sS]\s*([fF][iI][rR][sS][tT]|[lL][aA][sS][tT]))?\s*(?:(,)|$)');
    IF part IS NULL THEN
      PERFORM composure.refuse(format('default_order: "%s" is not understood', rest),
                               'Write it like SQL: ''created_at desc nulls last, id''.');
    END IF;
    rest := regexp_replace(rest, '^\s*("(?:[^"]|"")+"|[^,"]+)[^,]*(,\s*|$)', '');
    IF part[4] IS NOT NULL AND rest = '' THEN
      PERFORM composure.refuse('default_order: a column is missing after the last comma',
                               'Write it like SQL: ''created_at desc nulls last, id''.');
    END IF;
    IF part[1] LIKE '"%' THEN
      part[1] := replace(substr(part[1], 2, length(part[1]) - 2), '""', '"');
    END IF;
    IF parsed @> jsonb_build_array(jsonb_build_object('column', part[1])) THEN
      PERFORM composure.refuse(format('default_order: column "%s" is there twice', part[1]), 'Write each column once.');
    END IF;
    reverse := coalesce(lower(part[2]) = 'desc', false);
    parsed := parsed || jsonb_build_object(
      'column', part[1], 'desc', reverse,
      'nulls_first', CASE lower(part[3]) WHEN 'first' THEN true WHEN 'last' THEN false ELSE reverse END);
  END LOOP;
  RETURN parsed;
END
$f$;
COMMENT ON FUNCTION composure.parse_order(text) IS 'Internal: "a desc nulls last, b" as [{"column","desc","nulls_first"}]';

CREATE FUNCTION composure.describe(relation oid) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT format('%s %I.%I',
                CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view'
                               WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' WHEN 'S' THEN 'sequence'
                               WHEN 'i' THEN 'index' WHEN 'I' THEN 'index' WHEN 'c' THEN 'composite type'
                               ELSE 'relation' END, n.nspname, c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.oid = relation
$f$;
COMMENT ON FUNCTION composure.describe(oid) IS 'Internal: a relation as a person calls it, "table public.users"';

CREATE FUNCTION composure.expose_relation(
  rel oid, p_name text, p_methods text[], p_key text[], p_hidden text[], p_read_only text[], p_default_order text,
  p_page_default int, p_page_max int, p_cache text, p_cost_read int, p_cost_write int, p_idempotency text,
  p_owner text, p_deadline interval, p_depends oid[], p_trust_me boolean)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  inst composure.installation;
  class record;
  what text := composure.describe(rel);
  names text[];
  known_names text[];
  writable int;
  possible text[];
  found_key text[];
  r composure.resource;
  old composure.resource;
  item text;
  grantee text;
  decisions text;
BEGIN
  -- Everyone who changes the catalog waits here for the one before: what is checked below stays true until commit.
  SELECT * INTO inst FROM composure.installation FOR UPDATE;

  SELECT c.relname::text, n.nspname::text, c.relkind, c.relpersistence, c.relowner,
         c.relrowsecurity, c.relforcerowsecurity
    INTO class
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.oid = rel;
  IF class.relkind NOT IN ('r', 'p', 'v', 'm', 'f') THEN
    PERFORM composure.refuse(format('%s cannot be exposed', what),
                             'expose takes a table, a view, a materialized view or a foreign table.');
  ELSIF class.nspname = 'composure' THEN
    PERFORM composure.refuse(format('%s belongs to Composure itself and cannot be exposed', what),
                             'Expose tables and views of your own.');
  ELSIF class.nspname IN ('pg_catalog', 'information_schema', 'pg_toast') THEN
    PERFORM composure.refuse(format('%s belongs to PostgreSQL and cannot be exposed', what),
                             'Expose a view of your own that selects what is needed from it.');
  ELSIF class.relpersistence = 't' THEN
    PERFORM composure.refuse(format('%s is temporary: no other session can see it', what),
                             'Make it a permanent table.');
  END IF;

  -- Name. Without one, a relation that is exposed already keeps its name.
  r.name := p_name;
  IF r.name IS NULL THEN
    known_names := ARRAY(SELECT res.name FROM composure.resource res WHERE res.relation = rel ORDER BY res.name);
    IF cardinality(known_names) > 1 THEN
      PERFORM composure.refuse(format('%s is exposed under several names: %s', what, array_to_string(known_names, ', ')),
                               format('Say which one: name => %L.', known_names[1]));
    END IF;
    r.name := coalesce(known_names[1], class.relname);
  END IF;
  IF r.name IN ('', '.', '..', 'rpc') OR r.name ~ '[/,\x01-\x1f\x7f]' OR octet_length(r.name) > 200 THEN
    PERFORM composure.refuse(
      format('name: "%s" cannot be part of a URL', regexp_replace(r.name, '[\x01-\x1f\x7f]', '?', 'g')),
      'Choose another with name => ''...'': 1 to 200 bytes without "/", "," and control characters, and not ".", ".." or "rpc".');
  END IF;
  SELECT * INTO old FROM composure.resource res WHERE res.name = r.name;
  IF FOUND AND old.relation <> rel AND EXISTS (SELECT FROM pg_class WHERE oid = old.relation) THEN
    PERFORM composure.refuse(format('name: "%s" is taken by %s', r.name, composure.describe(old.relation)),
                             format('Choose another with name => ''...'', or first: SELECT composure.unexpose(%L);', r.name));
  END IF;
  r.relation := rel;

  -- Methods. The bits are 1 << CmdType: update 2, insert 3, delete 4.
  writable := pg_relation_is_updatable(rel, true);
  possible := '{GET}'::text[]
    || CASE WHEN writable & 8 <> 0 THEN '{POST}'::text[] ELSE '{}' END
    || CASE WHEN writable & 4 <> 0 THEN '{PATCH}'::text[] ELSE '{}' END
    || CASE WHEN writable & 12 = 12 THEN '{PUT}'::text[] ELSE '{}' END
    || CASE WHEN writable & 16 <> 0 THEN '{DELETE}'::text[] ELSE '{}' END;
  r.methods := CASE WHEN p_methods IS NULL THEN possible ELSE composure.parse_methods(p_methods) END;
  SELECT m INTO item FROM unnest(r.methods) m WHERE m <> ALL (possible) LIMIT 1;
  IF FOUND THEN
    PERFORM composure.refuse(format('methods: %s cannot take %s', what, item),
                             format('PostgreSQL allows it %s; an INSTEAD OF trigger can make a view writable.',
                                    array_to_string(possible, ', ')));
  END IF;

  -- Columns
  names := ARRAY(SELECT c.name FROM composure.columns_of(ARRAY[rel]) c ORDER BY c.num);
  r.key := p_key;
  r.hidden := coalesce(p_hidden, '{}');
  r.read_only := coalesce(p_read_only, '{}');
  r.default_order := composure.parse_order(p_default_order);
  r.owner := p_owner;
  SELECT format('%s: %s has no column "%s"', c.argument, what, c.name) INTO item
    FROM (SELECT 1, 'key', unnest(r.key)
          UNION ALL SELECT 2, 'hidden', unnest(r.hidden)
          UNION ALL SELECT 3, 'read_only', unnest(r.read_only)
          UNION ALL SELECT 4, 'default_order', e ->> 'column' FROM jsonb_array_elements(r.default_order) e
          UNION ALL SELECT 5, 'owner', r.owner WHERE r.owner IS NOT NULL) c (n, argument, name)
   WHERE c.name IS NULL OR c.name <> ALL (names)
   ORDER BY c.n LIMIT 1;
  IF FOUND THEN
    PERFORM composure.refuse(item, format('Its columns are: %s.', array_to_string(names, ', ')));
  END IF;
  IF names <@ r.hidden THEN
    PERFORM composure.refuse(format('hidden: no column of %s is left', what), 'Hide fewer columns.');
  END IF;

  -- Key
  found_key := r.key;
  IF r.key = '{}' THEN
    PERFORM composure.refuse('key: it is empty', 'Name the columns that identify a row, or leave it out.');
  ELSIF r.key IS NULL THEN
    found_key := composure.find_key(rel);
    IF found_key IS NULL AND class.relkind IN ('r', 'p') THEN
      PERFORM composure.refuse(
        format('%s has no key: neither a primary key nor a unique index of NOT NULL columns', what),
        format('ALTER TABLE %I.%I ADD PRIMARY KEY (...), or name columns that identify a row: key => ''{...}''.',
               class.nspname, class.relname));
    ELSIF found_key IS NULL THEN
      PERFORM composure.refuse(format('%s needs a key', what),
                               'Name the columns that identify a row (unique and never null): key => ''{...}''.');
    END IF;
  ELSIF (SELECT count(DISTINCT k) <> count(*) FROM unnest(r.key) k) THEN
    PERFORM composure.refuse('key: a column is there twice', 'Write each column once.');
  ELSIF class.relkind IN ('r', 'p') THEN
    SELECT c.name INTO item FROM composure.columns_of(ARRAY[rel]) c
     WHERE c.name = ANY (r.key) AND NOT c.not_null ORDER BY c.num LIMIT 1;
    IF FOUND THEN
      PERFORM composure.refuse(format('key: column "%s" of %s may be null', item, what),
                               format('ALTER TABLE %I.%I ALTER COLUMN %I SET NOT NULL;',
                                      class.nspname, class.relname, item));
    END IF;
  END IF;
  SELECT k INTO item FROM unnest(found_key) k WHERE k = ANY (r.hidden) LIMIT 1;
  IF FOUND THEN
    PERFORM composure.refuse(format('hidden: column "%s" is part of the key, which every item''s URL shows', item),
                             'Leave it visible, or choose other columns with key => ''{...}''.');
  END IF;
  SELECT e ->> 'column' INTO item FROM jsonb_array_elements(r.default_order) e
   WHERE e ->> 'column' = ANY (r.hidden) LIMIT 1;
  IF FOUND THEN
    PERFORM composure.refuse(format('default_order: column "%s" is hidden', item),
                             'Cursors would show it: order by visible columns.');
  END IF;
  SELECT format('%s: column "%s" has type %s, which has no order',
                CASE WHEN c.name = ANY (found_key) THEN 'key' ELSE 'default_order' END,
                c.name, format_type(c.type_oid, NULL)) INTO item
    FROM composure.columns_of(ARRAY[rel]) c
   WHERE NOT c.sortable
     AND (c.name = ANY (found_key) OR r.default_order @> jsonb_build_array(jsonb_build_object('column', c.name)))
   ORDER BY c.num LIMIT 1;
  IF FOUND THEN
    PERFORM composure.refuse(item, 'Pages follow an order: choose columns of a type with a btree operator class.');
  END IF;

  -- Numbers and words
  r.page_max := coalesce(p_page_max, greatest(200, p_page_default));
  r.page_default := coalesce(p_page_default, least(50, r.page_max));
  IF r.page_max NOT BETWEEN 1 AND 1000 THEN
    PERFORM composure.refuse(
      CASE WHEN p_page_max IS NULL THEN format('page_default must be between 1 and 1000, not %s', r.page_default)
           ELSE format('page_max must be between 1 and 1000, not %s', r.page_max) END,
      'Clients get more by following next_cursor.');
  ELSIF r.page_default NOT BETWEEN 1 AND r.page_max THEN
    PERFORM composure.refuse(format('page_default must be between 1 and page_max (%s), not %s', r.page_max, r.page_default),
                             'It is the number of rows of a page when the client asks for no limit.');
  END IF;
  r.cost_read := coalesce(p_cost_read, 1);
  r.cost_write := coalesce(p_cost_write, 1);
  IF least(r.cost_read, r.cost_write) < 0 THEN
    PERFORM composure.refuse(format('%s must not be negative', CASE WHEN r.cost_read < 0 THEN 'cost_read' ELSE 'cost_write' END),
                             'It is the number of rate-limit tokens that a request takes; 0 is free.');
  END IF;
  r.idempotency := coalesce(p_idempotency, 'optional');
  IF r.idempotency NOT IN ('required', 'optional', 'none') THEN
    PERFORM composure.refuse(format('idempotency: "%s" is not known', r.idempotency),
                             'It is one of required, optional and none.');
  END IF;
  IF p_deadline IS NOT NULL AND (p_deadline < interval '1 millisecond' OR p_deadline > interval '10 minutes') THEN
    PERFORM composure.refuse(format('deadline must be between 1 ms and 10 minutes, not %s', p_deadline),
                             'For example: deadline => ''2 seconds''.');
  END IF;
  r.deadline_ms := extract(epoch FROM p_deadline) * 1000;
  r.depends := p_depends;
  r.trust_me := coalesce(p_trust_me, false);

  r.cache := composure.parse_cache(p_cache);
  IF 'public' = ANY (string_to_array(r.cache, ', '))
     AND NOT composure.may(coalesce(inst.anonymous_role, inst.worker_role), rel, 'SELECT') THEN
    PERFORM composure.refuse(
      format('cache: public, but role "%s" may not select from %s',
             coalesce(inst.anonymous_role, inst.worker_role), what),
      concat(CASE WHEN NOT has_schema_privilege(inst.anonymous_role, class.nspname, 'USAGE')
                  THEN format('GRANT USAGE ON SCHEMA %I TO %I; ', class.nspname, inst.anonymous_role) END,
             format('GRANT SELECT ON %I.%I TO %I; or leave public out.',
                    class.nspname, class.relname, inst.anonymous_role)));
  END IF;

  IF old.name IS NULL THEN
    INSERT INTO composure.resource (name, relation, methods, key, hidden, read_only, default_order, page_default,
                                    page_max, cache, cost_read, cost_write, idempotency, owner, deadline_ms, depends,
                                    trust_me)
    VALUES (r.name, r.relation, r.methods, r.key, r.hidden, r.read_only, r.default_order, r.page_default,
            r.page_max, r.cache, r.cost_read, r.cost_write, r.idempotency, r.owner, r.deadline_ms, r.depends,
            r.trust_me);
  ELSE
    UPDATE composure.resource res
       SET relation = r.relation, methods = r.methods, key = r.key, hidden = r.hidden, read_only = r.read_only,
           default_order = r.default_order, page_default = r.page_default, page_max = r.page_max, cache = r.cache,
           cost_read = r.cost_read, cost_write = r.cost_write, idempotency = r.idempotency, owner = r.owner,
           deadline_ms = r.deadline_ms, depends = r.depends, trust_me = r.trust_me, exposed_at = now()
     WHERE res.name = r.name;
    FOR item IN SELECT h FROM unnest(old.hidden) h WHERE h = ANY (names) AND h <> ALL (r.hidden) LOOP
      RAISE WARNING 'column "%" of /% was hidden and is visible now', item, r.name
        USING HINT = 'expose replaces all that was said before; repeat hidden => to keep it.';
    END LOOP;
  END IF;

  -- What is allowed, but may not be what was meant
  IF class.relkind IN ('r', 'p') AND r.key IS NOT NULL AND NOT EXISTS (
       SELECT FROM pg_index i
        WHERE i.indrelid = rel AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
          AND (SELECT bool_and(a.attname::text = ANY (r.key))
                 FROM unnest(i.indkey) WITH ORDINALITY c (attnum, n)
                 JOIN pg_attribute a ON a.attrelid = rel AND a.attnum = c.attnum
                WHERE c.n <= i.indnkeyatts)) THEN
    RAISE WARNING 'nothing makes the key (%) of % unique: pages could skip rows, and are slow', array_to_string(r.key, ', '), what
      USING HINT = format('CREATE UNIQUE INDEX ON %I.%I (%s);', class.nspname, class.relname,
                          (SELECT string_agg(quote_ident(k), ', ') FROM unnest(r.key) k));
  END IF;
  IF inst.anonymous_role IS NULL THEN
    RAISE NOTICE 'requests run as "%", with or without a key: what expose says is all that decides who may do what', inst.worker_role
      USING HINT = CASE WHEN class.relrowsecurity AND NOT class.relforcerowsecurity
                        THEN format('Row-level security applies only with: ALTER TABLE %I.%I FORCE ROW LEVEL SECURITY;',
                                    class.nspname, class.relname)
                        ELSE 'Row-level security applies only to tables with FORCE ROW LEVEL SECURITY.' END;
  ELSIF 'GET' = ANY (r.methods)
        AND NOT EXISTS (SELECT FROM composure.api_roles() a WHERE composure.may(a, rel, 'SELECT')) THEN
    SELECT CASE WHEN count(*) = 1 THEN quote_ident(min(a::text)) ELSE '<role of your API keys>' END INTO grantee
      FROM composure.api_roles() a WHERE a <> inst.anonymous_role;
    RAISE WARNING 'no API role may select from % yet', what
      USING HINT = format('GRANT USAGE ON SCHEMA %I TO %s; GRANT SELECT ON %I.%I TO %s;',
                          class.nspname, grantee, class.nspname, class.relname, grantee);
  END IF;

  SELECT concat_ws(E'\n',
           format('/%s  %s', r.name, what),
           '  methods  ' || array_to_string(r.methods, ', '),
           '  key      ' || array_to_string(res.key, ', '),
           '  order    ' || res."order",
           format('  page     %s, at most %s', r.page_default, r.page_max),
           '  cache    ' || coalesce(r.cache, 'private, no-cache'),
           '  hidden   ' || nullif(array_to_string(r.hidden, ', '), ''),
           '  readonly ' || nullif(array_to_string(r.read_only, ', '), ''),
           '  owner    ' || r.owner,
           '  idempotency ' || nullif(r.idempotency, 'optional'),
           '  deadline ' || (r.deadline_ms || ' ms'))
    INTO decisions
    FROM composure.resources res WHERE res.name = r.name;
  RETURN decisions;
END
$f$;
COMMENT ON FUNCTION composure.expose_relation(oid, text, text[], text[], text[], text[], text, int, int, text, int, int, text, text, interval, oid[], boolean)
  IS 'Internal: expose() once the relation is found';

CREATE FUNCTION composure.api_roles() RETURNS SETOF name
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT composure.running_roles()
  UNION
  SELECT pg_get_userbyid(m.roleid)
    FROM composure.installation i
    JOIN pg_roles w ON w.rolname = i.worker_role
    JOIN pg_auth_members m ON m.member = w.oid
   WHERE i.anonymous_role IS NOT NULL
$f$;
COMMENT ON FUNCTION composure.api_roles() IS 'Internal: the roles that requests run as, or could once there is a key';

CREATE FUNCTION composure.may(role name, relation oid, privilege text) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT has_schema_privilege(role, c.relnamespace, 'USAGE')
         AND (has_table_privilege(role, c.oid, privilege) OR has_any_column_privilege(role, c.oid, privilege))
    FROM pg_class c WHERE c.oid = relation
$f$;
COMMENT ON FUNCTION composure.may(name, oid, text) IS 'Internal: whether a role reaches some of a relation';

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
  trust_me boolean DEFAULT false)
RETURNS text
LANGUAGE plpgsql
AS $f$
#variable_conflict use_variable
DECLARE
  found_depends pg_catalog.oid[] := '{}';
  dependency text;
BEGIN
  FOREACH dependency IN ARRAY coalesce(depends, '{}') LOOP
    found_depends := pg_catalog.array_append(found_depends, composure.find_relation(dependency));
  END LOOP;
  RETURN composure.expose_relation(
    composure.find_relation(relation), name, methods, key, hidden, read_only, default_order, page_default, page_max,
    cache, cost_read, cost_write, idempotency, owner, deadline, found_depends, trust_me);
END
$f$;
COMMENT ON FUNCTION composure.expose(text, text, text[], text[], text[], text[], text, int, int, text, int, int, text, text, interval, text[], boolean)
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
trust_me       share cached answers more widely than is safe by default$c$;

CREATE FUNCTION composure.unexpose(name text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
BEGIN
  PERFORM FROM composure.installation FOR UPDATE;
  DELETE FROM composure.resource r WHERE r.name = unexpose.name;
  IF NOT FOUND THEN
    PERFORM composure.refuse(
      format('nothing is exposed as "%s"', unexpose.name),
      coalesce((SELECT 'Exposed are: ' || string_agg(r.name, ', ' ORDER BY r.name) || '.' FROM composure.resource r),
               'Nothing is exposed yet.'));
  END IF;
  RETURN format('/%s is no longer served', unexpose.name);
END
$f$;
COMMENT ON FUNCTION composure.unexpose(text) IS 'Takes a resource out of the API: SELECT composure.unexpose(''users'')';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA composure FROM PUBLIC;
SELECT composure.grant_worker();

$migration$);
