"""Adopt the network that `splitplace models add` was given, wherever it comes from."""

import re
from dataclasses import replace
from pathlib import Path

import onnx

from splitplace.commands.models.kind_flags import KindFlags
from splitplace.commands.models.said import Said, described, preprocessing_of
from splitplace.commands.models.sound_flags import SoundFlags
from splitplace.messages.answer_kinds import Kind
from splitplace.messages.limits import MEBIBYTE
from splitplace.messages.pictures import PictureInput
from splitplace.workshop.user_networks.from_onnx import Adopted, Wishes, adopt, prepared
from splitplace.workshop.user_networks.from_packages import (
    PackageRequest,
    export_of_package,
    is_of_package,
)
from splitplace.workshop.user_networks.from_torch import TorchRequest, export_torch
from splitplace.workshop.user_networks.reading import UserNetworkError, read_onnx
from splitplace.workshop.user_networks.recognising import notes_of, recognised
from splitplace.workshop.user_networks.source import sized, source_of
from splitplace.workshop.user_networks.trial import CannotRunError

MAX_LABEL_FILE_BYTES = MEBIBYTE
_SHAPE = re.compile(r"(\d+)x(\d+)x(\d+)")


def adopted_network(  # noqa: PLR0917 - what the command was given, in its order
    package: PackageRequest,
    wishes: Wishes,
    weights: Path | None,
    said: Said,
    flags: KindFlags,
    labels: tuple[str, ...] | None,
    sound: SoundFlags,
    aside: Path,
) -> tuple[Adopted, tuple[str, ...], Kind]:
    """Return the network from what sensors send to what answers are made of, its labels, and their kind.

    The weights of a large network are kept in the folder `aside`; see `read_onnx`.
    """
    network = package.network
    sound.check(is_file=network.endswith(".onnx"))
    if is_of_package(network):
        sides = _sides(wishes.input) if wishes.input and package.package else ()
        file, report = export_of_package(replace(package, sides=sides), aside)
        wishes = replace(wishes, input="" if sides else wishes.input)
        return _onnx(file, wishes, said, flags, labels or report.labels or None, report.pictures)
    if package.random_weights:
        raise UserNetworkError("--random-weights is for torchvision:NAME and timm:NAME")
    if network.endswith(".onnx"):
        wishes = replace(wishes, are_arrays=wishes.are_arrays or sound.rate_hz is not None)
        adopted, chosen, kind = _onnx(read_onnx(Path(network), aside), wishes, said, flags, labels)
        return sound.added_to(adopted), chosen, kind
    if not network.rpartition(":")[0]:
        raise UserNetworkError(
            f"{network[:200]!r} is neither FILE.onnx, FILE.pt2, torchvision:NAME nor timm:NAME, and no "
            "FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION"
        )
    if not wishes.input:
        raise UserNetworkError("say the shape of its pictures, like --input 3x32x32")
    sides = _sides(wishes.input)
    default = PictureInput(
        colours="grey" if sides[0] == 1 else "rgb",
        rule="not recognised: values from 0 to 1 are taken, without mean and deviation",
    )
    pictures = said.over(default, sides[0])
    request = TorchRequest(
        network, sides, preprocessing_of(pictures, sides[0]), str(weights) if weights is not None else None
    )
    kind, _ = flags.chosen("")
    chosen = _checked_labels(labels or (), kind)
    head = flags.head_wishes(kind, chosen)
    adopted = adopt(export_torch(request, aside), None, replace(wishes, input="", head=head))
    notes = (f"pictures: {described(pictures)}", *adopted.notes)
    return replace(adopted, pictures=pictures, notes=notes), chosen, kind


def _onnx(  # noqa: PLR0917 - as above
    file: onnx.ModelProto,
    wishes: Wishes,
    said: Said,
    flags: KindFlags,
    labels: tuple[str, ...] | None,
    told: PictureInput | None = None,
) -> tuple[Adopted, tuple[str, ...], Kind]:
    try:
        return _adopted(file, wishes, said, flags, labels, told)
    except CannotRunError as error:
        _, guesses = sized(file, wishes.input)
        if not guesses:
            raise
        raise UserNetworkError("; ".join((str(error), *guesses))) from error


def _adopted(  # noqa: PLR0917 - as above
    file: onnx.ModelProto,
    wishes: Wishes,
    said: Said,
    flags: KindFlags,
    labels: tuple[str, ...] | None,
    told: PictureInput | None,
) -> tuple[Adopted, tuple[str, ...], Kind]:
    task, named = notes_of(file)
    given = named if labels is None else labels
    named_outputs = len([name for name in wishes.output.split(",") if name.strip()])
    outputs = 1 if given else named_outputs or len(file.graph.output)
    kind, rule = flags.chosen(task, outputs)
    chosen = _checked_labels(given, kind)
    wishes = replace(wishes, head=flags.head_wishes(kind, chosen))
    model, notes = prepared(file, wishes)
    notes = (*notes, f"its answers are of the kind {kind}: {rule}")
    source = source_of(model, wishes.first, wishes.states)
    rest = replace(wishes, input="", output="", values=())
    if wishes.are_arrays and wishes.pictures:
        raise UserNetworkError("--arrays and --picture contradict each other: leave one out")
    if wishes.are_arrays or not (source.is_pictures or wishes.pictures):
        if said.names:
            raise UserNetworkError(
                f"its input {source.name!r} is no picture here: leave out what is said of pixels"
            )
        adopted = adopt(model, None, rest)
        return replace(adopted, notes=(*notes, *adopted.notes)), chosen, kind
    channels = source.spec.shape[0]
    pictures = said.over(told or recognised(model, source).pictures, channels)
    adopted = adopt(model, preprocessing_of(pictures, channels), rest)
    notes = (*notes, f"pictures: {described(pictures)}", *adopted.notes)
    return replace(adopted, pictures=pictures, notes=notes), chosen, kind


def _checked_labels(labels: tuple[str, ...], kind: Kind) -> tuple[str, ...]:
    if not labels and kind not in {"embedding", "tensors"}:
        raise UserNetworkError(
            "the file does not name its classes: say them with --labels FILE, one a line; or --kind tensors "
            "serves what it gives"
        )
    return labels


def read_labels(path: Path, *, are_symbols: bool = False) -> tuple[str, ...]:
    """Read a file of labels, one a line. Raises UserNetworkError if that fails.

    A line of spaces only is a symbol, and no label.
    """
    try:
        if path.stat().st_size > MAX_LABEL_FILE_BYTES:
            raise UserNetworkError(f"{path} is larger than {MAX_LABEL_FILE_BYTES} bytes")
        lines = path.read_text("utf-8-sig").splitlines()  # a BOM is no part of the first class
    except (OSError, UnicodeDecodeError) as error:
        raise UserNetworkError(f"{path} cannot be read: {error}") from error
    found = (line.strip() or (line if are_symbols else "") for line in lines)
    return tuple(label for label in found if label)


def _sides(text: str) -> tuple[int, int, int]:
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise UserNetworkError(f"--input is {text!r}, expected channels x height x width, like 3x32x32")
    return int(match[1]), int(match[2]), int(match[3])
