-- name: batches
-- The application cancels batches without saying when, except by updated_at.
SELECT f.batch_id, f.status,
       coalesce(f.completed_at, b.updated_at::timestamptz) AS ended_at, f.analyzer,
       f.uploads_total, f.uploads_succeeded, f.uploads_failed, f.uploads_reused, f.bytes_total,
       f.duration_seconds, f.seconds_waiting_in_queue
FROM upload_batches AS b
JOIN vuemantics_pipeline.batch_facts AS f ON f.batch_id = b.id
WHERE b.status IN ('completed', 'failed', 'cancelled')
  AND coalesce(b.completed_at, b.updated_at) >= %(since)s
  AND coalesce(b.completed_at, b.updated_at) < %(until)s
ORDER BY ended_at, f.batch_id

-- name: failures
SELECT batch_id, coalesce(error_code, 'unknown') AS error_code, count(*)::integer AS uploads
FROM vuemantics_pipeline.upload_facts
WHERE batch_id = ANY(%(batch_ids)s) AND status = 'failed'
GROUP BY batch_id, 2

