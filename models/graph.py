"""Questions to an ONNX graph: what is live when, how large is it, what does it cost?"""

from math import prod

import onnx

_ITEM_BYTES = {
    onnx.TensorProto.FLOAT: 4,
    onnx.TensorProto.FLOAT16: 2,
    onnx.TensorProto.INT8: 1,
    onnx.TensorProto.UINT8: 1,
    onnx.TensorProto.INT64: 8,
    onnx.TensorProto.INT32: 4,
    onnx.TensorProto.BOOL: 1,
}


class Graph:
    """A read-only view of a model with one input, one output and inferred shapes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.input: str = graph.input[0].name
        self.output: str = graph.output[0].name
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._types = {
            value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info, *graph.output)
        }
        self.nodes: list[onnx.NodeProto] = []
        """Nodes that depend on the input, in topological order; constants are no part of the flow of data."""
        depends = {self.input}
        for node in graph.node:
            if depends.intersection(node.input):
                self.nodes.append(node)
                depends.update(node.output)
        self._last_use = {
            name: position
            for position, node in enumerate(self.nodes)
            for name in node.input
            if name in depends
        }
        self._last_use[self.output] = len(self.nodes)

    def live_after(self, position: int) -> list[str]:
        """Tensors made by the input or a node up to `position` and read by a later node."""
        made = [self.input, *(name for node in self.nodes[: position + 1] for name in node.output)]
        return [name for name in made if self._last_use.get(name, -1) > position]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor without its batch dimension."""
        return tuple(dimension.dim_value for dimension in self._types[name].shape.dim[1:])

    def bytes_per_image(self, name: str) -> int:
        """Size of a tensor for a batch of one."""
        return prod(self.shape(name)) * _ITEM_BYTES[self._types[name].elem_type]

    @property
    def weight_bytes(self) -> int:
        """Size of all weights."""
        return sum(
            prod(tensor.dims) * _ITEM_BYTES[tensor.data_type] for tensor in self._initializers.values()
        )

    @property
    def peak_activation_bytes_per_image(self) -> int:
        """Greatest sum of the tensors that exist at the same time, in the order of the graph.

        While a node runs, its inputs, its outputs and all that later nodes read exist.
        """
        peak = 0
        for position, node in enumerate(self.nodes):
            before = self.live_after(position - 1) if position else [self.input]
            alive = {*before, *(name for name in node.output if name)}
            peak = max(peak, sum(self.bytes_per_image(name) for name in alive))
        return peak

    @property
    def flops_per_image(self) -> int:
        """Floating-point operations of the convolutions and matrix products: two for each multiply-add.

        Raises:
            ValueError: A matrix product has no weight, so its work cannot be told from the graph.
        """
        return sum(self._flops(node) for node in self.nodes)

    def _flops(self, node: onnx.NodeProto) -> int:
        if node.op_type not in {"Conv", "Gemm", "MatMul"}:
            return 0
        if node.input[1] not in self._initializers:
            msg = f"{node.op_type} {node.name} has no constant weight"
            raise ValueError(msg)
        weight: tuple[int, ...] = tuple(self._initializers[node.input[1]].dims)
        outputs = prod(self.shape(node.output[0]))
        if node.op_type == "Conv":
            return 2 * outputs * prod(weight[1:])
        transposed = any(item.name == "transB" and item.i for item in node.attribute)
        inner: int = weight[1] if transposed else weight[-2]
        return 2 * outputs * inner
