-- name: count_scope
SELECT count(*) FROM uploads
WHERE batch_id = %(batch_id)s AND (
    processing_status NOT IN ('completed', 'failed')
    OR processing_status = ANY(%(reset)s)
)

-- name: lock
SELECT b.status, vuemantics_pipeline.lease_is_held(b.id)
FROM upload_batches AS b WHERE b.id = %(batch_id)s FOR UPDATE

-- name: supersede_attempts
UPDATE vuemantics_pipeline.attempts SET superseded = true
WHERE batch_id = %(batch_id)s AND NOT superseded
  AND upload_id IN (
      SELECT id FROM uploads
      WHERE batch_id = %(batch_id)s AND processing_status = ANY(%(reset)s)
  )

-- name: reset_uploads
UPDATE uploads SET processing_status = 'pending', error_message = NULL, updated_at = now()
WHERE batch_id = %(batch_id)s AND processing_status = ANY(%(reset)s)

-- name: back_to_start
UPDATE upload_batches
SET status = 'pending', error_message = NULL, completed_at = NULL, updated_at = now()
WHERE id = %(batch_id)s

-- name: fresh_try
INSERT INTO vuemantics_pipeline.batch_states AS s (batch_id) VALUES (%(batch_id)s)
ON CONFLICT (batch_id) DO UPDATE
SET try_number = s.try_number + 1, fence = s.fence + 1, fruitless_runs = 0, outages = 0,
    takeovers = 0, run_id = NULL, requested_at = NULL, not_before = NULL
