"""Percent of an upload, and the messages in the application's words."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vuemantics_pipeline.ledger.records import Batch, BatchStatus, Stage
from vuemantics_pipeline.progress.messages import (
    Message,
    batch_message,
    file_message,
    text,
    upload_message,
)
from vuemantics_pipeline.status.percent import percent
from vuemantics_pipeline.status.progress import BatchProgress, UploadProgress

USER, BATCH, UPLOAD = UUID(int=1), UUID(int=2), UUID(int=3)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

IN_HAND = UploadProgress(
    upload_id=UPLOAD,
    batch_id=BATCH,
    user_id=USER,
    filename="clip.mp4",
    file_size=1234,
    file_type="video",
    processing_status="analyzing",
    stage="vision_analysis",
    progress_percent=33,
    frames_done=3,
    frames_total=10,
    attempts=1,
    description=None,
    description_audit_score=None,
    error_message=None,
    thumbnail_path=None,
    created_at=NOW,
    seq=7,
)
COMPLETED = replace(
    IN_HAND,
    processing_status="completed",
    stage="completed",
    progress_percent=100,
    description="A boat.",
    description_audit_score=80,
)
FAILED = replace(
    IN_HAND,
    processing_status="failed",
    stage="failed",
    progress_percent=100,
    error_message="The file is damaged.",
)


def told(message: Message) -> list[dict[str, Any]]:
    """What a message says, without its times, which are those of now."""
    bodies = [json.loads(text) for text in message.texts]
    for body in bodies:
        moment = datetime.fromisoformat(body.pop("timestamp"))
        assert abs((datetime.now(UTC) - moment).total_seconds()) < 60
    return bodies


@pytest.mark.parametrize(
    ("reached", "frame_share", "expected"),
    [
        ([], 0, 0),
        ([Stage.QUEUED], 0, 0),
        ([Stage.EXTRACTING_FRAMES], 0, 5),
        ([Stage.VISION_ANALYSIS], 0, 15),
        ([Stage.VISION_ANALYSIS], 0.3, 33),
        ([Stage.VISION_ANALYSIS], 1, 75),
        ([Stage.VISION_ANALYSIS], 7, 75),
        ([Stage.DESCRIPTION_AUDIT], 1, 75),
        ([Stage.EMBEDDING_GENERATION], 1, 80),
        ([Stage.INDEXING], 1, 95),
        # The frames of an attempt that came further do not count for one that did not.
        ([Stage.EXTRACTING_FRAMES], 0.5, 5),
        # A description that is asked for again, and a second attempt.
        ([Stage.VISION_ANALYSIS, Stage.DESCRIPTION_AUDIT], 0.1, 75),
        ([Stage.QUEUED, Stage.EMBEDDING_GENERATION], 0, 80),
    ],
)
def test_percent(reached: list[Stage], frame_share: float, expected: int) -> None:
    assert percent(reached, frame_share) == expected


@given(
    st.lists(st.sampled_from(list(Stage))),
    st.sampled_from(list(Stage)),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_percent_never_goes_down(reached: list[Stage], more: Stage, one: float, two: float) -> None:
    before = percent(reached, min(one, two))
    assert before <= percent([*reached, more], max(one, two)) < 100


def test_batch_progress() -> None:
    batch = Batch(BATCH, USER, BatchStatus.PROCESSING, 3, 2, 1, 1, None, NOW, NOW, None)
    message = batch_message(BatchProgress(batch, 9, 4, 12.5))
    assert (message.channel, message.is_summary) == (f"user:{USER}", True)
    assert told(message) == [
        {
            "action": "batch_progress",
            "payload": {
                "batch_id": str(BATCH),
                "status": "processing",
                "total": 3,
                "processed": 2,
                "successful": 1,
                "failed": 1,
                "progress_percentage": 66.7,
                "error_message": None,
                "seconds_to_finish": 12.5,
                "seq": 9,
            },
        }
    ]


@pytest.mark.parametrize(
    ("upload", "status", "percentage"),
    [
        (IN_HAND, "processing", 33),
        (replace(IN_HAND, processing_status="pending", stage="queued"), "processing", 33),
        (COMPLETED, "completed", 100),
        (FAILED, "failed", 100),
    ],
)
def test_file_progress(upload: UploadProgress, status: str, percentage: int) -> None:
    message = file_message(upload)
    assert message.channel == f"user:{USER}"
    assert told(message) == [
        {
            "action": "file_progress",
            "payload": {
                "batch_id": str(BATCH),
                "upload_id": str(UPLOAD),
                "file_name": "clip.mp4",
                "file_size": 1234,
                "progress_percentage": percentage,
                "status": status,
                "stage": upload.stage,
                "error_message": upload.error_message,
                "seq": 7,
            },
        }
    ]


def test_upload_progress() -> None:
    message = upload_message(IN_HAND)
    assert message.channel == f"upload:{UPLOAD}"
    assert told(message) == [
        {
            "action": "upload_progress",
            "payload": {
                "upload_id": str(UPLOAD),
                "status": "analyzing",
                "stage": "vision_analysis",
                "progress_percent": 33,
                "message": "Looking at it: frame 3 of 10 described",
                "error_message": None,
                "description_audit_score": None,
            },
        }
    ]


def test_upload_completed() -> None:
    progress, ended = told(upload_message(COMPLETED))
    assert (
        progress["payload"] | {"stage": "completed", "status": "completed"} == (progress["payload"])
    )
    assert progress["payload"]["description_audit_score"] == 80
    assert ended == {
        "action": "upload_completed",
        "upload_id": str(UPLOAD),
        "description": "A boat.",
        "audit_score": 80,
    }


def test_upload_failed() -> None:
    progress, ended = told(upload_message(FAILED))
    assert progress["payload"]["error_message"] == "The file is damaged."
    assert ended == {
        "action": "upload_failed",
        "upload_id": str(UPLOAD),
        "error_message": "The file is damaged.",
    }


@pytest.mark.parametrize("stage", [*Stage, "completed", "failed"])
def test_every_stage_has_words(stage: str) -> None:
    (progress, *_) = told(upload_message(replace(IN_HAND, stage=stage, frames_total=None)))
    assert progress["payload"]["message"]


def test_file_names_of_any_kind() -> None:
    name = '"<b>\u2028\n🚤'
    (body,) = told(file_message(replace(IN_HAND, filename=name)))
    assert body["payload"]["file_name"] == name
    assert text("ping").startswith('{"action": "ping"')
