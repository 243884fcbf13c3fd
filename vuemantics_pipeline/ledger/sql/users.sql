-- name: active
SELECT id, token_version FROM users WHERE id = ANY(%(user_ids)s) AND is_active

-- name: token_version
SELECT token_version FROM users WHERE id = %(user_id)s
