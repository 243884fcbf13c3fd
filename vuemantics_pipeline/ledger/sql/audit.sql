-- name: violations
-- No rule joins `counted` to the rows: without statistics the planner takes it for a short list.
WITH counted AS (
    SELECT b.id AS batch_id, b.status, b.total_uploads, b.processed_uploads,
           b.successful_uploads, b.failed_uploads, b.started_at, b.completed_at,
           count(u.id) AS rows,
           count(u.id) FILTER (WHERE u.processing_status = 'completed') AS completed,
           count(u.id) FILTER (WHERE u.processing_status = 'failed') AS failed
    FROM upload_batches AS b LEFT JOIN uploads AS u ON u.batch_id = b.id
    WHERE %(batch_id)s::uuid IS NULL OR b.id = %(batch_id)s
    GROUP BY b.id
), violations AS (
    SELECT batch_id, 'counters_differ_from_rows' AS rule,
           format('says %%s successful and %%s failed; its uploads are %%s and %%s',
                  successful_uploads, failed_uploads, completed, failed) AS detail
    FROM counted WHERE (successful_uploads, failed_uploads) <> (completed, failed)
    UNION ALL
    SELECT batch_id, 'processed_is_not_the_sum',
           format('says %%s processed, %%s successful and %%s failed',
                  processed_uploads, successful_uploads, failed_uploads)
    FROM counted WHERE processed_uploads <> successful_uploads + failed_uploads
    UNION ALL
    SELECT batch_id, 'more_processed_than_total',
           format('says %%s processed of %%s', processed_uploads, total_uploads)
    FROM counted WHERE processed_uploads > total_uploads
    UNION ALL
    SELECT batch_id, 'completed_with_work_left',
           format('is completed, but %%s of its %%s uploads are not finished',
                  rows - completed - failed, rows)
    FROM counted WHERE status = 'completed' AND rows > completed + failed
    UNION ALL
    SELECT batch_id, 'ended_without_a_time', format('is %%s without completed_at', status)
    FROM counted WHERE status IN ('completed', 'failed') AND completed_at IS NULL
    UNION ALL
    SELECT batch_id, 'begun_without_a_time', 'is processing without started_at'
    FROM counted WHERE status = 'processing' AND started_at IS NULL
    UNION ALL
    SELECT u.batch_id, 'completed_without_result',
           format('upload %%s is completed without description or vector', u.id)
    FROM uploads AS u
    WHERE (%(batch_id)s::uuid IS NULL OR u.batch_id = %(batch_id)s)
      AND u.processing_status = 'completed'
      AND (u.description IS NULL OR u.embedding_local IS NULL)
    UNION ALL
    SELECT u.batch_id, 'failed_without_reason', format('upload %%s failed without a reason', u.id)
    FROM uploads AS u
    WHERE (%(batch_id)s::uuid IS NULL OR u.batch_id = %(batch_id)s)
      AND u.processing_status = 'failed' AND coalesce(u.error_message, '') = ''
    UNION ALL
    SELECT a.batch_id, 'counted_more_than_once',
           format('upload %%s has %%s completed attempts', a.upload_id, count(*))
    FROM vuemantics_pipeline.attempts AS a
    WHERE (%(batch_id)s::uuid IS NULL OR a.batch_id = %(batch_id)s)
      AND a.outcome = 'completed' AND NOT a.superseded
    GROUP BY a.batch_id, a.upload_id HAVING count(*) > 1
    UNION ALL
    SELECT a.batch_id, 'too_many_attempts',
           format('upload %%s has used up %%s attempts', a.upload_id, count(*))
    FROM vuemantics_pipeline.attempts AS a
    WHERE (%(batch_id)s::uuid IS NULL OR a.batch_id = %(batch_id)s)
      AND a.outcome <> 'released' AND NOT a.superseded
    GROUP BY a.batch_id, a.upload_id HAVING count(*) > 2
    UNION ALL
    SELECT u.batch_id, 'outcome_contradicts_attempt',
           format('upload %%s is %%s, but its last attempt %%s', u.id, u.processing_status,
                  coalesce(a.outcome, 'is still open'))
    FROM uploads AS u
    JOIN (
        SELECT DISTINCT ON (upload_id) upload_id, outcome FROM vuemantics_pipeline.attempts
        WHERE (%(batch_id)s::uuid IS NULL OR batch_id = %(batch_id)s)
          AND NOT superseded AND outcome IS DISTINCT FROM 'released'
        ORDER BY upload_id, id DESC
    ) AS a ON a.upload_id = u.id
    WHERE (%(batch_id)s::uuid IS NULL OR u.batch_id = %(batch_id)s)
      AND ((u.processing_status = 'completed' AND a.outcome IS DISTINCT FROM 'completed')
           OR (u.processing_status = 'failed'
               AND coalesce(a.outcome, '') NOT IN ('failed', 'died'))
           OR (u.processing_status NOT IN ('completed', 'failed') AND a.outcome = 'completed'))
    UNION ALL
    SELECT a.batch_id, 'attempt_left_open',
           format('an attempt at upload %%s is open, but the batch is %%s', a.upload_id, b.status)
    FROM vuemantics_pipeline.attempts AS a JOIN upload_batches AS b ON b.id = a.batch_id
    WHERE (%(batch_id)s::uuid IS NULL OR a.batch_id = %(batch_id)s)
      AND a.outcome IS NULL AND b.status IN ('completed', 'failed')
), present AS (
    -- Attempts outlive a batch that was deleted, and uploads do as well.
    SELECT v.* FROM violations AS v JOIN upload_batches AS b ON b.id = v.batch_id
)
SELECT batch_id, rule, detail, n.batches
FROM (SELECT count(*) AS batches FROM counted) AS n LEFT JOIN present ON true
ORDER BY batch_id, rule, detail
