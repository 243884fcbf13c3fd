-- name: try_lock
SELECT pg_try_advisory_lock(vuemantics_pipeline.lease_key(%(batch_id)s))

-- name: unlock
SELECT pg_advisory_unlock(vuemantics_pipeline.lease_key(%(batch_id)s))

-- name: holder
SELECT run_id, claimed_at AT TIME ZONE 'UTC'
FROM vuemantics_pipeline.batch_states WHERE batch_id = %(batch_id)s AND run_id IS NOT NULL

-- name: claim
INSERT INTO vuemantics_pipeline.batch_states AS s (batch_id, fence, run_id, claimed_at)
SELECT id, 1, %(run_id)s, now() FROM upload_batches WHERE id = %(batch_id)s
ON CONFLICT (batch_id) DO UPDATE
SET fence = s.fence + 1, run_id = excluded.run_id, claimed_at = excluded.claimed_at
RETURNING fence

-- name: guard
SELECT b.status
FROM upload_batches AS b
JOIN vuemantics_pipeline.batch_states AS s ON s.batch_id = b.id AND s.fence = %(fence)s
WHERE b.id = %(batch_id)s
FOR UPDATE OF b, s
