"""What may run without end or take memory without bound is refused by its file; everything else is not."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from splitplace.edge_node.graph_check import (
    MAX_DEPTH,
    MAX_TRIPS,
    GraphRefusedError,
    check_bytes,
    check_stage,
)
from splitplace.edge_node.stage.pieces import joined_from
from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import SHIPPED_STORE
from tests.support.odd_networks import constant, endless, flat, model_of
from tests.support.tiny_application import build_tiny_application

MEGABYTE = 1 << 20
SCALAR = helper.make_tensor_value_info("value", TensorProto.FLOAT, [])
OPSETS = [
    helper.make_opsetid("", 17),
    helper.make_opsetid("own", 1),
]


def refused(content: bytes, limit: int = MEGABYTE) -> str:
    """Why it is refused; empty if it is not."""
    try:
        check_bytes(content, limit)
    except GraphRefusedError as error:
        return str(error)
    return ""


def body(nodes: Sequence[onnx.NodeProto] = (), extra_inputs: Sequence[str] = ()) -> onnx.GraphProto:
    """A body of `Loop` that carries a row."""
    infos = [
        helper.make_tensor_value_info("turn", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        *(helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in extra_inputs),
    ]
    outputs = [
        helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
    ]
    own = [
        helper.make_node("Identity", ["go"], ["go_on"]),
        *nodes,
        helper.make_node("Add", ["before", "before"], ["after"]),
    ]
    return helper.make_graph(own, "body", infos, outputs)


def loop(count: str, graph: onnx.GraphProto | None = None, output: str = "logits") -> onnx.NodeProto:
    return helper.make_node("Loop", [count, "", "row"], [output], body=graph or body())


def branch(name: str, nodes: Sequence[onnx.NodeProto] = ()) -> onnx.GraphProto:
    output = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    return helper.make_graph([*nodes, helper.make_node("Identity", ["row"], [name])], name, [], [output])


def choice(*inner: onnx.NodeProto) -> list[onnx.NodeProto]:
    return [
        constant("yes", np.array(1), np.bool_),
        helper.make_node(
            "If", ["yes"], ["logits"], then_branch=branch("then", inner), else_branch=branch("otherwise")
        ),
    ]


def scan(axis: int = 0, over: str = "steps") -> onnx.NodeProto:
    inputs = [
        helper.make_tensor_value_info("carried", TensorProto.FLOAT, None),
        helper.make_tensor_value_info("step", TensorProto.FLOAT, None),
    ]
    outputs = [helper.make_tensor_value_info("carried_on", TensorProto.FLOAT, None)]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["carried"], ["carried_on"])], "scan", inputs, outputs
    )
    return helper.make_node(
        "Scan", ["row", over], ["logits"], body=graph, num_scan_inputs=1, scan_input_axes=[axis]
    )


def call(name: str, output: str = "logits") -> onnx.NodeProto:
    return helper.make_node(name, ["row"], [output], domain="own")


def function(name: str, nodes: Sequence[onnx.NodeProto]) -> onnx.FunctionProto:
    return helper.make_function("own", name, ["row"], ["logits"], nodes, OPSETS)


def with_functions(*functions: onnx.FunctionProto) -> bytes:
    graph = helper.make_graph(
        [*flat(), call(functions[0].name)],
        "odd",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 1, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
    )
    model = helper.make_model(graph, opset_imports=OPSETS, ir_version=9, functions=list(functions))
    content: Any = model.SerializeToString()
    return bytes(content)


def test_loops_of_a_constant_number_of_turns_and_branches_are_allowed() -> None:
    assert not refused(model_of([*flat(), constant("n", 3), loop("n")]))
    assert not refused(model_of([*flat(), constant("n", [MAX_TRIPS]), loop("n")]))
    assert not refused(model_of([*flat(), *choice()]))
    assert not refused(model_of([*flat(), constant("steps", np.zeros((5, 2)), np.float32), scan()]))


@pytest.mark.parametrize("count", [MAX_TRIPS + 1, 2**62])
def test_a_loop_of_too_many_turns_is_refused(count: int) -> None:
    assert "turns" in refused(model_of([*flat(), constant("n", count), loop("n")]))


def test_a_loop_whose_number_of_turns_is_computed_or_missing_is_refused() -> None:
    computed = helper.make_node("Size", ["row"], ["n"])
    assert "no constant number of turns" in refused(model_of([*flat(), computed, loop("n")]))
    assert "no constant number of turns" in refused(model_of([*flat(), loop("")]))


def test_nested_loops_multiply() -> None:
    inner = loop("n", body(), "inner")
    for count, allowed in ((100, True), (101, False)):
        made = model_of([*flat(), constant("n", count), loop("n", body([inner]))])
        assert bool(refused(made)) is not allowed


def test_a_name_that_a_body_gives_anew_is_no_constant_there() -> None:
    shadowing = body([loop("n", body(), "inner")], extra_inputs=["n"])
    assert refused(model_of([*flat(), constant("n", 3), loop("n", shadowing)]))


def test_loops_inside_branches_and_functions_are_found() -> None:
    endless_loop = helper.make_node("Loop", ["", "", "row"], ["inner"], body=body())
    assert "turns" in refused(model_of([*flat(), *choice(endless_loop)]))
    inside = [helper.make_node("Identity", ["row"], ["logits"])]
    assert not refused(with_functions(function("F", inside)))
    assert "function F" in refused(with_functions(function("F", [loop("row")])))
    assert "function F" in refused(with_functions(function("F", choice(endless_loop))))


def test_functions_that_expand_without_bound_or_call_themselves_are_refused() -> None:
    chain = [
        function(f"F{level}", [call(f"F{level + 1}", f"x{turn}") for turn in range(10)]) for level in range(9)
    ]
    assert "expanded" in refused(with_functions(*chain, function("F9", [])))
    assert "calls itself" in refused(with_functions(function("F", [call("F")])))


def test_a_scan_over_a_computed_length_is_refused() -> None:
    assert "Scan" in refused(model_of([*flat(), scan(over="row")]))
    long = constant("steps", np.zeros((MAX_TRIPS + 1, 1)), np.float32)
    assert "Scan" in refused(model_of([*flat(), long, scan()]))
    assert not refused(model_of([*flat(), long, scan(axis=1)]))


def test_no_other_operator_may_hold_a_graph() -> None:
    node = helper.make_node("SequenceMap", ["row"], ["logits"], body=branch("each"))
    assert "SequenceMap holds a graph" in refused(model_of([*flat(), node]))
    foreign = helper.make_node("If", ["row"], ["logits"], then_branch=branch("each"), domain="com.microsoft")
    assert "holds a graph" in refused(model_of([*flat(), foreign]))


def test_graphs_nested_without_bound_are_refused() -> None:
    nodes: tuple[onnx.NodeProto, ...] = ()
    for _ in range(MAX_DEPTH + 1):
        nodes = tuple(choice(*nodes))
    assert "deep" in refused(model_of([*flat(), *nodes]))


def test_a_tensor_whose_size_stands_in_the_file_is_bounded() -> None:
    filled = [constant("size", [1_500_000_000]), helper.make_node("ConstantOfShape", ["size"], ["big"])]
    assert "6000000000 bytes" in refused(model_of([*flat(), *filled]))
    assert not refused(model_of([*flat(), *filled]), limit=6_000_000_000)
    wide = helper.make_tensor_value_info("wide", TensorProto.FLOAT, ["batch", 1 << 20])
    graph = helper.make_graph(flat(), "odd", [], [wide])
    content = helper.make_model(graph).SerializeToString()
    assert refused(content, limit=4 * MEGABYTE - 1)
    assert not refused(content, limit=4 * MEGABYTE)


def test_a_value_that_is_given_twice_does_not_hide_another() -> None:
    tensor = numpy_helper.from_array(np.array(2**62))
    small = onnx.TensorProto(data_type=TensorProto.INT64, int64_data=[3])
    both = onnx.TensorProto(data_type=TensorProto.INT64, int64_data=[3], raw_data=tensor.raw_data)
    assert refused(model_of([*flat(), helper.make_node("Constant", [], ["n"], value=both), loop("n")]))
    node = helper.make_node("Constant", [], ["n"], value=tensor)
    node.attribute.append(helper.make_attribute("value", small))
    assert "twice" in refused(model_of([*flat(), node, loop("n")]))
    doubled = tensor.SerializeToString()
    attribute = helper.make_attribute("value", small).SerializeToString()
    merged = attribute + b"\x2a" + bytes([len(doubled)]) + doubled
    raw = b"\x12\x01n\x22\x08Constant\x2a" + bytes([len(merged)]) + merged
    graph = b"\x0a" + bytes([len(raw)]) + raw
    assert "two values" in refused(b"\x3a" + bytes([len(graph)]) + graph)


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"\x3a\xff", b"ORTM" * 10, bytes(100), b"\x3a\x00\x3a\x00"]
)
def test_what_is_no_network_is_refused(content: bytes) -> None:
    assert refused(content)


@given(st.binary(max_size=200))
def test_garbage_never_does_more_than_to_be_refused(content: bytes) -> None:
    refused(content)


@given(st.data())
def test_a_damaged_network_never_does_more_than_to_be_refused(data: st.DataObject) -> None:
    content = bytearray(model_of([*flat(), constant("n", 3), loop("n"), *choice()]))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    refused(bytes(content))


def test_deeply_nested_bytes_are_no_recursion_without_end() -> None:
    content = b""
    for _ in range(200):
        content = b"\x3a" + struct.pack("B", len(content) & 0x7F) + content[:127]
    refused(content)


def test_ordinary_networks_are_allowed(tmp_path: Path) -> None:
    build_tiny_application(tmp_path)
    assert not refused(model_of(endless()), limit=32 * MEGABYTE)
    stages = [
        joined_from(store.pieces_folder(application.name), application.stage_of(fragment))
        for store in (ModelStore(tmp_path), ModelStore(SHIPPED_STORE))
        for application in store.applications()
        for fragment in application.fragments
    ]
    assert len(stages) > 30
    for stage in stages:
        check_stage(stage, 64 * MEGABYTE)
