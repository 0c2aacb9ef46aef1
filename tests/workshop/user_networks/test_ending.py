"""What a network's output means is recognised, and the confidence that is served is the network's own."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from splitplace.messages.application import Scores
from splitplace.services.result_aggregator.merging import class_scores, condense
from splitplace.workshop.user_networks.ending import OutputKind
from splitplace.workshop.user_networks.from_onnx import Wishes, adopt
from splitplace.workshop.user_networks.reading import UserNetworkError

INPUTS = np.random.default_rng(3).standard_normal((6, 16)).astype(np.float32)


def _network(*ends: onnx.NodeProto, columns: int = 4, output: str = "y") -> onnx.ModelProto:
    """A layer with logits `z [N, columns]`, and what comes after it."""
    weight = np.random.default_rng(0).standard_normal((16, columns)).astype(np.float32)
    weights = [
        numpy_helper.from_array(weight, "w"),
        numpy_helper.from_array(np.array([0, columns, 1, 1]), "as-picture"),
        numpy_helper.from_array(np.array([1]), "last"),
    ]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["z"]), *ends],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _node(operator: str, source: str, made: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, [source], [made], **attributes)


def _output(model: onnx.ModelProto) -> NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: INPUTS})[0])


def _served(model: onnx.ModelProto, scores: Scores) -> list[tuple[int, float]]:
    """What the aggregator makes of the output of an adopted network."""
    logits = _output(model)
    found = class_scores([(range(logits.shape[1]), condense(logits))], scores=scores)
    return [(score.index, score.confidence) for score in found if score is not None]


SOFTMAX = _node("Softmax", "z", "s")
DECOMPOSED = (
    _node("Exp", "z", "e"),
    helper.make_node("ReduceSum", ["e", "last"], ["sum"], keepdims=1),
    helper.make_node("Div", ["e", "sum"], ["y"]),
)


@pytest.mark.parametrize(
    ("ends", "kind"),
    [
        ((_node("Softmax", "z", "y"),), "softmax"),
        ((SOFTMAX, _node("Identity", "s", "y")), "softmax"),
        ((SOFTMAX, helper.make_node("Reshape", ["s", "as-picture"], ["y"])), "softmax"),
        (
            (SOFTMAX, _node("Cast", "s", "c", to=TensorProto.FLOAT16), _node("Cast", "c", "y", to=1)),
            "softmax",
        ),
        (DECOMPOSED, "softmax"),
        ((_node("LogSoftmax", "z", "l"), _node("Identity", "l", "y")), "log-softmax"),
        ((_node("Sigmoid", "z", "y"),), "sigmoid"),
    ],
)
def test_the_confidence_served_is_the_networks_own(
    ends: tuple[onnx.NodeProto, ...], kind: OutputKind
) -> None:
    model = _network(*ends)
    own = _output(model).astype(np.float64).reshape(len(INPUTS), -1)
    if kind == "log-softmax":
        own = np.exp(own)
    adopted = adopt(model, None)
    assert adopted.kind == kind
    served = _served(adopted.model, adopted.scores)
    assert [index for index, _ in served] == own.argmax(axis=1).tolist()
    np.testing.assert_allclose([confidence for _, confidence in served], own.max(axis=1), rtol=2e-3)


def test_logits_are_left_as_they_are() -> None:
    adopted = adopt(_network(output="z"), None)
    assert (adopted.kind, adopted.scores) == ("logits", "softmax")
    np.testing.assert_allclose(_output(adopted.model), _output(_network(output="z")), rtol=1e-6)


def test_one_sigmoid_is_the_confidence_of_the_second_of_two_labels() -> None:
    adopted = adopt(_network(_node("Sigmoid", "z", "y"), columns=1), None)
    own = _output(_network(_node("Sigmoid", "z", "y"), columns=1)).ravel()
    served = _served(adopted.model, adopted.scores)
    assert [index for index, _ in served] == (own > 0.5).astype(int).tolist()
    np.testing.assert_allclose([share for _, share in served], np.maximum(own, 1 - own), rtol=1e-4)


def test_what_cannot_be_told_is_asked_for() -> None:
    alone = _network(output="z", columns=1)
    with pytest.raises(UserNetworkError, match="--output-kind"):
        adopt(alone, None)
    assert adopt(alone, None, Wishes(output_kind="logits")).kind == "logits"
    with pytest.raises(UserNetworkError, match="no sigmoid"):
        adopt(alone, None, Wishes(output_kind="sigmoid"))
    hard = _network(_node("HardSigmoid", "z", "y"))
    with pytest.raises(UserNetworkError, match="do not sum to 1"):
        adopt(hard, None)
    adopted = adopt(hard, None, Wishes(output_kind="sigmoid"))
    np.testing.assert_allclose(
        [share for _, share in _served(adopted.model, adopted.scores)], _output(hard).max(axis=1), atol=1e-4
    )


def test_a_map_is_no_answer_of_classes() -> None:
    tile = numpy_helper.from_array(np.array([0, 2, 2]), "map")
    model = _network(helper.make_node("Reshape", ["z", "map"], ["y"]))
    model.graph.initializer.append(tile)
    with pytest.raises(UserNetworkError, match="no classifier"):
        adopt(model, None)
