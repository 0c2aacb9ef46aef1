"""Bring what ONNX Runtime reads all the same into the form that everything else here expects.

That is nodes in the order in which they compute, weights that are dense and no copies, outputs that are
tensors, and one version of each set of operators.
"""

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from math import prod

import numpy as np
import onnx
from onnx import numpy_helper

from splitplace.errors import SplitPlaceError
from splitplace.workshop.onnx.branches import inner_graphs, reads, rename
from splitplace.workshop.onnx.light import is_outside

_CONTRIBUTED = "com.microsoft"
"""Operators of ONNX Runtime itself: it runs them without a version, too."""
_CLASSIC = "ai.onnx.ml"
"""Operators of classic machine learning, as scikit-learn's networks are made of."""


class UntidyError(SplitPlaceError):
    """A network that contradicts itself."""


def tidied(model: onnx.ModelProto, max_bytes: int) -> None:
    """Change a model in place.

    Args:
        model: As a file holds it.
        max_bytes: Limit of each sparse weight, once it is dense.

    Raises:
        UntidyError: Its nodes wait for each other, it names two versions of a set of operators, or its sparse
            weights are too large or damaged.
    """
    _one_version_each(model)
    _tidied(model.graph, max_bytes)
    _without_maps(model.graph)
    _without_copies(model.graph)


def _one_version_each(model: onnx.ModelProto) -> None:
    versions: dict[str, int] = {}
    for item in model.opset_import:
        domain = "" if item.domain == "ai.onnx" else item.domain
        if versions.setdefault(domain, item.version) != item.version:
            raise UntidyError(
                f"it names two versions of the operators of {domain or 'ONNX'!r}: "
                f"{versions[domain]} and {item.version}"
            )
    if _CONTRIBUTED not in versions and any(node.domain == _CONTRIBUTED for node in model.graph.node):
        versions[_CONTRIBUTED] = 1
    del model.opset_import[:]
    model.opset_import.extend(
        onnx.OperatorSetIdProto(domain=domain, version=version) for domain, version in versions.items()
    )


def _tidied(graph: onnx.GraphProto, max_bytes: int) -> None:
    for tensor in graph.sparse_initializer:
        graph.initializer.append(_dense(tensor, tensor.values.name, max_bytes))
    del graph.sparse_initializer[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "sparse_value":
                tensor = _dense(attribute.sparse_tensor, "", max_bytes)
                attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))
        for inner in inner_graphs(node):
            _tidied(inner, max_bytes)
    order = _order(graph.node)
    if order != sorted(order):
        nodes = list(graph.node)
        del graph.node[:]
        graph.node.extend(nodes[at] for at in order)


def _without_maps(graph: onnx.GraphProto) -> None:
    """Leave the scores of a classifier of scikit-learn a tensor, which exporters turn into maps by label."""
    maps = [node for node in graph.node if (node.domain, node.op_type) == (_CLASSIC, "ZipMap")]
    for node in maps:
        for output in graph.output:
            if output.name == node.output[0]:
                output.CopyFrom(onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, None))
        node.CopyFrom(onnx.helper.make_node("Identity", node.input, node.output))


def _without_copies(graph: onnx.GraphProto) -> None:
    """Have nodes read weights themselves, where torch copies a shared one for each layer that reads it."""
    weights = {tensor.name for tensor in graph.initializer}
    ends = {output.name for output in graph.output}
    copied: dict[str, str] = {}
    kept = []
    for node in graph.node:
        rename(node, copied)
        is_copy = node.op_type == "Identity" and node.input[0] in weights
        if is_copy and node.output[0] not in ends:
            copied[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    if copied:
        del graph.node[:]
        graph.node.extend(kept)


def _order(nodes: Iterable[onnx.NodeProto]) -> list[int]:
    """Return the numbers of the nodes in an order in which each comes after what it reads."""
    makers: dict[str, int] = {}
    after: dict[int, set[int]] = {}
    is_sorted = True
    for at, node in enumerate(nodes):
        makers |= dict.fromkeys(filter(None, node.output), at)
    for at, node in enumerate(nodes):
        after[at] = {makers[name] for name in reads(node) if name in makers}
        is_sorted = is_sorted and all(before < at for before in after[at])
    if is_sorted:
        return list(after)
    try:
        return list(TopologicalSorter(after).static_order())
    except CycleError as error:
        raise UntidyError("its nodes wait for each other in a circle") from error


def _dense(sparse: onnx.SparseTensorProto, name: str, max_bytes: int) -> onnx.TensorProto:
    parts = (sparse.values, sparse.indices)
    if any(map(is_outside, parts)):
        raise UntidyError(f"its sparse weight {name[:80]!r} lies outside the file")
    try:
        values = numpy_helper.to_array(sparse.values)
        places = numpy_helper.to_array(sparse.indices)
        size = prod(sparse.dims)
        if size * values.itemsize > max_bytes:
            raise UntidyError(f"its sparse weight {name[:80]!r} takes {size * values.itemsize} bytes")
        if places.ndim > 1:
            places = np.ravel_multi_index(tuple(places.T), tuple(sparse.dims))
        flat = np.zeros(size, values.dtype)
        flat[places] = values
        return numpy_helper.from_array(flat.reshape(tuple(sparse.dims)), name)
    except (ValueError, TypeError, IndexError) as error:
        raise UntidyError(f"its sparse weight {name[:80]!r} is damaged: {error}") from error
