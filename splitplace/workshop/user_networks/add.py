"""Add a user's network to the store as an application: whole, and as chains."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Final

import onnx
from pydantic import TypeAdapter

from splitplace.messages.answer_kinds import AnswerKind, MultiLabel
from splitplace.messages.application import Application
from splitplace.messages.limits import MAX_FILE_BYTES, MAX_PIECES, MAX_STAGES, MEBIBYTE
from splitplace.storage.model_store import ModelStore
from splitplace.workshop.datasets import Subset
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.onnx.places import run_with_places
from splitplace.workshop.packing.evaluation import Measured, compared
from splitplace.workshop.packing.packer import (
    Heading,
    Packer,
    check_chains,
    pack,
    timed_draft,
    with_stated_accuracy,
)
from splitplace.workshop.packing.pieces_of import future_pieces
from splitplace.workshop.packing.telling import Told, tell_nobody
from splitplace.workshop.packing.unfinished import Unfinished, unfinished
from splitplace.workshop.pieces.chain import balanced_cuts, divided, measured
from splitplace.workshop.pieces.times import segment_milliseconds
from splitplace.workshop.user_networks.from_onnx import Adopted, check_bounds
from splitplace.workshop.user_networks.reading import UserNetworkError
from splitplace.workshop.user_networks.trial import samples_of

USUAL_STAGES = 3
"""Fragments of a chain where nobody says another number."""
_MICRO_BATCHES = ((96 * 96, 16), (320 * 320, 2))
"""Inputs in a micro-batch by most pixels of each. Larger ones go alone: what they become takes memory."""
_MOST_ACTIVATION_BYTES = 32 * MEBIBYTE
"""What a micro-batch of several inputs becomes at most, whatever their size."""
_TRIAL_INPUTS = 4
_TIMES: Final = TypeAdapter(tuple[float, ...])


@dataclass(frozen=True)
class AddRequest:
    """Settings of the application to add."""

    name: str
    title: str
    labels: tuple[str, ...]
    stages: tuple[int, ...] | None = None
    """Number of fragments of each chain. The first chain is named `layer`, the others `layer-<number>`.
    None = one chain of `USUAL_STAGES`, or of as many as the network can be cut into."""
    default_deadline_ms: float = 1000.0
    micro_batch: int | None = None
    """Images per micro-batch; None = chosen by the size of the pictures."""
    unknown_below: float = 0.0
    """Confidence below which an answer's label is `unknown`."""
    caution: str = ""
    """What every answer warns of."""
    answer: AnswerKind | None = None
    """Declaration of answers that are classes; None = the best class."""


def add(
    network: Adopted,
    request: AddRequest,
    store: ModelStore,
    answers: Subset | float,
    told: Told = tell_nobody,
    *,
    unfinished_folder: Path | None = None,
) -> tuple[Application, Sequence[Measured]]:
    """Cut a network, measure its fragments and write the application.

    Args:
        network: From `from_onnx.adopt`, or what `from_torch.export_torch` returns.
        request: Name, labels and chains.
        store: The store to write to.
        answers: Labelled pictures to measure the accuracy on; or the accuracy that its maker states, which is
            then recorded as measured on 0 images.
        told: Function that is told what is being done.
        unfinished_folder: Folder that keeps what is made and measured, for the next run should this one be
            interrupted; None keeps nothing.

    Returns:
        The application, and the measurements of every variant. Without pictures, random ones are used to
        check that the chains equal the whole.

    Raises:
        UserNetworkError: The number of labels differs from the network's number of outputs, no node would
            run it, or a piece would be too large for any.
        CutError: The network cannot be cut into as many fragments.
        PackingError: A chain's logits differ from those of the whole network.
    """
    whole = network.model
    check_bounds(whole)
    graph = Graph(whole)
    outputs = graph.shape(graph.output)
    if network.made is None and outputs != (len(request.labels),):
        found = " x ".join(map(str, outputs))
        raise UserNetworkError(f"the network has {found} outputs, but there are {len(request.labels)} labels")
    heading = Heading(
        name=request.name,
        title=request.title,
        labels=request.labels if network.made is None else network.made.labels,
        input=network.input,
        default_deadline_ms=request.default_deadline_ms,
        scores="sigmoid" if isinstance(request.answer, MultiLabel) else network.scores,
        pictures=network.pictures,
        sound=network.sound,
        answer=request.answer if network.made is None else network.made.answer,
        outputs=() if network.made is None else network.made.outputs,
        inputs=network.inputs,
        states=network.states,
        caution=request.caution,
        unknown_below=request.unknown_below,
    )
    if isinstance(request.answer, MultiLabel) and network.kind in {"softmax", "log-softmax"}:
        raise UserNetworkError(
            f"its outputs are shares of one ({network.kind}), so one label is right: leave --kind out"
        )
    micro_batch = _micro_batch(network, request, graph)
    check_sizes(whole, micro_batch)
    with unfinished(unfinished_folder, whole, told) as kept:
        packer = Packer(heading, kept.pieces, micro_batch, told=told)
        _fill(packer, whole, request.stages, told, kept)
        if isinstance(answers, Subset):
            return pack(packer, store, answers, told, keep_previous=True, kept=kept)
        draft = timed_draft(packer, told, kept)
        inputs = samples_of(network.named_inputs, _TRIAL_INPUTS)
        results = run_with_places(
            lambda tried: compared(draft, packer.load, list(tried.values()), told), inputs
        )
        check_chains(draft, results)
        application = with_stated_accuracy(draft, answers)
        store.save(application, packer.contents(), keep_previous=True)
    return application, [replace(result, accuracy=answers, images=0) for result in results]


def _micro_batch(network: Adopted, request: AddRequest, graph: Graph) -> int:
    if network.one_by_one:
        if request.micro_batch not in {None, 1}:
            raise UserNetworkError("the network is run on one input at a time: leave --micro-batch out")
        return 1
    return request.micro_batch or usual_micro_batch(graph)


def usual_micro_batch(graph: Graph) -> int:
    """Return how many inputs a micro-batch has where nobody says it: fewer of large ones.

    What they become counts as well: a second of sound is short, and its spectra are not.
    """
    pixels = prod(graph.shape(graph.input)[1:])
    count = next((count for most, count in _MICRO_BATCHES if pixels <= most), 1)
    taken = max(1, graph.peak_activation_bytes_per_image)
    return max(1, min(count, _MOST_ACTIVATION_BYTES // taken))


def check_sizes(whole: onnx.ModelProto, micro_batch: int) -> None:
    """Refuse a network with a piece that no node accepts, or with too many, and say which pieces there are.

    Its weights are not read.

    Raises:
        UserNetworkError: It cannot be stored in pieces.
    """
    pieces = future_pieces("whole", divided(whole), micro_batch)
    largest = max(pieces, key=lambda piece: piece.weight_bytes)
    if largest.weight_bytes <= MAX_FILE_BYTES:
        if len(pieces) > MAX_PIECES:
            raise UserNetworkError(
                f"its weights of {sum(piece.weight_bytes for piece in pieces) / MEBIBYTE:.0f} MiB make "
                f"{len(pieces)} pieces of at most {MAX_FILE_BYTES // MEBIBYTE} MiB, and at most {MAX_PIECES} "
                "are stored: export it with narrower weights"
            )
        return
    shown = ", ".join(f"{piece.weight_bytes / MEBIBYTE:.0f}" for piece in pieces)
    raise UserNetworkError(
        f"the network can be cut into {len(pieces)} pieces with weights of {shown} MiB, and a node takes at "
        f"most {MAX_FILE_BYTES // MEBIBYTE} MiB of one piece: export it with the weights of piece "
        f"{largest.number} narrower, or divided among several operators"
    )


def _fill(
    packer: Packer, whole: onnx.ModelProto, stages: Sequence[int] | None, told: Told, kept: Unfinished
) -> None:
    """Add the network, whole and as chains with so many stages, all of the same pieces."""

    def times(model: onnx.ModelProto, ends: Sequence[int]) -> Sequence[float]:
        return kept.once("layers", list(ends), _TIMES, partial(segment_milliseconds, model, ends))

    told("timing the layers")
    network = measured(whole, times)
    if stages is None:
        most = len(network.places) + 1
        stages = (min(USUAL_STAGES, most),) if most > 1 else ()
    chains = {
        "layer" if index == 0 else f"layer-{count}": balanced_cuts(network, count)
        for index, count in enumerate(stages)
    }
    packer.add_measured("whole", network, {cut for cuts in chains.values() for cut in cuts})
    packer.add_single("whole", "whole")
    for name, cuts in chains.items():
        packer.add_chain(name, "whole", cuts, MAX_STAGES if name == "layer" else len(cuts) + 1)
