-- name: lock_space
SELECT embedding_model, dimension FROM vuemantics_pipeline.embedding_space FOR UPDATE

-- name: switch_space
INSERT INTO vuemantics_pipeline.embedding_space AS s (embedding_model, dimension)
VALUES (%(embedding_model)s, %(dimension)s)
ON CONFLICT (only_row) DO UPDATE
SET embedding_model = excluded.embedding_model, dimension = excluded.dimension, claimed_at = now()

-- name: forget_vectors
UPDATE uploads SET embedding_local = NULL WHERE embedding_local IS NOT NULL

-- name: outdated
-- A batch that was cancelled stays so, and its finished uploads go into another.
SELECT u.id AS upload_id, u.user_id,
       CASE WHEN b.status <> 'cancelled' THEN b.id END AS batch_id,
       CASE WHEN b.status = 'cancelled' THEN b.id END AS cancelled_batch_id,
       coalesce(vuemantics_pipeline.lease_is_held(b.id), false) AS is_processed
FROM uploads AS u
LEFT JOIN upload_batches AS b ON b.id = u.batch_id
LEFT JOIN vuemantics_pipeline.attempts AS a
  ON a.upload_id = u.id AND a.outcome = 'completed' AND NOT a.superseded
WHERE u.processing_status = 'completed'
  AND (%(user_id)s::uuid IS NULL OR u.user_id = %(user_id)s)
  AND (a.analyzer, a.vision_model, a.embedding_model, a.prompt_version) IS DISTINCT FROM
      (%(analyzer)s, %(vision_model)s, %(embedding_model)s, %(prompt_version)s)
ORDER BY u.created_at, u.id

-- name: lock_batch
SELECT FROM upload_batches WHERE id = %(batch_id)s FOR UPDATE

-- name: move
UPDATE uploads SET batch_id = %(batch_id)s, updated_at = now() WHERE id = ANY(%(upload_ids)s)

-- name: supersede_attempts
UPDATE vuemantics_pipeline.attempts SET superseded = true
WHERE upload_id = ANY(%(upload_ids)s) AND NOT superseded

-- name: reset_uploads
UPDATE uploads SET processing_status = 'pending', error_message = NULL, updated_at = now()
WHERE id = ANY(%(upload_ids)s)

-- name: any_lease_is_held
SELECT id FROM upload_batches
WHERE status = 'processing' AND vuemantics_pipeline.lease_is_held(id) LIMIT 1
