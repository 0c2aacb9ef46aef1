"""Recognise picture files by their content, also in the ways in which they stand in text. Pure."""

import binascii

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
"""How PNG, JPEG (in both alphabets), GIF and WebP begin in base64."""
_DATA_URL = b"data:"
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_WHITE_SPACE = b" \t\r\n"


def is_picture(payload: bytes) -> bool:
    """Whether bytes look like a picture file, or like one in base64 or a data URL."""
    is_webp = payload.startswith(b"RIFF") and payload[8:12] == b"WEBP"
    return is_webp or payload.startswith(_SIGNATURES) or _is_text(payload)


def _is_text(payload: bytes) -> bool:
    return payload[:64].lstrip().startswith((*_ENCODED, b"data:image/"))


def picture_file(payload: bytes) -> bytes:
    """Return the file of a picture that may be in base64 or a data URL. Raises ValueError for bad base64."""
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
