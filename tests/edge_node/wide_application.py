"""An application whose tensors fill several chunks: ReLU, then the sum of each half."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from splitplace.messages.application import Application, Stage, Variant
from splitplace.storage.model_store import ModelStore
from tests.support.chains import contents, cut_at, named, run_of

WIDTH = 100_000


def _constant(name: str, values: list[int]) -> onnx.NodeProto:
    tensor = numpy_helper.from_array(np.asarray(values, np.int64))
    return helper.make_node("Constant", [], [name], value=tensor)


def build_wide_application(root: Path) -> Application:
    """Writes the application `wide` into the store `root` and returns it."""
    nodes = [
        helper.make_node("Relu", ["source"], ["between"]),
        _constant("shape", [-1, 2, WIDTH // 2]),
        _constant("axes", [2]),
        helper.make_node("Reshape", ["between", "shape"], ["parts"]),
        helper.make_node("ReduceSum", ["parts", "axes"], ["target"], keepdims=0),
    ]
    source = helper.make_tensor_value_info("source", TensorProto.FLOAT, ["batch", WIDTH])
    target = helper.make_tensor_value_info("target", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "wide", [source], [target])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    cut = cut_at(model, "between")
    chain = named("wide", cut)
    figures: dict[str, Any] = {
        "weight_bytes": 0,
        "peak_memory_bytes": 1_000_000,
        "flops_per_image": float(WIDTH),
        "milliseconds_per_image": 0.1,
        "milliseconds_per_call": 0.1,
    }
    relu, halves = (run_of(chain, index, index + 1, **figures) for index in range(2))
    stages = (
        Stage(name="relu", fragment=relu.sha256, source="input"),
        Stage(name="halves", fragment=halves.sha256, source="relu", classes=(0, 1)),
    )
    application = Application(
        name="wide",
        title="Sums of halves",
        input=relu.input,
        labels=("left", "right"),
        default_deadline_ms=1000.0,
        reference_score=50.0,
        variants=(
            Variant(
                name="layer", kind="layer", stages=stages, micro_batch=8, accuracy=1.0, accuracy_images=1
            ),
        ),
        fragments=(relu, halves),
        chains=(chain,),
    )
    ModelStore(root).save(application, contents(cut))
    return application
