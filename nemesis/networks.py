"""Networks of a model store that are stored in pieces, put together by ONNX's own package."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

BATCH_SIZE = "splitplace.batch_size"
"""Pieces may read the number of images by this name; whoever joins them must make it."""

_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "float16": 10}


def session(folder: Path, chain: Mapping[str, Any], first: int, end: int) -> ort.InferenceSession:
    """Load a run of pieces as one network, in one thread.

    Args:
        folder: Folder with the files, each named by its hash.
        chain: What the manifest says of the chain.
        first: Number of the first piece.
        end: Number of the piece after the last one.
    """
    bodies = [(folder / piece["graph"]).read_bytes() for piece in chain["pieces"][first:end]]
    inputs, outputs = chain["bundles"][first], chain["bundles"][end]
    model = onnx.ModelProto(ir_version=chain["ir_version"])
    model.opset_import.extend(helper.make_opsetid(o["domain"], o["version"]) for o in chain["opsets"])
    model.graph.name = "stage"
    if any(BATCH_SIZE.encode() in body for body in bodies):
        _add_batch_size(model, inputs[0]["name"])
    for body in bodies:
        model.MergeFromString(body)
    model.graph.input.extend(_values(inputs))
    model.graph.output.extend(_values(outputs))
    onnx.load_external_data_for_model(model, str(folder))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _add_batch_size(model: onnx.ModelProto, source: str) -> None:
    for name, value in (("zero", 0), ("one", 1)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), name))
    model.graph.node.append(helper.make_node("Shape", [source], ["shape"]))
    model.graph.node.append(helper.make_node("Slice", ["shape", "zero", "one"], [BATCH_SIZE]))


def _values(bundle: Sequence[Mapping[str, Any]]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(
            tensor["name"], _TYPES[tensor["spec"]["dtype"]], ["batch", *tensor["spec"]["shape"]]
        )
        for tensor in bundle
    ]
