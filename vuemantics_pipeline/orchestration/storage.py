"""Dagster's own storage on Postgres, with connections that are kept.

dagster-postgres opens a new connection for every event. Here each of its three storages keeps a
small pool instead, and looks whether a connection still lives before it uses it, so that a
restart of Postgres in the middle of a run goes unnoticed.
"""

from collections.abc import Mapping
from typing import Any, Self

import sqlalchemy
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import pg_url_from_config

_POOL: Mapping[str, Any] = {
    "isolation_level": "AUTOCOMMIT",
    "pool_size": 1,
    "max_overflow": 10,
    "pool_pre_ping": True,
    "pool_recycle": 3600,
}


class PooledPostgresStorage(DagsterPostgresStorage):
    """`DagsterPostgresStorage` on pooled engines; named in dagster.yaml under `storage: custom`."""

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        super().__init__(postgres_url, should_autocreate_tables, inst_data)
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage._engine.dispose()
            storage._engine = sqlalchemy.create_engine(postgres_url, **_POOL)

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        return cls(
            pg_url_from_config(config_value),
            config_value.get("should_autocreate_tables", True),
            inst_data,
        )
