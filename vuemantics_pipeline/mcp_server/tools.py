"""The tools that read. Their docstrings are what a model is told about them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from inspect import getdoc
from typing import Annotated, Any, Literal
from uuid import UUID

from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, ImageContent, TextContent, ToolAnnotations
from pydantic import Field

from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.ingestion import find_user
from vuemantics_pipeline.ledger.records import Batch, BatchStatus, FileType
from vuemantics_pipeline.mcp_server import outputs
from vuemantics_pipeline.mcp_server.failing import CheckedTool
from vuemantics_pipeline.mcp_server.library import Library
from vuemantics_pipeline.mcp_server.report import batch_detail
from vuemantics_pipeline.mcp_server.thumbnails import thumbnail
from vuemantics_pipeline.mcp_server.words import NOTICE, counted, item, named
from vuemantics_pipeline.status.batches import (
    Outcome,
    get_batch,
    list_batches,
    list_failures,
    list_uploads,
    parse_batch_id,
)
from vuemantics_pipeline.status.documents import (
    Document,
    batch_document,
    explanation_document,
    failures_document,
    health_document,
    search_document,
    upload_document,
)
from vuemantics_pipeline.status.explain import explain_upload, group_failures, parse_upload_id
from vuemantics_pipeline.status.health import pipeline_health
from vuemantics_pipeline.status.paging import Position, page_of, parse_cursor
from vuemantics_pipeline.status.search import MAX_TEXT_LENGTH, search

_EXAMPLES = 3
_PICTURES = 10
_VIOLATIONS = 20

BatchId = Annotated[str, Field(description="Id of a batch, from list_batches", max_length=64)]
UploadId = Annotated[
    str,
    Field(description="Id of an upload, from list_batch_uploads or search_media", max_length=64),
]
Cursor = Annotated[
    str | None,
    Field(description="`next_cursor` of the page before; leave out for the first", max_length=200),
]
Limit = Annotated[int, Field(description="How many at most", ge=1, le=100)]


@dataclass(frozen=True)
class ReadingTools:
    """Tools that change nothing."""

    library: Library

    def list_batches(
        self,
        status: Annotated[
            outputs.BatchStatusName | None, Field(description="Only batches with this status")
        ] = None,
        user: Annotated[
            str | None,
            Field(description="Only batches of this user: id or e-mail address", max_length=320),
        ] = None,
        since: Annotated[
            datetime | None,
            Field(description="Only batches created then or later: ISO 8601, UTC if without zone"),
        ] = None,
        limit: Limit = 20,
        cursor: Cursor = None,
        fields: Annotated[
            list[outputs.BatchField] | None,
            Field(description="Return only these, and the batch_id; leave out for all"),
        ] = None,
    ) -> Annotated[CallToolResult, outputs.BatchPage]:
        """List batches of uploaded photos and videos, the newest first.

        Use it to find the id of a batch, or to see what was uploaded since a date, what is
        running, or what failed. `next_cursor` leads to the next page, with the same filters.
        """
        position = None if cursor is None else parse_cursor(cursor)
        with self.library.connection() as connection:
            batches = list_batches(
                connection,
                status=None if status is None else BatchStatus(status),
                user_id=self._user_id(connection, user),
                since=None if since is None else _with_zone(since),
                position=position,
                limit=limit + 1,
            )
        page, next_cursor = page_of(
            batches, limit, lambda batch: Position(batch.created_at, batch.batch_id)
        )
        documents = [_selected(batch_document(batch), fields) for batch in page]
        return answer(
            {"batches": documents, "next_cursor": next_cursor},
            f"{counted(len(page), 'batch', 'batches')}, the newest first.",
            *map(item, documents),
            *_more(next_cursor),
        )

    def get_batch(self, batch_id: BatchId) -> Annotated[CallToolResult, outputs.BatchDetail]:
        """Tell how one batch stands: counters, where its time goes, and how long it takes still.

        `run_url` leads the operator to the run in the Dagster UI. For the reasons of failed
        uploads call get_batch_failures.
        """
        with self.library.connection() as connection:
            document = batch_detail(self.library, connection, parse_batch_id(batch_id))
        stages = document["stages"]
        assert isinstance(stages, list)
        return answer(document, named(document), *map(item, stages))

    def list_batch_uploads(
        self,
        batch_id: BatchId,
        outcome: Annotated[
            Literal["completed", "failed", "unfinished"] | None,
            Field(description="Only uploads with this outcome"),
        ] = None,
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> Annotated[CallToolResult, outputs.UploadPage]:
        """List the files of a batch in the order they were added, with description or error.

        For one file in depth call explain_upload.
        """
        position = None if cursor is None else parse_cursor(cursor)
        with self.library.connection() as connection:
            batch = self._batch(connection, batch_id)
            uploads = list_uploads(
                connection,
                batch.batch_id,
                outcome=None if outcome is None else Outcome(outcome),
                position=position,
                limit=limit + 1,
            )
        page, next_cursor = page_of(
            uploads, limit, lambda upload: Position(upload.created_at, upload.upload_id)
        )
        documents = [upload_document(upload) for upload in page]
        return answer(
            {"batch_id": str(batch.batch_id), "uploads": documents, "next_cursor": next_cursor},
            f"{counted(len(page), 'upload', 'uploads')} of batch {batch.batch_id}.",
            *map(item, documents),
            *_more(next_cursor),
        )

    def get_batch_failures(
        self, batch_id: BatchId
    ) -> Annotated[CallToolResult, outputs.BatchFailures]:
        """Tell why files of a batch failed: grouped by reason, with a remedy and example files.

        Use it first when somebody asks what went wrong with a batch. A batch that itself failed
        or waits says why in the `error_message` of get_batch.
        """
        with self.library.connection() as connection:
            batch = self._batch(connection, batch_id)
            groups = group_failures(list_failures(connection, batch.batch_id))
        documents = failures_document(groups, _EXAMPLES)
        failed = sum(len(group.failures) for group in groups)
        lines = [f"{counted(failed, 'upload', 'uploads')} of batch {batch.batch_id} failed."]
        for group, document in zip(groups, documents, strict=True):
            lines.append(item(document))
            lines += [f"  {item(vars(one))}" for one in group.failures[:_EXAMPLES]]
        return answer(
            {"batch_id": str(batch.batch_id), "failed_uploads": failed, "groups": documents},
            *lines,
        )

    def explain_upload(
        self,
        upload_id: UploadId,
        include_thumbnail: Annotated[
            bool, Field(description="Return the picture as well, at most 256 pixels a side")
        ] = False,
    ) -> Annotated[CallToolResult, outputs.UploadExplanation]:
        """Tell everything about one file: each try, its stages and error, and what to do now."""
        with self.library.connection() as connection:
            explanation = explain_upload(
                connection, parse_upload_id(upload_id), user_id=self.library.user_id
            )
        document = explanation_document(explanation, self.library.run_url)
        attempts = document["attempts"]
        assert isinstance(attempts, list)
        pictures = self._pictures([explanation.upload.thumbnail_path] if include_thumbnail else [])
        return answer(document, named(document), *map(item, attempts), pictures=pictures)

    def search_media(
        self,
        text: Annotated[
            str,
            Field(
                description="What the photo or video shows, in plain words",
                min_length=1,
                max_length=MAX_TEXT_LENGTH,
            ),
        ],
        limit: Annotated[int, Field(description="How many at most", ge=1, le=50)] = 10,
        type: Annotated[
            Literal["image", "video"] | None, Field(description="Only images, or only videos")
        ] = None,
        include_thumbnails: Annotated[
            bool, Field(description="Return pictures of the best 10 hits as well, in their order")
        ] = False,
    ) -> Annotated[CallToolResult, outputs.SearchResult]:
        """Find photos and videos by meaning, the closest first.

        Words that can be read in a picture and the year it was taken in count, too. There is
        always a closest hit: judge by description and score whether it is what was asked for.
        """
        with self.library.analyzer() as analyzer, self.library.connection() as connection:
            hits = search(
                connection,
                analyzer,
                text,
                application_model=self.library.settings.embedding_model,
                limit=limit,
                user_id=self.library.user_id,
                file_type=None if type is None else FileType(type),
            )
        documents = search_document(hits)
        shown = hits[:_PICTURES] if include_thumbnails else []
        return answer(
            {"hits": documents},
            f"{counted(len(hits), 'hit', 'hits')}, the closest first.",
            *map(item, documents),
            pictures=self._pictures([hit.thumbnail_path for hit in shown]),
        )

    def get_pipeline_health(self) -> Annotated[CallToolResult, outputs.PipelineHealth]:
        """Tell whether the pipeline is well: queue, running batch, model, sensor and audit.

        Use it when batches do not move. `problems` says what is wrong and what to do.
        """
        with self.library.analyzer() as analyzer, self.library.connection() as connection:
            health = pipeline_health(connection, analyzer, user_id=self.library.user_id)
        document: dict[str, Any] = health_document(health)
        for batch in document["running"]:
            batch["run_url"] = self.library.run_url(batch["run_id"])
        document["audit"]["violations"] = document["audit"]["violations"][:_VIOLATIONS]
        sensor = document["sensor"]
        return answer(
            document,
            "All is well."
            if document["ok"]
            else f"{counted(len(health.problems), 'problem', 'problems')}.",
            *(f"- {problem}" for problem in health.problems),
            f"Queue: {named(document['queue'])}",
            *(f"Running: {named(batch)}" for batch in document["running"]),
            f"Backend: {named(document['backend'])}",
            "Sensor: it has not run yet." if sensor is None else f"Sensor: {named(sensor)}",
            f"Audit: {named(document['audit'])}",
        )

    def _batch(self, connection: Connection, batch_id: str) -> Batch:
        return get_batch(connection, parse_batch_id(batch_id), user_id=self.library.user_id)

    def _user_id(self, connection: Connection, user: str | None) -> UUID | None:
        """Return whose batches are asked for.

        Raises:
            UsageError: code 'no_such_user'; for a server of one user, every other.
        """
        own = self.library.user_id
        if user is None or user == str(own):
            return own
        if own is None:
            try:
                return find_user(connection, user.replace("\0", ""))
            except UsageError:
                pass  # its message repeats what may be an e-mail address
        raise UsageError("no_such_user", "There is no such user here.")

    def _pictures(self, paths: Sequence[str | None]) -> list[ImageContent]:
        root, user_id = self.library.settings.uploads, self.library.user_id
        found = (thumbnail(root, path, user_id=user_id) for path in paths)
        return [picture for picture in found if picture is not None]


def answer(
    document: Document, *lines: str, pictures: Sequence[ImageContent] = ()
) -> CallToolResult:
    """A tool's result: the document as structured content, the lines as its short text."""
    text = "\n".join(lines)
    if "<data>" in text:
        text = f"{text}\n{NOTICE}"
    return CallToolResult(
        content=[TextContent(type="text", text=text), *pictures], structured_content=document
    )


def tool(
    function: Callable[..., CallToolResult],
    title: str,
    *,
    read_only: bool = True,
    destructive: bool = False,
    idempotent: bool = True,
) -> Tool:
    """A tool named after its function, described by its docstring, with all four hints."""
    made = CheckedTool.from_function(
        function,
        title=title,
        description=getdoc(function),
        annotations=ToolAnnotations(
            read_only_hint=read_only,
            destructive_hint=destructive,
            idempotent_hint=idempotent,
            open_world_hint=False,  # one library, and nothing of the outside world
        ),
    )
    made.parameters["additionalProperties"] = False
    return made


def reading_tools(library: Library) -> list[Tool]:
    """All tools that read, in the order they are listed."""
    tools = ReadingTools(library)
    return [
        tool(tools.list_batches, "List batches"),
        tool(tools.get_batch, "How a batch stands"),
        tool(tools.list_batch_uploads, "List the files of a batch"),
        tool(tools.get_batch_failures, "Why files of a batch failed"),
        tool(tools.explain_upload, "Explain one file"),
        tool(tools.search_media, "Search photos and videos"),
        tool(tools.get_pipeline_health, "Health of the pipeline"),
    ]


def _selected(document: Document, fields: Sequence[str] | None) -> Document:
    if fields is None:
        return document
    return {name: value for name, value in document.items() if name == "batch_id" or name in fields}


def _more(next_cursor: str | None) -> list[str]:
    return [] if next_cursor is None else [f"There are more: cursor {next_cursor}"]


def _with_zone(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
