"""The ledger: what happened to every batch and upload, in Postgres and nowhere else.

All SQL on the tables stands in here, in `sql/` (queries by name) and `migrations/`. Every change
of an upload's outcome is one transaction together with its batch's counters, its attempt record
and its progress notification, guarded by the lease of the run that makes it.
"""
