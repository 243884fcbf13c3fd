-- The application's tables, for a database that has none of them. On the application's own
-- database this file is never run.
CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE users (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email varchar(320) NOT NULL UNIQUE,
    password_hash text NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    token_version integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE upload_batches (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    status varchar(20) NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'processing', 'completed', 'failed', 'cancelled')),
    total_uploads integer NOT NULL DEFAULT 0,
    processed_uploads integer NOT NULL DEFAULT 0,
    successful_uploads integer NOT NULL DEFAULT 0,
    failed_uploads integer NOT NULL DEFAULT 0,
    error_message text,
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now(),
    started_at timestamptz,
    completed_at timestamptz
);
CREATE INDEX idx_upload_batches_user_id ON upload_batches (user_id);
CREATE INDEX idx_upload_batches_status ON upload_batches (status);
CREATE INDEX idx_upload_batches_created_at ON upload_batches (created_at DESC);

CREATE TABLE uploads (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    filename text NOT NULL,
    file_path text NOT NULL,
    file_type varchar(20) NOT NULL CHECK (file_type IN ('image', 'video')),
    file_size bigint NOT NULL,
    mime_type varchar(100) NOT NULL,
    processing_status varchar(20) NOT NULL DEFAULT 'pending'
        CHECK (processing_status IN ('pending', 'analyzing', 'embedding', 'completed', 'failed')),
    description text,
    description_audit_score integer CHECK (description_audit_score BETWEEN 0 AND 100),
    embedding_local vector({dimension}),
    thumbnail_path text,
    video_codec varchar(20),
    error_message text,
    metadata jsonb NOT NULL DEFAULT '{{}}'::jsonb,
    hidden boolean NOT NULL DEFAULT false,
    regeneration_count integer NOT NULL DEFAULT 0,
    last_regenerated_at timestamptz,
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now(),
    batch_id uuid REFERENCES upload_batches (id) ON DELETE SET NULL
);
CREATE INDEX idx_uploads_batch_id ON uploads (batch_id);
CREATE INDEX idx_uploads_user_id ON uploads (user_id);
CREATE INDEX idx_uploads_embedding_local ON uploads
    USING hnsw (embedding_local vector_cosine_ops);
