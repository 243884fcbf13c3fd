"""The embedded defaults: a local Postgres, sample photos, the processes `vuemantics up` runs."""
