"""From a network to its chain of pieces: hoist constants, time, choose bounds, cut, write, compare."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from splitplace.edge_node.stage.pieces import joined_from
from splitplace.edge_node.stage.session import Tensors, joined_session
from splitplace.messages.limits import MAX_FILE_BYTES, MEBIBYTE
from splitplace.storage.replace import replacing
from splitplace.workshop.cutting.balance import Chain, Device, Target, partition
from splitplace.workshop.cutting.layer_split import CutError
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.pieces.bounds import Segments, piece_bounds
from splitplace.workshop.pieces.constants import with_constants_as_weights
from splitplace.workshop.pieces.cut import CutChain, PieceCutError, cut_into_pieces
from splitplace.workshop.pieces.places import Cut, Place, crossing, piece_places
from splitplace.workshop.pieces.sizes import sent_shares
from splitplace.workshop.pieces.times import segment_milliseconds

SegmentTimes = Callable[[onnx.ModelProto, Sequence[int]], Sequence[float]]
"""From a network and the numbers of nodes before each place to ms per image of the segments between."""

WEIGHTS_SHARE = 1.6
"""A stage of n holds at most this, divided by n, of a network's weights, where the places allow it."""

_MOST_PIECE_BYTES = MAX_FILE_BYTES - MEBIBYTE
"""Weights of a piece: some room is left for what fills up between them."""


@dataclass(frozen=True)
class MeasuredNetwork:
    """A network with its constants as weights, and what lies between all places where it can be cut."""

    model: onnx.ModelProto
    places: tuple[Place, ...]
    milliseconds: tuple[float, ...]
    """Time of each of the `len(places) + 1` segments for one image."""
    weight_bytes: tuple[int, ...]
    """Weights of each of the segments."""

    def place_of(self, cut: Cut) -> int:
        """Return the number of the place where these tensors cross. Raises PieceCutError if there is none."""
        wanted = frozenset(crossing(cut))
        for number, place in enumerate(self.places):
            if wanted == frozenset(place.tensors):
                return number
        raise PieceCutError(f"the network cannot be cut at {'+'.join(crossing(cut))!r}")

    @property
    def segments(self) -> Chain:
        """The segments, to be balanced."""
        return Chain(
            self.milliseconds, [place.sent_bytes_per_image for place in self.places], self.weight_bytes
        )


def divided(model: onnx.ModelProto) -> MeasuredNetwork:
    """Find all places where a network can be cut; nothing is run, and times are 0.

    Raises:
        GraphError: The graph does not tell a shape or size that is needed.
        ConstantError: The network makes weights that are too large.
    """
    whole = with_constants_as_weights(model)
    places = piece_places(whole)
    costs = Graph(whole).spans([place.end for place in places])
    return MeasuredNetwork(
        whole, places, tuple(0.0 for _ in costs), tuple(cost.weight_bytes for cost in costs)
    )


def measured(model: onnx.ModelProto, measure: SegmentTimes = segment_milliseconds) -> MeasuredNetwork:
    """Find all places where a network can be cut, and time what lies between them.

    Args:
        model: The network, batch first. It is not changed.
        measure: Function that times the segments.

    Raises:
        GraphError: The graph does not tell a shape or size that is needed.
        ConstantError: The network makes weights that are too large.
    """
    network = divided(model)
    names = dict.fromkeys(name for place in network.places for name in place.tensors)
    shares = sent_shares(network.model, names)
    times = measure(network.model, [place.end for place in network.places])
    places = tuple(place.with_shares(shares) for place in network.places)
    return replace(network, places=places, milliseconds=tuple(times))


def chosen_places(network: MeasuredNetwork, required: Collection[Cut] = ()) -> tuple[int, ...]:
    """Return the places between pieces that `piece_bounds` chooses, ascending indices of `places`.

    No piece is larger than a node accepts, where the places allow that.

    Raises:
        PieceCutError: A required cut is no place.
    """
    return piece_bounds(
        Segments(
            milliseconds=network.milliseconds,
            weight_bytes=network.weight_bytes,
            crossing_bytes=[place.sent_bytes_per_image for place in network.places],
            required=[network.place_of(cut) for cut in required],
            most_weight_bytes=_MOST_PIECE_BYTES,
        )
    )


def balanced_cuts(network: MeasuredNetwork, stages: int) -> tuple[tuple[str, ...], ...]:
    """Return where to cut a network so that the slowest of its stages is as fast as possible.

    No stage holds much more than its share of the weights (`WEIGHTS_SHARE`), where the places allow that.

    Raises:
        CutError: The network has too few places.
    """
    chain = network.segments
    if chain.places + 1 < stages:
        raise CutError(f"the graph has {chain.places} places to cut, too few for {stages} stages")
    no_bytes = [0.0] * chain.places
    alike = Target((Device(slowdown=1.0),), tolerance=0.0)
    least = partition(Chain(network.weight_bytes, no_bytes), stages, alike).pace_ms
    most = max(least, WEIGHTS_SHARE / stages * sum(network.weight_bytes))
    best = partition(chain, stages, Target((Device(memory_bytes=most * (1 + 1e-9)),)))
    return tuple(network.places[number].tensors for number in best.cuts)


@dataclass(frozen=True)
class TimedChain:
    """A network in pieces, with the time of each."""

    cut: CutChain
    milliseconds: tuple[float, ...]
    """Time of each piece for one image, inside a run of the whole."""
    output_ratios: tuple[float, ...]
    """Share of the outputs of each piece that is left when nodes compress them."""


def timed_chain(
    network: MeasuredNetwork, required: Collection[Cut] = (), *, only: bool = False
) -> TimedChain:
    """Cut a measured network into pieces.

    Args:
        network: From `measured`.
        required: Where it must be cut, because a variant is cut there.
        only: Whether it is cut nowhere else.

    Raises:
        PieceCutError: A required cut is no place, or a piece is larger than a node accepts.
    """
    places = chosen_places(network, required)
    if only:
        places = tuple(sorted(network.place_of(cut) for cut in required))
    chain = cut_into_pieces(network.model, [network.places[place].tensors for place in places])
    ends = (0, *(place + 1 for place in places), len(network.milliseconds))
    cut = [network.places[place] for place in places]
    return TimedChain(
        chain,
        tuple(sum(network.milliseconds[a:b]) for a, b in pairwise(ends)),
        (*(place.sent_bytes_per_image / max(1, place.bytes_per_image) for place in cut), 1.0),
    )


def chain_of(
    model: onnx.ModelProto, required: Collection[Cut] = (), measure: SegmentTimes = segment_milliseconds
) -> CutChain:
    """Measure a network and cut it into pieces. See `measured` and `timed_chain` for arguments and errors."""
    return timed_chain(measured(model, measure), required).cut


def write_files(folder: Path, *chains: CutChain) -> None:
    """Write the files of chains into a folder, each named by its hash; one that is there already stays.

    Raises:
        OSError: The disk refuses.
    """
    for part in (part for chain in chains for part in chain.files):
        _write(folder / part.piece.graph, (part.graph,))
        if part.piece.weights is not None:
            _write(folder / part.piece.weights, part.weights())


def _write(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    if not path.exists():
        with replacing(path) as file:
            file.writelines(parts)


def run_bundles(
    folder: Path,
    chain: CutChain,
    cuts: Sequence[int],
    inputs: Tensors,
    *,
    handed_on: Callable[[NDArray[Any]], NDArray[Any]] = lambda tensor: tensor,
) -> Tensors:
    """Run a written chain in stages, and return the outputs of the last one by name.

    Args:
        folder: Folder with the files.
        chain: The chain.
        cuts: Numbers of pieces at which stages begin, ascending; none for one stage.
        inputs: The first stage's inputs by name, batch first.
        handed_on: What becomes of each tensor between two stages.

    Raises:
        PieceError: The pieces do not fit together.
        splitplace.edge_node.sessions.FragmentError: A node cannot load or run a stage.
    """
    tensors = inputs
    for number, stage in enumerate(chain.chain.stages(tuple(cuts))):
        if number:
            tensors = {name: handed_on(tensor) for name, tensor in tensors.items()}
        tensors = joined_session(stage, joined_from(folder, stage), folder).run(tensors)
    return tensors


def run_stages(folder: Path, chain: CutChain, cuts: Sequence[int], images: NDArray[Any]) -> NDArray[Any]:
    """Run a chain of one input and one output as `run_bundles` does. Return that output."""
    (first,) = chain.chain.bundles[0]
    (last,) = chain.chain.bundles[-1]
    return run_bundles(folder, chain, cuts, {first.name: images})[last.name]


def is_equal(folder: Path, chain: CutChain, images: NDArray[Any], expected: NDArray[Any]) -> bool:
    """Whether the whole chain in one stage gives exactly the expected output."""
    return bool(np.array_equal(run_stages(folder, chain, (), images), expected))
