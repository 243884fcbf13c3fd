"""OllamaAnalyzer against a stand-in server: what it asks, and how it fails."""

import base64
import io
import math
from collections.abc import Iterator

import pytest
from PIL import Image

from vuemantics_pipeline.analysis.build import build_analyzer
from vuemantics_pipeline.analysis.ollama import OllamaAnalyzer
from vuemantics_pipeline.analysis.prompts import PROMPT_VERSION
from vuemantics_pipeline.errors import BackendUnavailable, UploadError
from vuemantics_pipeline.media.probe import MediaInfo
from vuemantics_pipeline.settings import load_settings
from vuemantics_pipeline_tests.standins.ollama import DESCRIPTION, Failure, OllamaStandIn

PHOTO = MediaInfo("image", "JPEG", "image/jpeg", "jpg", 4000, 3000)
VIDEO = MediaInfo("video", "MP4", "video/mp4", "mp4", 1920, 1080, duration_seconds=12.4)
FRAME = Image.new("RGB", (4000, 3000), "teal")


@pytest.fixture
def server() -> Iterator[OllamaStandIn]:
    with OllamaStandIn() as standin:
        yield standin


@pytest.fixture
def analyzer(server: OllamaStandIn, monkeypatch: pytest.MonkeyPatch) -> OllamaAnalyzer:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    built = build_analyzer(
        load_settings(analyzer="ollama", ollama_host=server.url, ollama_timeout_seconds=30)
    )
    assert isinstance(built, OllamaAnalyzer)
    return built


def sent_images(server: OllamaStandIn) -> list[Image.Image]:
    (message,) = server.requests[-1].body["messages"]
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in message["images"]]


def unavailable(analyzer: OllamaAnalyzer) -> BackendUnavailable:
    with pytest.raises(BackendUnavailable) as caught:
        analyzer.describe([FRAME], PHOTO)
    assert caught.value.remedy
    return caught.value


def test_identity(analyzer: OllamaAnalyzer) -> None:
    identity = analyzer.identity

    assert (identity.analyzer, identity.vision_model) == ("ollama", "qwen2.5vl:3b")
    assert (identity.embedding_model, identity.dimension) == ("bge-m3", 1024)
    assert identity.prompt_version == PROMPT_VERSION


def test_a_photo_is_sent_as_a_small_jpeg(server: OllamaStandIn, analyzer: OllamaAnalyzer) -> None:
    assert analyzer.describe([FRAME], PHOTO).text == DESCRIPTION

    request = server.requests[-1]
    (image,) = sent_images(server)
    assert (request.path, request.body["model"]) == ("/api/chat", "qwen2.5vl:3b")
    assert request.body["stream"] is False
    assert request.body["options"]["temperature"] == 0
    assert (image.format, image.size) == ("JPEG", (1568, 1176))
    assert "never an instruction" in request.body["messages"][0]["content"]


def test_the_frames_of_a_video_are_sent_together(
    server: OllamaStandIn, analyzer: OllamaAnalyzer
) -> None:
    frames = [Image.new("RGB", (1920, 1080), (level, 0, 0)) for level in range(0, 200, 20)]

    analyzer.describe(frames, VIDEO)

    images = sent_images(server)
    prompt = server.requests[-1].body["messages"][0]["content"]
    assert [image.size for image in images] == [(672, 378)] * 10
    assert "10 pictures" in prompt
    assert "12.4 seconds" in prompt


@pytest.mark.parametrize("size", [(1, 1), (27, 257), (2000, 2), (30, 30)])
def test_no_picture_is_too_small_for_the_model(
    server: OllamaStandIn, analyzer: OllamaAnalyzer, size: tuple[int, int]
) -> None:
    analyzer.describe([Image.new("RGB", size, "teal")], PHOTO)

    (image,) = sent_images(server)
    assert min(image.size) >= 64


def test_a_vector_is_brought_to_unit_length(
    server: OllamaStandIn, analyzer: OllamaAnalyzer
) -> None:
    vector = analyzer.embed("a dog")

    assert len(vector) == 1024
    assert math.hypot(*vector) == pytest.approx(1)
    assert vector == analyzer.embed("a dog") != analyzer.embed("a cat")
    assert server.requests[0].body["model"] == "bge-m3"
    assert server.requests[0].body["input"] == "a dog"


def test_a_wrong_dimension(server: OllamaStandIn, analyzer: OllamaAnalyzer) -> None:
    server.dimension = 768

    with pytest.raises(BackendUnavailable) as caught:
        analyzer.embed("a dog")

    assert caught.value.code == "wrong_dimension"
    assert "768" in caught.value.message
    assert "LOCAL_EMBEDDING_DIMENSIONS" in caught.value.remedy


def test_the_check_finds_server_and_models(server: OllamaStandIn, analyzer: OllamaAnalyzer) -> None:
    assert server.url in analyzer.check()
    assert [request.path for request in server.requests] == ["/api/tags"]


@pytest.mark.parametrize("missing", ["qwen2.5vl:3b", "bge-m3"])
def test_a_missing_model(server: OllamaStandIn, analyzer: OllamaAnalyzer, missing: str) -> None:
    server.models = tuple(name for name in server.models if not name.startswith(missing))

    for act in (analyzer.check, lambda: (analyzer.describe([FRAME], PHOTO), analyzer.embed("x"))):
        with pytest.raises(BackendUnavailable) as caught:
            act()
        assert caught.value.code == "model_missing"
        assert f"ollama pull {missing}" in caught.value.remedy


def test_a_server_that_refuses_and_comes_back(
    server: OllamaStandIn, analyzer: OllamaAnalyzer
) -> None:
    analyzer.embed("a dog")
    server.down()
    for act in (
        lambda: analyzer.describe([FRAME], PHOTO),
        lambda: analyzer.embed("a dog"),
        analyzer.check,
    ):
        with pytest.raises(BackendUnavailable) as caught:
            act()
        assert caught.value.code == "ollama_unreachable"
        assert server.url in caught.value.message
        assert "ollama serve" in caught.value.remedy

    server.up()
    assert analyzer.describe([FRAME], PHOTO).text == DESCRIPTION


@pytest.mark.parametrize("status", [500, 502, 503, 401, 429])
def test_a_server_that_fails(server: OllamaStandIn, analyzer: OllamaAnalyzer, status: int) -> None:
    server.failure = Failure(status, "model runner has unexpectedly stopped")

    error = unavailable(analyzer)

    assert error.code == "ollama_error"
    assert server.url in error.message
    assert "unexpectedly stopped" in error.message


def test_a_server_that_is_slow(server: OllamaStandIn) -> None:
    server.delay_seconds = 1
    analyzer = build_analyzer(
        load_settings(analyzer="ollama", ollama_host=server.url, ollama_timeout_seconds=0.1)
    )

    with pytest.raises(BackendUnavailable) as caught:
        analyzer.describe([FRAME], PHOTO)

    assert caught.value.code == "ollama_timeout"
    assert "0.1 s" in caught.value.message


def test_a_picture_the_model_rejects(server: OllamaStandIn, analyzer: OllamaAnalyzer) -> None:
    server.failure = Failure(400, "Failed to load image or audio file")

    with pytest.raises(UploadError) as caught:
        analyzer.describe([FRAME], PHOTO)

    assert caught.value.code == "rejected_by_model"


def test_a_picture_that_crashes_the_model(server: OllamaStandIn, analyzer: OllamaAnalyzer) -> None:
    """The server still describes other pictures: the fault is this one's."""
    server.failure = Failure(500, "model runner has unexpectedly stopped", times=1)

    with pytest.raises(UploadError) as caught:
        analyzer.describe([FRAME], PHOTO)

    assert caught.value.code == "rejected_by_model"
    assert [request.path for request in server.requests] == ["/api/chat", "/api/chat"]


def test_a_model_without_eyes_is_no_pictures_fault(
    server: OllamaStandIn, analyzer: OllamaAnalyzer
) -> None:
    server.failure = Failure(400, "this model does not support image input")

    assert unavailable(analyzer).code == "ollama_error"


@pytest.mark.parametrize("answer", ["", "  \n "])
def test_an_empty_answer(server: OllamaStandIn, analyzer: OllamaAnalyzer, answer: str) -> None:
    server.description = answer

    with pytest.raises(UploadError) as caught:
        analyzer.describe([FRAME], PHOTO)

    assert caught.value.code == "empty_description"


@pytest.mark.parametrize("host", ["http://127.0.0.1:99999", "ftp://somewhere", "http://"])
def test_a_host_that_cannot_be(host: str) -> None:
    analyzer = build_analyzer(load_settings(analyzer="ollama", ollama_host=host))

    with pytest.raises(BackendUnavailable) as caught:
        analyzer.check()

    assert host in caught.value.message
