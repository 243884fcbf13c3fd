-- name: recount
UPDATE upload_batches AS b
SET processed_uploads = n.successful + n.failed, successful_uploads = n.successful,
    failed_uploads = n.failed, updated_at = now()
FROM (
    SELECT count(*) FILTER (WHERE processing_status = 'completed') AS successful,
           count(*) FILTER (WHERE processing_status = 'failed') AS failed
    FROM uploads WHERE batch_id = %(batch_id)s
) AS n
WHERE b.id = %(batch_id)s

-- name: mark_fruitful
UPDATE vuemantics_pipeline.batch_states SET fruitless_runs = 0, outages = 0 WHERE batch_id = %(batch_id)s

-- name: announce
WITH batch AS (
    INSERT INTO vuemantics_pipeline.batch_states AS s (batch_id, progress_seq, sweeping_seq)
    VALUES (%(batch_id)s, 1, 1)
    ON CONFLICT (batch_id) DO UPDATE SET
        progress_seq = s.progress_seq + 1,
        sweeping_seq = CASE WHEN %(upload_id)s::uuid IS NULL THEN s.progress_seq + 1
                            ELSE s.sweeping_seq END
    RETURNING progress_seq
), attempt AS (
    UPDATE vuemantics_pipeline.attempts AS a SET progress_seq = batch.progress_seq FROM batch
    WHERE a.id = (SELECT max(id) FROM vuemantics_pipeline.attempts
                  WHERE upload_id = %(upload_id)s::uuid)
)
SELECT pg_notify(
    'vuemantics_progress',
    json_strip_nulls(json_build_object(
        'batch_id', %(batch_id)s::uuid, 'upload_id', %(upload_id)s::uuid
    ))::text
) FROM batch
