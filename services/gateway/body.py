"""Parse the body of a task without building more than it may hold. Pure.

A few megabytes of nested lists or maps would become gigabytes of objects, so both encodings are bounded in
the number of their entries, not only in bytes.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgpack
from pydantic import BaseModel, ConfigDict, ValidationError

from splitplace.bus.incoming import RawReceived
from splitplace.messages.base import ClientName
from splitplace.messages.limits import (
    MAX_BATCH,
    MAX_JSON_BRACKETS,
    MAX_JSON_COMMAS,
    MAX_MSGPACK_ARRAYS,
    MAX_MSGPACK_MAP,
    MAX_MSGPACK_TEXT_BYTES,
    MAX_TASK_BYTES,
)
from splitplace.messages.task import TaskRequest
from splitplace.services.gateway.refusals import RefusalKind, TaskRefusedError, refuse

BodyKind = Literal["json", "msgpack", "picture"]

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_JSON_TYPES = {"application/json", "text/json"}
_MSGPACK_TYPES = {"application/msgpack", "application/x-msgpack", "application/vnd.msgpack"}
_PICTURE_TYPES = {"image/png", "image/jpeg"}
_SYNTAX_ERRORS = (ValueError, TypeError, RecursionError, msgpack.UnpackException)


class BodyNames(BaseModel):
    """The names in a body whose other fields may not be valid."""

    model_config = ConfigDict(extra="ignore")
    client: ClientName | None = None
    task: ClientName | None = None


class BodyRefusedError(TaskRefusedError):
    """A body is not a task. `names` holds the names that it gives all the same."""

    def __init__(self, kind: RefusalKind, reason: str, names: BodyNames) -> None:
        super().__init__(kind, reason[:900])
        self.names = names


def parse(raw: RawReceived) -> TaskRequest:
    """Parse and validate the body of a task.

    Raises:
        TaskRefusedError: too big or not recognised.
        BodyRefusedError: not valid; holds its names if they could be read.
    """
    if len(raw.payload) > MAX_TASK_BYTES:
        refuse("too-large", f"payload of {len(raw.payload)} bytes; the limit is {MAX_TASK_BYTES}")
    kind = _kind(raw)
    fields: Mapping[str, Any] | None = None
    try:
        if kind == "picture":
            return TaskRequest(images=(raw.payload,))
        if kind == "json":
            _check_json(raw.payload)
            return TaskRequest.model_validate_json(raw.payload)
        fields = _unpacked(raw.payload)
        return TaskRequest.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        refusal: RefusalKind = "bad-deadline" if where == "deadline_ms" else "malformed"
        reason = f"{kind} task: {where}: {first['msg']}"
        raise BodyRefusedError(refusal, reason, _names(raw.payload, fields)) from None
    except _SYNTAX_ERRORS as error:
        refuse("malformed", f"not a {kind} task: {error}")


def _names(payload: bytes, fields: Mapping[str, Any] | None) -> BodyNames:
    try:
        return BodyNames.model_validate_json(payload) if fields is None else BodyNames.model_validate(fields)
    except ValidationError:
        return BodyNames()


def _check_json(payload: bytes) -> None:
    """Count what can begin a value: a scan in C that builds nothing."""
    if payload.count(b",") > MAX_JSON_COMMAS or payload.count(b"[") + payload.count(b"{") > MAX_JSON_BRACKETS:
        raise ValueError("too many entries")


def _unpacked(payload: bytes) -> Mapping[str, Any]:
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
        if maps > 1:
            raise ValueError("a map inside the map")
        return dict(pairs)

    unpacked = msgpack.unpackb(
        payload,
        use_list=False,
        list_hook=count_array,
        object_pairs_hook=count_map,
        max_array_len=MAX_BATCH,
        max_map_len=MAX_MSGPACK_MAP,
        max_str_len=MAX_MSGPACK_TEXT_BYTES,
        max_bin_len=MAX_TASK_BYTES,
        max_ext_len=0,
    )
    if not isinstance(unpacked, dict):
        raise ValueError("not a map")  # noqa: TRY004 - what the sender sent is wrong, not a type of ours
    return unpacked


def _kind(raw: RawReceived) -> BodyKind:
    declared = (raw.properties.content_type or "").split(";")[0].strip().lower()
    if declared in _JSON_TYPES:
        return "json"
    if declared in _MSGPACK_TYPES:
        return "msgpack"
    if declared in _PICTURE_TYPES or raw.payload.startswith((_PNG, _JPEG)):
        return "picture"
    if raw.payload[:64].lstrip()[:1] == b"{":
        return "json"
    if raw.payload[:1] and (0x80 <= raw.payload[0] <= 0x8F or raw.payload[0] in {0xDE, 0xDF}):  # noqa: PLR2004
        return "msgpack"
    return refuse(
        "malformed",
        f"{len(raw.payload)} bytes that are neither a JSON object, a msgpack map, a PNG nor a JPEG"
        + (f" (content type {declared[:60]!r})" if declared else ""),
    )
