"""A Dagster pipeline that processes bulk uploads for Vuemantics, batch by batch."""
