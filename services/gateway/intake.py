"""Check and decode a task: from an MQTT payload to a batch of inputs, or a refusal.

Pure. It has two steps. `read` needs no catalogue, so that a task that was sent before is recognised even when
the catalogue is missing. `decode` is costly: run it in a thread.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from splitplace.bus.incoming import RawReceived
from splitplace.messages.application import Application
from splitplace.messages.frames import FrameError, decompress
from splitplace.messages.limits import MAX_BATCH, MAX_TASK_INPUT_BYTES
from splitplace.messages.names import SensorName
from splitplace.messages.task import Deadline, TaskRequest
from splitplace.messages.tensors import ITEM_BYTES, TensorSpec
from splitplace.services.gateway import body, pictures
from splitplace.services.gateway.refusals import TaskIdentity, TaskRefusedError, refuse

ANONYMOUS = "anonymous"

_NAME = TypeAdapter(SensorName)
_MAX_WARNINGS = 12
"""An answer holds 16; some are the gateway's."""
_DEADLINE = TypeAdapter(Deadline)


@dataclass(frozen=True, slots=True)
class Submission:
    """A task whose body was parsed. Its inputs are not decoded yet."""

    identity: TaskIdentity
    application: str
    """As the topic names it; the catalogue may not know it."""
    request: TaskRequest
    deadline: str | None
    """The deadline in the user properties."""
    content: str
    """Hash of application and inputs: what makes two tasks of the same name the same task."""
    warnings: tuple[str, ...] = ()
    """What was ignored in its body."""

    @property
    def is_costly(self) -> bool:
        """Whether decoding it takes longer than handing it to a thread."""
        request = self.request
        compressed = request.codec != "raw"
        return request.images is not None or compressed or len(request.inputs or b"") > SMALL_BYTES


SMALL_BYTES = 16 * 1024
"""Below it, parsing or copying costs less than handing it to a thread."""


@dataclass(frozen=True, slots=True)
class ValidTask:
    """A task that was checked and decoded."""

    identity: TaskIdentity
    application: str
    inputs: NDArray[Any]
    """Shape [batch, *application.input.shape], dtype of the application's input."""
    deadline_ms: float
    labels: tuple[int, ...] | None
    content: str
    warnings: tuple[str, ...] = ()
    """What was ignored in it, and done to its pictures."""


def identify(raw: RawReceived) -> TaskIdentity:
    """Read the names in topic and user properties, without looking at the payload.

    Never fails: missing and invalid names are made up, so that even their refusal has an address.
    """
    given = _given_names(raw)
    return TaskIdentity(
        _valid_name(given.get("client")) or ANONYMOUS, _valid_name(given.get("task")) or secrets.token_hex(8)
    )


def _given_names(raw: RawReceived) -> dict[str, str]:
    """Return what topic and user properties say; an empty level says nothing."""
    levels = {name: level for name, level in raw.parameters.items() if level}
    return {**raw.properties.user, **levels}


def read(raw: RawReceived, identity: TaskIdentity) -> Submission:
    """Parse a task and find its names. Bounded in time and memory by the bounds of `body.parse`.

    Args:
        raw: a message on a task topic.
        identity: from `identify`; names in the body replace those that it made up.

    Raises:
        TaskRefusedError: it is not valid. Its `identity` is where the refusal should go.
    """
    given = _given_names(raw)
    for name in ("client", "task"):
        if given.get(name) is not None and (trouble := _name_trouble(given[name])):
            refuse("bad-name", f"{name} {given[name][:80]!r}: {trouble}")
    if raw.parameters.get("more") is not None:
        refuse("bad-name", "the topic has more levels than task/<application>/<client>/<task>")
    try:
        request, ignored = body.parse(raw)
    except body.BodyRefusedError as error:
        refuse(error.kind, error.reason, _completed(identity, error.names, raw))
    if (request.inputs is None) == (request.images is None):
        reason = "give either `inputs` (raw array) or `images` (picture files), and not both"
        refuse("malformed", reason, _completed(identity, request, raw))
    application = raw.parameters.get("application", "")
    return Submission(
        identity=_named_in_body(identity, request, raw),
        application=application,
        request=request,
        deadline=raw.properties.user.get("deadline_ms"),
        content=_content(application, request),
        warnings=ignored,
    )


def decode(submission: Submission, application: Application) -> ValidTask:
    """Check a task against its application and decode its inputs.

    Raises:
        TaskRefusedError: it is not valid; the reason says what would be.
    """
    request = submission.request
    deadline_ms = _deadline(submission, application)
    warnings = submission.warnings
    if request.images is not None:
        inputs, done = pictures.decode(request.images, application.input)
        warnings = (*warnings, *done)[:_MAX_WARNINGS]
    else:
        inputs = _array(request, application.input)
    if request.labels is not None:
        _check_labels(request.labels, len(inputs), len(application.labels))
    return ValidTask(
        identity=submission.identity,
        application=application.name,
        inputs=inputs,
        deadline_ms=deadline_ms,
        labels=request.labels,
        content=submission.content,
        warnings=warnings,
    )


def announced_bytes(submission: Submission, application: Application) -> int:
    """Return how many bytes of inputs a task will have before they are decoded, if it is valid."""
    request = submission.request
    if request.images is not None:
        return len(request.images) * application.input.bytes_per_image
    if request.codec != "raw" and request.shape:
        return request.shape[0] * application.input.bytes_per_image
    return len(request.inputs or b"")


def announced_batch(submission: Submission, application: Application) -> int:
    """Return how many inputs a task will have before they are decoded, if it is valid."""
    return max(1, announced_bytes(submission, application) // max(1, application.input.bytes_per_image))


def announced_deadline_ms(submission: Submission, application: Application) -> float:
    """Return the deadline of a task; that of its application where it is not valid."""
    try:
        return _deadline(submission, application)
    except TaskRefusedError:
        return application.default_deadline_ms


def unknown_application(name: str, applications: Mapping[str, Application]) -> str:
    """Write the reason to refuse a task of an application that the catalogue does not hold."""
    return f"no application {name[:80]!r}; there is: {', '.join(sorted(applications))}"


def _content(application: str, request: TaskRequest) -> str:
    """Hash application and inputs. Deadline, labels and the encoding of the body do not count."""
    digest = hashlib.blake2b(application.encode(), digest_size=16)
    for part in request.images if request.images is not None else (request.inputs or b"",):
        digest.update(b"%d;" % len(part))
        digest.update(part)
    return digest.hexdigest()


def _valid_name(value: str | None) -> str | None:
    return value if value is not None and not _name_trouble(value) else None


def _name_trouble(value: str) -> str:
    """Say why a name cannot be a level of a topic; empty if it can."""
    try:
        _NAME.validate_python(value, strict=True)
    except ValidationError as error:
        return error.errors(include_url=False, include_input=False)[0]["msg"].removeprefix("Value error, ")
    return ""


def _completed(identity: TaskIdentity, names: body.BodyNames | TaskRequest, raw: RawReceived) -> TaskIdentity:
    """Take names from a body where topic and properties give none that are valid."""
    known = _given_names(raw)
    client = identity.client if _valid_name(known.get("client")) else names.client or identity.client
    return TaskIdentity(
        client, identity.task if _valid_name(known.get("task")) else names.task or identity.task
    )


def _named_in_body(identity: TaskIdentity, request: TaskRequest, raw: RawReceived) -> TaskIdentity:
    given = _given_names(raw)
    for name, value in (("client", request.client), ("task", request.task)):
        if value is not None and given.get(name, value) != value:
            refuse(
                "bad-name",
                f"{name} is {value!r} in the body and {given[name]!r} in the topic or its properties",
            )
    return TaskIdentity(request.client or identity.client, request.task or identity.task)


def _deadline(submission: Submission, application: Application) -> float:
    if submission.request.deadline_ms is not None:
        return submission.request.deadline_ms
    given = submission.deadline
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
