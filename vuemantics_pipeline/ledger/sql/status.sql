-- name: batches
SELECT id AS batch_id, user_id, status, total_uploads, processed_uploads, successful_uploads,
       failed_uploads, error_message, created_at::timestamptz AS created_at,
       started_at::timestamptz AS started_at, completed_at::timestamptz AS completed_at
FROM upload_batches
WHERE (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(user_id)s::uuid IS NULL OR user_id = %(user_id)s)
ORDER BY created_at DESC, id
LIMIT %(limit)s

-- name: batch
SELECT id AS batch_id, user_id, status, total_uploads, processed_uploads, successful_uploads,
       failed_uploads, error_message, created_at::timestamptz AS created_at,
       started_at::timestamptz AS started_at, completed_at::timestamptz AS completed_at
FROM upload_batches WHERE id = %(batch_id)s

-- name: batch_run
SELECT run_id FROM vuemantics_pipeline.batch_states WHERE batch_id = %(batch_id)s

-- name: uploads
SELECT u.id AS upload_id, u.filename, u.processing_status, u.description,
       u.description_audit_score, u.error_message,
       coalesce(a.attempts, 0) AS attempts, a.seconds
FROM uploads AS u
LEFT JOIN LATERAL (
    SELECT count(*) FILTER (WHERE outcome IS DISTINCT FROM 'released')::integer AS attempts,
           extract(epoch FROM sum(ended_at - started_at))::float8 AS seconds
    FROM vuemantics_pipeline.attempts WHERE upload_id = u.id
) AS a ON true
WHERE u.batch_id = %(batch_id)s
ORDER BY u.created_at, u.id

-- name: failures
SELECT u.id AS upload_id, u.filename, a.error_code, coalesce(a.error_message, u.error_message)
           AS error_message, a.remedy, a.attempt_number AS attempts
FROM uploads AS u
LEFT JOIN LATERAL (
    SELECT error_code, error_message, remedy, attempt_number
    FROM vuemantics_pipeline.attempts
    WHERE upload_id = u.id AND outcome IN ('failed', 'died') ORDER BY id DESC LIMIT 1
) AS a ON true
WHERE u.batch_id = %(batch_id)s AND u.processing_status = 'failed'
ORDER BY u.created_at, u.id

-- name: load_pgvector
SELECT '[0]'::vector

-- name: scan_on
-- An index scan stops after ef_search rows, before hidden ones and other users' are left out.
-- Settings are named by select, because older versions of pgvector do not know all of them.
SELECT set_config(name, CASE name WHEN 'hnsw.ef_search' THEN %(ef_search)s::text
                                  ELSE 'strict_order' END, true)
FROM pg_settings WHERE name IN ('hnsw.ef_search', 'hnsw.iterative_scan')

-- name: search
SELECT id AS upload_id, batch_id, filename, file_path,
       round((1 - (embedding_local <=> %(embedding)s::vector))::numeric, 4)::float8 AS score,
       description
FROM uploads
WHERE vector_norm(embedding_local) > 0 AND NOT coalesce(hidden, false)
  AND (%(user_id)s::uuid IS NULL OR user_id = %(user_id)s)
ORDER BY embedding_local <=> %(embedding)s::vector, id
LIMIT %(limit)s

-- name: server
SELECT current_setting('server_version'),
       (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
       EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector')
