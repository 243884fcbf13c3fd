-- name: prunable
-- Of these batches: those that ended long ago, and those the application has deleted.
SELECT given.batch_id
FROM unnest(%(batch_ids)s::uuid[]) AS given (batch_id)
LEFT JOIN upload_batches AS b ON b.id = given.batch_id
WHERE NOT vuemantics_pipeline.lease_is_held(given.batch_id)
  AND (b.id IS NULL
       OR (b.status NOT IN ('pending', 'processing')
           AND coalesce(b.completed_at, b.updated_at)
               < now() - make_interval(days => %(older_than_days)s)))

-- name: unended
SELECT id FROM upload_batches WHERE status IN ('pending', 'processing')

-- name: count_forgotten_media
SELECT count(*) FROM vuemantics_pipeline.media_facts AS m
WHERE NOT EXISTS (SELECT FROM uploads AS u WHERE u.id = m.upload_id)

-- name: delete_forgotten_media
DELETE FROM vuemantics_pipeline.media_facts WHERE upload_id IN (
    SELECT m.upload_id FROM vuemantics_pipeline.media_facts AS m
    WHERE NOT EXISTS (SELECT FROM uploads AS u WHERE u.id = m.upload_id)
    LIMIT %(limit)s
)
