-- name: to_the_last_row
-- However long that takes, and without a plan that is quick for the first rows only.
SET LOCAL statement_timeout = 0;
SET LOCAL cursor_tuple_fraction = 1

-- name: count
SELECT count(*) FROM ({rows}) AS selected

-- name: batches
SELECT * FROM vuemantics_pipeline.batch_facts
WHERE (%(since)s::timestamptz IS NULL OR created_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR created_at < %(until)s)
  AND (%(user_id)s::uuid IS NULL OR user_id = %(user_id)s)
  AND (%(batch_id)s::uuid IS NULL OR batch_id = %(batch_id)s)
  AND (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(analyzer)s::text IS NULL OR analyzer = %(analyzer)s)
ORDER BY created_at, batch_id

-- name: uploads
SELECT * FROM vuemantics_pipeline.upload_facts
WHERE (%(since)s::timestamptz IS NULL OR created_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR created_at < %(until)s)
  AND (%(user_id)s::uuid IS NULL OR user_id = %(user_id)s)
  AND (%(batch_id)s::uuid IS NULL OR batch_id = %(batch_id)s)
  AND (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(analyzer)s::text IS NULL OR analyzer = %(analyzer)s)
ORDER BY created_at, upload_id

-- name: attempts
SELECT * FROM vuemantics_pipeline.attempt_facts
WHERE (%(since)s::timestamptz IS NULL OR started_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR started_at < %(until)s)
  AND (%(user_id)s::uuid IS NULL OR user_id = %(user_id)s)
  AND (%(batch_id)s::uuid IS NULL OR batch_id = %(batch_id)s)
  AND (%(status)s::text IS NULL OR outcome = %(status)s)
  AND (%(analyzer)s::text IS NULL OR analyzer = %(analyzer)s)
ORDER BY attempt_id

-- name: stages
SELECT * FROM vuemantics_pipeline.stage_seconds
WHERE (%(since)s::timestamptz IS NULL OR started_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR started_at < %(until)s)
  AND (%(user_id)s::uuid IS NULL OR user_id = %(user_id)s)
  AND (%(batch_id)s::uuid IS NULL OR batch_id = %(batch_id)s)
  AND (%(status)s::text IS NULL OR outcome = %(status)s)
  AND (%(analyzer)s::text IS NULL OR analyzer = %(analyzer)s)
ORDER BY attempt_id, stage
