"""Passwords, and their hashes as Mosquitto's dynamic-security plugin keeps them. Pure but for the dice."""

import base64
import hashlib
import secrets
from typing import TypedDict

SALT_BYTES = 12
"""What the plugin of Mosquitto 2.0 demands; later ones take it too."""

ITERATIONS = 101
"""As the plugin itself. More would protect nothing: passwords are drawn from 2**256, and each connection
costs the broker this many rounds while it serves nobody."""


class StoredPassword(TypedDict):
    """The fields of a client in the plugin's file."""

    password: str
    salt: str
    iterations: int


def draw_password() -> str:
    """Return a new password of 256 random bits, in letters that need no escaping anywhere."""
    return secrets.token_urlsafe(32)


def stored(password: str, salt: bytes | None = None) -> StoredPassword:
    """Return a password as the plugin keeps it: PBKDF2 with SHA-512.

    Args:
        password: in plain text.
        salt: 12 bytes; by default random.
    """
    salt = secrets.token_bytes(SALT_BYTES) if salt is None else salt
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
    return StoredPassword(
        password=base64.b64encode(digest).decode(),
        salt=base64.b64encode(salt).decode(),
        iterations=ITERATIONS,
    )
