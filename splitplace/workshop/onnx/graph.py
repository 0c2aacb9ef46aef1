"""Analyse an ONNX graph: which tensors are live when, how large they are, and what the graph costs."""

from collections.abc import Iterator
from math import prod

import onnx
from onnx import TensorProto, helper, numpy_helper

from splitplace.errors import SplitPlaceError
from splitplace.workshop.onnx.batch_size import BATCH_SIZE

PROBE_BATCH = 997
"""Batch size for shape inference: a prime that is unlikely to be the size of another dimension."""
_LARGE_WEIGHT_BYTES = 4096
"""Weights above this size are not shapes or axes, so shape inference does not need their values."""
_PRODUCTS = {"Gemm": (0, 1), "MatMul": (0, 1), "MatMulInteger": (0, 1), "QLinearMatMul": (0, 3)}
"""Matrix products, and the positions of their two factors among the inputs."""
_CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "ConvTranspose": 1}
"""Convolutions, and the position of the weight among the inputs."""
_NOT_FOLDED = {"DequantizeLinear"}
"""Operators that ONNX Runtime keeps even if their inputs are constant, as part of integer operators."""


class GraphError(SplitPlaceError, ValueError):
    """The graph does not tell a shape or size that is needed."""


class Graph:
    """A read-only view of a model with one input and one output."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Infer every shape.

        Raises:
            GraphError: The shapes contradict each other, or the graph has branches or loops.
        """
        graph = model.graph
        for node in graph.node:
            if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
                raise GraphError(
                    f"{node.op_type} {node.name!r} holds a graph of its own: branches and loops cannot be cut"
                )
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._all_nodes = list(graph.node)
        self.input: str = next(value.name for value in graph.input if value.name not in self._initializers)
        self.output: str = graph.output[0].name
        self.nodes: list[onnx.NodeProto] = _data_flow(graph, self.input, self.output)
        """Nodes on a path from the input to the output, in topological order. Constants, and what depends on
        the batch size alone, are not part of this data flow."""
        self._probe, self._types = _inferred_types(model, self.input)
        made = {self.input, *(name for node in self.nodes for name in node.output)}
        self._last_use = {
            name: position for position, node in enumerate(self.nodes) for name in node.input if name in made
        }
        self._last_use[self.output] = len(self.nodes)

    def live(self) -> Iterator[frozenset[str]]:
        """Yield, after each node, the live tensors: those that exist and are read by a later node."""
        alive = {self.input}
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
        return least is not None and not numpy_helper.to_array(least).any()

    @property
    def weight_bytes(self) -> int:
        """Memory of all weights in a session: after everything that depends on no input is computed once.

        So weights in `Constant` nodes and those that `ConstantOfShape` makes count, and narrow weights count
        as what they are widened to. Quantised weights count as they are. Where the graph does not tell a
        size, that of the weights it is computed from counts.
        """
        sizes = {
            name: prod(weight.dims) * _item_bytes(weight.data_type)
            for name, weight in self._initializers.items()
        }
        read: set[str] = set()
        for node in self._all_nodes:
            inputs = [name for name in node.input if name]
            if sizes.keys() >= set(inputs) and node.op_type not in _NOT_FOLDED:
                known = sum(sizes[name] for name in inputs)
                sizes |= {name: self._bytes(name, known) for name in node.output if name}
            else:
                read.update(name for name in inputs if name in sizes)
        return sum(sizes[name] for name in read)

    @property
    def peak_activation_bytes_per_image(self) -> int:
        """Greatest sum of the tensors that exist at the same time, in the order of the graph.

        While a node runs, its inputs, its outputs and everything that later nodes read exist.
        """
        peak = 0
        before = frozenset({self.input})
        for node, after in zip(self.nodes, self.live(), strict=True):
            alive = {*before, *(name for name in node.output if name)}
            peak = max(peak, sum(self.bytes_per_image(name) for name in alive))
            before = after
        return peak

    @property
    def flops_per_image(self) -> int:
        """Floating-point operations of the convolutions and matrix products: two for each multiply-add.

        Products of two computed tensors (attention) count as well as those with weights.
        """
        return sum(self._flops(node) for node in self.nodes)

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
        if tensor.ByteSize() > _LARGE_WEIGHT_BYTES:
            graph.initializer.add(
                name=tensor.name,
                dims=tensor.dims,
                data_type=tensor.data_type,
                data_location=TensorProto.EXTERNAL,
            )
        else:
            graph.initializer.append(tensor)
    return bare


def _data_flow(graph: onnx.GraphProto, source: str, output: str) -> list[onnx.NodeProto]:
    reached = {source}
    forwards = []
    for node in graph.node:
        if BATCH_SIZE not in node.output and reached.intersection(node.input):
            reached.update(node.output)
            forwards.append(node)
    needed = {output}
    nodes = []
    for node in reversed(forwards):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    return nodes[::-1]


def _inferred_types(model: onnx.ModelProto, source: str) -> tuple[int, dict[str, onnx.TypeProto.Tensor]]:
    """Infer types and shapes of all tensors for a batch of `PROBE_BATCH`; of one, where no other fits.

    Returns:
        The batch size, and the types by name.
    """
    try:
        return PROBE_BATCH, _types_for(model, source, PROBE_BATCH)
    except GraphError:
        try:
            return 1, _types_for(model, source, 1)
        except GraphError:
            pass
        raise


def _types_for(model: onnx.ModelProto, source: str, batch: int) -> dict[str, onnx.TypeProto.Tensor]:
    skeleton = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = skeleton.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    for value in model.graph.input:
        if value.name == source:
            graph.input.append(value)
            graph.input[-1].type.tensor_type.shape.dim[0].dim_value = batch
    for tensor in model.graph.initializer:
        if tensor.ByteSize() > _LARGE_WEIGHT_BYTES or tensor.data_location == TensorProto.EXTERNAL:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            graph.initializer.append(tensor)
    for value in model.graph.output:
        output = graph.output.add(name=value.name)
        output.type.tensor_type.elem_type = value.type.tensor_type.elem_type
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, strict_mode=True, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise GraphError(f"the graph's shapes do not fit together: {error}") from error
    types = {tensor.name: _type_of(tensor) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        types[value.name] = value.type.tensor_type
    return types


def _type_of(tensor: onnx.TensorProto) -> onnx.TypeProto.Tensor:
    return helper.make_tensor_type_proto(tensor.data_type, tensor.dims).tensor_type


def _item_bytes(element_type: int) -> int:
    size: int = helper.tensor_dtype_to_np_dtype(element_type).itemsize
    return size
