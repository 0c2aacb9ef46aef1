"""Analyse an ONNX graph: which tensors are live when, how large they are, and what the graph costs."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import NamedTuple

import onnx
from onnx import TensorProto, helper

from splitplace.workshop.onnx.aside import values_of
from splitplace.workshop.onnx.batch_size import BATCH_SIZE
from splitplace.workshop.onnx.branches import inner_graphs, inner_weights, reads
from splitplace.workshop.onnx.inference import GraphError, inferred_types, types_of_part
from splitplace.workshop.onnx.light import LARGE_WEIGHT_BYTES

_PRODUCTS = {"Gemm": (0, 1), "MatMul": (0, 1), "MatMulInteger": (0, 1), "QLinearMatMul": (0, 3)}
"""Matrix products, and the positions of their two factors among the inputs."""
_CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "ConvTranspose": 1}
"""Convolutions, and the position of the weight among the inputs."""
_CHOOSING = {"NonMaxSuppression", "NonZero", "Compress", "Unique"}
"""Operators whose output has as many rows as the input makes them choose. Loops and branches may, too."""
_HOLDING = {
    "Optional",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceInsert",
    "SequenceMap",
    "SplitToSequence",
}
"""Operators whose output is no tensor, so it has no size."""
_NOT_FOLDED = {"DequantizeLinear"}
"""Operators that ONNX Runtime keeps even if their inputs are constant, as part of integer operators."""


class SpanCost(NamedTuple):
    """What a run of neighbouring nodes needs."""

    weight_bytes: int
    """Memory of the weights that they read."""
    activation_bytes_per_image: int
    """Greatest sum of tensors that exist while one of them runs; those that later nodes read included."""
    largest_weight_bytes: int
    """Memory of the largest of the weights."""


class Graph:
    """A read-only view of a model whose inputs and outputs are batches."""

    def __init__(self, model: onnx.ModelProto, whole: "Graph | None" = None) -> None:
        """Infer every shape.

        Args:
            model: The model. What it says of shapes that cannot be inferred is believed (`value_info`).
            whole: The network that it is a part of, which knows tensors of the same names.

        Raises:
            GraphError: The shapes contradict each other.
        """
        graph = model.graph
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._all_nodes = list(graph.node)
        self.inputs: tuple[str, ...] = tuple(
            value.name for value in graph.input if value.name not in self._initializers
        )
        self.outputs: tuple[str, ...] = tuple(value.name for value in graph.output)
        self.nodes: list[onnx.NodeProto] = _data_flow(graph, self.inputs, self.outputs)
        """Nodes on a path from an input to an output, in topological order. Constants, and what depends on
        the batch size alone, are not part of this data flow."""
        self._probe: int
        self._types: dict[str, onnx.TypeProto.Tensor]
        self._probe, self._types = (
            inferred_types(model, self.inputs)
            if whole is None
            else types_of_part(model, self.inputs, whole._probe, whole._types)  # noqa: SLF001 - its own class
        )
        made = {*self.inputs, *(name for node in self.nodes for name in node.output)}
        self._last_use = {
            name: position for position, node in enumerate(self.nodes) for name in reads(node) if name in made
        }
        self._last_use |= dict.fromkeys(self.outputs, len(self.nodes))
        self._chosen = self._run_time_sizes()
        """Tensors whose size depends on the values in the input."""

    @property
    def input(self) -> str:
        """The first input."""
        return self.inputs[0]

    @property
    def output(self) -> str:
        """The first output."""
        return self.outputs[0]

    def _run_time_sizes(self) -> frozenset[str]:
        """Return the tensors without a known shape that come of an operator which chooses among values."""
        chosen: set[str] = set()
        for node in self.nodes:
            if (
                node.op_type in _CHOOSING | _HOLDING
                or any(inner_graphs(node))
                or chosen.intersection(reads(node))
            ):
                chosen.update(name for name in node.output if not self._is_told(name))
        return frozenset(chosen)

    @property
    def untold(self) -> tuple[str, ...]:
        """Tensors of the data flow whose shapes the graph does not tell, in order."""
        made = [name for node in self.nodes for name in node.output if name]
        return tuple(name for name in made if not self._is_told(name))

    def _is_told(self, name: str) -> bool:
        shape = self._types[name].shape if name in self._types else None
        return (
            shape is not None
            and all(side.HasField("dim_value") for side in shape.dim)
            and (self._types[name].HasField("shape"))
        )

    def live(self) -> Iterator[frozenset[str]]:
        """Yield, after each node, the live tensors: those that exist and are read by a later node."""
        alive = {name for name in self.inputs if name in self._last_use}
        for position, node in enumerate(self.nodes):
            alive.update(name for name in node.output if name in self._last_use)
            alive = {name for name in alive if self._last_use[name] > position}
            yield frozenset(alive)

    def is_batch_first(self, name: str) -> bool:
        """Whether the first dimension of a tensor is the batch size."""
        dimensions = self._dimensions(name)
        return bool(dimensions) and dimensions[0] == self._probe

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without its first dimension."""
        return self._dimensions(name)[1:]

    def element_type(self, name: str) -> int:
        """Return the element type of a tensor, a number of `onnx.TensorProto.DataType`."""
        return self._type(name).elem_type

    def bytes_per_image(self, name: str) -> int:
        """Return the bytes by which a tensor grows with each image."""
        return self._elements_per_image(name) * _item_bytes(self.element_type(name))

    def is_after_relu(self, node: onnx.NodeProto) -> bool:
        """Whether a node sets negative values to zero."""
        if node.op_type != "Clip" or len(node.input) < 2:  # noqa: PLR2004 - the tensor and the minimum
            return bool(node.op_type == "Relu")
        least = self._initializers.get(node.input[1])
        return least is not None and not values_of(least).any()

    @property
    def weight_bytes(self) -> int:
        """Memory of all weights in a session: after everything that depends on no input is computed once.

        So weights in `Constant` nodes and those that `ConstantOfShape` makes count, and narrow weights count
        as what they are widened to. Quantised weights count as they are. Where the graph does not tell a
        size, that of the weights it is computed from counts.
        """
        sizes = self._constant_bytes()
        read = {
            name
            for node in self._all_nodes
            if not sizes.keys() >= {name for name in node.output if name}
            for name in reads(node)
            if name in sizes
        }
        inner = sum(_inner_bytes(node) for node in self._all_nodes)
        return sum(sizes[name] for name in read) + inner

    @property
    def largest_weight_bytes(self) -> int:
        """Memory of the largest of all weights, as `weight_bytes` counts them."""
        (whole,) = self.spans(())
        return whole.largest_weight_bytes

    def _constant_bytes(self) -> dict[str, int]:
        """Return the bytes of all weights, and of what is computed from nothing but weights."""
        sizes = {
            name: prod(weight.dims) * _item_bytes(weight.data_type)
            for name, weight in self._initializers.items()
        }
        for node in self._all_nodes:
            inputs = reads(node)
            if sizes.keys() >= set(inputs) and node.op_type not in _NOT_FOLDED:
                known = sum(sizes[name] for name in inputs)
                sizes |= {name: self._bytes(name, known) for name in node.output if name}
        return sizes

    @property
    def peak_activation_bytes_per_image(self) -> int:
        """Greatest sum of the tensors that exist at the same time, in the order of the graph.

        While a node runs, its inputs, its outputs and everything that later nodes read exist.
        """
        return max(self._alive_bytes(), default=0)

    def spans(self, ends: Sequence[int]) -> tuple[SpanCost, ...]:
        """Return what the nodes between some places need.

        Args:
            ends: Numbers of nodes before each place, ascending.
        """
        read, alive = self._constants_read(), self._alive_bytes()
        costs = []
        for first, end in pairwise((0, *ends, len(self.nodes))):
            weights = {name: size for reads in read[first:end] for name, size in reads.items()}
            sizes = weights.values()
            costs.append(SpanCost(sum(sizes), max(alive[first:end], default=0), max(sizes, default=0)))
        return tuple(costs)

    def flops_between(self, ends: Sequence[int]) -> tuple[int, ...]:
        """Return the operations for an image of the nodes between some places. See `spans` for `ends`."""
        bounds = pairwise((0, *ends, len(self.nodes)))
        return tuple(sum(map(self._flops, self.nodes[first:end])) for first, end in bounds)

    def matrices(self) -> tuple[bool, ...]:
        """Return for each node whether it reads a weight of several dimensions, as layers do."""
        return tuple(any(self._is_matrix(name) for name in reads) for reads in self._constants_read())

    def _is_matrix(self, name: str) -> bool:
        try:
            return sum(side > 1 for side in self._dimensions(name)) > 1
        except GraphError:
            return True

    def _alive_bytes(self) -> list[int]:
        """Return the bytes for an image of all tensors that exist while each node runs."""
        sizes: list[int] = []
        before = frozenset(name for name in self.inputs if name in self._last_use)
        for node, after in zip(self.nodes, self.live(), strict=True):
            alive = {*before, *(name for name in node.output if name)}
            sizes.append(sum(self._live_bytes(name) for name in alive))
            before = after
        return sizes

    def _constants_read(self) -> list[dict[str, int]]:
        """Return the weights that each node needs, with their bytes, as `weight_bytes` counts them."""
        sizes = self._constant_bytes()
        aside: dict[str, dict[str, int]] = {name: {name: size} for name, size in sizes.items()}
        flowing = {id(node) for node in self.nodes}
        for node in self._all_nodes:
            if id(node) not in flowing:
                needs = _needs(node, aside)
                aside |= {name: needs for name in node.output if name and name not in sizes}
        return [_needs(node, aside) for node in self.nodes]

    @property
    def flops_per_image(self) -> int:
        """Floating-point operations of the convolutions and matrix products: two for each multiply-add.

        Products of two computed tensors (attention) count as well as those with weights.
        """
        return sum(self._flops(node) for node in self.nodes)

    def _live_bytes(self, name: str) -> int:
        """Return the bytes of a tensor by image; 0 for one whose size only shows at run time.

        Those are indices of what was chosen, and small: nodes measure what a stage takes.
        """
        return 0 if name in self._chosen else self.bytes_per_image(name)

    def _flops(self, node: onnx.NodeProto) -> int:
        if node.op_type in _PRODUCTS:
            first, _ = _PRODUCTS[node.op_type]
            transposed = any(item.name == "transA" and item.i for item in node.attribute)
            inner = self._dimensions(node.input[first])[-2 if transposed else -1]
            return 2 * self._elements_per_image(node.output[0]) * inner
        if node.op_type in _CONVOLUTIONS:
            weight = self._dimensions(node.input[_CONVOLUTIONS[node.op_type]])
            # A transposed convolution spreads each input value; others gather each output value.
            place = node.input[0] if node.op_type == "ConvTranspose" else node.output[0]
            return 2 * self._elements_per_image(place) * prod(weight[1:])
        return 0

    def _bytes(self, name: str, otherwise: int) -> int:
        """Return the size of a tensor that no batch changes, or `otherwise` if the graph does not tell it."""
        try:
            return prod(self._dimensions(name)) * _item_bytes(self.element_type(name))
        except GraphError:
            return otherwise

    def _elements_per_image(self, name: str) -> int:
        elements = prod(self._dimensions(name))
        return elements if elements % self._probe else elements // self._probe

    def _dimensions(self, name: str) -> tuple[int, ...]:
        shape = self._type(name).shape
        if not all(dimension.HasField("dim_value") for dimension in shape.dim):
            raise GraphError(f"the graph does not tell the shape of tensor {name!r}")
        return tuple(dimension.dim_value for dimension in shape.dim)

    def _type(self, name: str) -> onnx.TypeProto.Tensor:
        if name not in self._types or not self._types[name].HasField("shape"):
            raise GraphError(f"the graph does not tell the shape of tensor {name!r}")
        return self._types[name]


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model that tells the sizes of its large weights but does not hold them.

    It takes little memory, and `Graph` says the same of it.
    """
    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = bare.graph
    for name in ("name", "node", "input", "output", "value_info"):
        part = onnx.GraphProto(**{name: getattr(model.graph, name)})
        graph.MergeFrom(part)
    for tensor in model.graph.initializer:
        if tensor.ByteSize() > LARGE_WEIGHT_BYTES:
            graph.initializer.add(
                name=tensor.name,
                dims=tensor.dims,
                data_type=tensor.data_type,
                data_location=TensorProto.EXTERNAL,
            )
        else:
            graph.initializer.append(tensor)
    return bare


def _data_flow(
    graph: onnx.GraphProto, sources: Sequence[str], outputs: Sequence[str]
) -> list[onnx.NodeProto]:
    reached = set(sources)
    forwards = []
    for node in graph.node:
        if BATCH_SIZE not in node.output and reached.intersection(reads(node)):
            reached.update(node.output)
            forwards.append(node)
    needed = set(outputs)
    nodes = []
    for node in reversed(forwards):
        if needed.intersection(node.output):
            needed.update(reads(node))
            nodes.append(node)
    return nodes[::-1]


def _needs(node: onnx.NodeProto, aside: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Return the weights that a node needs, with their bytes."""
    needs = {name: size for read in reads(node) for name, size in aside.get(read, {}).items()}
    inner = _inner_bytes(node)
    return needs | ({f"{node.output[0]}.branches": inner} if inner else {})


def _inner_bytes(node: onnx.NodeProto) -> int:
    """Return the bytes of the weights that the branches of a node hold themselves."""
    return sum(prod(weight.dims) * _item_bytes(weight.data_type) for weight in inner_weights(node))


def _item_bytes(element_type: int) -> int:
    size: int = helper.tensor_dtype_to_np_dtype(element_type).itemsize
    return size
