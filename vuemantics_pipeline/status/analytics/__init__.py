"""Batches, uploads and attempts as pandas DataFrames, and as files.

Each function takes the database first: an open connection, or a DATABASE_URL. Whose role is a
member of `vuemantics_analyst` may read all of it. `materializations` asks Dagster instead.
"""

from vuemantics_pipeline.status.analytics.frames import attempts, batches, stages, uploads
from vuemantics_pipeline.status.analytics.webserver import materializations

__all__ = ["attempts", "batches", "materializations", "stages", "uploads"]
