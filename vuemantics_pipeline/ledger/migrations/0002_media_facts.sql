-- What is known of a file beyond the application's columns, and what made each description.

-- One row for each upload that was processed, written with its outcome.
CREATE TABLE IF NOT EXISTS vuemantics_pipeline.media_facts (
    upload_id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
    format text NOT NULL,
    mime_type text NOT NULL,
    -- Pixels as a person sees them, turned upright.
    width integer NOT NULL,
    height integer NOT NULL,
    -- The camera's local time; files do not tell its zone.
    taken_at timestamp,
    camera text,
    has_gps boolean NOT NULL,
    duration_seconds double precision,
    frame_rate double precision,
    rotation integer,
    -- Writing that was read in the picture.
    visible_text text NOT NULL DEFAULT '',
    recorded_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS media_facts_same_bytes
    ON vuemantics_pipeline.media_facts (user_id, sha256);
CREATE INDEX IF NOT EXISTS media_facts_year
    ON vuemantics_pipeline.media_facts (extract(year FROM taken_at)) WHERE taken_at IS NOT NULL;
-- 'english' leaves out its filler words, and takes those of other languages as they are.
CREATE INDEX IF NOT EXISTS media_facts_visible_text
    ON vuemantics_pipeline.media_facts USING gin (to_tsvector('english', visible_text))
    WHERE visible_text <> '';

-- Of the answer that was kept.
ALTER TABLE vuemantics_pipeline.attempts
    ADD COLUMN IF NOT EXISTS model_digest text,
    ADD COLUMN IF NOT EXISTS model_options jsonb,
    -- The upload with the same bytes whose description and vector were taken over.
    ADD COLUMN IF NOT EXISTS reused_from uuid;
