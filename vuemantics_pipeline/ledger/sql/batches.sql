-- name: ready
SELECT b.id AS batch_id, b.user_id, coalesce(s.try_number, 1) AS try_number,
       s.requested_at IS NOT NULL AS was_requested
FROM upload_batches AS b
LEFT JOIN vuemantics_pipeline.batch_states AS s ON s.batch_id = b.id
WHERE b.status = 'pending'
  AND (s.not_before IS NULL OR s.not_before <= now())
  AND (s.requested_at IS NULL OR s.requested_at < now() - interval '60 seconds')
  AND (
      (SELECT count(*) FROM uploads AS u WHERE u.batch_id = b.id) >= b.total_uploads
      OR greatest(
          b.created_at, b.updated_at,
          (SELECT max(u.created_at) FROM uploads AS u WHERE u.batch_id = b.id)
      ) < now() - make_interval(secs => %(grace_seconds)s)
  )
ORDER BY b.created_at, b.id
LIMIT %(limit)s

-- name: filling
SELECT count(u.id), b.total_uploads
FROM upload_batches AS b LEFT JOIN uploads AS u ON u.batch_id = b.id
WHERE b.id = %(batch_id)s AND b.status = 'pending'
GROUP BY b.id, b.total_uploads, b.created_at
HAVING count(u.id) < b.total_uploads
   AND greatest(b.created_at, max(u.created_at))
       >= now() - make_interval(secs => %(grace_seconds)s)

-- name: mark_requested
INSERT INTO vuemantics_pipeline.batch_states (batch_id, requested_at)
SELECT batch_id, now() FROM unnest(%(batch_ids)s::uuid[]) AS batch_id
ON CONFLICT (batch_id) DO UPDATE SET requested_at = excluded.requested_at

-- name: requested
SELECT b.id AS batch_id, b.user_id, s.try_number, true AS was_requested
FROM vuemantics_pipeline.batch_states AS s
JOIN upload_batches AS b ON b.id = s.batch_id AND b.status = 'pending'
WHERE s.requested_at BETWEEN now() - interval '60 seconds' AND now() - interval '4 seconds'

-- name: unmark_requested
UPDATE vuemantics_pipeline.batch_states SET requested_at = NULL
WHERE batch_id = ANY(%(batch_ids)s) AND run_id IS NULL

-- name: orphaned
SELECT b.id AS batch_id, s.run_id
FROM upload_batches AS b
LEFT JOIN vuemantics_pipeline.batch_states AS s ON s.batch_id = b.id
WHERE b.status = 'processing'
  AND NOT vuemantics_pipeline.lease_is_held(b.id)
  AND (s.run_id IS NOT NULL OR b.updated_at < now() - make_interval(secs => %(grace_seconds)s))
ORDER BY b.created_at, b.id

-- name: release_cut_off
-- Postgres itself went down during these, so the worker may not be to blame.
UPDATE vuemantics_pipeline.attempts
SET outcome = 'released', ended_at = clock_timestamp(), error_code = 'database_unavailable',
    error_message = 'Postgres went away while this file was being processed.'
WHERE batch_id = %(batch_id)s AND outcome IS NULL AND started_at < pg_postmaster_start_time()

-- name: end_dead_attempts
UPDATE vuemantics_pipeline.attempts
SET outcome = 'died', ended_at = clock_timestamp(), error_code = 'worker_died',
    error_message = 'The worker died while processing this file.'
WHERE batch_id = %(batch_id)s AND outcome IS NULL

-- name: fail_worn_out
UPDATE uploads AS u
SET processing_status = 'failed', updated_at = now(), error_message = coalesce(
    (SELECT concat_ws(' ', a.error_message, a.remedy) FROM vuemantics_pipeline.attempts AS a
     WHERE a.upload_id = u.id AND a.outcome = 'failed' AND NOT a.superseded ORDER BY a.id DESC LIMIT 1),
    %(error_message)s
)
WHERE u.batch_id = %(batch_id)s AND u.processing_status NOT IN ('completed', 'failed')
  AND (SELECT count(*) FROM vuemantics_pipeline.attempts AS a
       WHERE a.upload_id = u.id AND a.outcome <> 'released' AND NOT a.superseded) >= 2

-- name: return_interrupted
UPDATE uploads SET processing_status = 'pending', updated_at = now()
WHERE batch_id = %(batch_id)s AND processing_status IN ('analyzing', 'embedding')

-- name: unfinished
SELECT id AS upload_id, filename, file_path FROM uploads
WHERE batch_id = %(batch_id)s AND processing_status NOT IN ('completed', 'failed')
ORDER BY created_at, id

-- name: open
-- Uploads that came after an earlier end, which has set the total, are counted in.
UPDATE upload_batches
SET status = 'processing', started_at = coalesce(started_at, now()), completed_at = NULL,
    error_message = NULL, updated_at = now(),
    total_uploads = greatest(
        total_uploads, (SELECT count(*) FROM uploads WHERE batch_id = %(batch_id)s)
    )
WHERE id = %(batch_id)s

-- name: count
SELECT count(u.id),
       count(u.id) FILTER (WHERE u.processing_status = 'completed'),
       count(u.id) FILTER (WHERE u.processing_status = 'failed'),
       b.total_uploads
FROM upload_batches AS b LEFT JOIN uploads AS u ON u.batch_id = b.id
WHERE b.id = %(batch_id)s
GROUP BY b.id, b.total_uploads

-- name: complete
UPDATE upload_batches
SET status = 'completed', total_uploads = %(total)s, error_message = %(message)s,
    started_at = coalesce(started_at, now()), completed_at = now(), updated_at = now()
WHERE id = %(batch_id)s

-- name: lock_held_by_run
SELECT s.fruitless_runs, s.outages
FROM upload_batches AS b
JOIN vuemantics_pipeline.batch_states AS s ON s.batch_id = b.id
WHERE b.id = %(batch_id)s AND b.status IN ('pending', 'processing')
  AND (s.run_id = %(run_id)s
       OR (s.run_id IS NULL AND s.try_number = %(try_number)s::integer))
FOR UPDATE OF b, s

-- name: fail
UPDATE upload_batches
SET status = 'failed', error_message = %(message)s, completed_at = now(), updated_at = now()
WHERE id = %(batch_id)s

-- name: back_to_pending
UPDATE upload_batches SET status = 'pending', error_message = %(message)s, updated_at = now()
WHERE id = %(batch_id)s

-- name: next_try
UPDATE vuemantics_pipeline.batch_states
SET try_number = try_number + 1, fence = fence + 1, fruitless_runs = %(fruitless_runs)s,
    outages = %(outages)s, takeovers = takeovers + 1, run_id = NULL,
    requested_at = NULL, not_before = now() + make_interval(secs => %(wait_seconds)s)
WHERE batch_id = %(batch_id)s

-- name: adopt
UPDATE upload_batches SET status = 'pending', updated_at = now()
WHERE id = %(batch_id)s AND status = 'processing'
  AND NOT vuemantics_pipeline.lease_is_held(id)

-- name: cancel
UPDATE upload_batches
SET status = 'cancelled', error_message = %(message)s, completed_at = now(), updated_at = now()
WHERE id = %(batch_id)s AND status IN ('pending', 'processing')

-- name: cancelled_but_held
-- A run that comes to a batch long cancelled finds that out by itself, or was asked to take it up.
SELECT b.id AS batch_id, s.run_id
FROM upload_batches AS b
JOIN vuemantics_pipeline.batch_states AS s ON s.batch_id = b.id AND s.run_id IS NOT NULL
WHERE b.status = 'cancelled'
  AND greatest(b.updated_at, s.claimed_at) < now() - make_interval(secs => %(after_seconds)s)
  AND b.updated_at > now() - interval '1 day'
  AND vuemantics_pipeline.lease_is_held(b.id)

-- name: cut_off
SELECT DISTINCT a.batch_id
FROM vuemantics_pipeline.attempts AS a JOIN upload_batches AS b ON b.id = a.batch_id
WHERE a.outcome IS NULL AND b.status = 'cancelled'
  AND NOT vuemantics_pipeline.lease_is_held(b.id)

-- name: lock_cut_off
SELECT FROM upload_batches
WHERE id = %(batch_id)s AND status = 'cancelled'
  AND NOT vuemantics_pipeline.lease_is_held(id)
FOR UPDATE

-- name: release_own_attempts
WITH released AS (
    UPDATE vuemantics_pipeline.attempts
    SET outcome = 'released', ended_at = clock_timestamp(), error_code = %(error_code)s,
        error_message = %(error_message)s
    WHERE batch_id = %(batch_id)s AND run_id = %(run_id)s AND outcome IS NULL
    RETURNING upload_id
)
UPDATE uploads SET processing_status = 'pending', updated_at = now()
WHERE id IN (SELECT upload_id FROM released)
  AND processing_status NOT IN ('completed', 'failed')

-- name: lock
SELECT FROM upload_batches WHERE id = %(batch_id)s FOR UPDATE

-- name: note_reset
UPDATE vuemantics_pipeline.batch_states SET reset_by = %(root_run_id)s
WHERE batch_id = %(batch_id)s AND reset_by IS DISTINCT FROM %(root_run_id)s
