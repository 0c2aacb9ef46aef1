"""Check and decode a task: from an MQTT payload to a batch of inputs, or a refusal.

Pure. Decoding is costly: run it in a thread.
"""

import io
import secrets
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, NoReturn

import msgpack
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from splitplace.bus.connection import RawReceived
from splitplace.errors import SplitPlaceError
from splitplace.messages.application import ITEM_BYTES, Application, TensorSpec
from splitplace.messages.base import ClientName
from splitplace.messages.frames import FrameError, decompress
from splitplace.messages.limits import MAX_BATCH, MAX_IMAGE_PIXELS, MAX_TASK_BYTES, MAX_TASK_INPUT_BYTES
from splitplace.messages.task import Deadline, TaskRequest

ANONYMOUS = "anonymous"

RefusalKind = Literal[
    "unknown-application",
    "too-large",
    "malformed",
    "bad-name",
    "bad-deadline",
    "bad-shape",
    "bad-dtype",
    "bad-labels",
    "bad-picture",
    "empty-batch",
    "oversized-batch",
    "overloaded",
    "journal",
]

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_JSON_TYPES = {"application/json", "text/json"}
_MSGPACK_TYPES = {"application/msgpack", "application/x-msgpack", "application/vnd.msgpack"}
_PICTURE_TYPES = {"image/png", "image/jpeg"}
_NAME = TypeAdapter(ClientName)
_DEADLINE = TypeAdapter(Deadline)


class TaskRefusedError(SplitPlaceError):
    """A task is refused. `kind` counts it, `reason` tells its sender what to fix."""

    def __init__(self, kind: RefusalKind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


def refuse(kind: RefusalKind, reason: str) -> NoReturn:
    """Raise a refusal. The reason is cut to what an answer holds."""
    raise TaskRefusedError(kind, reason[:900])


@dataclass(frozen=True, slots=True)
class TaskIdentity:
    """Names of the sender and of the task."""

    client: str
    task: str

    @property
    def key(self) -> str:
        """The name of the task between services."""
        return f"{self.client}.{self.task}"


@dataclass(frozen=True, slots=True)
class ValidTask:
    """A task that was checked and decoded."""

    identity: TaskIdentity
    application: str
    inputs: NDArray[Any]
    """Shape [batch, *application.input.shape], dtype of the application's input."""
    deadline_ms: float
    labels: tuple[int, ...] | None


def identify(raw: RawReceived) -> TaskIdentity:
    """Read the names in topic and user properties, without looking at the payload.

    Never fails: missing and invalid names are made up, so that even their refusal has an address.
    """
    given = {**raw.properties.user, **raw.parameters}
    return TaskIdentity(
        _valid_name(given.get("client")) or ANONYMOUS, _valid_name(given.get("task")) or secrets.token_hex(8)
    )


class _Names(BaseModel):
    """The names in a body whose other fields are not valid."""

    model_config = ConfigDict(extra="ignore")
    client: ClientName | None = None
    task: ClientName | None = None


def address_of_refusal(raw: RawReceived, identity: TaskIdentity) -> TaskIdentity:
    """Find the names for a refusal: as `identify`, completed from the body where it can be read at all."""
    try:
        if _content_kind(raw) == "json":
            names = _Names.model_validate_json(raw.payload[:MAX_TASK_BYTES])
        else:
            names = _Names.model_validate(msgpack.unpackb(raw.payload, use_list=False, max_ext_len=0))
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException, TaskRefusedError):
        return identity
    known = {**raw.properties.user, **raw.parameters}
    client = identity.client if _valid_name(known.get("client")) else names.client or identity.client
    return TaskIdentity(
        client, identity.task if _valid_name(known.get("task")) else names.task or identity.task
    )


def admit(raw: RawReceived, identity: TaskIdentity, applications: Mapping[str, Application]) -> ValidTask:
    """Check and decode a task.

    Args:
        raw: a message on a task topic.
        identity: from `identify`; names in the body replace those that it made up.
        applications: the catalogue.

    Raises:
        TaskRefusedError: it is not valid; the reason says what would be.
    """
    application = _application(raw, applications)
    if len(raw.payload) > MAX_TASK_BYTES:
        refuse("too-large", f"payload of {len(raw.payload)} bytes; the limit is {MAX_TASK_BYTES}")
    for name in ("client", "task"):
        given = raw.parameters.get(name) or raw.properties.user.get(name)
        if given is not None and _valid_name(given) is None:
            refuse("bad-name", f"{name} {given[:80]!r}: 1 to 64 letters, digits, - or _, no sign first")
    request = _request(raw)
    inputs = _inputs(request, application)
    if request.labels is not None:
        _check_labels(request.labels, len(inputs), len(application.labels))
    return ValidTask(
        identity=_named_in_body(identity, request, raw),
        application=application.name,
        inputs=inputs,
        deadline_ms=_deadline(request, raw, application),
        labels=request.labels,
    )


def _application(raw: RawReceived, applications: Mapping[str, Application]) -> Application:
    name = raw.parameters.get("application", "")
    found = applications.get(name)
    if found is None:
        known = ", ".join(sorted(applications)) or "none yet: is the splitter running?"
        refuse("unknown-application", f"no application {name[:80]!r}; there is: {known}")
    return found


def _valid_name(value: str | None) -> str | None:
    try:
        return _NAME.validate_python(value, strict=True) if value is not None else None
    except ValidationError:
        return None


def _named_in_body(identity: TaskIdentity, request: TaskRequest, raw: RawReceived) -> TaskIdentity:
    given = {**raw.properties.user, **raw.parameters}
    for name, value in (("client", request.client), ("task", request.task)):
        if value is not None and given.get(name, value) != value:
            refuse(
                "bad-name",
                f"{name} is {value!r} in the body and {given[name]!r} in the topic or its properties",
            )
    return TaskIdentity(request.client or identity.client, request.task or identity.task)


def _request(raw: RawReceived) -> TaskRequest:
    kind = _content_kind(raw)
    try:
        if kind == "picture":
            return TaskRequest(images=(raw.payload,))
        if kind == "json":
            return TaskRequest.model_validate_json(raw.payload)
        fields = msgpack.unpackb(raw.payload, use_list=False, max_ext_len=0)
        return TaskRequest.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        refusal: RefusalKind = "bad-deadline" if where == "deadline_ms" else "malformed"
        reason = f"{kind} task: {where}: {first['msg']}"
        refuse(refusal, reason)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        refuse("malformed", f"not a {kind} task: {error}")


def _content_kind(raw: RawReceived) -> Literal["json", "msgpack", "picture"]:
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
    refuse(
        "malformed",
        f"{len(raw.payload)} bytes that are neither a JSON object, a msgpack map, a PNG nor a JPEG"
        + (f" (content type {declared[:60]!r})" if declared else ""),
    )


def _deadline(request: TaskRequest, raw: RawReceived, application: Application) -> float:
    if request.deadline_ms is not None:
        return request.deadline_ms
    given = raw.properties.user.get("deadline_ms")
    if given is None:
        return application.default_deadline_ms
    try:
        return _DEADLINE.validate_python(float(given))
    except ValueError:
        refuse("bad-deadline", f"deadline_ms {given[:40]!r}: a number of milliseconds from 1 to 86400000")


def _check_labels(labels: tuple[int, ...], batch: int, classes: int) -> None:
    if len(labels) != batch:
        refuse("bad-labels", f"{len(labels)} labels for {batch} inputs")
    if max(labels) >= classes:
        refuse("bad-labels", f"label {max(labels)}; this application has classes 0 to {classes - 1}")


def _inputs(request: TaskRequest, application: Application) -> NDArray[Any]:
    if (request.inputs is None) == (request.images is None):
        refuse("malformed", "give either `inputs` (raw array) or `images` (PNG or JPEG files), and not both")
    if request.images is not None:
        return _pictures(request.images, application.input)
    return _array(request, application.input)


def _array(request: TaskRequest, spec: TensorSpec) -> NDArray[Any]:
    encoded = request.inputs or b""
    dtype = request.dtype or spec.dtype
    if dtype != spec.dtype:
        refuse("bad-dtype", f"dtype {dtype}; this application takes {spec.dtype}")
    shape = request.shape if request.shape is not None else _guess_shape(request, spec)
    if not shape or _without_ones(shape[1:]) != _without_ones(spec.shape):
        refuse(
            "bad-shape",
            f"shape {list(shape)}; this application takes [batch, {', '.join(map(str, spec.shape))}]",
        )
    _check_batch(shape[0])
    size = prod(shape) * ITEM_BYTES[dtype]
    if size > MAX_TASK_INPUT_BYTES:
        refuse("too-large", f"inputs of {size} bytes; the limit is {MAX_TASK_INPUT_BYTES}")
    try:
        data = decompress(encoded, size) if request.codec == "zstd" else encoded
    except FrameError as error:
        refuse("malformed", f"inputs: {error}")
    if len(data) != size:
        refuse("bad-shape", f"inputs hold {len(data)} bytes; shape {list(shape)} of {dtype} needs {size}")
    array = np.frombuffer(data, dtype=dtype).reshape(shape[0], *spec.shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        refuse("malformed", "inputs hold NaN or infinity")
    return array


def _guess_shape(request: TaskRequest, spec: TensorSpec) -> tuple[int, ...]:
    """Derive the shape from the number of raw bytes."""
    if request.codec != "raw":
        refuse("bad-shape", "compressed inputs need a shape")
    count, rest = divmod(len(request.inputs or b""), spec.bytes_per_image)
    if rest:
        refuse(
            "bad-shape",
            (f"{len(request.inputs or b'')} bytes are not a multiple of one input's {spec.bytes_per_image}"),
        )
    return (count, *spec.shape)


def _check_batch(count: int) -> None:
    if count == 0:
        refuse("empty-batch", "an empty batch")
    if count > MAX_BATCH:
        refuse("oversized-batch", f"a batch of {count}; the limit is {MAX_BATCH}")


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(dimension for dimension in shape if dimension != 1)


def _pictures(files: tuple[bytes, ...], spec: TensorSpec) -> NDArray[Any]:
    modes = {1: "L", 3: "RGB"}
    if spec.dtype != "uint8" or len(spec.shape) != 3 or spec.shape[0] not in modes:  # noqa: PLR2004 - C, H, W
        refuse(
            "bad-picture",
            f"this application takes {spec.dtype} {list(spec.shape)}, not pictures; send `inputs`",
        )
    if len(files) * spec.bytes_per_image > MAX_TASK_INPUT_BYTES:
        refuse("too-large", f"{len(files)} pictures exceed {MAX_TASK_INPUT_BYTES} bytes of inputs")
    channels, height, width = spec.shape
    batch = np.empty((len(files), *spec.shape), dtype=np.uint8)
    for index, content in enumerate(files):
        batch[index] = _picture(content, modes[channels], width, height).reshape(-1, height, width)
    return batch


def _picture(content: bytes, mode: str, width: int, height: int) -> NDArray[np.uint8]:
    """Decode a picture, channels first, and scale it to the size of the application's input."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about what is checked and refused here
            picture = Image.open(io.BytesIO(content), formats=("PNG", "JPEG"))
            if picture.width * picture.height > MAX_IMAGE_PIXELS:
                refuse(
                    "bad-picture",
                    f"a picture of {picture.width} x {picture.height}; at most {MAX_IMAGE_PIXELS} pixels",
                )
            converted = picture.convert(mode)
            if converted.size != (width, height):
                converted = converted.resize((width, height), Image.Resampling.BILINEAR)
    except UnidentifiedImageError:
        refuse("bad-picture", "an image is not a readable PNG or JPEG")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        refuse("bad-picture", f"an image is not a readable PNG or JPEG: {error}")
    pixels = np.asarray(converted, dtype=np.uint8)
    return pixels if mode == "L" else np.moveaxis(pixels, -1, 0)
