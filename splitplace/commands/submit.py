"""`splitplace submit`."""

import asyncio
import io
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgpack
import numpy as np
import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from splitplace.bus.publication import RefusedError
from splitplace.bus.settings import Settings
from splitplace.commands.shared.client import (
    SPEAKS_WITHIN_S,
    connected,
    may_not_read,
    may_not_write,
    subscribe,
)
from splitplace.commands.shared.drawing import DrawingError, drawn
from splitplace.commands.shared.options import (
    BrokerOption,
    CredentialsOption,
    PrefixOption,
    explain,
    fail,
    fit_of,
    parse_duration_ms,
    settings_from,
)
from splitplace.commands.shared.output import JsonOption, cell, print_json
from splitplace.commands.shared.tasks import OTHER_USER, check_gateway, task_publication
from splitplace.commands.shared.wording import described
from splitplace.errors import ConfigurationError, ExitCode, UnreachableError
from splitplace.messages.base import Name
from splitplace.messages.findings import AnyPrediction, FoundObjects, Prediction
from splitplace.messages.limits import MAX_TASK_BYTES
from splitplace.messages.pictures import FITS
from splitplace.messages.task import Answer, TaskRequest
from splitplace.messages.topics import ANSWER, GATEWAY, METRICS_SERVICE

_EXTRA_PATIENCE_S = 5.0
_SOUND = ".wav"
_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


class SubmissionError(ConfigurationError):
    """The files and flags do not make a task."""


def command(
    files: Annotated[
        list[Path], typer.Argument(help="Pictures, one input each; batches (`.npy`); or a sound (`.wav`).")
    ],
    *,
    app: Annotated[str, typer.Option(help="Name of the application, such as mnist.")],
    deadline: Annotated[
        str, typer.Option(help="Time until the answer is due: 300ms, 2s, 1.5min. A bare number is ms.")
    ] = "1s",
    labels: Annotated[
        str | None,
        typer.Option(help="True class numbers, such as 7,2,1. They measure accuracy and decide nothing."),
    ] = None,
    fit: Annotated[
        str,
        typer.Option(help=f"How pictures are fitted: {', '.join(FITS)}. [default: as the application says]"),
    ] = "",
    save: Annotated[
        Path | None,
        typer.Option(help="Picture with the answer drawn on it; of several, a folder for them."),
    ] = None,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    credentials: CredentialsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send pictures, arrays or a sound as one task and print the answer.

    Exits with 0 for an answer, on time or late; 3 if the task was refused or not valid; 4 if it expired or
    failed; 5 if no broker, gateway or answer was found.
    """
    settings = settings_from(broker, prefix, credentials)
    _check_name(app)
    request = request_from(files, parse_duration_ms(deadline), _classes(labels))
    request = request.model_copy(update={"fit": fit_of(fit)})
    answer = asyncio.run(ask(settings, app, request))
    if as_json:
        print_json(answer)
    if save is not None and answer.status == "answered":
        _draw(answer, files, request, save)
    if answer.status != "answered":
        code = ExitCode.REFUSED if answer.status in {"refused", "invalid"} else ExitCode.NO_RESULT
        fail(f"{answer.status}: {answer.reason}", code)
    if not as_json:
        _print(answer, files, request)


def request_from(files: Sequence[Path], deadline_ms: float, labels: Sequence[int] | None) -> TaskRequest:
    """Return one task made from files.

    Args:
        files: either pictures, one input each; or .npy arrays, each a batch `[N, ...]`, all of
            one dtype; or one WAV file.
        deadline_ms: from the arrival at the gateway.
        labels: the true class of every input, where known.

    Raises:
        SubmissionError: They cannot be read, or do not make one task.
    """
    suffixes = {file.suffix.lower() for file in files}
    shared: dict[str, Any] = {"deadline_ms": deadline_ms, "labels": tuple(labels) if labels else None}
    try:
        if suffixes <= _PICTURES:
            return TaskRequest(images=tuple(_content(file) for file in files), **shared)
        if suffixes == {_SOUND} and len(files) == 1:
            return TaskRequest(sound=_content(files[0]), **shared)
        if suffixes != {".npy"}:
            raise SubmissionError(
                f"give pictures ({', '.join(sorted(_PICTURES))}), arrays (.npy) or one sound ({_SOUND}), "
                f"not {', '.join(map(str, files[:3]))}"
            )
        array = np.concatenate([_array(file) for file in files])
        return TaskRequest.model_validate(
            {"inputs": array.tobytes(), "shape": array.shape, "dtype": array.dtype.name, **shared}
        )
    except ValidationError as error:
        raise SubmissionError(f"not a valid task: {explain(error)}") from error
    except ValueError as error:  # arrays that do not fit together
        raise SubmissionError(str(error)) from error


async def ask(settings: Settings, application: str, request: TaskRequest) -> Answer:
    """Send a task and return its answer. Any MQTT 5 client can do this: response topic, correlation data.

    Raises:
        UnreachableError: The broker cannot be reached, no gateway is online, or no valid answer came within
            the deadline and the gateway's grace.
    """
    # Where the broker has an access list, a client may only use its own user name.
    name, task = settings.client_name or f"submit-{secrets.token_hex(4)}", secrets.token_hex(8)
    answers = f"{settings.prefix}/{ANSWER.at(client=name, task=task)}"
    publication = task_publication(settings, application, name, task, request)
    patience_s = 2 * (request.deadline_ms or 0.0) / 1000 + _EXTRA_PATIENCE_S
    async with connected(settings, "submit") as client:
        await check_gateway(client, settings)
        heartbeat = f"{settings.prefix}/{METRICS_SERVICE.at(service=GATEWAY)}"
        await subscribe(client, settings, METRICS_SERVICE.at(service=GATEWAY), qos=0)
        if not await subscribe(client, settings, ANSWER.at(client=name, task=task)):
            raise UnreachableError(f"{may_not_read(settings, [answers])}: {OTHER_USER}")
        was_alive = True  # until its heartbeat turns out to be a leftover
        try:
            await client.publish_once(publication)
        except RefusedError as error:
            raise UnreachableError(
                f"{may_not_write(settings, publication.topic)} ({error}): {OTHER_USER}"
            ) from error
        try:
            async with asyncio.timeout(patience_s) as patience:
                end_s = patience.when()
                async for message in client.messages:
                    if message.topic.matches(answers):
                        # In msgpack, as the task was.
                        return Answer.model_validate(msgpack.unpackb(message.payload, use_list=False))
                    if message.topic.matches(heartbeat):
                        was_alive, silent_s = not message.retain, _now_s() + SPEAKS_WITHIN_S
                        patience.reschedule(end_s if was_alive else min(end_s or silent_s, silent_s))
        except TimeoutError:
            if not was_alive:
                raise UnreachableError(
                    f"the gateway on {settings.broker} gives no sign of life: its 'online' is what it left "
                    "behind (start it with: splitplace up)"
                ) from None
            raise UnreachableError(
                f"no answer came within {patience_s:.1f} s; see the gateway's log"
            ) from None
        except ValueError as error:
            raise UnreachableError(f"not a valid answer on {answers}: {error}") from error
    raise UnreachableError(f"broker {settings.broker}: the connection ended")


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _check_name(application: str) -> None:
    try:
        TypeAdapter(Name).validate_python(application)
    except ValidationError:
        raise SubmissionError(
            f"--app {application!r} cannot be the name of an application: letters, digits, _ . and - only"
        ) from None


def _array(file: Path) -> Any:  # noqa: ANN401 - an array of any type
    try:
        return np.load(io.BytesIO(_content(file)), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise SubmissionError(f"{file} is not a readable .npy array: {error}") from error


def _content(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_TASK_BYTES:
            raise SubmissionError(f"{file}: more than the {MAX_TASK_BYTES} bytes that a task may have")
        return file.read_bytes()
    except OSError as error:
        raise SubmissionError(f"{file}: {error.strerror}") from error


def _classes(labels: str | None) -> list[int] | None:
    try:
        return [int(label) for label in labels.split(",")] if labels else None
    except ValueError:
        raise SubmissionError(f"--labels {labels!r} is not a list of class numbers like 7,2,1") from None


def _draw(answer: Answer, files: Sequence[Path], request: TaskRequest, save: Path) -> None:
    """Write pictures with their answers drawn on them. Raises SubmissionError."""
    if request.images is None:
        raise SubmissionError("--save draws on pictures; arrays have none")
    try:
        if len(files) > 1:
            save.mkdir(parents=True, exist_ok=True)
        for file, content, prediction in zip(files, request.images, answer.predictions, strict=True):
            place = save if len(files) == 1 else save / f"{file.stem}.png"
            drawn(content, prediction).save(place)
    except (DrawingError, OSError, ValueError) as error:
        raise SubmissionError(f"--save {save}: {error}") from error


def _rows(prediction: AnyPrediction | None, truth: int | None) -> Iterator[tuple[Text, ...]]:
    """Yield the lines of the table for one input, without its name."""
    match prediction:
        case None:
            yield (cell("none: NaN or infinity", "red"),)
        case Prediction():
            row = cell(prediction.label), cell(f"{prediction.confidence:.3f}")
            right = cell("right") if prediction.index == truth else cell("wrong", "red")
            yield row if truth is None else (*row, right)
            for other in prediction.top[1:]:
                yield cell(other.label), cell(f"{other.confidence:.3f}")
        case FoundObjects(objects=objects):
            yield (cell(described(prediction)),)
            for found in objects:
                box = " ".join(f"{side:.0f}" for side in found.box)
                yield (cell(f"{found.label} {found.confidence:.3f}  at {box}"),)
        case _:
            yield (cell(described(prediction)),)


def _print(answer: Answer, files: Sequence[Path], request: TaskRequest) -> None:
    console = Console()
    is_classified = all(isinstance(found, Prediction | None) for found in answer.predictions)
    table = Table("input", *(("label", "confidence") if is_classified else ("answer",)))
    if request.labels and is_classified:
        table.add_column("truth")
    for index, prediction in enumerate(answer.predictions):
        name = files[index].name if request.images else str(index)
        truth = request.labels[index] if request.labels else None
        for number, row in enumerate(_rows(prediction, truth)):
            table.add_row(cell("" if number else name), *row)
    console.print(table)
    late = "" if answer.on_time else " [red](late)[/]"
    if answer.partial:
        console.print(f"[yellow]partial[/]   {answer.coverage or 0:.0%} of the classes could be predicted")
    console.print(cell(f"decision  {answer.decision}: {answer.reason}"))
    for warning in answer.warnings:
        console.print(cell(f"warning   {warning}", "yellow"))
    console.print(f"nodes     {', '.join(answer.nodes)}")
    console.print(f"response  {answer.response_ms or 0:.1f} ms of {answer.deadline_ms or 0:.0f} ms{late}")
