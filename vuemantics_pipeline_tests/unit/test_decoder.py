"""The decoder's child: the same pixels, and no file that can hang, break or deceive the worker."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import numpy as np
import psutil
import pytest
from PIL import Image

from vuemantics_pipeline.errors import BackendUnavailable, PipelineError, UploadError
from vuemantics_pipeline.media import decode as decode_module
from vuemantics_pipeline.media import decoder as decoder_module
from vuemantics_pipeline.media import decoder_process
from vuemantics_pipeline.media.decode import Decoded
from vuemantics_pipeline.media.decoder import Decoder
from vuemantics_pipeline.media.probe import probe
from vuemantics_pipeline_tests.unit import decoder_standin
from vuemantics_pipeline_tests.unit.media_files import corner_image, write_png, write_video

SECONDS = 120.0
MEMORY_BYTES = 3 << 30
MAX_PIXELS = 10_000_000
MAX_SIDE = 60

SAMPLES = Path(decoder_module.__file__).parents[1] / "home" / "samples"


def stand_in(
    conduct: str, *, seconds: float = SECONDS, memory_bytes: int = MEMORY_BYTES
) -> Decoder:
    command = [sys.executable, "-P", decoder_standin.__file__, conduct]
    return Decoder(seconds=seconds, memory_bytes=memory_bytes, command=command)


def decode(decoder: Decoder, path: Path, max_pixels: int = MAX_PIXELS) -> Decoded:
    return decoder.decode(path, max_pixels=max_pixels, max_side=MAX_SIDE)


def decode_here(path: Path, max_pixels: int = MAX_PIXELS) -> Decoded:
    return decode_module.decode(path, max_pixels=max_pixels, max_side=MAX_SIDE)


def refusal(call: Callable[[], object]) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        call()
    return caught.value


def descriptors() -> list[str]:
    """What our own descriptors are."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            found.append(f"{entry.name} {entry.readlink()}")
    return sorted(found)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    corner_image().save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    """The real one, shared by the tests that leave it whole."""
    with Decoder(seconds=SECONDS, memory_bytes=MEMORY_BYTES) as shared:
        yield shared


@pytest.fixture
def new_children() -> Callable[[], list[psutil.Process]]:
    """Children, zombies included, that the test has started itself."""
    before = set(psutil.Process().children(recursive=True))
    return lambda: [
        child for child in psutil.Process().children(recursive=True) if child not in before
    ]


def assert_decodes(decoder: Decoder, path: Path, max_pixels: int = MAX_PIXELS) -> None:
    here, there = decode_here(path, max_pixels), decode(decoder, path, max_pixels)
    assert there.info == here.info
    assert there.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(there.frames) == len(here.frames)
    for ours, theirs in zip(
        [here.thumbnail, *here.frames], [there.thumbnail, *there.frames], strict=True
    ):
        assert theirs.mode == "RGB"
        assert theirs.info == {}
        np.testing.assert_array_equal(np.asarray(theirs), np.asarray(ours))


@pytest.mark.parametrize(
    "name",
    [
        "two_dogs_at_a_door.jpg",
        "cat_close_up.png",
        "fig_in_red_bowl.webp",
        "mountain_trail.heic",
        "forest_stream.mp4",
    ],
)
def test_the_result_is_that_of_decoding_here(decoder: Decoder, name: str) -> None:
    assert_decodes(decoder, SAMPLES / name)


def test_every_field_comes_over(decoder: Decoder, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Zürich", "Caméra №1"
    exif.get_ifd(0x8769)[0x9003] = "2019:07:14 20:11:05"
    corner_image().save(tmp_path / "photo.jpg", exif=exif)
    assert decode_here(tmp_path / "photo.jpg").info.taken_at is not None
    assert_decodes(decoder, tmp_path / "photo.jpg")
    assert_decodes(decoder, write_video(tmp_path / "turned.mp4", rotation=90))


@pytest.mark.parametrize("name", ["größe\n.png", os.fsdecode(b"not utf-8 \xff.png"), "x" * 255])
def test_odd_names(decoder: Decoder, tmp_path: Path, photo: Path, name: str) -> None:
    assert_decodes(decoder, photo.rename(tmp_path / name))


def test_a_relative_path(decoder: Decoder, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photo.parent)
    assert_decodes(decoder, Path(photo.name))


def test_what_is_wrong_with_a_file_is_told_as_it_is_here(
    decoder: Decoder, tmp_path: Path, photo: Path
) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("hello")
    (tmp_path / "cut").write_bytes((SAMPLES / "dahlia.jpg").read_bytes()[:20_000])
    os.mkfifo(tmp_path / "fifo")
    files = ["missing", "empty", "text", "cut", "fifo", ".", "photo.png/x", "\0", "x" * 300]
    found = set()
    for path in [*(tmp_path / name for name in files), photo]:
        max_pixels = 100 if path == photo else MAX_PIXELS
        here = refusal(lambda: decode_here(path, max_pixels))  # noqa: B023 - called at once
        there = refusal(lambda: decode(decoder, path, max_pixels))  # noqa: B023
        assert type(there) is type(here) is UploadError
        assert (there.code, there.message, there.remedy) == (here.code, here.message, here.remedy)
        found.add(there.code)
    assert found == {
        "file_missing",
        "empty_file",
        "unsupported_type",
        "unreadable_media",
        "too_many_pixels",
    }
    assert_decodes(decoder, photo)


def test_a_failing_disk_stays_a_failing_disk(photo: Path) -> None:
    with stand_in("storage_gone") as decoder:
        error = refusal(lambda: decode(decoder, photo))
    assert type(error) is BackendUnavailable
    assert (error.code, error.message) == ("storage_unavailable", "Cannot\\nread it.")
    assert error.remedy == "Mount it."


def test_a_bug_is_named(photo: Path) -> None:
    with stand_in("bug") as decoder:
        error = refusal(lambda: decode(decoder, photo))
    assert type(error) is UploadError
    assert error.code == "internal_error"
    assert "TypeError: a bug" in error.message


def test_what_codecs_print_disturbs_nothing(photo: Path) -> None:
    with stand_in("chatter") as decoder:
        assert_decodes(decoder, photo)
        assert_decodes(decoder, photo)


def test_one_warm_child_and_none_before_it_is_needed(
    photo: Path, new_children: Callable[[], list[psutil.Process]]
) -> None:
    with Decoder(seconds=SECONDS, memory_bytes=MEMORY_BYTES) as decoder:
        assert new_children() == []
        decode(decoder, photo)
        (first,) = new_children()
        refusal(lambda: decode(decoder, photo.with_name("missing")))
        decode(decoder, photo)
        assert new_children() == [first]
    assert new_children() == []
    assert_decodes(decoder, photo)
    assert new_children() != [first]
    decoder.close()
    decoder.close()
    assert new_children() == []


@pytest.mark.parametrize("conduct", ["hang", "trickle"])
def test_a_file_that_takes_too_long_is_stopped(
    conduct: str, photo: Path, new_children: Callable[[], list[psutil.Process]]
) -> None:
    before = descriptors()
    with stand_in(conduct, seconds=0.3) as decoder:
        error = refusal(lambda: decode(decoder, photo))
        assert type(error) is UploadError
        assert error.code == "decode_timeout"
        assert "0.3 s" in error.message
        assert new_children() == []
    assert descriptors() == before


@pytest.mark.parametrize(
    ("conduct", "how"),
    [
        ("exit", "exit status 3"),
        ("segfault", "SIGSEGV"),
        ("cut_short", "exit status 0"),
        ("end_in_header", "exit status 0"),
        ("garbage", "no sense"),
        ("not_utf8", "no sense"),
        ("deep", "no sense"),
        ("huge_number", "no sense"),
        ("huge_header", "no sense"),
    ],
)
def test_a_child_that_breaks_costs_one_file(
    conduct: str, how: str, photo: Path, new_children: Callable[[], list[psutil.Process]]
) -> None:
    before = descriptors()
    with stand_in(conduct) as decoder:
        for _ in range(2):
            error = refusal(lambda: decode(decoder, photo))
            assert type(error) is UploadError
            assert error.code == "decoder_died"
            assert how in error.message
            assert new_children() == []
    assert descriptors() == before


def test_a_child_that_only_closes_its_pipe(
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    new_children: Callable[[], list[psutil.Process]],
) -> None:
    monkeypatch.setattr(decoder_process, "_LAST_WORDS_SECONDS", 0.1)
    with stand_in("close_pipes") as decoder:
        assert "closed its pipes" in refusal(lambda: decode(decoder, photo)).message
        assert new_children() == []


@pytest.mark.parametrize("conduct", decoder_standin.LIES)
def test_no_lie_of_a_child_is_believed(
    conduct: str, photo: Path, new_children: Callable[[], list[psutil.Process]]
) -> None:
    with stand_in(conduct) as decoder:
        error = refusal(lambda: decode(decoder, photo))
        assert (type(error), error.code) == (UploadError, "decoder_died")
        assert new_children() == []


@pytest.mark.parametrize("conduct", ["good", "say_more", "end_after_answer", "end_at_second"])
def test_the_next_file_does_not_suffer(conduct: str, photo: Path) -> None:
    with stand_in(conduct) as decoder:
        for _ in range(3):
            decoded = decode(decoder, photo)
            assert [frame.size for frame in decoded.frames] == [(4, 2)]


def test_a_child_killed_while_idle_is_replaced(
    photo: Path, new_children: Callable[[], list[psutil.Process]]
) -> None:
    with Decoder(seconds=SECONDS, memory_bytes=MEMORY_BYTES) as decoder:
        decode(decoder, photo)
        (child,) = new_children()
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert_decodes(decoder, photo)


def test_a_child_dies_with_the_thread_that_started_it_and_is_replaced(photo: Path) -> None:
    with Decoder(seconds=SECONDS, memory_bytes=MEMORY_BYTES) as decoder:
        thread = threading.Thread(target=lambda: decode(decoder, photo))
        thread.start()
        thread.join()
        assert_decodes(decoder, photo)


def test_memory_is_limited(photo: Path) -> None:
    big = photo.with_name("big.png")
    # Small on the disk, a byte a pixel once it is decoded.
    rows = np.zeros((20_000, 20_000 // 8), dtype=np.uint8)
    write_png(big, rows, bit_depth=1, colour_type=0, width=20_000)
    memory_bytes = 400 << 20
    with Decoder(seconds=SECONDS, memory_bytes=memory_bytes) as decoder:
        error = refusal(lambda: decode(decoder, big, max_pixels=400_000_000))
        assert type(error) is UploadError
        assert error.code == "too_much_memory"
        assert "400 MiB" in error.message
        assert_decodes(decoder, photo)
    with stand_in("eat_memory", memory_bytes=memory_bytes) as decoder:
        assert refusal(lambda: decode(decoder, photo)).code == "too_much_memory"


def test_memory_of_a_large_heic_is_limited_as_clearly(photo: Path) -> None:
    big = photo.with_name("big.heic")
    corner_image(4000, 3000).save(big, "HEIF", tile_size=512, enc_params={"preset": "ultrafast"})
    with Decoder(seconds=SECONDS, memory_bytes=345 << 20) as decoder:
        error = refusal(lambda: decode(decoder, big, max_pixels=12_000_000))
        assert (type(error), error.code) == (UploadError, "too_much_memory")
        assert_decodes(decoder, photo)


def test_the_child_has_limits_and_no_secrets(
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    new_children: Callable[[], list[psutil.Process]],
) -> None:
    for name in ("DATABASE_URL", "SECRET_KEY", "REDIS_URL", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "s3cr3t-value")
    secret = photo.with_name("secret")
    secret.touch()
    descriptor = os.open(secret, os.O_RDONLY)
    try:
        os.set_inheritable(descriptor, True)
        with Decoder(seconds=SECONDS, memory_bytes=MEMORY_BYTES) as decoder:
            decode(decoder, photo)
            (child,) = new_children()
            environment = child.environ()
            assert set(environment) <= {
                "LC_ALL",
                "PYTHONPATH",
                "MALLOC_ARENA_MAX",
                "OPENBLAS_NUM_THREADS",
                "MALLOC_MMAP_THRESHOLD_",
                "MALLOC_TRIM_THRESHOLD_",
                "LD_LIBRARY_PATH",
            }
            assert "s3cr3t-value" not in str(environment)
            assert [file.path for file in child.open_files()] == []
            kinds = [
                str(entry.readlink()).split(":")[0]
                for entry in Path(f"/proc/{child.pid}/fd").iterdir()
            ]
            assert sorted(kinds) == ["/dev/null"] * 3 + ["pipe"] * 2
            assert child.rlimit(psutil.RLIMIT_AS) == (MEMORY_BYTES, MEMORY_BYTES)
            assert child.rlimit(psutil.RLIMIT_CORE) == (0, 0)
            assert child.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
            assert child.rlimit(psutil.RLIMIT_NOFILE) == (32, 32)
            assert os.getsid(child.pid) == child.pid
            assert Path(f"/proc/{child.pid}/oom_score_adj").read_text().strip() == "1000"
    finally:
        os.close(descriptor)


def test_a_request_to_stop_is_for_the_worker(
    photo: Path, new_children: Callable[[], list[psutil.Process]]
) -> None:
    with Decoder(seconds=SECONDS, memory_bytes=MEMORY_BYTES) as decoder:
        decode(decoder, photo)
        (child,) = new_children()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            child.send_signal(number)
        assert_decodes(decoder, photo)
        assert new_children() == [child]


class Interrupt(BaseException):
    """As Dagster's: raised out of a signal handler, no Exception."""


@contextmanager
def interrupts() -> Iterator[None]:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise Interrupt

    previous = signal.signal(decoder_standin.SIGNAL, interrupt)
    try:
        yield
    finally:
        signal.signal(decoder_standin.SIGNAL, previous)


def test_an_interrupt_passes_and_leaves_nothing_behind(
    photo: Path, new_children: Callable[[], list[psutil.Process]]
) -> None:
    with interrupts(), stand_in("interrupt_parent") as decoder:
        for _ in range(2):
            with pytest.raises(Interrupt):
                decode(decoder, photo)
            assert new_children() == []


def test_the_context_ends_the_child_whatever_happens(
    photo: Path, new_children: Callable[[], list[psutil.Process]]
) -> None:
    with pytest.raises(Interrupt), stand_in("good") as decoder:  # noqa: PT012
        decode(decoder, photo)
        raise Interrupt
    assert new_children() == []


def begin(decoder: Decoder, path: Path, max_side: int = MAX_SIDE) -> None:
    decoder.begin(path, max_pixels=MAX_PIXELS, max_side=max_side)


def wait_for_answer(decoder: Decoder) -> None:
    """Until the child that nobody listens to has something to say, or has ended."""
    assert decoder._child is not None
    decoder._child.process.await_output(time.monotonic() + SECONDS)


def test_a_file_is_decoded_ahead_of_its_turn(photo: Path) -> None:
    expected = decode_here(photo)
    with Decoder(seconds=SECONDS, memory_bytes=MEMORY_BYTES) as decoder:
        decode(decoder, photo)
        begin(decoder, photo)
        begin(decoder, photo)
        wait_for_answer(decoder)
        photo.unlink()
        assert decode(decoder, photo) == expected
        assert refusal(lambda: decode(decoder, photo)).code == "file_missing"


def test_a_cold_start_is_ahead_too(photo: Path) -> None:
    with Decoder(seconds=SECONDS, memory_bytes=MEMORY_BYTES) as decoder:
        begin(decoder, photo)
        assert_decodes(decoder, photo)
        assert_decodes(decoder, SAMPLES / "cat_close_up.png")


def test_an_answer_larger_than_the_pipe_waits(photo: Path) -> None:
    corner_image(1600, 1200).save(photo)
    with Decoder(seconds=SECONDS, memory_bytes=MEMORY_BYTES) as decoder:
        decode(decoder, photo)
        begin(decoder, photo, max_side=1600)
        wait_for_answer(decoder)
        (frame,) = decoder.decode(photo, max_pixels=MAX_PIXELS, max_side=1600).frames
        assert frame == corner_image(1600, 1200)
        assert_decodes(decoder, photo)


def test_a_file_begun_is_given_up_for_another(
    photo: Path, new_children: Callable[[], list[psutil.Process]]
) -> None:
    cat = SAMPLES / "cat_close_up.png"
    with Decoder(seconds=SECONDS, memory_bytes=MEMORY_BYTES) as decoder:
        begin(decoder, cat)
        assert_decodes(decoder, photo)
        assert_decodes(decoder, cat)
        begin(decoder, photo)
        begin(decoder, cat)
        assert_decodes(decoder, cat)
        begin(decoder, cat)
        wait_for_answer(decoder)
        assert decoder.probe(cat, max_pixels=MAX_PIXELS).format == "PNG"
        assert decoder.decode(cat, max_pixels=MAX_PIXELS, max_side=30).frames[0].width == 30
        assert len(new_children()) == 1
        begin(decoder, cat)
    assert new_children() == []


def test_what_is_wrong_with_a_file_begun_is_found_in_its_turn(tmp_path: Path, photo: Path) -> None:
    with Decoder(seconds=SECONDS, memory_bytes=MEMORY_BYTES) as decoder:
        begin(decoder, tmp_path / "missing")
        wait_for_answer(decoder)
        error = refusal(lambda: decode(decoder, tmp_path / "missing"))
        assert error.code == "file_missing"
        assert_decodes(decoder, photo)


@pytest.mark.parametrize(
    ("conduct", "code"),
    [("exit", "decoder_died"), ("segfault", "decoder_died"), ("hang", "decode_timeout")],
)
def test_a_child_that_breaks_on_a_file_begun(
    conduct: str, code: str, photo: Path, new_children: Callable[[], list[psutil.Process]]
) -> None:
    with stand_in(conduct, seconds=0.3 if conduct == "hang" else SECONDS) as decoder:
        for _ in range(2):
            begin(decoder, photo)
            if conduct != "hang":
                wait_for_answer(decoder)
            assert refusal(lambda: decode(decoder, photo)).code == code
            assert new_children() == []


def test_a_file_begun_gets_a_child_of_its_own_before_it_is_blamed(photo: Path) -> None:
    with stand_in("end_at_second") as decoder:
        for _ in range(3):
            decode(decoder, photo)
            begin(decoder, photo)
            wait_for_answer(decoder)
            assert [frame.size for frame in decode(decoder, photo).frames] == [(4, 2)]


def test_who_was_done_in_time_is_not_late(photo: Path) -> None:
    with stand_in("good", seconds=1.0) as decoder:
        decode(decoder, photo)
        begin(decoder, photo)
        wait_for_answer(decoder)
        assert decoder._child is not None
        decoder._child.asked_at -= 10
        assert [frame.size for frame in decode(decoder, photo).frames] == [(4, 2)]


def test_who_hangs_since_it_was_begun_is_late_at_once(
    photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stand_in("hang_at_second") as decoder:
        decode(decoder, photo)
        begin(decoder, photo)
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + SECONDS + 1)
        assert refusal(lambda: decode(decoder, photo)).code == "decode_timeout"


def test_begin_raises_nothing_but_an_interrupt(
    photo: Path, new_children: Callable[[], list[psutil.Process]]
) -> None:
    command = ["/nowhere/python"]
    with Decoder(seconds=SECONDS, memory_bytes=MEMORY_BYTES, command=command) as decoder:
        begin(decoder, photo)
        assert refusal(lambda: decode(decoder, photo)).code == "decoder_unavailable"
    with stand_in("end_at_start") as decoder:
        begin(decoder, photo)
        wait_for_answer(decoder)
        assert refusal(lambda: decode(decoder, photo)).code == "decoder_unavailable"
    with interrupts(), stand_in("interrupt_parent") as decoder:

        def begin_and_decode() -> None:
            begin(decoder, photo)
            decode(decoder, photo)

        with pytest.raises(Interrupt):
            begin_and_decode()
    assert new_children() == []


def test_a_file_is_only_probed(decoder: Decoder, tmp_path: Path, photo: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4")
    for path in (photo, clip):
        here = probe(path, max_pixels=MAX_PIXELS)
        assert decoder.probe(path, max_pixels=MAX_PIXELS) == here
    (tmp_path / "text").write_text("hello")
    error = refusal(lambda: decoder.probe(tmp_path / "text", max_pixels=MAX_PIXELS))
    assert error.code == "unsupported_type"


@pytest.mark.parametrize("conduct", ["hang", "exit", "not_a_format", "too_many_pixels", "a_list"])
def test_a_probe_is_limited_and_checked_as_well(conduct: str, photo: Path) -> None:
    with stand_in(conduct, seconds=0.3) as decoder:
        error = refusal(lambda: decoder.probe(photo, max_pixels=MAX_PIXELS))
    assert error.code == ("decode_timeout" if conduct == "hang" else "decoder_died")


@pytest.mark.parametrize(
    ("command", "how"),
    [
        (["/nowhere/python"], "No such file"),
        (["/"], "Permission denied"),
        (["false"], "exit status 1"),
        ([sys.executable, "-P", decoder_standin.__file__, "end_at_start"], "exit status 7"),
        ([sys.executable, "-P", decoder_standin.__file__, "other_program"], "protocol"),
    ],
)
def test_no_file_is_blamed_for_a_child_that_does_not_start(
    command: list[str],
    how: str,
    photo: Path,
    new_children: Callable[[], list[psutil.Process]],
) -> None:
    before = descriptors()
    with Decoder(seconds=SECONDS, memory_bytes=MEMORY_BYTES, command=command) as decoder:
        error = refusal(lambda: decode(decoder, photo))
        assert type(error) is BackendUnavailable
        assert error.code == "decoder_unavailable"
        assert how in error.message
        assert new_children() == []
    assert descriptors() == before


def test_a_start_that_hangs_is_given_up(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_module, "_START_SECONDS", 0.2)
    command = [sys.executable, "-c", "import signal; signal.pause()"]
    with Decoder(seconds=SECONDS, memory_bytes=MEMORY_BYTES, command=command) as decoder:
        error = refusal(lambda: decode(decoder, photo))
    assert error.code == "decoder_unavailable"
    assert "0.2 s" in error.message


PARENT = """
import sys, time
from pathlib import Path
from vuemantics_pipeline.media.decoder import Decoder
from vuemantics_pipeline.media.probe import probe
decoder = Decoder(seconds=60, memory_bytes=3 << 30)
decoder.decode(Path(sys.argv[1]), max_pixels=10_000, max_side=60)
print("warm", flush=True)
time.sleep(600)
"""


def test_a_killed_worker_takes_its_child_along(photo: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(photo)], stdout=-1) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"warm\n"
        (child,) = psutil.Process(worker.pid).children()
        # Stopped, it cannot see its standard input end: only the kernel can end it.
        child.suspend()
        worker.kill()
    while is_alive(child):
        time.sleep(0.02)


def is_alive(process: psutil.Process) -> bool:
    """Who reaps an orphan is the system's affair; it may stay a zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_real_child_asks_for_its_arguments_and_its_parent() -> None:
    def run(*arguments: str) -> str:
        command = [*decoder_module.COMMAND, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == 1
        return done.stderr

    assert "usage" in run()
    assert "parent process is gone" in run("1", "1000")
