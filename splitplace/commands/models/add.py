"""`splitplace models add`: a network of the user becomes an application."""

import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from splitplace.commands.models.kind_flags import CLASSES_IN_AN_ANSWER, KindFlags
from splitplace.commands.models.networks import adopted_network, read_labels
from splitplace.commands.models.preview import write_preview
from splitplace.commands.models.said import Said, interpolation_of
from splitplace.commands.models.sound_flags import SoundFlags
from splitplace.commands.shared.ending import ended_by_sigterm
from splitplace.commands.shared.options import explain, fit_of, parse_deadline_ms
from splitplace.commands.shared.places import WrittenStoreOption, check_writable, model_store, paths
from splitplace.commands.shared.progress import telling
from splitplace.errors import ConfigurationError
from splitplace.messages.answer_kinds import KINDS, Kind
from splitplace.messages.application import Application
from splitplace.messages.limits import MEBIBYTE
from splitplace.messages.pictures import FITS, INTERPOLATIONS
from splitplace.planning.budget import BudgetError, fewest_stages
from splitplace.policies.memory import megabytes
from splitplace.workshop.datasets import PUBLISHED, DatasetError, Subset, load_published
from splitplace.workshop.datasets.image_folder import read_image_folder
from splitplace.workshop.report.tables import variants_table
from splitplace.workshop.user_networks.add import AddRequest, add
from splitplace.workshop.user_networks.detectors import BOXES, HEADS
from splitplace.workshop.user_networks.ending import OUTPUT_KINDS, OutputKind
from splitplace.workshop.user_networks.from_onnx import (
    Adopted,
    Wishes,
    pictures_without_answer,
)
from splitplace.workshop.user_networks.from_packages import (
    EXPORTED,
    PACKAGES,
    RANDOM,
    PackageRequest,
)
from splitplace.workshop.user_networks.reading import UserNetworkError

_AXES = 3
_MEASURED = {"classification", "multi-label"}
"""Kinds of answers whose accuracy is measured."""


def add_command(
    network: Annotated[
        str,
        typer.Argument(
            help="FILE.onnx, FILE.pt2, torchvision:NAME, timm:NAME, or FILE.py:FUNCTION that builds it."
        ),
    ],
    *,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Text file, one class a line, in the order of the outputs. [default: as the file says]"
        ),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help="Sizes that the file leaves open: 3x480x640 or images=3x480x640; again for another input.",
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="An input that always has one value, like rate=16000; it is not sent then."
        ),
    ] = None,
    states: Annotated[
        list[str] | None,
        typer.Option(
            "--state", help="INPUT=OUTPUT that comes back at the next call. [default: recognised by names]"
        ),
    ] = None,
    picture: Annotated[
        list[str] | None,
        typer.Option(
            help="Input that is a picture; again for others. [default: the first, and those like it]"
        ),
    ] = None,
    arrays: Annotated[
        bool, typer.Option(help="It takes arrays, even where their shape is that of pictures.")
    ] = False,
    sound: Annotated[
        int | None,
        typer.Option(
            "--sound", min=1, help="Its first input is sound of so many samples a second, sent as WAV files."
        ),
    ] = None,
    hop: Annotated[
        int | None, typer.Option(min=1, help="Samples from one window to the next. [default: a window]")
    ] = None,
    full_scale: Annotated[
        float | None,
        typer.Option(
            help="The largest sample: 1, or 32768 as in 16-bit files. [default: 1; 32768 of integers]"
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="A .safetensors file, or tensors saved by torch.")
    ] = None,
    random_weights: Annotated[
        bool, typer.Option(help="Random weights for torchvision:NAME or timm:NAME; every answer says so.")
    ] = False,
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
    output: Annotated[
        str, typer.Option(help="Output to serve, where a file has several; with --kind tensors also a,b.")
    ] = "",
    output_kind: Annotated[
        str, typer.Option(help=f"What the output is: {', '.join(OUTPUT_KINDS)}. [default: recognised]")
    ] = "",
    kind: Annotated[
        str,
        typer.Option(help=f"What it answers: {', '.join(KINDS)}. [default: recognised, or classification]"),
    ] = "",
    top: Annotated[
        int,
        typer.Option(min=1, max=CLASSES_IN_AN_ANSWER, help="Classes that an answer names, the best first."),
    ] = 1,
    head: Annotated[
        str, typer.Option(help=f"What a detector gives: {', '.join(HEADS)}. [default: recognised]")
    ] = "",
    boxes: Annotated[str, typer.Option(help=f"Its boxes: {', '.join(BOXES)}. [default: recognised]")] = "",
    overlap: Annotated[
        float, typer.Option(min=0, max=1, help="Common area from which the weaker of two boxes is left out.")
    ] = 0.45,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Confidence of objects (.25) or labels (.5) that are told."),
    ] = None,
    blank: Annotated[
        int, typer.Option(min=0, help="Number of the symbol of a sequence that means none.")
    ] = 0,
    bgr: Annotated[bool, typer.Option(help="It takes blue first, as networks of OpenCV do.")] = False,
    invert: Annotated[bool, typer.Option(help="Exchange black and white first.")] = False,
    unknown_below: Annotated[
        float, typer.Option(min=0, max=1, help="Confidence below which the answer is 'unknown'.")
    ] = 0.0,
    white: Annotated[
        float | None,
        typer.Option(
            help="What a white pixel is before the mean is taken off, 1 or 255. [default: recognised]"
        ),
    ] = None,
    fit: Annotated[
        str,
        typer.Option(
            help=f"Pictures of other proportions: {', '.join(FITS)}. [default: recognised, or stretch]"
        ),
    ] = "",
    crop: Annotated[
        float | None,
        typer.Option(min=0.05, max=1, help="Share of the shorter side that is seen: .875 for 224 of 256."),
    ] = None,
    padding: Annotated[
        int | None, typer.Option(min=0, max=255, help="Bytes that --fit pad fills up with. [default: 114]")
    ] = None,
    interpolation: Annotated[
        str, typer.Option(help=f"One of {', '.join(INTERPOLATIONS)}. [default: bilinear]")
    ] = "",
    preview: Annotated[
        Path | None,
        typer.Option(help="A picture: what the network sees of it is written as NAME-sees-PICTURE.png."),
    ] = None,
    stages: Annotated[
        str,
        typer.Option(
            help="Fragments of the chain; several for several chains, like 3,2,4. [default: up to 3]"
        ),
    ] = "",
    memory: Annotated[
        float | None,
        typer.Option(min=1, help="MiB that each of your nodes has: tells how many hold it together."),
    ] = None,
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
    is_plain = kind in _MEASURED or (
        not kind and (labels is not None or not network.endswith((".onnx", EXPORTED)))
    )
    _check_accuracy(data, accuracy, needed=is_plain)
    check_writable(models)
    stated = 1.0 if accuracy is None else accuracy
    try:
        chosen = name or _name(network)
        request = AddRequest(
            name=chosen,
            title=title or chosen,
            labels=(),
            stages=tuple(int(number) for number in _numbers(stages)) or None,
            default_deadline_ms=parse_deadline_ms(deadline),
            micro_batch=micro_batch,
            unknown_below=unknown_below,
            caution=RANDOM if random_weights else "",
        )
        wishes = Wishes(
            input=",".join(shape or []),
            output=output,
            output_kind=_output_kind(output_kind),
            values=tuple(values or []),
            states=tuple(states or []),
            are_arrays=arrays,
            pictures=tuple(picture or []),
        )
        with telling(chosen) as told, ended_by_sigterm(), TemporaryDirectory(prefix="splitplace-") as aside:
            package = PackageRequest(network, str(weights) if weights is not None else None, random_weights)
            told(f"reading {network}" if network.endswith(".onnx") else f"building and exporting {network}")
            said = Said(
                mean=_numbers(mean),
                std=_numbers(std),
                white=white,
                is_bgr=bgr,
                is_inverted=invert,
                fit=fit_of(fit),
                crop_share=crop,
                padding=padding,
                interpolation=interpolation_of(interpolation),
            )
            flags = KindFlags(kind, head, boxes, overlap, threshold, blank, top)
            given = None
            if labels is not None:
                given = read_labels(labels, are_symbols=kind == "sequence")
            heard = SoundFlags(sound, hop, full_scale)
            adopted, classes, found = adopted_network(
                package, wishes, weights, said, flags, given, heard, Path(aside)
            )
            _check_accuracy(data, accuracy, needed=found in _MEASURED)
            if found not in _MEASURED and data is not None:
                raise ConfigurationError(f"--data measures classes; leave it out for {found}")
            seen = _seen(preview, chosen, adopted)
            request = replace(request, labels=classes, answer=flags.declaration(found, len(classes)))
            answers = _pictures(data, dataset, request.labels, adopted) if data is not None else stated
            folder = paths().unfinished
            application, results = add(adopted, request, models, answers, told, unfinished_folder=folder)
            empty = pictures_without_answer(adopted.model)
    except ValidationError as error:
        raise UserNetworkError(f"not a valid application: {explain(error)[:300]}") from error
    console = Console()
    console.print(variants_table(application, results))
    for note in adopted.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    if seen:
        console.print(seen, markup=False, highlight=False, soft_wrap=True)
    if empty:
        console.print(
            f"[yellow]careful[/]: plain pictures ({', '.join(empty)}) make it give NaN or infinity; "
            "they will have no answer. Usually it divides by a norm or deviation: add a small constant there"
        )
    if data is None:
        console.print(_about_accuracy(accuracy, found, by_data=_is_measurable(adopted)))
    if memory is not None:
        console.print(_on_nodes(application, memory), soft_wrap=True)
    console.print(f"written: {models.folder(application.name)}", markup=False)
    if models.hides_another(application.name):
        console.print(f"it takes the place of the shipped {application.name}; --name gives it another name")


def _on_nodes(application: Application, memory: float) -> str:
    """Say how many nodes of so many MiB hold the network."""
    try:
        stages = fewest_stages(application, memory * MEBIBYTE)
    except BudgetError as error:
        return f"[yellow]careful[/]: nodes of {memory:g} MiB cannot run it: {error}"
    if len(stages) == 1:
        return f"a node of {memory:g} MiB holds it whole: it needs {megabytes(stages[0].bytes)}"
    parts = ", ".join(f"{stage.first}-{stage.last}: {megabytes(stage.bytes)}" for stage in stages)
    return f"{len(stages)} nodes of {memory:g} MiB hold it together, by pieces {parts}"


def _check_accuracy(data: Path | None, accuracy: float | None, *, needed: bool) -> None:
    if (data is not None and accuracy is not None) or (data is None and accuracy is None and needed):
        raise ConfigurationError(
            "say how good it is: --data with labelled pictures, or --accuracy as its maker states it"
        )


def _output_kind(text: str) -> OutputKind | None:
    for kind in OUTPUT_KINDS:
        if text == kind:
            return kind
    if text:
        raise ConfigurationError(f"--output-kind is one of {', '.join(OUTPUT_KINDS)}")
    return None


def _is_measurable(network: Adopted) -> bool:
    """Whether labelled pictures are all that its accuracy is measured on."""
    return not network.inputs and network.input.dtype == "uint8" and len(network.input.shape) == _AXES


def _pictures(data: Path, dataset: str, labels: tuple[str, ...], network: Adopted) -> Subset:
    if not _is_measurable(network):
        taken = ", ".join(f"{each.spec.dtype} {list(each.spec.shape)}" for each in network.named_inputs)
        raise UserNetworkError(f"the network takes {taken}, not just a picture: give --accuracy, not --data")
    channels, height, width = network.input.shape
    sides = (channels, height, width)
    if not dataset:
        return read_image_folder(data, labels, sides, network.pictures)
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
    if network.partition(":")[0] in PACKAGES:
        place = f"{network.partition(':')[2]}.py"
    stem = Path(place).stem if place.endswith((".py", ".onnx", EXPORTED)) else place.rpartition(".")[2]
    return re.sub(r"[^a-z0-9-]+", "-", stem.lower()).strip("-")


def _about_accuracy(accuracy: float | None, kind: Kind, *, by_data: bool) -> str:
    if accuracy is None:
        return f"accuracy 1.0 is taken for {kind}: its variants are one network, and only their time counts"
    measured = ": --data measures it" if by_data and kind in _MEASURED else ""
    return f"accuracy {accuracy} is stated, not measured{measured}"


def _seen(preview: Path | None, application: str, network: Adopted) -> str:
    """Write what the network sees of a picture, and say where."""
    if preview is None:
        return ""
    if network.pictures is None:
        raise UserNetworkError("--preview shows pictures; the network takes none")
    place, done = write_preview(preview, application, network.input, network.pictures)
    return f"what it sees of {preview.name}: {place}" + (f" ({done})" if done else "")


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part]
    except ValueError as error:
        raise UserNetworkError(f"{text!r} is no list of numbers like 1,2,3") from error
