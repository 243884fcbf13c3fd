-- name: to_the_last_row
-- However long that takes, and without a plan that is quick for the first rows only.
SET LOCAL statement_timeout = 0;
SET LOCAL cursor_tuple_fraction = 1

-- name: count
SELECT count(*) FROM ({rows}) AS selected

-- name: rows
SELECT * FROM vuemantics_pipeline.{view}
WHERE (%(since)s::timestamptz IS NULL OR {moment} >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR {moment} < %(until)s)
  AND (%(user_id)s::uuid IS NULL OR user_id = %(user_id)s)
  AND (%(batch_id)s::uuid IS NULL OR batch_id = %(batch_id)s)
  AND (%(status)s::text IS NULL OR {status} = %(status)s)
  AND (%(analyzer)s::text IS NULL OR analyzer = %(analyzer)s)
ORDER BY {order}
