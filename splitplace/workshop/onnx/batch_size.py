"""Reduce the sizes computed inside an ONNX graph to one number: the number of images in the batch.

An exported network may read the shape of a tensor early and use it late ("reshape to [batch, 197, 192], where
batch is the first dimension of the input"). Such integers would cross a cut beside the tensor, but a fragment
has only one input. In a network for pictures of one size, all of them depend only on the batch size. So they
are measured: the graph is run with a few batch sizes, and every computed size turns out to be constant or
linear in the number of images. Constants become weights. Linear sizes are computed from the one tensor
`BATCH_SIZE`, which every fragment derives from its own input.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import compose, helper, numpy_helper

from splitplace.edge_node.stage import joining
from splitplace.workshop.onnx.branches import inner_graphs, reads
from splitplace.workshop.onnx.sessions import session_of

BATCH_SIZE = joining.BATCH_SIZE
"""Name of the tensor `int64[1]` that holds the number of images."""
_PREFIX = "splitplace.size."
_TRIED = (2, 3, 5)
"""Batch sizes that the graph is run with. 1 is left out: exporters and broadcasting treat it differently."""
_ASKING = {"Shape", "Size"}

Array = NDArray[Any]


def with_plain_sizes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the same network with all sizes constant or computed from `BATCH_SIZE`.

    A shape that is neither constant nor linear (its tensor's size depends on the values in the pictures) is
    left as it is. Then that tensor counts as used where the shape is used. Where the model fixes a batch of
    one, all sizes are constant.

    Args:
        model: Its inputs have all dimensions but the first fixed. One with branches stays as it is.

    Returns:
        A changed copy, or the model itself if it computes no sizes.

    Raises:
        ValueError: ONNX Runtime cannot run the model.
    """
    sizes = computed_sizes(model.graph)
    if not sizes or any(any(inner_graphs(node)) for node in model.graph.node):
        return model
    if any(name.startswith(_PREFIX) for name in sizes):  # as in networks that torch exported for us
        model = _renamed(model)
        sizes = computed_sizes(model.graph)
    lines = {
        name: line
        for name, values in zip(sizes, _measured(model, sizes), strict=True)
        if (line := _Line.through(values)) is not None
    }
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    _Replacement(lines).apply(changed.graph)
    remove_unused(changed.graph)
    return changed


def _renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose sizes from an earlier change have other names than those of the next one."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    compose.add_prefix_graph(
        changed.graph, "earlier.", rename_inputs=False, rename_outputs=False, inplace=True
    )
    return changed


def batch_size_nodes(source: str) -> tuple[onnx.NodeProto, ...]:
    """Return nodes that compute `BATCH_SIZE` from a tensor with that first dimension.

    They read the initializers of `batch_size_weights`.
    """
    shape = f"{_PREFIX}shape"
    return (
        helper.make_node("Shape", [source], [shape]),
        helper.make_node("Slice", [shape, f"{_PREFIX}zero", f"{_PREFIX}one"], [BATCH_SIZE]),
    )


def batch_size_weights() -> tuple[onnx.TensorProto, ...]:
    """Return the initializers that `batch_size_nodes` read."""
    return tuple(
        numpy_helper.from_array(np.array([value], np.int64), f"{_PREFIX}{name}")
        for name, value in (("zero", 0), ("one", 1))
    )


def remove_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and weights that no output depends on."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(reads(node))
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(weights)


class _Line:
    """`slope * batch + offset`, element by element."""

    def __init__(self, slope: Array, offset: Array) -> None:
        self.slope = slope
        self.offset = offset

    @classmethod
    def through(cls, values: Sequence[Array]) -> "_Line | None":
        """Return the line through the values at the batch sizes `_TRIED`, or None if there is none."""
        first, second, third = values
        if not first.shape == second.shape == third.shape or first.ndim > 1:
            return None
        if np.array_equal(first, second) and np.array_equal(first, third):
            return cls(np.zeros_like(first), first)
        if not np.issubdtype(first.dtype, np.integer):
            return None
        slope = (second - first) // (_TRIED[1] - _TRIED[0])
        offset = first - slope * _TRIED[0]
        if not all(
            np.array_equal(slope * batch + offset, value) for batch, value in zip(_TRIED, values, strict=True)
        ):
            return None
        return cls(slope, offset)

    @property
    def is_constant(self) -> bool:
        return not self.slope.any()

    @property
    def open_shape(self) -> Array | None:
        """A constant target for `Reshape` with -1 in place of the batch size, or None."""
        free = np.flatnonzero(self.slope)
        if self.offset.ndim != 1 or len(free) != 1 or self.offset[free].any() or (self.offset < 0).any():
            return None
        shape = self.offset.copy()
        shape[free] = -1
        return shape


def computed_sizes(graph: onnx.GraphProto) -> list[str]:
    """Return, in topological order, all tensors that depend on the input only through sizes."""
    data = {value.name for value in _inputs(graph)}
    sizes: list[str] = []
    for node in graph.node:
        if node.op_type not in _ASKING and data.intersection(reads(node)):
            data.update(node.output)
        elif node.op_type in _ASKING or set(sizes).intersection(reads(node)):
            sizes.extend(name for name in node.output if name)
    return sizes


def _inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def _spec(tensor: onnx.TypeProto.Tensor) -> tuple[list[int], np.dtype[Any]]:
    shape = [dimension.dim_value for dimension in tensor.shape.dim[1:]]
    return shape, helper.tensor_dtype_to_np_dtype(tensor.elem_type)


def _measured(model: onnx.ModelProto, names: Sequence[str]) -> Iterator[tuple[Array, ...]]:
    """Yield the values of each tensor at all tried batch sizes."""
    tensor = model.graph.input[0].type.tensor_type
    batches = _TRIED if tensor.shape.dim[0].dim_value != 1 else (1,) * len(_TRIED)
    asking = onnx.ModelProto()
    asking.CopyFrom(model)
    del asking.graph.output[:]
    asking.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    remove_unused(asking.graph)
    specs = {value.name: _spec(value.type.tensor_type) for value in _inputs(model.graph)}
    try:
        session = session_of(asking)
        runs = [
            session.run(None, {name: _noise(seed, batch, *spec) for name, spec in specs.items()})
            for seed, batch in zip(_TRIED, batches, strict=True)
        ]
    except Exception as error:  # ONNX Runtime's C++ exceptions share no base class
        raise ValueError(f"the network does not run with batches of {batches} images: {error}") from error
    yield from zip(*runs, strict=True)


def _noise(seed: int, batch: int, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """Return values with many zeros, so that counts of them are not linear in the batch.

    They are of either sign but for whole numbers above 8 bits, which may be places in a table.
    """
    random = np.random.default_rng(seed)
    noise: Array = random.integers(0, 2, (batch, *shape))
    if dtype.kind == "f" or dtype.itemsize == 1:
        noise *= random.integers(-128, 128, (batch, *shape))
    return noise.astype(dtype)


class _Replacement:
    """Makes the nodes of a graph read constants, or lines over `BATCH_SIZE`, instead of computed sizes."""

    def __init__(self, lines: Mapping[str, _Line]) -> None:
        self._lines = lines
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}

    def apply(self, graph: onnx.GraphProto) -> None:
        """Change the graph in place. The nodes that computed the sizes stay, unused."""
        for node in graph.node:
            for index, name in enumerate(node.input):
                if name in self._lines:
                    is_target = node.op_type == "Reshape" and index == 1
                    node.input[index] = self._instead(name, is_target=is_target)
        kept = list(graph.node)
        del graph.node[:]
        graph.node.extend((*batch_size_nodes(graph.input[0].name), *self._nodes, *kept))
        graph.initializer.extend((*batch_size_weights(), *self._weights.values()))

    def _instead(self, name: str, *, is_target: bool) -> str:
        """Return the tensor to read instead of a size; a `Reshape` may leave the batch size open."""
        line = self._lines[name]
        if line.is_constant:
            return self._weight(f"{_PREFIX}{name}", line.offset)
        if is_target and line.open_shape is not None:
            return self._weight(f"{_PREFIX}{name}.open", line.open_shape)
        return self._computed(f"{_PREFIX}{name}.computed", line)

    def _weight(self, name: str, value: Array) -> str:
        self._weights[name] = numpy_helper.from_array(value, name)
        return name

    def _computed(self, name: str, line: _Line) -> str:
        if any(name in node.output for node in self._nodes):
            return name
        slope = self._weight(f"{name}.slope", line.slope.astype(np.int64))
        offset = self._weight(f"{name}.offset", line.offset.astype(np.int64))
        product, total = f"{name}.product", f"{name}.sum"
        self._nodes.append(helper.make_node("Mul", [BATCH_SIZE, slope], [product]))
        self._nodes.append(helper.make_node("Add", [product, offset], [total]))
        if not line.offset.ndim:
            scalar = self._weight(f"{name}.no-sides", np.zeros(0, np.int64))
            total, vector = f"{name}.scalar", total
            self._nodes.append(helper.make_node("Reshape", [vector, scalar], [total]))
        element = helper.np_dtype_to_tensor_dtype(line.offset.dtype)
        self._nodes.append(helper.make_node("Cast", [total], [name], to=element))
        return name
