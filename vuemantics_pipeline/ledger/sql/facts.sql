-- name: batch
SELECT batch_id, user_id, status, uploads_total, uploads_succeeded, uploads_failed, uploads_reused,
       bytes_total, duration_seconds, seconds_waiting_in_queue, uploads_per_minute,
       audit_score_mean, attempts_total, takeovers, analyzer, vision_model, embedding_model,
       prompt_version
FROM vuemantics_pipeline.batch_facts WHERE batch_id = %(batch_id)s

-- name: recent_paces
SELECT f.duration_seconds / (f.uploads_succeeded + f.uploads_failed)
FROM (
    SELECT id FROM upload_batches
    WHERE status = 'completed' AND completed_at IS NOT NULL AND id <> %(batch_id)s
    ORDER BY completed_at DESC, id LIMIT %(limit)s
) AS b
JOIN vuemantics_pipeline.batch_facts AS f ON f.batch_id = b.id
WHERE f.duration_seconds IS NOT NULL AND f.uploads_succeeded + f.uploads_failed > 0
  AND f.analyzer IS NOT DISTINCT FROM %(analyzer)s::text
  AND f.vision_model IS NOT DISTINCT FROM %(vision_model)s::text

-- name: thumbnails
SELECT user_id, thumbnail_path FROM uploads
WHERE batch_id = %(batch_id)s AND processing_status = 'completed' AND thumbnail_path IS NOT NULL
ORDER BY created_at, id LIMIT %(limit)s

-- name: poor_descriptions
SELECT id AS upload_id, filename, description_audit_score AS audit_score,
       coalesce(description, '') AS description
FROM uploads
WHERE batch_id = %(batch_id)s AND processing_status = 'completed'
  AND description_audit_score < %(pass_mark)s
ORDER BY description_audit_score, created_at, id

-- name: first_error
SELECT error_message FROM vuemantics_pipeline.attempts
WHERE upload_id = %(upload_id)s AND outcome IN ('failed', 'died') AND NOT superseded
ORDER BY id LIMIT 1
