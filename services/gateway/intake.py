"""Check and decode a task: from an MQTT payload to a batch of inputs, or a refusal.

Pure. It has two steps. `read` needs no catalogue, so that a task that was sent before is recognised even when
the catalogue is missing. `decode` is costly: run it in a thread.
"""

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from splitplace.bus.incoming import RawReceived
from splitplace.messages.answer_kinds import PLACED_KINDS
from splitplace.messages.application import Application
from splitplace.messages.limits import MAX_BATCH, MAX_TASK_INPUT_BYTES
from splitplace.messages.names import SensorName
from splitplace.messages.pictures import FITS, PictureInput, View
from splitplace.messages.task import Deadline, TaskRequest, TaskTensor
from splitplace.messages.tensors import ITEM_BYTES
from splitplace.messages.validation_errors import problem_of
from splitplace.services.gateway import body, pictures, sounds
from splitplace.services.gateway.arrays import array_of, named_inputs, pictures_of, rows_of
from splitplace.services.gateway.picture_files import are_tiny
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
    fit: str | None = None
    """How its pictures are fitted, by body or user properties; None = as the application says."""

    @property
    def is_costly(self) -> bool:
        """Whether decoding it takes longer than handing it to a thread."""
        request = self.request
        tensors = request.tensors or ()
        compressed = "zstd" in {request.codec, *(tensor.codec for tensor in tensors)}
        arrays_bytes = sum(len(tensor.data or b"") for tensor in tensors)
        sent_bytes = len(request.inputs or b"") + arrays_bytes
        files = [*(request.images or ()), *(file for tensor in tensors for file in tensor.images or ())]
        pictures_are_large = bool(files) and not are_tiny(files)
        has_sound = request.sound is not None  # a few bytes of another rate become many
        return pictures_are_large or has_sound or compressed or sent_bytes > SMALL_BYTES


SMALL_BYTES = 16 * 1024
"""Below it, parsing or copying costs less than handing it to a thread."""


@dataclass(frozen=True, slots=True)
class ValidTask:
    """A task that was checked and decoded."""

    identity: TaskIdentity
    application: str
    inputs: NDArray[Any]
    """Shape [batch, *application.input.shape], dtype of the application's input; rows of bytes for several
    inputs (`arrays.rows_of`)."""
    deadline_ms: float
    labels: tuple[int, ...] | None
    content: str
    warnings: tuple[str, ...] = ()
    """What was ignored in it, and done to its pictures."""
    views: tuple[View, ...] = ()
    """Where the input lies on each picture, where answers name places on it."""


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
    given_inputs = sum(given is not None for given in (request.inputs, request.images, request.sound))
    if given_inputs > 1 or not (given_inputs or request.tensors):
        reason = "give one of `inputs` (raw array), `images` (picture files), `sound` (WAV file) or `tensors`"
        refuse("malformed", reason, _completed(identity, request, raw))
    application = raw.parameters.get("application", "")
    fit = request.fit or raw.properties.user.get("fit")
    return Submission(
        identity=_named_in_body(identity, request, raw),
        application=application,
        request=request,
        deadline=raw.properties.user.get("deadline_ms"),
        content=_content(application, request, fit),
        warnings=ignored,
        fit=fit,
    )


def decode(submission: Submission, application: Application) -> ValidTask:
    """Check a task against its application and decode its inputs.

    Raises:
        TaskRefusedError: it is not valid; the reason says what would be.
    """
    request = submission.request
    deadline_ms = _deadline(submission, application)
    warnings = (*((application.caution,) if application.caution else ()), *submission.warnings)
    specs = {tensor.name: tensor.spec for tensor in named_inputs(application)}
    first = next(iter(specs))
    given: dict[str, NDArray[Any]] = {}
    views: tuple[View, ...] = ()
    if files := pictures_of(application, request):
        how = _fitted(submission, application)
        for name, (decoded, done, seen) in pictures.decode_named(files, specs, how).items():
            given[name] = decoded
            warnings = (*warnings, *done)
            views = seen if name == first else views
    if request.sound is not None:
        given[first], done = sounds.decode(request.sound, application.input, application.sound)
        if application.states and len(given[first]) > 1:
            refuse("oversized-batch", "a state goes from window to window here: send one window a task")
        warnings = (*warnings, *done)
    elif request.inputs is not None:
        given[first] = array_of(request, request.inputs, application.input)
    inputs = rows_of(application, request.tensors or (), given)
    if len(inputs) > application.most_inputs:
        most = application.most_inputs
        refuse(
            "oversized-batch",
            f"a batch of {len(inputs)}; the answers of this application have room for {most}",
        )
    if request.labels is not None:
        _check_labels(request.labels, len(inputs), len(application.labels))
    return ValidTask(
        identity=submission.identity,
        application=application.name,
        inputs=inputs,
        deadline_ms=deadline_ms,
        labels=request.labels,
        content=submission.content,
        warnings=warnings[:_MAX_WARNINGS],
        views=views if application.answers.kind in PLACED_KINDS else (),
    )


def announced_bytes(submission: Submission, application: Application) -> int:
    """Return how many bytes of inputs a task will have before they are decoded, if it is valid.

    Raises:
        TaskRefusedError: Its sound has no readable head.
    """
    request = submission.request
    if request.images is not None:
        return len(request.images) * application.input_bytes_per_image
    if request.sound is not None and application.sound is not None:
        windows = sounds.windows_of(sounds.head_of(request.sound), application.input, application.sound)
        return min(windows, MAX_BATCH) * application.input_bytes_per_image
    if request.codec != "raw" and request.shape:
        return request.shape[0] * application.input_bytes_per_image
    tensors = request.tensors or ()
    if files := max((len(tensor.images or ()) for tensor in tensors), default=0):
        return files * application.input_bytes_per_image
    return len(request.inputs or b"") + sum(map(_announced_bytes, tensors))


def _announced_bytes(tensor: TaskTensor) -> int:
    """Return how many bytes an array of a task will have."""
    if tensor.codec == "raw" or tensor.shape is None:
        return len(tensor.data or b"")
    return min(prod(tensor.shape) * ITEM_BYTES[tensor.dtype or "uint8"], MAX_TASK_INPUT_BYTES)


def announced_batch(submission: Submission, application: Application) -> int:
    """Return how many inputs a task will have before they are decoded, if it is valid.

    Raises:
        TaskRefusedError: Its sound has no readable head.
    """
    return max(1, announced_bytes(submission, application) // max(1, application.input_bytes_per_image))


def announced_deadline_ms(submission: Submission, application: Application) -> float:
    """Return the deadline of a task; that of its application where it is not valid."""
    try:
        return _deadline(submission, application)
    except TaskRefusedError:
        return application.default_deadline_ms


def unknown_application(name: str, applications: Iterable[str]) -> str:
    """Write the reason to refuse a task of an application that the catalogue does not hold."""
    return f"no application {name[:80]!r}; there is: {', '.join(sorted(applications)) or 'none'}"


def _content(application: str, request: TaskRequest, fit: str | None) -> str:
    """Hash application and inputs. Deadline, labels and the encoding of the body do not count."""
    digest = hashlib.blake2b(application.encode(), digest_size=16)
    if fit is not None:
        digest.update(b"fit %s;" % fit.encode())
    for part in request.images if request.images is not None else (request.inputs or request.sound or b"",):
        digest.update(b"%d;" % len(part))
        digest.update(part)
    for tensor in request.tensors or ():
        files = tensor.images or (tensor.data or b"",)
        about = (tensor.name, tensor.dtype, tensor.shape, tensor.codec, *map(len, files))
        digest.update(f"{about};".encode())
        for file in files:
            digest.update(file)
    return digest.hexdigest()


def _valid_name(value: str | None) -> str | None:
    return value if value is not None and not _name_trouble(value) else None


def _name_trouble(value: str) -> str:
    """Say why a name cannot be a level of a topic; empty if it can."""
    try:
        _NAME.validate_python(value, strict=True)
    except ValidationError as error:
        return problem_of(error.errors(include_url=False, include_input=False)[0])
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


def _fitted(submission: Submission, application: Application) -> PictureInput:
    """Return the preprocessing of the application, with the fit that the sensor asks for."""
    how = application.pictures or pictures.PLAIN
    fit = submission.fit
    if fit is None:
        return how
    if fit not in FITS:
        refuse("malformed", f"fit {fit[:40]!r}: one of {', '.join(FITS)}")
    return how.model_copy(update={"fit": fit})


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
