"""How a file wants its pictures is recognised by rules that have names."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from splitplace.workshop.user_networks.recognising import notes_of, recognised
from splitplace.workshop.user_networks.source import source_of


def network(
    *steps: tuple[str, float], dtype: int = TensorProto.FLOAT, channels_last: bool = False
) -> onnx.ModelProto:
    nodes, weights, current = [], [], "x"
    for index, (operator, value) in enumerate(steps):
        made = f"s{index}"
        weights.append(numpy_helper.from_array(np.full((1,), value, np.float32), f"c{index}"))
        nodes.append(helper.make_node(operator, [current, f"c{index}"], [made]))
        current = made
    nodes.append(helper.make_node("GlobalAveragePool", [current], ["y"]))
    shape: list[str | int | None] = ["N", 8, 8, 3] if channels_last else ["N", 3, 8, 8]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", dtype, None)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize(
    ("steps", "white", "rule"),
    [
        ([("Sub", 123.7)], 255, "taking a mean of bytes off"),
        ([("Add", -127.5)], 255, "taking a mean of bytes off"),
        ([("Mul", 1 / 255)], 255, "scaling bytes (Mul"),
        ([("Div", 255)], 255, "scaling bytes (Div"),
        ([("Sub", 0.485)], 1, "not recognised"),
        ([("Div", 0.229)], 1, "not recognised"),
        ([], 1, "not recognised"),
    ],
)
def test_a_beginning_that_makes_small_numbers_of_bytes_is_recognised(
    steps: list[tuple[str, float]], white: float, rule: str
) -> None:
    model = network(*steps)
    found = recognised(model, source_of(model))
    assert found.pictures.white == white
    assert rule in found.pictures.rule
    assert found.is_default == (white == 1)


def test_bytes_and_layouts_are_recognised() -> None:
    model = network(dtype=TensorProto.UINT8, channels_last=True)
    found = recognised(model, source_of(model)).pictures
    assert (found.layout, found.rule) == ("channels-last", "its input is bytes")


def test_the_notes_of_ultralytics_say_fit_labels_and_task() -> None:
    model = network()
    notes = {
        "author": "Ultralytics",
        "task": "detect",
        "stride": "32",
        "names": "{0: 'person', 1: 'traffic light'}",
    }
    helper.set_model_props(model, notes)
    found = recognised(model, source_of(model))
    assert (found.pictures.fit, found.pictures.padding) == ("pad", 114)
    assert notes_of(model) == ("detect", ("person", "traffic light"))
    assert "Ultralytics" in found.pictures.rule


@pytest.mark.parametrize("names", ["", "{", "__import__('os')", "[1, 2]", "{1: 'a'}", "{0: 'a', 2: 'b'}"])
def test_names_that_are_no_list_of_classes_are_left_out(names: str) -> None:
    model = network()
    helper.set_model_props(model, {"author": "Ultralytics", "names": names})
    assert notes_of(model) == ("", ())
