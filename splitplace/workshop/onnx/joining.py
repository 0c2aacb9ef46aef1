"""Runs fragments one behind the other, as nodes do, and compares with the whole."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from splitplace.edge_node.runtime import FragmentRuntime
from splitplace.workshop.onnx.file import file_content


def joined(fragments: Sequence[onnx.ModelProto], images: NDArray[Any]) -> NDArray[Any]:
    """What the last fragment makes of what the ones before it make of a batch of images.

    Raises:
        edge_node.runtime.FragmentError: A node cannot load or run one of them, or they do not fit together.
    """
    array = images
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fragment.onnx"
        for fragment in fragments:
            path.write_bytes(file_content(fragment))
            array = FragmentRuntime(path).run(array)
    return array


def greatest_difference(
    whole: onnx.ModelProto, fragments: Sequence[onnx.ModelProto], images: NDArray[Any]
) -> float:
    """Greatest absolute difference between the logits of a chain and those of the network it was cut from.

    Raises:
        edge_node.runtime.FragmentError: A node cannot load or run one of them, or they do not fit together.
    """
    return float(np.abs(joined(fragments, images) - joined([whole], images)).max())
