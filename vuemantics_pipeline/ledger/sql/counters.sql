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
SELECT pg_notify(
    'vuemantics_progress',
    json_strip_nulls(json_build_object(
        'batch_id', %(batch_id)s::uuid, 'upload_id', %(upload_id)s::uuid
    ))::text
)
