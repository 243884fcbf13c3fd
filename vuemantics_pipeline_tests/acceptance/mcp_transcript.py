"""Prints a session of an MCP client with a real library, as docs/mcp.md shows it.

vuemantics demo --home HOME --once
python -m vuemantics_pipeline_tests.acceptance.mcp_transcript HOME
"""

import sys

import anyio
from mcp import Client, StdioServerParameters
from mcp_types import CallToolResult

from vuemantics_pipeline_tests.acceptance.conftest import COMMAND


async def main(home: str) -> None:
    """Ask what an assistant asks when somebody looks for a photo and then for the pipeline."""
    server = StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], "mcp", "--home", home])
    async with Client(server) as client:

        async def call(name: str, **arguments: object) -> CallToolResult:
            given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
            print(f"> {name}({given})\n")
            result = await client.call_tool(name, arguments)
            for content in result.content:
                print(getattr(content, "text", f"[{getattr(content, 'mime_type', '')}]"))
            print()
            return result

        listed = await call("list_batches", limit=1, fields=["status", "total_uploads"])
        assert listed.structured_content is not None
        batch_id = listed.structured_content["batches"][0]["batch_id"]
        await call("get_batch", batch_id=batch_id)
        await call("search_media", text="a dog", limit=1, include_thumbnails=True)
        await call("get_batch_failures", batch_id=batch_id)
        await call("get_pipeline_health")
        await call("get_batch", batch_id="the last one")


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
