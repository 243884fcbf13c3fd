"""The application's own database in the shapes in which it is found, and what is in a database.

The pipeline has to work on each of them and to leave each as it was.
"""

from dataclasses import dataclass, fields
from itertools import combinations
from typing import Literal

from psycopg import sql

from vuemantics_pipeline.ledger.connection import Connection

DIMENSION = 1024


@dataclass(frozen=True)
class Variant:
    """One shape of the application's database.

    Attributes:
        timestamps: type of every time; the naive ones are local to the database's time zone.
        checked_status: varchar(20) with a CHECK, else varchar(50) without.
        user_foreign_key: `user_id` references `users`.
        own_trigger: the application has a trigger of its own on `upload_batches`.
        time_zone: of every session.
    """

    timestamps: Literal["timestamp", "timestamptz"]
    checked_status: bool
    user_foreign_key: bool
    own_trigger: bool
    time_zone: Literal["UTC", "America/New_York", "Asia/Kolkata"]

    def __str__(self) -> str:
        words = [
            self.timestamps,
            "checked" if self.checked_status else "unchecked",
            "foreign_key" if self.user_foreign_key else "no_foreign_key",
            "own_trigger" if self.own_trigger else "no_trigger",
            self.time_zone.replace("/", "_"),
        ]
        return "-".join(words)


VARIANTS = (
    Variant("timestamp", True, True, True, "UTC"),
    Variant("timestamptz", False, False, False, "UTC"),
    Variant("timestamp", False, False, True, "America/New_York"),
    Variant("timestamptz", True, True, False, "America/New_York"),
    Variant("timestamp", True, False, False, "Asia/Kolkata"),
    Variant("timestamptz", False, True, True, "Asia/Kolkata"),
)
"""Every two values of two different attributes meet in one of them."""


def uncovered_pairs() -> set[tuple[tuple[str, object], tuple[str, object]]]:
    """Pairs of values that no variant has together, out of all that occur."""
    names = [field.name for field in fields(Variant)]
    settings = [{name: getattr(variant, name) for name in names} for variant in VARIANTS]
    covered = {pair for setting in settings for pair in combinations(setting.items(), 2)}
    values = {name: {setting[name] for setting in settings} for name in names}
    wanted = {
        ((one, left), (two, right))
        for one, two in combinations(names, 2)
        for left in values[one]
        for right in values[two]
    }
    return wanted - covered


def create_application_database(connection: Connection, variant: Variant) -> None:
    """Build what the application builds, in an empty database; new sessions see it as it does."""
    database = sql.Identifier(connection.info.dbname)
    zone = sql.Literal(variant.time_zone)
    connection.execute(sql.SQL("ALTER DATABASE {} SET timezone = {}").format(database, zone))
    connection.execute(sql.SQL("SET timezone = {}").format(zone))
    connection.execute(application_tables(variant))


def application_tables(variant: Variant) -> sql.Composed:
    """The application's statements for one variant of its tables."""
    references = "REFERENCES users (id) ON DELETE CASCADE" if variant.user_foreign_key else ""
    return sql.SQL(_TABLES + (_TRIGGER if variant.own_trigger else "")).format(
        time=sql.SQL(variant.timestamps),
        status=sql.SQL(
            "varchar(20) NOT NULL DEFAULT 'pending'"
            " CHECK (status IN ('pending', 'processing', 'completed', 'failed', 'cancelled'))"
            if variant.checked_status
            else "varchar(50) NOT NULL DEFAULT 'pending'"
        ),
        user=sql.SQL(references),
        dimension=sql.Literal(DIMENSION),
    )


# uuid-ossp does not come with the embedded server; a function of the same name stands in.
_TABLES = """
CREATE EXTENSION vector;
CREATE FUNCTION uuid_generate_v4() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()';

CREATE TABLE users (
    id uuid PRIMARY KEY DEFAULT uuid_generate_v4(),
    email varchar(320) NOT NULL UNIQUE,
    password_hash text NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    token_version integer NOT NULL DEFAULT 0,
    created_at {time} DEFAULT now(),
    updated_at {time} DEFAULT now()
);

CREATE TABLE upload_batches (
    id uuid PRIMARY KEY DEFAULT uuid_generate_v4(),
    user_id uuid NOT NULL {user},
    status {status},
    total_uploads integer NOT NULL DEFAULT 0,
    processed_uploads integer NOT NULL DEFAULT 0,
    successful_uploads integer NOT NULL DEFAULT 0,
    failed_uploads integer NOT NULL DEFAULT 0,
    error_message text,
    created_at {time} DEFAULT now(),
    updated_at {time} DEFAULT now(),
    started_at {time},
    completed_at {time}
);
CREATE INDEX idx_upload_batches_user_id ON upload_batches (user_id);
CREATE INDEX idx_upload_batches_status ON upload_batches (status);
CREATE INDEX idx_upload_batches_created_at ON upload_batches (created_at DESC);

CREATE TABLE uploads (
    id uuid PRIMARY KEY DEFAULT uuid_generate_v4(),
    user_id uuid NOT NULL {user},
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
    metadata jsonb DEFAULT '{{}}',
    hidden boolean NOT NULL DEFAULT false,
    regeneration_count integer NOT NULL DEFAULT 0,
    last_regenerated_at {time},
    created_at {time} DEFAULT now(),
    updated_at {time} DEFAULT now(),
    batch_id uuid REFERENCES upload_batches (id) ON DELETE SET NULL
);
CREATE INDEX idx_uploads_batch_id ON uploads (batch_id);
CREATE INDEX idx_uploads_embedding_local ON uploads
    USING hnsw (embedding_local vector_cosine_ops);
GRANT SELECT ON uploads TO PUBLIC;
"""

_TRIGGER = """
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at = now();
    RETURN NEW;
END
$$;
CREATE TRIGGER touch_upload_batches BEFORE UPDATE ON upload_batches
    FOR EACH ROW EXECUTE FUNCTION touch();
"""

Catalogue = frozenset[tuple[str, ...]]
"""Everything in a schema, each thing as (kind, name, what it is)."""


def catalogue(connection: Connection, schema: str = "public") -> Catalogue:
    """Read everything that is in a schema, its owners and privileges included."""
    return frozenset(connection.execute(_CATALOGUE, {"schema": schema}).fetchall())


# Functions of extensions are left out: there are hundreds, and the extension stands for them.
_CATALOGUE = """
WITH relations AS (
    SELECT c.* FROM pg_class AS c WHERE c.relnamespace = %(schema)s::text::regnamespace
)
SELECT 'schema', nspname::text, concat_ws(' ', nspowner::regrole, nspacl)
FROM pg_namespace WHERE nspname = %(schema)s::text
UNION ALL
SELECT 'relation', relname, concat_ws(' ', relkind, relpersistence, relowner::regrole, relacl,
       reloptions, relreplident, relrowsecurity, relispartition, relfilenode)
FROM relations
UNION ALL
SELECT 'column', r.relname || '.' || attname, concat_ws(' ', attnum,
       format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid), attidentity,
       attgenerated, attstorage, attcompression, attstattarget, attcollation, attacl)
FROM pg_attribute AS a JOIN relations AS r ON r.oid = a.attrelid
LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attnum > 0
UNION ALL
SELECT 'constraint', conrelid::regclass || '.' || conname,
       concat_ws(' ', pg_get_constraintdef(oid), convalidated, condeferrable)
FROM pg_constraint WHERE connamespace = %(schema)s::text::regnamespace
UNION ALL
SELECT 'index', i.indexrelid::regclass::text,
       concat_ws(' ', pg_get_indexdef(i.indexrelid), indisvalid, indisunique, indisclustered)
FROM pg_index AS i JOIN relations AS r ON r.oid = i.indexrelid
UNION ALL
SELECT 'trigger', r.relname || '.' || tgname, concat_ws(' ', pg_get_triggerdef(t.oid), tgenabled)
FROM pg_trigger AS t JOIN relations AS r ON r.oid = t.tgrelid
UNION ALL
SELECT 'rule', r.relname || '.' || rulename, pg_get_ruledef(w.oid)
FROM pg_rewrite AS w JOIN relations AS r ON r.oid = w.ev_class
UNION ALL
SELECT 'policy', r.relname || '.' || polname, concat_ws(' ', polcmd, polroles)
FROM pg_policy AS p JOIN relations AS r ON r.oid = p.polrelid
UNION ALL
SELECT 'function', p.oid::regprocedure::text,
       concat_ws(' ', pg_get_functiondef(p.oid), proowner::regrole, proacl)
FROM pg_proc AS p
WHERE pronamespace = %(schema)s::text::regnamespace AND prokind IN ('f', 'p')
  AND NOT EXISTS (
      SELECT FROM pg_depend AS d
      WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
  )
UNION ALL
SELECT 'sequence', sequencename, concat_ws(' ', start_value, increment_by, last_value)
FROM pg_sequences WHERE schemaname = %(schema)s::text
UNION ALL
SELECT 'type', typname, concat_ws(' ', typtype, typowner::regrole, typacl)
FROM pg_type WHERE typnamespace = %(schema)s::text::regnamespace
UNION ALL
SELECT 'comment', concat_ws(' ', classoid::regclass, objoid, objsubid), description
FROM pg_description WHERE objoid IN (SELECT oid FROM relations)
UNION ALL
SELECT 'extension', extname, concat_ws(' ', extversion, extnamespace::regnamespace)
FROM pg_extension
UNION ALL
SELECT 'default privileges', concat_ws(' ', defaclrole::regrole, defaclobjtype), defaclacl::text
FROM pg_default_acl
"""
