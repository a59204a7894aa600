-- Brings a database to this version of Composure:
--
--     psql -d yourdb -f sql/migrate.sql
--
-- Run it as the owner of the database (no superuser, no extension needed), from any directory, as often as you like:
-- what is there already is left alone. Each migration is one transaction, recorded in composure.migration with the
-- SHA-256 of its text; a migration that was changed after it was applied is refused. Two runs at a time are safe.

\set ON_ERROR_STOP on
\set ON_ERROR_ROLLBACK off
\set AUTOCOMMIT on
\set QUIET on
\set SHOW_CONTEXT never

SET client_min_messages = warning;
SET standard_conforming_strings = on;
SET statement_timeout = 0;
SET lock_timeout = 0;
SET search_path = pg_catalog, pg_temp;
-- The look into composure.migration must see what the run before us committed while we waited for its lock.
SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE;

DO $check$
DECLARE
  version_num int := current_setting('server_version_num')::int;
BEGIN
  IF version_num < 130000 THEN
    RAISE EXCEPTION 'Composure needs PostgreSQL 13 or later; this server is %', current_setting('server_version')
      USING HINT = 'Upgrade the server, then run migrate.sql again.';
  END IF;
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION 'this server is a replica and cannot be migrated'
      USING HINT = 'Connect to the primary; the replica follows it.';
  END IF;
  -- Plans are reused across SET ROLE before these: row-level security of one role could answer another.
  IF version_num < (CASE version_num / 10000
                      WHEN 13 THEN 130017 WHEN 14 THEN 140014 WHEN 15 THEN 150009
                      WHEN 16 THEN 160005 WHEN 17 THEN 170001 ELSE 0 END) THEN
    RAISE WARNING 'PostgreSQL % has CVE-2024-10976: row-level security may answer with the rights of another role',
      current_setting('server_version')
      USING HINT = 'Install the newest minor version (at least 13.17, 14.14, 15.9, 16.5 or 17.1).';
  END IF;
END
$check$;

CREATE OR REPLACE PROCEDURE pg_temp.composure_apply(migration_name text, body text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $apply$
DECLARE
  -- A checkout with CR LF is the same migration.
  migration_checksum text := encode(sha256(convert_to(replace(body, E'\r', ''), 'UTF8')), 'hex');
  applied_checksum text;
  catalog_owner name;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('composure.migration', 0));

  IF to_regnamespace('composure') IS NULL THEN
    IF NOT has_database_privilege(current_database(), 'CREATE') THEN
      RAISE EXCEPTION 'role "%" may not create the schema "composure" in database "%"',
        current_user, current_database()
        USING HINT = format('Let the owner of the database run: GRANT CREATE ON DATABASE %I TO %I;',
                            current_database(), current_user);
    END IF;
    CREATE SCHEMA composure;
    COMMENT ON SCHEMA composure IS 'Composure: a resilient REST API over this database';
  END IF;

  IF to_regclass('composure.migration') IS NULL THEN
    CREATE TABLE composure.migration (
      name text PRIMARY KEY,
      checksum text NOT NULL,
      applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    COMMENT ON TABLE composure.migration IS 'The migrations this database has, with the SHA-256 of their text';
  END IF;

  -- Everything in the schema belongs to whoever migrated first, also when an administrator runs the next version.
  SELECT pg_get_userbyid(relowner) INTO catalog_owner
    FROM pg_class WHERE oid = to_regclass('composure.migration');
  IF catalog_owner <> current_user THEN
    IF NOT pg_has_role(catalog_owner, 'MEMBER') THEN
      RAISE EXCEPTION 'the schema "composure" of database "%" belongs to role "%", not to "%"',
        current_database(), catalog_owner, current_user
        USING HINT = format('Run migrate.sql as "%s".', catalog_owner);
    END IF;
    PERFORM set_config('role', catalog_owner, true);
  END IF;

  SELECT checksum INTO applied_checksum FROM composure.migration WHERE name = migration_name;
  IF NOT FOUND THEN
    EXECUTE body;
    INSERT INTO composure.migration (name, checksum) VALUES (migration_name, migration_checksum);
  ELSIF applied_checksum <> migration_checksum THEN
    RAISE EXCEPTION 'migration % was changed after it was applied to database "%"', migration_name, current_database()
      USING HINT = 'Restore the file as it was and put the change into a new migration.';
  END IF;
END
$apply$;

\ir migrations/0001_catalog.sql
\ir migrations/0002_expose.sql
\ir migrations/0003_keys.sql
\ir migrations/0004_catalog_state.sql
\ir migrations/0005_feed.sql
\ir migrations/0006_relationships.sql
\ir migrations/0007_writing.sql
\ir migrations/0008_limits.sql
\ir migrations/0009_changes.sql
\ir migrations/0010_caching.sql
\ir migrations/0011_partial.sql
