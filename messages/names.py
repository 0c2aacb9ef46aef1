"""Names that sensors choose, and the keys of tasks that are made of them.

Sensors call themselves and their tasks anything that MQTT allows in one level of a topic, and hear their
answer on these very levels. The system's own topics, logs and files hold keys, which are plain ASCII.
"""

import hashlib
import re
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

MAX_NAME_BYTES = 128

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef]")
_WILD = re.compile(r"[+#/]")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_ESCAPED = re.compile(r"(?<!~)(?:~[0-9A-F]{2})+")
_MAX_PART = 64
_HASH_DIGITS = 16
_PART = rf"[A-Za-z0-9_~-]{{1,{_MAX_PART}}}"


def topic_trouble(text: str) -> str:
    """Say why a broker may refuse a topic that holds this text; empty if it takes it.

    MQTT forbids U+0000 and lets brokers close the connection over control characters, surrogates and what
    Unicode says is no character.
    """
    if text.isascii() and text.isprintable():
        return ""
    if _FORBIDDEN.search(text) or any(ord(sign) & 0xFFFE == 0xFFFE for sign in text):  # noqa: PLR2004
        return "it holds control characters"
    return ""


def _one_level(name: str) -> str:
    size = len(name.encode(errors="replace"))
    if not 1 <= size <= MAX_NAME_BYTES:
        raise ValueError(f"it has {size} bytes; 1 to {MAX_NAME_BYTES} are allowed")
    trouble = topic_trouble(name)
    if not trouble and _WILD.search(name):
        trouble = "it holds +, # or /, which have a meaning in topics"
    if trouble:
        raise ValueError(trouble)
    return name


SensorName = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_NAME_BYTES), AfterValidator(_one_level)
]
"""A sensor's name, or the id it gave a task: one level of a topic, of up to 128 bytes."""

SensorKey = Annotated[str, StringConstraints(pattern=rf"^{_PART}$")]
"""A sensor's name in the letters of a key: the first part of the keys of its tasks."""

OTHER_SENSORS = "~others"
"""Key under which sensors count that are too many to count apart. No name has it."""

TaskKey = Annotated[str, StringConstraints(pattern=rf"^{_PART}\.{_PART}(\.[0-9a-f]{{8}})?$")]
"""The name of a task between services: `<client>.<task id>.<incarnation>`, never used twice.

Names of ASCII letters, digits, `-` and `_` stand in it as they are, others with `~` and two hexadecimal
digits for each other byte. A sensor may use an id again; the gateway draws the incarnation. Journals of 0.1
hold keys without one.
"""


def task_key(client: str, task: str, incarnation: str) -> str:
    """Return the key of a task. Different names give different keys."""
    return f"{_escaped(client)}.{_escaped(task)}.{incarnation}"


def sensor_part(client: str) -> str:
    """Return the first part of the keys of a sensor's tasks."""
    return _escaped(client)


def sensor_key(key: str) -> str:
    """Return a task key without its incarnation: what the sensor knows of it."""
    return ".".join(key.split(".")[:2])


def readable(key: str) -> str:
    """Return a task key for people: with the letters that it stands for, as far as it holds them."""
    return _ESCAPED.sub(lambda found: _letters(found[0]), key)


def _escaped(name: str) -> str:
    """Return a name in the letters of a key. Long ones are cut, with a hash of the whole at the end."""
    escaped = _UNSAFE.sub(lambda found: "".join(f"~{byte:02X}" for byte in found[0].encode()), name)
    if len(escaped) <= _MAX_PART:
        return escaped
    digest = hashlib.blake2b(name.encode(), digest_size=_HASH_DIGITS // 2).hexdigest()
    return f"{escaped[: _MAX_PART - _HASH_DIGITS - 2]}~~{digest}"


def _letters(escaped: str) -> str:
    """Decode escaped bytes; what is no text or would disturb a terminal stays escaped."""
    try:
        letters = bytes.fromhex(escaped.replace("~", "")).decode()
    except UnicodeDecodeError:
        return escaped
    return letters if letters.isprintable() else escaped
