"""Compare a network that is cut into stages with the whole, on random inputs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from splitplace.edge_node.stage.session import Tensors
from splitplace.workshop.onnx.places import Arrays, run_with_places
from splitplace.workshop.pieces.chain import MeasuredNetwork, run_bundles, write_files
from splitplace.workshop.pieces.cut import cut_into_pieces
from splitplace.workshop.user_networks.trial import samples_of

Transport = Literal["float32", "float16"]
"""Type in which float32 tensors travel between stages."""


def chain_differences(network: MeasuredNetwork, cuts: tuple[int, ...], count: int) -> dict[Transport, float]:
    """Return the greatest differences of a chain's outputs from those of the whole, by what travels.

    Args:
        network: The network.
        cuts: Numbers of the places where it is cut, ascending.
        count: Random inputs to compare it on, in one batch.

    Raises:
        PieceCutError: A piece is larger than a node accepts.
        splitplace.edge_node.sessions.FragmentError: A node cannot load or run a stage.
    """
    chain = cut_into_pieces(network.model, [network.places[cut].tensors for cut in cuts])
    inputs = samples_of(chain.chain.bundles[0], count)
    numbers = range(1, len(cuts) + 1)
    with TemporaryDirectory(prefix="splitplace-") as name:
        folder = Path(name)
        write_files(folder, chain)

        def differences(tried: Arrays) -> dict[Transport, float]:
            whole = run_bundles(folder, chain, (), tried)
            return {
                transport: _greatest(whole, run_bundles(folder, chain, numbers, tried, handed_on=handed_on))
                for transport, handed_on in _HANDED_ON.items()
            }

        return run_with_places(differences, inputs)


def _rounded(tensor: NDArray[Any]) -> NDArray[Any]:
    """Return what is left of a tensor that travels as float16; values above 65504 become infinite."""
    if tensor.dtype != np.float32:
        return tensor
    with np.errstate(over="ignore"):
        return tensor.astype(np.float16).astype(np.float32)


_HANDED_ON: Mapping[Transport, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "float32": lambda tensor: tensor,
    "float16": _rounded,
}


def _greatest(whole: Tensors, chain: Tensors) -> float:
    return max(
        float(np.abs(whole[name].astype(np.float64) - array.astype(np.float64)).max(initial=0.0))
        for name, array in chain.items()
    )
