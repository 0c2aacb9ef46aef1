"""Measure how much of the tensors that may cross between pieces is left when nodes compress them."""

import contextlib
from collections.abc import Collection
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from splitplace.messages.frames import encode_tensor
from splitplace.messages.limits import MEBIBYTE
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.onnx.places import run_with_places
from splitplace.workshop.onnx.sessions import session_of

_INPUTS = 4
"""Random inputs of the run. Of one alone, compression saves less."""
_MOST_BYTES = 64 * MEBIBYTE
"""All tensors of a run together; large networks are run on fewer inputs."""
_SEED = 0


def sent_shares(model: onnx.ModelProto, tensors: Collection[str]) -> dict[str, float]:
    """Return for each tensor the share of its bytes that nodes send, at most 1.

    The network is run once on a few random inputs. Nodes replace the share by what they see of real ones.

    Args:
        model: The network, small enough for one file.
        tensors: Names of tensors that it computes.

    Returns:
        The shares; none where ONNX Runtime cannot run the network on random inputs.
    """
    graph = Graph(model)
    told = onnx.ModelProto()
    told.CopyFrom(model)
    ends = {value.name for value in model.graph.output}
    told.graph.output.extend(
        helper.make_tensor_value_info(name, graph.element_type(name), None)
        for name in tensors
        if name not in ends
    )
    weights = {tensor.name for tensor in model.graph.initializer}
    sources = [value for value in model.graph.input if value.name not in weights]
    names, size = list(tensors), sum(graph.bytes_per_image(name) for name in tensors)
    try:
        session = session_of(told)
    except Exception:  # ONNX Runtime's C++ exceptions share no base class  # noqa: BLE001
        return {}
    del told
    for count in (max(1, min(_INPUTS, _MOST_BYTES // max(1, size))), 1):  # some take one at a time only
        inputs = {value.name: _example(value.type.tensor_type, count) for value in sources}
        with contextlib.suppress(Exception):
            arrays = run_with_places(partial(session.run, names), inputs)
            return {name: _share(array) for name, array in zip(names, arrays, strict=True)}
    return {}


def _share(array: NDArray[Any]) -> float:
    _, encoded = encode_tensor(array, compress=True)
    return min(1.0, len(encoded) / array.nbytes) if array.nbytes else 1.0


def _example(tensor: onnx.TypeProto.Tensor, count: int) -> NDArray[Any]:
    shape = [count, *(dimension.dim_value for dimension in tensor.shape.dim[1:])]
    dtype, random = helper.tensor_dtype_to_np_dtype(tensor.elem_type), np.random.default_rng(_SEED)
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    # Other numbers than those of pixels may be places in a table.
    return random.integers(0, 256 if dtype == np.uint8 else 2, shape).astype(dtype)
