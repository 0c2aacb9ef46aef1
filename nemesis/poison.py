"""Hostile messages: a table of what a broken or malicious client may publish with a sensor's rights.

Forged results need more rights; a broker without an access list gives them to everybody.
"""

import base64
import io
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
import zstandard
from PIL import Image

from nemesis.tasks import PREFIX, Publication, png

SENDER = "mallory"
_TASK = f"{PREFIX}/task/mnist/{SENDER}"
_BOMB_SIDE = 4096
_SMALLEST: dict[str, dict[str, Any]] = {
    "TIFF": {"compression": "tiff_lzw"},
    "WEBP": {"lossless": True, "method": 0},
}
_MANY = 1_000_000
"""Entries of a map or array that a few megabytes hold."""


@dataclass(frozen=True)
class Poison:
    """A hostile message, made when it is needed."""

    name: str
    make: Callable[[], Publication]
    answer_topic: str | None = None
    """Where its sender waits for an answer; None = nothing is promised."""
    client_id: str = "nemesis-mallory-sends"
    """The MQTT client id under which it is published."""


def _picture() -> bytes:
    return png(np.zeros((1, 28, 28), np.uint8))


def _bomb() -> bytes:
    """A picture of some 2 KB with 16 million pixels."""
    buffer = io.BytesIO()
    Image.new("1", (_BOMB_SIDE, _BOMB_SIDE)).save(buffer, "PNG")
    return buffer.getvalue()


def _bomb_as(kind: str) -> bytes:
    """The same in another format."""
    buffer = io.BytesIO()
    Image.new("L", (_BOMB_SIDE, _BOMB_SIDE)).save(buffer, kind, **_SMALLEST.get(kind, {}))
    return buffer.getvalue()


def _many_frames() -> bytes:
    """A GIF of two hundred pictures."""
    frames = [Image.new("L", (64, 64), number % 256) for number in range(200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def _big_msgpack(head: bytes, entry: bytes) -> bytes:
    """`{"inputs": ...}` with a million entries, without building them here."""
    return b"\x81\xa6inputs" + head + struct.pack(">I", _MANY) + entry * _MANY


def _array(value: float, dtype: str) -> bytes:
    content = np.full((1, 1, 28, 28), value, dtype).tobytes()
    return bytes(msgpack.packb({"inputs": content, "shape": [1, 1, 28, 28], "dtype": dtype}))


def _zstd_bomb() -> bytes:
    content = zstandard.compress(bytes(1 << 28))
    return bytes(
        msgpack.packb({"inputs": content, "shape": [1, 1, 28, 28], "dtype": "uint8", "codec": "zstd"})
    )


def _retained() -> Publication:
    return Publication(f"{_TASK}/retained", _picture(), retain=True)


def _body(name: str, payload: Callable[[], bytes], content_type: str | None = None) -> Poison:
    """A hostile payload on an ordinary topic: its sender hears that it is invalid."""
    return Poison(
        name,
        lambda: Publication(f"{_TASK}/{name}", payload(), content_type=content_type),
        f"{PREFIX}/answer/{SENDER}/{name}",
    )


def _named(name: str, client: str, task: str, *, answered: bool = True) -> Poison:
    """A good picture whose sender has an unusual name: it hears something on its own levels."""
    return Poison(
        name,
        lambda: Publication(f"{PREFIX}/task/mnist/{client}/{task}", _picture()),
        f"{PREFIX}/answer/{client}/{task}" if answered else None,
    )


def _reply(name: str, topic: str) -> Poison:
    """A good picture with a response topic that costs whoever publishes to it."""
    return Poison(
        name, lambda: Publication(f"{_TASK}/{name}", _picture(), response_topic=topic, correlation=b"x")
    )


def _forged(name: str, topic: str, body: object) -> Poison:
    """A message that only a part of the system should send."""
    return Poison(name, lambda: Publication(f"{PREFIX}/{topic}", json.dumps(body).encode()))


_RESULT = {
    "task": f"{SENDER}.forged",
    "attempt": 1,
    "application": "mnist",
    "variant": "no-such-variant",
    "scores": [{"index": 100_000, "confidence": 1.0}],
    "stages": [],
    "micro_batches": 1,
    "moved_bytes": 0,
}

POISONS: tuple[Poison, ...] = (
    _reply("reply-251-levels", "a/" * 250 + "b"),
    _reply("reply-60000-bytes", "r" * 60_000),
    _reply("reply-control-characters", "reply/\x01\x1b]0;title\x07"),
    _reply("reply-dollar", "$SYS/broker/uptime"),
    _reply("reply-own-tasks", f"{_TASK}/echo"),
    _reply("reply-empty-levels", "/////"),
    _body("png-bomb", _bomb, "image/png"),
    _body("seven-bombs", lambda: bytes(msgpack.packb({"images": [_bomb()] * 7}))),
    _body("many-bombs", lambda: bytes(msgpack.packb({"images": [_bomb()] * 200}))),
    _body("webp-bomb", lambda: _bomb_as("WEBP"), "image/webp"),
    _body("tiff-bomb", lambda: _bomb_as("TIFF"), "image/tiff"),
    _body("jpeg-bomb", lambda: _bomb_as("JPEG"), "image/jpeg"),
    _body("gif-bomb", lambda: _bomb_as("GIF"), "image/gif"),
    _body("gif-and-broken-rest", lambda: _many_frames()[:-500] + bytes(500), "image/bmp"),
    _body("wrong-picture-type", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
    _body("negative-deadline", lambda: b'{"deadline_ms": -1, "images": []}', "application/json"),
    _body("infinite-deadline", lambda: b'{"deadline_ms": 1e999, "images": []}', "application/json"),
    _body("msgpack-extension", lambda: bytes(msgpack.packb({"images": msgpack.ExtType(42, b"x" * 100)}))),
    _body("not-utf-8", lambda: b'{"client": "\xff\xfe"}', "application/json"),
    _body("msgpack-maps", lambda: _big_msgpack(b"\xdd", b"\x80")),
    _body(
        "msgpack-map-of-ints",
        lambda: (
            b"\xdf"
            + struct.pack(">I", _MANY)
            + b"".join(b"\xce" + struct.pack(">I", n) + b"\x00" for n in range(_MANY))
        ),
    ),
    _body("msgpack-length-lie", lambda: b"\xdd\xff\xff\xff\xff"),
    _body("msgpack-nesting", lambda: b"\x91" * 100_000 + b"\xc0"),
    _body("json-nesting", lambda: b"[" * 100_000, "application/json"),
    _body("json-array", lambda: b"[1,2,3]", "application/json"),
    _body("json-text", lambda: b'"task"', "application/json"),
    _body("json-null", lambda: b"null", "application/json"),
    _body("json-wrong-types", lambda: b'{"images": {"a": 1}, "deadline_ms": []}', "application/json"),
    _body("json-huge-number", lambda: b'{"deadline_ms": 1' + b"0" * 5000 + b"}", "application/json"),
    _body("json-nan", lambda: b'{"deadline_ms": NaN}', "application/json"),
    _body("json-many-objects", lambda: b'{"images": [' + b"{}," * _MANY + b"{}]}", "application/json"),
    _body("empty", lambda: b""),
    _body("nul-bytes", lambda: bytes(1000)),
    _body("truncated-png", lambda: _picture()[:40], "image/png"),
    _body("png-header-only", lambda: _picture()[:8], "image/png"),
    _body(
        "truncated-image-in-json",
        lambda: json.dumps({"images": [base64.b64encode(_picture()[:-20]).decode()]}).encode(),
        "application/json",
    ),
    _body("nan-inputs", lambda: _array(float("nan"), "float32")),
    _body("infinite-inputs", lambda: _array(float("inf"), "float16")),
    _body("zstd-bomb", _zstd_bomb),
    _body(
        "shape-lie", lambda: bytes(msgpack.packb({"inputs": b"x", "shape": [1 << 20] * 5, "dtype": "uint8"}))
    ),
    _body(
        "zero-batch", lambda: bytes(msgpack.packb({"inputs": b"", "shape": [0, 1, 28, 28], "dtype": "uint8"}))
    ),
    Poison("retained-task", _retained),
    _named("mac-address", "AA:BB:CC:DD:EE:FF", "1"),
    _named("space", "front door", "1"),
    _named("umlaut", "küche", "1"),
    _named("time-as-id", SENDER, "2026-11-28T11:12:13Z"),
    _named("sql", "x'; DROP TABLE tasks; --", "1"),
    _named("parent-folder", "..", "..%2f..%2fetc"),
    _named("right-to-left", "cam\u202egnp", "1"),
    _named("emoji", "\U0001f4f7", "1"),
    _named("own-name", "splitplace-gateway", "_gateway"),
    _named("dots", "cam.front", "1"),
    _named("long-name", "n" * 5000, "1", answered=False),
    _named("empty-levels", "", "", answered=False),
    _forged("forged-result", f"job/{SENDER}.forged/result", _RESULT),
    _forged(
        "forged-end", f"job/{SENDER}.forged/finished", {"task": f"{SENDER}.forged", "status": "answered"}
    ),
    _forged("forged-cancel", "node/n1/cancel", {"node": "n1", "task": f"{SENDER}.forged", "attempt": 999}),
    _forged("forged-result-nonsense", f"job/{SENDER}.forged/result", {"task": 1, "scores": "x"}),
    _forged("forged-node", "node/ghost/vitals", {"node": "ghost", "escape": "\x1b]0;title\x07"}),
    *(
        Poison(f"takes-over-{part}", lambda: Publication(f"{_TASK}/x", _picture()), client_id=client_id)
        for part, client_id in (
            ("gateway", "splitplace-gateway"),
            ("intake", "splitplace-gateway:intake"),
            ("answers", "splitplace-gateway:answers"),
            ("splitter", "splitplace-splitter"),
        )
    ),
    Poison("forged-tensor", lambda: Publication(f"{PREFIX}/tensor/_aggregator/_gateway", b"\xff" * 1000)),
)


def poison_named(name: str) -> Poison:
    """Return a row of the table. Raises StopIteration for an unknown name."""
    return next(poison for poison in POISONS if poison.name == name)
