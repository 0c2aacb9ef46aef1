"""`splitplace models add`: a network of the user becomes an application."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from splitplace.commands.shared.options import parse_duration_ms
from splitplace.commands.shared.places import WrittenStoreOption, model_store
from splitplace.commands.shared.progress import telling
from splitplace.errors import ConfigurationError
from splitplace.messages.limits import MEBIBYTE
from splitplace.workshop.datasets import PUBLISHED, DatasetError, Subset, load_published
from splitplace.workshop.datasets.image_folder import read_image_folder
from splitplace.workshop.report.tables import variants_table
from splitplace.workshop.user_networks.add import AddRequest, add
from splitplace.workshop.user_networks.ending import OUTPUT_KINDS, OutputKind
from splitplace.workshop.user_networks.from_onnx import (
    Adopted,
    Wishes,
    adopt,
    pictures_without_answer,
    prepared,
)
from splitplace.workshop.user_networks.from_torch import TorchRequest, export_torch
from splitplace.workshop.user_networks.preprocessing import Preprocessing
from splitplace.workshop.user_networks.reading import UserNetworkError, read_onnx
from splitplace.workshop.user_networks.source import source_of

MAX_LABEL_FILE_BYTES = MEBIBYTE
_AXES = 3
_SHAPE = re.compile(r"(\d+)x(\d+)x(\d+)")


def add_command(
    network: Annotated[
        str, typer.Argument(help="FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION that builds it, or FILE.onnx.")
    ],
    *,
    labels: Annotated[Path, typer.Option(help="Text file, one class a line, in the order of the outputs.")],
    shape: Annotated[
        str,
        typer.Option(
            "--input",
            help="Sizes that the file leaves open: 3x480x640 or images=3x480x640.",
        ),
    ] = "",
    weights: Annotated[
        Path | None, typer.Option(help="A .safetensors file, or tensors saved by torch.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Labelled pictures to measure the accuracy on: a folder for each class, named like it."
        ),
    ] = None,
    dataset: Annotated[
        str, typer.Option(help=f"DATA holds this published set instead: {', '.join(PUBLISHED)}.")
    ] = "",
    accuracy: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Accuracy that its maker states, where there is no data."),
    ] = None,
    mean: Annotated[
        str, typer.Option(help="Mean of each channel, subtracted from the pixels, like 0.485,0.456,0.406.")
    ] = "",
    std: Annotated[str, typer.Option(help="What each channel is then divided by.")] = "",
    output: Annotated[str, typer.Option(help="Output to serve, where a file has several.")] = "",
    output_kind: Annotated[
        str, typer.Option(help=f"What the output is: {', '.join(OUTPUT_KINDS)}. [default: recognised]")
    ] = "",
    bgr: Annotated[bool, typer.Option(help="It takes blue first, as networks of OpenCV do.")] = False,
    invert: Annotated[bool, typer.Option(help="Exchange black and white first.")] = False,
    unknown_below: Annotated[
        float, typer.Option(min=0, max=1, help="Confidence below which the answer is 'unknown'.")
    ] = 0.0,
    white: Annotated[
        float, typer.Option(help="What a white pixel is before the mean is taken off: 1 or 255.")
    ] = 1.0,
    stages: Annotated[
        str, typer.Option(help="Fragments of the chain; several for several chains, like 3,2,4.")
    ] = "3",
    name: Annotated[str, typer.Option(help="Name of the application. [default: that of the file]")] = "",
    title: Annotated[str, typer.Option(help="Title for people. [default: the name]")] = "",
    deadline: Annotated[str, typer.Option(help="Deadline of tasks that give none.")] = "2s",
    micro_batch: Annotated[
        int | None, typer.Option(min=1, help="Pictures in a micro-batch. [default: by their size]")
    ] = None,
    store: WrittenStoreOption = None,
) -> None:
    """Make an application of a network of your own.

    An ONNX file needs no torch. The code of FILE.py runs on this machine, as it would anyway for its weights.
    """
    models = model_store(store)
    if (data is None) == (accuracy is None):
        raise ConfigurationError(
            "say how good it is: --data with labelled pictures, or --accuracy as its maker states it"
        )
    try:
        classes = _labels(labels)
        chosen = name or _name(network)
        request = AddRequest(
            name=chosen,
            title=title or chosen,
            labels=classes,
            stages=tuple(int(number) for number in _numbers(stages)),
            default_deadline_ms=parse_duration_ms(deadline),
            micro_batch=micro_batch,
            unknown_below=unknown_below,
        )
        wishes = Wishes(input=shape, output=output, output_kind=_kind(output_kind))
        with telling(chosen) as told:
            told(f"reading {network}" if network.endswith(".onnx") else f"building and exporting {network}")
            colours = _Colours(_numbers(mean), _numbers(std), white, is_bgr=bgr, is_inverted=invert)
            adopted = _network(network, wishes, weights, colours)
            answers = _pictures(data, dataset, classes, adopted) if data is not None else float(accuracy or 0)
            application, results = add(adopted, request, models, answers, told)
    except ValidationError as error:
        raise UserNetworkError(f"not a valid application: {error}") from error
    console = Console()
    console.print(variants_table(application, results))
    for note in adopted.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    empty = pictures_without_answer(adopted.model)
    if empty:
        console.print(
            f"[yellow]careful[/]: plain pictures ({', '.join(empty)}) make it give NaN or infinity; "
            "they will have no answer. Usually it divides by a norm or deviation: add a small constant there"
        )
    if data is None:
        console.print(f"accuracy {accuracy} is stated, not measured: --data measures it")
    console.print(f"written: {models.folder(application.name)}", markup=False)
    if models.hides_another(application.name):
        console.print(f"it takes the place of the shipped {application.name}; --name gives it another name")


@dataclass(frozen=True)
class _Colours:
    """What the user says of pixels."""

    mean: list[float]
    std: list[float]
    white: float
    is_bgr: bool
    is_inverted: bool

    def preprocessing(self, channels: int) -> Preprocessing:
        """Return what it means for pictures of so many channels. Raises UserNetworkError."""
        try:
            return Preprocessing.for_channels(
                channels,
                self.mean,
                self.std,
                self.white,
                is_bgr=self.is_bgr,
                is_inverted=self.is_inverted,
            )
        except ValueError as error:
            raise UserNetworkError(str(error)) from error

    @property
    def are_said(self) -> bool:
        """Whether the user says anything that only has a meaning for pictures."""
        return bool(self.mean or self.std or self.white != 1 or self.is_bgr or self.is_inverted)


def _network(network: str, wishes: Wishes, weights: Path | None, colours: _Colours) -> Adopted:
    """Return the network from what sensors send to logits."""
    if network.endswith(".onnx"):
        model, notes = prepared(read_onnx(Path(network)), wishes)
        source = source_of(model)
        if not source.is_pictures:
            if colours.are_said:
                raise UserNetworkError(
                    f"its input {source.name!r} is no picture: leave out what is said of pixels"
                )
            adopted = adopt(model, None, replace(wishes, input="", output=""))
        else:
            preprocessing = colours.preprocessing(source.spec.shape[0])
            adopted = adopt(model, preprocessing, replace(wishes, input="", output=""))
        return replace(adopted, notes=(*notes, *adopted.notes))
    if not wishes.input:
        raise UserNetworkError("say the shape of its pictures, like --input 3x32x32")
    sides = _sides(wishes.input)
    request = TorchRequest(
        network, sides, colours.preprocessing(sides[0]), str(weights) if weights is not None else None
    )
    return adopt(export_torch(request), None, replace(wishes, input=""))


def _kind(text: str) -> OutputKind | None:
    for kind in OUTPUT_KINDS:
        if text == kind:
            return kind
    if text:
        raise ConfigurationError(f"--output-kind is one of {', '.join(OUTPUT_KINDS)}")
    return None


def _pictures(data: Path, dataset: str, labels: tuple[str, ...], network: Adopted) -> Subset:
    spec = network.input
    if spec.dtype != "uint8" or len(spec.shape) != _AXES:
        raise UserNetworkError(
            f"the network takes {spec.dtype} {list(spec.shape)}, not pictures: give --accuracy, not --data"
        )
    sides = (spec.shape[0], spec.shape[1], spec.shape[2])
    if not dataset:
        return read_image_folder(data, labels, sides)
    if dataset not in PUBLISHED:
        raise DatasetError(f"--dataset is one of {', '.join(PUBLISHED)}")
    test = load_published(dataset, data).test
    if test.images.shape[1:] != sides:
        raise DatasetError(
            f"the pictures of {dataset} are {test.images.shape[1:]}, those of the network {sides}"
        )
    return test


def _name(network: str) -> str:
    """Return the name of the file or module, in the form of an application's name."""
    place = network.partition(":")[0]
    stem = Path(place).stem if place.endswith((".py", ".onnx")) else place.rpartition(".")[2]
    return re.sub(r"[^a-z0-9-]+", "-", stem.lower()).strip("-")


def _labels(path: Path) -> tuple[str, ...]:
    try:
        if path.stat().st_size > MAX_LABEL_FILE_BYTES:
            raise UserNetworkError(f"{path} is larger than {MAX_LABEL_FILE_BYTES} bytes")
        lines = path.read_text("utf-8-sig").splitlines()  # a BOM is no part of the first class
    except (OSError, UnicodeDecodeError) as error:
        raise UserNetworkError(f"{path} cannot be read: {error}") from error
    return tuple(line.strip() for line in lines if line.strip())


def _sides(text: str) -> tuple[int, int, int]:
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise UserNetworkError(f"--input is {text!r}, expected channels x height x width, like 3x32x32")
    return int(match[1]), int(match[2]), int(match[3])


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part]
    except ValueError as error:
        raise UserNetworkError(f"{text!r} is no list of numbers like 1,2,3") from error
