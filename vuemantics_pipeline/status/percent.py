"""How far an upload has come, in percent: of stages really reached and frames really described.

The shares follow what a stage costs. The vision model takes nearly all of the time, so its stage
has the widest span, and within it a video moves with each frame described. Reading, embedding
and storing are short, so that the bar does not seem to hang before or after the model.

| Reached | Percent |
| --- | --- |
| `queued` | 0 |
| `extracting_frames` | 5 |
| `vision_analysis` | 15, and up to 75 with the share of frames described |
| `description_audit` | 75 |
| `embedding_generation` | 80 |
| `indexing` | 95 |
| completed or failed | 100 |
"""

from collections.abc import Iterable

from vuemantics_pipeline.ledger.records import Stage

DONE = 100

_AT = {
    Stage.QUEUED: 0,
    Stage.EXTRACTING_FRAMES: 5,
    Stage.VISION_ANALYSIS: 15,
    Stage.DESCRIPTION_AUDIT: 75,
    Stage.EMBEDDING_GENERATION: 80,
    Stage.INDEXING: 95,
}
_FRAMES = _AT[Stage.DESCRIPTION_AUDIT] - _AT[Stage.VISION_ANALYSIS]


def percent(reached: Iterable[Stage], frame_share: float = 0) -> int:
    """Return 0-95 for an upload that has not ended.

    It never goes down while more is reached: a description that is asked for again goes back from
    the audit to the model, and a second attempt begins at the beginning, yet the first got as far
    as it got.

    Args:
        reached: every stage that any attempt of this life of the upload has reached.
        frame_share: frames described, of all the video's, 0-1; of the attempt that came furthest.
    """
    furthest = max((_AT[stage] for stage in reached), default=0)
    if furthest == _AT[Stage.VISION_ANALYSIS]:
        furthest += int(_FRAMES * min(max(frame_share, 0), 1))
    return furthest
