-- Rate limits: a plan has up to four windows, and every identity a bucket of tokens for each of them. A host takes tokens
-- out in advance, by composure.lease(), and spends them without asking again; a grant is taken from all windows alike.
--
-- The promise, over all hosts: no more than burst + rate * time in any window, and one burst more for a forward step of
-- the server's clock. It rests on three rules. The clock is read after the bucket's row is locked: the time when we began
-- to wait is not the time when it was our turn. A bucket's own time never goes back. And a bucket that is missing is not
-- a full one unless it must be: a crash empties UNLOGGED tables, and would otherwise fill every bucket.
--
-- The lock is that of the row, taken in the order of owners. An advisory lock would guard the same rows at the price of
-- one more lock, and hashes of owners would collide: row locks queue fairly, and lock_timeout ends the waiting.

CALL pg_temp.composure_apply('0008_limits', $migration$

-- Plans

CREATE TABLE composure.plan_window (
  plan text NOT NULL REFERENCES composure.plan ON UPDATE CASCADE ON DELETE CASCADE,
  num int NOT NULL CHECK (num > 0),
  name text COLLATE "C" NOT NULL CHECK (name ~ '^[a-z0-9_-]{1,32}$'),
  rate numeric NOT NULL CHECK (rate > 0),
  burst int NOT NULL CHECK (burst > 0),
  per interval NOT NULL CHECK (per > interval '0'),
  per_second float8 NOT NULL GENERATED ALWAYS AS (rate::float8 / extract(epoch FROM per)::float8) STORED,
  long boolean NOT NULL GENERATED ALWAYS AS (per > interval '1 minute') STORED,
  policy text NOT NULL GENERATED ALWAYS AS (
    '"' || name
    || '";q=' || greatest(1, floor(rate * greatest(1, floor(extract(epoch FROM per)::numeric)) / extract(epoch FROM per)::numeric))::text
    || ';w=' || greatest(1, floor(extract(epoch FROM per)::numeric))::text) STORED,
  PRIMARY KEY (plan, num),
  UNIQUE (plan, name)
);
COMMENT ON TABLE composure.plan_window IS 'The windows of a plan: rate tokens per interval, at most burst at once';
COMMENT ON COLUMN composure.plan_window.num IS 'Their order; there may be gaps';
COMMENT ON COLUMN composure.plan_window.per_second IS 'The rate, by which buckets fill';
COMMENT ON COLUMN composure.plan_window.long IS 'Over a minute: its buckets survive a crash of PostgreSQL';
COMMENT ON COLUMN composure.plan_window.policy IS 'Its item of the header field RateLimit-Policy';

INSERT INTO composure.plan_window (plan, num, name, rate, burst, per)
SELECT name, 1, 'default', rate, burst, per FROM composure.plan;
ALTER TABLE composure.plan DROP COLUMN rate, DROP COLUMN burst, DROP COLUMN per;
COMMENT ON TABLE composure.plan IS 'Rate limits, by composure.create_plan(); "anonymous" is that of clients without a key, by address';

CREATE FUNCTION composure.note_limits() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $f$
BEGIN
  PERFORM composure.note_change('@limits');
  RETURN NULL;
END
$f$;
COMMENT ON FUNCTION composure.note_limits() IS 'Internal: a change of plans';
COMMENT ON FUNCTION composure.note_catalog() IS 'Internal: a change of what the API serves';
COMMENT ON COLUMN composure.change.resource IS
  'A resource, or @catalog (expose()), @limits (plans), @key (API keys, by id), @all (composure.rights_changed())';

DROP TRIGGER note_catalog ON composure.plan;
CREATE TRIGGER note_limits AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON composure.plan
  FOR EACH STATEMENT EXECUTE FUNCTION composure.note_limits();
ALTER TABLE composure.plan ENABLE ALWAYS TRIGGER note_limits;
CREATE TRIGGER note_limits AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON composure.plan_window
  FOR EACH STATEMENT EXECUTE FUNCTION composure.note_limits();
ALTER TABLE composure.plan_window ENABLE ALWAYS TRIGGER note_limits;

CREATE FUNCTION composure.check_window(rate numeric, burst int, per interval) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
BEGIN
  IF rate IS NULL OR rate = 'NaN' OR rate <= 0 OR rate > 1000000000 THEN
    PERFORM composure.refuse(format('rate must be above 0 and at most 1000000000, not %s', coalesce(rate::text, 'NULL')),
                             'It is the number of requests per interval; a key without a plan has no limit.');
  ELSIF per IS NULL OR per < interval '1 millisecond' OR per > interval '31 days' THEN
    PERFORM composure.refuse(format('per must be between 1 ms and 31 days, not %s', coalesce(per::text, 'NULL')),
                             'For example: per => ''1 minute''.');
  ELSIF burst < 1 THEN
    PERFORM composure.refuse(format('burst must be at least 1, not %s', burst),
                             'It is the number of requests that may come at once.');
  END IF;
END
$f$;
COMMENT ON FUNCTION composure.check_window(numeric, int, interval) IS 'Internal: refuses limits that make no sense';

CREATE FUNCTION composure.describe_window(plan text, name text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT format('%s per %s, at most %s at once', w.rate,
                CASE w.per WHEN interval '1 second' THEN 'second' WHEN interval '1 minute' THEN 'minute'
                           WHEN interval '1 hour' THEN 'hour' WHEN interval '1 day' THEN 'day'
                           ELSE w.per::text END, w.burst)
    FROM composure.plan_window w WHERE w.plan = describe_window.plan AND w.name = describe_window.name
$f$;
COMMENT ON FUNCTION composure.describe_window(text, text) IS 'Internal: a window in words';

CREATE FUNCTION composure.find_plan(name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
BEGIN
  -- Until commit: two that change a plan's windows take turns.
  PERFORM FROM composure.plan p WHERE p.name = find_plan.name FOR UPDATE;
  IF NOT FOUND THEN
    PERFORM composure.refuse(
      format('plan "%s" does not exist', find_plan.name),
      coalesce((SELECT 'There are: ' || string_agg(p.name, ', ' ORDER BY p.name) || '.' FROM composure.plan p),
               'There is none yet: composure.create_plan() makes one.'));
  END IF;
END
$f$;
COMMENT ON FUNCTION composure.find_plan(text) IS 'Internal: locks a plan, or a plain error';

CREATE OR REPLACE FUNCTION composure.create_plan(name text, rate numeric, burst int DEFAULT NULL, per interval DEFAULT '1 second')
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
#variable_conflict use_column
BEGIN
  IF coalesce(create_plan.name, '') = '' THEN
    PERFORM composure.refuse('name: a plan needs one', 'For example: composure.create_plan(''standard'', rate => 100, burst => 200)');
  END IF;
  PERFORM composure.check_window(create_plan.rate, create_plan.burst, create_plan.per);
  INSERT INTO composure.plan (name) VALUES (create_plan.name) ON CONFLICT DO NOTHING;
  PERFORM composure.find_plan(create_plan.name);
  DELETE FROM composure.plan_window w WHERE w.plan = create_plan.name;
  INSERT INTO composure.plan_window (plan, num, name, rate, burst, per)
  VALUES (create_plan.name, 1, 'default', create_plan.rate,
          coalesce(create_plan.burst, ceil(create_plan.rate)::int), create_plan.per);
  RETURN format('plan %s: %s', create_plan.name, composure.describe_window(create_plan.name, 'default'));
END
$f$;
COMMENT ON FUNCTION composure.create_plan(text, numeric, int, interval) IS
  $c$A rate limit for keys; called again, it replaces: SELECT composure.create_plan('standard', rate => 100, burst => 200)
burst defaults to the rate, per to one second. It has one window, "default"; composure.add_window() adds more. The plan
"anonymous" is that of clients without a key, each address by itself.$c$;

CREATE FUNCTION composure.add_window(plan text, name text, rate numeric, burst int DEFAULT NULL, per interval DEFAULT '1 day')
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
#variable_conflict use_column
DECLARE
  most_windows constant int := 4;
BEGIN
  IF coalesce(add_window.name !~ '^[a-z0-9_-]{1,32}$', true) THEN
    PERFORM composure.refuse(format('name must be 1 to 32 of a-z, 0-9, _ and -, not %s', coalesce(quote_literal(add_window.name), 'NULL')),
                             'Clients see it in RateLimit-Policy. For example: ''day''.');
  END IF;
  PERFORM composure.check_window(add_window.rate, add_window.burst, add_window.per);
  PERFORM composure.find_plan(add_window.plan);
  IF (SELECT count(*) >= most_windows FROM composure.plan_window w
       WHERE w.plan = add_window.plan AND w.name <> add_window.name) THEN
    PERFORM composure.refuse(format('plan "%s" has %s windows already', add_window.plan, most_windows),
                             'Drop one first: composure.drop_window().');
  END IF;
  INSERT INTO composure.plan_window AS old (plan, num, name, rate, burst, per)
  VALUES (add_window.plan,
          (SELECT coalesce(max(w.num), 0) + 1 FROM composure.plan_window w WHERE w.plan = add_window.plan),
          add_window.name, add_window.rate, coalesce(add_window.burst, ceil(add_window.rate)::int), add_window.per)
  ON CONFLICT (plan, name) DO UPDATE SET rate = excluded.rate, burst = excluded.burst, per = excluded.per;
  RETURN format('plan %s, window %s: %s', add_window.plan, add_window.name,
                composure.describe_window(add_window.plan, add_window.name));
END
$f$;
COMMENT ON FUNCTION composure.add_window(text, text, numeric, int, interval) IS
  $c$One more limit of a plan, at most 4; called again, it replaces:
SELECT composure.add_window('standard', 'day', rate => 1000000, per => '1 day')
burst defaults to the rate, per to one day.$c$;

CREATE FUNCTION composure.drop_window(plan text, name text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
#variable_conflict use_column
BEGIN
  PERFORM composure.find_plan(drop_window.plan);
  IF NOT EXISTS (SELECT FROM composure.plan_window w WHERE w.plan = drop_window.plan AND w.name = drop_window.name) THEN
    PERFORM composure.refuse(
      format('plan "%s" has no window "%s"', drop_window.plan, drop_window.name),
      (SELECT 'It has: ' || string_agg(w.name, ', ' ORDER BY w.num) || '.' FROM composure.plan_window w WHERE w.plan = drop_window.plan));
  ELSIF (SELECT count(*) = 1 FROM composure.plan_window w WHERE w.plan = drop_window.plan) THEN
    PERFORM composure.refuse(format('window "%s" is the only one of plan "%s"', drop_window.name, drop_window.plan),
                             'A key without a limit has no plan.');
  END IF;
  DELETE FROM composure.plan_window w WHERE w.plan = drop_window.plan AND w.name = drop_window.name;
  RETURN format('plan %s: window %s is dropped', drop_window.plan, drop_window.name);
END
$f$;
COMMENT ON FUNCTION composure.drop_window(text, text) IS 'Takes a window off a plan: SELECT composure.drop_window(''standard'', ''day'')';

-- As before, with the first window of the plan.
CREATE OR REPLACE FUNCTION composure.key_lookup(key_id text)
RETURNS TABLE (id text, name text, role text, tenant text, plan text, rate float8, burst int, per_seconds float8,
               secret_hashes bytea[], expires_at bigint, secret_expires_at bigint[])
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $f$
  SELECT k.id, k.name, k.role::text, k.tenant, k.plan, w.rate::float8, w.burst, extract(epoch FROM w.per)::float8,
         s.hashes, round(extract(epoch FROM k.expires_at) * 1000000)::bigint, s.expiries
    FROM composure.api_key k
    LEFT JOIN LATERAL (
      SELECT f.rate, f.burst, f.per FROM composure.plan_window f WHERE f.plan = k.plan ORDER BY f.num LIMIT 1) w ON true
    CROSS JOIN LATERAL (
      SELECT array_agg(a.hash ORDER BY a.created_at DESC, a.hash) AS hashes,
             array_agg(coalesce(round(extract(epoch FROM a.expires_at) * 1000000)::bigint, 0)
                       ORDER BY a.created_at DESC, a.hash) AS expiries
        FROM composure.api_secret a
       WHERE a.key_id = k.id AND coalesce(a.expires_at > now(), true)) s
   WHERE k.id = key_lookup.key_id AND k.revoked_at IS NULL AND coalesce(k.expires_at > now(), true)
     AND s.hashes IS NOT NULL
     AND (k.role IS NULL
          OR EXISTS (SELECT FROM pg_roles r WHERE r.rolname = k.role AND NOT r.rolsuper AND NOT r.rolbypassrls))
$f$;

-- Buckets

-- Half of a page is free, so that an update stays in it and no index is touched.
CREATE UNLOGGED TABLE composure.bucket (
  owner text COLLATE "C" NOT NULL,
  window_name text COLLATE "C" NOT NULL,
  tokens float8 NOT NULL,
  last timestamptz NOT NULL,
  PRIMARY KEY (owner, window_name)
) WITH (fillfactor = 50, vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE composure.bucket IS
  'Tokens of windows up to a minute. UNLOGGED: a lease waits for no disk, and after a crash they begin empty';
COMMENT ON COLUMN composure.bucket.owner IS 'The id of an API key, or address/ and the address of a client without one';
COMMENT ON COLUMN composure.bucket.tokens IS 'What was there at last; below 0: spent while PostgreSQL was away';

CREATE TABLE composure.bucket_long (
  owner text COLLATE "C" NOT NULL,
  window_name text COLLATE "C" NOT NULL,
  tokens float8 NOT NULL,
  last timestamptz NOT NULL,
  PRIMARY KEY (owner, window_name)
) WITH (fillfactor = 50, vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE composure.bucket_long IS 'Tokens of windows over a minute: they survive a crash';

CREATE UNLOGGED TABLE composure.limit_count (
  owner text COLLATE "C" PRIMARY KEY,
  admitted bigint NOT NULL,
  refused bigint NOT NULL,
  seen timestamptz NOT NULL
) WITH (fillfactor = 50, vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE composure.limit_count IS
  'Requests by owner, for people: look at composure.usage. UNLOGGED: counting waits for no disk, and begins anew after a crash';

CREATE UNLOGGED TABLE composure.limit_host (
  id text COLLATE "C" PRIMARY KEY,
  seen timestamptz NOT NULL
) WITH (fillfactor = 50, vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE composure.limit_host IS 'Hosts that have leased lately';

-- These three have no search_path of their own, so that they are inlined.
CREATE FUNCTION composure.limit_clock() RETURNS timestamptz
LANGUAGE sql VOLATILE
AS $f$
  SELECT pg_catalog.clock_timestamp()
$f$;
COMMENT ON FUNCTION composure.limit_clock() IS 'Internal: the clock of rate limits';

CREATE FUNCTION composure.bucket_tokens(tokens float8, last timestamptz, per_second float8, burst float8, now timestamptz)
RETURNS float8
LANGUAGE sql IMMUTABLE
AS $f$
  SELECT least(burst, tokens OPERATOR(pg_catalog.+) (per_second OPERATOR(pg_catalog.*)
               greatest(0, extract(epoch FROM now OPERATOR(pg_catalog.-) last)::pg_catalog.float8)))
$f$;
COMMENT ON FUNCTION composure.bucket_tokens(float8, timestamptz, float8, float8, timestamptz) IS 'Internal: tokens of a bucket by now';

CREATE FUNCTION composure.bucket_begin(long boolean, created_at timestamptz, since timestamptz, per_second float8, burst float8, now timestamptz)
RETURNS float8
LANGUAGE sql IMMUTABLE
AS $f$
  SELECT CASE WHEN long OR created_at OPERATOR(pg_catalog.>) since THEN burst
              ELSE composure.bucket_tokens(0, since, per_second, burst, now) END
$f$;
COMMENT ON FUNCTION composure.bucket_begin(boolean, timestamptz, timestamptz, float8, float8, timestamptz) IS
  'Internal: tokens of a bucket that is missing: a new key has its burst, others what came in since the last crash';

-- Says that a host is there, at most once a second, and how many are.
CREATE FUNCTION composure.limit_hosts(host text) RETURNS int
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
DECLARE
  now timestamptz := composure.limit_clock();
BEGIN
  IF host IS NOT NULL AND NOT EXISTS (
       SELECT FROM composure.limit_host h
        WHERE h.id = host AND h.seen > now - interval '1 second' AND h.seen < now + interval '1 second') THEN
    -- Whoever finds the row locked leaves it to whoever has it.
    UPDATE composure.limit_host h SET seen = now
     WHERE h.id = (SELECT l.id FROM composure.limit_host l WHERE l.id = host FOR UPDATE SKIP LOCKED);
    IF NOT FOUND THEN
      INSERT INTO composure.limit_host (id, seen)
      SELECT host, now WHERE NOT EXISTS (SELECT FROM composure.limit_host h WHERE h.id = host)
      ON CONFLICT DO NOTHING;
    END IF;
    DELETE FROM composure.limit_host h
     WHERE h.id IN (SELECT l.id FROM composure.limit_host l
                     WHERE l.seen < now - interval '1 minute' OR l.seen > now + interval '1 minute'
                       FOR UPDATE SKIP LOCKED);
  END IF;
  RETURN (SELECT greatest(1, count(*)) FROM composure.limit_host h WHERE h.seen > now - interval '10 seconds');
END
$f$;
COMMENT ON FUNCTION composure.limit_hosts(text) IS 'Internal: hosts that leased in the last 10 seconds, this one with them';

-- One owner after the other, in order, so that two batches never wait for each other in a ring. Where a plan's windows
-- are changed meanwhile they might: lock_timeout comes long before the deadlock is looked for.
CREATE FUNCTION composure.lease(host text, host_epoch text, owners text[], wanted int[], minimum int[], returned int[],
                                debt int[], admitted int[], refused int[])
RETURNS TABLE (num int, granted int, wait_us bigint, violated int, hosts int, epoch text, policy text,
               rate float8[], burst float8[], remaining float8[])
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '20ms'
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS $f$
#variable_conflict use_column
DECLARE
  most_owners constant int := 1000;
  n constant int := cardinality(owners);
  item record;
  since timestamptz;
  now timestamptz;
  levels float8[];
  times timestamptz[];
  t float8;
  l timestamptz;
  paid int;
  moves boolean;
  writes boolean;
  least_burst float8;
  cap float8;
  want float8;
  need float8;
  there float8;
  wait float8;
BEGIN
  IF n IS NULL OR n > most_owners
     OR (cardinality(wanted) = n AND cardinality(minimum) = n AND cardinality(returned) = n AND cardinality(debt) = n
         AND cardinality(admitted) = n AND cardinality(refused) = n) IS NOT TRUE THEN
    PERFORM composure.refuse(format('owners and numbers: arrays of one length, at most %s', most_owners), 'The worker gives all of them.');
  END IF;
  SELECT f.id::text, f.since INTO epoch, since FROM composure.feed_epoch f WHERE f.one;
  IF NOT FOUND THEN
    PERFORM composure.feed_begin();
    SELECT f.id::text, f.since INTO epoch, since FROM composure.feed_epoch f WHERE f.one;
  END IF;
  hosts := composure.limit_hosts(host);

  FOR item IN
    SELECT o.num, o.owner, o.wanted, o.minimum, o.returned, o.debt, o.admitted, o.refused, k.created_at, w.*
      FROM unnest(owners, wanted, minimum, returned, debt, admitted, refused)
           WITH ORDINALITY o (owner, wanted, minimum, returned, debt, admitted, refused, num)
      LEFT JOIN composure.api_key k ON k.id = o.owner AND k.revoked_at IS NULL
      CROSS JOIN LATERAL (
        SELECT count(*)::int AS windows, array_agg(s.name ORDER BY s.num) AS names, array_agg(s.per_second ORDER BY s.num) AS rates,
               array_agg(s.burst::float8 ORDER BY s.num) AS bursts, array_agg(s.long ORDER BY s.num) AS longs,
               string_agg(s.policy, ', ' ORDER BY s.num) AS policy
          FROM composure.plan_window s
         WHERE s.plan = CASE WHEN o.owner LIKE 'address/%' THEN 'anonymous' ELSE k.plan END) w
     ORDER BY o.owner COLLATE "C", o.num
  LOOP
    IF (ROW(item.owner, item.wanted, item.minimum, item.returned, item.debt, item.admitted, item.refused) IS NOT NULL
        AND least(item.wanted, item.returned, item.debt, item.admitted, item.refused) >= 0 AND item.minimum >= 1) IS NOT TRUE THEN
      PERFORM composure.refuse('owners and numbers must not be NULL, numbers not negative, minimum at least 1', 'The worker gives all of them.');
    END IF;
    num := item.num;
    granted := item.wanted;
    wait_us := 0;
    violated := 0;
    policy := item.policy;
    rate := item.rates;
    burst := item.bursts;
    remaining := NULL;

    IF item.windows > 0 THEN
      moves := item.wanted > 0 OR item.returned > 0 OR item.debt > 0;
      levels := '{}';
      times := '{}';
      FOR i IN 1..item.windows LOOP
        LOOP
          -- A mere report leaves the table that is logged alone: even a lock is written to disk.
          IF NOT item.longs[i] THEN
            SELECT b.tokens, b.last INTO t, l FROM composure.bucket b
             WHERE b.owner = item.owner AND b.window_name = item.names[i] FOR UPDATE;
          ELSIF moves THEN
            SELECT b.tokens, b.last INTO t, l FROM composure.bucket_long b
             WHERE b.owner = item.owner AND b.window_name = item.names[i] FOR UPDATE;
          ELSE
            SELECT b.tokens, b.last INTO t, l FROM composure.bucket_long b
             WHERE b.owner = item.owner AND b.window_name = item.names[i];
          END IF;
          EXIT WHEN FOUND;
          l := composure.limit_clock();
          t := composure.bucket_begin(item.longs[i], item.created_at, since, item.rates[i], item.bursts[i], l);
          EXIT WHEN NOT moves;
          IF item.longs[i] THEN
            INSERT INTO composure.bucket_long VALUES (item.owner, item.names[i], t, l) ON CONFLICT DO NOTHING;
          ELSE
            INSERT INTO composure.bucket VALUES (item.owner, item.names[i], t, l) ON CONFLICT DO NOTHING;
          END IF;
        END LOOP;
        levels[i] := t;
        times[i] := l;
      END LOOP;

      -- All rows are ours: from here on it is our turn.
      now := composure.limit_clock();
      cap := 'Infinity';
      there := 'Infinity';
      least_burst := 'Infinity';
      writes := false;
      FOR i IN 1..item.windows LOOP
        t := composure.bucket_tokens(levels[i], times[i], item.rates[i], item.bursts[i], now);
        -- What a host spent before a crash is not owed by a bucket that began empty after it; a logged one did not.
        paid := CASE WHEN item.longs[i] OR host_epoch = epoch THEN item.debt ELSE 0 END;
        t := greatest(-item.bursts[i], least(item.bursts[i], t + item.returned - paid));
        levels[i] := t;
        -- A bucket's time goes back only where the clock has.
        IF times[i] <= now OR times[i] > now + interval '1 second' THEN
          writes := writes OR moves AND times[i] > now;
          times[i] := now;
        END IF;
        cap := least(cap, greatest(1, item.rates[i] * 0.25, t / 50), item.bursts[i]);
        there := least(there, t);
        least_burst := least(least_burst, item.bursts[i]);
      END LOOP;
      there := floor(there);

      IF item.wanted > 0 THEN
        want := least(greatest(item.wanted, item.minimum), greatest(floor(cap), item.minimum));
        granted := CASE WHEN there >= item.minimum THEN least(want, there) ELSE 0 END;
        -- Whoever has got less than a whole lease comes back when there will be one: a bucket of which more is wanted than
        -- comes in is asked a few times a second, however many requests there are. Whoever has got nothing comes for that.
        need := CASE WHEN granted > 0 THEN least(item.wanted, greatest(1, floor(cap)), least_burst) ELSE item.minimum END;
        wait := 0;
        FOR i IN 1..item.windows LOOP
          levels[i] := levels[i] - granted;
          wait := greatest(wait, (need - levels[i]) / item.rates[i]);
          IF floor(levels[i]) < need THEN
            violated := violated | (1 << i - 1);
          END IF;
        END LOOP;
        -- Rounded up, and one more: what a float8 has lost must not make it too early.
        wait_us := CASE WHEN need > least_burst THEN NULL WHEN wait > 0 THEN ceil(least(wait, 1e12) * 1000000) + 1 ELSE 0 END;
      END IF;

      -- What was refused has changed nothing.
      writes := writes OR granted > 0 OR item.returned > 0 OR item.debt > 0;
      FOR i IN 1..item.windows LOOP
        IF NOT writes THEN
          CONTINUE;
        ELSIF item.longs[i] THEN
          UPDATE composure.bucket_long b SET tokens = levels[i], last = times[i]
           WHERE b.owner = item.owner AND b.window_name = item.names[i];
        ELSE
          UPDATE composure.bucket b SET tokens = levels[i], last = times[i]
           WHERE b.owner = item.owner AND b.window_name = item.names[i];
        END IF;
      END LOOP;
      remaining := levels;
    END IF;

    -- Of addresses without a limit there is no end.
    IF (item.admitted > 0 OR item.refused > 0) AND (item.windows > 0 OR item.owner NOT LIKE 'address/%') THEN
      INSERT INTO composure.limit_count AS c (owner, admitted, refused, seen)
      VALUES (item.owner, item.admitted, item.refused, composure.limit_clock())
      ON CONFLICT (owner) DO UPDATE
         SET admitted = c.admitted + excluded.admitted, refused = c.refused + excluded.refused, seen = excluded.seen;
    END IF;
    RETURN NEXT;
  END LOOP;
END
$f$;
COMMENT ON FUNCTION composure.lease(text, text, text[], int[], int[], int[], int[], int[], int[]) IS
  $c$For the workers: takes tokens for a batch of owners, and gives back; a row for each, num its place in the arrays.
host        a name that other hosts do not have, to be counted; NULL: not counted
host_epoch  the epoch of the answer before
owners      ids of API keys, or address/ and an address, which has the limits of the plan "anonymous"
wanted      tokens asked for; 0: none, this is a report
minimum     the smallest grant that is of use, at least 1
returned    tokens leased before that were not spent
debt        tokens spent without a lease while PostgreSQL was away
admitted, refused  requests since the last report, for composure.usage
granted     tokens, from all windows alike; without a plan what was wanted, and policy and arrays are NULL
wait_us     when asking again will do, 0: at once; NULL: never, the minimum is above a burst
violated    bit i is set where window i of the arrays, from 0, stands in the way until then
hosts       that leased in the last 10 seconds
epoch       another than before: PostgreSQL has crashed
policy      the value of RateLimit-Policy
rate        by window, tokens per second; burst and remaining, tokens
Waits for another lease of an owner at most 20 ms, else 55P03: try again.$c$;

CREATE FUNCTION composure.lease(key text, wanted int) RETURNS int
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $f$
BEGIN
  IF coalesce(wanted < 1, true) THEN
    PERFORM composure.refuse(format('wanted must be at least 1, not %s', coalesce(wanted::text, 'NULL')), 'It is a number of tokens.');
  ELSIF (key LIKE 'address/_%' OR EXISTS (SELECT FROM composure.api_key k WHERE k.id = key)) IS NOT TRUE THEN
    PERFORM composure.refuse(
      CASE WHEN key LIKE 'cmps\_%' THEN 'this is a whole key: only its id is wanted'
           ELSE format('there is no key with the id "%s"', key) END,
      'The id is the 14 characters between the first two "_" of a key: SELECT id, name FROM composure.keys;');
  END IF;
  RETURN (SELECT l.granted FROM composure.lease(NULL, NULL, ARRAY[key], ARRAY[wanted], '{1}', '{0}', '{0}', '{0}', '{0}') l);
END
$f$;
COMMENT ON FUNCTION composure.lease(text, int) IS
  $c$Takes up to that many tokens out of the buckets of a key, by its id, and says how many: SELECT composure.lease('<id>', 5)$c$;

-- A bucket that has been full for ten seconds is as good as a missing one, if a missing one would begin full. What has
-- no window any more goes once its window is over.
CREATE FUNCTION composure.limit_sweep() RETURNS int
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '20ms'
AS $f$
DECLARE
  most_rows constant int := 1000;
  now timestamptz := composure.limit_clock();
  since timestamptz := (SELECT f.since FROM composure.feed_epoch f WHERE f.one);
  deleted int;
  total int := 0;
BEGIN
  DELETE FROM composure.bucket d WHERE d.ctid = ANY (ARRAY(
    SELECT b.ctid
      FROM composure.bucket b
      LEFT JOIN composure.api_key k ON k.id = b.owner AND k.revoked_at IS NULL
      LEFT JOIN composure.plan_window w
             ON w.plan = CASE WHEN b.owner LIKE 'address/%' THEN 'anonymous' ELSE k.plan END
            AND w.name = b.window_name AND NOT w.long
     WHERE CASE WHEN w.plan IS NULL THEN b.last < now - interval '1 minute'
                ELSE composure.bucket_tokens(b.tokens, b.last, w.per_second, w.burst, now - interval '10 seconds') >= w.burst
                     AND composure.bucket_begin(false, k.created_at, since, w.per_second, w.burst, now) >= w.burst END
     LIMIT most_rows FOR UPDATE OF b SKIP LOCKED));
  GET DIAGNOSTICS deleted = ROW_COUNT;
  total := total + deleted;
  DELETE FROM composure.bucket_long d WHERE d.ctid = ANY (ARRAY(
    SELECT b.ctid
      FROM composure.bucket_long b
      LEFT JOIN composure.api_key k ON k.id = b.owner AND k.revoked_at IS NULL
      LEFT JOIN composure.plan_window w
             ON w.plan = CASE WHEN b.owner LIKE 'address/%' THEN 'anonymous' ELSE k.plan END
            AND w.name = b.window_name AND w.long
     WHERE CASE WHEN w.plan IS NULL THEN b.last < now - interval '31 days'
                ELSE composure.bucket_tokens(b.tokens, b.last, w.per_second, w.burst, now - interval '10 seconds') >= w.burst END
     LIMIT most_rows FOR UPDATE OF b SKIP LOCKED));
  GET DIAGNOSTICS deleted = ROW_COUNT;
  total := total + deleted;
  -- Counts of addresses are kept for an hour; those of keys as long as the key.
  DELETE FROM composure.limit_count d WHERE d.ctid = ANY (ARRAY(
    SELECT c.ctid FROM composure.limit_count c
     WHERE c.seen < now - interval '1 hour' AND NOT EXISTS (SELECT FROM composure.api_key k WHERE k.id = c.owner)
     LIMIT most_rows FOR UPDATE SKIP LOCKED));
  GET DIAGNOSTICS deleted = ROW_COUNT;
  RETURN total + deleted;
END
$f$;
COMMENT ON FUNCTION composure.limit_sweep() IS
  'For the workers: deletes buckets that are full and counts of addresses long gone, at most 1000 of each; how many. Waits for nobody';

CREATE VIEW composure.usage AS
  SELECT o.id, o.name, w.plan, w.name AS window_name, w.rate, w.burst, w.per,
         coalesce(composure.bucket_tokens(b.tokens, b.last, w.per_second, w.burst, o.now),
                  composure.bucket_begin(w.long, o.created_at, (SELECT f.since FROM composure.feed_epoch f WHERE f.one),
                                         w.per_second, w.burst, o.now)) AS tokens,
         coalesce(c.admitted, 0) AS admitted, coalesce(c.refused, 0) AS refused
    FROM (SELECT k.id, k.name, k.plan, k.created_at, composure.limit_clock() AS now
            FROM composure.api_key k WHERE k.revoked_at IS NULL
          UNION ALL
          SELECT a.owner, substr(a.owner, length('address/') + 1), 'anonymous', NULL, composure.limit_clock()
            FROM composure.limit_count a WHERE a.owner LIKE 'address/%') o
    LEFT JOIN composure.plan_window w ON w.plan = o.plan
    LEFT JOIN LATERAL (
      SELECT s.tokens, s.last FROM composure.bucket s WHERE NOT w.long AND s.owner = o.id AND s.window_name = w.name
      UNION ALL
      SELECT l.tokens, l.last FROM composure.bucket_long l WHERE w.long AND l.owner = o.id AND l.window_name = w.name) b ON true
    LEFT JOIN composure.limit_count c ON c.owner = o.id
   ORDER BY o.id, w.num;
COMMENT ON VIEW composure.usage IS
  'Rate limits, for people: by key or address and window, the tokens that are there now and the requests since the last crash';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA composure FROM PUBLIC;
SELECT composure.grant_worker();

$migration$);
