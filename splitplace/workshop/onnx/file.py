"""Turn ONNX models into the files of fragments."""

from typing import Final

import onnx

from splitplace.workshop.onnx.branches import inner_graphs
from splitplace.workshop.onnx.light import without_weights

BATCH = "batch"
"""Name of the free first dimension."""
_NOTES: Final = ("metadata_props", "doc_string")


def finish(model: onnx.ModelProto) -> onnx.ModelProto:
    """Infer all shapes, strip the exporter's notes (they contain local file paths) and check the model.

    The model is changed in place, and returned.
    """
    _strip(model)
    bare, _ = without_weights(model)
    inferred = onnx.shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True)
    onnx.checker.check_model(inferred, full_check=True)
    for field in ("value_info", "output"):
        model.graph.ClearField(field)
        getattr(model.graph, field).MergeFrom(getattr(inferred.graph, field))
    return model


def file_content(model: onnx.ModelProto) -> bytes:
    """Serialise a model to the bytes of a fragment file; the same model always gives the same bytes."""
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _strip(model: onnx.ModelProto) -> None:
    for note in _NOTES:
        model.ClearField(note)
    _strip_graph(model.graph)


def _strip_graph(graph: onnx.GraphProto) -> None:
    named = (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer)
    for part in (graph, *named):
        for note in _NOTES:
            part.ClearField(note)
    graph.ClearField("quantization_annotation")
    for node in graph.node:
        for inner in inner_graphs(node):
            _strip_graph(inner)
