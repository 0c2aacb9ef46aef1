"""Eight-bit networks in the forms of ONNX Runtime's quantiser answer, whole and cut, as the file does."""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, save_model
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static

from splitplace.storage.model_store import ModelStore
from splitplace.workshop.packing.evaluation import variant_logits
from splitplace.workshop.pieces.loaded import stage_runtime
from tests.support.commands import exit_code
from tests.support.network_cases import CASES, SIDE


class _Pictures(CalibrationDataReader):  # type: ignore[misc] # it has no types
    def __init__(self) -> None:
        random = np.random.default_rng(0)
        shape = (1, 3, SIDE, SIDE)
        self._left: Iterator[NDArray[np.float32]] = iter(
            [random.uniform(0, 1, shape).astype(np.float32) for _ in range(4)]
        )

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        picture = next(self._left, None)
        return None if picture is None else {"x": picture}


@pytest.mark.parametrize("form", ["dynamic", "QDQ", "QOperator"])
@pytest.mark.usefixtures("labels")
def test_a_quantised_network_answers_as_the_file(form: str) -> None:
    save_model(CASES["long_skip"](), "float.onnx")
    if form == "dynamic":
        quantize_dynamic("float.onnx", "case.onnx")
    else:
        quantize_static("float.onnx", "case.onnx", _Pictures(), quant_format=QuantFormat[form])
    classes = ("--labels", "labels.txt", "--accuracy", "0.5")
    assert exit_code("models", "add", "case.onnx", *classes, "--store", "store") == 0
    store = ModelStore(Path("store"))
    application = store.application("case")
    images = np.random.default_rng(1).integers(0, 256, (3, 3, SIDE, SIDE), dtype=np.uint8)
    session = ort.InferenceSession("case.onnx", providers=["CPUExecutionProvider"])
    rows = [session.run(None, {"x": (images[row : row + 1] / 255).astype(np.float32)})[0] for row in range(3)]
    expected = np.concatenate([np.asarray(row) for row in rows])
    for variant in application.variants:
        logits = variant_logits(application, variant, partial(stage_runtime, store, application), images)
        steps = 0.02 * float(np.abs(expected).max())  # rounding of the input may move a value by a step
        np.testing.assert_allclose(logits, expected, atol=steps)


@pytest.mark.usefixtures("labels")
def test_tokens_are_not_quantised_together_with_those_of_others() -> None:
    save_model(CASES["int_tokens"](), "float.onnx")
    quantize_dynamic("float.onnx", "case.onnx")
    classes = ("--labels", "labels.txt", "--accuracy", "0.5")
    assert exit_code("models", "add", "case.onnx", *classes, "--store", "store") == 0
    store = ModelStore(Path("store"))
    application = store.application("case")
    tokens = np.random.default_rng(1).integers(0, 30, (3, 64), dtype=np.int32)
    tokens[0] = 7  # its mean is larger than those of mixed tokens
    session = ort.InferenceSession("case.onnx", providers=["CPUExecutionProvider"])
    rows = [np.asarray(session.run(None, {"x": tokens[row : row + 1]})[0]) for row in range(3)]
    for variant in application.variants:
        logits = variant_logits(application, variant, partial(stage_runtime, store, application), tokens)
        np.testing.assert_allclose(logits, np.concatenate(rows), atol=1e-5)


@pytest.mark.usefixtures("labels")
def test_a_chain_of_float16_is_rounded_where_it_is_cut() -> None:
    random = np.random.default_rng(0)
    sides = [6, *[64] * 8, 4]
    nodes, weights = [helper.make_node("Cast", ["x"], ["h0"], to=TensorProto.FLOAT16)], []
    for number, (rows, columns) in enumerate(pairwise(sides)):
        values = (random.standard_normal((rows, columns)) * 2 / rows**0.5).astype(np.float16)
        weights.append(numpy_helper.from_array(values, f"w{number}"))
        nodes.append(helper.make_node("MatMul", [f"h{number}", f"w{number}"], [f"m{number}"]))
        nodes.append(helper.make_node("Tanh", [f"m{number}"], [f"h{number + 1}"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])
    y = helper.make_tensor_value_info(f"h{len(sides) - 1}", TensorProto.FLOAT16, ["N", 4])
    opsets = [helper.make_opsetid("", 17)]
    save_model(
        helper.make_model(helper.make_graph(nodes, "halves", [x], [y], weights), opset_imports=opsets),
        "case.onnx",
    )
    assert exit_code("models", "add", "case.onnx", "--kind", "tensors", "--store", "store") == 0
    application = ModelStore(Path("store")).application("case")
    assert application.variant("layer").stages[-1].source != "input"
