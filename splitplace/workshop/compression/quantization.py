"""Quantisation to eight bits: weights and activations take a quarter of the space, arithmetic is faster."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from splitplace.workshop.onnx.file import file_content, finish

QUANTIZED = ("Conv", "Gemm", "MatMul", "Add", "Relu", "MaxPool")
"""Operators that compute in eight bits. There is no eight-bit normalisation, so these stay in float32."""
CALIBRATION_BATCH = 64


def quantize(model: onnx.ModelProto, images: NDArray[Any]) -> onnx.ModelProto:
    """Quantise a trained network or fragment, using the ranges of its tensors on sample images.

    Activations become `uint8`, weights `int8` with a scale for every output channel. Weights use only seven
    bits: processors without dot products of bytes (VNNI) add pairs of products in 16 bits, which would
    overflow with eight. The logits stay `float32`, because small differences between them decide.

    Args:
        model: One input, one output, a free batch dimension, as `onnx.export` makes it. It is not changed.
        images: Inputs of the model, `[N, ...]`; a few hundred that are not used for testing.

    Returns:
        The checked model, with the same input and output. Operators `QuantizeLinear` and `DequantizeLinear`
        hold the range of each tensor; ONNX Runtime computes in bytes between them.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, prepared, target = (
            Path(folder) / f"{name}.onnx" for name in ("source", "prepared", "target")
        )
        source.write_bytes(file_content(model))
        # Fold normalisations into the convolutions before them.
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            target,
            _Calibration(model.graph.input[0].name, images),
            op_types_to_quantize=list(QUANTIZED),
            nodes_to_exclude=_makers_of_output(onnx.load(prepared)),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,
        )
        quantized = onnx.load(target)
    _forget_unused_operators(quantized)
    return finish(quantized)


def _makers_of_output(model: onnx.ModelProto) -> Sequence[str]:
    outputs = {value.name for value in model.graph.output}
    return [node.name for node in model.graph.node if outputs.intersection(node.output)]


def _forget_unused_operators(model: onnx.ModelProto) -> None:
    """Remove operator sets that the tools declare but the model does not use; some readers refuse them."""
    used = {node.domain for node in model.graph.node}
    kept = [declared for declared in model.opset_import if declared.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Feeds images to the calibration in batches."""

    def __init__(self, name: str, images: NDArray[Any]) -> None:
        starts = range(0, len(images), CALIBRATION_BATCH)
        self._batches = iter([{name: images[start : start + CALIBRATION_BATCH]} for start in starts])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._batches, None)
