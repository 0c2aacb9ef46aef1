"""Recognise picture files by their content, also in the ways in which they stand in text. Pure."""

import binascii
import struct
from collections.abc import Sequence

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""What is taken, in Pillow's names. Its other readers are never tried."""
FORMAT_NAMES = "PNG, JPEG, WebP, GIF, BMP or TIFF"

_SIGNATURES = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"II*\x00",
    b"MM\x00*",
)
_ENCODED = (b"iVBORw0KGg", b"/9j/", b"_9j_", b"R0lGOD", b"UklGR")
"""How PNG, JPEG (in both alphabets), GIF, and WebP or WAV begin in base64."""
_DATA_URL = b"data:"
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_WHITE_SPACE = b" \t\r\n"

_TINY_PIXELS = 256 * 256
_TINY_BYTES = 16 * 1024
_PNG_HEADER = struct.Struct(">8sI4sII")
"""Signature, size and name of the first chunk, width and height."""
_COMPRESSED_CHUNKS = (b"zTXt", b"iTXt", b"iCCP")
"""Chunks of a PNG that may be much larger than they look."""


def are_tiny(files: Sequence[bytes]) -> bool:
    """Whether decoding takes less than handing it to a thread: PNGs that have few pixels, by their heads."""
    pixels = 0
    for content in files:
        if len(content) < _PNG_HEADER.size or any(chunk in content for chunk in _COMPRESSED_CHUNKS):
            return False
        signature, _, first, width, height = _PNG_HEADER.unpack_from(content)
        if signature != _SIGNATURES[0] or first != b"IHDR":
            return False
        pixels += width * height
    return pixels <= _TINY_PIXELS and sum(map(len, files)) <= _TINY_BYTES


def is_file(payload: bytes) -> bool:
    """Whether bytes look like a picture file, or like one of those or a WAV file in base64 or a data URL."""
    is_webp = payload.startswith(b"RIFF") and payload[8:12] == b"WEBP"
    return is_webp or payload.startswith(_SIGNATURES) or _is_text(payload)


def _is_text(payload: bytes) -> bool:
    return payload[:64].lstrip().startswith((*_ENCODED, b"data:image/", b"data:audio/"))


def bare_file(payload: bytes) -> bytes:
    """Return a file that may be in base64 or a data URL. Raises ValueError for bad base64."""
    return from_base64(payload.rstrip(b"\0")) if _is_text(payload) else payload


def from_base64(text: str | bytes) -> bytes:
    """Decode base64 as people write it.

    White space, the alphabet for URLs, missing padding and a data URL's head are taken.

    Raises:
        ValueError: it is not base64.
    """
    encoded = text.encode("ascii", "replace") if isinstance(text, str) else text
    encoded = encoded.translate(_TO_STANDARD, _WHITE_SPACE) if not _has_head(encoded) else _body(encoded)
    encoded = encoded.rstrip(b"=")
    try:
        return binascii.a2b_base64(encoded + b"=" * (-len(encoded) % 4), strict_mode=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from None


def _has_head(encoded: bytes) -> bool:
    return encoded[:64].lstrip().startswith(_DATA_URL)


def _body(url: bytes) -> bytes:
    """Return the base64 of a data URL."""
    head, comma, body = url.partition(b",")
    if not comma or not head.rstrip().lower().endswith(b";base64"):
        raise ValueError("a data URL must read data:<type>;base64,<text>")
    return body.translate(_TO_STANDARD, _WHITE_SPACE)
