"""Write down how often loops turn, where that follows from the sizes of the inputs alone."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from splitplace.edge_node.graph_check import GraphRefusedError
from splitplace.messages.pieces import NamedTensor
from splitplace.workshop.onnx.batch_size import TRIED, computed_sizes, lines_of, remove_unused
from splitplace.workshop.user_networks.reading import check_loops, plain_domain
from splitplace.workshop.user_networks.source import sources_of
from splitplace.workshop.user_networks.trial import samples_of


def with_constant_turns(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose loops over an axis, as those of Keras, have a constant number of turns.

    What decides it is run alone, and only where that is bounded itself. Other loops are left as they are.

    Args:
        model: Its inputs have all sizes fixed but the batch. It is not changed.
    """
    loops = [at for at, node in enumerate(model.graph.node) if _is_loop(node)]
    sizes = set(computed_sizes(model.graph)) if loops else set()
    changed = model
    for index in loops:
        node = model.graph.node[index]
        if node.input[0] not in sizes:
            continue
        turns = _turns(changed, node.input[0])
        if turns is None:
            break
        if changed is model:
            changed = onnx.ModelProto()
            changed.CopyFrom(model)
        name = f"splitplace.turns.{index}"
        changed.graph.initializer.append(numpy_helper.from_array(turns, name))
        changed.graph.node[index].input[0] = name
    return changed


def _is_loop(node: onnx.NodeProto) -> bool:
    return node.op_type == "Loop" and not plain_domain(node.domain) and len(node.input) > 0


def _turns(model: onnx.ModelProto, name: str) -> NDArray[np.int64] | None:
    """Return what the model computes of sizes; None where it depends on the batch or is not bounded."""
    asking = onnx.ModelProto()
    asking.CopyFrom(model)
    del asking.graph.output[:]
    asking.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None))
    remove_unused(asking.graph)
    try:
        check_loops(asking)
    except GraphRefusedError:
        return None
    sizes = computed_sizes(asking.graph)
    try:
        lines = lines_of(asking, sizes, [_feed(model, batch) for batch in TRIED])
    except ValueError:  # a fixed batch of one
        try:
            lines = lines_of(asking, sizes, [_feed(model, 1)] * len(TRIED))
        except ValueError:
            return None
    line = lines.get(name)
    return np.asarray(line.offset, np.int64) if line is not None and line.is_constant else None


def _feed(model: onnx.ModelProto, batch: int) -> dict[str, NDArray[Any]]:
    feed = {}
    for source in sources_of(model):
        given = samples_of((NamedTensor(name=source.name, spec=source.array),), batch)[source.name]
        dtype = helper.tensor_dtype_to_np_dtype(source.element)
        given = given[0] if source.axis is None else np.moveaxis(given, 0, source.axis)
        feed[source.name] = given.astype(dtype)
    return feed
