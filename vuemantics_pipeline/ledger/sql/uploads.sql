-- name: lock_unfinished
SELECT u.user_id, u.filename, u.file_path,
       (SELECT count(*) FROM vuemantics_pipeline.attempts AS a
        WHERE a.upload_id = u.id AND a.outcome <> 'released' AND NOT a.superseded),
       (SELECT count(*) FROM vuemantics_pipeline.attempts AS a
        WHERE a.upload_id = u.id AND a.outcome = 'released' AND NOT a.superseded
          AND a.stage IN ('vision_analysis', 'embedding_generation')
          AND a.error_code NOT IN ('interrupted', 'batch_stopped', 'database_unavailable'))
FROM uploads AS u
WHERE u.id = %(upload_id)s AND u.batch_id = %(batch_id)s
  AND u.processing_status NOT IN ('completed', 'failed')
FOR UPDATE

-- name: start_attempt
INSERT INTO vuemantics_pipeline.attempts
    (upload_id, batch_id, attempt_number, run_id, fence, stage,
     analyzer, vision_model, embedding_model, prompt_version)
VALUES
    (%(upload_id)s, %(batch_id)s, %(number)s, %(run_id)s, %(fence)s, %(stage)s,
     %(analyzer)s, %(vision_model)s, %(embedding_model)s, %(prompt_version)s)
RETURNING id

-- name: reach_stage
WITH attempt AS (
    UPDATE vuemantics_pipeline.attempts SET stage = %(stage)s, stage_seconds = %(stage_seconds)s
    WHERE id = %(attempt_id)s AND outcome IS NULL RETURNING upload_id
)
UPDATE uploads SET processing_status = %(status)s, updated_at = now()
WHERE id = (SELECT upload_id FROM attempt) AND processing_status NOT IN ('completed', 'failed')

-- name: end_attempt
UPDATE vuemantics_pipeline.attempts
SET outcome = %(outcome)s, ended_at = clock_timestamp(), stage_seconds = %(stage_seconds)s,
    error_code = %(error_code)s, error_message = %(error_message)s, remedy = %(remedy)s
WHERE upload_id = %(upload_id)s AND fence = %(fence)s AND outcome IS NULL
  AND id = coalesce(%(attempt_id)s, id)

-- name: complete
UPDATE uploads
SET processing_status = 'completed', description = %(description)s,
    description_audit_score = %(audit_score)s, embedding_local = %(embedding)s::vector,
    thumbnail_path = %(thumbnail_path)s,
    video_codec = coalesce(%(video_codec)s, video_codec),
    error_message = NULL, updated_at = now()
WHERE id = %(upload_id)s AND processing_status NOT IN ('completed', 'failed')

-- name: fail
UPDATE uploads
SET processing_status = 'failed', error_message = %(error_message)s, updated_at = now()
WHERE id = %(upload_id)s AND processing_status NOT IN ('completed', 'failed')

-- name: back_to_pending
UPDATE uploads SET processing_status = 'pending', updated_at = now()
WHERE id = %(upload_id)s AND processing_status NOT IN ('completed', 'failed')

-- name: find_upload
SELECT id FROM uploads
WHERE batch_id = %(batch_id)s AND id BETWEEN %(lowest)s AND %(highest)s
