-- name: standing
-- Unsettled: what ends a batch's run, or gives the batch back, has not looked at this run yet.
SELECT b.status, b.error_message, coalesce(s.outages, 0) AS outages,
       b.status IN ('pending', 'processing')
           AND coalesce(s.run_id = %(run_id)s OR
                        (s.run_id IS NULL AND s.try_number = %(try_number)s::integer), false)
           AS is_unsettled,
       NOT EXISTS (
           SELECT FROM vuemantics_pipeline.batch_states AS o
           JOIN upload_batches AS other ON other.id = o.batch_id AND other.status = 'pending'
           WHERE o.batch_id <> b.id AND o.outages >= coalesce(s.outages, 0)
       ) AS is_longest_waiting
FROM upload_batches AS b
LEFT JOIN vuemantics_pipeline.batch_states AS s ON s.batch_id = b.id
WHERE b.id = %(batch_id)s
