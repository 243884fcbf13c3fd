-- name: space
SELECT embedding_model, dimension FROM vuemantics_pipeline.embedding_space

-- name: hold_space
-- Shared: workers on other batches write at the same time, but nobody may clear the vectors.
SELECT embedding_model FROM vuemantics_pipeline.embedding_space FOR SHARE

-- name: dimension_present
SELECT vector_dims(embedding_local) FROM uploads WHERE embedding_local IS NOT NULL LIMIT 1

-- name: claim_space
INSERT INTO vuemantics_pipeline.embedding_space (embedding_model, dimension)
VALUES (%(embedding_model)s, %(dimension)s) ON CONFLICT DO NOTHING
