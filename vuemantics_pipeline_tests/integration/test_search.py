"""Search by meaning on the very column the application searches."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from PIL import Image

from vuemantics_pipeline.analysis.analyzer import (
    AnalyzerIdentity,
    Description,
    Label,
    OnFrame,
    unheard,
)
from vuemantics_pipeline.analysis.constant import ConstantAnalyzer
from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.ingest import ingest
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.media.probe import MediaInfo
from vuemantics_pipeline.settings import Settings
from vuemantics_pipeline.status.documents import search_document
from vuemantics_pipeline.status.search import SearchHit, search

from .conftest import DIMENSION

RunBatch = Callable[..., None]
MakePhoto = Callable[..., Path]

_COLOURS = {"red": (255, 0, 0), "orange": (255, 128, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class ColourAnalyzer:
    """Names the colour of a picture; its vectors are the colours themselves."""

    identity = AnalyzerIdentity("colours", "colours", "colours", DIMENSION, "1")

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def describe(
        self,
        frames: Sequence[Image.Image],
        info: MediaInfo,
        *,
        again: bool = False,
        on_frame: OnFrame = unheard,
    ) -> Description:
        pixel = frames[0].getpixel((0, 0))
        assert isinstance(pixel, tuple)
        return Description(min(_COLOURS, key=lambda name: math.dist(_COLOURS[name], pixel)))

    def embed(self, text: str, labels: Sequence[Label] = ()) -> list[float]:
        self.embedded.append(text)
        colour = next(value for name, value in _COLOURS.items() if text.startswith(name))
        length = math.hypot(*colour)
        return [value / length for value in colour] + [0.0] * (DIMENSION - 3)

    def check(self) -> str:
        return "Ready."


@pytest.fixture
def painted(
    connection: Connection,
    settings: Settings,
    tmp_path: Path,
    make_photo: MakePhoto,
    run_batch: RunBatch,
) -> UUID:
    """A finished batch of four photos, one for each colour."""
    for name, colour in _COLOURS.items():
        make_photo(tmp_path / "in" / f"{name}.png", colour=f"rgb{colour}")
    batch_id = ingest(connection, settings, [tmp_path / "in"]).batch_id
    run_batch(batch_id, ColourAnalyzer())
    return batch_id


def find(connection: Connection, text: str, **filters: object) -> list[SearchHit]:
    return search(connection, ColourAnalyzer(), text, application_model="bge-m3", **filters)  # type: ignore[arg-type]


def test_the_nearest_in_meaning_come_first(connection: Connection, painted: UUID) -> None:
    hits = find(connection, "red")

    assert [hit.filename for hit in hits[:2]] == ["red.png", "orange.png"]
    assert hits[0].score == 1.0
    assert hits[1].score == 0.8937
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits[0].description == "red"
    assert {hit.batch_id for hit in hits} == {painted}


def test_no_more_than_asked_for(connection: Connection, painted: UUID) -> None:
    assert [hit.filename for hit in find(connection, "blue", limit=1)] == ["blue.png"]


def test_only_ones_own(connection: Connection, painted: UUID) -> None:
    [user_id] = connection.execute("SELECT user_id FROM upload_batches").fetchone() or [None]

    assert len(find(connection, "red", user_id=user_id)) == 4
    assert find(connection, "red", user_id=uuid4()) == []


def test_hidden_and_undescribed_uploads_are_not_found(
    connection: Connection, painted: UUID
) -> None:
    connection.execute("UPDATE uploads SET hidden = true WHERE filename = 'red.png'")
    connection.execute("UPDATE uploads SET embedding_local = NULL WHERE filename = 'blue.png'")

    assert {hit.filename for hit in find(connection, "red")} == {"orange.png", "green.png"}


def test_nearer_uploads_of_others_do_not_crowd_out_ones_own(
    connection: Connection, painted: UUID
) -> None:
    other = uuid4()
    connection.execute(
        "INSERT INTO users (id, email, password_hash) VALUES (%s, 'o@example.org', 'x')", [other]
    )
    # Without iterative scans the index would give up after the crowd and find nothing.
    connection.execute(
        "INSERT INTO uploads (user_id, filename, file_path, file_type, file_size, mime_type,"
        " embedding_local) SELECT %s, 'crowd', 'crowd', 'image', 1, 'image/png',"
        " ARRAY[0.4 + random(), random() - 0.5, random() - 0.5, random() - 0.5, random() - 0.5,"
        " random() - 0.5, random() - 0.5, random() - 0.5]::vector FROM generate_series(1, 500)",
        [other],
    )
    connection.execute("ANALYZE uploads")
    connection.execute("SET enable_seqscan = off; SET enable_sort = off")
    [user_id] = connection.execute("SELECT user_id FROM upload_batches").fetchone() or [None]

    hits = find(connection, "red", user_id=user_id, limit=4)

    assert [hit.filename for hit in hits][:2] == ["red.png", "orange.png"]
    assert len(hits) == 4


def test_the_document(connection: Connection, painted: UUID) -> None:
    [hit] = find(connection, "green", limit=1)

    [document] = json.loads(json.dumps(search_document([hit])))

    assert [*document] == [
        "upload_id",
        "batch_id",
        "filename",
        "file_path",
        "file_type",
        "thumbnail_path",
        "score",
        "matched",
        "description",
    ]
    assert document["file_path"].endswith("/original.png")
    assert document["thumbnail_path"].endswith("/thumb_256.jpg")


def test_only_one_type(connection: Connection, painted: UUID) -> None:
    connection.execute("UPDATE uploads SET file_type = 'video' WHERE filename = 'blue.png'")

    assert [hit.filename for hit in find(connection, "red", file_type="video")] == ["blue.png"]
    assert "blue.png" not in {hit.filename for hit in find(connection, "blue", file_type="image")}


def test_writing_in_a_picture_is_found(connection: Connection, painted: UUID) -> None:
    connection.execute(
        "UPDATE vuemantics_pipeline.media_facts SET visible_text = 'The REDS won' WHERE upload_id ="
        " (SELECT id FROM uploads WHERE filename = 'blue.png')"
    )

    hits = {hit.filename: hit for hit in find(connection, "red")}

    assert hits["blue.png"].score == 0.3, "the word alone, in another form"
    assert hits["blue.png"].matched == ["text"]
    assert hits["red.png"].matched == []
    assert [hit.filename for hit in find(connection, "green")][-1] != "green.png"
    assert find(connection, "green")[0].matched == [], "filler words are in every picture"


def test_the_year_of_a_photo_counts(connection: Connection, painted: UUID) -> None:
    connection.execute(
        "UPDATE vuemantics_pipeline.media_facts SET taken_at = '2019-07-14 20:11' WHERE upload_id ="
        " (SELECT id FROM uploads WHERE filename = 'orange.png')"
    )

    hits = find(connection, "red 2019")

    assert [hit.filename for hit in hits[:2]] == ["orange.png", "red.png"]
    assert hits[0].score == pytest.approx(0.8937 + 0.3)
    assert hits[0].matched == ["year"]
    assert find(connection, "red 20195")[0].filename == "red.png", "that is no year"


def test_a_match_of_others_or_of_hidden_uploads_is_no_match(
    connection: Connection, painted: UUID
) -> None:
    connection.execute("UPDATE vuemantics_pipeline.media_facts SET visible_text = 'red 2019'")
    connection.execute("UPDATE uploads SET hidden = true WHERE filename = 'blue.png'")

    assert "blue.png" not in {hit.filename for hit in find(connection, "red")}
    assert find(connection, "red", user_id=uuid4()) == []


@pytest.mark.parametrize("text", ["red' OR 1=1 --", "red & | ! <-> (", "red %s %(limit)s", "red:*"])
def test_a_query_is_only_a_text(connection: Connection, painted: UUID, text: str) -> None:
    assert find(connection, text)[0].filename == "red.png"


def test_a_query_is_embedded_once(connection: Connection, painted: UUID) -> None:
    analyzer = ColourAnalyzer()
    for _ in range(3):
        search(connection, analyzer, "red", application_model="bge-m3")
    assert analyzer.embedded == ["red"]


def test_a_query_too_long_to_be_read(connection: Connection) -> None:
    with pytest.raises(UsageError) as caught:
        find(connection, "red " * 1000)

    assert caught.value.code == "long_query"


def test_nothing_to_find(connection: Connection) -> None:
    assert find(connection, "red") == []


@pytest.mark.parametrize("text", ["", "  \n", "\0"])
def test_an_empty_query(connection: Connection, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        find(connection, text)

    assert caught.value.code == "empty_query"


def test_vectors_of_another_model_are_refused(connection: Connection, painted: UUID) -> None:
    with pytest.raises(UsageError, match="cannot be compared") as caught:
        search(connection, ConstantAnalyzer(DIMENSION), "red", application_model="bge-m3")

    assert caught.value.code == "wrong_embedding_model"
    assert "VUEMANTICS_ANALYZER" in caught.value.remedy


def test_vectors_of_another_dimension_are_refused(connection: Connection, painted: UUID) -> None:
    with pytest.raises(UsageError, match="1024 dimensions") as caught:
        search(connection, ConstantAnalyzer(1024), "red", application_model="bge-m3")

    assert caught.value.code == "wrong_dimension"


def test_vectors_the_application_made_are_its_models(connection: Connection, painted: UUID) -> None:
    connection.execute("DELETE FROM vuemantics_pipeline.embedding_space")

    with pytest.raises(UsageError, match="made by bge-m3"):
        find(connection, "red")
