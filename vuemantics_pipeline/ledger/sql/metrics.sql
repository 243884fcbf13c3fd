-- name: batches
-- The counters say what the rows say (`vuemantics audit` checks it) and are a hundredth of them.
SELECT status, count(*) AS batches, sum(successful_uploads) AS completed,
       sum(failed_uploads) AS failed, sum(greatest(total_uploads - processed_uploads, 0))
           AS unfinished,
       extract(epoch FROM now() - min(created_at)::timestamptz)::float8 AS oldest_seconds
FROM upload_batches GROUP BY status

-- name: stages
-- Every attempt that has ended, those superseded too: what they took was really spent.
SELECT spent.stage, count(*) AS tries, sum(spent.seconds) AS seconds
FROM vuemantics_pipeline.attempts AS a
CROSS JOIN LATERAL (SELECT key AS stage, value::float8 AS seconds
                    FROM jsonb_each_text(a.stage_seconds)) AS spent
WHERE a.ended_at IS NOT NULL
GROUP BY spent.stage
