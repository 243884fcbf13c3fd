-- What the pipeline needs beyond the application's tables. No foreign key points at them: that
-- would add triggers to tables that are not ours.

-- One row for each batch a run was ever asked for.
CREATE TABLE IF NOT EXISTS vuemantics_pipeline.batch_states (
    batch_id uuid PRIMARY KEY,
    -- Part of the run key. Raised on every requeue, because Dagster uses a run key only once.
    try_number integer NOT NULL DEFAULT 1,
    -- Raised whenever a run takes the lease; every write of a run carries the number it got.
    fence bigint NOT NULL DEFAULT 0,
    run_id text,
    claimed_at timestamptz,
    requested_at timestamptz,
    -- Back-off: the batch is not offered before this moment.
    not_before timestamptz,
    -- Runs in a row that ended without getting anything done: by a death or a fault of ours, which
    -- fail the batch in the end, and because a backend was down, which only makes it wait longer.
    fruitless_runs integer NOT NULL DEFAULT 0,
    outages integer NOT NULL DEFAULT 0,
    -- The run whose scope was last applied: its re-executions must not start over.
    reset_by text
);

-- One row for each time a worker began an upload, written before the work starts.
CREATE TABLE IF NOT EXISTS vuemantics_pipeline.attempts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    upload_id uuid NOT NULL,
    batch_id uuid NOT NULL,
    attempt_number integer NOT NULL,
    run_id text NOT NULL,
    fence bigint NOT NULL,
    stage text NOT NULL,
    stage_seconds jsonb NOT NULL DEFAULT '{}',
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    -- NULL while it runs. 'released' gave the attempt back: the fault was not the file's.
    outcome text CHECK (outcome IN ('completed', 'failed', 'died', 'released')),
    -- Of an earlier life of the upload: a re-run was asked for since, and counting began anew.
    superseded boolean NOT NULL DEFAULT false,
    error_code text,
    error_message text,
    remedy text,
    analyzer text NOT NULL,
    vision_model text NOT NULL,
    embedding_model text NOT NULL,
    prompt_version text NOT NULL,
    CHECK ((outcome IS NULL) = (ended_at IS NULL)),
    CHECK (attempt_number BETWEEN 1 AND 2)
);
CREATE INDEX IF NOT EXISTS attempts_batch_id ON vuemantics_pipeline.attempts (batch_id);
CREATE INDEX IF NOT EXISTS attempts_upload_id ON vuemantics_pipeline.attempts (upload_id);
CREATE UNIQUE INDEX IF NOT EXISTS attempts_one_open
    ON vuemantics_pipeline.attempts (upload_id) WHERE outcome IS NULL;
-- Whatever the code does, an upload cannot be counted twice, nor get a third attempt.
CREATE UNIQUE INDEX IF NOT EXISTS attempts_completed_once
    ON vuemantics_pipeline.attempts (upload_id) WHERE outcome = 'completed' AND NOT superseded;
CREATE UNIQUE INDEX IF NOT EXISTS attempts_numbered_once
    ON vuemantics_pipeline.attempts (upload_id, attempt_number)
    WHERE outcome IN ('completed', 'failed', 'died') AND NOT superseded;

-- Whose vectors `uploads.embedding_local` holds: vectors of two models cannot be compared.
CREATE TABLE IF NOT EXISTS vuemantics_pipeline.embedding_space (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    embedding_model text NOT NULL,
    dimension integer NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now()
);

-- Wakes the sensor. Attached to upload_batches as a trigger where the role may do that.
CREATE OR REPLACE FUNCTION vuemantics_pipeline.notify_batch() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pg_notify('vuemantics_batches', NEW.id::text);
    RETURN NULL;
END
$$;

-- The lock a run holds on its batch for as long as its session lives.
CREATE OR REPLACE FUNCTION vuemantics_pipeline.lease_key(batch_id uuid) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog AS $$
    SELECT hashtextextended('vuemantics_pipeline.batch:' || batch_id, 0)
$$;

CREATE OR REPLACE FUNCTION vuemantics_pipeline.lease_is_held(batch_id uuid) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND granted AND objsubid = 1
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND (classid::bigint << 32) | objid::bigint = vuemantics_pipeline.lease_key(batch_id)
    )
$$;
