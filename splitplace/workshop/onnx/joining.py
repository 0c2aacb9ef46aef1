"""Run fragments as a chain, as nodes do, and compare the result with the whole network."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from splitplace.edge_node.runtime import load_fragment
from splitplace.workshop.onnx.file import file_content


def joined(fragments: Sequence[onnx.ModelProto], images: NDArray[Any]) -> NDArray[Any]:
    """Run a chain of fragments on a batch of images and return the output of the last one.

    Raises:
        splitplace.edge_node.sessions.FragmentError: A node cannot load or run a fragment, or the fragments do
            not fit together.
    """
    array = images
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fragment.onnx"
        for fragment in fragments:
            path.write_bytes(file_content(fragment))
            array = load_fragment(path).run(array)
    return array


def greatest_difference(
    whole: onnx.ModelProto, fragments: Sequence[onnx.ModelProto], images: NDArray[Any]
) -> float:
    """Return the greatest absolute difference between a chain's logits and those of the whole network.

    Raises:
        splitplace.edge_node.sessions.FragmentError: A node cannot load or run a fragment, or the fragments do
            not fit together.
    """
    return float(np.abs(joined(fragments, images) - joined([whole], images)).max())
