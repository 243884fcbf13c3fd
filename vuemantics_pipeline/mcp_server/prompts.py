"""The prompts: questions that people ask of a library again and again."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from mcp.server import MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from pydantic import Field

from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.mcp_server.failing import sentence
from vuemantics_pipeline.mcp_server.words import NOTICE
from vuemantics_pipeline.status.batches import parse_batch_id


def add_prompts(server: MCPServer) -> None:
    """Add the prompts to a server."""

    @server.prompt(
        title="Why did my batch fail?",
        description="Finds out what went wrong with a batch, and what to do about it.",
    )
    def why_did_my_batch_fail(
        batch_id: Annotated[str, Field(description="Id of the batch")],
    ) -> str:
        try:
            key = parse_batch_id(batch_id)
        except UsageError as error:
            raise MCPError(code=INVALID_PARAMS, message=sentence(error)) from error
        return (
            f"Find out why batch {key} failed, or why files in it did.\n\n"
            f"1. Call get_batch for {key}: is it failed, waiting, or completed with failures? Its "
            "error_message says why the batch as a whole stopped.\n"
            "2. Call get_batch_failures: which reasons are there, and how many files of each?\n"
            "3. For the most frequent reason, call explain_upload with one of its examples.\n"
            "4. If the batch does not move at all, call get_pipeline_health.\n\n"
            "Then tell me in plain words what happened, which files it concerns, and what I can "
            f"do about it, the most useful thing first. Change nothing without asking me. {NOTICE}"
        )

    @server.prompt(
        title="Weekly report",
        description="Sums up the last seven days: what was uploaded, what failed, how it runs.",
    )
    def weekly_report() -> str:
        since = (datetime.now(UTC) - timedelta(days=7)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return (
            f"Write a report of the week since {since}.\n\n"
            f"1. Call list_batches with since={since} until there is no next_cursor.\n"
            "2. For every batch with failed uploads, call get_batch_failures.\n"
            "3. For the three largest batches, call get_batch: which stage takes the time?\n"
            "4. Call get_pipeline_health.\n\n"
            "Give the number of batches and files, the share that failed and the reasons by "
            "frequency, how long batches took, and anything that needs attention now. One page, "
            f"figures in a table. {NOTICE}"
        )
