"""Joining tokens: all that a new device needs to become a node, in one line. Pure but for the dice.

`sp1.` and base64url of: a msgpack array and the first four bytes of its SHA-256, which find slips of the pen.
"""

import base64
import binascii
import hashlib
import re
import secrets
from dataclasses import dataclass, field

import msgpack

from splitplace.errors import ConfigurationError
from splitplace.security.names import name_of

_MARK = "sp1."
_CHECK_BYTES = 4
_SECRET_BYTES = 16
_FINGERPRINT_BYTES = 32
_MAX_LETTERS = 1000
_FIELDS = 6


class TokenError(ConfigurationError):
    """What was given is no joining token."""


@dataclass(frozen=True, slots=True)
class Token:
    """Leave to join once."""

    broker: str
    """URL, `mqtts://`."""
    prefix: str
    login: str
    """What the node will log in with."""
    authority: bytes
    """SHA-256 of the authority's certificate (DER): nobody else's broker is trusted."""
    secret: bytes = field(repr=False)
    expires_s: int
    """Seconds since 1970, on the clock of the enroller, who alone judges."""

    @property
    def name(self) -> str:
        """Name of the node."""
        return name_of(self.login)

    @property
    def password(self) -> str:
        """The one-time password."""
        return base64.urlsafe_b64encode(self.secret).rstrip(b"=").decode()

    @property
    def mark(self) -> str:
        """Tells this token from others, and tells nothing about its secret."""
        return hashlib.sha256(b"splitplace token " + self.secret).hexdigest()[:16]

    def __str__(self) -> str:
        """Return the token as people pass it on."""
        fields = (self.broker, self.prefix, self.login, self.authority, self.secret, self.expires_s)
        packed = msgpack.packb(fields)
        return _MARK + _letters(packed + _check(packed))


def draw_secret() -> bytes:
    """Return 128 random bits for a token."""
    return secrets.token_bytes(_SECRET_BYTES)


def parse_token(text: str) -> Token:
    """Return the token that somebody pasted, maybe with line breaks in it. Raises TokenError."""
    letters = re.sub(r"\s", "", text)
    if not letters.startswith(_MARK) or len(letters) > _MAX_LETTERS:
        raise TokenError(
            f"this is no joining token: it begins with {_MARK} (make one with: splitplace secure add node "
            "NAME)"
        )
    body = letters.removeprefix(_MARK)
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        packed, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
        # The last letter has bits that no byte takes: they are as they were written, too.
        is_whole = check == _check(packed) and body == _letters(raw)
        fields = msgpack.unpackb(packed, use_list=False) if is_whole else ()
    except (binascii.Error, ValueError, msgpack.UnpackException):
        fields = ()
    kinds = (str, str, str, bytes, bytes, int)
    if (
        not isinstance(fields, tuple)
        or len(fields) != _FIELDS
        or not all(map(isinstance, fields, kinds))
        or len(fields[3]) != _FINGERPRINT_BYTES
    ):
        raise TokenError("the joining token is damaged or not complete: copy all of its line")
    return Token(*fields)


def _letters(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _check(packed: bytes) -> bytes:
    return hashlib.sha256(packed).digest()[:_CHECK_BYTES]
