"""The resources: a batch as JSON, and as a report in Markdown."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError

from vuemantics_pipeline.errors import PipelineError, UsageError
from vuemantics_pipeline.mcp_server.failing import sentence
from vuemantics_pipeline.mcp_server.library import Library
from vuemantics_pipeline.mcp_server.report import batch_detail, batch_report
from vuemantics_pipeline.status.batches import parse_batch_id


def add_resources(server: MCPServer, library: Library) -> None:
    """Add the resource templates to a server."""

    @server.resource(
        "vuemantics://batches/{batch_id}",
        name="batch",
        title="A batch",
        description="How a batch stands, with where its time went: what get_batch returns.",
        mime_type="application/json",
    )
    def batch(batch_id: str) -> str:
        with _errors(), library.connection() as connection:
            document = batch_detail(library, connection, parse_batch_id(batch_id))
        return json.dumps(document, indent=2)

    @server.resource(
        "vuemantics://batches/{batch_id}/report",
        name="batch_report",
        title="Report of a batch",
        description="How a batch stands, where its time went, what failed and why: for a person.",
        mime_type="text/markdown",
    )
    def report(batch_id: str) -> str:
        with _errors(), library.connection() as connection:
            return batch_report(library, connection, parse_batch_id(batch_id))


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        raise ResourceNotFoundError(sentence(error)) from error
    except PipelineError as error:
        raise ResourceError(sentence(error)) from error
