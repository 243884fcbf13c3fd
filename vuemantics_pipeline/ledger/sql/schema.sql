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

-- name: column_dimension
SELECT atttypmod FROM pg_attribute
WHERE attrelid = 'uploads'::regclass AND attname = 'embedding_local' AND NOT attisdropped
