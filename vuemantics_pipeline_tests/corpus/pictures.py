"""Pictures that lie, explode or never end, each made byte by byte."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import partial

from PIL import Image

from vuemantics_pipeline_tests.corpus.samples import COMPLETED, Sample, made
from vuemantics_pipeline_tests.corpus.sound import encoded, picture, sound

_REFUSED = ("unreadable_media", "too_many_pixels", "too_much_memory")
_MIB = 1 << 20


def pictures() -> Iterator[Sample]:
    yield from _png()
    yield from _jpeg()
    yield from _exif()
    yield from _tiff()
    yield from _gif()
    yield from _others()
    yield from _frames()
    yield from _thin()


# PNG (ISO/IEC 15948)


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks, with right lengths and checksums."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _ihdr(width: int, height: int, depth: int = 8, colour: int = 2) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)


def _zeros(size: int) -> bytes:
    """A zlib stream of so many zero bytes, made without holding them."""
    packer = zlib.compressobj(9)
    step = bytes(_MIB)
    parts = [packer.compress(step) for _ in range(size // _MIB)]
    return b"".join([*parts, packer.compress(bytes(size % _MIB)), packer.flush()])


def _flat_png(*before: tuple[bytes, bytes], after: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """A sound black picture of 32 x 32 with chunks before and behind its pixels."""
    pixels = (b"IDAT", _zeros(32 * (1 + 3 * 32)))
    return png(_ihdr(32, 32), *before, pixels, *after, (b"IEND", b""))


def _bilevel(width: int, height: int) -> bytes:
    pixels = (b"IDAT", _zeros(height * (1 + (width + 7) // 8)))
    return png(_ihdr(width, height, 1, 0), pixels, (b"IEND", b""))


def _png() -> Iterator[Sample]:
    bomb = partial(_zeros, 64 * _MIB)
    yield made("text_bomb_ztxt.png", lambda: _flat_png((b"zTXt", b"Comment\0\0" + bomb())))
    yield made("text_bomb_itxt.png", lambda: _flat_png((b"iTXt", b"Comment\0\1\0en\0\0" + bomb())))
    yield made(
        "text_bomb_behind.png",
        lambda: _flat_png(after=[(b"zTXt", b"Comment\0\0" + bomb())]),
    )
    yield made("icc_bomb.png", lambda: _flat_png((b"iCCP", b"icc\0\0" + bomb())))
    yield made(
        "icc_bomb_1_gib.png",
        lambda: _flat_png((b"iCCP", b"icc\0\0" + _zeros(1024 * _MIB))),
        is_heavy=True,
    )
    yield made(
        "text_bombs_many.png",
        lambda: _flat_png(*[(b"zTXt", b"Comment\0\0" + _zeros(900_000))] * 200),
    )
    yield made(
        "text_chunks_100000.png", lambda: _flat_png(*[(b"tEXt", b"k\0v")] * 100_000), COMPLETED
    )
    yield made("icc_garbage.png", lambda: _flat_png((b"iCCP", b"icc\0\0" + _zeros(500))), COMPLETED)
    yield made("exif_garbage.png", lambda: _flat_png((b"eXIf", b"MM\0*" + b"\xff" * 64)), COMPLETED)
    yield made("text_with_nul.png", lambda: _flat_png((b"tEXt", b"Title\0a\0b\0c")))
    yield made(
        "giant_declared.png",
        lambda: png(_ihdr(100_000, 100_000), (b"IDAT", _zeros(1000)), (b"IEND", b"")),
        "too_many_pixels",
    )
    yield made(
        "largest_declared.png",
        lambda: png(_ihdr(2**31 - 1, 2**31 - 1), (b"IDAT", _zeros(1000)), (b"IEND", b"")),
        *_REFUSED,
    )
    yield made(
        "overflowing_declared.png",
        lambda: png(_ihdr(2**32 - 1, 2**32 - 1), (b"IDAT", _zeros(1000)), (b"IEND", b"")),
        *_REFUSED,
    )
    for width, height in ((0, 32), (32, 0), (0, 0)):
        yield made(
            f"declared_{width}_x_{height}.png",
            lambda width=width, height=height: png(  # type: ignore[misc]
                _ihdr(width, height), (b"IDAT", _zeros(1000)), (b"IEND", b"")
            ),
            "unreadable_media",
        )
    yield made("depth_3.png", lambda: png(_ihdr(8, 8, 3), (b"IEND", b"")), "unreadable_media")
    yield made("no_pixels.png", lambda: png(_ihdr(32, 32), (b"IEND", b"")))
    yield made("only_a_header.png", lambda: png(_ihdr(32, 32)))
    yield made("chunk_length_4_gib.png", lambda: png(_ihdr(9, 9)) + b"\xff\xff\xff\xffIDATx")
    yield made("chunk_length_sign.png", lambda: png(_ihdr(9, 9)) + b"\x80\0\0\0zTXtx")
    yield made("wrong_checksum.png", lambda: sound("png").replace(b"IDAT", b"IDAU", 1))
    yield made(
        "more_pixels_than_declared.png",
        lambda: png(_ihdr(8, 8), (b"IDAT", _zeros(64 * _MIB)), (b"IEND", b"")),
    )
    yield made("bilevel_16_megapixels.png", lambda: _bilevel(4000, 4000), COMPLETED)
    yield made("bilevel_200_megapixels.png", lambda: _bilevel(20_000, 10_000), is_heavy=True)
    yield made(
        "rgba64_200_megapixels.png",
        lambda: png(
            _ihdr(20_000, 10_000, 16, 6),
            (b"IDAT", _zeros(10_000 * (1 + 8 * 20_000))),
            (b"IEND", b""),
        ),
        is_heavy=True,
    )


# JPEG (ITU T.81)


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg_with(*segments: bytes, behind: bytes = b"") -> bytes:
    """A sound JPEG with segments put in front and bytes put behind."""
    body = sound("jpg")
    return body[:2] + b"".join(segments) + body[2:] + behind


def _resized_jpeg(width: int, height: int) -> bytes:
    """A small JPEG whose frame header says something else."""
    body = bytearray(sound("jpg"))
    at = body.index(b"\xff\xc0")
    body[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(body)


def _zip() -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as archive:
        archive.writestr(zipfile.ZipInfo("evil.sh"), "#!/bin/sh\ntouch pwned\n")
    return output.getvalue()


def _many_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG that goes over all its blocks again and again (LJT-01-004)."""
    body = encoded(Image.new("L", (side, side)), "JPEG", progressive=True)
    last = body.rindex(b"\xff\xda")
    # What lies between a scan and the last one are tables; the last scan may be repeated.
    return body[:last] + body[last:-2] * scans + b"\xff\xd9"


def _jpeg() -> Iterator[Sample]:
    yield made("jpeg_and_zip.jpg", lambda: jpeg_with(behind=_zip()), COMPLETED)
    yield made("jpeg_and_html.jpg", lambda: jpeg_with(behind=b"<script>1</script>"), COMPLETED)
    yield made("jpeg_and_5_mib.jpg", lambda: jpeg_with(behind=b"\xff\xd8" * (5 << 19)), COMPLETED)
    yield made("giant_declared.jpg", lambda: _resized_jpeg(65_500, 65_500), "too_many_pixels")
    yield made("largest_declared.jpg", lambda: _resized_jpeg(65_535, 65_535), *_REFUSED)
    yield made("within_limits_declared.jpg", lambda: _resized_jpeg(15_000, 15_000), is_heavy=True)
    yield made("declared_0_x_64.jpg", lambda: _resized_jpeg(0, 64), "unreadable_media")
    yield made("declared_96_x_0.jpg", lambda: _resized_jpeg(96, 0), "unreadable_media")
    yield made("without_its_end.jpg", lambda: sound("jpg")[:-2])
    yield made("only_markers.jpg", lambda: b"\xff\xd8\xff\xd9", "unreadable_media")
    yield made("fill_bytes.jpg", lambda: b"\xff\xd8" + b"\xff" * 5_000_000, "unreadable_media")
    yield made("starts_10000.jpg", lambda: b"\xff\xd8" * 10_000, "unreadable_media")
    yield made(
        "comments_10000.jpg",
        lambda: jpeg_with(*[_segment(0xFE, b"x" * 100)] * 10_000),
        COMPLETED,
    )
    yield made(
        "icc_255_parts.jpg",
        lambda: jpeg_with(
            *(
                _segment(0xE2, b"ICC_PROFILE\0" + bytes([part, 255]) + bytes(60_000))
                for part in range(1, 256)
            )
        ),
        COMPLETED,
    )
    yield made(
        "icc_parts_lie.jpg",
        lambda: jpeg_with(_segment(0xE2, b"ICC_PROFILE\0\x07\x02" + bytes(128))),
        COMPLETED,
    )
    yield made(
        "mpf_points_to_itself.jpg",
        lambda: jpeg_with(_segment(0xE2, b"MPF\0" + _ifd_loop())),
    )
    yield made(
        "photoshop_garbage.jpg",
        lambda: jpeg_with(_segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\xff\xff\xff\xff")),
        COMPLETED,
    )
    yield made(
        "xmp_entities.jpg",
        lambda: jpeg_with(_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + _BILLION_LAUGHS)),
        COMPLETED,
    )
    yield made("progressive_1000_scans.jpg", lambda: _many_scans(1000, 1000))
    yield made("progressive_5000_scans.jpg", lambda: _many_scans(4000, 5000), is_heavy=True)
    yield made("cmyk.jpg", lambda: encoded(picture().convert("CMYK"), "JPEG"), COMPLETED)
    yield made(
        "entropy_garbage.jpg",
        lambda: sound("jpg")[: sound("jpg").index(b"\xff\xda") + 14] + b"\xaa\x55" * 2000,
    )


_BILLION_LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "lollollol">'
    + b"".join(
        b'<!ENTITY %c "%s">' % (after, b"&%c;" % before * 10)
        for before, after in zip(b"abcdefgh", b"bcdefghi", strict=True)
    )
    + b"]><x:xmpmeta xmlns:x='adobe:ns:meta/'>&i;</x:xmpmeta>"
)


# EXIF (CIPA DC-008): a TIFF within a JPEG


def ifd(*entries: tuple[int, int, int, bytes], offset: int = 8, following: int = 0) -> bytes:
    """A directory as big-endian TIFF has it: (tag, type, count, value or offset of 4 bytes)."""
    return (
        struct.pack(">H", len(entries))
        + b"".join(
            struct.pack(">HHI", tag, kind, count) + value.ljust(4, b"\0")[:4]
            for tag, kind, count, value in entries
        )
        + struct.pack(">I", following)
    )


def _block(*entries: tuple[int, int, int, bytes], following: int = 0, data: bytes = b"") -> bytes:
    return b"MM\0*\0\0\0\x08" + ifd(*entries, following=following) + data


def _offset(value: int) -> bytes:
    return struct.pack(">I", value)


def _short(value: int) -> bytes:
    return struct.pack(">HH", value, 0)


def _ifd_loop() -> bytes:
    """Directories that all lead back to the first: by 'next', as EXIF, as GPS, as interop."""
    here = _offset(8)
    return _block((0x8769, 4, 1, here), (0x8825, 4, 1, here), (0xA005, 4, 1, here), following=8)


def _with_exif(block: bytes) -> bytes:
    return jpeg_with(_segment(0xE1, b"Exif\0\0" + block))


def _text_tag(tag: int, text: bytes) -> bytes:
    return _block((tag, 2, len(text), _offset(26)), data=text)


def _date(text: bytes) -> bytes:
    """EXIF with DateTimeOriginal: the first directory leads to a second one."""
    return _block((0x8769, 4, 1, _offset(26)), data=ifd((0x9003, 2, len(text), _offset(44))) + text)


def _exif() -> Iterator[Sample]:
    blocks = {
        "exif_loop": _ifd_loop(),
        "exif_count_4_gib": _block((0x010F, 2, 2**32 - 1, _offset(8))),
        "exif_offset_beyond": _block((0x010F, 2, 100, _offset(2**31))),
        "exif_65535_entries": b"MM\0*\0\0\0\x08\xff\xff" + b"\x01\x0f\0\x02\0\0\0\x04abcd" * 5000,
        "exif_unknown_types": _block(*((tag, tag % 40, 9, b"wxyz") for tag in range(200, 700))),
        "exif_only_a_header": b"MM\0*",
        "exif_wrong_header": b"XX\0*\0\0\0\x08",
        "exif_orientation_0": _block((0x0112, 3, 1, _short(0))),
        "exif_orientation_9": _block((0x0112, 3, 1, _short(9))),
        "exif_orientation_65535": _block((0x0112, 3, 1, _short(65_535))),
        "exif_orientation_text": _block((0x0112, 2, 4, b"six\0")),
        "exif_orientation_list": _block((0x0112, 3, 2, b"\0\6\0\6")),
        "exif_orientation_twice": _block((0x0112, 3, 1, _short(6)), (0x0112, 3, 1, _short(3))),
        "exif_make_nul": _text_tag(0x010F, b"Ca\0non\0\0\0"),
        "exif_make_not_utf8": _text_tag(0x010F, b"\xff\xfe\x80\x81Canon"),
        "exif_make_right_to_left": _text_tag(0x010F, "\u202egpj.nonaC".encode()),
        "exif_make_newlines": _text_tag(0x010F, b"A\nB\r\n\x1b[31mC"),
        "exif_make_60000": _text_tag(0x010F, b"M" * 60_000),
        "exif_make_script": _text_tag(0x010F, b"<script>alert(1)</script>'; DROP TABLE uploads;--"),
        "exif_date_zero": _date(b"0000:00:00 00:00:00\0"),
        "exif_date_high": _date(b"9999:99:99 99:99:99\0"),
        "exif_date_year_1": _date(b"0001:01:01 00:00:00\0"),
        "exif_date_digits": _date("\u0662\u0660\u0662\u0664:01:01 00:00:00".encode()),
        "exif_gps_division_by_zero": _block(
            (0x8825, 4, 1, _offset(26)),
            data=ifd((2, 5, 3, _offset(44))) + _offset(1) * 1 + _offset(0) * 5,
        ),
    }
    for name, block in blocks.items():
        yield made(f"{name}.jpg", partial(_with_exif, block), COMPLETED)
    yield made(
        "exif_16_mib.jpg",
        lambda: jpeg_with(*[_segment(0xE1, b"Exif\0\0" + bytes(65_000))] * 256),
        COMPLETED,
    )
    yield made("exif_loop.webp", lambda: encoded(picture(), "WEBP", exif=b"Exif\0\0" + _ifd_loop()))
    yield made("exif_loop.png", lambda: _flat_png((b"eXIf", _ifd_loop())), COMPLETED)


# TIFF (TIFF 6.0)


def tiff(
    width: int,
    height: int,
    *more: tuple[int, int, int, bytes],
    bits: int = 8,
    compression: int = 1,
    data: bytes = b"",
    following: int = 0,
    byte_count: int | None = None,
) -> bytes:
    """A grey TIFF of one strip; `more` entries come last, and may say again what was said."""
    entries = [
        (256, 4, 1, _offset(width)),
        (257, 4, 1, _offset(height)),
        (258, 3, 1, _short(bits)),
        (259, 3, 1, _short(compression)),
        (262, 3, 1, _short(1)),
        (273, 4, 1, b""),
        (277, 3, 1, _short(1)),
        (278, 4, 1, _offset(height)),
        (279, 4, 1, _offset(len(data) if byte_count is None else byte_count)),
        *more,
    ]
    end = 8 + 2 + 12 * len(entries) + 4
    entries[5] = (273, 4, 1, _offset(end))
    return b"MM\0*\0\0\0\x08" + ifd(*entries, following=following) + data


def _tiff() -> Iterator[Sample]:
    grey = bytes(range(256)) * 4
    yield made("sound_grey.tif", lambda: tiff(32, 32, data=grey), COMPLETED)
    yield made("ifd_loop.tif", lambda: tiff(32, 32, data=grey, following=8), COMPLETED)
    yield made(
        "ifd_loop_of_two.tif",
        lambda: tiff(32, 32, data=grey, following=122 + len(grey)) + ifd(following=8),
        COMPLETED,
    )
    yield made("ifd_beyond.tif", lambda: tiff(32, 32, data=grey, following=2**31))
    yield made("first_ifd_beyond.tif", lambda: b"MM\0*\x7f\xff\xff\xff", "unreadable_media")
    yield made("first_ifd_in_header.tif", lambda: b"MM\0*\0\0\0\0" + bytes(64), "unreadable_media")
    yield made("sub_ifd_loop.tif", lambda: tiff(32, 32, (330, 4, 1, _offset(8)), data=grey))
    yield made("exif_ifd_loop.tif", lambda: tiff(32, 32, (0x8769, 4, 1, _offset(8)), data=grey))
    yield made("giant_declared.tif", lambda: tiff(100_000, 100_000, data=grey), "too_many_pixels")
    yield made("largest_declared.tif", lambda: tiff(2**32 - 1, 2**32 - 1, data=grey), *_REFUSED)
    yield made("declared_0_x_0.tif", lambda: tiff(0, 0, data=grey), "unreadable_media")
    yield made("strip_bytes_4_gib.tif", lambda: tiff(32, 32, data=grey, byte_count=2**32 - 1))
    yield made("strip_bytes_none.tif", lambda: tiff(32, 32, data=grey, byte_count=0))
    yield made("strip_short.tif", lambda: tiff(3000, 3000, data=grey))
    yield made("rows_per_strip_0.tif", lambda: tiff(32, 32, (278, 4, 1, _offset(0)), data=grey))
    yield made("samples_65535.tif", lambda: tiff(32, 32, (277, 3, 1, _short(65_535)), data=grey))
    yield made("samples_0.tif", lambda: tiff(32, 32, (277, 3, 1, _short(0)), data=grey))
    yield made("bits_64.tif", lambda: tiff(11, 11, bits=64, data=grey))
    yield made("bits_0.tif", lambda: tiff(32, 32, bits=0, data=grey))
    yield made("compression_unknown.tif", lambda: tiff(32, 32, compression=60_000, data=grey))
    yield made(
        "tiles_of_nothing.tif",
        lambda: tiff(32, 32, (322, 4, 1, _offset(0)), (323, 4, 1, _offset(0)), data=grey),
    )
    yield made(
        "deflate_bomb.tif",
        lambda: tiff(64, 64, compression=8, data=_zeros(256 * _MIB)),
        is_heavy=True,
    )
    yield made(
        "deflate_200_megapixels.tif",
        lambda: tiff(20_000, 10_000, compression=8, data=_zeros(200_000_000)),
        is_heavy=True,
    )
    yield made("jpeg_in_tiff_garbage.tif", lambda: tiff(32, 32, compression=7, data=sound("jpg")))
    yield made("bigtiff_header_only.tif", lambda: b"MM\0+\0\x08\0\0" + bytes(8))
    yield made("little_endian_header_only.tif", lambda: b"II*\0", "unreadable_media")
    yield made(
        "raw_of_a_camera.tif",
        lambda: tiff(32, 32, (50706, 1, 4, b"\1\4\0\0"), data=grey),
        "unsupported_type",
    )


# GIF89a


def _gif_frame(width: int, height: int, left: int = 0, top: int = 0) -> bytes:
    # One clear code, one pixel and the end of a stream of 2-bit colours.
    return b"," + struct.pack("<HHHHB", left, top, width, height, 0) + b"\x02\x02\x44\x01\x00"


def _gif_of(width: int, height: int, *blocks: bytes) -> bytes:
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return b"GIF89a" + screen + b"".join(blocks) + b";"


def _gif() -> Iterator[Sample]:
    one = _gif_frame(1, 1)
    yield made("one_pixel.gif", lambda: _gif_of(1, 1, one), COMPLETED)
    yield made("no_frames.gif", lambda: _gif_of(32, 32), "unreadable_media")
    yield made("giant_declared.gif", lambda: _gif_of(65_535, 65_535, one), "too_many_pixels")
    yield made("giant_frame.gif", lambda: _gif_of(1, 1, _gif_frame(65_535, 65_535)), *_REFUSED)
    yield made("frame_outside.gif", lambda: _gif_of(8, 8, _gif_frame(8, 8, 60_000, 60_000)))
    yield made("declared_0_x_0.gif", lambda: _gif_of(0, 0, one))
    yield made("second_frame_giant.gif", lambda: _gif_of(1, 1, one, _gif_frame(60_000, 60_000)))
    yield made("extensions_without_end.gif", lambda: _gif_of(1, 1, b"!\xfe" + b"\xffx" * 50_000))
    yield made("code_size_12.gif", lambda: _gif_of(1, 1, one.replace(b"\x02\x02", b"\x0c\x02")))
    yield made("code_size_255.gif", lambda: _gif_of(1, 1, one.replace(b"\x02\x02", b"\xff\x02")))
    yield made("without_its_end.gif", lambda: sound("gif")[:-1])


# BMP, WebP, HEIF, AVIF


def _bmp(width: int, height: int, *, bits: int = 24, header: int = 40, data: bytes = b"") -> bytes:
    info = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, 54) + info + data


def _patched(extension: str, box: bytes, skip: int, new: bytes) -> bytes:
    """A sound file with bytes changed, `skip` behind the name of a box."""
    body = bytearray(sound(extension))
    at = body.index(box) + 4 + skip
    body[at : at + len(new)] = new
    return bytes(body)


def _webp(*chunks: tuple[bytes, bytes], size: int | None = None) -> bytes:
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def _vp8x(flags: int, width: int, height: int) -> tuple[bytes, bytes]:
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X", bytes([flags, 0, 0, 0]) + canvas


def _others() -> Iterator[Sample]:
    yield made("giant_declared.bmp", lambda: _bmp(100_000, 100_000), "too_many_pixels")
    yield made("largest_declared.bmp", lambda: _bmp(2**31 - 1, -(2**31)), *_REFUSED)
    yield made("negative_width.bmp", lambda: _bmp(-32, 32, data=bytes(4000)))
    yield made("upside_down.bmp", lambda: _bmp(32, -32, data=bytes(4000)), COMPLETED)
    yield made("declared_0_x_0.bmp", lambda: _bmp(0, 0), "unreadable_media")
    yield made("no_pixels.bmp", lambda: _bmp(32, 32))
    yield made("bits_7.bmp", lambda: _bmp(32, 32, bits=7, data=bytes(4000)), "unreadable_media")
    yield made("header_124_only_40.bmp", lambda: _bmp(32, 32, header=124))
    yield made(
        "bm_and_text.bmp", lambda: b"BM is how this text begins, no more.\n" * 9, "unsupported_type"
    )
    yield made(
        "giant_declared.webp",
        lambda: _webp(_vp8x(0, 2**24, 2**24), (b"VP8 ", bytes(64))),
        *_REFUSED,
    )
    yield made(
        "animation_of_nothing.webp",
        lambda: _webp(_vp8x(2, 32, 32), (b"ANIM", bytes(6))),
        "unreadable_media",
    )
    yield made("size_4_gib.webp", lambda: _webp((b"VP8 ", bytes(64)), size=2**32 - 2))
    yield made("size_0.webp", lambda: _webp((b"VP8L", bytes(64)), size=0), "unreadable_media")
    yield made("riff_of_nothing.webp", lambda: b"RIFF\0\0\0\0WEBP", "unreadable_media")
    for extension in ("heic", "avif"):
        resize = partial(_patched, extension, b"ispe", 4)
        yield made(
            f"giant_declared.{extension}",
            lambda resize=resize: resize(struct.pack(">II", 100_000, 100_000)),  # type: ignore[misc]
            *_REFUSED,
        )
        yield made(
            f"largest_declared.{extension}",
            lambda resize=resize: resize(b"\xff" * 8),  # type: ignore[misc]
            *_REFUSED,
        )
        yield made(
            f"declared_0_x_0.{extension}",
            lambda resize=resize: resize(bytes(8)),  # type: ignore[misc]
        )
        yield made(
            f"other_size_declared.{extension}",
            lambda resize=resize: resize(struct.pack(">II", 5000, 3)),  # type: ignore[misc]
        )
        for box in ("iloc", "iinf", "iprp", "ipco", "ipma", "hdlr", "meta"):
            yield made(
                f"{box}_count.{extension}",
                lambda extension=extension, box=box: _patched(  # type: ignore[misc]
                    extension, box.encode(), 4, b"\xff\xff\xff\xff"
                ),
            )
            yield made(
                f"{box}_size.{extension}",
                lambda extension=extension, box=box: _patched(  # type: ignore[misc]
                    extension, box.encode(), -8, b"\x7f\xff\xff\xff"
                ),
            )
        yield made(
            f"only_a_type.{extension}",
            lambda extension=extension: sound(extension)[:32],  # type: ignore[misc]
            "unreadable_media",
        )


# Many frames, thin pictures


def _animation(format_: str, frames: int, **options: object) -> bytes:
    # No two neighbours are alike, or the encoder would make one frame of them.
    images = [Image.new("RGB", (8, 8), (n % 256, n // 256, n % 7 * 30)) for n in range(frames)]
    return encoded(
        images[0], format_, save_all=True, append_images=images[1:], duration=10, **options
    )


def _pages(count: int) -> bytes:
    """A TIFF of many pages that all show the same pixels."""
    page = tiff(8, 8)[8:]
    pixels = 8 + len(page) * count
    # The offset of the strip is the sixth entry's value, and that of the next page comes last.
    body, at = page[:-4], 2 + 12 * 5 + 8
    body = body[:at] + _offset(pixels) + body[at + 4 : 2 + 12 * 8 + 8] + _offset(64) + body[110:]
    pages = [body + _offset(8 + len(page) * number) for number in range(1, count)]
    return b"MM\0*\0\0\0\x08" + b"".join(pages) + body + _offset(0) + bytes(64)


def _frames() -> Iterator[Sample]:
    for name, format_, count in (
        ("frames_5000.gif", "GIF", 5000),
        ("frames_5000.png", "PNG", 5000),
        ("frames_2000.webp", "WEBP", 2000),
    ):
        yield made(name, partial(_animation, format_, count), COMPLETED)
    yield made("pages_20000.tif", lambda: _pages(20_000), COMPLETED)
    yield made(
        "frames_500.avif", partial(_animation, "AVIF", 500, max_threads=1, speed=10), COMPLETED
    )


def _thin() -> Iterator[Sample]:
    longest = {
        "PNG": 65_535,
        "GIF": 65_535,
        "TIFF": 65_535,
        "BMP": 65_535,
        "JPEG": 65_500,
        "WEBP": 16_383,
    }
    for format_, length in longest.items():
        for size in ((1, length), (length, 1)):
            yield made(
                f"{size[0]}_x_{size[1]}.{format_.lower()}",
                lambda size=size, format_=format_: encoded(  # type: ignore[misc]
                    Image.linear_gradient("L").resize(size), format_
                ),
                COMPLETED,
            )
    yield made("one_pixel.png", lambda: encoded(picture(1, 1), "PNG"), COMPLETED)
    yield made("one_pixel.jpg", lambda: encoded(picture(1, 1), "JPEG"), COMPLETED)
    yield made("one_pixel.heic", lambda: encoded(picture(1, 1), "HEIF"))
