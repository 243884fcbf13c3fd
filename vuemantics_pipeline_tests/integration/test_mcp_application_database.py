"""The MCP tools on the application's own database, in each of its variants."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from pydantic import SecretStr

from vuemantics_pipeline.analysis.constant import ConstantAnalyzer
from vuemantics_pipeline.ledger.connection import connect
from vuemantics_pipeline.ledger.migrate import migrate
from vuemantics_pipeline.ledger.vectors import claim_space
from vuemantics_pipeline.mcp_server.library import Library
from vuemantics_pipeline.mcp_server.server import build_server
from vuemantics_pipeline.settings import AnalyzerName, load_settings
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.integration.application_schemas import (
    DIMENSION,
    VARIANTS,
    Variant,
    create_application_database,
)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_tool_on_every_variant(database_url: str, tmp_path: Path, variant: Variant) -> None:
    settings = load_settings(
        home=tmp_path,
        upload_path=tmp_path,
        analyzer=AnalyzerName.NONE,
        embedding_dimensions=DIMENSION,
    ).model_copy(update={"database_url": SecretStr(database_url)})
    analyzer = ConstantAnalyzer(DIMENSION)
    with connect(database_url) as connection:
        create_application_database(connection, variant)
    with connect(database_url) as connection:
        migrate(connection, dimension=DIMENSION)
        claim_space(connection, analyzer.identity, application_model=settings.embedding_model)
        user_id = support.add_user(connection)
        files = {"a.jpg": support.photo(), "bad.jpg": b"no photo", "c.jpg": support.photo()}
        batches = [
            support.add_batch(connection, user_id, files=files, uploads_root=tmp_path)
            for _ in range(3)
        ]
        support.run_batch(connection, batches[0].batch_id, tmp_path, analyzer)
    minutes_ago = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()
    soon = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    key = str(batches[0].batch_id)

    async def ask() -> None:
        server = build_server(Library(settings, user_id, ""), allow_changes=True)
        async with Client(server) as client:

            async def told(name: str, **arguments: object) -> Any:
                result = await client.call_tool(name, arguments)
                assert not result.is_error, result.content
                assert result.structured_content is not None
                return result.structured_content

            async def pages(name: str, part: str, id_: str, **arguments: object) -> list[str]:
                found: list[str] = []
                cursor: dict[str, str] = {}
                while True:
                    page = await told(name, limit=1, **arguments, **cursor)
                    found += [row[id_] for row in page[part]]
                    if page["next_cursor"] is None:
                        return found
                    cursor = {"cursor": page["next_cursor"]}

            ids = await pages("list_batches", "batches", "batch_id", since=minutes_ago)
            assert ids == [str(batch.batch_id) for batch in reversed(batches)]
            assert (await told("list_batches", since=soon))["batches"] == []
            names = await pages("list_batch_uploads", "uploads", "filename", batch_id=key)
            assert names == list(files)
            assert (await told("get_batch", batch_id=key))["status"] == "completed"
            assert (await told("get_batch_failures", batch_id=key))["failed_uploads"] == 1
            for upload_id in batches[0].uploads.values():
                assert (await told("explain_upload", upload_id=str(upload_id)))["what_to_do"]
            assert len((await told("search_media", text="a photo"))["hits"]) == 2
            queue = (await told("get_pipeline_health"))["queue"]
            assert (queue["pending_batches"], queue["unfinished_uploads"]) == (2, 6)
            again = await told("retry_batch", batch_id=key, scope="all", dry_run=True)
            assert again["uploads"] == 3
            assert (await told("cancel_batch", batch_id=str(batches[1].batch_id)))["cancelled"]

    anyio.run(ask)
