"""Seconds from a batch becoming ready to its run taking it, on the whole stack.

    python benchmarks/start_latency.py [BATCHES]

Starts everything on a home of its own, adds one small batch after another at random moments,
and prints the median and the extremes. No model is asked: the analyzer is `none`.
"""

import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from uuid import UUID

from PIL import Image

from vuemantics_pipeline.home.processes import free_port
from vuemantics_pipeline.home.stack import Address, running_stack
from vuemantics_pipeline.ingest import ingest
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.settings import AnalyzerName, load_settings
from vuemantics_pipeline.status.batches import follow_batch


def main(batches: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.jpg"
        Image.new("RGB", (64, 48), "teal").save(photo)
        settings = load_settings(home=Path(folder) / "home", analyzer=AnalyzerName.NONE)
        with running_stack(settings, ui=Address(free_port())) as stack:
            stack.wait_until_ready()
            with connect(stack.database_url) as connection:
                seconds = []
                for _ in range(batches):
                    time.sleep(random.uniform(0, 5))
                    ingested = ingest(connection, settings, [photo])
                    seconds.append(_seconds_to_start(connection, ingested.batch_id))
    print(f"{batches} batches: median {statistics.median(seconds):.1f} s, ", end="")
    print(f"from {min(seconds):.1f} s to {max(seconds):.1f} s")


def _seconds_to_start(connection: Connection, batch_id: UUID) -> float:
    *_, batch = follow_batch(connection, batch_id)
    assert batch.started_at is not None
    return (batch.started_at - batch.created_at).total_seconds()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
