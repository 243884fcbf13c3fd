"""Completions: the newest batches, while a person types the id of one."""

from anyio.to_thread import run_sync
from mcp.server import MCPServer
from mcp_types import (
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
)

from vuemantics_pipeline.errors import PipelineError
from vuemantics_pipeline.mcp_server.library import Library
from vuemantics_pipeline.status.batches import list_batches

_MOST = 100  # the protocol's own limit


def add_completions(server: MCPServer, library: Library) -> None:
    """Add completions of batch ids to a server."""

    def newest(prefix: str) -> list[str]:
        try:
            with library.connection() as connection:
                batches = list_batches(connection, user_id=library.user_id, limit=_MOST)
        except PipelineError:
            return []
        ids = (str(batch.batch_id) for batch in batches)
        return [key for key in ids if key.startswith(prefix.lower())]

    async def complete(
        ref: PromptReference | ResourceTemplateReference,  # noqa: ARG001
        argument: CompletionArgument,
        context: CompletionContext | None,  # noqa: ARG001
    ) -> Completion | None:
        if argument.name != "batch_id":
            return None
        return Completion(values=await run_sync(newest, argument.value))

    server.completion()(complete)  # type: ignore[no-untyped-call]  # the SDK left its types out
