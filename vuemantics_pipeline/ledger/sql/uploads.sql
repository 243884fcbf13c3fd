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

-- name: describe_frame
UPDATE vuemantics_pipeline.attempts SET frames_done = %(done)s, frames_total = %(total)s
WHERE id = %(attempt_id)s AND outcome IS NULL

-- name: end_attempt
UPDATE vuemantics_pipeline.attempts
SET outcome = %(outcome)s, ended_at = clock_timestamp(), stage_seconds = %(stage_seconds)s,
    error_code = %(error_code)s, error_message = %(error_message)s, remedy = %(remedy)s,
    model_digest = %(model_digest)s, model_options = %(model_options)s,
    reused_from = %(reused_from)s
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

-- name: record_facts
INSERT INTO vuemantics_pipeline.media_facts AS m (
    upload_id, user_id, sha256, format, mime_type, width, height, taken_at, camera, has_gps,
    duration_seconds, frame_rate, rotation, visible_text
) VALUES (
    %(upload_id)s, %(user_id)s, decode(%(sha256)s, 'hex'), %(format)s, %(mime_type)s, %(width)s,
    %(height)s, %(taken_at)s, %(camera)s, %(has_gps)s, %(duration_seconds)s, %(frame_rate)s,
    %(rotation)s, %(visible_text)s
) ON CONFLICT (upload_id) DO UPDATE SET
    user_id = excluded.user_id, sha256 = excluded.sha256, format = excluded.format,
    mime_type = excluded.mime_type, width = excluded.width, height = excluded.height,
    taken_at = excluded.taken_at, camera = excluded.camera, has_gps = excluded.has_gps,
    duration_seconds = excluded.duration_seconds, frame_rate = excluded.frame_rate,
    rotation = excluded.rotation, visible_text = excluded.visible_text, recorded_at = now()

-- name: same_bytes
-- Its description may have been changed by the application since: that one is not ours to copy.
SELECT u.id, u.description, u.description_audit_score, u.embedding_local::text, m.visible_text,
       a.model_digest, a.model_options
FROM vuemantics_pipeline.media_facts AS m
JOIN uploads AS u ON u.id = m.upload_id AND u.user_id = m.user_id
JOIN vuemantics_pipeline.attempts AS a
  ON a.upload_id = u.id AND a.outcome = 'completed' AND NOT a.superseded
WHERE m.user_id = %(user_id)s AND m.sha256 = decode(%(sha256)s, 'hex')
  AND u.id <> %(upload_id)s AND u.processing_status = 'completed'
  AND u.description IS NOT NULL AND u.embedding_local IS NOT NULL
  AND u.description_audit_score >= %(pass_mark)s
  AND (u.last_regenerated_at IS NULL OR u.last_regenerated_at <= a.ended_at)
  AND (a.analyzer, a.vision_model, a.embedding_model, a.prompt_version)
      = (%(analyzer)s, %(vision_model)s, %(embedding_model)s, %(prompt_version)s)
ORDER BY a.reused_from IS NOT NULL, a.id DESC LIMIT 1

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
