-- name: batches
SELECT id AS batch_id, user_id, status, total_uploads, processed_uploads, successful_uploads,
       failed_uploads, error_message, created_at::timestamptz AS created_at,
       started_at::timestamptz AS started_at, completed_at::timestamptz AS completed_at
FROM upload_batches
WHERE (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(user_id)s::uuid IS NULL OR user_id = %(user_id)s)
  AND (%(since)s::timestamptz IS NULL OR created_at >= %(since)s::timestamptz)
  AND (%(after_time)s::timestamptz IS NULL OR created_at < %(after_time)s::timestamptz
       OR (created_at = %(after_time)s::timestamptz AND id > %(after_id)s::uuid))
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
       u.description_audit_score, u.error_message, u.created_at::timestamptz AS created_at,
       coalesce(a.attempts, 0) AS attempts, a.seconds
FROM uploads AS u
LEFT JOIN LATERAL (
    SELECT count(*) FILTER (WHERE outcome IS DISTINCT FROM 'released')::integer AS attempts,
           extract(epoch FROM sum(ended_at - started_at))::float8 AS seconds
    FROM vuemantics_pipeline.attempts WHERE upload_id = u.id
) AS a ON true
WHERE u.batch_id = %(batch_id)s
  AND (%(outcome)s::text IS NULL
       OR CASE WHEN u.processing_status IN ('completed', 'failed') THEN u.processing_status
               ELSE 'unfinished' END = %(outcome)s)
  AND (%(after_time)s::timestamptz IS NULL OR u.created_at > %(after_time)s::timestamptz
       OR (u.created_at = %(after_time)s::timestamptz AND u.id > %(after_id)s::uuid))
ORDER BY u.created_at, u.id
LIMIT %(limit)s

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
WITH asked AS (
    SELECT tsvector_to_array(to_tsvector('english', %(text)s)) AS words,
           replace(plainto_tsquery('english', %(text)s)::text, '&', '|')::tsquery AS any_word
), nearest AS (
    SELECT id FROM uploads
    WHERE vector_norm(embedding_local) > 0 AND NOT coalesce(hidden, false)
      AND (%(user_id)s::uuid IS NULL OR user_id = %(user_id)s)
      AND (%(file_type)s::text IS NULL OR file_type = %(file_type)s)
    ORDER BY embedding_local <=> %(embedding)s::vector, id
    LIMIT %(limit)s
), matching AS (
    SELECT m.upload_id, true AS has_text, false AS has_year
    FROM vuemantics_pipeline.media_facts AS m, asked
    WHERE m.visible_text <> '' AND to_tsvector('english', m.visible_text) @@ asked.any_word
      AND (%(user_id)s::uuid IS NULL OR m.user_id = %(user_id)s)
    UNION ALL
    SELECT m.upload_id, false, true
    FROM vuemantics_pipeline.media_facts AS m
    WHERE m.taken_at IS NOT NULL AND extract(year FROM m.taken_at) = ANY(%(years)s)
      AND (%(user_id)s::uuid IS NULL OR m.user_id = %(user_id)s)
), candidates AS (
    SELECT id, bool_or(has_text) AS has_text, bool_or(has_year) AS has_year
    FROM (SELECT id, false AS has_text, false AS has_year FROM nearest
          UNION ALL SELECT upload_id, has_text, has_year FROM matching) AS found
    GROUP BY id
), scored AS (
    SELECT u.id AS upload_id, u.batch_id, u.filename, u.file_path, u.file_type, u.thumbnail_path,
           u.description, c.has_text, c.has_year,
           1 - (u.embedding_local <=> %(embedding)s::vector)
           + %(year_weight)s * c.has_year::integer
           + CASE WHEN c.has_text THEN %(text_weight)s * (
                 SELECT count(*) FROM unnest(asked.words) AS word
                 WHERE word = ANY(tsvector_to_array(to_tsvector('english', m.visible_text)))
             ) / cardinality(asked.words) ELSE 0 END AS score
    FROM candidates AS c CROSS JOIN asked
    JOIN uploads AS u ON u.id = c.id
    LEFT JOIN vuemantics_pipeline.media_facts AS m ON m.upload_id = u.id
    WHERE vector_norm(u.embedding_local) > 0 AND NOT coalesce(u.hidden, false)
      AND (%(user_id)s::uuid IS NULL OR u.user_id = %(user_id)s)
      AND (%(file_type)s::text IS NULL OR u.file_type = %(file_type)s)
)
SELECT upload_id, batch_id, filename, file_path, file_type, thumbnail_path, description,
       round(score::numeric, 4)::float8 AS score,
       array_remove(ARRAY[CASE WHEN has_text THEN 'text' END, CASE WHEN has_year THEN 'year' END],
                    NULL) AS matched
FROM scored
ORDER BY score DESC, upload_id
LIMIT %(limit)s

-- name: server
SELECT current_setting('server_version'),
       (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
       EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector')
