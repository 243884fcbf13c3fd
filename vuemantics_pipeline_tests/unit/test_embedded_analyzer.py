"""EmbeddedAnalyzer: says what it measured, and embeds it with the real model."""

import math
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from vuemantics_pipeline.analysis import minilm
from vuemantics_pipeline.analysis.audit import PASS_MARK, audit
from vuemantics_pipeline.analysis.build import build_analyzer
from vuemantics_pipeline.analysis.constant import ConstantAnalyzer
from vuemantics_pipeline.analysis.embedded import EmbeddedAnalyzer
from vuemantics_pipeline.errors import BackendUnavailable
from vuemantics_pipeline.media.decode import load_frames
from vuemantics_pipeline.media.probe import MediaInfo, probe
from vuemantics_pipeline.settings import load_settings

SAMPLES = Path(__file__).parents[2] / "vuemantics_pipeline" / "home" / "samples"
PHOTO = MediaInfo("image", "JPEG", "image/jpeg", "jpg", 640, 480)


def sample(name: str) -> str:
    path = SAMPLES / name
    info = probe(path, max_pixels=2_000_000)
    return EmbeddedAnalyzer().describe(load_frames(path, info, max_side=1568), info).text


def describe(image: Image.Image, info: MediaInfo = PHOTO) -> str:
    return EmbeddedAnalyzer().describe([image], info).text


@pytest.fixture(scope="module")
def analyzer() -> EmbeddedAnalyzer:
    return EmbeddedAnalyzer()


def closeness(analyzer: EmbeddedAnalyzer, one: str, other: str) -> float:
    return sum(a * b for a, b in zip(analyzer.embed(one), analyzer.embed(other), strict=True))


def test_meaning_decides_what_is_near(analyzer: EmbeddedAnalyzer) -> None:
    query = "sunset at the beach"

    near = closeness(analyzer, query, "an orange evening sky over the sea")
    far = closeness(analyzer, query, "a spreadsheet on a computer")

    assert near > far + 0.3


@pytest.mark.parametrize("text", ["", "dog", "🏖️ plage", "word " * 2000])
def test_any_text_becomes_a_unit_vector(analyzer: EmbeddedAnalyzer, text: str) -> None:
    vector = analyzer.embed(text)

    assert len(vector) == analyzer.identity.dimension == 384
    assert math.hypot(*vector) == pytest.approx(1, abs=1e-6)
    assert vector == analyzer.embed(text)


def test_the_check_loads_the_model(analyzer: EmbeddedAnalyzer) -> None:
    assert "ready" in analyzer.check()


@pytest.mark.parametrize("what", ["_model_path", "_VOCABULARY"])
def test_a_changed_file_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    changed = tmp_path / "changed"
    changed.write_bytes(b"not what was pinned")
    monkeypatch.setattr(minilm, what, changed if what.isupper() else lambda: changed)

    with pytest.raises(BackendUnavailable) as caught:
        EmbeddedAnalyzer().check()

    assert caught.value.code == "model_damaged"
    assert "pip install" in caught.value.remedy


def test_a_model_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "_MODEL_PACKAGE", "no_such_package")

    with pytest.raises(BackendUnavailable) as caught:
        EmbeddedAnalyzer().embed("text")

    assert caught.value.code == "model_missing"


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ("#000000", "black"),
        ("#ffffff", "white"),
        ("#808080", "grey"),
        ("#ff0000", "red"),
        ("#ff8800", "orange"),
        ("#6b4423", "brown"),
        ("#ffdd00", "yellow"),
        ("#20a030", "green"),
        ("#0050d0", "blue"),
        ("#9ccfff", "light blue"),
        ("#101f60", "dark blue"),
        ("#8030c0", "purple"),
        ("#ffb6c1", "pink"),
        ("#40e0d0", "turquoise"),
        ("#e8d8b8", "beige"),
    ],
)
def test_colours_have_their_everyday_names(colour: str, name: str) -> None:
    assert f"The main colour is {name}." in describe(Image.new("RGB", (64, 48), colour))


def test_where_the_colours_are() -> None:
    image = Image.new("RGB", (64, 64), "#0050d0")
    image.paste("#20a030", (0, 32, 64, 64))

    assert "The upper part is mostly blue, the lower part mostly green." in describe(image)


def test_light_and_sharpness() -> None:
    noise = Image.effect_noise((256, 256), 80).convert("RGB")

    assert "very dark" in describe(Image.new("RGB", (64, 64), (8, 8, 8)))
    assert "very bright" in describe(Image.new("RGB", (64, 64), (250, 250, 250)))
    assert "warm colours" in describe(Image.new("RGB", (64, 64), (220, 120, 40)))
    assert "cool colours" in describe(Image.new("RGB", (64, 64), (40, 120, 220)))
    assert "strong contrast" in describe(
        Image.linear_gradient("L").point(lambda value: 255 * (value > 127)).convert("RGB")
    )
    assert "full of fine detail" in describe(noise)
    assert "without fine detail" in describe(noise.filter(ImageFilter.GaussianBlur(8)))


@pytest.mark.parametrize(
    ("width", "height", "shape"),
    [
        (3000, 1000, "wide panorama"),
        (4000, 3000, "landscape"),
        (1000, 1000, "square"),
        (3000, 4000, "portrait"),
        (400, 1600, "tall, narrow"),
    ],
)
def test_shape(width: int, height: int, shape: str) -> None:
    info = MediaInfo("image", "JPEG", "image/jpeg", "jpg", width, height)

    assert f"A {shape} photo of {width} x {height} pixels." in describe(
        Image.new("RGB", (64, 64)), info
    )


def test_date_and_camera() -> None:
    info = MediaInfo(
        "image",
        "JPEG",
        "image/jpeg",
        "jpg",
        640,
        480,
        taken_at=datetime(2019, 7, 14, 20, 11),
        camera="Canon EOS 5D",
    )

    text = describe(Image.new("RGB", (64, 48)), info)

    assert "Taken with a Canon EOS 5D in July 2019 in the evening (summer in" in text


def test_a_video_says_how_long_it_is_and_what_was_looked_at() -> None:
    text = sample("forest_stream.mp4")

    assert "A landscape video of 2 seconds" in text
    assert "10 frames were looked at" in text
    assert "moves" in text


def test_movement_and_fading() -> None:
    info = MediaInfo("video", "MP4", "video/mp4", "mp4", 64, 64, duration_seconds=0.4)
    still = [Image.new("RGB", (64, 64), "grey")] * 3
    fading = [Image.new("RGB", (64, 64), (level,) * 3) for level in (200, 120, 20)]

    assert "hardly moves" in EmbeddedAnalyzer().describe(still, info).text
    assert "darker towards the end" in EmbeddedAnalyzer().describe(fading, info).text
    assert "one frame was looked at" in EmbeddedAnalyzer().describe(still[:1], info).text


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 2)])
def test_the_smallest_picture_can_be_described(size: tuple[int, int]) -> None:
    assert audit(describe(Image.new("RGB", size, "teal"))) >= PASS_MARK


def test_descriptions_of_the_samples_pass_the_audit_and_say_what_is_there() -> None:
    names = [path.name for path in SAMPLES.iterdir() if path.suffix != ".md"]
    texts = {name: sample(name) for name in names}

    assert all(audit(text) == 100 for text in texts.values())
    assert len(set(texts.values())) == len(texts)
    assert "red" in texts["fig_in_red_bowl.webp"]
    assert "dark blue" in texts["rocket_at_night.jpg"]
    assert "upper part is mostly blue" in texts["beach_under_blue_sky.jpg"]
    assert "A portrait photo" in texts["two_dogs_at_a_door.jpg"]


def test_the_analyzer_that_is_none() -> None:
    analyzer = build_analyzer(load_settings(analyzer="none", embedding_dimensions=1024))
    vector = analyzer.embed("anything")

    assert isinstance(analyzer, ConstantAnalyzer)
    assert analyzer.identity.dimension == len(vector) == 1024
    assert math.hypot(*vector) == 1
    assert audit(analyzer.describe([Image.new("RGB", (8, 8))], PHOTO).text) == 100
    assert analyzer.check()


def test_building_an_analyzer_loads_no_model() -> None:
    code = (
        "import sys\n"
        "from vuemantics_pipeline.analysis.build import build_analyzer\n"
        "from vuemantics_pipeline.settings import load_settings\n"
        "for name in ('embedded', 'ollama', 'none'):\n"
        "    build_analyzer(load_settings(analyzer=name)).identity\n"
        "assert not {'onnxruntime', 'tokenizers', 'ollama', 'httpx'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=SAMPLES.parents[2])
