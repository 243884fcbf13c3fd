"""Bytes -> safe pixels: probe, decode, thumbnail. No database and no Dagster in here."""
