"""Videos that lie about their length, size or whereabouts."""

import io
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import av
import numpy as np

from vuemantics_pipeline_tests.corpus.samples import COMPLETED, GENERATED, Place, Sample, made
from vuemantics_pipeline_tests.corpus.sound import film, sound

_UNREADABLE = "unreadable_media"
_SIGN = b"\x80\0\0\0"


def movies() -> Iterator[Sample]:
    yield from _without_parts()
    yield from _durations()
    yield from _tables()
    yield from _frames()
    yield from _other_containers()
    yield from _references()
    yield from _metadata()


def box(kind: bytes, *content: bytes) -> bytes:
    """An ISO base media box (ISO/IEC 14496-12)."""
    data = b"".join(content)
    return struct.pack(">I", len(data) + 8) + kind + data


def _mp4() -> bytes:
    """A sound MP4 whose moov comes last, so that it may change its size."""
    return sound("mp4")


def _cut(name: bytes) -> bytes:
    """A sound MP4 without one of its outermost boxes."""
    body, at = _mp4(), 0
    while body[at + 4 : at + 8] != name:
        at += int.from_bytes(body[at : at + 4], "big")
    return body[:at] + body[at + int.from_bytes(body[at : at + 4], "big") :]


def _patched(name: bytes, skip: int, new: bytes, body: bytes | None = None) -> bytes:
    """An MP4 with bytes changed wherever a box of this name begins, `skip` behind the name."""
    changed = bytearray(_mp4() if body is None else body)
    at = changed.index(name)
    while at >= 0:
        changed[at + 4 + skip : at + 4 + skip + len(new)] = new
        at = changed.find(name, at + 4)
    return bytes(changed)


def _without_parts() -> Iterator[Sample]:
    yield made("without_moov.mp4", lambda: _cut(b"moov"), _UNREADABLE)
    yield made("without_mdat.mp4", lambda: _cut(b"mdat"), _UNREADABLE)
    yield made("only_ftyp.mp4", lambda: _mp4()[:32], _UNREADABLE)
    yield made("moov_of_nothing.mp4", lambda: _mp4()[:32] + box(b"moov"), _UNREADABLE)
    yield made("only_sound.mp4", _only_sound, "unsupported_type")
    yield made("zero_frames.mp4", lambda: _patched(b"stsz", 8, bytes(4)))
    yield made("box_size_0.mp4", lambda: _patched(b"mdat", -8, bytes(4)))
    yield made("box_size_4.mp4", lambda: _patched(b"moov", -8, b"\0\0\0\4"), _UNREADABLE)
    yield made("box_size_16_eib.mp4", lambda: _mp4()[:32] + b"\0\0\0\1mdat" + b"\xff" * 8)
    yield made("boxes_nested_100000.mp4", lambda: _mp4()[:32] + _nested(100_000), _UNREADABLE)
    yield made("boxes_free_100000.mp4", lambda: _mp4()[:32] + box(b"free") * 100_000 + _mp4()[32:])
    yield made("mdat_of_zeros.mp4", _zeroed, _UNREADABLE)


def _only_sound() -> bytes:
    """What a phone records as a memo."""
    output = io.BytesIO()
    with av.open(output, "w", format="mp4", options={"fflags": "+bitexact"}) as file:
        stream = file.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return output.getvalue()


def _nested(depth: int) -> bytes:
    total = 8 * depth
    return b"".join(struct.pack(">I", total - 8 * level) + b"moov" for level in range(depth))


def _zeroed() -> bytes:
    body = bytearray(_mp4())
    at = body.index(b"mdat")
    size = int.from_bytes(body[at - 4 : at], "big")
    body[at + 4 : at - 4 + size] = bytes(size - 8)
    return bytes(body)


def _durations() -> Iterator[Sample]:
    # mvhd, tkhd and mdhd of version 0: the duration stands 16, 20 and 16 bytes behind the name.
    for name, value in (
        ("zero", bytes(4)),
        ("huge", b"\x7f\xff\xff\xff"),
        ("negative", _SIGN),
        ("unknown", b"\xff" * 4),
    ):

        def lie(value: bytes = value) -> bytes:
            body = _patched(b"mvhd", 16, value)
            return _patched(b"mdhd", 16, value, _patched(b"tkhd", 20, value, body))

        yield made(f"duration_{name}.mp4", lie, COMPLETED)
    yield made("timescale_0.mp4", lambda: _patched(b"mdhd", 12, bytes(4)))
    yield made("timescale_huge.mp4", lambda: _patched(b"mdhd", 12, b"\xff" * 4))
    yield made("timescale_of_movie_0.mp4", lambda: _patched(b"mvhd", 12, bytes(4)))
    yield made("edit_list_huge.mp4", lambda: _patched(b"elst", 8, b"\x7f\xff\xff\xff" * 2))
    yield made("edit_list_negative.mp4", lambda: _patched(b"elst", 12, _SIGN))
    yield made(
        "frames_hours_apart.mp4",
        lambda: film("mp4", "libx264", frames=3, times=[0, 12 * 36_000, 24 * 36_000]),
        COMPLETED,
    )
    yield made("one_frame.mp4", lambda: film("mp4", "libx264", frames=1), COMPLETED)
    yield made("two_frames.webm", lambda: film("webm", "libvpx", frames=2), COMPLETED)


def _tables() -> Iterator[Sample]:
    for name in (b"stsz", b"stts", b"stsc", b"stco", b"stss", b"ctts", b"dref", b"stsd", b"elst"):
        if name not in _mp4():
            continue
        at = 8 if name == b"stsz" else 4
        for what, value in (
            ("all", b"\xff" * 4),
            ("many", b"\x0f\xff\xff\xff"),
            ("none", bytes(4)),
        ):
            yield made(
                f"{name.decode()}_count_{what}.mp4",
                partial(_patched, name, at, value),
            )
    yield made("sample_sizes_2_gib.mp4", lambda: _patched(b"stsz", 4, b"\x7f\xff\xff\xff"))
    yield made("sample_offsets_beyond.mp4", lambda: _patched(b"stco", 8, b"\x7f\xff\xff\xff"))
    yield made("frame_durations_huge.mp4", lambda: _patched(b"stts", 12, b"\x7f\xff\xff\xff"))
    yield made("frame_durations_0.mp4", lambda: _patched(b"stts", 12, bytes(4)))
    yield made("matrix_of_zeros.mp4", lambda: _patched(b"tkhd", 40, bytes(36)))
    yield made("matrix_of_ones.mp4", lambda: _patched(b"tkhd", 40, b"\xff" * 36))
    yield made("size_declared_0.mp4", lambda: _patched(b"avc1", 24, bytes(4)), COMPLETED)
    yield made("size_declared_65535.mp4", lambda: _patched(b"avc1", 24, b"\xff" * 4))
    yield made("extradata_garbage.mp4", lambda: _patched(b"avcC", 4, b"\xff" * 20))
    yield made(
        "codec_unknown.mp4",
        lambda: _mp4().replace(b"avc1", b"zzzz"),
        *(_UNREADABLE, "unsupported_type"),
    )
    yield made("codec_is_pictures.mp4", lambda: _mp4().replace(b"avc1", b"png "))


def _frames() -> Iterator[Sample]:
    yield made(
        "frames_10000.mp4",
        lambda: film("mp4", "mpeg4", frames=10_000, rate=25, size=(16, 16)),
        COMPLETED,
    )
    yield made(
        "frames_10000.webm",
        lambda: film("webm", "libvpx", frames=10_000, rate=25, size=(16, 16)),
        COMPLETED,
        is_heavy=True,
    )
    yield made(
        "frame_of_19_megapixels.mp4",
        lambda: film("mp4", "mpeg4", frames=1, size=(8176, 2304)),
        is_heavy=True,
    )
    yield made("two_by_two.mp4", lambda: film("mp4", "mpeg4", frames=3, size=(2, 2)), COMPLETED)
    yield made("8176_x_16.mp4", lambda: film("mp4", "mpeg4", frames=3, size=(8176, 16)), COMPLETED)
    yield made(
        "size_grows_within.mpg",
        lambda: sound("mpg") + film("mpeg", "mpeg1video", rate=25, size=(4000, 2000), frames=2),
    )
    # A key frame of VP8 says its size behind this start code (RFC 6386, 9.1).
    for side, is_heavy in ((16_383, False), (15_000, True)):
        yield made(
            f"frame_claimed_{side}_x_{side}.webm",
            partial(_after, b"\x9d\x01\x2a", 0, struct.pack("<HH", side, side)),
            is_heavy=is_heavy,
        )
    yield made("frame_claimed_4095_x_4095.mpg", lambda: _mpeg(b"\xff" * 3))
    yield made("frame_claimed_0_x_0.mpg", lambda: _mpeg(bytes(3)))
    yield made("mpeg_twice.mpg", lambda: sound("mpg") * 2, COMPLETED)
    yield made("mp4_twice.mp4", lambda: _mp4() * 2)


def _mpeg(size: bytes) -> bytes:
    """An MPEG whose sequence headers claim another size: 12 bits each of width and height."""
    return sound("mpg").replace(b"\0\0\1\xb3\x04\x00\x30", b"\0\0\1\xb3" + size)


def _metadata() -> Iterator[Sample]:
    """What the tags of a phone's video could hold."""
    prefix = "com.apple.quicktime."
    for name, tags in {
        "control_characters": {"make": "A\x1b[31m\nB\u202e", "model": "\x07" * 300},
        "long": {"make": "M" * 100_000, "title": "T" * 1_000_000},
        "date_wrong": {"creationdate": "9999-99-99T99:99:99+9999"},
        "date_of_digits": {"creationdate": "\u0662\u0660\u0662\u0664-01-01T00:00:00"},
        "place_wrong": {"location.ISO6709": "+999.9999-999.9999/"},
    }.items():
        yield made(
            f"tags_{name}.mov",
            partial(
                film,
                "mov",
                "mpeg4",
                options={"movflags": "use_metadata_tags"},
                tags={prefix + key: value for key, value in tags.items()},
            ),
            COMPLETED,
        )


def _other_containers() -> Iterator[Sample]:
    yield made("only_a_header.flv", lambda: sound("flv")[:13], _UNREADABLE)
    yield made("tag_size_16_mib.flv", lambda: sound("flv")[:14] + b"\xff" * 64)
    yield made("script_data_nested.flv", _nested_script, _UNREADABLE)
    yield made("only_a_header.avi", lambda: sound("avi")[:12], _UNREADABLE)
    yield made("without_index.avi", lambda: sound("avi").replace(b"idx1", b"JUNK"), COMPLETED)
    # avih: microseconds a frame, then 12 bytes on the number of frames; strh: scale, rate.
    yield made("frames_claimed_4_thousand_million.avi", lambda: _avi(b"avih", 20, b"\xff" * 4))
    yield made("rate_0.avi", lambda: _avi(b"strh", 24, bytes(8)))
    yield made("rate_huge.avi", lambda: _avi(b"strh", 28, b"\xff" * 4))
    yield made("length_huge.avi", lambda: _avi(b"strh", 36, b"\xff" * 4))
    yield made("size_declared_65535.avi", lambda: _avi(b"strf", 8, b"\0\0\1\0" * 2))
    yield made("riff_size_0.avi", lambda: _avi(b"RIFF", 0, bytes(4)))
    yield made("list_size_4_gib.avi", lambda: _avi(b"LIST", 0, b"\xff" * 4))
    # Matroska: DocType, Segment's size (unknown), TimestampScale 2AD7B1, Duration 4489.
    yield made("only_a_header.webm", lambda: sound("webm")[:64], _UNREADABLE)
    yield made("timescale_0.webm", lambda: _after(b"\x2a\xd7\xb1", 1, bytes(3)))
    yield made("timescale_huge.webm", lambda: _after(b"\x2a\xd7\xb1", 1, b"\xff" * 3))
    for name, value in (
        ("negative", -1e9),
        ("huge", 1e300),
        ("infinite", float("inf")),
        ("not_a_number", float("nan")),
        ("zero", 0.0),
    ):
        yield made(
            f"duration_{name}.webm", partial(_after, b"\x44\x89", 1, struct.pack(">d", value))
        )
    yield made("matroska.mkv", lambda: film("matroska", "mpeg4"), "unsupported_type")
    yield made("only_starts.mpg", lambda: b"\0\0\1\xba" * 5000, _UNREADABLE)
    yield made("sequence_headers.mpg", lambda: b"\0\0\1\xb3\xff\xff\xff\xff" * 5000)
    yield made("pack_and_noise.mpg", lambda: sound("mpg")[:64] + bytes(range(256)) * 4000)


def _nested_script() -> bytes:
    """AMF objects within objects: onMetaData of a depth that nobody needs."""
    data = b"\2\0\nonMetaData" + b"\3\0\1a" * 50_000
    tag = b"\x12" + len(data).to_bytes(3, "big") + bytes(7) + data
    return b"FLV\1\1\0\0\0\x09\0\0\0\0" + tag + struct.pack(">I", len(tag))


def _avi(name: bytes, skip: int, new: bytes) -> bytes:
    return _patched(name, skip, new, sound("avi"))


def _after(name: bytes, skip: int, new: bytes) -> bytes:
    """A sound WebM with bytes changed behind an element's id and its size."""
    body = bytearray(sound("webm"))
    at = body.index(name) + len(name) + skip
    body[at : at + len(new)] = new
    return bytes(body)


# What would make FFmpeg, or a browser, open something else


def _references() -> Iterator[Sample]:
    texts: dict[str, Callable[[Place], str]] = {
        "playlist.m3u8": _playlist,
        "playlist_named.mp4": _playlist,
        "playlist_named.jpg": _playlist,
        "concat.ffconcat": lambda place: (
            f"ffconcat version 1.0\nfile '{place.outside}/film.mp4'\nfile '{place.url}/film.mp4'\n"
        ),
        "concat_named.avi": lambda place: (
            f"ffconcat version 1.0\nfile {place.outside}/film.mp4\nduration 1\n"
        ),
        "session.sdp": lambda place: (
            f"v=0\no=- 0 0 IN IP4 {_host(place)}\ns=x\nc=IN IP4 {_host(place)}\nt=0 0\n"
            "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
        ),
        "manifest.mpd": lambda place: (
            '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
            f"<BaseURL>{place.url}/</BaseURL><Period><AdaptationSet>"
            f'<Representation id="1" bandwidth="1"><BaseURL>{place.outside}/film.mp4</BaseURL>'
            "</Representation></AdaptationSet></Period></MPD>"
        ),
        "reference.asx": lambda place: (
            f'<asx version="3.0"><entry><ref href="{place.url}/film.mp4"/></entry></asx>'
        ),
        "drawing.svg": _drawing,
        "drawing_named.jpg": _drawing,
        "page.html": lambda place: f'<html><img src="{place.url}/a.jpg">',
        "page_named.jpg": lambda place: f'<!DOCTYPE html><img src="{place.url}/a.jpg">',
        "entity.xml": lambda place: (
            f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file://{place.outside}/photo.jpg">'
            f'<!ENTITY c SYSTEM "{place.url}/c">]><a>&b;&c;</a>'
        ),
        "script.mvg": lambda place: f"push graphic-context\nimage over 0,0 0,0 '{place.url}/a'\n",
    }
    for name, text in texts.items():
        yield Sample(
            GENERATED,
            name,
            lambda place, text=text: place.path.write_text(text(place)),  # type: ignore[misc]
            frozenset({"unsupported_type"}),
            "." + name.rpartition(".")[2],
        )
    # QuickTime data that stands in another file: 'alis' and 'url ' data references.
    for kind in (b"url ", b"alis", b"urn "):
        yield Sample(
            GENERATED,
            f"data_reference_{kind.decode().strip()}.mov",
            lambda place, kind=kind: place.path.write_bytes(  # type: ignore[misc]
                _data_elsewhere(kind, [f"{place.outside}/film.mp4", f"{place.url}/film.mp4"])
            ),
            extension=".mov",
        )
    yield Sample(
        GENERATED,
        "reference_movie.mov",
        lambda place: place.path.write_bytes(
            box(b"ftyp", b"qt  \0\0\0\0qt  ") + _reference_movie(f"{place.url}/film.mp4")
        ),
        frozenset({_UNREADABLE, "unsupported_type"}),
        ".mov",
    )


def _host(place: Place) -> str:
    return place.url.partition("://")[2].partition(":")[0]


def _playlist(place: Place) -> str:
    return (
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n"
        f"{place.outside}/film.mp4\n#EXTINF:1,\nfile://{place.outside}/film.mp4\n#EXTINF:1,\n"
        f"concat:{place.outside}/film.mp4|{place.outside}/photo.jpg\n#EXTINF:1,\n"
        f"{place.url}/film.mp4\n#EXT-X-ENDLIST\n"
    )


def _drawing(place: Place) -> str:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
        f'<image xlink:href="{place.url}/a.png"/><image xlink:href="file://{place.outside}/photo.jpg"/>'
        "</svg>"
    )


def _reference_movie(url: str) -> bytes:
    location = url.encode() + b"\0"
    reference = box(b"rdrf", bytes(4), b"url ", struct.pack(">I", len(location)), location)
    return box(b"moov", box(b"rmra", box(b"rmda", reference)))


def _data_elsewhere(kind: bytes, locations: Sequence[str]) -> bytes:
    """A sound movie that says its frames are in other files."""
    entries = [box(kind, bytes(4), location.encode() + b"\0") for location in locations]
    table = box(b"dref", bytes(4), struct.pack(">I", len(entries)), *entries)
    return _replaced(sound("mov"), [b"moov", b"trak", b"mdia", b"minf", b"dinf"], b"dref", table)


def _replaced(body: bytes, path: Sequence[bytes], name: bytes, new: bytes) -> bytes:
    """A movie with another box in place of one, on a path of boxes that change their sizes."""
    parts, at = [], 0
    wanted = path[0] if path else name
    while at < len(body):
        size = int.from_bytes(body[at : at + 4], "big")
        kind, inner = body[at + 4 : at + 8], body[at + 8 : at + size]
        if kind == wanted:
            parts.append(box(kind, _replaced(inner, path[1:], name, new)) if path else new)
        else:
            parts.append(body[at : at + size])
        at += size
    return b"".join(parts)
