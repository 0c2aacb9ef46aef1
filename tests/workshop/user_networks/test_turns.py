"""Loops whose number of turns is computed from the sizes of the inputs."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from splitplace.workshop.user_networks.turns import with_constant_turns
from tests.support.odd_networks import doubling


def _loop(axis: int, *, domain: str = "", batch: int | str = "N") -> onnx.ModelProto:
    """Return a loop with an eighth of the length of an axis of `x` `[batch, 40]`, rounded up, as turns."""
    nodes = [
        helper.make_node("Neg", ["x"], ["t"]),
        helper.make_node("Shape", ["t"], ["shape"]),
        helper.make_node("Gather", ["shape", "axis"], ["length"], axis=0),
        helper.make_node("Add", ["length", "seven"], ["more"]),
        helper.make_node("Div", ["more", "eight"], ["turns"]),
        helper.make_node("Loop", ["turns", "", "t"], ["y"], body=doubling(), domain=domain),
    ]
    weights = {"axis": axis, "seven": 7, "eight": 8}
    graph = helper.make_graph(
        nodes,
        "turns",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 40])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 40])],
        [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _turns(model: onnx.ModelProto) -> int | None:
    """Return the number of turns if it is a constant."""
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    name = model.graph.node[-1].input[0]
    return int(weights[name]) if name in weights else None


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_turns_over_an_axis_become_a_constant(domain: str) -> None:
    assert _turns(with_constant_turns(_loop(1, domain=domain))) == 5


def test_turns_over_a_batch_that_is_always_one_become_a_constant() -> None:
    assert _turns(with_constant_turns(_loop(0, batch=1))) == 1


def test_turns_that_differ_in_large_batches_only_stay_as_they_are() -> None:
    model = _loop(0)
    assert with_constant_turns(model) is model
