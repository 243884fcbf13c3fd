-- How far a batch and each upload in it have come, in an order that whoever follows can rely on.

ALTER TABLE vuemantics_pipeline.batch_states
    -- Raised in the transaction of every change that is announced.
    ADD COLUMN IF NOT EXISTS progress_seq bigint NOT NULL DEFAULT 0,
    -- Of the last change that may have touched uploads other than the one it named.
    ADD COLUMN IF NOT EXISTS sweeping_seq bigint NOT NULL DEFAULT 0,
    -- How often another run had to go on with it since it was last asked for.
    ADD COLUMN IF NOT EXISTS takeovers integer NOT NULL DEFAULT 0;

ALTER TABLE vuemantics_pipeline.attempts
    -- The batch's progress_seq when the attempt last moved.
    ADD COLUMN IF NOT EXISTS progress_seq bigint NOT NULL DEFAULT 0,
    -- Of a video: frames the vision model has described, of how many.
    ADD COLUMN IF NOT EXISTS frames_done integer,
    ADD COLUMN IF NOT EXISTS frames_total integer;
