"""Parse the body of a task without building more than it may hold. Pure.

A few megabytes of nested lists or maps would become gigabytes of objects, so both encodings are bounded in
the number of their entries, not only in bytes.
"""

import contextlib
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgpack
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json

from splitplace.bus.incoming import RawReceived
from splitplace.messages.limits import (
    MAX_BATCH,
    MAX_JSON_BRACKETS,
    MAX_JSON_COMMAS,
    MAX_MSGPACK_ARRAYS,
    MAX_MSGPACK_MAP,
    MAX_MSGPACK_MAPS,
    MAX_MSGPACK_TEXT_BYTES,
    MAX_TASK_BYTES,
)
from splitplace.messages.names import SensorName
from splitplace.messages.task import TaskRequest
from splitplace.messages.validation_errors import problem_of
from splitplace.services.gateway.fields import BUFFER_OF_NUMBERS, FieldError, as_text, tidy
from splitplace.services.gateway.picture_files import FORMAT_NAMES, bare_file, is_file
from splitplace.services.gateway.refusals import RefusalKind, TaskRefusedError, refuse
from splitplace.services.gateway.sounds import is_sound

BodyKind = Literal["json", "msgpack", "file"]

_JSON_TYPES = {"application/json", "text/json"}
_MSGPACK_TYPES = {"application/msgpack", "application/x-msgpack", "application/vnd.msgpack"}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF_16 = re.compile(rb"\xff\xfe|\xfe\xff|(?:\0*[ \t\r\n])*(?:\0+\{|\{\0+\s*[\"}])")
"""How JSON begins in UTF-16 and UTF-32, with or without a byte order mark."""
_BUFFER = re.compile(rb'"type" *: *"Buffer"')
_TIMESTAMP_BYTES = 12
_NAME = TypeAdapter(SensorName)
_KINDS: Mapping[str, RefusalKind] = {"deadline_ms": "bad-deadline", "client": "bad-name", "task": "bad-name"}
_SYNTAX_ERRORS = (ValueError, TypeError, RecursionError, msgpack.UnpackException)


class BodyNames(BaseModel):
    """The names in a body whose other fields may not be valid."""

    client: SensorName | None = None
    task: SensorName | None = None


class BodyRefusedError(TaskRefusedError):
    """A body is not a task. `names` holds the names that it gives all the same."""

    def __init__(self, kind: RefusalKind, reason: str, names: BodyNames) -> None:
        super().__init__(kind, reason[:900])
        self.names = names


class Body(NamedTuple):
    """The parsed body of a task."""

    request: TaskRequest
    warnings: tuple[str, ...] = ()
    """What was ignored in it."""


def parse(raw: RawReceived) -> Body:
    """Parse and validate the body of a task.

    Raises:
        TaskRefusedError: too big or not recognised.
        BodyRefusedError: not valid; holds its names if they could be read.
    """
    if len(raw.payload) > MAX_TASK_BYTES:
        refuse("too-large", f"payload of {len(raw.payload)} bytes; the limit is {MAX_TASK_BYTES}")
    kind = _kind(raw)
    fields: dict[str, Any] = {}
    try:
        if kind == "file":
            content = bare_file(raw.payload)
            if is_sound(content) or _declared(raw).startswith("audio/"):
                return Body(TaskRequest(sound=content))
            return Body(TaskRequest(images=(content,)))
        fields = _parsed_json(raw.payload) if kind == "json" else _unpacked(raw.payload)
        ignored = tidy(fields)
        return Body(TaskRequest.model_validate(fields), ignored)
    except FieldError as error:
        where, problem = error.field, error.problem
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        problem = problem_of(first)
    except _SYNTAX_ERRORS as error:
        refuse("malformed", f"not a {kind} task: {error}")
    refusal = _KINDS.get(where, "malformed")
    raise BodyRefusedError(refusal, f"{kind} task: {where}: {problem}", _names(fields))


def _declared(raw: RawReceived) -> str:
    return (raw.properties.content_type or "").split(";")[0].strip().lower()


def _names(fields: Mapping[str, Any]) -> BodyNames:
    names = {}
    for name in ("client", "task"):
        with contextlib.suppress(ValidationError):
            names[name] = _NAME.validate_python(fields.get(name), strict=True)
    return BodyNames(**names)


def _parsed_json(payload: bytes) -> dict[str, Any]:
    """Parse an object of few entries: counts what can begin a value, in C, before anything is built."""
    if _UTF_16.match(payload):
        raise ValueError("UTF-16; send UTF-8")
    payload = payload.partition(b"\0")[0]  # what senders in C leave of their buffer behind the text
    # Line breaks mean nothing between values. Inside a text JSON forbids them; base64 of the shell has them.
    payload = payload.removeprefix(_BYTE_ORDER_MARK).translate(None, b"\r\n\t")
    if payload.count(b",") > MAX_JSON_COMMAS or payload.count(b"[") + payload.count(b"{") > MAX_JSON_BRACKETS:
        raise ValueError(BUFFER_OF_NUMBERS if _BUFFER.search(payload) else "too many entries")
    fields = from_json(payload, cache_strings=False)
    if not isinstance(fields, dict):
        raise ValueError("not an object")  # noqa: TRY004 - what the sender sent is wrong, not a type of ours
    return fields


def _unpacked(payload: bytes) -> dict[str, Any]:
    """Unpack a map of few entries, whose values may be short flat arrays."""
    arrays = maps = 0

    def count_array(items: tuple[Any, ...]) -> tuple[Any, ...]:
        nonlocal arrays
        arrays += 1
        if arrays > MAX_MSGPACK_ARRAYS:
            raise ValueError("too many arrays")
        return items

    def count_map(pairs: Any) -> dict[Any, Any]:  # noqa: ANN401 - pairs as msgpack has built them
        nonlocal maps
        maps += 1
        if maps > MAX_MSGPACK_MAPS:
            raise ValueError("too many maps")
        return dict(pairs)

    try:
        unpacked = msgpack.unpackb(
            payload,
            use_list=False,
            list_hook=count_array,
            object_pairs_hook=count_map,
            max_array_len=MAX_BATCH,
            max_map_len=MAX_MSGPACK_MAP,
            max_str_len=MAX_MSGPACK_TEXT_BYTES,
            max_bin_len=MAX_TASK_BYTES,
            max_ext_len=_TIMESTAMP_BYTES,
        )
    except msgpack.ExtraData as error:
        if error.extra.strip(b"\0"):
            raise
        unpacked = error.unpacked  # the rest is of a buffer that was sent whole
    if not isinstance(unpacked, dict):
        raise ValueError("not a map")  # noqa: TRY004 - what the sender sent is wrong, not a type of ours
    fields = {as_text(name): value for name, value in unpacked.items()}
    if len(fields) < len(unpacked):
        raise ValueError("a field is given twice, as text and as bytes")
    return fields


def _kind(raw: RawReceived) -> BodyKind:
    declared = _declared(raw)
    if is_file(raw.payload) or is_sound(raw.payload) or declared.startswith(("image/", "audio/")):
        return "file"  # whatever its sender calls it: neither JSON nor msgpack begins like one
    if declared in _JSON_TYPES:
        return "json"
    if declared in _MSGPACK_TYPES:
        return "msgpack"
    if _UTF_16.match(raw.payload) or raw.payload[:64].removeprefix(_BYTE_ORDER_MARK).lstrip()[:1] == b"{":
        return "json"
    if raw.payload[:1] and (0x80 <= raw.payload[0] <= 0x8F or raw.payload[0] in {0xDE, 0xDF}):  # noqa: PLR2004
        return "msgpack"
    return refuse(
        "malformed",
        f"{len(raw.payload)} bytes that are neither a JSON object, a msgpack map, a WAV file, nor a picture "
        f"({FORMAT_NAMES})" + (f" (content type {declared[:60]!r})" if declared else ""),
    )
