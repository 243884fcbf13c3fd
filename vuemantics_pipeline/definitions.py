"""What Dagster loads."""

from vuemantics_pipeline.orchestration.build import build_definitions

defs = build_definitions()
