"""`splitplace camera`."""

import asyncio
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from splitplace.commands.camera.frames import Chooser, Frame, Waiting
from splitplace.commands.camera.sources import TOPIC, Source, SourceError, source_of
from splitplace.commands.camera.watching import Camera, watch
from splitplace.commands.shared.drawing import DrawingError, drawn
from splitplace.commands.shared.options import (
    BrokerOption,
    CredentialsOption,
    PrefixOption,
    explain,
    parse_deadline_ms,
    parse_duration_ms,
    settings_from,
)
from splitplace.commands.shared.output import JsonOption, cell, print_json
from splitplace.commands.shared.wording import counted, described
from splitplace.errors import ExitCode
from splitplace.messages.base import Name
from splitplace.messages.names import SensorName
from splitplace.messages.task import Answer

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def command(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of pictures, video file, /dev/video0, rtsp://..., or mqtt:TOPIC that carries JPEGs."
        ),
    ],
    *,
    app: Annotated[str, typer.Option(help="Name of the application.")],
    every: Annotated[str, typer.Option(help="Least time between two frames of a video or camera.")] = "1s",
    on_motion: Annotated[bool, typer.Option("--on-motion", help="Send only what moves.")] = False,
    deadline: Annotated[str, typer.Option(help="Time until an answer is due.")] = "1s",
    name: Annotated[
        str, typer.Option(help="Name of the camera, a level of each answer's topic. [default: by the source]")
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", help="Wait for new pictures in the folder.")] = False,
    save: Annotated[
        Path | None, typer.Option(help="Folder for the pictures, with their answers drawn on them.")
    ] = None,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    credentials: CredentialsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send the pictures of a camera, a video, a folder or a topic, and print the answers.

    One picture is under way at a time. The newest frame of a live camera replaces the one that waits; every
    picture of a folder is sent. Answers come on `answer/CAMERA/TASK`, where others may read them as well.
    """
    settings = settings_from(broker, prefix, credentials)
    chooser = Chooser(parse_duration_ms(every, "--every") / 1000, on_motion=on_motion)
    found: Source | None = None
    topic = ""
    if source.startswith(TOPIC):
        topic = source.removeprefix(TOPIC)
        if not topic or "+" in topic or "#" in topic:
            raise SourceError(f"{source}: name one topic, without wildcards")
    else:
        found = source_of(source, follows=follow)
    usual = found.name if found is not None else topic.replace("/", "-")
    camera = Camera(
        name=_checked(name or usual, TypeAdapter(SensorName), "--name"),
        application=_checked(app, TypeAdapter(Name), "--app"),
        deadline_ms=parse_deadline_ms(deadline),
        chooser=chooser,
        source=found,
        topic=topic,
    )
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
    told = _Told(camera.name, save, as_json=as_json)
    waiting = Waiting()
    try:
        asyncio.run(watch(settings, camera, told.answer, waiting))
        is_interrupted = False
    except KeyboardInterrupt:
        is_interrupted = True
    finally:
        told.end(waiting.replaced)
    if not told.answered and not is_interrupted:
        raise typer.Exit(ExitCode.PROBLEM)


@dataclass
class _Told:
    """Prints answers as they come, and keeps drawn pictures."""

    camera: str
    folder: Path | None
    as_json: bool
    sent: int = 0
    answered: int = 0
    kept: set[str] = field(default_factory=set)
    """Names under which pictures were kept: `a.png` and `a.jpg` need two."""

    def answer(self, frame: Frame, content: bytes, answer: Answer | None) -> None:
        """Print an answer, and draw it where pictures are kept."""
        self.sent += 1
        prediction = answer.predictions[0] if answer is not None and answer.predictions else None
        self.answered += prediction is not None
        if self.as_json:
            print_json({"camera": self.camera, "frame": frame.name, "answer": answer}, indent=None)
        else:
            console = Console(highlight=False, soft_wrap=True)
            if answer is None:
                said = "no answer"
            elif prediction is None:
                said = f"{answer.status}: {answer.reason}"
            else:
                late = "" if answer.on_time else " (late)"
                said = f"{described(prediction)}  {answer.response_ms or 0:.0f} ms{late}"
            console.print(cell(f"{self.camera}  {frame.name}  {said}"))
        if self.folder is not None:
            try:
                picture = drawn(content, prediction)
            except DrawingError:
                return
            stem = _UNSAFE.sub("-", Path(frame.name).stem if frame.at_s is None else frame.name).strip("-")
            is_named = (frame.at_s is None or frame.name.startswith("frame-")) and stem not in self.kept
            self.kept.add(stem)
            file = self.folder / f"{stem or 'frame'}{'' if is_named else f'-{self.sent:06}'}.png"
            picture.save(file)

    def end(self, replaced: int) -> None:
        """Say how many there were, on standard error."""
        Console(stderr=True, highlight=False).print(
            f"{counted(self.sent, 'picture')} sent, {self.answered} with an answer, "
            f"{replaced} replaced by newer ones"
        )


def _checked(text: str, kind: TypeAdapter[str], flag: str) -> str:
    try:
        return kind.validate_python(text)
    except ValidationError as error:
        raise SourceError(f"{flag} {text!r}: {explain(error)}") from None
