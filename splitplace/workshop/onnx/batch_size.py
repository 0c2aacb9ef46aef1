"""Reduce the sizes computed inside an ONNX graph to one number: the number of images in the batch.

An exported network may read the shape of a tensor early and use it late ("reshape to [batch, 197, 192], where
batch is the first dimension of the input"). Such integers would cross a cut beside the tensor, but a fragment
has only one input. In a network for pictures of one size, all of them depend only on the batch size. So they
are measured: the graph is run with a few batch sizes, and every computed size turns out to be constant or
linear in the number of images. What is computed of shapes is then checked with batches up to the largest,
which takes no data (`ceil(batch / 8)` is 1 in all small ones). Constants become weights. Linear sizes are
computed from the one tensor `BATCH_SIZE`, which every fragment derives from its own input.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import compose, helper, numpy_helper

from splitplace.edge_node.stage import joining
from splitplace.messages.limits import MAX_BATCH
from splitplace.workshop.onnx.branches import inner_graphs, reads
from splitplace.workshop.onnx.light import without_initializers
from splitplace.workshop.onnx.places import run_with_places
from splitplace.workshop.onnx.sessions import session_of

BATCH_SIZE = joining.BATCH_SIZE
"""Name of the tensor `int64[1]` that holds the number of images."""
_PREFIX = "splitplace.size."
TRIED = (2, 3, 5)
"""Batch sizes that the graph is run with. 1 is left out: exporters and broadcasting treat it differently."""
_CHECKED = (*range(1, 34), 64, 65, 127, 128, 256, 257, 509, 512, MAX_BATCH - 1, MAX_BATCH)
"""Batch sizes for which sizes are computed from the shapes of tensors alone."""
_ASKING = {"Shape", "Size"}

Array = NDArray[Any]
Spec = tuple[list[int], np.dtype[Any]]
"""Sizes of an input beside the batch, and its type."""


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
    specs = {value.name: _spec(value.type.tensor_type) for value in _inputs(model.graph)}
    is_free = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value != 1
    batches = TRIED if is_free else (1,) * len(TRIED)
    try:
        lines = lines_of(model, sizes, _feeds(specs, batches, _noise))
    except ValueError:  # Keras feeds places in a table as floats
        lines = lines_of(model, sizes, _feeds(specs, batches, _places))
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    _Replacement(lines).apply(changed.graph)
    remove_unused(changed.graph)
    return changed


def _feeds(
    specs: Mapping[str, Spec], batches: Sequence[int], values: Callable[[int, int, Spec], Array]
) -> list[dict[str, Array]]:
    """Return inputs for each batch size, by name."""
    return [
        {name: values(seed, batch, spec) for name, spec in specs.items()}
        for seed, batch in zip(TRIED, batches, strict=True)
    ]


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


class Line:
    """`slope * batch + offset`, element by element."""

    def __init__(self, slope: Array, offset: Array) -> None:
        self.slope = slope
        self.offset = offset

    @classmethod
    def through(cls, values: Sequence[Array]) -> "Line | None":
        """Return the line through the values at the batch sizes `TRIED`, or None if there is none."""
        first, second, third = values
        if not all(isinstance(value, np.ndarray) for value in values):  # a sequence
            return None
        if not first.shape == second.shape == third.shape or first.ndim > 1:
            return None
        if np.array_equal(first, second) and np.array_equal(first, third):
            return cls(np.zeros_like(first), first)
        if not np.issubdtype(first.dtype, np.integer):
            return None
        slope = (second - first) // (TRIED[1] - TRIED[0])
        offset = first - slope * TRIED[0]
        if not all(
            np.array_equal(slope * batch + offset, value) for batch, value in zip(TRIED, values, strict=True)
        ):
            return None
        return cls(slope, offset)

    def at(self, batch: int) -> Array:
        """Return the value for so many images."""
        return self.offset if self.is_constant else np.asarray(self.slope * batch + self.offset)

    @property
    def is_constant(self) -> bool:
        """Whether it is the same in all batches."""
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


def _spec(tensor: onnx.TypeProto.Tensor) -> Spec:
    shape = [dimension.dim_value for dimension in tensor.shape.dim[1:]]
    return shape, helper.tensor_dtype_to_np_dtype(tensor.elem_type)


def lines_of(
    model: onnx.ModelProto, sizes: Sequence[str], feeds: Sequence[Mapping[str, Array]]
) -> dict[str, Line]:
    """Return which computed sizes are constant or linear in the number of images, with their lines.

    Args:
        model: The network. It is not changed.
        sizes: All of its `computed_sizes`.
        feeds: Its inputs in batches of `TRIED`, or three of one input where it takes no others.

    Raises:
        ValueError: ONNX Runtime cannot run the model.
    """
    asking = onnx.ModelProto()
    asking.CopyFrom(model)
    del asking.graph.output[:]
    asking.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sizes)
    remove_unused(asking.graph)
    try:
        session = session_of(asking)
        runs = [run_with_places(partial(session.run, None), feed) for feed in feeds]
        found = zip(sizes, zip(*runs, strict=True), strict=True)
        lines = {name: line for name, values in found if (line := Line.through(values)) is not None}
        bent = _bent(asking, lines)
    except Exception as error:  # ONNX Runtime's C++ exceptions share no base class
        raise ValueError(f"the network does not run with batches of inputs: {error}") from error
    # The shapes of tensors whose own sizes are no lines are not known for large batches.
    shapes = _asked(asking.graph) & _following(asking.graph, bent)
    wrong = bent | shapes | _following(asking.graph, shapes)
    return {name: line for name, line in lines.items() if name not in wrong}


def _bent(model: onnx.ModelProto, lines: Mapping[str, Line]) -> set[str]:
    """Return which sizes leave their lines in a batch of `_CHECKED`, if the shapes of tensors keep theirs."""
    graph = model.graph
    shapes = _asked(graph) & lines.keys()
    unknown = {value.name for value in _inputs(graph)} | (_asked(graph) - shapes)
    unknown |= _following(graph, unknown, known=shapes)
    computed = [name for name in lines if name not in unknown and name not in shapes]
    if not computed or not shapes:
        return set()
    asking = without_initializers(model)
    del asking.graph.input[:], asking.graph.output[:], asking.graph.value_info[:], asking.graph.node[:]
    asking.graph.node.extend(node for node in graph.node if not shapes.intersection(node.output))
    asking.graph.output.extend(onnx.ValueInfoProto(name=name) for name in computed)
    remove_unused(asking.graph)
    read = {name for node in asking.graph.node for name in reads(node)}
    asking.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name in read)
    given = sorted(shapes & read)
    asking.graph.input.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None) for name in given
    )
    session = session_of(asking)
    bent: set[str] = set()
    for batch in _CHECKED:
        with suppress(Exception):  # the network itself does not run with this batch
            values = session.run(None, {name: lines[name].at(batch) for name in given})
            pairs = zip(computed, values, strict=True)
            bent.update(name for name, value in pairs if not np.array_equal(lines[name].at(batch), value))
    return bent


def _asked(graph: onnx.GraphProto) -> set[str]:
    return {name for node in graph.node if node.op_type in _ASKING for name in node.output}


def _following(graph: onnx.GraphProto, names: set[str], known: Collection[str] = ()) -> set[str]:
    """Return all tensors that are computed of these, but not those that are known."""
    reached = set(names)
    for node in graph.node:
        if reached.intersection(reads(node)):
            reached.update(name for name in node.output if name and name not in known)
    return reached - names


def _noise(seed: int, batch: int, spec: Spec) -> Array:
    """Return values with many zeros, so that counts of them are not linear in the batch.

    They are of either sign but for whole numbers above 8 bits, which may be places in a table.
    """
    shape, dtype = spec
    random = np.random.default_rng(seed)
    noise: Array = random.integers(0, 2, (batch, *shape))
    if dtype.kind == "f" or dtype.itemsize == 1:
        noise *= random.integers(-128, 128, (batch, *shape))
    return noise.astype(dtype)


def _places(seed: int, batch: int, spec: Spec) -> Array:
    """Return zeros and ones, which are places in most tables."""
    shape, dtype = spec
    return np.random.default_rng(seed).integers(0, 2, (batch, *shape)).astype(dtype)


class _Replacement:
    """Makes the nodes of a graph read constants, or lines over `BATCH_SIZE`, instead of computed sizes."""

    def __init__(self, lines: Mapping[str, Line]) -> None:
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
        own = f"{_PREFIX}of.{name}"  # a network may call a size `shape`, as `batch_size_nodes` does
        if line.is_constant:
            return self._weight(own, line.offset)
        if is_target and line.open_shape is not None:
            return self._weight(f"{own}.open", line.open_shape)
        return self._computed(f"{own}.computed", line)

    def _weight(self, name: str, value: Array) -> str:
        self._weights[name] = numpy_helper.from_array(value, name)
        return name

    def _computed(self, name: str, line: Line) -> str:
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
