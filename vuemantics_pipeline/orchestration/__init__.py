"""Dagster, and nothing but Dagster: one module per kind. No SQL, no pixels in here."""
