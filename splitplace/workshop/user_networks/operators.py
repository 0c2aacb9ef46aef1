"""Append operators to a graph, in forms that all operator sets from 11 on have alike."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_PREFIX = "splitplace.head"


class Operators:
    """Appends to a graph; each call returns the name of the tensor that it makes."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph

    @property
    def _next(self) -> str:
        """A name that no tensor has yet: the graph only grows."""
        return f"{_PREFIX}.{len(self._graph.node)}.{len(self._graph.initializer)}"

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:  # noqa: ANN401
        """Append an operator and return its last output."""
        names = [f"{self._next}.{number}" for number in range(outputs)]
        self._graph.node.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names[-1]

    def constant(self, values: NDArray[Any] | Sequence[int] | float) -> str:
        """Add a weight: whole numbers as int64, others as float32."""
        array = np.asarray(values)
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        name = f"{self._next}.constant"
        self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def floats(self, name: str) -> str:
        """Cast to float32."""
        return self.add("Cast", name, to=TensorProto.FLOAT)

    def part(self, name: str, first: int, end: int, axis: int) -> str:
        """Return a slice along an axis."""
        bounds = (self.constant([first]), self.constant([end]), self.constant([axis]))
        return self.add("Slice", name, *bounds)

    def shaped(self, name: str, *sides: int) -> str:
        """Return the tensor with these sides after the batch."""
        return self.add("Reshape", name, self.constant([0, *sides]))

    def best(self, name: str, count: int, axis: int) -> tuple[str, str]:
        """Return the greatest values along an axis, in order, and their places."""
        places = self.add("TopK", name, self.constant([count]), outputs=2, axis=axis)
        return f"{places.rpartition('.')[0]}.0", places
