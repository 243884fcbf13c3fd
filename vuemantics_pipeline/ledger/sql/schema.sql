-- name: lock_migrations
SELECT pg_advisory_xact_lock(hashtextextended('vuemantics_pipeline.migrations', 0))

-- name: present_tables
SELECT name FROM unnest(%(names)s::text[]) AS name WHERE to_regclass(name) IS NOT NULL

-- name: has_schema
SELECT 1 WHERE to_regclass('vuemantics_pipeline.schema_migrations') IS NOT NULL

-- name: schema_is_there
-- Answers a role that may not use the schema, too.
SELECT 1 WHERE to_regnamespace('vuemantics_pipeline') IS NOT NULL

-- name: create_schema
CREATE SCHEMA IF NOT EXISTS vuemantics_pipeline;
CREATE TABLE IF NOT EXISTS vuemantics_pipeline.schema_migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: applied_migrations
SELECT number FROM vuemantics_pipeline.schema_migrations

-- name: record_migration
INSERT INTO vuemantics_pipeline.schema_migrations (number, name) VALUES (%(number)s, %(name)s)

-- name: has_trigger
SELECT 1 FROM pg_trigger
WHERE tgrelid = 'upload_batches'::regclass AND tgname = 'vuemantics_pipeline_notify'

-- name: attach_trigger
SET LOCAL lock_timeout = '5s';
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_trigger
        WHERE tgrelid = 'upload_batches'::regclass AND tgname = 'vuemantics_pipeline_notify'
    ) THEN
        CREATE TRIGGER vuemantics_pipeline_notify
            AFTER INSERT OR UPDATE OF status, total_uploads ON upload_batches
            FOR EACH ROW EXECUTE FUNCTION vuemantics_pipeline.notify_batch();
    END IF;
END
$$;

-- name: has_role
SELECT 1 FROM pg_roles WHERE rolname = %(role)s

-- name: create_analyst_role
CREATE ROLE {role} NOLOGIN

-- name: grant_views
GRANT USAGE ON SCHEMA vuemantics_pipeline TO {role};
GRANT SELECT ON vuemantics_pipeline.batch_facts, vuemantics_pipeline.upload_facts,
    vuemantics_pipeline.attempt_facts, vuemantics_pipeline.stage_seconds TO {role};
GRANT EXECUTE ON FUNCTION vuemantics_pipeline.batch_columns, vuemantics_pipeline.upload_columns
    TO {role};

-- name: may_read_views
SELECT 1 FROM pg_roles AS r JOIN pg_namespace AS n ON n.nspname = 'vuemantics_pipeline'
WHERE r.rolname = %(role)s AND has_schema_privilege(r.oid, n.oid, 'USAGE')
  AND NOT EXISTS (
      SELECT FROM pg_class AS c
      WHERE c.relnamespace = n.oid AND c.relkind = 'v'
        AND NOT has_table_privilege(r.oid, c.oid, 'SELECT')
  )
  AND NOT EXISTS (
      SELECT FROM pg_proc AS p
      WHERE p.pronamespace = n.oid AND p.proname IN ('batch_columns', 'upload_columns')
        AND NOT has_function_privilege(r.oid, p.oid, 'EXECUTE')
  )

-- name: column_dimension
SELECT atttypmod FROM pg_attribute
WHERE attrelid = 'uploads'::regclass AND attname = 'embedding_local' AND NOT attisdropped
