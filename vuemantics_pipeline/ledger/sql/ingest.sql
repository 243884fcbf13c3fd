-- name: user_by_id
SELECT id FROM users WHERE id = %(user_id)s

-- name: user_by_email
SELECT id FROM users WHERE lower(email) = lower(%(email)s) ORDER BY email = %(email)s DESC LIMIT 1

-- name: first_users
SELECT id FROM users ORDER BY created_at, id LIMIT 2

-- name: tables_are_ours
-- The application's own tables take their ids from uuid-ossp.
SELECT 1 FROM pg_attrdef AS d
JOIN pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
WHERE d.adrelid = 'users'::regclass AND a.attname = 'id'
  AND pg_get_expr(d.adbin, d.adrelid) = 'gen_random_uuid()'

-- name: add_user
-- No password has this hash, so nobody can sign in with it.
INSERT INTO users (email, password_hash) VALUES (%(email)s, '!') ON CONFLICT (email) DO NOTHING

-- name: add_batch
INSERT INTO upload_batches (id, user_id, status, total_uploads, created_at, updated_at)
VALUES (%(batch_id)s, %(user_id)s, 'pending', %(total)s, now(), now())

-- name: commit_without_waiting
SET LOCAL synchronous_commit = off

-- name: add_upload
INSERT INTO uploads (
    id, user_id, batch_id, filename, file_path, file_type, file_size, mime_type, video_codec,
    processing_status, created_at, updated_at
) VALUES (
    %(upload_id)s, %(user_id)s, %(batch_id)s, %(filename)s, %(file_path)s, %(file_type)s,
    %(file_size)s, %(mime_type)s, %(video_codec)s, 'pending', now(), now()
)

-- name: settle_total
UPDATE upload_batches
SET total_uploads = (SELECT count(*) FROM uploads WHERE batch_id = %(batch_id)s),
    updated_at = now()
WHERE id = %(batch_id)s
RETURNING total_uploads
