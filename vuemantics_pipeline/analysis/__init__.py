"""Pixels -> description, score and vector. No database and no Dagster in here."""
