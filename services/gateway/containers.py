"""Judge picture files from their bytes, where opening them with Pillow would already cost too much. Pure.

A few megabytes of a GIF's comments keep Pillow's loops in Python busy for seconds, and a WebP's canvas is
allocated when it is opened.
"""

from splitplace.messages.limits import MAX_IMAGE_PIXELS

MAX_GIF_HEAD_BYTES = 256 * 1024
MAX_GIF_HEAD_BLOCKS = 1000
"""Bounds of what may stand before a GIF's first frame."""

_GIF = (b"GIF87a", b"GIF89a")
_GIF_HEADER = 13
_EXTENSION, _FRAME = 0x21, 0x2C
_WEBP_HEADER = 30


def trouble(content: bytes) -> str | None:
    """Return why a file must not be opened; None if it may be."""
    if content.startswith(_GIF) and not _begins_soon(content):
        return "a GIF without a frame near its beginning"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        width, height = _webp_size(content)
        if width * height > MAX_IMAGE_PIXELS:
            limit = f"{MAX_IMAGE_PIXELS} (more only as a baseline JPEG)"
            return f"a picture of {width * height} pixels; at most {limit}"
    return None


def _begins_soon(content: bytes) -> bool:
    """Whether the first frame of a GIF stands near its beginning."""
    if len(content) < _GIF_HEADER:
        return False
    flags = content[10]
    at = _GIF_HEADER + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    head = content[: at + MAX_GIF_HEAD_BYTES]
    for _ in range(MAX_GIF_HEAD_BLOCKS):
        if at + 2 > len(head) or head[at] != _EXTENSION:
            return at < len(head) and head[at] == _FRAME
        at += 2
        while at < len(head) and head[at]:
            at += 1 + head[at]
        at += 1
    return False


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
