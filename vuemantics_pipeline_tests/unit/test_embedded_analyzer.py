"""EmbeddedAnalyzer: says what it recognised and measured, and embeds it; with the real models."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from vuemantics_pipeline.analysis import build, efficientnet, minilm
from vuemantics_pipeline.analysis.analyzer import Description, Label
from vuemantics_pipeline.analysis.audit import PASS_MARK, audit
from vuemantics_pipeline.analysis.build import build_analyzer
from vuemantics_pipeline.analysis.constant import ConstantAnalyzer
from vuemantics_pipeline.analysis.embedded import EmbeddedAnalyzer
from vuemantics_pipeline.errors import BackendUnavailable, UsageError
from vuemantics_pipeline.media.decode import decode
from vuemantics_pipeline.media.probe import MediaInfo
from vuemantics_pipeline.settings import load_settings

SAMPLES = Path(__file__).parents[2] / "vuemantics_pipeline" / "home" / "samples"
KOALA, OTTER = 105, 360
PHOTO = MediaInfo("image", "JPEG", "image/jpeg", "jpg", 640, 480)

Describe = Callable[..., str]


@pytest.fixture(scope="module")
def analyzer(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedAnalyzer:
    return EmbeddedAnalyzer(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def samples(analyzer: EmbeddedAnalyzer) -> dict[str, Description]:
    described = {}
    for path in SAMPLES.iterdir():
        if path.suffix != ".md":
            decoded = decode(path, max_pixels=2_000_000, max_side=1568)
            described[path.name] = analyzer.describe(decoded.frames, decoded.info)
    return described


@pytest.fixture
def describe(analyzer: EmbeddedAnalyzer) -> Describe:
    def text(image: Image.Image, info: MediaInfo = PHOTO) -> str:
        return analyzer.describe([image], info).text

    return text


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


@pytest.mark.parametrize(
    ("module", "what"),
    [(minilm, "package_file"), (minilm, "_VOCABULARY"), (efficientnet, "package_file")],
)
def test_a_changed_file_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, what: str
) -> None:
    changed = tmp_path / "changed"
    changed.write_bytes(b"not what was pinned")
    found = changed if what.isupper() else lambda *_, **__: changed
    monkeypatch.setattr(module, what, found)

    with pytest.raises(BackendUnavailable) as caught:
        EmbeddedAnalyzer(tmp_path).check()

    assert caught.value.code == "model_damaged"
    assert "pip install" in caught.value.remedy


@pytest.mark.parametrize(
    ("module", "what"), [(minilm, "_MODEL_PACKAGE"), (efficientnet, "_PACKAGE")]
)
def test_a_model_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, what: str
) -> None:
    monkeypatch.setattr(module, what, "no_such_package")

    with pytest.raises(BackendUnavailable) as caught:
        EmbeddedAnalyzer(tmp_path).check()

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
def test_colours_have_their_everyday_names(describe: Describe, colour: str, name: str) -> None:
    assert f"The main colour is {name}." in describe(Image.new("RGB", (64, 48), colour))


def test_where_the_colours_are(describe: Describe) -> None:
    image = Image.new("RGB", (64, 64), "#0050d0")
    image.paste("#20a030", (0, 32, 64, 64))

    assert "The upper part is mostly blue, the lower part mostly green." in describe(image)


def test_light_and_sharpness(describe: Describe) -> None:
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
def test_shape(describe: Describe, width: int, height: int, shape: str) -> None:
    info = MediaInfo("image", "JPEG", "image/jpeg", "jpg", width, height)

    assert f"A {shape} photo of {width} x {height} pixels." in describe(
        Image.new("RGB", (64, 64)), info
    )


def test_date_and_camera(describe: Describe) -> None:
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


def test_a_video_says_how_long_it_is_and_what_was_looked_at(
    samples: dict[str, Description],
) -> None:
    text = samples["forest_stream.mp4"].text

    assert text.startswith("This video shows a valley")
    assert "A landscape video of 2 seconds" in text
    assert "10 frames were looked at" in text
    assert "moves" in text


def test_frames_of_videos_are_told_one_by_one(analyzer: EmbeddedAnalyzer) -> None:
    heard: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        heard.append((done, total))

    grey = Image.new("RGB", (64, 64), "grey")
    video = MediaInfo("video", "MP4", "video/mp4", "mp4", 64, 64, duration_seconds=0.4)
    analyzer.describe([grey] * 3, video, on_frame=tell)
    analyzer.describe(
        [grey], MediaInfo("image", "JPEG", "image/jpeg", "jpg", 64, 64), on_frame=tell
    )

    assert heard == [(1, 3), (2, 3), (3, 3)]


def test_movement_and_fading(analyzer: EmbeddedAnalyzer) -> None:
    info = MediaInfo("video", "MP4", "video/mp4", "mp4", 64, 64, duration_seconds=0.4)
    still = [Image.new("RGB", (64, 64), "grey")] * 3
    fading = [Image.new("RGB", (64, 64), (level,) * 3) for level in (200, 120, 20)]

    assert "hardly moves" in analyzer.describe(still, info).text
    assert "darker towards the end" in analyzer.describe(fading, info).text
    assert "one frame was looked at" in analyzer.describe(still[:1], info).text


def test_what_is_seen_in_every_frame_counts_for_more(
    analyzer: EmbeddedAnalyzer, monkeypatch: pytest.MonkeyPatch
) -> None:
    throughout, briefly = np.zeros(1000, np.float32), np.zeros(1000, np.float32)
    throughout[KOALA], briefly[OTTER] = 0.5, 1.0
    seen = iter([throughout + briefly / 2, throughout, throughout, throughout + briefly / 2])
    monkeypatch.setattr(efficientnet.EfficientNet, "probabilities", lambda self, frame: next(seen))
    info = MediaInfo("video", "MP4", "video/mp4", "mp4", 64, 64)

    labels = analyzer.describe([Image.new("RGB", (64, 64))] * 4, info).labels
    probability = {label.name: label.probability for label in labels}

    assert probability["koala"] == pytest.approx(0.5)
    # Half as often would be 0.25 in the mean.
    assert probability["otter"] == pytest.approx(0.125)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 2)])
def test_the_smallest_picture_can_be_described(describe: Describe, size: tuple[int, int]) -> None:
    assert audit(describe(Image.new("RGB", size, "teal"))) >= PASS_MARK


def test_descriptions_of_the_samples_pass_the_audit_and_say_what_is_there(
    samples: dict[str, Description],
) -> None:
    texts = {name: description.text for name, description in samples.items()}

    assert all(audit(text) == 100 for text in texts.values())
    assert len(set(texts.values())) == len(texts)
    assert "red" in texts["fig_in_red_bowl.webp"]
    assert "dark blue" in texts["rocket_at_night.jpg"]
    assert "upper part is mostly blue" in texts["beach_under_blue_sky.jpg"]
    assert "A portrait photo" in texts["two_dogs_at_a_door.jpg"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cat_close_up.png", "This photo shows a cat"),
        ("coffee_on_wooden_table.jpg", "This photo shows coffee"),
        ("mountain_trail.heic", "This photo shows a mountain"),
        ("dandelions_at_sunset.jpg", "This photo probably shows a flower"),
        ("pagoda_by_the_lake.jpg", "This photo shows a building"),
        ("wine_and_drum.jpg", "shows a musical instrument"),
        ("two_dogs_at_a_door.jpg", "possibly a dog"),
    ],
)
def test_things_on_the_samples_are_recognised(
    samples: dict[str, Description], name: str, words: str
) -> None:
    assert words in samples[name].text


def test_people_are_taken_for_nothing(samples: dict[str, Description]) -> None:
    assert samples["astronaut_portrait.jpg"].text.startswith("A square photo")


def test_a_description_says_what_made_it(samples: dict[str, Description]) -> None:
    described = samples["cat_close_up.png"]

    assert described.model_digest == efficientnet.WEIGHTS_SHA256
    assert described.options == {"possibly": 0.2, "probably": 0.4, "surely": 0.8}
    assert described.visible_text == ""


def test_labels_bring_an_upload_nearer_to_what_it_shows(analyzer: EmbeddedAnalyzer) -> None:
    text = "A landscape photo of 640 x 480 pixels. The main colour is brown."
    labels = (Label("animal", 0.9), Label("dog", 0.8))
    query = np.array(analyzer.embed("a dog"))
    plain, labelled = np.array(analyzer.embed(text)), np.array(analyzer.embed(text, labels))

    assert labelled @ query > plain @ query + 0.2
    assert np.linalg.norm(labelled) == pytest.approx(1)


def test_a_likelier_label_weighs_more(analyzer: EmbeddedAnalyzer) -> None:
    query = np.array(analyzer.embed("a boat"))
    unlikely, likely = (
        np.array(analyzer.embed("A photo.", (Label("dog", 1 - p), Label("boat", p)))) @ query
        for p in (0.2, 0.8)
    )

    assert likely > unlikely + 0.1


def test_writing_is_part_of_the_description(tmp_path: Path) -> None:
    pytest.importorskip("rapidocr")
    image = Image.new("RGB", (640, 480), "white")
    font = ImageFont.load_default(40)
    ImageDraw.Draw(image).text((40, 200), 'Harbour "Café" 1987', "black", font)

    described = EmbeddedAnalyzer(tmp_path, ocr=True).describe([image], PHOTO)

    assert described.visible_text.startswith("Harbour")
    assert "There is writing: \"Harbour 'Caf" in described.text
    assert audit(described.text) >= PASS_MARK


def test_long_writing_is_shortened_in_the_description(
    analyzer: EmbeddedAnalyzer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = "ignore\nall " * 100

    class Reader:
        def read(self, image: Image.Image) -> str:
            return writing

    monkeypatch.setattr(analyzer, "_ocr", Reader())
    described = analyzer.describe([Image.new("RGB", (64, 64))], PHOTO)

    assert described.visible_text == writing
    assert 'There is writing: "ignore all ignore' in described.text
    assert len(described.text) < 600


def test_ocr_is_part_of_the_identity(tmp_path: Path) -> None:
    plain, reading = EmbeddedAnalyzer(tmp_path).identity, EmbeddedAnalyzer(tmp_path, ocr=True)

    assert plain.vision_model == reading.identity.vision_model == "efficientnet-lite1"
    assert plain.embedding_model == reading.identity.embedding_model
    assert (plain.prompt_version, reading.identity.prompt_version) == ("2", "2+ocr")


@pytest.mark.parametrize(
    ("setting", "installed", "version"),
    [(None, True, "2+ocr"), (None, False, "2"), (True, True, "2+ocr"), (False, True, "2")],
)
def test_writing_is_read_where_it_can_be(
    monkeypatch: pytest.MonkeyPatch, setting: bool | None, installed: bool, version: str
) -> None:
    monkeypatch.setattr(build, "ocr_installed", lambda: installed)

    analyzer = build_analyzer(load_settings(analyzer="embedded", ocr=setting))

    assert analyzer.identity.prompt_version == version


def test_reading_without_the_extra_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "ocr_installed", lambda: False)

    with pytest.raises(UsageError) as caught:
        build_analyzer(load_settings(analyzer="embedded", ocr=True))

    assert caught.value.code == "ocr_missing"
    assert "pip install 'vuemantics-pipeline[ocr]'" in caught.value.remedy


def test_the_analyzer_that_is_none(describe: Describe) -> None:
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
        "models = {'onnxruntime', 'onnx', 'rapidocr', 'tokenizers', 'ollama', 'httpx'}\n"
        "assert not models & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=SAMPLES.parents[2])


def test_the_models_leave_no_file_behind(tmp_path: Path) -> None:
    pytest.importorskip("rapidocr")
    home, temporary, models = (tmp_path / name for name in ("home", "temporary", "models"))
    home.mkdir()
    temporary.mkdir()
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from PIL import Image\n"
        "from vuemantics_pipeline.analysis.embedded import EmbeddedAnalyzer\n"
        "from vuemantics_pipeline.media.probe import MediaInfo\n"
        "analyzer = EmbeddedAnalyzer(Path(sys.argv[1]), ocr=True)\n"
        "info = MediaInfo('image', 'JPEG', 'image/jpeg', 'jpg', 64, 64)\n"
        "described = analyzer.describe([Image.new('RGB', (64, 64), 'teal')], info)\n"
        "analyzer.embed(described.text, described.labels)\n"
    )
    # onnxruntime reports to its maker by way of files unless it is told not to.
    environment = {
        name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"
    }
    environment |= {"HOME": str(home), "TMPDIR": str(temporary)}
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        environment.pop(name, None)

    subprocess.run([sys.executable, "-c", code, models], check=True, env=environment)

    assert list(home.rglob("*")) == []
    assert list(temporary.rglob("*")) == []
    assert len(list(models.iterdir())) == 1
