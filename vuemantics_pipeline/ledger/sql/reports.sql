-- name: stage_seconds
SELECT stage, count(*)::integer AS tries, round(sum(seconds), 4)::float8 AS sum_seconds,
       round(percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds)::numeric, 4)::float8
           AS p50_seconds,
       round(percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds)::numeric, 4)::float8
           AS p95_seconds
FROM (
    SELECT s.key AS stage, s.value::numeric AS seconds
    FROM vuemantics_pipeline.attempts AS a, jsonb_each_text(a.stage_seconds) AS s
    WHERE a.batch_id = %(batch_id)s AND NOT a.superseded
) AS spent
GROUP BY stage

-- name: paces
-- From the start of the run at work to the last end in it, so that neither the pauses between
-- runs count nor twice what two files did at the same time.
SELECT a.batch_id, extract(epoch FROM max(a.ended_at) - min(a.started_at))::float8
       / nullif(count(DISTINCT a.upload_id) FILTER (
             WHERE u.processing_status IN ('completed', 'failed')), 0)
FROM vuemantics_pipeline.attempts AS a
JOIN vuemantics_pipeline.batch_states AS s ON s.batch_id = a.batch_id AND s.run_id = a.run_id
JOIN uploads AS u ON u.id = a.upload_id
WHERE a.batch_id = ANY(%(batch_ids)s) AND NOT a.superseded AND a.ended_at IS NOT NULL
GROUP BY a.batch_id

-- name: upload
SELECT u.id AS upload_id, u.batch_id, u.user_id, u.filename, u.file_type, u.file_size, u.mime_type,
       u.processing_status, u.description, u.description_audit_score, u.error_message,
       u.thumbnail_path, u.created_at::timestamptz AS created_at, b.status AS batch_status
FROM uploads AS u LEFT JOIN upload_batches AS b ON b.id = u.batch_id
WHERE u.id = %(upload_id)s AND (%(user_id)s::uuid IS NULL OR u.user_id = %(user_id)s)

-- name: attempts
SELECT attempt_number, outcome, stage, stage_seconds, started_at, ended_at,
       extract(epoch FROM ended_at - started_at)::float8 AS seconds, superseded,
       error_code, error_message, remedy, run_id, analyzer, vision_model, embedding_model,
       reused_from
FROM vuemantics_pipeline.attempts WHERE upload_id = %(upload_id)s ORDER BY id

-- name: queue
SELECT count(*) FILTER (WHERE status = 'pending')::integer AS pending_batches,
       count(*) FILTER (WHERE status = 'processing')::integer AS processing_batches,
       (SELECT count(*)::integer FROM uploads AS u
        JOIN upload_batches AS q ON q.id = u.batch_id AND q.status IN ('pending', 'processing')
        WHERE u.processing_status NOT IN ('completed', 'failed')
          AND (%(user_id)s::uuid IS NULL OR q.user_id = %(user_id)s)) AS unfinished_uploads,
       min(created_at) FILTER (WHERE status = 'pending')::timestamptz AS oldest_pending
FROM upload_batches
WHERE status IN ('pending', 'processing')
  AND (%(user_id)s::uuid IS NULL OR user_id = %(user_id)s)

-- name: running
SELECT b.id AS batch_id, s.run_id, b.total_uploads, b.processed_uploads,
       vuemantics_pipeline.lease_is_held(b.id) AS has_worker,
       a.upload_id, a.stage, a.started_at AS attempt_started_at
FROM upload_batches AS b
LEFT JOIN vuemantics_pipeline.batch_states AS s ON s.batch_id = b.id
LEFT JOIN LATERAL (
    SELECT upload_id, stage, started_at FROM vuemantics_pipeline.attempts
    WHERE batch_id = b.id AND outcome IS NULL ORDER BY id LIMIT 1
) AS a ON true
WHERE b.status = 'processing' AND (%(user_id)s::uuid IS NULL OR b.user_id = %(user_id)s)
ORDER BY b.started_at, b.id

-- name: owned
SELECT count(*)::integer, coalesce(array_agg(id) FILTER (WHERE id = ANY(%(batch_ids)s)), '{}')
FROM upload_batches WHERE user_id = %(user_id)s

-- name: may_read_ticks
-- Dagster's tables are there only after its first start, and perhaps for another role.
SELECT 1 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'vuemantics_dagster' AND c.relname = 'job_ticks'
  AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')

-- name: last_tick
SELECT "timestamp" AT TIME ZONE 'UTC' AS started_at, lower(status) AS status
FROM vuemantics_dagster.job_ticks
WHERE tick_body LIKE '%%"job_name": "pending_upload_batches"%%'
ORDER BY id DESC LIMIT 1
