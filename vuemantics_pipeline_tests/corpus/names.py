"""Names a client could give, and paths that lead elsewhere."""

import os
import stat
from collections.abc import Callable, Iterator

from vuemantics_pipeline_tests.corpus.samples import COMPLETED, GENERATED, Place, Sample
from vuemantics_pipeline_tests.corpus.sound import sound

_OUTSIDE = "path_outside_uploads"
_MISSING = "file_missing"


def names() -> Iterator[Sample]:
    yield from _names()
    yield from _paths()
    yield from _not_files()
    yield from _links()


def _photo(place: Place) -> None:
    place.path.write_bytes(sound("jpg"))


def _nothing(place: Place) -> None:
    pass


def _names() -> Iterator[Sample]:
    # What is no text column's: NUL cannot be stored, so that a client gets in only what stands
    # for it.
    for name in (
        "",
        " ",
        ".",
        "..",
        ".hidden.jpg",
        "no_extension",
        "two\nlines.jpg",
        "carriage\r\nreturn.jpg",
        "tab\tand\vand\f.jpg",
        "escape\x1b[31m\x1b]0;title\x07.jpg",
        "nul_escaped\\x00.jpg",
        "nul_encoded%00.jpg",
        "nul_symbol\u2400.jpg",
        "delete\x7f\x80\x9f.jpg",
        "right_to_left\u202egpj.exe",
        "\u0635\u0648\u0631\u0629 \u05ea\u05de\u05d5\u05e0\u05d4.jpg",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467\U0001f3fd.jpg",
        "e\u0301" * 40 + ".jpg",
        "Z" + "\u0300" * 500 + ".jpg",
        "\ufeffbyte_order_mark.jpg",
        "\ufffe\uffff\U0010ffff.jpg",
        "\u00e9" * 125 + "a.jpg",  # 255 bytes
        "\U0001f600" * 62 + "abc.jpg",  # 255 bytes
        "x" * 251 + ".jpg",
        "long" * 5000 + ".jpg",
        "../../../../etc/passwd",
        "/etc/passwd",
        "C:\\Windows\\win.ini",
        "file:///etc/passwd",
        "CON.jpg",
        "a" * 20 + "/" * 20 + ".jpg",
        "quote'\";-- DROP TABLE uploads.jpg",
        "%s%n%(x)s{0}{x.__class__}$HOME`id`.jpg",
        "<script>alert(1)</script>.jpg",
        "[red]rich[/red] [link=x]markup[/].jpg",
        "**bold** | table | [a](b).jpg",
        "-rf.jpg",
        "*?.jpg",
    ):
        yield Sample(GENERATED, name, _photo, frozenset({COMPLETED}))


def _paths() -> Iterator[Sample]:
    for name, file_path in {
        "path_that_climbs": "../outside/photo.jpg",
        "path_that_climbs_and_returns": "{folder}/../../{folder}/original.jpg",
        "path_that_climbs_far": "../" * 40 + "etc/passwd",
        "path_absolute": "{outside}/photo.jpg",
        "path_absolute_device": "/dev/zero",
        "path_empty": "",
        "path_dot": ".",
        "path_home": "~/photo.jpg",
        "path_file_url": "file://{outside}/photo.jpg",
        "path_with_newline": "{folder}/ori\nginal.jpg",
        "path_component_too_long": "{folder}/" + "x" * 300 + ".jpg",
        "path_too_long": "x/" * 5000 + "original.jpg",
        "path_backslashes": "..\\outside\\photo.jpg",
        "path_unicode": "{folder}/\u202e\U0001f600.jpg",
        "path_surprising_folder": "{folder}/original.jpg/photo.jpg",
    }.items():
        yield Sample(GENERATED, name, _photo, file_path=file_path)


def _not_files() -> Iterator[Sample]:
    unsupported = frozenset({"unsupported_type"})

    def sample(name: str, put: Callable[[Place], object], *expected: str) -> Sample:
        return Sample(GENERATED, name, put, frozenset(expected) or unsupported)

    yield sample("empty.jpg", lambda place: place.path.touch(), "empty_file")
    yield sample("one_byte.jpg", lambda place: place.path.write_bytes(b"\xff"))
    yield sample("missing.jpg", _nothing, _MISSING)
    yield sample("folder.jpg", lambda place: place.path.mkdir())
    yield sample("fifo.jpg", lambda place: os.mkfifo(place.path))
    yield sample("socket.jpg", _socket)
    yield sample("device_zero.jpg", lambda place: _device(place, 1, 5))
    yield sample("device_full.jpg", lambda place: _device(place, 1, 7))
    yield sample("zeros.jpg", lambda place: place.path.write_bytes(bytes(100_000)))
    for name, content in {
        "pdf.jpg": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj<</OpenAction<</S/Launch>>>>endobj",
        "zip.jpg": b"PK\3\4" + bytes(60),
        "program.jpg": b"\x7fELF\2\1\1" + bytes(60),
        "windows_program.jpg": b"MZ" + bytes(100),
        "shell_script.jpg": b"#!/bin/sh\nrm -rf /\n",
        "pickle.jpg": b"\x80\4\x95\x19\0\0\0\0\0\0\0\x8c\5posix\x94\x8c\6system\x94\x93\x94.",
        "utf16_text.jpg": "\ufeffnot a photo".encode("utf-16-le"),
        "photoshop.jpg": b"8BPS\0\1" + bytes(60),
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) (r) file\n",
        "jpeg_2000.jpg": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60),
    }.items():
        yield sample(name, lambda place, content=content: place.path.write_bytes(content))  # type: ignore[misc]
    for size in (2, 9):
        yield Sample(
            GENERATED,
            f"photo_in_{size}_gib.jpg",
            lambda place, size=size: _sparse(place, size << 30),  # type: ignore[misc]
            is_heavy=True,
        )


def _socket(place: Place) -> None:
    os.mknod(place.path, stat.S_IFSOCK | 0o600)


def _device(place: Place, major: int, minor: int) -> None:
    os.mknod(place.path, stat.S_IFCHR | 0o666, os.makedev(major, minor))


def _sparse(place: Place, size: int) -> None:
    """A photo with a hole of gigabytes behind it, which takes no room on most file systems."""
    _photo(place)
    os.truncate(place.path, size)


def _links() -> Iterator[Sample]:
    for name, target in {
        "link_outside.jpg": "{outside}/photo.jpg",
        "link_to_device.jpg": "/dev/zero",
        "link_to_process.jpg": "/proc/self/environ",
        "link_to_descriptor.jpg": "/proc/self/fd/0",
        "link_to_itself.jpg": "original.jpg",
        "link_to_uploads.jpg": "../..",
    }.items():
        yield Sample(
            GENERATED,
            name,
            lambda place, target=target: place.path.symlink_to(  # type: ignore[misc]
                target.format(outside=place.outside)
            ),
            frozenset({_OUTSIDE}),
        )
    yield Sample(
        GENERATED,
        "link_to_nothing.jpg",
        lambda place: place.path.symlink_to("nothing.jpg"),
        frozenset({_MISSING}),
    )
    # The names that the pipeline itself writes.
    for name in ("thumb_256.jpg", ".thumb_256.jpg.part"):
        yield Sample(GENERATED, f"link_in_place_of_{name}", _photo_and_link(name))
        yield Sample(GENERATED, f"folder_in_place_of_{name}", _photo_and_folder(name))


def _photo_and_link(name: str) -> Callable[[Place], None]:
    def put(place: Place) -> None:
        _photo(place)
        place.path.with_name(name).symlink_to(place.outside / "photo.jpg")

    return put


def _photo_and_folder(name: str) -> Callable[[Place], None]:
    def put(place: Place) -> None:
        _photo(place)
        place.path.with_name(name).mkdir()

    return put
