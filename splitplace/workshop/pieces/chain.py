"""From a network to its chain of pieces: hoist constants, time, choose bounds, cut, write, compare."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from splitplace.edge_node.stage.pieces import joined_from
from splitplace.edge_node.stage.session import joined_session
from splitplace.storage.replace import replace_file
from splitplace.workshop.cutting.balance import Target
from splitplace.workshop.cutting.layer_split import CutPoint, cut
from splitplace.workshop.cutting.plan import plan_chain
from splitplace.workshop.onnx.graph import Graph, without_weights
from splitplace.workshop.pieces.bounds import Segments, piece_bounds
from splitplace.workshop.pieces.constants import with_constants_as_weights
from splitplace.workshop.pieces.cut import CutChain, PieceCutError, all_files, cut_into_pieces, piece_places
from splitplace.workshop.pieces.times import segment_milliseconds

SegmentTimes = Callable[[onnx.ModelProto, Sequence[str]], Sequence[float]]
"""From a network and the tensors between its segments to ms per image."""


@dataclass(frozen=True)
class MeasuredNetwork:
    """A network with its constants as weights, timed between all places where it can be cut."""

    model: onnx.ModelProto
    points: tuple[CutPoint, ...]
    milliseconds: tuple[float, ...]
    """Time of each of the `len(points) + 1` segments for one image."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors at the places."""
        return tuple(point.tensor for point in self.points)


def measured(model: onnx.ModelProto, measure: SegmentTimes = segment_milliseconds) -> MeasuredNetwork:
    """Find all places where a network can be cut, and time what lies between them.

    Args:
        model: One input, one output, batch first. It is not changed.
        measure: Function that times the segments.

    Raises:
        GraphError: The graph does not tell a shape or size that is needed.
        ConstantError: The network makes weights that are too large.
    """
    whole = with_constants_as_weights(model)
    points = piece_places(whole)
    return MeasuredNetwork(whole, points, tuple(measure(whole, [point.tensor for point in points])))


def chosen_places(network: MeasuredNetwork, required: Collection[str] = ()) -> tuple[int, ...]:
    """Return the places between pieces that `piece_bounds` chooses, ascending indices of `points`.

    Raises:
        PieceCutError: A required tensor is no place to cut.
    """
    missing = set(required).difference(network.tensors)
    if missing:
        raise PieceCutError(f"the network cannot be cut at {min(missing)!r}")
    parts = cut(without_weights(network.model), network.tensors)
    return piece_bounds(
        Segments(
            milliseconds=network.milliseconds,
            weight_bytes=[Graph(part).weight_bytes for part in parts],
            crossing_bytes=[point.sent_bytes_per_image for point in network.points],
            required=[network.tensors.index(name) for name in required],
        )
    )


def balanced_cuts(network: MeasuredNetwork, stages: int) -> tuple[str, ...]:
    """Return the tensors at which to cut a network so that the slowest of its stages is as fast as possible.

    Raises:
        CutError: The network has too few places where a single tensor crosses.
    """
    return plan_chain(network.model, network.points, network.milliseconds, stages, Target()).tensors


@dataclass(frozen=True)
class TimedChain:
    """A network in pieces, with the time of each."""

    cut: CutChain
    milliseconds: tuple[float, ...]
    """Time of each piece for one image, inside a run of the whole."""


def timed_chain(network: MeasuredNetwork, required: Collection[str] = ()) -> TimedChain:
    """Cut a measured network into pieces.

    Args:
        network: From `measured`.
        required: Tensors at which it must be cut, because a variant is cut there.

    Raises:
        PieceCutError: A required tensor is no place to cut, or a piece is larger than a node accepts.
    """
    places = chosen_places(network, required)
    chain = cut_into_pieces(network.model, [network.tensors[place] for place in places])
    ends = (0, *(place + 1 for place in places), len(network.milliseconds))
    return TimedChain(chain, tuple(sum(network.milliseconds[a:b]) for a, b in pairwise(ends)))


def chain_of(
    model: onnx.ModelProto, required: Collection[str] = (), measure: SegmentTimes = segment_milliseconds
) -> CutChain:
    """Measure a network and cut it into pieces. See `measured` and `timed_chain` for arguments and errors."""
    return timed_chain(measured(model, measure), required).cut


def write_files(folder: Path, *chains: CutChain) -> None:
    """Write the files of chains into a folder, each named by its hash; one that is there already stays.

    Raises:
        OSError: The disk refuses.
    """
    for sha256, content in all_files(chains).items():
        if not (folder / sha256).exists():
            replace_file(folder / sha256, content)


def run_stages(folder: Path, chain: CutChain, cuts: Sequence[int], images: NDArray[Any]) -> NDArray[Any]:
    """Run a written chain in stages on a batch of images and return the output of the last one.

    Args:
        folder: Folder with the files.
        chain: The chain.
        cuts: Numbers of pieces at which stages begin, ascending; none for one stage.
        images: The first stage's input.

    Raises:
        PieceError: The pieces do not fit together.
        splitplace.edge_node.sessions.FragmentError: A node cannot load or run a stage.
    """
    (first,) = chain.chain.bundles[0]
    tensors = {first.name: images}
    for stage in chain.chain.stages(tuple(cuts)):
        tensors = joined_session(stage, joined_from(folder, stage), folder).run(tensors)
    (last,) = chain.chain.bundles[-1]
    return tensors[last.name]


def is_equal(folder: Path, chain: CutChain, images: NDArray[Any], expected: NDArray[Any]) -> bool:
    """Whether the whole chain in one stage gives exactly the expected output."""
    return bool(np.array_equal(run_stages(folder, chain, (), images), expected))
