-- name: batches
SELECT b.id AS batch_id, b.user_id, b.status, b.total_uploads, b.processed_uploads,
       b.successful_uploads, b.failed_uploads, b.error_message,
       b.created_at::timestamptz AS created_at, b.started_at::timestamptz AS started_at,
       b.completed_at::timestamptz AS completed_at,
       coalesce(s.progress_seq, 0) AS seq, coalesce(s.sweeping_seq, 0) AS sweeping_seq
FROM upload_batches AS b LEFT JOIN vuemantics_pipeline.batch_states AS s ON s.batch_id = b.id

-- name: batches_by_id
WHERE b.id = ANY(%(batch_ids)s)

-- name: running_batches
WHERE b.status IN ('pending', 'processing')
  AND (%(user_id)s::uuid IS NULL OR b.user_id = %(user_id)s)
ORDER BY b.created_at, b.id

-- name: uploads
SELECT u.id AS upload_id, u.batch_id, u.user_id, u.filename, u.file_size, u.file_type,
       u.processing_status, u.description, u.description_audit_score, u.error_message,
       u.thumbnail_path, u.created_at::timestamptz AS created_at,
       a.stage, a.frames_done, a.frames_total, coalesce(a.frame_share, 0)::float8 AS frame_share,
       coalesce(a.attempts, 0) AS attempts, coalesce(a.reached, '[]') AS reached,
       coalesce(a.seq, 0) AS seq
FROM uploads AS u
LEFT JOIN LATERAL (
    SELECT max(stage) FILTER (WHERE outcome IS NULL) AS stage,
           max(frames_done) FILTER (WHERE outcome IS NULL) AS frames_done,
           max(frames_total) FILTER (WHERE outcome IS NULL) AS frames_total,
           max(frames_done::float8 / nullif(frames_total, 0)) FILTER (WHERE NOT superseded)
               AS frame_share,
           count(*) FILTER (WHERE outcome IS DISTINCT FROM 'released' AND NOT superseded)::integer
               AS attempts,
           jsonb_agg(stage_seconds || jsonb_build_object(stage, 0)) FILTER (WHERE NOT superseded)
               AS reached,
           -- Each batch has numbers of its own, and an upload may have been in another before.
           max(progress_seq) FILTER (WHERE batch_id = u.batch_id) AS seq
    FROM vuemantics_pipeline.attempts WHERE upload_id = u.id
) AS a ON true

-- name: uploads_by_id
WHERE u.id = ANY(%(upload_ids)s)

-- name: uploads_of_batches
WHERE u.batch_id = ANY(%(batch_ids)s)

-- name: uploads_in_hand
WHERE u.batch_id = ANY(%(batch_ids)s) AND u.processing_status IN ('analyzing', 'embedding')

-- name: uploads_moved
WHERE (u.batch_id, u.id) IN (
    SELECT m.batch_id, m.upload_id
    FROM vuemantics_pipeline.attempts AS m
    JOIN unnest(%(batch_ids)s::uuid[], %(after_seqs)s::bigint[]) AS w(batch_id, after_seq)
      ON m.batch_id = w.batch_id AND m.progress_seq > w.after_seq
)
ORDER BY seq
LIMIT %(limit)s

-- name: uploads_page
WHERE u.batch_id = %(batch_id)s
  AND (%(outcome)s::text IS NULL
       OR CASE WHEN u.processing_status IN ('completed', 'failed') THEN u.processing_status
               ELSE 'unfinished' END = %(outcome)s)
  AND (%(after_time)s::timestamptz IS NULL OR u.created_at > %(after_time)s::timestamptz
       OR (u.created_at = %(after_time)s::timestamptz AND u.id > %(after_id)s::uuid))
ORDER BY u.created_at, u.id
LIMIT %(limit)s
