"""`splitplace submit`."""

import asyncio
import io
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import aiomqtt
import msgpack
import numpy as np
import typer
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from splitplace.bus.settings import Settings
from splitplace.commands.shared.client import new_client, retained
from splitplace.commands.shared.exit_codes import ExitCode
from splitplace.commands.shared.options import (
    BrokerOption,
    PrefixOption,
    explain,
    fail,
    parse_duration_ms,
    settings_from,
)
from splitplace.messages.limits import MAX_TASK_BYTES
from splitplace.messages.task import Answer, TaskRequest
from splitplace.messages.topics import ANSWER, GATEWAY, SERVICE_STATUS, TASK_NAMED

_EXTRA_PATIENCE_S = 5.0
_PICTURES = {".png", ".jpg", ".jpeg"}


def request_from(files: Sequence[Path], deadline_ms: float, labels: Sequence[int] | None) -> TaskRequest:
    """One task from files.

    Args:
        files: either PNG and JPEG pictures, one input each; or .npy arrays, each a batch `[N, ...]`, all of
            one dtype.
        deadline_ms: from the arrival at the gateway.
        labels: the true class of every input, where known.

    Raises:
        ValueError: They cannot be read, or do not make one task.
    """
    suffixes = {file.suffix.lower() for file in files}
    shared: dict[str, Any] = {"deadline_ms": deadline_ms, "labels": tuple(labels) if labels else None}
    if suffixes <= _PICTURES:
        return TaskRequest(images=tuple(_content(file) for file in files), **shared)
    if suffixes != {".npy"}:
        raise ValueError("give either pictures (.png, .jpg) or arrays (.npy)")
    array = np.concatenate([np.load(io.BytesIO(_content(file)), allow_pickle=False) for file in files])
    return TaskRequest.model_validate(
        {"inputs": array.tobytes(), "shape": array.shape, "dtype": array.dtype.name, **shared}
    )


def _content(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_TASK_BYTES:
            raise ValueError(f"{file}: more than the {MAX_TASK_BYTES} bytes that a task may have")
        return file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from error


async def ask(settings: Settings, application: str, request: TaskRequest) -> Answer:
    """Sends a task and waits for its answer, as any MQTT 5 client would: response topic, correlation data.

    Raises:
        aiomqtt.MqttError: The broker cannot be reached.
        ValueError: What came is no answer.
        ConnectionError: No gateway runs there.
        TimeoutError: No answer came, although one must within the deadline and the gateway's grace.
    """
    # Where the broker has an access list, a client may only use its own user name.
    name, task = settings.username or f"submit-{secrets.token_hex(4)}", secrets.token_hex(8)
    answers = ANSWER.at(client=name, task=task)
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ResponseTopic = f"{settings.prefix}/{answers}"
    properties.CorrelationData = task.encode()
    properties.ContentType = "application/msgpack"
    payload = msgpack.packb(request.model_dump(exclude_none=True))
    async with new_client(settings, "submit") as client:
        seen = await retained(client, settings, (SERVICE_STATUS,))
        if not any(said.online for said in seen.messages(SERVICE_STATUS) if said.service == GATEWAY):
            raise ConnectionError(f"no gateway runs on {settings.broker} below {settings.prefix}")
        await client.subscribe(f"{settings.prefix}/{answers}", qos=1)
        topic = TASK_NAMED.at(application=application, client=name, task=task)
        await client.publish(f"{settings.prefix}/{topic}", payload, qos=1, properties=properties)
        async with asyncio.timeout(2 * (request.deadline_ms or 0.0) / 1000 + _EXTRA_PATIENCE_S):
            async for message in client.messages:
                if message.topic.matches(f"{settings.prefix}/{answers}"):
                    # In msgpack, as the task was.
                    return Answer.model_validate(msgpack.unpackb(message.payload, use_list=False))
    raise ConnectionError("the connection ended")


def command(
    files: Annotated[
        list[Path], typer.Argument(help="PNG or JPEG pictures, one input each; or .npy batches.")
    ],
    *,
    app: Annotated[str, typer.Option(help="Name of the application, e.g. mnist.")],
    deadline: Annotated[str, typer.Option(help="When the answer is wanted: 300ms, 2s.")] = "1s",
    labels: Annotated[
        str | None,
        typer.Option(help="The true classes, where you know them: 7,2,1. They measure, never decide."),
    ] = None,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
) -> None:
    """Send pictures or arrays as one task and print the answer.

    Exits with 0 for an answer (a late one says so), 3 where the task was refused or not valid, 4 where it
    expired or failed, 5 where no broker, gateway or answer was found.
    """
    settings = settings_from(broker, prefix)
    deadline_ms = parse_duration_ms(deadline)
    try:
        classes = [int(label) for label in labels.split(",")] if labels else None
        request = request_from(files, deadline_ms, classes)
    except ValidationError as error:
        fail(explain(error), ExitCode.USAGE)
    except ValueError as error:
        fail(str(error), ExitCode.USAGE)
    try:
        answer = asyncio.run(ask(settings, app, request))
    except TimeoutError:
        fail("no answer came; see the gateway's log", ExitCode.UNREACHABLE)
    except (aiomqtt.MqttError, OSError, ValueError) as error:
        fail(f"broker {settings.broker}: {error}", ExitCode.UNREACHABLE)
    if answer.status in {"refused", "invalid"}:
        fail(f"{answer.status}: {answer.reason}", ExitCode.REFUSED)
    if answer.status != "answered":
        fail(f"{answer.status}: {answer.reason}", ExitCode.NO_RESULT)
    _print(answer, files, request)


def _print(answer: Answer, files: Sequence[Path], request: TaskRequest) -> None:
    console = Console()
    table = Table("input", "label", "confidence")
    if request.labels:
        table.add_column("truth")
    for index, prediction in enumerate(answer.predictions):
        name = files[index].name if request.images else str(index)
        row = [name, prediction.label, f"{prediction.confidence:.3f}"]
        if request.labels:
            row.append("right" if prediction.index == request.labels[index] else "[red]wrong[/]")
        table.add_row(*row)
    console.print(table)
    late = "" if answer.on_time else " [red](late)[/]"
    if answer.partial:
        console.print(f"[yellow]partial[/]   {answer.coverage or 0:.0%} of the classes could be predicted")
    console.print(f"decision  {answer.decision}: {answer.reason}")
    console.print(f"nodes     {', '.join(answer.nodes)}")
    console.print(f"response  {answer.response_ms or 0:.1f} ms of {answer.deadline_ms or 0:.0f} ms{late}")
