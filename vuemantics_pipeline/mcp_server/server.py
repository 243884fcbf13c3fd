"""The server: tools, resources and prompts put together."""

from importlib.metadata import version
from typing import Any

from mcp.server import MCPServer
from mcp.server.auth.provider import TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from vuemantics_pipeline.mcp_server.changes import changing_tools
from vuemantics_pipeline.mcp_server.completions import add_completions
from vuemantics_pipeline.mcp_server.library import Library
from vuemantics_pipeline.mcp_server.prompts import add_prompts
from vuemantics_pipeline.mcp_server.resources import add_resources
from vuemantics_pipeline.mcp_server.tools import reading_tools
from vuemantics_pipeline.mcp_server.words import NOTICE

INSTRUCTIONS = (
    "Vuemantics is a smart camera roll: people upload photos and videos in batches, a pipeline "
    "describes each file, and search finds files by meaning. Begin with list_batches, search_media "
    "or get_pipeline_health; the ids they give are what the other tools ask for. " + NOTICE
)


class Server(MCPServer):
    """The SDK's server, to which a wrong call of a prompt is the client's error, not its own."""

    async def get_prompt(
        self, name: str, arguments: dict[str, Any] | None = None, context: Any = None
    ) -> Any:
        try:
            return await super().get_prompt(name, arguments, context)
        except ValueError as error:
            raise MCPError(
                code=INVALID_PARAMS,
                message=f"{error}. prompts/list names the prompts and their arguments.",
            ) from error


def build_server(
    library: Library,
    *,
    allow_changes: bool,
    auth: AuthSettings | None = None,
    token_verifier: TokenVerifier | None = None,
) -> MCPServer:
    """Return a server over a library.

    Args:
        allow_changes: list the tools that change something as well.
        auth, token_verifier: whom to let in over HTTP.
    """
    tools = reading_tools(library)
    if allow_changes:
        tools += changing_tools(library)
    server = Server(
        "vuemantics",
        title="Vuemantics",
        description="Batches, media and health of a Vuemantics photo library.",
        instructions=INSTRUCTIONS,
        version=version("vuemantics-pipeline"),
        tools=tools,
        auth=auth,
        token_verifier=token_verifier,
        log_level="WARNING",
        subscriptions=False,
    )
    add_resources(server, library)
    add_prompts(server)
    add_completions(server, library)
    return server
