"""From a network to its chain of pieces: hoist constants, time, choose bounds, cut, write, compare."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from splitplace.edge_node.stage.pieces import joined_from
from splitplace.edge_node.stage.session import joined_session
from splitplace.storage.replace import replace_file
from splitplace.workshop.cutting.layer_split import cut
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.pieces.bounds import Segments, piece_bounds
from splitplace.workshop.pieces.constants import with_constants_as_weights
from splitplace.workshop.pieces.cut import CutChain, PieceCutError, all_files, cut_into_pieces, piece_places
from splitplace.workshop.pieces.times import segment_milliseconds

SegmentTimes = Callable[[onnx.ModelProto, Sequence[str]], Sequence[float]]
"""From a network and the tensors between its segments to ms per image."""


def chain_of(
    model: onnx.ModelProto, required: Collection[str] = (), measure: SegmentTimes = segment_milliseconds
) -> CutChain:
    """Cut a network into pieces at the places that `piece_bounds` chooses.

    Args:
        model: One input, one output, batch first. It is not changed.
        required: Tensors at which it must be cut, because a variant is cut there.
        measure: Function that times the segments.

    Raises:
        GraphError: The graph does not tell a shape or size that is needed.
        PieceCutError: A required tensor is no place to cut, or a piece is larger than a node accepts.
        ConstantError: The network makes weights that are too large.
    """
    whole = with_constants_as_weights(model)
    points = piece_places(whole)
    tensors = [point.tensor for point in points]
    missing = set(required).difference(tensors)
    if missing:
        raise PieceCutError(f"the network cannot be cut at {min(missing)!r}")
    parts = cut(whole, tensors)
    segments = Segments(
        milliseconds=measure(whole, tensors),
        weight_bytes=[Graph(part).weight_bytes for part in parts],
        crossing_bytes=[point.sent_bytes_per_image for point in points],
        required=[tensors.index(name) for name in required],
    )
    return cut_into_pieces(whole, [tensors[place] for place in piece_bounds(segments)])


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
