"""Networks whose inputs are places in a table, or of an open length, answer as the file does."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from splitplace.messages.application import Application
from splitplace.storage.model_store import ModelStore
from splitplace.workshop.packing.evaluation import variant_outputs
from splitplace.workshop.pieces.loaded import stage_runtime
from tests.support.commands import exit_code

ROWS = 12
UNITS = 4
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64

pytestmark = pytest.mark.usefixtures("labels")


def _save(nodes: list[onnx.NodeProto], given: tuple[int, list[int | str]], made: list[int | str]) -> None:
    table = np.random.default_rng(0).standard_normal((ROWS, UNITS)).astype(np.float32)
    weights = {"table": table, "w": table[:UNITS], "one": np.array([1]), "zero": np.array([0])}
    weights |= {"flat": np.array([-1]), "two": np.array([2])}
    graph = helper.make_graph(
        nodes,
        "places",
        [helper.make_tensor_value_info("x", *given)],
        [helper.make_tensor_value_info("y", FLOAT, made)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=8), "case.onnx")


def _node(operator: str, *names: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, list(names[:-1]), [names[-1]], **attributes)


def _added(*flags: str) -> Application:
    assert exit_code("models", "add", "case.onnx", "--kind", "tensors", *flags, "--store", "store") == 0
    return ModelStore(Path("store")).application("case")


def _compare(application: Application, rows: NDArray[np.generic]) -> None:
    """Compare the answers of every variant with those of the file, one input at a time."""
    session = ort.InferenceSession("case.onnx", providers=["CPUExecutionProvider"])
    ranks = len(session.get_inputs()[0].shape)
    feeds = [row[np.newaxis] if row.ndim < ranks else row for row in rows]
    expected = np.stack([np.asarray(session.run(None, {"x": feed})[0]) for feed in feeds])
    load = partial(stage_runtime, ModelStore(Path("store")), application)
    for variant in application.variants:
        (found,) = variant_outputs(application, variant, load, [rows])
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("has_sizes", [False, True])
def test_places_in_a_table_may_be_sent_as_floats(has_sizes: bool) -> None:  # noqa: FBT001
    sizes = [_node("Shape", "x", "shape"), _node("Slice", "shape", "zero", "one", "count")]
    sizes += [_node("Concat", "count", "flat", "wanted", axis=0), _node("Reshape", "t", "wanted", "flatter")]
    nodes = [
        _node("Cast", "x", "places", to=INT64),
        _node("Gather", "table", "places", "rows"),
        _node("MatMul", "rows", "w", "m"),
        _node("Tanh", "m", "t"),
        *(sizes if has_sizes else [_node("Flatten", "t", "flatter")]),
        _node("Relu", "flatter", "y"),
    ]
    _save(nodes, (FLOAT, ["N", 6]), ["N", 6 * UNITS])
    application = _added()
    assert application.input.dtype == "float32"
    _compare(application, np.random.default_rng(1).integers(0, ROWS, (3, 6)).astype(np.float32))


TOKENS = [
    _node("Gather", "table", "x", "rows"),
    _node("MatMul", "rows", "w", "m"),
    _node("Tanh", "m", "t"),
    _node("Squeeze", "t", "zero", "y"),
]
PAIRS = [_node("Softmax", "x", "shares", axis=-1), _node("Squeeze", "shares", "zero", "y")]


@pytest.mark.parametrize(
    ("nodes", "sides", "made", "said"),
    [
        (TOKENS, (INT64, [1, "seq_len"]), ["seq_len", UNITS], "7"),
        (PAIRS, (FLOAT, [1, "atoms", "atoms"]), ["atoms", "atoms"], "7x7"),
    ],
    ids=["tokens", "pairs"],
)
def test_a_length_is_no_batch_where_an_answer_begins_with_it(
    nodes: list[onnx.NodeProto],
    sides: tuple[int, list[int | str]],
    made: list[int | str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _save(nodes, sides, made)
    assert exit_code("models", "add", "case.onnx", "--kind", "tensors", "--store", "store") == 1
    assert f"like --input {said.replace('7', '16')}" in capsys.readouterr().err
    application = _added("--input", said)
    shape = tuple(map(int, said.split("x")))
    assert application.input.shape == shape
    rows = np.random.default_rng(1).integers(0, ROWS, (3, *shape))
    _compare(application, rows.astype(application.input.dtype))


def _graph_of_nodes() -> None:
    """Save a step of a graph network: each node gets the mean of what its edges bring."""
    nodes = [
        _node("Gather", "edges", "from", "sources", axis=0),
        _node("Gather", "edges", "to", "targets", axis=0),
        _node("Gather", "x", "sources", "sent", axis=0),
        _node("Shape", "x", "shape"),
        _node("ConstantOfShape", "shape", "nothing"),
        _node("Unsqueeze", "targets", "last", "rows"),
        helper.make_node("ScatterND", ["nothing", "rows", "sent"], ["got"], reduction="add"),
        _node("MatMul", "got", "w", "m"),
        _node("Tanh", "m", "y"),
    ]
    weight = np.random.default_rng(0).standard_normal((UNITS, UNITS)).astype(np.float32)
    weights = {"w": weight, "from": np.array(0), "to": np.array(1), "last": np.array([-1])}
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info("x", FLOAT, ["nodes", UNITS]),
            helper.make_tensor_value_info("edges", INT64, [2, "edges"]),
        ],
        [helper.make_tensor_value_info("y", FLOAT, ["nodes", UNITS])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=8), "case.onnx")


def test_a_network_of_nodes_and_edges_is_added_with_the_sizes_that_its_refusal_asks_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _graph_of_nodes()
    assert exit_code("models", "add", "case.onnx", "--kind", "tensors", "--store", "store") == 1
    assert "is no batch, such as the nodes of a graph, say all its sizes: --input edges=SIZES" in " ".join(
        capsys.readouterr().err.split()
    )
    application = _added("--input", "x=3x4", "--input", "edges=2x5")
    random = np.random.default_rng(1)
    nodes = random.standard_normal((3, 3, UNITS)).astype(np.float32)
    edges = random.integers(0, 3, (3, 2, 5))
    session = ort.InferenceSession("case.onnx", providers=["CPUExecutionProvider"])
    pairs = zip(nodes, edges, strict=True)
    expected = np.stack([np.asarray(session.run(None, {"x": x, "edges": each})[0]) for x, each in pairs])
    load = partial(stage_runtime, ModelStore(Path("store")), application)
    for variant in application.variants:
        (found,) = variant_outputs(application, variant, load, [nodes, edges])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_sizes_that_a_file_contradicts_are_named_with_their_input(capsys: pytest.CaptureFixture[str]) -> None:
    _graph_of_nodes()
    flags = ("--kind", "tensors", "--input", "x=3x4", "--input", "edges=3x5")
    assert exit_code("models", "add", "case.onnx", *flags, "--store", "store") == 1
    told = "--input is 3x5, but the file says 2x? for 'edges', beside its batch"
    assert told in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("names", [["x"], ["x", "kind"]], ids=["alone", "beside others"])
def test_places_in_a_table_of_one_row_are_zeros(names: list[str]) -> None:
    """As the kinds of tokens of a network that knows one kind, or the numbers of the graphs of one."""
    nodes = [
        _node("Gather", "only" if names[-1] == "x" else "table", "x", "rows"),
        *([_node("Gather", "only", "kind", "kinds")] if len(names) > 1 else []),
        _node("Add", "rows", "kinds" if len(names) > 1 else "b", "sum"),
        _node("MatMul", "sum", "w", "m"),
        _node("Tanh", "m", "y"),
    ]
    table = np.random.default_rng(0).standard_normal((ROWS, UNITS)).astype(np.float32)
    weights = {"table": table, "only": table[:1], "b": table[1], "w": table[:UNITS]}
    graph = helper.make_graph(
        nodes,
        "kinds",
        [helper.make_tensor_value_info(name, INT64, ["N", 6]) for name in names],
        [helper.make_tensor_value_info("y", FLOAT, ["N", 6, UNITS])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=8), "case.onnx")
    application = _added()
    assert all(fragment.memory for fragment in application.fragments), "all are measured"
    places = [np.zeros((3, 6), np.int64) for _ in names]
    if len(names) > 1:
        places[0] = np.random.default_rng(1).integers(0, ROWS, (3, 6))
    session = ort.InferenceSession("case.onnx", providers=["CPUExecutionProvider"])
    expected = np.asarray(session.run(None, dict(zip(names, places, strict=True)))[0])
    load = partial(stage_runtime, ModelStore(Path("store")), application)
    for variant in application.variants:
        (found,) = variant_outputs(application, variant, load, places)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_batch_of_one_is_no_length_of_another_input() -> None:
    """As of a network for molecules, whose one input is `[1, atoms]` numbers beside `[1, atoms, atoms]`."""
    nodes = [
        _node("Gather", "table", "x", "rows"),
        _node("Gather", "table", "more", "others"),
        _node("Add", "rows", "others", "sum"),
        _node("Transpose", "sum", "turned", perm=[0, 2, 1]),
        _node("MatMul", "sum", "turned", "m"),
        _node("Add", "m", "apart", "a"),
        _node("Squeeze", "a", "zero", "y"),
    ]
    _save(nodes, (INT64, [1, "atoms"]), ["atoms", "atoms"])
    model = onnx.load("case.onnx")
    model.graph.input.append(helper.make_tensor_value_info("more", INT64, [1, "atoms"]))
    model.graph.input.append(helper.make_tensor_value_info("apart", FLOAT, [1, "atoms", "atoms"]))
    onnx.save_model(model, "case.onnx")
    application = _added("--input", "x=5", "--input", "more=5", "--input", "apart=5x5")
    assert [each.spec.shape for each in application.inputs] == [(5,), (5,), (5, 5)]
