"""`splitplace submit`."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from splitplace.bus.settings import Settings
from splitplace.commands.shared.options import (
    BrokerOption,
    CredentialsOption,
    PrefixOption,
    fail,
    fit_of,
    parse_deadline_ms,
    settings_from,
)
from splitplace.commands.shared.output import JsonOption, cell, print_json
from splitplace.commands.shared.wording import described
from splitplace.commands.submit.asking import application_of, ask
from splitplace.commands.submit.request import Asked, SubmissionError, request_from
from splitplace.commands.submit.saving import (
    check_place,
    read_state,
    save_arrays,
    save_pictures,
    states_of,
    tensors_of,
)
from splitplace.commands.submit.windows import ask_in_windows
from splitplace.errors import ExitCode
from splitplace.messages.application import Application
from splitplace.messages.base import Name
from splitplace.messages.findings import AnyPrediction, FoundObjects, Prediction
from splitplace.messages.pictures import FITS
from splitplace.messages.task import Answer, TaskRequest


def command(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="For the first input: pictures, one input each; batches (`.npy`); or a sound (`.wav`). "
            "Or arrays by name (`.npz`)."
        ),
    ] = None,
    *,
    app: Annotated[str, typer.Option(help="Name of the application, such as mnist.")],
    deadline: Annotated[
        str, typer.Option(help="Time until the answer is due: 300ms, 2s, 1.5min. A bare number is ms.")
    ] = "1s",
    named: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=FILE",
            help="Picture or array (`.npy`, `.npz`) for the input NAME; again for others, or for a batch.",
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            help="State that goes from call to call (`.npz`): sent where the file exists, then replaced by "
            "that of the answer."
        ),
    ] = None,
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
    save_tensors: Annotated[
        Path | None, typer.Option(help="File for the tensors of the answer, by name (`.npz`).")
    ] = None,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    credentials: CredentialsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send pictures, arrays or a sound as one task and print the answer.

    With --state, each window of a sound is a task of its own, with the state that the one before it left. If
    one has no answer, --save-tensors has those before it, and the state stays as it was.

    Exits with 0 for an answer, on time or late; 3 if the task was refused or not valid; 4 if it expired or
    failed; 5 if no broker, gateway or answer was found.
    """
    settings = settings_from(broker, prefix, credentials)
    _check_name(app)
    check_place(state, "--state")
    check_place(save_tensors, "--save-tensors")
    if not files and not named:
        raise SubmissionError("give files, or --input NAME=FILE")
    truth = _classes(labels, of_state=state is not None)
    taker = _with_states(settings, app) if state is not None else None
    states = taker.states if taker is not None else ()
    earlier = read_state(state, states) if state is not None else {}
    asked = request_from(files or (), parse_deadline_ms(deadline), truth, named or (), earlier)
    request = asked.request.model_copy(update={"fit": fit_of(fit)})
    answers: list[Answer] = []
    try:
        asyncio.run(_ask(settings, app, request, taker, answers))
    finally:
        came = [each for each in answers if each.status == "answered"]
        if save_tensors is not None and came:
            save_arrays(tensors_of(came, "--save-tensors"), save_tensors, "--save-tensors")
    if as_json:
        for each in answers:
            print_json(each)
    answer = answers[-1]
    if answer.status != "answered":
        code = ExitCode.REFUSED if answer.status in {"refused", "invalid"} else ExitCode.NO_RESULT
        where = f"window {len(came)}: " if came else ""
        left = "; the state is as it was before the first window" if came else ""
        fail(f"{where}{answer.status}: {answer.reason}{left}", code)
    if state is not None:
        save_arrays(states_of(answer, states), state, "--state")
    if save is not None:
        save_pictures(answer, asked, save)
    if not as_json:
        _print(answers, asked)


async def _ask(
    settings: Settings, name: str, request: TaskRequest, taker: Application | None, answers: list[Answer]
) -> None:
    """Add the answer to a list; those to each window of a sound for a network with states."""
    if taker is None or request.sound is None:
        answers.append(await ask(settings, name, request))
        return
    async for answer in ask_in_windows(settings, taker, request, request.sound):
        answers.append(answer)  # noqa: PERF401 - those before an error are kept


def _with_states(settings: Settings, name: str) -> Application:
    """Return an application that has states. Raises SubmissionError if it has none; ends if it is unknown."""
    application = asyncio.run(application_of(settings, name))
    if application is None:
        fail(f"refused: no application {name!r} on {settings.broker}", ExitCode.REFUSED)
    if not application.states:
        raise SubmissionError(f"--state: {name} has no state that goes from call to call")
    return application


def _check_name(application: str) -> None:
    try:
        TypeAdapter(Name).validate_python(application)
    except ValidationError:
        raise SubmissionError(
            f"--app {application!r} cannot be the name of an application: letters, digits, _ . and - only"
        ) from None


def _classes(labels: str | None, *, of_state: bool) -> list[int] | None:
    if labels and of_state:
        raise SubmissionError("--labels: networks with a state answer with tensors, not with classes")
    try:
        return [int(label) for label in labels.split(",")] if labels else None
    except ValueError:
        raise SubmissionError(f"--labels {labels!r} is not a list of class numbers like 7,2,1") from None


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


def _print(answers: Sequence[Answer], asked: Asked) -> None:
    request, files, answer = asked.request, asked.pictures, answers[-1]
    console = Console()
    predictions = [found for each in answers for found in each.predictions]
    is_classified = all(isinstance(found, Prediction | None) for found in predictions)
    table = Table("input", *(("label", "confidence") if is_classified else ("answer",)))
    if request.labels and is_classified:
        table.add_column("truth")
    for index, prediction in enumerate(predictions):
        name = files[index].name if files else str(index)
        truth = request.labels[index] if request.labels else None
        for number, row in enumerate(_rows(prediction, truth)):
            table.add_row(cell("" if number else name), *row)
    console.print(table)
    if answer.partial:
        console.print(f"[yellow]partial[/]   {answer.coverage or 0:.0%} of the classes could be predicted")
    console.print(cell(f"decision  {answer.decision}: {answer.reason}"))
    for warning in dict.fromkeys(warning for each in answers for warning in each.warnings):
        console.print(cell(f"warning   {warning}", "yellow"))
    console.print(f"nodes     {', '.join(dict.fromkeys(node for each in answers for node in each.nodes))}")
    slowest = max(answers, key=lambda each: each.response_ms or 0.0)
    late = sum(not each.on_time for each in answers)
    of = f" at most, {len(answers)} windows, {late} late" if len(answers) > 1 else " [red](late)[/]" * late
    console.print(f"response  {slowest.response_ms or 0:.1f} ms of {slowest.deadline_ms or 0:.0f} ms{of}")
