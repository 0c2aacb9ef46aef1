"""Exports a torch network as one self-contained ONNX file."""

import warnings
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import nn

OPSET = 20
INPUT_NAME = "images"
OUTPUT_NAME = "logits"
BATCH = "batch"


def export_network(network: nn.Module, example: NDArray[Any]) -> onnx.ModelProto:
    """Exports in evaluation mode, with a free batch dimension and all weights inside.

    Args:
        network: One input, one output, batch first.
        example: A batch that it accepts, of at least two items (an export treats a size of one as fixed).

    Returns:
        The checked model, with every intermediate shape inferred.
    """
    network.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the exporter uses deprecated parts of torch
        program = torch.onnx.export(
            network,
            (torch.from_numpy(example),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=({0: torch.export.Dim(BATCH)},),
            verbose=False,
        )
    if program is None:
        msg = "the exporter returned no program"
        raise RuntimeError(msg)
    return finish(program.model_proto)


def finish(model: onnx.ModelProto) -> onnx.ModelProto:
    """Infers every shape, removes notes of the exporter (they name files of the machine) and checks."""
    _strip(model)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    onnx.checker.check_model(inferred, full_check=True)
    return inferred


def file_content(model: onnx.ModelProto) -> bytes:
    """The model as the bytes of a fragment file; the same model always gives the same bytes."""
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _strip(model: onnx.ModelProto) -> None:
    graph = model.graph
    named = (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer)
    for part in (model, graph, *named):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
