"""Odd, damaged and hostile files are added, or refused in one line."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from splitplace.storage.model_store import ModelStore
from splitplace.workshop.packing.evaluation import variant_outputs
from splitplace.workshop.pieces.loaded import stage_runtime
from tests.support.commands import exit_code
from tests.support.odd_networks import doubling

CLASSES = ("--labels", "labels.txt", "--accuracy", "0.5")
X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])
FIRST = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Tanh", ["m"], ["t"])]

pytestmark = pytest.mark.usefixtures("labels")


def _weights() -> list[onnx.TensorProto]:
    values = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    zero, turns = numpy_helper.from_array(np.array(0), "zero"), numpy_helper.from_array(np.array(3), "turns")
    return [numpy_helper.from_array(values, "w"), zero, turns]


def _model(*nodes: onnx.NodeProto, gives: int = TensorProto.FLOAT, **more: Any) -> onnx.ModelProto:
    """Return a network whose first nodes make `t`, float32 `[N, 4]`, and whose others make `y` of it."""
    ends = [helper.make_tensor_value_info("y", gives, None)]
    graph = helper.make_graph([*FIRST, *nodes], "odd", [X], ends, _weights())
    domains = {"": 18, **dict.fromkeys({node.domain for node in nodes} - {""}, 1)}
    opsets = [helper.make_opsetid(*item) for item in domains.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, **more)


def _node(operator: str, *names: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, list(names[:-1]), [names[-1]], **attributes)


def _loop() -> onnx.ModelProto:
    return _model(helper.make_node("Loop", ["turns", "", "t"], ["y"], body=doubling()))


def _loop_with_notes() -> onnx.ModelProto:
    """Return a loop with what exporters write into graphs: where the code stood, and ranges of tensors."""
    model = _loop()
    body = model.graph.node[-1].attribute[0].g
    for part in (body, body.node[0], body.output[0]):
        part.doc_string = "C:\\somebody\\network.py"
        part.metadata_props.add(key="source", value="C:\\somebody\\network.py")
    body.quantization_annotation.add(tensor_name="a")
    return model


def _tree(leaves: int = 2) -> onnx.ModelProto:
    """Return a tree of one branch, by the first number, with a map at its end, as of scikit-learn."""
    count = leaves + 1
    tree = helper.make_node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "shares"],
        domain="ai.onnx.ml",
        classlabels_int64s=range(4),
        class_ids=[index % 4 for index in range(leaves)],
        class_nodeids=range(1, count),
        class_treeids=[0] * leaves,
        class_weights=[1.0] * leaves,
        nodes_falsenodeids=[2] + [0] * leaves,
        nodes_truenodeids=[1] + [0] * leaves,
        nodes_featureids=[0] * count,
        nodes_modes=["BRANCH_LEQ"] + ["LEAF"] * leaves,
        nodes_nodeids=range(count),
        nodes_treeids=[0] * count,
        nodes_values=[0.0] * count,
        post_transform="NONE",
    )
    ends = helper.make_node("ZipMap", ["shares"], ["y"], domain="ai.onnx.ml", classlabels_int64s=range(4))
    model = _model(tree, ends)
    del model.graph.node[:2]
    label = helper.make_tensor_value_info("label", TensorProto.INT64, ["N"])
    scores = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    model.graph.output[0].CopyFrom(helper.make_value_info("y", scores))
    model.graph.output.insert(0, label)
    return model


def _scan() -> onnx.ModelProto:
    row = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "abcd"]
    body = helper.make_graph(
        [_node("Add", "a", "b", "c"), _node("Identity", "c", "d")], "body", row[:2], row[2:]
    )
    turned = _node("Transpose", "t", "u", perm=[1, 0])
    start = _node("ReduceSum", "t", "zero1", "s", keepdims=0)
    scan = helper.make_node("Scan", ["s", "u"], ["last", "all"], body=body, num_scan_inputs=1)
    model = _model(turned, start, scan, _node("Transpose", "all", "y", perm=[1, 0]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "zero1"))
    return model


def _functions(depth: int) -> onnx.ModelProto:
    """Return a network of functions that each call the next one twice."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    made = []
    for number in range(depth):
        call = f"F{number + 1}"
        nodes = [_node(call, "a", "b", domain="own"), _node(call, "b", "c", domain="own")]
        if number == depth - 1:
            nodes = [_node("Relu", "a", "c")]
        made.append(helper.make_function("own", f"F{number}", ["a"], ["c"], nodes, opsets))
    return _model(_node("F0", "t", "y", domain="own"), functions=made)


def _rows_chosen_by_value() -> onnx.ModelProto:
    """Leave out the inputs whose first value is near .51: none of those that a file is tried with."""
    model = _model(
        _node("Gather", "x", "zero", "first", axis=1),
        _node("Sub", "first", "middle", "apart"),
        _node("Abs", "apart", "distance"),
        _node("Greater", "distance", "least", "kept"),
        _node("Compress", "t", "kept", "y", axis=0),
    )
    for name, value in (("middle", 0.51), ("least", 0.01)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    return model


def _long_names() -> onnx.ModelProto:
    model = _model(_node("Tanh", "t" * 600, "y"))
    model.graph.node[1].output[0] = "t" * 600
    return model


def _with_output(name: str, *nodes: onnx.NodeProto) -> onnx.ModelProto:
    model = _model(*nodes)
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.INT64, None))
    return model


def _without_a_shape() -> onnx.ModelProto:
    model = _model(_node("Tanh", "t", "y"))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    return model


ADDED: dict[str, Callable[[], onnx.ModelProto]] = {
    "last operator without inference": lambda: _model(_node("Gelu", "t", "y", domain="com.microsoft")),
    "ends with a loop": _loop,
    "notes inside a loop": _loop_with_notes,
    "a sequence inside": lambda: _model(
        _node("SequenceConstruct", "t", "t", "s"), _node("SequenceAt", "s", "zero", "y")
    ),
    "an optional inside": lambda: _model(_node("Optional", "t", "o"), _node("OptionalGetElement", "o", "y")),
    "names of 600 letters": _long_names,
    "no shape": _without_a_shape,
    "few functions": lambda: _functions(3),
}


@pytest.mark.parametrize("case", ADDED)
def test_an_odd_network_answers_as_onnx_runtime_does(case: str) -> None:
    onnx.save_model(ADDED[case](), "case.onnx")
    flags = [*CLASSES, "--output-kind", "logits", *(("--input", "6") if case == "no shape" else ())]
    assert exit_code("models", "add", "case.onnx", *flags, "--store", "s") == 0
    store = ModelStore(Path("s"))
    application = store.application("case")
    rows = np.random.default_rng(7).standard_normal((3, 6)).astype(np.float32)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    expected = ort.InferenceSession("case.onnx", options).run(None, {"x": rows})[0]
    for variant in application.variants:
        load = lambda stage, kept=application: stage_runtime(store, kept, stage)  # noqa: E731
        (found,) = variant_outputs(application, variant, load, [rows])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    files = [file for file in Path("s").rglob("*") if file.is_file()]
    assert not any(b"somebody" in file.read_bytes() for file in files), "paths of other machines"


@pytest.mark.parametrize(
    ("model", "flags", "outcome"),
    [
        (
            lambda: _model(_node("Cast", "t", "y", to=TensorProto.STRING), gives=TensorProto.STRING),
            CLASSES,
            "is text",
        ),
        (lambda: _model(_node("RandomNormalLike", "t", "y")), CLASSES, "another one each time"),
        (lambda: _model(_node("RandomNormalLike", "t", "y")), ("--kind", "tensors"), "another one each time"),
        (lambda: _functions(40), CLASSES, "nodes after functions are expanded"),
        (_scan, CLASSES, "Scan has no constant number of turns"),
        (onnx.ModelProto, CLASSES, "holds no network"),
        (
            lambda: _model(helper.make_node("Loop", ["", "", "t"], ["y"], body=doubling())),
            CLASSES,
            "no constant number of turns",
        ),
        (lambda: _tree(200_000), ("--kind", "tensors"), "train fewer or smaller trees"),
        (
            lambda: _with_output("k", _node("Shape", "t", "k"), _node("Tanh", "t", "y")),
            ("--kind", "tensors"),
            "its output 'k' is the same for all inputs",
        ),
        (
            lambda: _with_output("k", _node("Abs", "zero", "k"), _node("Tanh", "t", "y")),
            ("--kind", "tensors"),
            "its output 'k' is the same for all inputs",
        ),
        (_without_a_shape, CLASSES, "the file tells no shape of 'x': say its sizes beside the batch"),
        (_rows_chosen_by_value, ("--kind", "tensors"), "the size of the output 'y' depends on the values"),
    ],
)
def test_what_no_node_can_run_is_refused_in_one_line(
    model: Callable[[], onnx.ModelProto],
    flags: Sequence[str],
    outcome: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _refused(model().SerializeToString(), flags, outcome, capsys)


def test_an_unknown_type_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    model = _model(_node("Tanh", "t", "y"))
    model.graph.input[0].type.tensor_type.elem_type = 99
    _refused(model.SerializeToString(), CLASSES, "of type number 99", capsys)


@pytest.mark.parametrize("entry", [{"offset": "-5"}, {"length": "-1"}, {"offset": "much"}, {"length": "9"}])
def test_a_weight_whose_place_makes_no_sense_is_refused_in_one_line(
    entry: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    model = _model(_node("Tanh", "t", "y"))
    weight = model.graph.initializer[0]
    Path("weights.bin").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "weights.bin", **entry}.items():
        weight.external_data.add(key=key, value=value)
    _refused(model.SerializeToString(), CLASSES, "", capsys)


def test_a_weight_that_no_node_takes_is_refused_with_the_pieces_that_there_would_be(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = _model(_node("Cast", "t", "rows", to=TensorProto.INT64), _node("Gather", "table", "rows", "u"))
    model.graph.node.append(_node("ReduceMean", "u", "y", axes=[2], keepdims=0))
    model.opset_import[0].version = 17
    table = model.graph.initializer.add(name="table", dims=[9 << 22, 2], data_type=TensorProto.FLOAT)
    table.data_location = TensorProto.EXTERNAL
    table.external_data.add(key="location", value="weights.bin")
    with Path("weights.bin").open("wb") as file:
        file.truncate(9 << 25)  # takes no space
    _refused(
        model.SerializeToString(), ["--kind", "tensors"], "3 pieces with weights of 0, 288, 0 MiB", capsys
    )


def test_a_tree_of_scikit_learn_is_a_classifier_without_the_map_at_its_end() -> None:
    onnx.save_model(_tree(), "case.onnx")
    assert exit_code("models", "add", "case.onnx", *CLASSES, "--output", "y", "--store", "s") == 0
    store = ModelStore(Path("s"))
    application = store.application("case")
    rows = np.array([[-1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]], np.float32)
    (found,) = variant_outputs(
        application,
        application.variant("whole"),
        lambda each: stage_runtime(store, application, each),
        [rows],
    )
    assert found.argmax(axis=1).tolist() == [0, 1]


def test_an_answer_names_no_more_classes_than_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save_model(_model(_node("Tanh", "t", "y")), "case.onnx")
    assert exit_code("models", "add", "case.onnx", *CLASSES, "--top", "5", "--store", "s") == 2
    assert "--top 5: the network has 4 classes" in capsys.readouterr().err


def _refused(content: bytes, flags: Sequence[str], outcome: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("case.onnx").write_bytes(content)
    assert exit_code("models", "add", "case.onnx", *flags, "--store", "s") == 1
    (line,) = (each for each in capsys.readouterr().err.splitlines() if not each.startswith("case: "))
    assert outcome in line
    assert not Path("s", "case").exists()
