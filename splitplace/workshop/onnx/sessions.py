"""Run whole models with ONNX Runtime, as the workshop's trials do: one thread, nothing logged."""

import onnx
import onnxruntime as ort

from splitplace.workshop.onnx.light import LARGE_MODEL_BYTES, as_file

_PROVIDERS = ["CPUExecutionProvider"]


def session_options() -> ort.SessionOptions:
    """Return options for one thread, and for silence: errors are raised anyway."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return options


def session_of(model: onnx.ModelProto, options: ort.SessionOptions | None = None) -> ort.InferenceSession:
    """Load a model; `options` are those of `session_options` unless given. Raises ONNX Runtime's errors."""
    chosen = options or session_options()
    if model.ByteSize() <= LARGE_MODEL_BYTES:
        return ort.InferenceSession(model.SerializeToString(), chosen, providers=_PROVIDERS)
    with as_file(model) as place:
        return ort.InferenceSession(str(place), chosen, providers=_PROVIDERS)
