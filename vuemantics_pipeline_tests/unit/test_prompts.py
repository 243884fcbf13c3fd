"""prompts: a description says which wording it answers, by the version."""

import hashlib

from vuemantics_pipeline.analysis.prompts import (
    DESCRIBE_IMAGE,
    PROMPT_VERSION,
    FrameNote,
    describe_frame,
    describe_video,
)

NOTES = [FrameNote(0.5, "A dog runs."), FrameNote(1.5, "A dog jumps.")]


def test_no_wording_changes_without_its_version() -> None:
    """When this fails, raise PROMPT_VERSION and put both here."""
    wording = "\n".join(
        [
            DESCRIBE_IMAGE,
            describe_frame(1, 2, 0.5),
            describe_frame(1, 2, None),
            describe_video(NOTES, 2.0),
            describe_video(NOTES, None),
        ]
    )
    digest = hashlib.sha256(wording.encode()).hexdigest()[:16]

    assert (PROMPT_VERSION, digest) == ("2", "302784b61064d226")
