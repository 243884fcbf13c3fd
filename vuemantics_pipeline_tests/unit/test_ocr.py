"""Writing in pictures is read with the pinned models, quietly and without the network."""

import logging
import socket
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from vuemantics_pipeline.analysis import ocr
from vuemantics_pipeline.errors import BackendUnavailable

pytest.importorskip("rapidocr")


def written(*lines: str, size: int = 36) -> Image.Image:
    image = Image.new("RGB", (900, 60 + 70 * len(lines)), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    for index, line in enumerate(lines):
        draw.text((40, 40 + 70 * index), line, "black", font)
    return image


@pytest.fixture(scope="module")
def reader() -> ocr.OCR:
    return ocr.OCR()


def test_lines_are_read_from_top_to_bottom(reader: ocr.OCR) -> None:
    text = reader.read(written("Platform 9", "Trains to London"))

    assert text == "Platform 9\nTrains to London"


@pytest.mark.parametrize("size", [(1, 1), (640, 480), (2, 3000)])
def test_a_picture_without_writing_has_none(reader: ocr.OCR, size: tuple[int, int]) -> None:
    assert reader.read(Image.new("RGB", size, "teal")) == ""


def test_lines_that_are_not_sure_are_left_out(
    reader: ocr.OCR, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ocr, "_SURE", 1.1)

    assert reader.read(written("Platform 9")) == ""


def test_single_letters_are_texture(reader: ocr.OCR) -> None:
    assert reader.read(written("8", size=60)) == ""


def test_writing_is_cut(reader: ocr.OCR, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "_LENGTH", 8)

    assert reader.read(written("Platform 9")) == "Platform"


def test_it_asks_no_network_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "__init__", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    root = logging.getLogger()
    before = root.level, list(root.handlers)

    assert ocr.OCR().read(written("Quiet")) == "Quiet"

    assert capfd.readouterr() == ("", "")
    assert (root.level, list(root.handlers)) == before


@pytest.mark.parametrize("model", ["_DETECTOR_SHA256", "_READER_SHA256"])
def test_a_changed_model_is_not_loaded(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    monkeypatch.setattr(ocr, model, "0" * 64)

    with pytest.raises(BackendUnavailable) as caught:
        ocr.OCR().load()

    assert caught.value.code == "model_damaged"
    assert "vuemantics-pipeline[ocr]" in caught.value.remedy


def test_a_missing_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ocr, "_DETECTOR", "none.onnx")

    with pytest.raises(BackendUnavailable) as caught:
        ocr.OCR().load()

    assert caught.value.code == "model_missing"
