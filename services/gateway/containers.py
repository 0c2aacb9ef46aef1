"""Judge picture files from their bytes, where opening them with Pillow would already cost too much. Pure.

Pillow walks over the parts of a file in Python: eight megabytes of empty ones keep it busy for half a minute.
A WebP's canvas is allocated when it is opened.
"""

import struct
from collections.abc import Iterator
from itertools import islice

from splitplace.messages.limits import MAX_IMAGE_PIXELS

MAX_HEAD_BYTES = 256 * 1024
MAX_HEAD_PARTS = 1000
"""Bounds of what may stand before a GIF's first frame, and fields of a TIFF."""
MAX_PARTS = 8192
"""Chunks of a PNG, bytes and segments before the first scan of a JPEG, strips of a TIFF."""
MAX_GIF_BLOCKS = 40_000
"""Blocks up to a GIF's second frame: one of 8 MiB has 33,000."""

_GIF = (b"GIF87a", b"GIF89a")
_GIF_HEADER = 13
_GIF_FRAME_HEADER = 10
_EXTENSION, _FRAME = 0x21, 0x2C
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNK = 12
"""Length, name and checksum."""
_JPEG = b"\xff\xd8\xff"
_START_OF_SCAN = 0xDA
_WITHOUT_LENGTH = {0x00, 0x01, *range(0xD0, 0xDA), 0xFF}
"""What may stand behind 0xFF in a JPEG without a length: restarts, ends, fill bytes."""
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BIG = b"+"
_STRIPS = {273, 279, 324, 325}
"""Fields of a TIFF that say where its strips or tiles lie."""
_WEBP_HEADER = 30


def trouble(content: bytes) -> str | None:
    """Return why a file must not be opened; None if it may be."""
    if content.startswith(_GIF):
        return _gif_trouble(content)
    if content.startswith(_TIFF):
        return _tiff_trouble(content)
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return _webp_trouble(content)
    if content.startswith(_PNG) and _is_longer(_png_chunks(content), MAX_PARTS):
        return f"a PNG of more than {MAX_PARTS} chunks"
    if content.startswith(_JPEG) and _is_longer(_jpeg_steps(content), MAX_PARTS):
        return "a JPEG without a picture near its beginning"
    return None


def _is_longer(parts: Iterator[int], limit: int) -> bool:
    return next(islice(parts, limit, None), None) is not None


def _png_chunks(content: bytes) -> Iterator[int]:
    """Yield where each chunk begins."""
    at = len(_PNG)
    while at < len(content):
        yield at
        at += _PNG_CHUNK + int.from_bytes(content[at : at + 4])


def _jpeg_steps(content: bytes) -> Iterator[int]:
    """Yield the places that Pillow looks at before the first scan."""
    at = len(_JPEG) - 1
    while at < len(content):
        yield at
        if content[at] != 0xFF:  # noqa: PLR2004 - what begins a marker
            at += 1
            continue
        marker = content[at + 1] if at + 1 < len(content) else _START_OF_SCAN
        if marker == _START_OF_SCAN:
            return
        at += 1 if marker in _WITHOUT_LENGTH else 2 + max(2, int.from_bytes(content[at + 2 : at + 4]))


def _tiff_trouble(content: bytes) -> str | None:
    """Look at the fields of the first picture of a TIFF, or of one with places of 64 bits."""
    order, is_big = "<" if content[:1] == b"I" else ">", _BIG in content[2:4]
    field = struct.Struct(f"{order}{'HHQQ' if is_big else 'HHII'}")
    try:
        (at,) = struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", content, 8 if is_big else 4)
        (count,) = struct.unpack_from(f"{order}{'Q' if is_big else 'H'}", content, at)
        if count > MAX_HEAD_PARTS:
            return f"a TIFF of {count} fields; at most {MAX_HEAD_PARTS}"
        for number in range(count):
            tag, _, items, _ = field.unpack_from(content, at + (8 if is_big else 2) + number * field.size)
            if tag in _STRIPS and items > MAX_PARTS:
                return f"a TIFF of {items} strips; at most {MAX_PARTS}"
    except struct.error:
        pass  # torn: Pillow says so
    return None


def _colours(flags: int) -> int:
    """Return the bytes of a GIF's table of colours."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _gif_blocks(content: bytes) -> Iterator[int]:
    """Yield where blocks and their parts begin, up to the second frame, as far as Pillow looks."""
    at = _GIF_HEADER + _colours(content[10])
    frames = 0
    while at + 1 < len(content) and frames < 2 and content[at] in {_EXTENSION, _FRAME}:  # noqa: PLR2004
        yield at
        is_frame = content[at] == _FRAME
        frames += is_frame
        if is_frame and at + _GIF_FRAME_HEADER > len(content):
            return
        at += _GIF_FRAME_HEADER + _colours(content[at + 9]) + 1 if is_frame else 2
        while at < len(content) and content[at]:
            yield at
            at += 1 + content[at]
        at += 1


def _gif_trouble(content: bytes) -> str | None:
    if not _begins_soon(content):
        return "a GIF without a frame near its beginning"
    return "a GIF of too many blocks" if _is_longer(_gif_blocks(content), MAX_GIF_BLOCKS) else None


def _begins_soon(content: bytes) -> bool:
    """Whether the first frame of a GIF stands near its beginning."""
    if len(content) < _GIF_HEADER:
        return False
    at = _GIF_HEADER + _colours(content[10])
    head = content[: at + MAX_HEAD_BYTES]
    for _ in range(MAX_HEAD_PARTS):
        if at + 2 > len(head) or head[at] != _EXTENSION:
            return at < len(head) and head[at] == _FRAME
        at += 2
        while at < len(head) and head[at]:
            at += 1 + head[at]
        at += 1
    return False


def _webp_trouble(content: bytes) -> str | None:
    width, height = _webp_size(content)
    if width * height <= MAX_IMAGE_PIXELS:
        return None
    limit = f"{MAX_IMAGE_PIXELS} (more only as a baseline JPEG)"
    return f"a picture of {width * height} pixels; at most {limit}"


def _webp_size(content: bytes) -> tuple[int, int]:
    """Return width and height of a WebP's canvas; zero where its header is damaged."""
    if len(content) < _WEBP_HEADER:
        return 0, 0
    kind, data = content[12:16], content[20:_WEBP_HEADER]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF
