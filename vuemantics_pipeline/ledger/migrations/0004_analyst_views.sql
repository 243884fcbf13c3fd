-- Tidy rows for analysts: four views, each documented column by column with its unit.
--
-- A view that names a column keeps its table's owner from changing that column's type and from
-- dropping it, and the tables below the two functions are the application's. So the views name the
-- whole row only, which ties them to the table and to none of its columns, and the functions, whose
-- bodies are plain text to Postgres, pick the columns. The planner replaces the functions by
-- their bodies, so that conditions reach the indexes as if the columns had been named. For that
-- they must be STABLE and must not have settings of their own.

CREATE OR REPLACE FUNCTION vuemantics_pipeline.batch_columns(b upload_batches)
    RETURNS TABLE (
        batch_id uuid, user_id uuid, status text, error_message text, created_at timestamptz,
        started_at timestamptz, completed_at timestamptz
    )
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 1 AS $$
    SELECT b.id, b.user_id, b.status::text, b.error_message::text, b.created_at::timestamptz,
           b.started_at::timestamptz, b.completed_at::timestamptz
$$;

CREATE OR REPLACE FUNCTION vuemantics_pipeline.upload_columns(u uploads)
    RETURNS TABLE (
        upload_id uuid, batch_id uuid, user_id uuid, filename text, file_type text, mime_type text,
        file_size bigint, status text, audit_score integer, video_codec text, error_message text,
        created_at timestamptz, updated_at timestamptz
    )
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 1 AS $$
    SELECT u.id, u.batch_id, u.user_id, u.filename::text, u.file_type::text, u.mime_type::text,
           u.file_size::bigint, u.processing_status::text, u.description_audit_score::integer,
           u.video_codec::text, u.error_message::text, u.created_at::timestamptz,
           u.updated_at::timestamptz
$$;

-- Who reads a view needs the two functions it calls, and nobody but the pipeline the others.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA vuemantics_pipeline FROM PUBLIC;

CREATE OR REPLACE VIEW vuemantics_pipeline.batch_facts AS
SELECT b.batch_id, b.user_id, b.status, b.created_at, b.started_at, b.completed_at,
       u.uploads_total, u.uploads_succeeded, u.uploads_failed,
       u.uploads_total - u.uploads_succeeded - u.uploads_failed AS uploads_unfinished,
       a.uploads_reused, u.bytes_total, r.duration_seconds,
       extract(epoch FROM
           b.started_at - least(b.started_at, coalesce(u.last_arrival, b.created_at))
       )::float8 AS seconds_waiting_in_queue,
       60 * (u.uploads_succeeded + u.uploads_failed) / nullif(r.duration_seconds, 0)
           AS uploads_per_minute,
       u.audit_score_mean, a.attempts_total, a.attempts_released,
       coalesce(s.takeovers, 0) AS takeovers, r.runs_total, coalesce(s.run_id, n.run_id) AS run_id,
       n.analyzer, n.vision_model, n.embedding_model, n.prompt_version, b.error_message
FROM upload_batches AS batch
CROSS JOIN LATERAL vuemantics_pipeline.batch_columns(batch) AS b
LEFT JOIN vuemantics_pipeline.batch_states AS s ON s.batch_id = b.batch_id
LEFT JOIN LATERAL (
    SELECT count(*)::integer AS uploads_total,
           (count(*) FILTER (WHERE c.status = 'completed'))::integer AS uploads_succeeded,
           (count(*) FILTER (WHERE c.status = 'failed'))::integer AS uploads_failed,
           coalesce(sum(c.file_size), 0)::bigint AS bytes_total,
           max(c.created_at) FILTER (WHERE c.created_at <= b.started_at) AS last_arrival,
           (avg(c.audit_score) FILTER (WHERE c.status = 'completed'))::float8 AS audit_score_mean
    FROM uploads AS upload CROSS JOIN LATERAL vuemantics_pipeline.upload_columns(upload) AS c
    WHERE c.batch_id = b.batch_id
) AS u ON true
LEFT JOIN LATERAL (
    SELECT (count(*) FILTER (WHERE outcome <> 'released'))::integer AS attempts_total,
           (count(*) FILTER (WHERE outcome = 'released'))::integer AS attempts_released,
           (count(*) FILTER (WHERE outcome = 'completed' AND reused_from IS NOT NULL))::integer
               AS uploads_reused
    FROM vuemantics_pipeline.attempts WHERE batch_id = b.batch_id AND NOT superseded
) AS a ON true
LEFT JOIN LATERAL (
    SELECT count(*)::integer AS runs_total, extract(epoch FROM sum(at_work))::float8
               AS duration_seconds
    FROM (
        SELECT max(ended_at) FILTER (WHERE NOT superseded)
               - min(started_at) FILTER (WHERE NOT superseded) AS at_work
        FROM vuemantics_pipeline.attempts WHERE batch_id = b.batch_id GROUP BY run_id
    ) AS runs
) AS r ON true
LEFT JOIN LATERAL (
    SELECT run_id, analyzer, vision_model, embedding_model, prompt_version
    FROM vuemantics_pipeline.attempts WHERE batch_id = b.batch_id ORDER BY id DESC LIMIT 1
) AS n ON true;

COMMENT ON VIEW vuemantics_pipeline.batch_facts IS
    'One row for each batch. Of uploads that were asked for again, only the attempts since then '
    'are counted, unless a column says otherwise.';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.batch_id IS 'upload_batches.id';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.user_id IS 'users.id of whose batch it is';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.status IS
    'pending, processing, completed, failed or cancelled';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.created_at IS 'when the application added it';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.started_at IS
    'when the first run began, NULL before that';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.completed_at IS
    'when it was completed, failed or cancelled, NULL before that';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.uploads_total IS
    'uploads in it: those succeeded, failed and unfinished';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.uploads_succeeded IS
    'uploads that are described and searchable';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.uploads_failed IS 'uploads that failed for good';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.uploads_unfinished IS 'uploads still to be done';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.uploads_reused IS
    'uploads that took over what was made of another file with the same bytes';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.bytes_total IS 'size of its files, in bytes';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.duration_seconds IS
    'seconds in which a run was at work on it: of each run, from the start of its first attempt '
    'to the end of its last, summed; NULL before an attempt has ended';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.seconds_waiting_in_queue IS
    'seconds from the arrival of the last upload that came before started_at (or from created_at, '
    'where none did) to started_at; NULL before that';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.uploads_per_minute IS
    'uploads succeeded and failed, per minute of duration_seconds; NULL without a duration';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.audit_score_mean IS
    'mean audit score of the uploads that succeeded, 0-100; NULL where none did';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.attempts_total IS
    'attempts used up: completed, failed, or cut short by the death of the worker';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.attempts_released IS
    'attempts given back, because their end was no fault of the file';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.takeovers IS
    'how often another run had to go on with it since it was last asked for';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.runs_total IS
    'Dagster runs that began an attempt, all there ever were';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.run_id IS 'the last Dagster run, NULL before any';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.analyzer IS
    'analyzer of the newest attempt, NULL before any';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.vision_model IS
    'model that describes, of the newest attempt';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.embedding_model IS
    'model that embeds, of the newest attempt';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.prompt_version IS
    'version of the prompt, of the newest attempt';
COMMENT ON COLUMN vuemantics_pipeline.batch_facts.error_message IS
    'what the batch says about itself, such as why it failed or was cancelled; mostly NULL';

CREATE OR REPLACE VIEW vuemantics_pipeline.upload_facts AS
SELECT u.upload_id, u.batch_id, u.user_id, u.filename, u.file_type, u.mime_type, u.file_size,
       m.format, m.mime_type AS detected_mime_type, m.width, m.height, m.taken_at, m.camera,
       m.has_gps, m.duration_seconds, m.frame_rate, m.rotation, u.video_codec,
       u.status, u.audit_score, a.attempts, a.seconds,
       e.error_code, coalesce(e.error_message, u.error_message) AS error_message, e.remedy,
       n.run_id, n.analyzer, n.vision_model, n.embedding_model, n.prompt_version, n.reused_from,
       u.created_at, a.started_at, a.ended_at, u.updated_at
FROM (
    -- Merged into the rest, the row would be handed to each subquery below as a whole, its vector
    -- included. The WITH is for that: conditions are pushed past it, the subquery stays its own.
    WITH apart AS (SELECT)
    SELECT c.*
    FROM uploads AS upload CROSS JOIN LATERAL vuemantics_pipeline.upload_columns(upload) AS c
) AS u
LEFT JOIN vuemantics_pipeline.media_facts AS m ON m.upload_id = u.upload_id
LEFT JOIN LATERAL (
    SELECT (count(*) FILTER (WHERE outcome <> 'released'))::integer AS attempts,
           extract(epoch FROM sum(ended_at - started_at))::float8 AS seconds,
           min(started_at) AS started_at, max(ended_at) AS ended_at
    FROM vuemantics_pipeline.attempts WHERE upload_id = u.upload_id AND NOT superseded
) AS a ON true
LEFT JOIN LATERAL (
    SELECT error_code, error_message, remedy FROM vuemantics_pipeline.attempts
    WHERE upload_id = u.upload_id AND NOT superseded AND outcome IN ('failed', 'died')
    ORDER BY id DESC LIMIT 1
) AS e ON true
LEFT JOIN LATERAL (
    SELECT run_id, analyzer, vision_model, embedding_model, prompt_version, reused_from
    FROM vuemantics_pipeline.attempts WHERE upload_id = u.upload_id ORDER BY id DESC LIMIT 1
) AS n ON true;

COMMENT ON VIEW vuemantics_pipeline.upload_facts IS
    'One row for each upload, without its description and its vector. Of an upload that was asked '
    'for again, only the attempts since then are counted.';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.upload_id IS 'uploads.id';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.batch_id IS
    'upload_batches.id, NULL where its batch was deleted';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.user_id IS 'users.id of whose upload it is';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.filename IS
    'name of the file as the user has it; not to be trusted';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.file_type IS 'image or video';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.mime_type IS 'MIME type as the client told it';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.file_size IS 'size of the file, in bytes';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.format IS
    'format found in the bytes, such as JPEG; NULL until the upload succeeded once';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.detected_mime_type IS
    'MIME type found in the bytes; NULL until the upload succeeded once';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.width IS
    'width, in pixels of the picture turned upright';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.height IS
    'height, in pixels of the picture turned upright';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.taken_at IS
    'when it was taken by the camera''s clock, whose time zone files do not tell';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.camera IS 'make and model of the camera';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.has_gps IS 'whether the file tells a place';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.duration_seconds IS
    'length of a video, in seconds; NULL for pictures';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.frame_rate IS
    'frames per second of a video; NULL for pictures';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.rotation IS
    'degrees by which a video is turned to be upright; NULL for pictures';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.video_codec IS 'codec of a video';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.status IS
    'pending, analyzing, embedding, completed or failed';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.audit_score IS
    'audit score of its description, 0-100; NULL before there is one';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.attempts IS
    'attempts used up: completed, failed, or cut short by the death of the worker';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.seconds IS
    'seconds its attempts took, those given back included; NULL before one has ended';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.error_code IS
    'code of its last error, also where a later attempt succeeded; NULL without one';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.error_message IS
    'what went wrong then, in words for the user';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.remedy IS 'what the user can do about it';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.run_id IS
    'Dagster run of its newest attempt, NULL before any';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.analyzer IS
    'analyzer of its newest attempt, NULL before any';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.vision_model IS
    'model that describes, of its newest attempt';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.embedding_model IS
    'model that embeds, of its newest attempt';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.prompt_version IS
    'version of the prompt, of its newest attempt';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.reused_from IS
    'uploads.id of the file with the same bytes whose description was taken over, else NULL';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.created_at IS 'when the application added it';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.started_at IS
    'when its first attempt began, NULL before any';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.ended_at IS
    'when its last attempt ended, NULL before one has';
COMMENT ON COLUMN vuemantics_pipeline.upload_facts.updated_at IS 'when the row last changed';

CREATE OR REPLACE VIEW vuemantics_pipeline.attempt_facts AS
SELECT a.id AS attempt_id, a.upload_id, a.batch_id, u.user_id, u.filename, u.file_type,
       a.attempt_number, a.run_id, a.started_at, a.ended_at,
       extract(epoch FROM a.ended_at - a.started_at)::float8 AS seconds,
       a.outcome, a.stage, a.superseded, a.error_code, a.error_message, a.remedy,
       a.analyzer, a.vision_model, a.embedding_model, a.prompt_version, a.model_digest,
       a.reused_from, a.frames_done, a.frames_total
FROM vuemantics_pipeline.attempts AS a
LEFT JOIN LATERAL (
    SELECT c.user_id, c.filename, c.file_type
    FROM uploads AS upload CROSS JOIN LATERAL vuemantics_pipeline.upload_columns(upload) AS c
    WHERE c.upload_id = a.upload_id
) AS u ON true;

COMMENT ON VIEW vuemantics_pipeline.attempt_facts IS
    'One row for each time a worker began an upload, whether it has ended or not.';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.attempt_id IS
    'number of the attempt: a later one has a higher number';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.upload_id IS 'uploads.id';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.batch_id IS 'upload_batches.id';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.user_id IS
    'users.id of whose upload it is, NULL where that was deleted';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.filename IS
    'name of the file as the user has it, NULL where the upload was deleted; not to be trusted';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.file_type IS
    'image or video, NULL where the upload was deleted';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.attempt_number IS
    '1 or 2: an attempt given back leaves its number to the next';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.run_id IS 'Dagster run that made it';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.started_at IS 'when it began';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.ended_at IS 'when it ended, NULL while it runs';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.seconds IS
    'seconds from its start to its end, NULL while it runs';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.outcome IS
    'completed, failed, died (the worker did) or released (given back: the fault was not the '
    'file''s), NULL while it runs';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.stage IS 'the last stage it reached';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.superseded IS
    'the upload was asked for again since, and counting began anew';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.error_code IS
    'code of the error that ended it, NULL without one';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.error_message IS
    'what went wrong, in words for the user';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.remedy IS 'what the user can do about it';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.analyzer IS 'analyzer that was used';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.vision_model IS 'model that describes';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.embedding_model IS 'model that embeds';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.prompt_version IS 'version of the prompt';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.model_digest IS
    'digest of the vision model''s weights, NULL where there is none';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.reused_from IS
    'uploads.id of the file with the same bytes whose description was taken over, else NULL';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.frames_done IS
    'frames of a video that were described; NULL for pictures';
COMMENT ON COLUMN vuemantics_pipeline.attempt_facts.frames_total IS
    'frames of a video that were to be described; NULL for pictures';

CREATE OR REPLACE VIEW vuemantics_pipeline.stage_seconds AS
SELECT a.id AS attempt_id, a.upload_id, a.batch_id, u.user_id, u.file_type, a.run_id,
       a.started_at, a.outcome, a.superseded, a.analyzer, a.vision_model, a.prompt_version,
       s.key AS stage, s.value::float8 AS seconds
FROM vuemantics_pipeline.attempts AS a
CROSS JOIN LATERAL jsonb_each_text(a.stage_seconds) AS s
LEFT JOIN LATERAL (
    SELECT c.user_id, c.file_type
    FROM uploads AS upload CROSS JOIN LATERAL vuemantics_pipeline.upload_columns(upload) AS c
    WHERE c.upload_id = a.upload_id
) AS u ON true;

COMMENT ON VIEW vuemantics_pipeline.stage_seconds IS
    'One row for each attempt and each stage that it has ended.';
COMMENT ON COLUMN vuemantics_pipeline.stage_seconds.attempt_id IS 'attempt_facts.attempt_id';
COMMENT ON COLUMN vuemantics_pipeline.stage_seconds.upload_id IS 'uploads.id';
COMMENT ON COLUMN vuemantics_pipeline.stage_seconds.batch_id IS 'upload_batches.id';
COMMENT ON COLUMN vuemantics_pipeline.stage_seconds.user_id IS
    'users.id of whose upload it is, NULL where that was deleted';
COMMENT ON COLUMN vuemantics_pipeline.stage_seconds.file_type IS
    'image or video, NULL where the upload was deleted';
COMMENT ON COLUMN vuemantics_pipeline.stage_seconds.run_id IS 'Dagster run of the attempt';
COMMENT ON COLUMN vuemantics_pipeline.stage_seconds.started_at IS 'when the attempt began';
COMMENT ON COLUMN vuemantics_pipeline.stage_seconds.outcome IS
    'of the attempt: completed, failed, died or released, NULL while it runs';
COMMENT ON COLUMN vuemantics_pipeline.stage_seconds.superseded IS
    'the upload was asked for again since, and counting began anew';
COMMENT ON COLUMN vuemantics_pipeline.stage_seconds.analyzer IS 'analyzer that was used';
COMMENT ON COLUMN vuemantics_pipeline.stage_seconds.vision_model IS 'model that describes';
COMMENT ON COLUMN vuemantics_pipeline.stage_seconds.prompt_version IS 'version of the prompt';
COMMENT ON COLUMN vuemantics_pipeline.stage_seconds.stage IS
    'queued, extracting_frames, vision_analysis, description_audit, embedding_generation or '
    'indexing';
COMMENT ON COLUMN vuemantics_pipeline.stage_seconds.seconds IS
    'wall-clock seconds the attempt spent in the stage';
