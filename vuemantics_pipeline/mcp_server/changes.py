"""The tools that change something: listed only where `--allow-changes` is given."""

from dataclasses import dataclass
from typing import Annotated, Literal

from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult
from pydantic import Field

from vuemantics_pipeline.ledger import batches, reruns
from vuemantics_pipeline.ledger.records import Scope
from vuemantics_pipeline.mcp_server import outputs
from vuemantics_pipeline.mcp_server.library import Library
from vuemantics_pipeline.mcp_server.tools import BatchId, answer, tool
from vuemantics_pipeline.mcp_server.words import counted
from vuemantics_pipeline.status.batches import get_batch, parse_batch_id
from vuemantics_pipeline.status.documents import batch_document


@dataclass(frozen=True)
class ChangingTools:
    """Tools that run batches again and cancel them."""

    library: Library

    def retry_batch(
        self,
        batch_id: BatchId,
        scope: Annotated[
            Literal["unfinished", "failed", "all"],
            Field(description="Files to take up: those unfinished, the failed as well, or all"),
        ] = "unfinished",
        dry_run: Annotated[
            bool, Field(description="Only say how many files that would be; change nothing")
        ] = False,
    ) -> Annotated[CallToolResult, outputs.Retry]:
        """Run a batch again: the pipeline takes it up by itself within seconds.

        Call it with `dry_run` first, and tell the person how many files it takes up. With the
        scope `all`, finished files are described anew, and new descriptions replace the old.
        """
        with self.library.connection() as connection:
            key = parse_batch_id(batch_id)
            batch = get_batch(connection, key, user_id=self.library.user_id)
            take_up = reruns.count_scope if dry_run else reruns.retry
            count = take_up(connection, batch.batch_id, Scope(scope))
        would = "would be taken up" if dry_run else "will be taken up by the next run"
        return answer(
            {
                "batch_id": str(batch.batch_id),
                "scope": scope,
                "uploads": count,
                "dry_run": dry_run,
            },
            f"{counted(count, 'upload', 'uploads')} of batch {batch.batch_id} {would}."
            if count
            else f"Batch {batch.batch_id} has no uploads in this scope; nothing was changed.",
        )

    def cancel_batch(self, batch_id: BatchId) -> Annotated[CallToolResult, outputs.Cancellation]:
        """Stop a batch after the file in hand. What is done is kept, and retry_batch goes on.

        Ask the person before you call it.
        """
        with self.library.connection() as connection:
            key = parse_batch_id(batch_id)
            batch = get_batch(connection, key, user_id=self.library.user_id)
            cancelled = batches.cancel(
                connection, batch.batch_id, message="Cancelled by an assistant over MCP."
            )
            now = get_batch(connection, batch.batch_id)
        return answer(
            {"cancelled": cancelled} | batch_document(now),
            f"Batch {now.batch_id} is cancelled with {now.processed_uploads} of "
            f"{now.total_uploads} uploads done."
            if cancelled
            else f"Batch {now.batch_id} is {now.status} already; nothing was changed.",
        )


def changing_tools(library: Library) -> list[Tool]:
    """All tools that change something, in the order they are listed."""
    tools = ChangingTools(library)
    return [
        tool(
            tools.retry_batch,
            "Run a batch again",
            read_only=False,
            destructive=True,
            idempotent=False,
        ),
        tool(tools.cancel_batch, "Cancel a batch", read_only=False, destructive=True),
    ]
