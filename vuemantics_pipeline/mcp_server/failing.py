"""Errors as a model reads them: what is wrong with the call, and what to do instead."""

from typing import Any

from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from pydantic import ValidationError

from vuemantics_pipeline.errors import PipelineError
from vuemantics_pipeline.printable import printable

# Where the command line would name a command, a model is told the tool.
_REMEDIES = {
    "no_such_batch": "list_batches gives the ids of the batches there are.",
    "no_such_upload": "list_batch_uploads and search_media give ids of uploads.",
    "batch_is_processed": "Wait for its end, or call cancel_batch first.",
    "no_such_user": "Leave `user` out, or ask the person for the right id.",
}
# What was given instead of an id is not repeated: it may be an e-mail address.
_SENTENCES = {
    "not_a_batch_id": "That is not a batch id. list_batches gives those there are.",
    "not_an_upload_id": "That is not an upload id. list_batch_uploads and search_media give those.",
}


class CheckedTool(Tool):
    """A tool that refuses arguments it does not know, and tells errors in sentences.

    A misspelt `dry_run` that is silently left out would change what it was to leave alone.
    """

    async def run(
        self, arguments: dict[str, Any], context: Any, convert_result: bool = False
    ) -> Any:
        known = self.parameters["properties"]
        unknown = sorted(arguments.keys() - known.keys())
        if unknown:
            raise ToolError(
                f"{self.name} has no argument {printable(unknown[0][:50])!r}. "
                f"It takes: {', '.join(known) or 'none'}."
            )
        try:
            return await super().run(arguments, context, convert_result)
        except ToolError as error:
            match error.__cause__:
                case PipelineError() as cause:
                    raise ToolError(sentence(cause)) from cause
                case ValidationError() as cause:
                    raise ToolError(
                        f"{self.name}: {_problems(cause)} Correct that and call again."
                    ) from cause
                case cause:
                    raise UnexpectedToolError(
                        f"{self.name} failed for a reason that is not in the call. "
                        "The server's log says why; get_pipeline_health may, too."
                    ) from cause


def sentence(error: PipelineError) -> str:
    """What happened and what to do, on one line."""
    whole = f"{error.message} {_REMEDIES.get(error.code, error.remedy)}".strip()
    return _SENTENCES.get(error.code) or printable(whole)


def _problems(error: ValidationError) -> str:
    """Every argument that does not fit its schema, without repeating what it was."""
    return " ".join(
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}."
        for problem in error.errors(include_input=False, include_url=False, include_context=False)
    )
